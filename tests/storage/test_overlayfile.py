# -*- test-case-name: tests.storage.test_overlayfile -*-
"""Tests for L{iscsi_twisted.storage.overlayfile}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import DeviceError
from iscsi_twisted.storage.overlayfile import (
    COMMITTING,
    FORGETTING,
    HEADER,
    MAGIC,
    UNKNOWN,
    Header,
    decode,
    digest,
)


class HeaderTests(SynchronousTestCase):
    """L{Header}."""

    def test_bytes(self) -> None:
        """It is the magic words, the size, what is under way and the base, and zeros."""
        header = Header(0x1234, COMMITTING, b"abcdefghijklmnop")
        data = header.encode()
        self.assertEqual(data.rstrip(b"\0"), MAGIC + bytes(6) + b"\x12\x34\x02abcdefghijklmnop")
        self.assertEqual((len(data), decode(data)), (HEADER, header))

    def test_earlier(self) -> None:
        """One of which nothing but the size is known is settled, over a base that is unknown."""
        self.assertEqual(decode(Header(7).encode()), Header(7, 0, UNKNOWN))

    def test_new(self) -> None:
        """Zeros are a store that was never used."""
        self.assertIsNone(decode(bytes(HEADER)))
        self.assertIsNone(decode(memoryview(bytes(HEADER))))

    def test_foreign(self) -> None:
        """Anything else is no overlay, nor one that a later version has written."""
        good = Header(7, FORGETTING, bytes(range(16))).encode()
        for place, value in ((0, 0), (23, 0), (32, 3), (49, 1), (HEADER - 1, 1)):
            data = bytearray(good)
            data[place] = value
            self.assertIn("is no overlay", str(self.assertRaises(DeviceError, decode, data)))

    def test_digest(self) -> None:
        """Bases that were changed at different times differ; one that does not tell is unknown."""
        self.assertEqual(digest(()), UNKNOWN)
        self.assertEqual(len({digest(stamp) for stamp in ((1,), (2,), (1, 2), (12,))}), 4)
        self.assertEqual(len(digest((1,))), len(UNKNOWN))
