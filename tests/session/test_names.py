"""Tests for L{iscsi_twisted.session.names}."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.session.names import LONGEST, complaint, normalise, printable

GOOD = (
    "iqn.2001-04.com.example",
    "iqn.2001-04.com.example:storage:disk1",
    "iqn.1993-08.org.debian:01:1ba5e4c0ffee",
    "IQN.2001-12.COM.Example:Disk",
    "iqn.2001-04.com.example:under_score",
    "iqn.2001-04.com.example:größe",
    "iqn.2001-04.com.example:" + "n" * (LONGEST - 24),
    "eui.02004567A425678D",
    "naa.52004567BA64678D",
    "naa.62004567BA64678D0123456789ABCDEF",
)

FORM = "the name is not of the form iqn.YYYY-MM.DOMAIN[:TEXT], eui.16HEX, naa.16HEX or naa.32HEX"
BAD = (
    ("", "the name is empty"),
    ("disk", FORM),
    ("iqn.2001-13.com.example", FORM),
    ("iqn.2001-4.com.example", FORM),
    ("iqn.01-04.com.example", FORM),
    ("iqn.2001-04", FORM),
    ("iqn.2001-04.com.example:x\u0301y\n", "the name holds '\\n'; "),
    ("eui.02004567A425678", FORM),
    ("eui.02004567A425678DA", FORM),
    ("naa.52004567BA64678D0123", FORM),
    ("iqn.2001-04.com.example:a b", "the name holds ' '; "),
    ("iqn.2001-04.com.example:a/b", "the name holds '/'; "),
    ("iqn.2001-04.com.example:a\x1bb", "the name holds '\\x1b'; "),
    ("iqn.2001-04.com.example:a\u2028b", "the name holds '\\u2028'; "),
    ("iqn.2001-04.com.example:" + "n" * (LONGEST - 23), f"the name is longer than {LONGEST} bytes"),
    ("iqn.2001-04.com.example:" + "ö" * 100, f"the name is longer than {LONGEST} bytes"),
)


class ComplaintTests(SynchronousTestCase):
    """Which names are names."""

    def test_good(self) -> None:
        """The three forms are accepted, in any case, up to 223 bytes."""
        for name in GOOD:
            self.assertIsNone(complaint(name), name)

    def test_bad(self) -> None:
        """Anything else gets a phrase that says what is wrong."""
        for name, phrase in BAD:
            self.assertTrue((complaint(name) or "").startswith(phrase), (name, complaint(name)))

    @settings(deadline=None)
    @given(st.text())
    def test_anything(self, name: str) -> None:
        """Any text is a name or gets a phrase of one printable line."""
        phrase = complaint(name)
        self.assertTrue(phrase is None or phrase.isprintable(), phrase)

    @settings(deadline=None)
    @given(st.text(st.characters(), max_size=50))
    def test_goodIsPrintable(self, text: str) -> None:
        """What is accepted can stand in a log as it is."""
        name = "iqn.2001-04.com.example:" + text
        if complaint(name) is None:
            self.assertEqual(printable(name), name)


class NormaliseTests(SynchronousTestCase):
    """Which names are the same."""

    def test_case(self) -> None:
        """Case makes no difference."""
        self.assertEqual(normalise("IQN.2001-04.COM.Example:Disk"), "iqn.2001-04.com.example:disk")

    def test_compositions(self) -> None:
        """Two ways to write one character make no difference."""
        self.assertEqual(normalise("iqn.2001-04.com.example:O\u0308l"), "iqn.2001-04.com.example:öl")

    def test_long(self) -> None:
        """What is too long for a name is not looked at any further."""
        long = "a" + "\u0301\u0316" * LONGEST
        self.assertEqual(normalise(long), long)
        self.assertNotEqual(normalise(long[:LONGEST]), long[:LONGEST])

    @settings(deadline=None)
    @given(st.sampled_from(GOOD))
    def test_stable(self, name: str) -> None:
        """The normal form of a normal form is itself."""
        self.assertEqual(normalise(normalise(name)), normalise(name))


class PrintableTests(SynchronousTestCase):
    """Text from the network in a log."""

    def test_controls(self) -> None:
        """Control characters and line ends become question marks."""
        self.assertEqual(printable("a\nb\x1b[31m\u2028ü"), "a?b?[31m?ü")

    def test_bound(self) -> None:
        """What is too long is cut."""
        self.assertEqual(printable("x" * 1000), "x" * LONGEST)
        self.assertEqual(printable("abc", 2), "ab")

    @settings(deadline=None)
    @given(st.text())
    def test_anything(self, text: str) -> None:
        """Any text becomes one printable, bounded line."""
        shown = printable(text)
        self.assertTrue(shown.isprintable() or not shown)
        self.assertLessEqual(len(shown), LONGEST)
