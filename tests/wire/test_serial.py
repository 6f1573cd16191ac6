"""Tests for L{iscsi_twisted.wire.serial}."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.wire.serial import MASK, distance, within

numbers = st.integers(0, MASK)
near = st.integers(-(2**31) + 1, 2**31 - 1)


class SerialTests(SynchronousTestCase):
    """Numbers that go round."""

    def test_distance(self) -> None:
        """Distances are signed and go the short way round."""
        for a, b, expected in (
            (0, 0, 0),
            (1, 5, 4),
            (5, 1, -4),
            (MASK, 0, 1),
            (0, MASK, -1),
            (0, 0x7FFFFFFF, 0x7FFFFFFF),
            (0, 0x80000000, -0x80000000),
        ):
            self.assertEqual(distance(a, b), expected, (a, b))

    @settings(deadline=None)
    @given(numbers, near)
    def test_distanceOfSum(self, start: int, step: int) -> None:
        """What is C{step} further is at distance C{step}, and the way back is as long."""
        end = (start + step) & MASK
        self.assertEqual((distance(start, end), distance(end, start)), (step, -step))

    def test_within(self) -> None:
        """Both ends belong to a range, which may go over the end of the numbers."""
        for low, number, high, expected in (
            (1, 1, 1, True),
            (1, 0, 1, False),
            (1, 2, 1, False),
            (5, 7, 9, True),
            (MASK, 0, 1, True),
            (MASK, MASK - 1, 1, False),
            (MASK, 2, 1, False),
        ):
            self.assertIs(within(low, number, high), expected, (low, number, high))

    @settings(deadline=None)
    @given(numbers, numbers)
    def test_empty(self, low: int, number: int) -> None:
        """A range that ends just before its beginning holds nothing: the closed window."""
        self.assertFalse(within(low, number, (low - 1) & MASK))

    @settings(deadline=None)
    @given(numbers, st.integers(0, 2**31), near)
    def test_range(self, low: int, length: int, step: int) -> None:
        """A number is within if it is no further from the low end than the high end is."""
        high = (low + length) & MASK
        number = (low + step) & MASK
        self.assertIs(within(low, number, high), 0 <= step <= length)
