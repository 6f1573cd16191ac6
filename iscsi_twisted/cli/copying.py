# -*- test-case-name: tests.cli.test_tool,tests.cli.test_resume -*-
"""Copying between units, files and streams: several pieces at once, and no holes."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred

from iscsi_twisted.cli.checkpoint import Checkpoint
from iscsi_twisted.cli.ends import End, Runs, Threads
from iscsi_twisted.errors import ISCSIError, LocalError

PIECE: Final = 1 << 20
"""Bytes of one read and write."""

DEPTH: Final = 8
"""Pieces that are under way at once."""

ZEROS: Final = bytes(PIECE)


class Differs(ISCSIError):
    """What was copied is not what is there."""


class Record:
    """
    Keeps the checkpoint of a copy up to date.

    From time to time, what was written is flushed, and then said to be there.
    """

    def __init__(
        self, checkpoint: Checkpoint, threads: Threads, seconds: Callable[[], float], every: float
    ) -> None:
        """@param every: seconds between two."""
        self._checkpoint, self._threads, self._seconds, self._every = checkpoint, threads, seconds, every
        self._last = seconds()
        self._saving: Deferred[None] | None = None

    async def reached(self, target: End, done: int) -> None:
        """So many bytes are written; it may be time to say so.  Nobody has to wait until it is said."""
        if self._saving is not None:
            if not self._saving.called:
                return
            saving, self._saving = self._saving, None
            await saving
        if self._seconds() - self._last >= self._every:
            self._last = self._seconds()
            self._saving = Deferred.fromCoroutine(self._save(target, done))

    async def _save(self, target: End, done: int) -> None:
        await target.flush()
        await self._threads(self._checkpoint.save, done)

    async def settle(self) -> None:
        """Wait until nothing is being said."""
        saving, self._saving = self._saving, None
        if saving is not None:
            await saving

    def stop(self) -> None:
        """The copy has failed; what was said before holds."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.addErrback(lambda why: None)
            saving.cancel()


class Copy:
    """
    One copy.

    @ivar copied: bytes that are at the other end, holes among them.
    @ivar skipped: bytes of holes that this copy has left or made.
    """

    def __init__(
        self,
        origin: End,
        target: End,
        size: int,
        *,
        source: int = 0,
        sink: int = 0,
        done: int = 0,
        progress: Callable[[int], None] | None = None,
        record: Record | None = None,
    ) -> None:
        """
        @param size: bytes at most.
        @param source: where to begin reading; C{sink} where to begin writing.
        @param done: bytes that are at the other end already.
        @param progress: called with the bytes that have been copied.
        @raise LocalError: for negative numbers.
        """
        if min(size, source, sink) < 0:
            raise LocalError("there are no bytes before the first, or behind the last")
        self._origin, self._target, self._size = origin, target, size
        self._source, self._sink, self._progress, self._record = source, sink, progress, record
        self.copied, self.skipped = done, 0
        self._ended = False
        self._mapped: Runs | None = None
        self._free: list[memoryview] = []

    async def run(self) -> None:
        """
        Copy.

        @raise LocalError: for a stream that ends within a block, and for what became shorter meanwhile.
        """
        underway: deque[tuple[int, Deferred[None]]] = deque()
        depth = 1 if self._origin.ordered or self._target.ordered else DEPTH
        self._mapped = await self._origin.stored(self._source, self._size)
        place = reached = self.copied
        await self._target.prepare(self._sink + self._size, self._sink + place)
        try:
            while underway or (place < self._size and not self._ended):
                if place < self._size and not self._ended and len(underway) < depth:
                    length = min(PIECE, self._size - place)
                    underway.append((length, Deferred.fromCoroutine(self._piece(place, length))))
                    place += length
                    continue
                length, one = underway.popleft()
                await one
                reached += length
                if self._record is not None:
                    await self._record.reached(self._target, reached)
            if self._record is not None:
                await self._record.settle()
        finally:
            self._stop([one for _, one in underway])
        await self._target.finish(self._sink + self.copied)

    def _stop(self, underway: list[Deferred[None]]) -> None:
        """Nothing is under way any more; after a failure something may be."""
        for one in underway:
            one.addErrback(lambda why: None)
            one.cancel()
        if self._record is not None:
            self._record.stop()

    async def _piece(self, place: int, length: int) -> None:
        if self._hole(place, length):
            await self._store(place, memoryview(ZEROS)[:length], True)
            self._count(length)
            return
        whole = self._free.pop() if self._free else memoryview(bytearray(PIECE))
        got = await self._read(place, whole[:length])
        self._ended = self._ended or got < length
        if got % self._target.blockSize:
            raise LocalError(f"{place + got} bytes are not whole blocks of {self._target.blockSize} bytes")
        data = whole[:got]
        if got:
            await self._store(place, data, _zeros(data))
        # Only what nobody uses any more is used again: not after a failure.
        self._free.append(whole)
        self._count(got)

    async def _read(self, place: int, view: memoryview) -> int:
        """
        Fill a buffer with what is to be copied; how far it is filled.

        @raise LocalError: if there is less, but at the end of a stream.
        """
        got = await self._origin.read(self._source + place, view)
        if got < len(view) and not self._origin.ordered:
            byte = self._source + place + got
            raise LocalError(f"{self._origin} has no byte {byte} any more: it was cut meanwhile")
        return got

    def _count(self, length: int) -> None:
        self.copied += length
        if self._progress is not None:
            self._progress(self.copied)

    def _hole(self, place: int, length: int) -> bool:
        """Whether nothing is stored there, and it reads as zeros."""
        if self._mapped is None:
            return False
        # The last run that begins before the end.
        number = bisect_left(self._mapped, (place + length, 0)) - 1
        return number < 0 or self._mapped[number][1] <= place

    async def _store(self, place: int, data: memoryview, zeros: bool) -> None:
        """Write bytes; zeros as holes, where holes read as zeros."""
        if zeros and await self._target.zero(self._sink + place, len(data)):
            self.skipped += len(data)
            return
        await self._target.write(self._sink + place, data)

    async def verify(self, progress: Callable[[int], None] | None = None) -> None:
        """
        Read both ends again, and compare.

        @param progress: called with the bytes that have been compared.
        @raise Differs: with the first byte that does.
        """
        underway: deque[tuple[int, Deferred[None]]] = deque()
        place = 0
        try:
            while underway or place < self.copied:
                if place < self.copied and len(underway) < DEPTH:
                    length = min(PIECE, self.copied - place)
                    underway.append((place + length, Deferred.fromCoroutine(self._compare(place, length))))
                    place += length
                    continue
                reached, one = underway.popleft()
                await one
                if progress is not None:
                    progress(reached)
        finally:
            self._stop([one for _, one in underway])

    async def _compare(self, place: int, length: int) -> None:
        one, other = bytearray(length), bytearray(length)
        await self._read(place, memoryview(one))
        await self._target.read(self._sink + place, memoryview(other))
        if one != other:
            wrong = next(at for at, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1])
            raise Differs(f"byte {self._sink + place + wrong} of {self._target} is not what was copied")


def _zeros(data: memoryview) -> bool:
    """Whether there is nothing but zeros; mostly the first bytes tell."""
    head = min(64, len(data))
    return data[:head] == ZEROS[:head] and bytes(data) == ZEROS[: len(data)]
