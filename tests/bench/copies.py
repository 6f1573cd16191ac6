"""
C{iscsi-twisted copy} beside C{qemu-img convert}: C{python -m tests.bench.copies [--mib N] [--rounds N]}.

The same unit, image and file for both, in turn.  Once without waiting for the disk at the end, as qemu-img
does if nothing else is said; once with it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from tests.bench.servers import ROOT, Ours, Server, Tgt, fill

TOOL = (sys.executable, "-c", "from iscsi_twisted.cli.tool import main; main()", "copy", "--quiet")
QEMU = ("qemu-img", "convert", "-f", "raw", "-O", "raw")


def seconds(*arguments: str) -> float:
    """How long a command takes."""
    began = time.perf_counter()
    subprocess.run(arguments, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def measure(server: Server, image: Path, mib: int, rounds: int) -> None:
    """Print a line for each direction and manner."""
    out = str(server.folder / "out")
    for flush in (False, True):
        ours = TOOL if flush else (*TOOL, "--no-flush")
        qemu = (*QEMU, "-t", "writeback") if flush else QEMU
        for name, source, sink, there in (
            ("unit to file", server.url, out, ()),
            ("file to unit", str(image), server.url, ("-n",)),
        ):
            theirs, taken = [], []
            for _ in range(rounds):
                for times, command in ((theirs, (*qemu, *there)), (taken, ours)):
                    Path(out).unlink(missing_ok=True)
                    times.append(seconds(*command, source, sink))
            mine, other = mib / median(taken), mib / median(theirs)
            print(
                f"{server.name:14} {name} {'flushed' if flush else 'cached':8} {mine:6.0f} MiB/s,"
                f" qemu-img {other:6.0f} MiB/s, {mine / other:.2f} of it",
                flush=True,
            )


def main() -> None:
    """Measure against both targets."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.copies")
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=[Ours.name, Tgt.name])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image"
        fill(image, options.mib << 20)
        for kind in (Ours, Tgt):
            if options.only in (None, kind.name):
                server = kind(Path(folder))
                fill(server.disk, options.mib << 20)
                server.start()
                try:
                    measure(server, image, options.mib, options.rounds)
                finally:
                    server.stop()


if __name__ == "__main__":
    main()
