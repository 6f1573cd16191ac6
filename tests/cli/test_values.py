"""What may stand behind options of commands."""

from __future__ import annotations

from argparse import ArgumentTypeError

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.cli.values import number, seconds, size


class ValueTests(SynchronousTestCase):
    """Values, and what is none."""

    def test_number(self) -> None:
        """Whole numbers within their bounds; whoever writes another reads what these are."""
        self.assertEqual([number(1, 65535)(text) for text in ("1", "65535", "080")], [1, 65535, 80])
        for text in ("0", "65536", "x", "", "1.5", "-1", "1_0", "\u0663", "9" * 5000):
            why = str(self.assertRaises(ArgumentTypeError, number(1, 65535), text))
            self.assertIn("right would be a whole number from 1 to 65535", why)
            self.assertLess(len(why), 200)
        self.assertEqual(number(-1)("-1"), -1)
        self.assertIn("from 0 on", str(self.assertRaises(ArgumentTypeError, number(0), "-1")))

    def test_seconds(self) -> None:
        """Times, which may be none if that makes sense, and never are without end."""
        self.assertEqual([seconds(0)(text) for text in ("0", "1.5", "1e3")], [0, 1.5, 1000])
        for text in ("-1", "nan", "inf", "x", ""):
            why = str(self.assertRaises(ArgumentTypeError, seconds(0), text))
            self.assertIn("right would be a number of seconds from 0 on", why)

    def test_size(self) -> None:
        """Bytes, as in the targets file."""
        self.assertEqual([size(text) for text in ("0", "512", "4K", "1.5GiB")], [0, 512, 4096, 3 << 29])
        self.assertIn("is not a size", str(self.assertRaises(ArgumentTypeError, size, "-512")))
