# -*- test-case-name: tests.wire.test_serial -*-
"""Serial number arithmetic modulo 2**32 (RFC 1982, RFC 7143 4.2.2.1)."""

from __future__ import annotations

from typing import Final

MASK: Final = 0xFFFFFFFF


def distance(a: int, b: int) -> int:
    """How far C{b} is ahead of C{a}: -2**31 to 2**31 - 1."""
    return ((b - a + 0x80000000) & MASK) - 0x80000000


def within(low: int, number: int, high: int) -> bool:
    """Whether C{low <= number <= high} going round the circle; an empty range is C{high == low - 1}."""
    return (number - low) & MASK <= (high - low) & MASK and (high - low + 1) & MASK != 0
