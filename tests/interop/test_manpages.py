"""Man pages, as Sphinx makes them and man shows them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.bench.servers import ROOT
from tests.support.manual import WORDS


def test_options(tmp_path: Path) -> None:
    """Every command has a page with all its options."""
    builder = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "man", str(ROOT / "docs"), str(tmp_path)]
    subprocess.run(builder, cwd=ROOT, check=True)
    for name, words in WORDS.values():
        text = (tmp_path / name).read_text().replace("\\-", "-")
        assert f'.TH "{name[:-2].upper()}" "1"' in text
        assert [word for word in sorted(words) if word not in text] == []
