"""
C{iscsi-twisted copy} beside C{qemu-img convert}: C{python -m tests.bench.copies [--mib N] [--rounds N]}.

The same units, image and file for both: from a unit to a file, from a file to a unit, and from one unit of
a target to another, with this project's target, tgt and istgt.  Both take turns, and who begins changes
from round to round, so that neither always meets what the other has left; each begins with nothing left to
write by the one before, and with memory at hand for a new file: see L{warm}.

C{cached} does not wait for the disk at the end, as qemu-img does not if nothing else is said; C{flushed}
does; neither compares what it has copied.  C{compared} does: ours with C{--verify}, theirs followed by
C{qemu-img compare}.

Of each the best and the median rate are printed, with ours as a part of theirs; behind them the median CPU
seconds of the client and of the server, which a busy machine spoils less.  The best tells what a program can
do, the median also of what the machine does.

Ours starts with its modules compiled, as an installed program does, also where the environment keeps Python
from leaving them so.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.bench.servers import ROOT, Istgt, OursOf, Server, Tgt, Unavailable, fill

TOOL = (sys.executable, "-c", "from iscsi_twisted.cli.tool import main; main()", "copy", "--quiet")
QEMU = ("qemu-img", "convert", "-f", "raw", "-O", "raw")
COMPARE = ("qemu-img", "compare", "-f", "raw", "-F", "raw")

MANNERS = {
    "cached": (["--no-flush"], []),
    "flushed": ([], ["-t", "writeback"]),
    "compared": (["--no-flush", "--verify"], []),
}
WAYS = ("unit to file", "file to unit", "unit to unit")


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


class OursTwo(OursOf):
    """This project's target with two disks."""

    def __init__(self, folder: Path) -> None:
        made = folder / self.name
        lines = [
            f"extent0 {made}/disk 0 size",
            f"extent1 {made}/second 0 size",
            "target0 extent0 extent1 127.0.0.0/8",
        ]
        super().__init__(folder, "\n".join(lines) + "\n")


class TgtTwo(Tgt):
    """tgt with two disks."""

    def configure(self) -> None:
        super().configure()
        self._tell(f"--op new --mode logicalunit --lun 2 -b {secondDisk(self)}")


class IstgtTwo(Istgt):
    """istgt with two disks."""

    def units(self) -> str:
        return f"{super().units()}  LUN1 Storage {secondDisk(self)} Auto\n"


KINDS: tuple[type[Server], ...] = (OursTwo, TgtTwo, IstgtTwo)


def secondDisk(server: Server) -> Path:
    """The disk that the number after the first one's has."""
    return server.folder / "second"


def installed(folder: Path) -> dict[str, str]:
    """The environment of a program whose modules were compiled when it was installed, or was run first."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(folder / "compiled")}


def warm(path: Path, mib: int) -> None:
    """
    Let the system have as much memory at hand as a new file needs.  A virtual machine that has given it back
    to its host gets it a page at a time, which takes longer than the copy, and longer for whoever comes last.
    """
    piece = bytes(1 << 20)
    with open(path, "wb") as file:
        for _ in range(mib):
            file.write(piece)
    path.unlink()


def take(server: Server, commands: Sequence[Sequence[str]], warmed: int = 0) -> Taken:
    """
    Run commands, one after the other, on a disk that has nothing to do.

    @param warmed: MiB of memory that is to be at hand.
    """
    os.sync()
    warm(server.folder / "scratch", warmed)
    served, used, began = server.cpu(), resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    for command in commands:
        subprocess.run(
            command, cwd=ROOT, env=installed(server.folder.parent), check=True, stdout=subprocess.DEVNULL
        )
    taken, now = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return Taken(taken, cpu, (server.cpu() - served) / 1e6)


def compare(server: Server, way: str, manner: str, image: Path, rounds: int) -> list[tuple[Taken, Taken]]:
    """What ours and theirs took, round by round."""
    out = server.folder / "out"
    ends, there = {
        "unit to file": ([server.url, str(out)], []),
        "file to unit": ([str(image), server.url], ["-n"]),
        "unit to unit": ([server.url, f"{server.url.rpartition('/')[0]}/{server.lun + 1}"], ["-n"]),
    }[way]
    options, wait = MANNERS[manner]
    ours: list[list[str]] = [[*TOOL, *options, *ends]]
    theirs: list[list[str]] = [[*QEMU, *wait, *there, *ends]]
    if manner == "compared":
        theirs.append([*COMPARE, *ends])
    warmed = image.stat().st_size >> 20 if way == "unit to file" else 0
    runs: list[tuple[Taken, Taken]] = []
    for number in range(rounds):
        taken: dict[int, Taken] = {}
        for which in ((0, 1), (1, 0))[number % 2]:
            out.unlink(missing_ok=True)
            taken[which] = take(server, (ours, theirs)[which], warmed)
        runs.append((taken[0], taken[1]))
    out.unlink(missing_ok=True)
    return runs


def told(runs: Sequence[tuple[Taken, Taken]], mib: int) -> str:
    """What ours and theirs took, as a line."""
    ours, theirs = zip(*runs, strict=True)
    words = []
    for what, choose in (("best", min), ("median", median)):
        one, other = choose(each.seconds for each in ours), choose(each.seconds for each in theirs)
        words.append(f"{what} {mib / one:5.0f} of {mib / other:5.0f} MiB/s {other / one:5.2f}")
    used = (
        f"{median(each.cpu for each in ours):.2f}+{median(each.server for each in ours):.2f} s",
        f"{median(each.cpu for each in theirs):.2f}+{median(each.server for each in theirs):.2f} s",
    )
    return f"{', '.join(words)}; CPU {used[0]}, theirs {used[1]}"


def copies(
    folder: Path,
    rounds: int,
    mib: int = 1024,
    manners: Sequence[str] = ("cached",),
    ways: Sequence[str] = WAYS,
    only: Sequence[str] = (),
) -> Iterator[str]:
    """Lines with the rate of each way and manner, with all targets that this machine has."""
    image = folder / "image"
    fill(image, mib << 20)
    for kind in KINDS:
        if only and kind.name not in only:
            continue
        server = kind(folder)
        for disk in (server.disk, secondDisk(server)):
            fill(disk, mib << 20)
        try:
            server.start()
        except Unavailable as error:
            yield f"copies: left out: {error}"
            continue
        try:
            take(server, [[*TOOL[:-2], "capacity", server.url]])
            for manner in manners:
                for way in ways:
                    runs = compare(server, way, manner, image, rounds)
                    yield f"{server.name:13} {way} {manner:8} {told(runs, mib)}"
        finally:
            server.stop()


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.copies")
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--only", action="append", choices=[kind.name for kind in KINDS])
    parser.add_argument("--manner", action="append", choices=list(MANNERS))
    parser.add_argument("--way", action="append", choices=WAYS)
    parser.add_argument("--folder", help="where the disks are made; a temporary directory if not given")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        for line in copies(
            Path(folder),
            chosen.rounds,
            chosen.mib,
            chosen.manner or list(MANNERS),
            chosen.way or WAYS,
            chosen.only or (),
        ):
            print(line, flush=True)


if __name__ == "__main__":
    main()
