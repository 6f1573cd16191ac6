# -*- test-case-name: tests.initiator.test_lun,tests.initiator.test_lies -*-
"""Long ranges of a unit: what is done with them in parts, and where they have storage."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from twisted.internet.defer import Deferred, gatherResults

from iscsi_twisted.errors import RemoteError
from iscsi_twisted.scsi.client import parseStatus

DEPTH: Final = 64
"""Parts of what is discarded, or made zeros, that are under way at once: there may be millions of them."""

RUNS: Final = 1 << 18
"""Runs that are kept of where a unit has storage: 20 MB of them."""

ROUNDS: Final = 1 << 16
"""Commands after which a unit is asked no more where it has storage: it may tell of one block each time."""

Runs = list[tuple[int, bool]]
"""C{(length in bytes, has storage)}, in order."""


def together(parts: Iterable[Deferred[Any]]) -> Deferred[None]:
    """When all have ended well; when one fails the others are cancelled."""
    waiting = list(parts)
    if len(waiting) == 1:
        return waiting[0].addCallback(lambda _: None)
    gathered = gatherResults(waiting, consumeErrors=True)

    def failed(why: Any) -> Any:
        for part in waiting:
            part.cancel()
        return why.value.subFailure

    return gathered.addCallbacks(lambda _: None, failed)


def few(change: Callable[[int, int], Deferred[None]], offset: int, length: int, step: int) -> Deferred[None]:
    """
    Change a range in steps, several at once, but not all of them.

    @param change: called with the offset and the length of each.
    """
    places = iter(range(offset, offset + length, step))

    async def one() -> None:
        for place in places:
            await change(place, min(step, offset + length - place))

    return together(Deferred.fromCoroutine(one()) for _ in range(min(DEPTH, -(-length // step))))


def addRun(runs: Runs, length: int, stored: bool) -> None:
    """One run more; what is as the last one was makes that longer."""
    if runs and runs[-1][1] == stored:
        length += runs.pop()[0]
    if length:
        runs.append((length, stored))


def addRuns(runs: Runs, data: bytes, place: int, end: int, blockSize: int) -> int:
    """
    Add what one GET LBA STATUS tells of (SBC-3 5.4).

    @param place: the first byte that is due.
    @param end: that after the last one that was asked for.
    @return: how far it reaches.
    @raise RemoteError: if it does not tell of what is due.
    """
    before = place
    for first, count, mapped in parseStatus(data):
        if first * blockSize != place or not count:
            raise RemoteError(f"GET LBA STATUS tells of block {first}, where {place // blockSize} is due")
        reached = min(end, place + count * blockSize)
        addRun(runs, reached - place, mapped)
        place = reached
        if place == end:
            # What is told beyond was not asked for.
            break
    if place == before:
        raise RemoteError("GET LBA STATUS tells of no blocks")
    return place
