"""What devices made of devices cost, and what large ones cost at the start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median

from tests.bench.loads import image, perf
from tests.bench.servers import OursOf, fill

MIB = 1 << 20
DISK = 64 * MIB

KINDS = {
    "plain": "target0 extent0 any\n",
    "concatenation": "device0 RAID0 extent0 extent1\ntarget0 device0 any\n",
    "filters off": "device0 DELAY extent0 seconds=1 active=no\ndevice1 FAULTS device0 kind=error active=no\n"
    "device2 RATE device1 iops=1 active=no\ntarget0 device2 any\n",
    "direct": "target0 extent0 any\n",
}
"""What stands on the extents."""

HUGE = 1 << 40


def _lines(folder: Path, kind: str) -> str:
    """A targets file of that kind."""
    path = folder / "disk"
    if kind == "concatenation":
        half = DISK // 2
        return f"extent0 {path} 0 {half}\nextent1 {path} {half} {half}\n{KINDS[kind]}"
    option = " direct=yes" if kind == "direct" else ""
    return f"extent0 {path} 0 {DISK}{option}\n{KINDS[kind]}"


def layers(folder: Path, seconds: float, rounds: int) -> Iterator[str]:
    """Reads and writes of 4 KiB through several kinds of devices, which take turns."""
    servers: dict[str, OursOf] = {}
    loads = {"reads": perf(32, 4096, True), "writes": image(32, 4096, 68 * 1024, 20000)}
    try:
        for number, kind in enumerate(KINDS):
            apart = folder / str(number)
            apart.mkdir()
            fill(apart / "disk", DISK)
            servers[kind] = OursOf(apart, _lines(apart, kind))
            servers[kind].start()
        for name, load in loads.items():
            cost: dict[str, list[float]] = {kind: [] for kind in KINDS}
            rate: dict[str, list[float]] = {kind: [] for kind in KINDS}
            for _ in range(rounds):
                for kind, server in servers.items():
                    before = server.cpu()
                    count, taken = load(server, seconds)
                    cost[kind].append((server.cpu() - before) / count)
                    rate[kind].append(count / taken)
            plain = median(cost["plain"])
            for kind in KINDS:
                each = median(cost[kind])
                yield (
                    f"{name} of 4 KiB, {kind}: {median(rate[kind]):,.0f} a second, {each:.1f} us CPU each"
                    f" ({min(cost[kind]):.1f} to {max(cost[kind]):.1f}), x{each / plain:.2f}"
                )
    finally:
        for server in servers.values():
            server.stop()


def huge(folder: Path) -> Iterator[str]:
    """The start with four extents of 1 TiB and a mirror of two more, beside that with one of 1 MiB."""
    names = "abcdef"
    extents = "".join(f"extent{n} {folder / name} 0 {HUGE}\n" for n, name in enumerate(names))
    targets = "".join(f"target{n} extent{n} any\n" for n in range(4))
    large = f"{extents}device0 RAID1 extent4 extent5\n{targets}target4 device0 any\n"
    small = f"extent0 {folder / 'small'} 0 1M\ntarget0 extent0 any\n"
    for title, lines in (("one disk of 1 MiB", small), ("four disks of 1 TiB and a mirror of two", large)):
        took, used, memory = [], [], 0.0
        for number in range(3):
            apart = folder / f"{len(lines)}.{number}"
            apart.mkdir()
            server = OursOf(apart, lines)
            took.append(server.start())
            used.append(server.cpu() / 1e6)
            memory = server.rss()
            server.stop()
        blocks = sum((folder / name).stat().st_blocks for name in names if (folder / name).exists())
        yield (
            f"start with {title}: {median(took):.2f} s, {median(used):.2f} s of CPU, {memory:.1f} MiB;"
            f" {blocks // 2} KiB on disk"
        )
