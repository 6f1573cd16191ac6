# -*- test-case-name: tests.storage.test_scrub -*-
"""Comparing the members of a mirror, and making them equal where somebody says which of them is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from iscsi_twisted.errors import DeviceError
from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.storage.legs import RESYNCING, Leg
from iscsi_twisted.storage.pending import attempt, ready
from iscsi_twisted.storage.progress import Progress
from iscsi_twisted.storage.regions import Regions
from iscsi_twisted.storage.salvage import TRIES, grain, halves, mayBeSplit

if TYPE_CHECKING:
    from iscsi_twisted.storage.mirror import Mirror

PIECE: Final = 1 << 20
"""Bytes that are compared at once."""

STRETCH: Final = 64
"""Regions of which the file systems are asked at once whether there is anything in them."""

TOLD: Final = 100
"""Differences, and places nobody can read, that are logged and kept one by one; the others are counted."""

OUT: Final = 4
"""Pieces in a row for which a member gives no answer before a comparison that needs it waits for it."""

SECTOR: Final = 512
"""Differences are told in units of this many bytes, which disks write wholly or not at all."""

_log = Logger(namespace="iscsi_twisted")


@attrs.frozen
class Mismatch:
    """
    A place where members differ.

    @ivar offset: the first byte, a multiple of 512.
    @ivar length: bytes, a multiple of 512 except at the end of the mirror.
    @ivar repaired: the members are equal now.
    """

    offset: int
    length: int
    repaired: bool


@attrs.frozen
class Findings:
    """
    What a comparison has found.

    @ivar compared: bytes that were compared.
    @ivar count: places where members differed.
    @ivar mismatches: the first of them.
    @ivar unreadable: pieces that could not be compared, since a member could not be read there; what another
        has was written anew.
    @ivar lost: bytes of these that no member could read.
    """

    compared: int
    count: int
    mismatches: tuple[Mismatch, ...]
    unreadable: int
    lost: int = 0


class Scrub:
    """
    One comparison, from the beginning to the end.

    @ivar progress: how far it is.
    @ivar gaveWay: it ended early, since something has to be copied.
    @ivar inVain: a member of which nobody knows whether it is right gave no answer; it is to be asked again.
    @ivar began: when it did, in seconds of the reactor's.
    """

    def __init__(
        self,
        mirror: Mirror,
        repair: Any = None,
        *,
        doubtful: bool = False,
        gives: bool = False,
        start: int = 0,
        reached: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        """
        @param repair: None, C{"majority"}, or the leg that is right.
        @param doubtful: compare only regions of which nobody knows whether members agree there.
        @param gives: end when something has to be copied.
        @param start: the region to begin with.
        @param reached: told of regions: all before has been compared.
        """
        self._gives, self.gaveWay = gives, False
        self._start, self._reached = start, reached
        self.began = mirror.life.now()
        self._mirror, self._repair, self._doubtful = mirror, repair, doubtful
        self._compared = self._count = self._unreadable = self._lost = self._tries = 0
        self._gone: list[tuple[int, int]] = []
        self._places = 0
        self._partial = False
        self._agreed, self._open = False, Regions(len(mirror.unverified.flags))
        self.inVain, self._out = False, 0
        self._mismatches: list[Mismatch] = []
        step = 1 << mirror.shift
        total = (len(mirror.unverified) if doubtful else len(mirror.unverified.flags) - start) * step
        self.progress = Progress("compare" if doubtful else "scrub", min(total, mirror.size), mirror)

    @property
    def whole(self) -> bool:
        """Whether it has come to the end, and was not only about what is in doubt."""
        return not (self._doubtful or self.gaveWay)

    @property
    def complete(self) -> bool:
        """Whether all members were compared, everywhere."""
        return self.whole and not self._partial

    async def run(self) -> Findings:
        """
        Compare everything.

        @raise CancelledError: if the mirror is closed meanwhile.
        """
        mirror = self._mirror
        count = len(mirror.unverified.flags)
        region: int | None = self._start
        while region is not None and region < count and not self.gaveWay and self._out < OUT:
            if self._doubtful:
                region = mirror.unverified.after(region)
                if region is None:
                    break
                last = mirror.unverified.stretch(region, STRETCH)
            else:
                last = min(region + STRETCH, count) - 1
            await self._stretch(region, last)
            region = last + 1
            if self._reached is not None:
                await self._reached(region % count)
            behind = any(leg.state == RESYNCING for leg in mirror.legs)
            self.gaveWay = self._gives and behind and region < count
        if self._doubtful and self._compared and not (self._count or self.inVain):
            await self._believe()
        self._finish()
        return Findings(self._compared, self._count, tuple(self._mismatches), self._unreadable, self._lost)

    async def _believe(self) -> None:
        """
        Members agree wherever they can be compared: so what one of them cannot read the others have.  That is
        so if it can write it; else it is the member that is not well, and when it is again it may be right.
        """
        self._agreed = True
        for region in self._open:
            if self._mirror.unverified.flags[region] and not self.inVain:
                await self._region(region)

    async def _stretch(self, first: int, last: int) -> None:
        """Some regions in a row: at once if nobody has anything there, else one after another."""
        mirror = self._mirror
        offset, end = first << mirror.shift, min(last + 1 << mirror.shift, mirror.size)
        if await self._locked(offset, end, self._allHoles, offset, end):
            self._done(first, last, end - offset)
            return
        for region in range(first, last + 1):
            if self._out < OUT:
                await self._region(region)

    async def _allHoles(self, offset: int, end: int) -> bool:
        legs = self._holders(offset, end)
        if len(legs) < 2 or not all(leg.abilities.allocated for leg in legs):
            return False
        for leg in legs:
            try:
                runs = await self._mirror.watch.ask(leg, leg.device.allocated, offset, end - offset)
            except (DeviceError, OSError):
                return False
            if any(hasStorage for _, hasStorage in runs):
                return False
        return True

    def _holders(self, offset: int, end: int) -> list[Leg]:
        legs = self._mirror.holders(offset, end)
        self._partial = self._partial or len(legs) < len(self._mirror.legs)
        return legs

    async def _region(self, region: int) -> None:
        mirror = self._mirror
        offset, end = region << mirror.shift, min(region + 1 << mirror.shift, mirror.size)
        written, equal, compared = mirror.life.spoils(), True, 0
        while offset < end:
            piece = min(PIECE, end - offset)
            equal &= await self._locked(offset, offset + piece, self._piece, offset, offset + piece)
            offset += piece
            compared += piece
            await self.progress.advance(0)
        if equal and written == mirror.life.spoils():
            self._done(region, region, compared)
        else:
            self.progress.add(compared)

    def _done(self, first: int, last: int, length: int) -> None:
        """Members agree in these regions."""
        mirror = self._mirror
        self.progress.add(length)
        if mirror.unverified.has(first, last):
            mirror.certain(first, last)

    async def _locked(self, offset: int, end: int, function: Any, *arguments: Any) -> Any:
        return await ready(
            self._mirror.lock.run(offset, end, lambda: Deferred.fromCoroutine(function(*arguments)))
        )

    async def _piece(self, offset: int, end: int) -> bool:
        """
        Compare a piece of all members that should have it; the range is locked.

        @return: whether they are equal now.
        """
        legs = self._holders(offset, end)
        if len(legs) < 2:
            return bool(legs) and not self._mirror.unverified.has(*self._mirror.regions(offset, end))
        self._tries = 0
        self._gone.clear()
        equal = await self._part(legs, offset, end, True)
        for start, stop in self._gone:
            self._tellLost(start, stop)
        return equal

    async def _part(self, legs: list[Leg], offset: int, end: int, whole: bool = False) -> bool:
        """
        Compare a part of a piece.

        @param whole: it is the piece itself.
        @return: whether members are equal there now.
        @raise CancelledError: if the mirror is closed meanwhile.
        """
        if self._mirror.life.stopping:
            raise CancelledError
        reads = [attempt(leg.device.read, offset, end - offset) for leg in legs]
        results = await ready(self._mirror.watch.answers(legs, reads))
        failures = {leg: one for leg, one in zip(legs, results, strict=True) if isinstance(one, Failure)}
        for failure in failures.values():
            failure.trap(DeviceError, OSError)
        data: list[Buffer] = [bytes(one) for one in results if not isinstance(one, Failure)]
        if failures:
            self._unreadable += whole and not self._agreed
            return await self._restore(legs, failures, data, offset, end)
        self._out = 0
        self._compared += end - offset
        return await self._compare(legs, data, offset, end)

    async def _compare(self, legs: list[Leg], data: list[Buffer], offset: int, end: int) -> bool:
        if all(one == data[0] for one in data):
            return True
        right = self._right(legs, data)
        repaired = right is not None and await self._even(legs, data, right, offset, end)
        for first, stop in differences(data):
            self._tell(offset + first, stop - first, repaired)
        return repaired

    async def _restore(
        self, legs: list[Leg], failures: dict[Leg, Failure], data: list[Buffer], offset: int, end: int
    ) -> bool:
        """
        Some could not read a part: write it anew there if all others have the same, else look at parts of it.
        """
        mirror = self._mirror
        regions = mirror.regions(offset, end)
        unsure = mirror.unverified.has(*regions)
        splits = [mayBeSplit(leg, failure.value) for leg, failure in failures.items()]
        if unsure and not all(splits):
            # That is no place which cannot be read.
            self.inVain = True
            self._out += 1
            return False
        split = any(splits) and self._tries + len(failures) < TRIES and end - offset > grain(mirror)
        doubt = unsure and not self._agreed
        right = data and not (doubt or mirror.readOnly) and all(one == data[0] for one in data)
        if right and not (unsure and split):
            for leg in failures:
                await self._rewrite(leg, offset, end, data[0])
            return not self.inVain and all(leg.gets for leg in legs)
        self._tries += len(failures)
        if split:
            equal = [await self._part(legs, *half) for half in halves(mirror, offset, end)]
            return all(equal)
        if doubt and data:
            self._open.add(*regions)
        elif not data and not self._agreed:
            self._lose(offset, end)
        others = [leg for leg in legs if leg not in failures]
        if len(data) > 1:
            await self._compare(others, data, offset, end)
        return False

    def _lose(self, offset: int, end: int) -> None:
        self._lost += end - offset
        if self._gone and self._gone[-1][1] == offset:
            offset = self._gone.pop()[0]
        self._gone.append((offset, end))

    def _tellLost(self, offset: int, end: int) -> None:
        self._places += 1
        if self._places <= TOLD:
            _log.warn(
                "{mirror}: bytes {offset} to {end} can be read from no member", event="unreadable",
                mirror=str(self._mirror), offset=offset, end=end,
            )  # fmt: skip

    def _right(self, legs: list[Leg], data: list[Buffer]) -> Buffer | None:
        """What all should hold; None if nobody says so."""
        if self._repair is None:
            return None
        if isinstance(self._repair, Leg):
            return next((one for leg, one in zip(legs, data, strict=True) if leg is self._repair), None)
        ((most, votes),) = Counter(map(bytes, data)).most_common(1)
        return most if votes * 2 > len(data) else None

    async def _even(self, legs: list[Leg], data: list[Buffer], right: Buffer, offset: int, end: int) -> bool:
        for leg, one in zip(legs, data, strict=True):
            if one != right:
                await self._rewrite(leg, offset, end, right)
        return not self.inVain and all(leg.gets for leg in legs)

    async def _rewrite(self, leg: Leg, offset: int, end: int, data: Buffer) -> None:
        """
        Write to one member what others have.

        @raise DeviceError: if nobody can do without it, and it has not; but where there is doubt that stays.
        """
        try:
            await self._mirror.rewrite(leg, offset, end, data)
        except (DeviceError, OSError) as error:
            if not self._mirror.unverified.has(*self._mirror.regions(offset, end)):
                raise
            self.inVain = True
            self._mirror.life.tellError(error)

    def _tell(self, offset: int, length: int, repaired: bool) -> None:
        self._count += 1
        if self._count > TOLD:
            return
        self._mismatches.append(Mismatch(offset, length, repaired))
        _log.warn(
            "{mirror}: members differ in {length} bytes at {offset}" + (", made equal" if repaired else ""),
            event="mismatch", mirror=str(self._mirror), offset=offset, length=length, repaired=repaired,
        )  # fmt: skip

    def _finish(self) -> None:
        tell = _log.warn if self._count or self._unreadable else _log.info
        tell(
            "{mirror}: {compared} bytes compared, {count} differences, {unreadable} pieces not readable",
            event=self.progress.activity, mirror=str(self._mirror), compared=self._compared,
            count=self._count, unreadable=self._unreadable,
        )  # fmt: skip


def differences(data: list[Buffer]) -> list[tuple[int, int]]:
    """
    Runs of sectors in which buffers of one length are not all the same: first byte, and that after the last.
    """
    runs: list[tuple[int, int]] = []
    length = len(data[0])
    for start in range(0, length, SECTOR):
        end = min(start + SECTOR, length)
        if all(one[start:end] == data[0][start:end] for one in data):
            continue
        if runs and runs[-1][1] == start:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    return runs
