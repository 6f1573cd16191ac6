"""
Fuzzing guided by coverage: atheris over L{tests.long.inputs}, from C{tests/data/fuzz} on.

C{python -m tests.long.guided NAME [FOLDER] [OPTION OF LIBFUZZER]...} runs one in this process; what it finds
is added to the folder.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

CORPUS = Path(__file__).resolve().parent.parent / "data" / "fuzz"

NAMES = ("framer", "keys", "session", "units")

LONGEST = 2048
"""Bytes of one input: some tens of PDUs."""

_DONE = re.compile(r"Done (\d+) ")


def main() -> None:
    """Run one until libFuzzer ends the process."""
    import atheris  # type: ignore[import-not-found, unused-ignore]

    with atheris.instrument_imports(include=["iscsi_twisted"]):
        from tests.long.inputs import INPUTS
    name, *options = sys.argv[1:]
    atheris.Setup([sys.argv[0], *options, str(CORPUS / name)], INPUTS[name])
    atheris.Fuzz()


def guided(seconds: float, seed: int) -> tuple[list[str], list[str]]:
    """
    Run each for its share of the time, in a process of its own.

    @return: what was done, and what went wrong.
    """
    lines, faults = [], []
    share = max(1, round(seconds / len(NAMES)))
    for name in NAMES:
        with tempfile.TemporaryDirectory() as folder:
            options = [
                f"-max_total_time={share}", f"-seed={seed}", f"-max_len={LONGEST}",
                f"-artifact_prefix={folder}/", "-rss_limit_mb=1024",
            ]  # fmt: skip
            command = [sys.executable, "-m", "tests.long.guided", name, folder, *options]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        printed = done.stdout + done.stderr
        runs = _DONE.search(printed)
        lines.append(f"{name}: {runs.group(1) if runs else 'no'} executions")
        if done.returncode or runs is None:
            faults.append(f"{name}:\n{printed[-4000:]}")
    return lines, faults


if __name__ == "__main__":
    main()
