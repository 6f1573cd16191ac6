# -*- test-case-name: tests.storage.test_salvage -*-
"""
What members of a mirror cannot read as a whole: each part of it is taken from a member that can.

A range that no member could read is halved until each part was read or is too small to be halved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.internet.defer import CancelledError

from iscsi_twisted.errors import DeviceError, ReadError
from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.storage.legs import Leg

if TYPE_CHECKING:
    from iscsi_twisted.storage.mirrorread import MirrorReading

GRAIN: Final = 512
"""Bytes that a disk loses at once, at least."""

TRIES: Final = 256
"""Reads that may fail for one range: a disk may take seconds for each.  Then the rest counts as lost."""


class Salvage:
    """
    One range, and what is left of it.

    @ivar parts: what could be read: the first byte of each part, and its bytes; in order.
    @ivar missed: what a member could not read and another could: the member, the first byte, and the bytes.
    @ivar lost: what nobody could read: the first byte, and that after the last; in order.
    @ivar error: why; None if nothing was lost.
    """

    def __init__(self, mirror: MirrorReading, first: Leg | None = None) -> None:
        """@param first: the member to be asked first."""
        self._mirror, self._first = mirror, first
        self._tries, self._stopped = 0, False
        self.parts: list[tuple[int, Buffer]] = []
        self.missed: list[tuple[Leg, int, Buffer]] = []
        self.lost: list[tuple[int, int]] = []
        self.error: Exception | None = None

    async def run(self, offset: int, end: int, *, tried: bool = False) -> None:
        """
        Read the range.

        @param tried: all have been asked for the whole of it already, and could not read it.
        @raise CancelledError: if the mirror is closed meanwhile.
        """
        ranges = halves(self._mirror, offset, end) if tried else [(offset, end)]
        while ranges and not self._stopped:
            if self._mirror.life.stopping:
                raise CancelledError
            start, stop = ranges.pop(0)
            if not await self._part(start, stop):
                ranges[:0] = halves(self._mirror, start, stop)

    def stop(self) -> None:
        """Nobody wants it any more: what is not yet asked for is left out."""
        self._stopped = True

    async def _part(self, start: int, stop: int) -> bool:
        """
        Read a part.

        @return: whether there is nothing more to be tried.
        """
        mirror = self._mirror
        holders = sorted(mirror.holders(start, stop), key=lambda leg: leg is not self._first)
        failed: dict[Leg, Exception] = {}
        if await self._read(holders, start, stop, failed):
            return True
        split = any(mayBeSplit(leg, error) for leg, error in failed.items())
        if split and self._tries < TRIES and stop - start > grain(mirror):
            return False
        if holders and await self._read(mirror.rivals(start, stop), start, stop, failed):
            return True
        self.error = self.error or next(iter(failed.values()), ReadError("no member has it by now", start))
        if self.lost and self.lost[-1][1] == start:
            start = self.lost.pop()[0]
        self.lost.append((start, stop))
        return True

    async def _read(self, legs: list[Leg], start: int, stop: int, failed: dict[Leg, Exception]) -> bool:
        """Read a part from the first of these that can; who cannot is put with the others that could not."""
        for leg in legs:
            if self._stopped:
                break
            try:
                data = await self._mirror.watch.ask(leg, leg.device.read, start, stop - start)
            except (DeviceError, OSError) as error:
                failed[leg] = error
                self._tries += 1
                continue
            self.parts.append((start, data))
            self.missed += [(one, start, data) for one in failed]
            return True
        return False

    def whole(self) -> Buffer:
        """
        All of it.

        @raise DeviceError: if something was lost: that, and where.
        """
        if self.lost:
            raise ReadError(f"{self._mirror}: no member can read it: {self.error}", self.lost[0][0])
        return self.parts[0][1] if len(self.parts) == 1 else b"".join(data for _, data in self.parts)


def mayBeSplit(leg: Leg, error: BaseException | None) -> bool:
    """Whether a member may be able to read a part of what it could not read as a whole."""
    return isinstance(error, (ReadError, OSError)) and not leg.hanging


def grain(mirror: MirrorReading) -> int:
    """Bytes of the smallest part of a range that is looked at."""
    return max(GRAIN, mirror.blockSize)


def halves(mirror: MirrorReading, offset: int, end: int) -> list[tuple[int, int]]:
    """Two parts of a range, which is longer than the smallest one."""
    step = grain(mirror)
    middle = offset + max(1, (end - offset) // 2 // step) * step
    return [(offset, middle), (middle, end)]
