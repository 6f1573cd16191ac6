"""Tests for L{iscsi_twisted.comparing}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.comparing import mismatch


class MismatchTests(SynchronousTestCase):
    """L{mismatch}"""

    @given(st.binary(min_size=1, max_size=64), st.data())
    def test_mismatch(self, data: bytes, draw: st.DataObject) -> None:
        """The first difference is found, wherever it is and whatever follows it."""
        other = draw.draw(st.binary(min_size=len(data), max_size=len(data)))
        places = [place for place in range(len(data)) if data[place] != other[place]]
        self.assertEqual(mismatch(data, memoryview(other)), places[0] if places else None)

    def test_same(self) -> None:
        """Equal buffers, among them empty ones, differ nowhere."""
        self.assertEqual([mismatch(b"abc", bytearray(b"abc")), mismatch(b"", b"")], [None, None])
