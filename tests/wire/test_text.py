"""Tests for L{iscsi_twisted.wire.text}."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import TextError
from iscsi_twisted.session.keys import KEYS
from iscsi_twisted.wire.text import LONGEST_VALUE, decode, encode

LABEL = "ABCXYZabcxyz019.-+@_#"
keys = st.builds(str.__add__, st.sampled_from("ABZX"), st.text(LABEL, max_size=62))
values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)


class TextTests(SynchronousTestCase):
    """Pairs and their bytes."""

    @settings(deadline=None)
    @given(st.lists(st.tuples(keys, values)))
    def test_roundTrip(self, pairs: list[tuple[str, str]]) -> None:
        """What was encoded is decoded to the same pairs in the same order."""
        self.assertEqual(decode(encode(pairs)), pairs)

    @settings(deadline=None)
    @given(st.binary(max_size=200))
    def test_anything(self, data: bytes) -> None:
        """Any bytes are either pairs of the standard's form or a TextError."""
        try:
            pairs = decode(data)
        except TextError:
            return
        self.assertEqual(decode(encode(pairs)), pairs)

    def test_form(self) -> None:
        """Each pair ends with a NUL; a value may be empty and may hold an equals sign."""
        pairs = [("A", ""), ("B", "c=d")]
        self.assertEqual(encode(pairs), b"A=\0B=c=d\0")
        self.assertEqual(decode(b"A=\0B=c=d\0"), pairs)

    def test_lenient(self) -> None:
        """A last NUL that is missing, and NULs too many, do no harm."""
        self.assertEqual(decode(b"\0A=1\0\0B=2"), [("A", "1"), ("B", "2")])

    def test_buffers(self) -> None:
        """Text may come as any kind of buffer."""
        self.assertEqual(decode(memoryview(b"A=1\0")), [("A", "1")])

    def test_standardKeys(self) -> None:
        """Every key of the standard is a valid key name, with whatever letter it begins."""
        pairs = [(name, "1") for name in KEYS]
        self.assertEqual(decode(encode(pairs)), pairs)

    def test_longestKey(self) -> None:
        """A key name has at most 63 characters."""
        self.assertEqual(decode(b"K" * 63 + b"=1"), [("K" * 63, "1")])
        self.assertRaises(TextError, decode, b"K" * 64 + b"=1")

    def test_vendorKeys(self) -> None:
        """Keys of vendors begin with X- or X#."""
        self.assertEqual(decode(b"X-com.example.a=1\0X#b=2"), [("X-com.example.a", "1"), ("X#b", "2")])

    def test_longestValue(self) -> None:
        """A value has a bound, in bytes."""
        self.assertEqual(len(decode(b"A=" + b"v" * LONGEST_VALUE)[0][1]), LONGEST_VALUE)
        self.assertRaises(TextError, decode, b"A=" + b"v" * (LONGEST_VALUE + 1))

    def test_faults(self) -> None:
        """What is no pair is refused, and the message holds nothing of it that is not a key name."""
        for data, message in (
            (b"Key", "a text item has no '='"),
            (b"=value", "a text item has no valid key name before its '='"),
            (b"1Key=value", "a text item has no valid key name before its '='"),
            (b"K y=value", "a text item has no valid key name before its '='"),
            (b"Key\n=value", "a text item has no valid key name before its '='"),
            (b"K\xc3\xa4y=value", "a text item is not UTF-8"),
            (b"Key=\xff", "a text item is not UTF-8"),
            (b"A=1\0\xff", "a text item has no '='"),
        ):
            error = self.assertRaises(TextError, decode, data)
            self.assertEqual(str(error), message)
