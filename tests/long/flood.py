"""Floods of connections that never log in, and of wrong secrets: afterwards memory is as it was."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from tests.bench.flood import Guarded
from tests.support.flood import Process

SILENT, WRONG = 5000, 100
GROWTH = 16.0
"""MiB that all waves together may leave behind: what the allocator keeps at hand (L{tuneMalloc})."""


def flood(seconds: float, seed: int) -> tuple[list[str], list[str]]:
    """
    Waves of both floods at once.

    @return: what was done, and what was wrong.
    """
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="flood") as name:
        server = Guarded(Path(name))
        server.disk.write_bytes(bytes(1 << 20))
        server.start()
        try:
            # The first wave brings what is only made when it is needed: code, tables, buffers.
            wave(server, 1)
            before, open = settled(server)
            end, waves = time.monotonic() + seconds, 0
            done: dict[str, int] = {}
            while not waves or time.monotonic() < end:
                done = wave(server, max(2.0, min(60.0, (end - time.monotonic()) / 2)))
                waves += 1
            after, left = settled(server)
            if left > open:
                faults.append(f"{left - open} descriptors are left open")
            if after - before > GROWTH:
                faults.append(f"memory grew from {before:.1f} to {after:.1f} MiB")
            lines = [
                f"{waves} waves of {SILENT} silent connections and {WRONG} wrong logins a second",
                f"the last: {done}",
                f"memory: {before:.1f} MiB before, {after:.1f} afterwards",
            ]
        finally:
            server.stop()
    return lines, faults


def wave(server: Guarded, seconds: float) -> dict[str, int]:
    """One of both; what they did."""
    floods = [Process(server.port, "silent", SILENT, seconds)]
    try:
        floods.append(Process(server.port, "wrong", WRONG, seconds))
        names = zip(("silent", "wrong"), floods, strict=True)
        return {f"{name} {what}": count for name, each in names for what, count in each.end().items()}
    finally:
        for each in floods:
            each.kill()


def settled(server: Guarded) -> tuple[float, int]:
    """Memory and open descriptors, once there are no more connections than none."""
    assert server.process is not None
    folder = Path(f"/proc/{server.process.pid}/fd")
    deadline, last = time.monotonic() + 30, -1
    while time.monotonic() < deadline:
        count = len(list(folder.iterdir()))
        if count == last:
            break
        last = count
        time.sleep(1)
    return server.rss(), last
