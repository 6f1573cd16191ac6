# -*- test-case-name: tests.storage.test_regions -*-
"""Sets of the regions of a device: pieces of one size in which changes are remembered."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

MOST: Final = 1 << 16
"""Regions of a device: as bits they take 8 KiB, however large it is."""

SMALLEST: Final = 1 << 18
"""Bytes of a region at least: to copy fewer saves nothing."""

_DIGITS: Final = b"0" + b"1" * 255
_FLAGS: Final = bytes.maketrans(b"01", b"\0\1")


def regionShift(size: int) -> int:
    """The binary logarithm of the bytes of a region, for a device of so many bytes."""
    return max(SMALLEST - 1, (size - 1) // MOST).bit_length()


class Regions:
    """
    A set of regions.

    @ivar flags: for each region 1 if it is in the set, else 0.
    """

    __slots__ = ("flags",)

    def __init__(self, count: int, full: bool = False) -> None:
        self.flags = bytearray(b"\1" * count if full else count)

    def __bool__(self) -> bool:
        return 1 in self.flags

    def __len__(self) -> int:
        return self.flags.count(1)

    def has(self, first: int, last: int) -> bool:
        """Whether any of the regions C{first} to C{last} is in the set."""
        return self.flags.find(1, first, last + 1) >= 0

    def add(self, first: int, last: int) -> None:
        """Put the regions C{first} to C{last} into the set."""
        self.flags[first : last + 1] = b"\1" * (last + 1 - first)

    def remove(self, first: int, last: int) -> None:
        """Take the regions C{first} to C{last} out of the set."""
        self.flags[first : last + 1] = bytes(last + 1 - first)

    def update(self, other: Regions) -> None:
        """Put all regions of another set into this one."""
        # To find that a set is empty costs next to nothing, and mostly one is.
        if other:
            self._set(self._number() | other._number())

    def subtract(self, other: Regions) -> None:
        """Take all regions of another set out of this one."""
        if self and other:
            self._set(self._number() & ~other._number())

    def intersect(self, other: Regions) -> None:
        """Keep those that are in another set too."""
        if self:
            self._set(self._number() & other._number())

    def _number(self) -> int:
        return int.from_bytes(self.flags)

    def _set(self, number: int) -> None:
        self.flags[:] = number.to_bytes(len(self.flags))

    def clear(self) -> None:
        """Take all out."""
        self.flags[:] = bytes(len(self.flags))

    def copy(self) -> Regions:
        """The same set, once more."""
        other = Regions(0)
        other.flags = bytearray(self.flags)
        return other

    def after(self, start: int) -> int | None:
        """The first region from C{start} on that is in the set."""
        found = self.flags.find(1, start)
        return None if found < 0 else found

    def stretch(self, first: int, most: int) -> int:
        """
        The last of the regions in a row that begins with C{first}, which is in the set; C{most} of them.
        """
        end = self.flags.find(0, first, first + most)
        return (min(first + most, len(self.flags)) if end < 0 else end) - 1

    def __iter__(self) -> Iterator[int]:
        found = self.flags.find(1)
        while found >= 0:
            yield found
            found = self.flags.find(1, found + 1)


def pack(flags: bytes | bytearray) -> bytes:
    """One bit for each flag that is not 0, compressed."""
    if not flags:
        return b""
    # Most sets are empty, and that is seen at once.
    number = int(flags.translate(_DIGITS), 2) if flags != bytes(len(flags)) else 0
    return zlib.compress(number.to_bytes(-(-len(flags) // 8)), 1)


def unpack(data: bytes, count: int) -> Regions:
    """
    What C{pack} was given.

    @raise ValueError: if it is anything else.
    """
    regions = Regions(count)
    if not count:
        return regions
    expand = zlib.decompressobj()
    length = -(-count // 8)
    try:
        bits = expand.decompress(data, length + 1)
    except zlib.error as error:
        raise ValueError(f"a set of regions is damaged: {error}") from None
    if bits == bytes(length):
        return regions
    number = int.from_bytes(bits)
    if len(bits) != length or number >> count:
        raise ValueError(f"a set of regions has not {count} of them")
    regions.flags[:] = f"{number:0{count}b}".encode().translate(_FLAGS)
    return regions
