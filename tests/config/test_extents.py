# -*- test-case-name: tests.config.test_extents -*-
"""Extents that share bytes."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.config.extents import overlaps
from iscsi_twisted.config.model import Extent

RANGES = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10) | st.none()), max_size=8)


def extents(*ranges: tuple[str, int, int | None]) -> list[Extent]:
    """Extents of these paths, starts and lengths."""
    return [Extent(f"extent{n}", path, start, length) for n, (path, start, length) in enumerate(ranges)]


def names(found: list[Extent]) -> list[tuple[str, str]]:
    """The pairs that overlap."""
    return [(later.name, earlier.name) for later, earlier in overlaps(found)]


class OverlapTests(SynchronousTestCase):
    """Tests of L{overlaps}."""

    def test_apart(self) -> None:
        """Other files and neighbours share nothing."""
        self.assertEqual(names(extents(("/a", 0, 10), ("/b", 0, 10), ("/a", 10, 5), ("/a", 15, None))), [])

    def test_shared(self) -> None:
        """The later of two is told, and with which it collides, in whatever order they lie in the file."""
        self.assertEqual(names(extents(("/a", 0, 10), ("/a", 9, 10))), [("extent1", "extent0")])
        self.assertEqual(names(extents(("/a", 9, 10), ("/a", 0, 10))), [("extent1", "extent0")])

    def test_inside(self) -> None:
        """A range within another collides with it though a third one lies between their starts."""
        found = names(extents(("/a", 0, 100), ("/a", 1, 1), ("/a", 50, 1)))
        self.assertEqual(found, [("extent1", "extent0"), ("extent2", "extent0")])

    def test_toTheEnd(self) -> None:
        """An extent of unknown length reaches to the end of its file."""
        self.assertEqual(names(extents(("/a", 1000, 1), ("/a", 0, None))), [("extent1", "extent0")])
        self.assertEqual(names(extents(("/a", 0, 1), ("/a", 1, None))), [])

    def test_spelling(self) -> None:
        """Paths are the same if their texts come to the same."""
        self.assertEqual(names(extents(("/a/b", 0, 1), ("//a/./c/../b", 0, 1))), [("extent1", "extent0")])

    @given(RANGES, st.randoms())
    def test_any(self, ranges: list[tuple[int, int | None]], order: random.Random) -> None:
        """There is a collision exactly if some two ranges have a byte in common."""
        found = extents(*(("/a", start, length) for start, length in ranges))
        order.shuffle(found)
        spans = [set(range(start, 100 if length is None else start + length)) for start, length in ranges]
        common = any(first & second for n, first in enumerate(spans) for second in spans[:n])
        self.assertEqual(bool(names(found)), common)
