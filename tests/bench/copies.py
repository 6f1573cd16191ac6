"""
C{iscsi-twisted copy} beside C{qemu-img convert}: C{python -m tests.bench.copies [--mib N] [--rounds N]}.

The same unit, image and file for both, in turn.  Once without waiting for the disk at the end, as qemu-img
does if nothing else is said; once with it; neither compares what it has copied.  And once with that: ours
with C{--verify}, theirs followed by C{qemu-img compare}.

Each begins with nothing left to write by the one before.  The ratio is that of the median round, with the
worst and the best; behind it CPU seconds of the client and of the server, which a busy machine spoils less.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.bench.servers import ROOT, Ours, Server, Tgt, fill

TOOL = (sys.executable, "-c", "from iscsi_twisted.cli.tool import main; main()", "copy", "--quiet")
QEMU = ("qemu-img", "convert", "-f", "raw", "-O", "raw")
COMPARE = ("qemu-img", "compare", "-f", "raw", "-F", "raw")


class Taken(NamedTuple):
    """
    What one copy took.

    @ivar seconds: by the clock.
    @ivar cpu: seconds of the client's CPU time.
    @ivar server: seconds of the server's.
    """

    seconds: float
    cpu: float
    server: float


def take(server: Server, commands: Sequence[Sequence[str]]) -> Taken:
    """Run commands, one after the other, on a disk that has nothing to do."""
    os.sync()
    served, used, began = server.cpu(), resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    for command in commands:
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    taken, now = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return Taken(taken, cpu, (server.cpu() - served) / 1e6)


def measure(server: Server, image: Path, mib: int, rounds: int) -> None:
    """Print a line for each direction and manner."""
    out = server.folder / "out"
    for manner, options, wait in (
        ("cached", ["--no-flush"], []),
        ("flushed", [], ["-t", "writeback"]),
        ("compared", ["--no-flush", "--verify"], []),
    ):
        for name, ends, there in (
            ("unit to file", (server.url, str(out)), []),
            ("file to unit", (str(image), server.url), ["-n"]),
        ):
            qemu = [[*QEMU, *wait, *there, *ends]]
            if manner == "compared":
                qemu.append([*COMPARE, *ends])
            runs = []
            for _ in range(rounds):
                pair = []
                for commands in (qemu, [[*TOOL, *options, *ends]]):
                    out.unlink(missing_ok=True)
                    pair.append(take(server, commands))
                runs.append(pair)
            print(f"{server.name:14} {name} {manner:8} {told(runs, mib)}", flush=True)


def told(runs: Sequence[Sequence[Taken]], mib: int) -> str:
    """Theirs and ours, round by round, as a line."""
    ratios = sorted(theirs.seconds / ours.seconds for theirs, ours in runs)
    rates, cpu = [], []
    for each in zip(*runs, strict=True):
        rates.append(mib / median(one.seconds for one in each))
        cpu.append(f"{median(one.cpu for one in each):.2f}+{median(one.server for one in each):.2f}")
    return (
        f"{rates[1]:6.0f} MiB/s, qemu-img {rates[0]:6.0f} MiB/s, {median(ratios):.2f} of it"
        f" ({ratios[0]:.2f} to {ratios[-1]:.2f}); CPU {cpu[1]} s, {cpu[0]} s"
    )


def main() -> None:
    """Measure against both targets."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.copies")
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=[Ours.name, Tgt.name])
    parser.add_argument("--folder", help="where the disks are made; a temporary directory if not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
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
