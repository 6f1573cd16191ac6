# -*- test-case-name: tests.cli.test_tool -*-
"""Copying between units, files and streams: several pieces at once, and no holes."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from typing import Any, BinaryIO, Final

from twisted.internet.defer import Deferred, succeed

from iscsi_twisted.errors import CheckCondition, ISCSIError, LocalError
from iscsi_twisted.initiator import LUN
from iscsi_twisted.interfaces import Buffer

PIECE: Final = 1 << 20
"""Bytes of one read and write."""

DEPTH: Final = 8
"""Pieces that are under way at once."""


class Differs(ISCSIError):
    """What was copied is not what is there."""


class FileEnd:
    """
    A file or a stream as one end of a copy.

    @ivar seekable: whether it is a file, in which holes can be left.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seekable = file.seekable() and not file.isatty()
        self.blockSize = 1

    @property
    def size(self) -> int:
        """Bytes; of a stream nobody knows."""
        return os.fstat(self._file.fileno()).st_size if self.seekable else 0

    def read(self, offset: int, length: int) -> Deferred[Buffer]:
        """The bytes there; fewer at the end."""
        if self.seekable:
            self._file.seek(offset)
        return succeed(self._file.read(length))

    def write(self, offset: int, data: Buffer) -> Deferred[None]:
        """Write bytes."""
        if self.seekable:
            self._file.seek(offset)
        self._file.write(data)
        return succeed(None)

    def resize(self, size: int) -> None:
        """Make a file as long as what is copied to it."""
        if self.seekable:
            self._file.truncate(size)

    def flush(self) -> Deferred[None]:
        """Make it durable."""
        self._file.flush()
        if self.seekable:
            os.fsync(self._file.fileno())
        return succeed(None)


class Copy:
    """
    One copy.

    @ivar copied: bytes that are at the other end, holes among them.
    @ivar skipped: bytes of holes.
    """

    def __init__(
        self,
        origin: Any,
        target: Any,
        size: int,
        *,
        source: int = 0,
        sink: int = 0,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """
        @param origin: a L{LUN} or L{FileEnd}; so is the target.
        @param size: bytes at most.
        @param source: where to begin reading; C{sink} where to begin writing.
        @param progress: called with the bytes that have been copied.
        @raise LocalError: for negative numbers.
        """
        if min(size, source, sink) < 0:
            raise LocalError("there are no bytes before the first, or behind the last")
        self._origin, self._target, self._size = origin, target, size
        self._source, self._sink, self._progress = source, sink, progress
        self.copied = self.skipped = 0
        self._ended = False
        self._mapped: list[tuple[int, int]] | None = None

    async def run(self) -> None:
        """
        Copy.

        @raise LocalError: for a stream that ends within a block.
        """
        underway: deque[Deferred[None]] = deque()
        place = 0
        self._mapped = await self._runs()
        try:
            while place < self._size and not self._ended:
                length = min(PIECE, self._size - place)
                underway.append(Deferred.fromCoroutine(self._piece(place, length)))
                place += length
                if len(underway) >= self._depth():
                    await underway.popleft()
            while underway:
                await underway.popleft()
        finally:
            for one in underway:
                one.addErrback(lambda why: None)
                one.cancel()
        if isinstance(self._target, FileEnd) and self._sink == 0:
            self._target.resize(self.copied)

    def _depth(self) -> int:
        """Streams want their bytes in order."""
        ends = (self._origin, self._target)
        return DEPTH if all(isinstance(end, LUN) or end.seekable for end in ends) else 1

    async def _piece(self, place: int, length: int) -> None:
        hole = self._hole(place, length)
        data: Buffer = bytes(length) if hole else await self._origin.read(self._source + place, length)
        if len(data) < length:
            self._ended = True
        if len(data) % self._target.blockSize:
            raise LocalError(
                f"{place + len(data)} bytes are not whole blocks of {self._target.blockSize} bytes"
            )
        if len(data):
            await self._store(place, data)
        self.copied += len(data)
        if self._progress is not None:
            self._progress(self.copied)

    async def _runs(self) -> list[tuple[int, int]] | None:
        """First byte and end of what the origin has storage for; None if it does not tell."""
        origin = self._origin
        if not isinstance(origin, LUN) or not self._size:
            return None
        able = origin.capabilities()
        if not able.allocated or not able.discardZeroes:
            return None
        mapped, place = [], 0
        try:
            runs = await origin.allocated(self._source, self._size)
        except CheckCondition:
            # A thin unit need not have GET LBA STATUS.
            return None
        for length, stored in runs:
            if stored:
                mapped.append((place, place + length))
            place += length
        return mapped

    def _hole(self, place: int, length: int) -> bool:
        """Whether nothing is stored there, and it reads as zeros."""
        if self._mapped is None:
            return False
        # The last run that begins before the end.
        number = bisect_left(self._mapped, (place + length, 0)) - 1
        return number < 0 or self._mapped[number][1] <= place

    async def _store(self, place: int, data: Buffer) -> None:
        """Write bytes; zeros as holes, where holes read as zeros."""
        target = self._target
        if bytes(data).count(0) == len(data):
            if isinstance(target, FileEnd) and target.seekable and target.size <= self._sink + place:
                self.skipped += len(data)
                return
            if isinstance(target, LUN) and target.capabilities().discardZeroes:
                await target.zero(self._sink + place, len(data), True)
                self.skipped += len(data)
                return
        await target.write(self._sink + place, data)

    async def verify(self) -> None:
        """
        Read both ends again, and compare.

        @raise Differs: with the first byte that does.
        """
        for place in range(0, self.copied, PIECE):
            length = min(PIECE, self.copied - place)
            one = bytes(await self._origin.read(self._source + place, length))
            other = bytes(await self._target.read(self._sink + place, length))
            if one != other:
                wrong = next(
                    (at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]),
                    len(other),
                )
                raise Differs(f"byte {self._sink + place + wrong} is not what was copied")
