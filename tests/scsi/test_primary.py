"""Tests for L{iscsi_twisted.scsi.primary}."""

from iscsi_twisted.scsi import cdb, codes
from tests.scsi.cases import DiskTests


class PrimaryTests(DiskTests):
    """TEST UNIT READY and REQUEST SENSE."""

    def test_ready(self) -> None:
        """TEST UNIT READY of a ready unit is GOOD, without data (SPC-4 6.47)."""
        self.assertEqual(self.good(cdb.TEST_UNIT_READY), b"")

    def test_notReady(self) -> None:
        """TEST UNIT READY says when the device is gone."""
        self.unit.closed()
        task = self.command(cdb.TEST_UNIT_READY)
        self.assertSense(task, codes.NOT_READY, codes.NOT_READY_CAUSE_NOT_REPORTABLE)

    def test_noSense(self) -> None:
        """REQUEST SENSE has nothing to say of a ready unit (SPC-4 6.39)."""
        self.assertEqual(
            self.good(cdb.REQUEST_SENSE, allocation=252).hex(), "70" + "00" * 6 + "0a" + "00" * 10
        )

    def test_descriptors(self) -> None:
        """With DESC, REQUEST SENSE uses descriptor format (SPC-4 6.39)."""
        self.assertEqual(self.good(cdb.REQUEST_SENSE, flags=1, allocation=252).hex(), "7200" + "00" * 6)

    def test_attention(self) -> None:
        """REQUEST SENSE gives a unit attention condition as data, and so clears it (SPC-4 6.39)."""
        self.unit.attention(codes.CAPACITY_CHANGED)
        data = self.good(cdb.REQUEST_SENSE, allocation=252)
        self.assertEqual((data[2], data[12:14].hex()), (codes.UNIT_ATTENTION, "2a09"))
        self.good(cdb.TEST_UNIT_READY)

    def test_senseNotReady(self) -> None:
        """REQUEST SENSE tells why a unit is not ready, with GOOD status."""
        self.unit.closed()
        data = self.good(cdb.REQUEST_SENSE, allocation=252)
        self.assertEqual((data[2], data[12:14].hex()), (codes.NOT_READY, "0400"))
