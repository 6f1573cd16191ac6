# -*- test-case-name: tests.config.test_sizes -*-
"""Sizes as people write them."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.config.sizes import MAX_BYTES, parseSize
from iscsi_twisted.errors import ConfigurationError

GOOD = [
    ("0", 0),
    ("512", 512),
    ("00512", 512),
    ("512B", 512),
    ("1K", 1024),
    ("1k", 1024),
    ("64KB", 65536),
    ("64KiB", 65536),
    ("64kib", 65536),
    ("100MB", 104857600),
    ("100m", 104857600),
    ("100GB", 107374182400),
    ("1.5MB", 1572864),
    ("1.5GiB", 1610612736),
    ("0.5k", 512),
    ("1.0", 1),
    ("2T", 1 << 41),
    ("1P", 1 << 50),
    ("7E", 7 << 60),
    (str(MAX_BYTES), MAX_BYTES),
]

BAD = [
    ("", "is not a size; write a number of bytes in decimal"),
    ("MB", "is not a size"),
    ("-1", "is not a size"),
    ("+1", "is not a size"),
    ("1_000", "is not a size"),
    ("1 MB", "is not a size"),
    ("100Mxyz", "is not a size"),
    ("100MBB", "is not a size"),
    (".5G", "is not a size"),
    ("5.G", "is not a size"),
    ("\u0661", "is not a size"),
    ("1\u212a", "is not a size"),
    ("9" * 5000, "is not a size"),
    ("0x200", "write it in decimal"),
    ("1,5GB", "write the fraction with a point: 1.5GB"),
    ("1.5", "'1.5' is no whole number of bytes; the nearest below is 1"),
    ("1.3GB", "'1.3GB' is no whole number of bytes; the nearest below is 1395864371"),
    (str(MAX_BYTES + 1), "is more than a file can hold"),
    ("8E", "is more than a file can hold"),
]


class SizeTests(SynchronousTestCase):
    """Tests of L{parseSize}."""

    def test_good(self) -> None:
        """Units are powers of 1024 in any case and spelling, and fractions are exact."""
        self.assertEqual([(text, parseSize(text)) for text, _ in GOOD], GOOD)

    def test_bad(self) -> None:
        """What is no size, or no whole number of bytes, is refused with advice."""
        for text, message in BAD:
            with self.subTest(text=text[:20]):
                error = self.assertRaises(ConfigurationError, parseSize, text)
                self.assertIn(message, str(error))

    @given(st.integers(0, 10**6), st.integers(0, 999), st.sampled_from(["", "K", "MB", "GiB"]))
    def test_exact(self, whole: int, thousandths: int, unit: str) -> None:
        """A size with a fraction is exactly what arithmetic says, or an error if that is not whole."""
        scale = {"": 1, "K": 1 << 10, "MB": 1 << 20, "GiB": 1 << 30}[unit]
        wanted = (whole + Fraction(thousandths, 1000)) * scale
        text = f"{whole}.{thousandths:03}{unit}"
        if wanted.denominator == 1:
            self.assertEqual(parseSize(text), wanted)
        else:
            self.assertRaises(ConfigurationError, parseSize, text)
