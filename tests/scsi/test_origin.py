"""Tests for L{iscsi_twisted.scsi.origin}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.scsi.origin import MARK, NO_MARK, isAnother, mark, mediumOf
from tests.scsi.devices import MemoryDisk


class Known(MemoryDisk):
    """A disk that can be told from others."""

    name: str | None = "inode 7 bytes 0 to 512"

    def fingerprint(self) -> str | None:
        """Its name."""
        return self.name


class OriginTests(SynchronousTestCase):
    """Which medium it is."""

    def test_medium(self) -> None:
        """A device that knows says it, but not how long it is; others say nothing."""
        device = Known(512)
        self.assertEqual(mediumOf(device), "inode 7 bytes 0")
        device.name = None
        self.assertIsNone(mediumOf(device))
        self.assertIsNone(mediumOf(MemoryDisk(512)))

    def test_another(self) -> None:
        """It is another one where both are known and differ; so it is with marks."""
        for one, other, differ in (
            ("a", "b", True),
            ("a", "a", False),
            ("a", None, False),
            (None, "b", False),
        ):
            self.assertEqual(isAnother(one, other), differ)
            self.assertEqual(isAnother(mark(one), mark(other)), differ)

    def test_mark(self) -> None:
        """All marks have the same size."""
        self.assertEqual((len(mark("a")), mark(None)), (MARK, NO_MARK))
