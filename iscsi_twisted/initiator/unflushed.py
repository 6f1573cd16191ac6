# -*- test-case-name: tests.initiator.test_unflushed -*-
"""What a unit has acknowledged and not made durable yet."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from operator import attrgetter
from typing import Final

from iscsi_twisted.interfaces import Buffer

WRITE: Final = "write"
ZERO: Final = "zero"
UNMAP: Final = "unmap"
DISCARD: Final = "discard"
"""Ways to change a range: with data, with zeros, with zeros whose storage may go, and without."""

LIMIT: Final = 32 << 20
"""Bytes of data that are kept: a unit that is fast makes so many durable in a moment, and many units fit."""

MOST: Final = 8192
"""Ranges that are kept, some hundred bytes each: so many of 4 KiB have the limit's bytes."""

_offset = attrgetter("offset")


class Piece:
    """
    A range as it was changed last.

    @ivar offset: the first byte.
    @ivar end: the byte after the last.
    @ivar how: one of the ways.
    @ivar data: for a L{WRITE}; else empty.
    @ivar number: of the change.
    @ivar epoch: how often the target had been started when it had this.
    """

    __slots__ = ("data", "end", "epoch", "how", "number", "offset")

    def __init__(self, offset: int, end: int, how: str, data: Buffer, number: int, epoch: int) -> None:
        self.offset, self.end, self.how, self.data = offset, end, how, data
        self.number, self.epoch = number, epoch

    def cut(self, offset: int, end: int) -> Piece:
        """The part of it within these bytes."""
        data = self.data
        if self.how == WRITE:
            data = memoryview(data)[offset - self.offset : end - self.offset]
            if 2 * len(data) < self.end - self.offset:
                # A small part must not keep the memory of the whole.
                data = bytes(data)
        return Piece(offset, end, self.how, data, self.number, self.epoch)


class Unflushed:
    """
    Pieces that do not overlap, in the order of their offsets.

    @ivar size: bytes of data.
    @ivar number: of the last change.
    """

    def __init__(self, limit: int = LIMIT, most: int = MOST) -> None:
        self._limit, self._most = limit, most
        self._pieces: list[Piece] = []
        self.size = self.number = 0

    def __len__(self) -> int:
        return len(self._pieces)

    def __iter__(self) -> Iterator[Piece]:
        return iter(self._pieces)

    @property
    def full(self) -> bool:
        """No more should be put in."""
        return self.size >= self._limit or len(self._pieces) >= self._most

    @property
    def filling(self) -> bool:
        """It should be emptied before it is full."""
        return 2 * self.size >= self._limit or 2 * len(self._pieces) >= self._most

    def put(self, offset: int, end: int, how: str, data: Buffer, epoch: int) -> None:
        """A range was changed; what it was before no longer matters."""
        self.number += 1
        index = self.remove(offset, end)
        self._pieces.insert(index, Piece(offset, end, how, data, self.number, epoch))
        self.size += len(data)

    def remove(self, offset: int, end: int) -> int:
        """
        Forget a range.

        @return: the index at which a piece of it belongs.
        """
        pieces = self._pieces
        first = bisect_right(pieces, offset, key=_offset)
        if first and pieces[first - 1].end > offset:
            first -= 1
        last, rest = first, []
        while last < len(pieces) and pieces[last].offset < end:
            piece = pieces[last]
            self.size -= len(piece.data)
            if piece.offset < offset:
                rest.append(piece.cut(piece.offset, offset))
            if piece.end > end:
                rest.append(piece.cut(end, piece.end))
            last += 1
        pieces[first:last] = rest
        self.size += sum(len(piece.data) for piece in rest)
        return first + (bool(rest) and rest[0].offset < offset)

    def flushed(self, number: int) -> None:
        """All changes up to this one are durable."""
        self._pieces = [piece for piece in self._pieces if piece.number > number]
        self.size = sum(len(piece.data) for piece in self._pieces)

    def before(self, epoch: int) -> list[Piece]:
        """What a target had that was started anew since."""
        return [piece for piece in self._pieces if piece.epoch < epoch]
