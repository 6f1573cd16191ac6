"""
What mirrors cost: writes beside those of a plain extent, copying a member beside C{dd}, and starting large
ones.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from tests.bench.loads import image
from tests.bench.servers import OursOf, fill

KIB = 1024
SIZE = 256 << 20
COPIED = 1 << 30


class Plain(OursOf):
    """A target with a file."""

    name = "plain"

    def __init__(self, folder: Path, size: int) -> None:
        super().__init__(folder, f"extent0 {folder / self.name / 'disk'} 0 {size}\ntarget0 extent0 any\n")


class Mirrored(OursOf):
    """A target with a mirror of two files."""

    name = "mirrored"

    def __init__(self, folder: Path, size: int) -> None:
        first, second = (folder / self.name / name for name in ("disk", "other"))
        super().__init__(
            folder,
            f"extent0 {first} 0 {size}\nextent1 {second} 0 {size}\n"
            "device0 RAID1 extent0 extent1\ntarget0 device0 any\n",
        )
        self.other = second
        self.options: list[str] = []

    def arguments(self) -> list[str]:
        return [*super().arguments(), *self.options]

    def said(self, what: str) -> bool:
        """Whether the log has a line with this."""
        return what in (self.folder / "log").read_text("utf-8", "replace")

    def whenSaid(self, what: str) -> float:
        """Seconds until the log has a line with this."""
        began = time.monotonic()
        while not self.said(what):
            if time.monotonic() - began > 120:
                raise AssertionError(f"the log has no {what}")
            time.sleep(0.01)
        return time.monotonic() - began


def writes(folder: Path, seconds: float, rounds: int) -> Iterator[str]:
    """The CPU of writes to a mirror beside that of writes to a file."""
    servers = (Plain(folder, SIZE), Mirrored(folder, SIZE))
    for server in servers:
        fill(server.disk, SIZE)
        if isinstance(server, Mirrored):
            shutil.copyfile(server.disk, server.other)
        server.start()
    servers[1].whenSaid('"event": "compare"')
    try:
        for size, step, guess in ((4 * KIB, 68 * KIB, 30000), (64 * KIB, 64 * KIB, 8000)):
            cpus: tuple[list[float], list[float]] = ([], [])
            for _ in range(rounds + 1):
                for server, found in zip(servers, cpus, strict=True):
                    before = server.cpu()
                    count, _ = image(32, size, step, guess)(server, seconds)
                    found.append((server.cpu() - before) / count)
            # The first round allocates what all others write.
            plain, mirrored = (median(found[1:]) for found in cpus)
            yield (
                f"mirror, {size >> 10} KiB writes at depth 32: {mirrored:.1f} us of CPU each, "
                f"x{mirrored / plain:.2f} of a plain extent's {plain:.1f}"
            )
    finally:
        for server in servers:
            server.stop()


def copying(folder: Path) -> Iterator[str]:
    """Copying all to a new member, beside what C{dd} takes between the same files."""
    server = Mirrored(folder, COPIED)
    fill(server.disk, COPIED)
    theirs = []
    for _ in range(3):
        began = time.monotonic()
        command = ["dd", f"if={server.disk}", f"of={server.other}", "bs=1M", "conv=fsync,notrunc"]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        theirs.append(time.monotonic() - began)
    server.options = ["--force-member", "extent0"]
    ours = []
    for _ in range(3):
        subprocess.run(["rm", "-rf", str(server.folder / "state")], check=True)
        server.start()
        ours.append(server.whenSaid('"was": "resyncing", "state": "in sync"'))
        server.stop()
    mib = COPIED >> 20
    yield (
        f"resync of {mib} MiB: {mib / median(ours):,.0f} MiB/s, x{median(theirs) / median(ours):.2f} of dd's"
        f" {mib / median(theirs):,.0f}"
    )


def large(folder: Path) -> Iterator[str]:
    """Starting a mirror of 1 TiB, new and known."""
    server = Mirrored(folder, 1 << 40)
    plain = Plain(folder, 1 << 20)
    base = plain.start()
    plain.stop()
    for what in ("new", "known"):
        took = server.start()
        if what == "new":
            server.whenSaid('"event": "compare"')
        server.stop()
        (record,) = (server.folder / "state" / "mirrors").iterdir()
        yield (
            f"a {what} mirror of 1 TiB: serving {took:.2f} s after its start (a small disk {base:.2f} s),"
            f" record of {record.stat().st_size} bytes"
        )


def mirror(folder: Path, seconds: float, rounds: int) -> Iterator[str]:
    """All of them."""
    for number, part in enumerate((lambda at: writes(at, seconds, rounds), copying, large)):
        apart = folder / str(number)
        os.mkdir(apart)
        yield from part(apart)
