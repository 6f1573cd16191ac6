"""Man pages, as Sphinx makes them and man shows them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.servers import ROOT
from tests.support.manual import WORDS


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of them."""
    folder = tmp_path_factory.mktemp("pages")
    builder = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "man", str(ROOT / "docs"), str(folder)]
    subprocess.run(builder, cwd=ROOT, check=True)
    return folder


def test_options(pages: Path) -> None:
    """Every command has a page with all its options."""
    for name, words in WORDS.values():
        text = (pages / name).read_text().replace("\\-", "-")
        assert f'.TH "{name[:-2].upper()}" "1"' in text
        assert [word for word in sorted(words) if word not in text] == []


def test_shown(pages: Path) -> None:
    """Each page is shown by man on a terminal of the usual width without a warning, and has its name."""
    shown = os.environ | {"MANWIDTH": "78", "LC_ALL": "C.UTF-8"}
    names = sorted(path.name for path in pages.iterdir() if path.suffix in (".1", ".5"))
    assert names == ["iscsi-harness.1", "iscsi-targets.5", "iscsi-twisted.1", "twistd-iscsi.1"]
    for name in names:
        page = str(pages / name)
        done = subprocess.run(["man", "-l", page], capture_output=True, text=True, check=True, env=shown)
        assert f"NAME {name[:-2]} - " in " ".join(done.stdout.split())
        strict = ["groff", "-t", "-man", "-ww", "-z", "-Tutf8", "-rLL=78n", page]
        done = subprocess.run(strict, capture_output=True, text=True, check=True)
        assert done.stdout + done.stderr == ""
