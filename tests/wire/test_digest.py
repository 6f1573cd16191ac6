"""Tests for L{iscsi_twisted.wire.digest}."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.wire.digest import digest

# RFC 7143 appendix A.4: bytes, and their CRC in the order of the wire.
EXAMPLES = (
    (bytes(32), "aa36918a"),
    (b"\xff" * 32, "43aba862"),
    (bytes(range(32)), "4e79dd46"),
    (bytes(range(31, -1, -1)), "5cdb3f11"),
    (
        bytes.fromhex(
            "01c00000 00000000 00000000 00000000 14000000 00000400"
            "00000014 00000018 28000000 00000000 02000000 00000000"
        ),
        "563a96d9",
    ),
)


class DigestTests(SynchronousTestCase):
    """CRC32C."""

    def test_examples(self) -> None:
        """The standard's examples come out as printed."""
        for data, expected in EXAMPLES:
            self.assertEqual(digest(data).hex(), expected)

    def test_nothing(self) -> None:
        """The digest of nothing is zero."""
        self.assertEqual(digest(), bytes(4))

    @settings(deadline=None)
    @given(st.lists(st.binary(max_size=40)))
    def test_parts(self, parts: list[bytes]) -> None:
        """Parts, of whatever buffer type, have the digest of the whole."""
        whole = digest(b"".join(parts))
        self.assertEqual(digest(*parts), whole)
        self.assertEqual(digest(*map(memoryview, parts)), whole)
        self.assertEqual(digest(*map(bytearray, parts)), whole)
