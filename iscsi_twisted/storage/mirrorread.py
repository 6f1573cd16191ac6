# -*- test-case-name: tests.storage.test_mirror -*-
"""
How a mirror reads: from a member that has what is wanted, from another if that fails, and never what is
stale.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from iscsi_twisted.comparing import mismatch
from iscsi_twisted.errors import DeviceError, ReadError
from iscsi_twisted.interfaces import Buffer, Pending, isPending
from iscsi_twisted.storage.device import BlockDevice, checkRange, outOfRange
from iscsi_twisted.storage.legs import Leg
from iscsi_twisted.storage.members import Composition
from iscsi_twisted.storage.patience import Watch
from iscsi_twisted.storage.pending import answered, attempt, gather, ready, whenDone
from iscsi_twisted.storage.ranges import RangeLock
from iscsi_twisted.storage.reading import Reading
from iscsi_twisted.storage.regions import Regions
from iscsi_twisted.storage.salvage import Salvage

if TYPE_CHECKING:
    from iscsi_twisted.storage.intent import Intent
    from iscsi_twisted.storage.mirrorlife import Life

REPAIRS: Final = 16
"""Places that are repaired at the same time; what is beyond that is repaired when it is read again."""


class MirrorReading(Composition):
    """
    The half of a mirror that reads, and repairs what it could not read.

    @ivar legs: the members and their states.
    @ivar lock: what all changes pass, so that every member sees them in one order.
    @ivar intent: where writes may be under way.
    @ivar unverified: regions of which nobody knows whether members agree.
    @ivar life: what goes on beside the operations.
    @ivar watch: who waits for members.
    @ivar shift: the binary logarithm of the bytes of a region.
    @ivar readOnly: nothing can be written.
    @ivar reads: those that began.
    @ivar errors: operations that no member could do.
    """

    intent: Intent
    life: Life
    watch: Watch

    def __init__(self, members: Iterable[Any]) -> None:
        super().__init__(members)
        self.legs: list[Leg] = [Leg(member) for member in self.members]
        self.lock = RangeLock()
        self.unverified = Regions(0)
        self.shift = 0
        self.readOnly = False
        self.reads = self.errors = 0
        self._readers: list[Leg] = []
        self._turn = 0
        self._repairing: set[tuple[Leg, int]] = set()

    def read(self, offset: int, length: int) -> Buffer | Pending:
        if not 0 <= offset <= offset + length <= self.size:
            raise outOfRange(self.size, offset, length)
        self.reads += 1
        legs = self._readers
        if not legs:
            return self._readCarefully(offset, length)  # type: ignore[no-any-return]
        leg = legs[0] if len(legs) == 1 else self._pick(legs, offset)
        leg.head = offset + length
        return self._readFrom(leg, offset, length)  # type: ignore[no-any-return]

    def _pick(self, legs: list[Leg], offset: int) -> Leg:
        """
        Which member to read: the one at which a stream is, one that answers at once, the least busy, in
        turns.
        """
        for leg in legs:
            if leg.head == offset and not leg.late:
                return leg
        self._turn = (self._turn + 1) % len(legs)
        leg = legs[self._turn]
        if leg.late:
            leg = min(legs, key=lambda one: (one.late, one.head != offset, one.busy, one is not leg))
        return leg

    def _readFrom(self, leg: Leg, offset: int, length: int) -> Any:
        """Read one member, and others if it fails or does not answer."""
        try:
            result = leg.device.read(offset, length)
        except (DeviceError, OSError):
            return Reading(self, offset, length).begin(leg, Failure())
        if isPending(result):
            return Reading(self, offset, length).begin(leg, result)
        leg.late = False
        return result

    def holders(self, offset: int, end: int) -> list[Leg]:
        """The members that have all of a range, as far as that is known."""
        first, last = self.regions(offset, end)
        return [leg for leg in self.legs if not leg.lacks(first, last)]

    def rivals(self, offset: int, end: int) -> list[Leg]:
        """The members that are no such holders, and have something as good."""
        first, last = self.regions(offset, end)
        return [leg for leg in self.legs if leg.lacks(first, last) and leg.rivals(first, last)]

    def _readCarefully(self, offset: int, length: int) -> Any:
        """Read where some members lack something, or nobody knows whether they agree."""
        if not length:
            return b""
        pieces = [
            attempt(self._readPiece, start, end, legs, doubt)
            for start, end, legs, doubt in self._pieces(offset, offset + length)
        ]
        return whenDone(gather(pieces), lambda parts: parts[0] if len(parts) == 1 else b"".join(parts))

    def _pieces(self, offset: int, end: int) -> Iterable[tuple[int, int, list[Leg], bool]]:
        """Parts of a range that the same members have."""
        first, last = self.regions(offset, end)
        pieces: list[tuple[int, int, list[Leg], bool]] = []
        for region in range(first, last + 1):
            start, stop = max(offset, region << self.shift), min(end, region + 1 << self.shift)
            legs = [leg for leg in self.legs if not leg.lacks(region, region)]
            doubt = bool(self.unverified.flags[region])
            if pieces and pieces[-1][2:] == (legs, doubt):
                pieces[-1] = (pieces[-1][0], stop, legs, doubt)
            else:
                pieces.append((start, stop, legs, doubt))
        return pieces

    def _readPiece(self, offset: int, end: int, legs: list[Leg], doubt: bool) -> Any:
        if doubt:
            return self.lock.run(offset, end, self._readDoubtful, offset, end - offset)
        if legs and any(leg.rival.has(*self.regions(offset, end)) for leg in self.legs):
            return self.lock.run(offset, end, lambda: answered(self._readRivals(offset, end)))
        if not legs:
            raise ReadError(f"{self}: no member that is here has these bytes", offset)
        return self._readFrom(min(legs, key=lambda leg: leg.shunned), offset, end - offset)

    async def _readRivals(self, offset: int, end: int) -> Buffer:
        """
        Read where a writing may have been under way when a crash came, and one member was chosen to be right.
        The others get what is read, so that they stay as good as that one.  The range is locked.
        """
        found = Salvage(self)
        await found.run(offset, end)
        regions = self.regions(offset, end)
        for leg in list(self.legs):
            if leg.gets and leg.rival.has(*regions):
                for start, data in found.parts:
                    outcome = await self.watch.tell(leg, leg.device.write, start, data)
                    if isinstance(outcome, Failure):
                        self.notWritten(leg, *regions, outcome)
                        break
        for leg, start, data in found.missed:
            if not leg.rival.has(*regions):
                await self.rewrite(leg, start, start + len(data), data)
        return found.whole()

    def _readDoubtful(self, offset: int, length: int) -> Any:
        """Read all members, and answer what they agree on."""
        legs = self.holders(offset, offset + length)
        results = [attempt(leg.device.read, offset, length) for leg in legs]
        answers = self.watch.answers(legs, results)
        return whenDone(answers, lambda outcomes: self._agreed(offset, legs, outcomes))

    def _agreed(self, offset: int, legs: list[Leg], outcomes: list[Any]) -> Buffer:
        for leg, outcome in zip(legs, outcomes, strict=True):
            if isinstance(outcome, Failure):
                error = outcome.value
                if isinstance(error, ReadError) or not outcome.check(DeviceError, OSError):
                    outcome.raiseException()
                why = f"nobody knows which member is right, and {leg.name} cannot be read"
                raise ReadError(f"{self}: {why}: {error}", offset) from error
        if len(legs) < 2:
            raise ReadError(f"{self}: nobody knows whether what is left here is right", offset)
        first: Buffer = outcomes[0]
        for other in outcomes[1:]:
            place = mismatch(first, other)
            if place is not None:
                raise ReadError(f"{self}: members differ, and nobody knows which is right", offset + place)
        return first

    def allocated(self, offset: int, length: int) -> list[tuple[int, bool]] | Pending:
        """As a member sees it that has everything; where none does, or says so, all is data."""
        checkRange(self.size, offset, length)
        if not self._readers:
            return BlockDevice.allocated(self, offset, length)
        leg = self._readers[0]
        answers = self.watch.answers([leg], [attempt(leg.device.allocated, offset, length)])
        return whenDone(answers, partial(self._runs, offset, length))

    def _runs(self, offset: int, length: int, answers: list[Any]) -> Any:
        (answer,) = answers
        if not isinstance(answer, Failure):
            return answer
        answer.trap(DeviceError, OSError)
        return BlockDevice.allocated(self, offset, length)

    # Repairs

    def repair(self, legs: Iterable[Leg], offset: int, length: int) -> None:
        """Write anew what members could not read; who lacks it by now gets it anyway."""
        if self.readOnly:
            return
        regions = self.regions(offset, offset + length)
        for leg in legs:
            place = (leg, offset)
            if place in self._repairing or len(self._repairing) >= REPAIRS or leg.lacks(*regions):
                continue
            self._repairing.add(place)
            end = offset + length
            repairing = Deferred.fromCoroutine(self._rewrite(leg, offset, end))
            repairing.addBoth(self._repaired, place)

    async def _rewrite(self, leg: Leg, offset: int, end: int) -> None:
        def rewriting() -> Deferred[None]:
            return Deferred.fromCoroutine(self.rewrite(leg, offset, end, None))

        await ready(self.lock.run(offset, end, rewriting))

    def regions(self, offset: int, end: int) -> tuple[int, int]:
        """The first and the last region of a range."""
        return offset >> self.shift, max(offset, end - 1) >> self.shift

    async def rewrite(self, leg: Leg, offset: int, end: int, data: Buffer | None) -> None:
        """
        Write to one member what another has; the range is locked.

        @param data: what to write; None for what another member has.
        @raise DeviceError: if nobody has it, or the only one that should has not written it.
        """
        first, last = self.regions(offset, end)
        if not self._others(leg, offset, end) or self.unverified.has(first, last):
            # It is right in all else that is there, and nobody must doubt it because it was changed.  Where
            # nobody knows what is right all are compared after a power cut.
            if data is not None:
                await ready(self.intent.mark(first, last))
                await self._replace(leg, offset, end, data)
            return
        # What it holds now is wrong, and must not win after a power cut.
        leg.mending.append((first, last))
        try:
            await self._save()
            await self._replace(leg, offset, end, data)
        finally:
            leg.mending.remove((first, last))
        await self.life.stampAll()
        await self._save()

    def _others(self, leg: Leg, offset: int, end: int) -> list[Leg]:
        return [each for each in self.holders(offset, end) if each is not leg]

    async def _save(self) -> None:
        saving = self.intent.save()
        if saving is not None:
            await saving

    async def _replace(self, leg: Leg, offset: int, end: int, data: Buffer | None) -> None:
        if data is None:
            sources = self._others(leg, offset, end)
            if not sources:
                return
            data = await self.watch.ask(sources[0], sources[0].device.read, offset, end - offset)
        if not leg.gets:
            return
        outcome = await self.watch.tell(leg, leg.device.write, offset, data)
        if not isinstance(outcome, Failure):
            outcome = await self.watch.tell(leg, leg.device.flush)
        if isinstance(outcome, Failure):
            if not self._others(leg, offset, end) or self.unverified.has(*self.regions(offset, end)):
                outcome.raiseException()
            self.notWritten(leg, *self.regions(offset, end), outcome)
        else:
            leg.repaired += 1
            self.life.tellRepair(leg, offset, end)

    def _repaired(self, outcome: Any, place: tuple[Leg, int]) -> None:
        self._repairing.discard(place)
        if isinstance(outcome, Failure):
            # The place stays as it is; whoever reads it next tries again.
            self.life.tellFailure(outcome)

    def notWritten(self, leg: Leg, first: int, last: int, failure: Failure) -> None:
        """A member could not write something to these regions."""
        raise NotImplementedError
