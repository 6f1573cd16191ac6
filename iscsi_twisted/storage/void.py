# -*- test-case-name: tests.storage.test_void -*-
"""
Mirrors that are members of mirrors: one of whose own members none has something may start nevertheless, since
the others of the outer mirror have it.

It remembers what is missing, durably, and says so each time that it is opened, until it is told that all of
it has been written.  So it does not matter whether the outer mirror has kept that by then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from iscsi_twisted.storage.legs import Leg
from iscsi_twisted.storage.regions import Regions


class Inner:
    """
    What a mirror can do so that it can be a member of another.

    @ivar void: regions that no member had at the start.
    @ivar permitsVoid: whether it may be started then.
    """

    size: int
    shift: int

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.void, self.permitsVoid = Regions(0), False

    def permitVoid(self, permitted: bool) -> None:
        """Whether it may start without what no member of it has, since another mirror has that."""
        self.permitsVoid = permitted

    def missing(self) -> list[tuple[int, int]]:
        """What no member of it had: ranges, each the first byte and that after the last."""
        return [(region << self.shift, min(region + 1 << self.shift, self.size)) for region in self.void]

    def filled(self) -> None:
        """All that has been written, and is durable."""
        self.void.clear()
        self.keepRecord()

    def keepRecord(self) -> None:
        """Keep the record now."""
        raise NotImplementedError


@contextmanager
def permitting(legs: Iterable[Leg]) -> Iterator[None]:
    """Members that are being opened may start without what none of their own members has."""
    devices = [leg.device for leg in legs if hasattr(leg.device, "permitVoid")]
    for device in devices:
        device.permitVoid(True)
    try:
        yield
    finally:
        for device in devices:
            device.permitVoid(False)


def look(leg: Leg, size: int, shift: int, count: int) -> None:
    """
    See what a member that has been opened says that it lacks.

    @param size: bytes of the mirror that it is a member of.
    @param shift: binary logarithm of the bytes of a region of that; there are C{count} of them.
    """
    leg.void = Regions(count)
    missing = getattr(leg.device, "missing", None)
    for offset, end in missing() if missing is not None else ():
        if offset < size:
            leg.void.add(offset >> shift, min(end, size) - 1 >> shift)


def filled(leg: Leg) -> None:
    """All that a member has lacked has been written to it, and is durable."""
    if leg.void:
        leg.void.clear()
        device: Any = leg.device
        device.filled()
