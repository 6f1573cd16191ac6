"""A session that behaves well, among thousands of connections and logins that do not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from tests.bench.loads import perf
from tests.bench.servers import OursOf, fill
from tests.support.flood import Process

SILENT = 5000
WRONG = 100
KINDS = (
    ("alone", "", 0),
    (f"{SILENT} silent connections", "silent", SILENT),
    (f"{WRONG} wrong logins a second", "wrong", WRONG),
)


class Guarded(OursOf):
    """The target of this project, with users."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "")
        self.file.write_text(f"extent0 {self.disk} 0 size\ntarget0 extent0 any\n")
        self.auths = self.folder / "auths"
        self.auths.write_text("joe:chap:correct-horse-battery\n")
        self.auths.chmod(0o600)

    @property
    def url(self) -> str:
        return super().url.replace("//", "//joe%correct-horse-battery@")

    def arguments(self) -> list[str]:
        return [*super().arguments(), "-a", str(self.auths)]


def flood(folder: Path, seconds: float, rounds: int) -> Iterator[str]:
    """
    Reads a second of a good session, and the target's CPU time for each, alone and in two floods.

    The flood is a process of its own, which shares the processors with the client and the target.
    """
    server = Guarded(folder)
    fill(server.disk, 64 << 20)
    server.start()
    rates: dict[str, list[float]] = {kind: [] for _, kind, _ in KINDS}
    costs: dict[str, list[float]] = {kind: [] for _, kind, _ in KINDS}
    done: dict[str, dict[str, int]] = {}
    load = perf(32, 4096, True)
    try:
        yield f"floods: {server.rss():.1f} MiB before"
        for _ in range(rounds):
            for _, kind, number in KINDS:
                other = Process(server.port, kind, number, seconds + 2) if kind else None
                try:
                    cpu = server.cpu()
                    operations, taken = load(server, seconds)
                    rates[kind].append(operations / taken)
                    costs[kind].append((server.cpu() - cpu) / operations)
                    if other is not None:
                        done[kind] = other.end()
                finally:
                    if other is not None:
                        other.kill()
        alone, cost = median(rates[""]), median(costs[""])
        for title, kind, _ in KINDS:
            rate, used = median(rates[kind]), median(costs[kind])
            told = json.dumps(done.get(kind, {}))
            yield (
                f"{title}: {rate:,.0f} reads a second ({(rate / alone - 1) * 100:+.1f} %),"
                f" {used:.1f} us of CPU each ({(used / cost - 1) * 100:+.1f} %) {told}"
            )
        yield f"floods: {server.rss():.1f} MiB afterwards"
    finally:
        server.stop()
