"""Mirrors for tests, whose members are known to agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.task import Clock

from iscsi_twisted.interfaces import isPending
from iscsi_twisted.storage import Mirror
from iscsi_twisted.storage.legs import IN_SYNC
from tests.support.platters import MemoryStore, Platter, PlatterDisk


def settled(mirror: Mirror, clock: Clock, seconds: float = 600.0) -> None:
    """Let time go by until all members are in sync."""
    while not all(leg.state == IN_SYNC for leg in mirror.legs) or mirror.unverified:
        clock.advance(0.5)
        seconds -= 0.5
        if seconds < 0:
            raise AssertionError(f"it never settles: {mirror.status()}")


def opened(mirror: Mirror) -> Mirror:
    """Open a mirror whose members answer at once."""
    result = mirror.open(lambda: None)
    if isPending(result):
        raise AssertionError("opening it takes time")
    return mirror


def disks(count: int, size: int) -> list[PlatterDisk]:
    """New empty disks."""
    return [PlatterDisk(Platter(size), f"disk{number}") for number in range(count)]


def again(old: Sequence[PlatterDisk]) -> list[PlatterDisk]:
    """New devices for the same disks."""
    return [PlatterDisk(disk.platter, disk.title) for disk in old]


def knownMirror(
    members: Sequence[Any], clock: Clock, store: MemoryStore | None = None, **options: Any
) -> Mirror:
    """A mirror that is closed, and whose record says that all members are in sync."""
    store = store or MemoryStore()
    mirror = opened(Mirror(members, reactor=clock, store=store, **options))
    settled(mirror, clock)
    if isPending(mirror.close()):
        raise AssertionError("closing it takes time")
    return mirror
