# -*- test-case-name: tests.storage.test_concatenation -*-
"""Devices one after another (the FAQ's RAID0)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from errno import EIO
from itertools import accumulate, chain
from math import lcm
from typing import Any, Final

from twisted.python.failure import Failure

from iscsi_twisted.errors import DeviceError, ReadError, WriteError
from iscsi_twisted.interfaces import Buffer, Capabilities, IBlockDevice, Pending
from iscsi_twisted.storage.device import checkRange
from iscsi_twisted.storage.members import Composition
from iscsi_twisted.storage.pending import attempt, gather, ifLater, nothing, settle, whenDone


class Concatenation(Composition):
    """
    The members one after another; their sizes may differ, and are those that they had when they were opened.

    What lies within one member goes straight to it.  What spans several is split, runs on them at the same
    time, and is done when all parts are.
    """

    def __init__(self, members: Iterable[Any]) -> None:
        super().__init__(members)
        self._starts: list[int] = [0]
        self._ends: list[int] = [0]
        self._reads = [member.read for member in self.members]
        self._writes = [member.write for member in self.members]

    def opened(self) -> None:
        """@raise DeviceError: if a member begins or ends within a block."""
        self._ends = list(accumulate(member.size for member in self.members))
        self._starts = [0] + self._ends[:-1]
        self.size = self._ends[-1]
        self.blockSize = lcm(*(member.blockSize for member in self.members))
        for member in self.members:
            if member.size % self.blockSize:
                raise DeviceError(
                    f"{member}: {member.size} bytes are no multiple of the block size, {self.blockSize}"
                )

    def capabilities(self) -> Capabilities:
        """Zeroing must be cheap in every member to be called cheap; storage may come back from some alone."""
        return joined(self.members)

    def read(self, offset: int, length: int) -> Buffer | Pending:
        index = bisect_right(self._starts, offset) - 1
        if 0 <= offset <= offset + length <= self._ends[index]:
            # L{_at}, without the cost of calls.
            start = self._starts[index]
            try:
                result = self._reads[index](offset - start, length)
            except (DeviceError, OSError) as error:
                raise blamed(error, ReadError, offset - start, start) from None
            if hasattr(result, "addCallbacks"):
                ifLater(result, blame, ReadError, offset - start, start)
            return result
        return whenDone(self._spread("read", offset, length), b"".join)

    def write(self, offset: int, data: Buffer) -> Pending | None:
        index = bisect_right(self._starts, offset) - 1
        if 0 <= offset <= offset + len(data) <= self._ends[index]:
            start = self._starts[index]
            try:
                result = self._writes[index](offset - start, data)
            except (DeviceError, OSError) as error:
                raise blamed(error, WriteError, offset - start, start) from None
            if result is not None:
                ifLater(result, blame, WriteError, offset - start, start)
            return result
        whole = memoryview(data)
        spans = self._parts(offset, len(data))
        parts = [
            attempt(
                self._at,
                index,
                "write",
                first,
                whole[first - offset : first - offset + count],
            )
            for index, first, count in spans
        ]
        firsts = [first for _, first, _ in spans]
        return whenDone(settle(parts), lambda outcomes: nothing(noneFailed(outcomes, firsts)))

    def flush(self) -> Pending | None:
        """All members: they do not tell what they have to flush."""
        return whenDone(gather([attempt(member.flush) for member in self.members]), nothing)

    def discard(self, offset: int, length: int) -> Pending | None:
        return whenDone(self._spread("discard", offset, length), nothing)

    def zero(self, offset: int, length: int, unmap: bool) -> Pending | None:
        return whenDone(self._spread("zero", offset, length, unmap), nothing)

    def allocated(self, offset: int, length: int) -> list[tuple[int, bool]] | Pending:
        return whenDone(self._spread("allocated", offset, length), chained)

    def _parts(self, offset: int, length: int) -> list[tuple[int, int, int]]:
        """
        How a range lies on the members.

        @return: the member's index, the first byte (of this device) and the number of bytes of each part.
        """
        checkRange(self.size, offset, length)
        parts = []
        index = bisect_right(self._starts, offset) - 1
        end = offset + length
        while offset < end:
            count = min(end, self._ends[index]) - offset
            if count:
                parts.append((index, offset, count))
            offset += count
            index += 1
        return parts

    def _spread(self, operation: str, offset: int, length: int, *arguments: Any) -> list[Any] | Pending:
        """Do the same to every part of a range."""
        spans = self._parts(offset, length)
        parts = [
            attempt(self._at, index, operation, first, count, *arguments) for index, first, count in spans
        ]
        return whenDone(settle(parts), lambda each: noneFailed(each, [first for _, first, _ in spans]))

    def _at(self, index: int, operation: str, offset: int, *arguments: Any) -> Any:
        """
        Call a member's method.

        @param offset: of this device; so is that in an error.
        """
        start = self._starts[index]
        kind = ReadError if operation in READING else WriteError
        try:
            result = getattr(self.members[index], operation)(offset - start, *arguments)
        except (DeviceError, OSError) as error:
            raise blamed(error, kind, offset - start, start) from None
        return ifLater(result, blame, kind, offset - start, start)


NOWHERE: Final[Sequence[int]] = ()


def noneFailed(outcomes: list[Any], firsts: Sequence[int] = NOWHERE) -> list[Any]:
    """
    What the parts of an operation gave.

    @param firsts: where they began: a member that does not say where it failed did so there.
    @raise Exception: the failure at the lowest address.
    """
    failed = []
    for number, outcome in enumerate(outcomes):
        if isinstance(outcome, Failure):
            error = outcome.value
            if len(firsts) > 1 and isinstance(error, DeviceError) and error.offset is None:
                error.offset = firsts[number]
            place = getattr(error, "offset", firsts[number] if len(firsts) > 1 else None)
            failed.append((-1 if place is None else place, number))
    if failed:
        outcomes[min(failed)[1]].raiseException()
    return outcomes


def chained(runs: list[list[tuple[int, bool]]]) -> list[tuple[int, bool]]:
    """Runs of several members, one list."""
    return list(chain.from_iterable(runs))


def shift(error: DeviceError, start: int) -> None:
    """Make an offset of a member one of the whole, where the member begins at C{start}."""
    if error.offset is not None:
        error.offset += start


def shifted(start: int, failure: Failure) -> Failure:
    """The same as an errback."""
    if isinstance(failure.value, DeviceError):
        shift(failure.value, start)
    return failure


READING: Final = frozenset(("read", "allocated"))
"""Operations that change nothing."""


def located(error: BaseException, kind: type[DeviceError], offset: int) -> BaseException:
    """
    An input/output error of the system as one that says where it was.

    @param kind: the class that it gets.
    @param offset: the first byte that it may be about.
    @return: the same error if it is anything else.
    """
    if isinstance(error, OSError) and error.errno == EIO:
        return kind(str(error), offset)
    return error


def blamed(error: BaseException, kind: type[DeviceError], offset: int, start: int) -> BaseException:
    """
    An error of a member as one of the whole.

    @param offset: the member's first byte that it may be about.
    @param start: where the member begins.
    """
    error = located(error, kind, offset)
    if isinstance(error, DeviceError):
        shift(error, start)
    return error


def blame(kind: type[DeviceError], offset: int, start: int, failure: Failure) -> Failure:
    """The same as an errback."""
    told: Any = failure.value
    error = blamed(told, kind, offset, start)
    return failure if error is told else Failure(error)


def joined(members: Iterable[IBlockDevice]) -> Capabilities:
    """What a device can do that has its bytes on several."""
    each = [member.capabilities() for member in members]
    return Capabilities(
        readOnly=any(one.readOnly for one in each),
        volatileCache=any(one.volatileCache for one in each),
        discard=any(one.discard for one in each),
        zero=all(one.zero for one in each),
        allocated=any(one.allocated for one in each),
        discardZeroes=all(one.discard and one.discardZeroes for one in each),
        rotational=any(one.rotational for one in each),
        retains=any(one.retains for one in each),
        space=all(one.space for one in each),
    )
