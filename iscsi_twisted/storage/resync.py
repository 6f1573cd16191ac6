# -*- test-case-name: tests.storage.test_resync -*-
"""Copying to members of a mirror what they lack, beside whatever else goes on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from iscsi_twisted.errors import DeviceError, OutOfSpace
from iscsi_twisted.storage.legs import RESYNCING, Leg
from iscsi_twisted.storage.pending import attempt, gather, ready
from iscsi_twisted.storage.progress import Progress
from iscsi_twisted.storage.regions import Regions
from iscsi_twisted.storage.salvage import Salvage

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

REFUSALS: Final = 16
"""Pieces in a row for which a member has no room before it gets nothing but zeros until the next pass."""

COMPLAINTS: Final = 8
"""Lines of the log that say in one pass what could not be copied."""

Targets = dict[Leg, set[int]]
"""Members that lack a range, and the regions where it could not be copied to them."""

_log = Logger(namespace="iscsi_twisted")


class Resync:
    """
    One pass over all that members lack.

    @ivar progress: how far it is.
    """

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._count = len(mirror.unverified.flags)
        self._skipped: dict[Leg, Regions] = {}
        self._refusals: dict[Leg, int] = {}
        self._complaints = 0
        total = min(mirror.size, len(self._lacks()) << mirror.shift)
        self.progress = Progress("resync", total, mirror)
        self._kept = mirror.life.now()

    def _legs(self) -> list[Leg]:
        return [leg for leg in self._mirror.legs if leg.state == RESYNCING]

    def _lacks(self) -> Regions:
        """All regions that somebody lacks."""
        lacking = Regions(self._count)
        for leg in self._legs():
            lacking.update(leg.behind)
        return lacking

    def _skip(self, leg: Leg) -> Regions:
        """What is left for the next pass."""
        return self._skipped.setdefault(leg, Regions(self._count))

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
        found = self._first(start)
        return self._first(0) if found is None else found

    def _first(self, start: int) -> int | None:
        due = [_due(leg.behind, self._skip(leg), start) for leg in self._legs()]
        return min((region for region in due if region is not None), default=None)

    async def _stretch(self, first: int) -> int:
        """
        Copy the regions in a row that the same members lack.

        @return: the last region that was looked at.
        """
        mirror = self._mirror
        targets: Targets = {
            leg: set() for leg in self._legs() if leg.behind.flags[first] and not self._skip(leg).flags[first]
        }
        source = self._source(first)
        if source is None:
            for leg in targets:
                self._skip(leg).add(first, first)
            # There may be very many of these.
            await self.progress.advance(0)
            return first
        last = min(leg.behind.stretch(first, STRETCH) for leg in targets)
        for leg in targets:
            skipped = self._skip(leg).after(first)
            if skipped is not None:
                last = min(last, skipped - 1)
        if source.behind.has(first, last) or mirror.unverified.has(first, last):
            last = first
        offset, end = first << mirror.shift, min(last + 1 << mirror.shift, mirror.size)
        before = [leg.spoilt for leg in targets]
        await self._copy(source, targets, offset, end)
        for (leg, bad), spoilt in zip(targets.items(), before, strict=True):
            for region in bad:
                self._skip(leg).add(region, region)
            if leg.state != RESYNCING or leg.spoilt != spoilt:
                continue
            for region in range(first, last + 1):
                if region not in bad:
                    leg.behind.remove(region, region)
                    leg.rival.remove(region, region)
                    leg.unflushed.add(region, region)
        if mirror.unverified.has(first, last):
            mirror.certain(first, last)
        return last

    def _source(self, region: int) -> Leg | None:
        """
        Who has a region.  Where nobody knows whether members agree those that lack nothing must be compared
        first, unless only one is left.
        """
        holders = [leg for leg in self._mirror.legs if not leg.lacks(region, region)]
        if not holders or (self._mirror.unverified.flags[region] and len(holders) > 1):
            return None
        return min(holders, key=lambda leg: leg.late)

    async def _copy(self, source: Leg, targets: Targets, offset: int, end: int) -> None:
        """Copy a range, holes as such."""
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
            if hasStorage or not await self._run(offset, stop, self._hole, source, targets):
                await self._data(source, targets, offset, stop)
            else:
                await self.progress.advance(length)
            offset = stop

    async def _data(self, source: Leg, targets: Targets, offset: int, end: int) -> None:
        while offset < end:
            if not self._roomy(targets):
                self._bad(targets, targets, offset, end)
                await self.progress.advance(0)
                return
            stop = min(end, offset + AT_ONCE * PIECE)
            pieces = [
                Deferred.fromCoroutine(
                    self._run(start, min(stop, start + PIECE), self._piece, source, targets)
                )
                for start in range(offset, stop, PIECE)
            ]
            await ready(gather(list(pieces)))
            await self.progress.advance(stop - offset)
            offset = stop

    async def _run(self, offset: int, end: int, function: Any, source: Leg, targets: Targets) -> bool:
        """Do something to a range while it is locked; whether it was done, if only because it cannot be."""
        try:
            done: bool = await ready(
                self._mirror.lock.run(
                    offset, end, lambda: Deferred.fromCoroutine(function(source, targets, offset, end))
                )
            )
        except (DeviceError, OSError) as error:
            self._bad(targets, targets, offset, end)
            self._complain(offset, end, error)
            return True
        return done

    async def _piece(self, source: Leg, targets: Targets, offset: int, end: int) -> bool:
        """Copy what fits into memory, as far as anybody can read it; the range is locked."""
        found = Salvage(self._mirror, source)
        await found.run(offset, end)
        for start, data in found.parts:
            stop = start + len(data)
            roomy = self._roomy(targets)
            self._bad(targets, [leg for leg in targets if leg not in roomy], start, stop)
            await self._tell(targets, roomy, start, stop, "write", data)
        for leg, start, data in found.missed:
            if leg not in targets:
                await self._mirror.rewrite(leg, start, start + len(data), data)
        for start, stop in found.lost:
            self._bad(targets, targets, start, stop)
            self._complain(start, stop, found.error)
        return True

    async def _hole(self, source: Leg, targets: Targets, offset: int, end: int) -> bool:
        """
        Make zeros where the source has nothing; the range is locked.

        @return: whether it still has nothing.
        """
        if source.lacks(*self._mirror.regions(offset, end)):
            raise DeviceError(f"{source.name} lacks it by now")
        runs = await self._mirror.watch.ask(source, source.device.allocated, offset, end - offset)
        if any(hasStorage for _, hasStorage in runs):
            return False
        # Also where there is no room: afterwards there may be some.
        await self._tell(targets, list(targets), offset, end, "zero", end - offset, True)
        return True

    async def _tell(
        self, targets: Targets, legs: list[Leg], offset: int, end: int, operation: str, *arguments: Any
    ) -> None:
        """
        Change some that lack a range.

        @raise DeviceError: if one that nobody can do without could not do it.
        """
        legs = [leg for leg in legs if leg.gets]
        results = [attempt(getattr(leg.device, operation), offset, *arguments) for leg in legs]
        outcomes = await ready(self._mirror.watch.changes(legs, results, alone=True))
        kept, failed = None, False
        for leg, outcome in zip(legs, outcomes, strict=True):
            if not isinstance(outcome, Failure):
                self._refusals.pop(leg, None)
                continue
            failed = True
            if outcome.check(OutOfSpace):
                self._refusals[leg] = self._refusals.get(leg, 0) + 1
                self._bad(targets, [leg], offset, end)
                self._complain(offset, end, outcome.value)
            elif not self._mirror.failed(leg, outcome) and leg.gets:
                kept = outcome
        if failed:
            self._mirror.keepRecord()
        if kept is not None:
            kept.raiseException()

    def _roomy(self, targets: Targets) -> list[Leg]:
        """Those that may have room for data."""
        return [leg for leg in targets if self._refusals.get(leg, 0) < REFUSALS]

    def _bad(self, targets: Targets, legs: Iterable[Leg], offset: int, end: int) -> None:
        """A range could not be copied to some of them."""
        first, last = self._mirror.regions(offset, end)
        for leg in legs:
            targets[leg].update(range(first, last + 1))

    def _complain(self, offset: int, end: int, error: object) -> None:
        """Tell what could not be copied, unless that was told often enough."""
        self._complaints += 1
        if self._complaints <= COMPLAINTS:
            _log.warn(
                "{mirror}: bytes {offset} to {end} could not be copied: {error}", event="resync",
                mirror=str(self._mirror), offset=offset, end=end, error=str(error),
            )  # fmt: skip

    async def checkpoint(self) -> None:
        """Make durable what was copied; who lacks nothing more is in sync."""
        mirror = self._mirror
        self._kept = mirror.life.now()
        for leg in self._legs():
            if leg.state != RESYNCING:
                # It has gone, or failed, while another one was flushed.
                continue
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


def _due(lacking: Regions, skipped: Regions, start: int) -> int | None:
    """The first region from there on that is in one set and not in the other."""
    region = lacking.after(start)
    while region is not None and skipped.flags[region]:
        end = skipped.flags.find(0, region)
        region = lacking.after(end) if end >= 0 else None
    return region
