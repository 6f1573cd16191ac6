# -*- test-case-name: tests.storage.test_samples -*-
"""
Whether a member of a mirror still holds what it held: a look here and there, for members that do not know
whether they were changed.  A unit of another target may stand on a new, empty file and say that it is the old
one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred

from iscsi_twisted.errors import DeviceError
from iscsi_twisted.storage.legs import Leg
from iscsi_twisted.storage.pending import ready

if TYPE_CHECKING:
    from iscsi_twisted.storage.mirror import Mirror

LOOKS: Final = 64
"""Places that are looked at."""

LENGTH: Final = 4096
"""Bytes of each."""


async def resembles(mirror: Mirror, leg: Leg, source: Leg, *, everywhere: bool = False) -> bool:
    """
    Whether two members agree at some places that both should have, where the second one has data.

    @param everywhere: also where something was written a moment ago, which is copied otherwise.
    @return: false too if the first one cannot be read anywhere.
    """
    tried = readable = 0
    async for offset in _places(mirror, leg, source):
        end = min(offset + LENGTH, mirror.size)
        equal = await ready(
            mirror.lock.run(
                offset,
                end,
                lambda: Deferred.fromCoroutine(_equal(mirror, leg, source, offset, end)),  # noqa: B023
            )
        )
        tried += 1
        readable += equal is not None
        if equal is False and (everywhere or not mirror.intent.marks[offset >> mirror.shift]):
            return False
    return bool(readable) or not tried


async def _equal(mirror: Mirror, leg: Leg, source: Leg, offset: int, end: int) -> bool | None:
    """Whether two members have the same; None if the first one does not tell.  The range is locked."""
    try:
        wanted = await mirror.watch.ask(source, source.device.read, offset, end - offset)
    except (DeviceError, OSError):
        return True
    if leg not in mirror.legs:
        # Somebody has removed it meanwhile, and it is closed.
        return None
    try:
        found = await mirror.watch.ask(leg, leg.device.read, offset, end - offset)
    except (DeviceError, OSError):
        return None
    return bytes(found) == bytes(wanted)


async def _places(mirror: Mirror, leg: Leg, source: Leg) -> AsyncIterator[int]:
    """The first block with data of regions that are spread over the whole."""
    count = len(leg.behind.flags)
    for region in range(0, count, -(-count // LOOKS)):
        if leg.behind.flags[region] or source.behind.flags[region] or mirror.unverified.flags[region]:
            continue
        offset = region << mirror.shift
        if not source.abilities.allocated:
            yield offset
            continue
        length = min(1 << mirror.shift, mirror.size - offset)
        try:
            runs = await mirror.watch.ask(source, source.device.allocated, offset, length)
        except (DeviceError, OSError):
            continue
        for run, hasStorage in runs:
            if hasStorage:
                yield offset // LENGTH * LENGTH
                break
            offset += run
