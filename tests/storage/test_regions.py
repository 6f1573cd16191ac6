# -*- test-case-name: tests.storage.test_regions -*-
"""Tests for L{iscsi_twisted.storage.regions}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.storage.regions import MOST, Regions, pack, regionShift, unpack


def regions(*numbers: int, count: int = 20) -> Regions:
    """A set of these."""
    made = Regions(count)
    for number in numbers:
        made.add(number, number)
    return made


class RegionTests(SynchronousTestCase):
    """Tests of L{Regions}."""

    def test_shift(self) -> None:
        """However large a device is, it has not too many regions; small ones have not too small ones."""
        for size in (512, 1 << 20, (1 << 34) + 512, 1 << 40, (1 << 60) + 1):
            shift = regionShift(size)
            self.assertLessEqual((size - 1 >> shift) + 1, MOST)
            self.assertGreaterEqual(shift, 18)
        self.assertEqual(regionShift(1 << 40), 24)

    def test_sets(self) -> None:
        """It does what sets do."""
        one, two = regions(1, 2, 3), regions(3, 4)
        both = one.copy()
        both.update(two)
        self.assertEqual(list(both), [1, 2, 3, 4])
        both.subtract(one)
        self.assertEqual(list(both), [4])
        one.intersect(two)
        self.assertEqual((list(one), len(one), bool(one)), ([3], 1, True))
        one.clear()
        self.assertFalse(one)
        self.assertEqual(len(Regions(7, full=True)), 7)

    def test_ranges(self) -> None:
        """Ranges are put in, taken out, asked for and found."""
        some = Regions(20)
        some.add(3, 9)
        some.remove(5, 6)
        self.assertEqual([some.has(0, 2), some.has(5, 6), some.has(6, 7)], [False, False, True])
        self.assertEqual([some.after(0), some.after(5), some.after(10)], [3, 7, None])
        self.assertEqual([some.stretch(3, 9), some.stretch(7, 2), some.stretch(7, 99)], [4, 8, 9])
        some.add(18, 19)
        self.assertEqual(some.stretch(18, 99), 19)

    @given(st.lists(st.booleans(), min_size=1, max_size=300))
    def test_packed(self, flags: list[bool]) -> None:
        """What is packed is unpacked the same."""
        some = Regions(len(flags))
        some.flags[:] = bytes(flags)
        self.assertEqual(unpack(pack(some.flags), len(flags)).flags, some.flags)

    def test_small(self) -> None:
        """Even the worst set of a mirror takes little room."""
        self.assertLess(len(pack(bytes([0, 1, 1, 0, 1, 0, 0]) * (MOST // 7))), 9000)
        self.assertEqual((pack(b""), len(unpack(b"", 0))), (b"", 0))

    def test_damaged(self) -> None:
        """What is no set of so many regions is refused."""
        for data, count in ((b"", 3), (b"xyz", 3), (pack(bytes(9)), 3), (pack(b"\1" * 8), 7)):
            self.assertRaises(ValueError, unpack, data, count)
