"""Tests for L{iscsi_twisted.scsi.logs}."""

import struct

from iscsi_twisted.scsi import cdb
from tests.scsi.cases import BLOCK, DiskTests


class LogSenseTests(DiskTests):
    """LOG SENSE, SPC-4 6.7 and 7.3."""

    def log(self, page: int, subpage: int = 0, parameter: int = 0) -> bytes:
        """A page without its head, which is checked."""
        fields = {"page": page, "subpage": subpage, "parameter": parameter}
        data = self.good(cdb.LOG_SENSE, allocation=0xFFFF, **fields)
        self.assertEqual(data[0], page & 0x3F | (0x40 if subpage else 0))
        self.assertEqual((data[1], int.from_bytes(data[2:4], "big")), (subpage, len(data) - 4))
        return data[4:]

    def test_supported(self) -> None:
        """Page 00h lists the pages, ascending, and each of them is there (SPC-4 7.3)."""
        pages = self.log(0x00)
        self.assertEqual(pages.hex(), "0002032f")
        for page in pages:
            self.log(page)

    def test_supportedSubpages(self) -> None:
        """Page 00h, subpage FFh lists pages and subpages, and each of them is there (SPC-4 7.3)."""
        pages = self.log(0x00, 0xFF)
        self.assertEqual(pages.hex(), "0000" + "00ff" + "0200" + "0300" + "2f00")
        for page, subpage in struct.iter_unpack("BB", pages):
            self.log(page, subpage)

    def test_bytes(self) -> None:
        """Pages 02h and 03h hold the unit's own counters of bytes written and read (SPC-4 7.3)."""
        self.good(cdb.WRITE_10, bytes(3 * BLOCK), length=3)
        self.good(cdb.READ_10, length=2)
        self.assertEqual(self.log(0x02).hex(), "00050208" + f"{3 * BLOCK:016x}")
        self.assertEqual(self.log(0x03).hex(), "00050208" + f"{2 * BLOCK:016x}")

    def test_exceptions(self) -> None:
        """Page 2Fh says that there are no exceptions, and that no temperature is known (SPC-4 7.3)."""
        self.assertEqual(self.log(0x2F).hex(), "00000304" + "0000ff00")

    def test_control(self) -> None:
        """All page controls give the same values (SPC-4 6.7)."""
        for control in range(4):
            self.assertEqual(self.log(control << 6 | 0x2F), self.log(0x2F))

    def test_pointer(self) -> None:
        """The parameter pointer leaves out what is before it; beyond the last is refused (SPC-4 6.7)."""
        self.assertEqual(self.log(0x02, parameter=5), self.log(0x02))
        for page, subpage, parameter in ((0x02, 0, 6), (0x2F, 0, 1), (0, 0, 1), (0, 0xFF, 1)):
            task = self.command(
                cdb.LOG_SENSE, page=page, subpage=subpage, parameter=parameter, allocation=255
            )
            self.assertInvalidField(task, 5)

    def test_refused(self) -> None:
        """Saving, and pages and subpages that are not there, are refused."""
        self.assertInvalidField(self.command(cdb.LOG_SENSE, flags=1, allocation=255), 1, 0)
        self.assertInvalidField(self.command(cdb.LOG_SENSE, page=0x0D, allocation=255), 2, 5)
        self.assertInvalidField(self.command(cdb.LOG_SENSE, page=0x2F, subpage=1, allocation=255), 3, 7)
        self.assertInvalidField(self.command(cdb.LOG_SENSE, page=0x00, subpage=1, allocation=255), 2, 5)
