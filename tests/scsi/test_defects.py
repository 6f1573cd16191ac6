"""Tests for L{iscsi_twisted.scsi.defects}."""

from __future__ import annotations

from iscsi_twisted.scsi import cdb
from tests.scsi.cases import DiskTests


class DefectTests(DiskTests):
    """READ DEFECT DATA, SBC-3 5.17 and 5.18."""

    def test_empty(self) -> None:
        """The lists that were asked for are there in the format that was asked for, and are empty."""
        for lists in (0x00, 0x08, 0x10, 0x18, 0x1B, 0x1D):
            data = self.good(cdb.READ_DEFECT_DATA_10, lists=lists, allocation=100)
            self.assertEqual(data, bytes([0, lists, 0, 0]))
            data = self.good(cdb.READ_DEFECT_DATA_12, lists=lists, allocation=100)
            self.assertEqual(data, bytes([0, lists, 0, 0, 0, 0, 0, 0]))

    def test_allocation(self) -> None:
        """No more is sent than there is room for."""
        self.assertEqual(self.good(cdb.READ_DEFECT_DATA_10, lists=0x18, allocation=2), b"\x00\x18")
        self.assertEqual(self.good(cdb.READ_DEFECT_DATA_12, lists=0x18, allocation=0), b"")

    def test_reserved(self) -> None:
        """The reserved format is refused."""
        self.assertInvalidField(self.command(cdb.READ_DEFECT_DATA_10, lists=0x1F, allocation=4), 2, 2)
        self.assertInvalidField(self.command(cdb.READ_DEFECT_DATA_12, lists=0x1F, allocation=8), 1, 2)
