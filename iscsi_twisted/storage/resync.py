# -*- test-case-name: tests.storage.test_resync -*-
"""Copying to members of a mirror what they lack, beside whatever else goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from iscsi_twisted.errors import DeviceError, OutOfSpace
from iscsi_twisted.storage.legs import RESYNCING, Leg
from iscsi_twisted.storage.pending import attempt, gather, ready
from iscsi_twisted.storage.progress import Progress
from iscsi_twisted.storage.regions import Regions

if TYPE_CHECKING:
    from iscsi_twisted.storage.mirror import Mirror

PIECE: Final = 1 << 20
"""Bytes that are copied at once."""

AT_ONCE: Final = 4
"""Pieces that are under way side by side, so that reading and writing overlap."""

STRETCH: Final = 64
"""Regions of which the source is asked at once where it has anything."""

CHECKPOINT: Final = 30.0
"""Seconds of copying that a crash may undo."""

BATCH: Final = 1 << 30
"""Bytes that are copied before they are flushed: what a slow disk flushes within the patience of a mirror."""

_log = Logger(namespace="iscsi_twisted")


class Resync:
    """
    One pass over all that members lack.

    @ivar progress: how far it is.
    """

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._skipped = Regions(len(mirror.unverified.flags))
        total = min(mirror.size, len(self._lacks()) << mirror.shift)
        self.progress = Progress("resync", total, mirror)
        self._kept = mirror.life.now()

    def _legs(self) -> list[Leg]:
        return [leg for leg in self._mirror.legs if leg.state == RESYNCING]

    def _lacks(self) -> Regions:
        """All regions that somebody lacks."""
        lacking = Regions(len(self._skipped.flags))
        for leg in self._legs():
            lacking.update(leg.behind)
        return lacking

    async def run(self) -> None:
        """
        Copy until nothing is left that can be copied.

        @raise CancelledError: if the mirror is closed meanwhile.
        """
        region, copied = self._next(0), 0
        while region is not None:
            last = await self._stretch(region)
            copied += last + 1 - region << self._mirror.shift
            if self._mirror.life.now() - self._kept >= CHECKPOINT or copied >= BATCH:
                copied = 0
                await self.checkpoint()
            region = self._next(last + 1)
        await self.checkpoint()
        left = self._lacks()
        if left:
            _log.warn(
                "{mirror}: {bytes} bytes could not be copied for now", event="resync",
                mirror=str(self._mirror), bytes=len(left) << self._mirror.shift,
            )  # fmt: skip

    def _next(self, start: int) -> int | None:
        """The first region from there on, or else from the beginning, that somebody lacks."""
        lacking = self._lacks()
        lacking.subtract(self._skipped)
        found = lacking.after(start)
        return lacking.after(0) if found is None else found

    async def _stretch(self, first: int) -> int:
        """
        Copy the regions in a row that the same members lack.

        @return: the last region that was looked at.
        """
        mirror = self._mirror
        targets = [leg for leg in self._legs() if leg.behind.flags[first]]
        source = self._source(first, targets)
        if source is None:
            self._skipped.add(first, first)
            return first
        last = min(leg.behind.stretch(first, STRETCH) for leg in targets)
        skipped = self._skipped.after(first)
        if skipped is not None:
            last = min(last, skipped - 1)
        if source.behind.has(first, last) or mirror.unverified.has(first, last):
            last = first
        offset, end = first << mirror.shift, min(last + 1 << mirror.shift, mirror.size)
        before = [leg.spoilt for leg in targets]
        bad = await self._copy(source, targets, offset, end)
        for leg, spoilt in zip(targets, before, strict=True):
            if leg.state != RESYNCING or leg.spoilt != spoilt:
                continue
            for region in range(first, last + 1):
                if not bad.flags[region]:
                    leg.behind.remove(region, region)
                    leg.unflushed.add(region, region)
        self._skipped.update(bad)
        if mirror.unverified.has(first, last):
            mirror.certain(first, last)
        return last

    def _source(self, region: int, targets: list[Leg]) -> Leg | None:
        """
        Who has a region.  Where nobody knows whether members agree those that lack nothing must be compared
        first, unless only one is left.
        """
        holders = [leg for leg in self._mirror.legs if not leg.lacks(region, region)]
        if not holders or (self._mirror.unverified.flags[region] and len(holders) > 1):
            return None
        return min(holders, key=lambda leg: leg.late)

    async def _copy(self, source: Leg, targets: list[Leg], offset: int, end: int) -> Regions:
        """
        Copy a range, holes as such.

        @return: the regions where that failed.
        """
        bad = Regions(len(self._skipped.flags))
        runs = [(end - offset, True)]
        mirror = self._mirror
        # Some file systems zero nothing without giving its storage back, and that is what is wanted here.
        able = all(leg.abilities.zero or leg.abilities.discardZeroes for leg in targets)
        if source.abilities.allocated and able:
            asked = [attempt(source.device.allocated, offset, end - offset)]
            (found,) = await ready(mirror.watch.answers([source], asked))
            runs = runs if isinstance(found, Failure) else found
        for length, hasStorage in runs:
            stop = offset + length
            if hasStorage or not await self._run(bad, offset, stop, self._hole, source, targets):
                await self._data(bad, source, targets, offset, stop)
            else:
                await self.progress.advance(length)
            offset = stop
        return bad

    async def _data(self, bad: Regions, source: Leg, targets: list[Leg], offset: int, end: int) -> None:
        while offset < end:
            stop = min(end, offset + AT_ONCE * PIECE)
            pieces = [
                Deferred.fromCoroutine(
                    self._run(bad, start, min(stop, start + PIECE), self._piece, source, targets)
                )
                for start in range(offset, stop, PIECE)
            ]
            await ready(gather(list(pieces)))
            await self.progress.advance(stop - offset)
            offset = stop

    async def _run(
        self, bad: Regions, offset: int, end: int, function: Any, source: Leg, targets: list[Leg]
    ) -> bool:
        """Do something to a range while it is locked; whether it was done, if only because it cannot be."""
        try:
            done: bool = await ready(
                self._mirror.lock.run(
                    offset, end, lambda: Deferred.fromCoroutine(function(source, targets, offset, end))
                )
            )
        except (DeviceError, OSError) as error:
            bad.add(*self._mirror.regions(offset, end))
            _log.warn(
                "{mirror}: bytes {offset} to {end} could not be copied: {error}", event="resync",
                mirror=str(self._mirror), offset=offset, end=end, error=str(error),
            )  # fmt: skip
            return True
        return done

    async def _piece(self, source: Leg, targets: list[Leg], offset: int, end: int) -> bool:
        """Copy what fits into memory; the range is locked."""
        first = None
        holders = self._mirror.holders(offset, end)
        for leg in sorted(holders, key=lambda one: one is not source):
            try:
                data = await self._mirror.watch.ask(leg, leg.device.read, offset, end - offset)
            except (DeviceError, OSError) as error:
                first = first or error
                continue
            await self._tell(targets, "write", offset, data)
            return True
        raise first or DeviceError("no member has it by now")

    async def _hole(self, source: Leg, targets: list[Leg], offset: int, end: int) -> bool:
        """
        Make zeros where the source has nothing; the range is locked.

        @return: whether it still has nothing.
        """
        if source.lacks(*self._mirror.regions(offset, end)):
            raise DeviceError(f"{source.name} lacks it by now")
        runs = await self._mirror.watch.ask(source, source.device.allocated, offset, end - offset)
        if any(hasStorage for _, hasStorage in runs):
            return False
        await self._tell(targets, "zero", offset, end - offset, True)
        return True

    async def _tell(self, targets: list[Leg], operation: str, *arguments: Any) -> None:
        """
        Change all that lack something.

        @raise DeviceError: if one could not do it and stays: it has no room, or nobody can do without it.
        """
        legs = [leg for leg in targets if leg.gets]
        results = [attempt(getattr(leg.device, operation), *arguments) for leg in legs]
        outcomes = await ready(self._mirror.watch.changes(legs, results, alone=True))
        failures = {leg: one for leg, one in zip(legs, outcomes, strict=True) if isinstance(one, Failure)}
        if not failures:
            return
        kept = None
        for leg, failure in failures.items():
            if failure.check(OutOfSpace) or (not self._mirror.failed(leg, failure) and leg.gets):
                kept = failure
        self._mirror.keepRecord()
        if kept is not None:
            kept.raiseException()

    async def checkpoint(self) -> None:
        """Make durable what was copied; who lacks nothing more is in sync."""
        mirror = self._mirror
        self._kept = mirror.life.now()
        for leg in self._legs():
            copied = leg.unflushed.copy()
            spoilt = leg.spoilt
            outcome = await mirror.watch.tell(leg, leg.device.flush)
            if isinstance(outcome, Failure):
                mirror.failed(leg, outcome)
                mirror.keepRecord()
            elif leg.state == RESYNCING and leg.spoilt == spoilt:
                leg.unflushed.subtract(copied)
        await mirror.life.stampAll()
        for leg in self._legs():
            if not leg.behind and not leg.unflushed:
                leg.attempts = 0
                leg.happens("current", mirror)
                mirror.life.roster.inSync(leg)
        mirror.arrange()
        mirror.keepRecord()
