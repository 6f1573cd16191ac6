# -*- test-case-name: tests.storage.test_stripe -*-
"""Devices that take turns, chunk by chunk (RAID0 with a chunk size)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import lcm
from typing import Any

import attrs
from twisted.python.failure import Failure

from iscsi_twisted.errors import DeviceError, LocalError, ReadError, WriteError
from iscsi_twisted.interfaces import Buffer, Capabilities, Pending
from iscsi_twisted.storage.concatenation import READING, joined, located, noneFailed
from iscsi_twisted.storage.device import checkRange
from iscsi_twisted.storage.members import Composition
from iscsi_twisted.storage.pending import attempt, ifLater, nothing, settle, whenDone


@attrs.frozen
class Part:
    """
    What one member has of a range; it is one piece there.

    @ivar index: which member.
    @ivar offset: where it begins on the member.
    @ivar length: bytes.
    @ivar first: where it begins on the stripe.
    """

    index: int
    offset: int
    length: int
    first: int


class Stripe(Composition):
    """
    Members of one size that take turns, each with a chunk.

    What lies within one chunk goes straight to its member.  What spans several is one operation for each
    member, however many chunks it has of it; they run at the same time.  What the members have after their
    last whole chunk is not used.

    @ivar chunk: bytes.
    """

    def __init__(self, members: Iterable[Any], chunk: int) -> None:
        super().__init__(members)
        if chunk < 1:
            raise LocalError(f"{chunk} bytes are no chunk")
        self.chunk = chunk
        self._row = chunk * len(self.members)

    def opened(self) -> None:
        """@raise DeviceError: if the sizes differ, or a chunk is no multiple of the block size."""
        first, *others = self.members
        for member in others:
            if member.size != first.size:
                raise DeviceError(
                    f"the members of a stripe have to be of one size, but {first} has {first.size} bytes"
                    f" and {member} {member.size}"
                )
        self.blockSize = lcm(*(member.blockSize for member in self.members))
        if self.chunk % self.blockSize:
            raise DeviceError(
                f"a chunk of {self.chunk} bytes is no multiple of the block size, {self.blockSize}"
            )
        if first.size < self.chunk:
            raise DeviceError(f"{first}: {first.size} bytes are less than a chunk of {self.chunk}")
        self.size = first.size // self.chunk * self._row

    def kind(self) -> str:
        """The same members with another chunk are another device."""
        return f"Stripe:{self.chunk}"

    def capabilities(self) -> Capabilities:
        """As those of a concatenation."""
        return joined(self.members)

    def read(self, offset: int, length: int) -> Buffer | Pending:
        turn, within = divmod(offset, self.chunk)
        if 0 <= length <= self.chunk - within and 0 <= offset <= self.size - length:
            row, index = divmod(turn, len(self.members))
            result: Buffer | Pending = self._at(index, "read", row * self.chunk + within, length)
            return result
        parts = self._parts(offset, length)
        return whenDone(
            self._each("read", parts, ((part.length,) for part in parts)),
            lambda data: b"".join(self._shuffled(offset, length, data)),
        )

    def write(self, offset: int, data: Buffer) -> Pending | None:
        length = len(data)
        turn, within = divmod(offset, self.chunk)
        if length <= self.chunk - within and 0 <= offset <= self.size - length:
            row, index = divmod(turn, len(self.members))
            result: Pending | None = self._at(index, "write", row * self.chunk + within, data)
            return result
        parts = self._parts(offset, length)
        whole = memoryview(data)
        return whenDone(
            self._each("write", parts, ((self._dealt(whole, offset, part),) for part in parts)), nothing
        )

    def flush(self) -> Pending | None:
        """All members: they do not tell what they have to flush."""
        outcomes = settle([attempt(member.flush) for member in self.members])
        return whenDone(outcomes, lambda each: nothing(noneFailed(each)))

    def discard(self, offset: int, length: int) -> Pending | None:
        parts = self._parts(offset, length)
        return whenDone(self._each("discard", parts, ((part.length,) for part in parts)), nothing)

    def zero(self, offset: int, length: int, unmap: bool) -> Pending | None:
        parts = self._parts(offset, length)
        return whenDone(self._each("zero", parts, ((part.length, unmap) for part in parts)), nothing)

    def allocated(self, offset: int, length: int) -> list[tuple[int, bool]] | Pending:
        """
        Ask the members.  Beyond one chunk whole rows are answered for: where one member has data the row has,
        else the answer for a terabyte would be millions of runs.
        """
        parts = self._parts(offset, length)
        asked = self._each("allocated", parts, ((part.length,) for part in parts))
        if len(parts) < 2 and length <= self.chunk:
            return whenDone(asked, lambda answers: answers[0] if answers else [])
        return whenDone(asked, lambda answers: self._rows(offset, offset + length, parts, answers))

    # How it lies on the members

    def _parts(self, offset: int, length: int) -> list[Part]:
        """What each member has of a range, in the order of the range's beginning."""
        checkRange(self.size, offset, length)
        if not length:
            return []
        first, last = offset // self.chunk, (offset + length - 1) // self.chunk
        return [
            self._part(turn, offset, offset + length)
            for turn in range(first, min(last + 1, first + len(self.members)))
        ]

    def _part(self, turn: int, offset: int, end: int) -> Part:
        """
        The part of the member that has one chunk, and those after it.

        @param turn: the chunk's number on the stripe.
        """
        count = len(self.members)
        row, index = divmod(turn, count)
        first = max(offset, turn * self.chunk)
        start = row * self.chunk + first - turn * self.chunk
        final = (end - 1) // self.chunk
        final -= (final - turn) % count
        stop = final // count * self.chunk + min(self.chunk, end - final * self.chunk)
        return Part(index, start, stop - start, first)

    def _pieces(self, part: Part) -> Iterator[tuple[int, int]]:
        """Where a part's chunks begin on the stripe, and how many bytes each has."""
        first, left = part.first, part.length
        while left:
            count = min(left, self.chunk - first % self.chunk)
            yield first, count
            left -= count
            first += self._row - first % self.chunk

    def _dealt(self, whole: memoryview, offset: int, part: Part) -> Buffer:
        """The bytes of a write that one member gets; uncopied if they are one chunk's."""
        pieces = [whole[first - offset : first - offset + count] for first, count in self._pieces(part)]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _shuffled(self, offset: int, length: int, data: list[Buffer]) -> list[memoryview]:
        """What the members have read, in the order of the stripe."""
        views = [memoryview(one) for one in data]
        taken = [0] * len(views)
        turn, pieces, end = 0, [], offset + length
        while offset < end:
            count = min(end - offset, self.chunk - offset % self.chunk)
            pieces.append(views[turn][taken[turn] : taken[turn] + count])
            taken[turn] += count
            turn = (turn + 1) % len(views)
            offset += count
        return pieces

    def _rows(
        self, offset: int, end: int, parts: list[Part], answers: list[list[tuple[int, bool]]]
    ) -> list[tuple[int, bool]]:
        """Runs of rows in which some member has data, and of others, within a range."""
        runs: list[tuple[int, bool]] = []
        spans = [
            span for part, answer in zip(parts, answers, strict=True) for span in self._spans(part, answer)
        ]
        for first, last in sorted(spans):
            first, last = max(first, offset), min(last, end)
            if first > offset:
                runs.append((first - offset, False))
            if last > first:
                runs.append((last - first, True))
                offset = last
        if end > offset:
            runs.append((end - offset, False))
        return _merged(runs)

    def _spans(self, part: Part, runs: list[tuple[int, bool]]) -> Iterator[tuple[int, int]]:
        """First and last byte on the stripe of the rows that hold a member's data."""
        position = part.offset
        for count, hasStorage in runs:
            if hasStorage:
                last = -(-(position + count) // self.chunk)
                yield position // self.chunk * self._row, last * self._row
            position += count

    # Calling them

    def _each(
        self, operation: str, parts: list[Part], arguments: Iterable[tuple[Any, ...]]
    ) -> list[Any] | Pending:
        """
        Do the same to every part of a range.

        @raise Exception: what went wrong first, in the order of the bytes.
        """
        results = [
            attempt(self._at, part.index, operation, part.offset, *rest)
            for part, rest in zip(parts, arguments, strict=True)
        ]
        return whenDone(
            settle(results), lambda outcomes: noneFailed(outcomes, [part.first for part in parts])
        )

    def _at(self, index: int, operation: str, offset: int, *arguments: Any) -> Any:
        """Call a member's method; an error's offset becomes one of the stripe."""
        try:
            result = getattr(self.members[index], operation)(offset, *arguments)
        except (DeviceError, OSError) as error:
            raise self._place(error, operation, index, offset) from None
        return ifLater(result, self._placed, operation, index, offset)

    def _place(self, error: BaseException, operation: str, index: int, offset: int) -> BaseException:
        error = located(error, ReadError if operation in READING else WriteError, offset)
        if isinstance(error, DeviceError) and error.offset is not None:
            row, within = divmod(error.offset, self.chunk)
            error.offset = row * self._row + index * self.chunk + within
        return error

    def _placed(self, operation: str, index: int, offset: int, failure: Failure) -> Failure:
        told: Any = failure.value
        error = self._place(told, operation, index, offset)
        return failure if error is told else Failure(error)


def _merged(runs: list[tuple[int, bool]]) -> list[tuple[int, bool]]:
    """The same runs, neighbours of one kind made one."""
    merged: list[tuple[int, bool]] = []
    for count, hasStorage in runs:
        if merged and merged[-1][1] is hasStorage:
            merged[-1] = (merged[-1][0] + count, hasStorage)
        else:
            merged.append((count, hasStorage))
    return merged
