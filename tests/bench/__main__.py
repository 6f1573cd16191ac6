"""
Speed and size of the target, beside those of tgt and istgt.

Run C{python -m tests.bench} in the root of the checkout; it needs C{iscsi-perf}, C{qemu-img} with
its block drivers, C{tgtd} and C{istgt}.  Servers take turns within each round, so that a machine whose
speed drifts treats all alike.  Read the ratios; the numbers are this machine's, on loopback.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from tests.bench import layers, mirrors, sizes
from tests.bench.copies import copies
from tests.bench.flood import flood
from tests.bench.loads import ROWS, Figures, Row
from tests.bench.servers import Istgt, Ours, Server, Tgt, Unavailable, fill

KINDS: list[type[Server]] = [Ours, Tgt, Istgt]
SIZES = {
    "idle": sizes.idle,
    "many": sizes.many,
    "huge": layers.huge,
    "slow": sizes.slow,
    "layers": layers.layers,
    "mirror": mirrors.mirror,
    "client": sizes.client,
    "flood": flood,
    "copies": lambda folder, seconds, rounds: copies(folder, rounds),
}
TIMED = ("slow", "layers", "mirror", "client", "flood", "copies")
"""Those that take seconds and rounds."""

Results = dict[str, list[Figures]]


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.split("\n\n")[0])
    names = [row.name for row in ROWS] + list(SIZES)
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help=f"which to run: {', '.join(names)}; all if none"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run")
    parser.add_argument("--quick", action="store_true", help="one round of one second")
    parser.add_argument("--size", type=int, default=256, help="MiB of each disk")
    parser.add_argument("--folder", help="where the disks are made; a temporary directory if not given")
    parser.add_argument(
        "--only",
        action="append",
        choices=("iscsi_twisted", "tgt", "istgt"),
        help="leave the other servers out",
    )
    parser.add_argument("--command", help="what starts our target, up to its own options")
    chosen = parser.parse_args()
    unknown = set(chosen.rows) - set(names)
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    if chosen.quick:
        chosen.rounds, chosen.seconds = 1, 1.0
    if chosen.command:
        Ours.command = shlex.split(chosen.command)
    return chosen


def start(folder: Path, size: int, only: list[str] | None) -> Iterator[Server]:
    """Start every server that this machine has, with disks of the same content."""
    content = folder / "content"
    fill(content, size)
    for kind in KINDS:
        if only and kind.name not in only:
            continue
        server = kind(folder)
        server.disk.write_bytes(content.read_bytes())
        try:
            server.start()
        except Unavailable as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        yield server


def run(rows: list[Row], servers: list[Server], rounds: int, seconds: float) -> dict[Row, Results]:
    """All rows on all servers, in turn."""
    results: dict[Row, Results] = {row: {} for row in rows}
    for number in range(rounds):
        for row in rows:
            for server in servers:
                print(
                    f"\rround {number + 1} of {rounds}: {row.name} {server.name}\x1b[K",
                    end="",
                    file=sys.stderr,
                )
                try:
                    results[row].setdefault(server.name, []).append(row.measure(server, seconds))
                except Unavailable as error:
                    print(f"\r{row.name}: {error}\x1b[K", file=sys.stderr)
    print("\r\x1b[K", end="", file=sys.stderr)
    return results


def table(row: Row, results: Results) -> Iterator[str]:
    """What one row gave: medians, the spread of the operations, and how many times ours is."""
    yield f"\n{row.title} ({row.name})"
    yield f"  {'':14} {'IOPS':>9} {'spread':>15} {'MB/s':>7} {'us CPU/IO':>10} {'ours: IOPS':>11} {'CPU':>6}"
    ours = results.get(Ours.name)
    for name, runs in results.items():
        iops, cpu = median(r.iops for r in runs), median(r.cpu for r in runs)
        low, high = min(r.iops for r in runs), max(r.iops for r in runs)
        line = f"  {name:14} {iops:9,.0f} {f'{low:,.0f}-{high:,.0f}':>15}"
        line += f" {median(r.megabytes for r in runs):7,.0f} {cpu:10.1f}"
        if ours and name != Ours.name:
            line += f" {'x%.2f' % (median(r.iops for r in ours) / iops):>11}"
            line += f" {'x%.2f' % (median(r.cpu for r in ours) / cpu) if cpu else '':>6}"
        yield line


def main() -> None:
    """Run what the command line asks for."""
    chosen = options()
    with tempfile.TemporaryDirectory(prefix="bench", dir=chosen.folder) as name:
        folder = Path(name)
        rows = [row for row in ROWS if not chosen.rows or row.name in chosen.rows]
        if rows:
            servers: list[Server] = []
            try:
                for server in start(folder, chosen.size << 20, chosen.only):
                    servers.append(server)  # noqa: PERF402  # what has started is stopped, come what may
                for row, results in run(rows, servers, chosen.rounds, chosen.seconds).items():
                    print("\n".join(table(row, results)), flush=True)
            finally:
                for server in servers:
                    server.stop()
        for size, measure in SIZES.items():
            if not chosen.rows or size in chosen.rows:
                apart = folder / size
                apart.mkdir()
                arguments = (chosen.seconds, chosen.rounds) if size in TIMED else ()
                for line in measure(apart, *arguments):
                    print(line, flush=True)


if __name__ == "__main__":
    main()
