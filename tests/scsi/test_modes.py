"""Tests for L{iscsi_twisted.scsi.modes}."""

from iscsi_twisted.interfaces import Capabilities
from iscsi_twisted.scsi import cdb, codes
from tests.scsi.cases import BLOCK, BLOCKS, DiskTests
from tests.scsi.devices import MemoryDisk
from tests.support.tasks import Nexus

CACHING = "0812" + "04" + "00" * 17
CONTROL = "0a0a" + "0210" + "00" * 8
EXCEPTIONS = "1c0a" + "08" + "00" * 9
ALL = CACHING + CONTROL + EXCEPTIONS
SHORT = "00000040" + "00000200"
LONG = "0000000000000040" + "00000000" + "00000200"


class ModeSenseTests(DiskTests):
    """MODE SENSE, SPC-4 6.13 and 6.14."""

    def six(self, page: int, subpage: int = 0, flags: int = 0) -> str:
        """The answer to MODE SENSE (6)."""
        return self.good(cdb.MODE_SENSE_6, page=page, subpage=subpage, flags=flags, allocation=255).hex()

    def ten(self, page: int, subpage: int = 0, flags: int = 0) -> str:
        """The answer to MODE SENSE (10)."""
        return self.good(cdb.MODE_SENSE_10, page=page, subpage=subpage, flags=flags, allocation=255).hex()

    def test_pages(self) -> None:
        """Each page, and all of them, come after the head and the block descriptor."""
        self.assertEqual(self.six(0x08), "1f001008" + SHORT + CACHING)
        self.assertEqual(self.six(0x0A), "17001008" + SHORT + CONTROL)
        self.assertEqual(self.six(0x1C), "17001008" + SHORT + EXCEPTIONS)
        self.assertEqual(self.six(0x3F), "37001008" + SHORT + ALL)
        self.assertEqual(self.six(0x3F, 0xFF), "37001008" + SHORT + ALL)
        self.assertEqual(self.ten(0x3F), "003a001000000008" + SHORT + ALL)

    def test_descriptors(self) -> None:
        """DBD leaves the block descriptor out, LLBAA makes it long (SPC-4 6.14)."""
        self.assertEqual(self.six(0x08, flags=0x08), "17001000" + CACHING)
        self.assertEqual(self.ten(0x08, flags=0x08), "001a001000000000" + CACHING)
        self.assertEqual(self.ten(0x08, flags=0x10), "002a001001000010" + LONG + CACHING)
        self.assertEqual(self.ten(0x08, flags=0x18), "001a001000000000" + CACHING)

    def test_large(self) -> None:
        """A number of blocks that does not fit the short descriptor is all ones (SBC-3 6.5.2.2)."""
        self.unit.blockCount = 1 << 32
        self.assertEqual(self.six(0x08), "1f001008" + "ffffffff00000200" + CACHING)
        self.assertEqual(
            self.ten(0x08, flags=0x10), "002a001001000010" + "00000001000000000000000000000200" + CACHING
        )

    def test_changeable(self) -> None:
        """Nothing can be changed (SPC-4 6.13.4)."""
        zeros = "0812" + "00" * 18 + "0a0a" + "00" * 10 + "1c0a" + "00" * 10
        self.assertEqual(self.six(0x7F, flags=0x08), "2f001000" + zeros)

    def test_default(self) -> None:
        """The default values are the current ones."""
        self.assertEqual(self.six(0xBF, flags=0x08), "2f001000" + ALL)

    def test_saved(self) -> None:
        """Saved values do not exist (SPC-4 6.13.6)."""
        for command in (cdb.MODE_SENSE_6, cdb.MODE_SENSE_10):
            task = self.command(command, page=0xC8, allocation=255)
            self.assertSense(task, codes.ILLEGAL_REQUEST, codes.SAVING_NOT_SUPPORTED, (True, 2, 7))

    def test_unknown(self) -> None:
        """Pages and subpages that are not there are refused (SPC-4 6.13.1)."""
        for command in (cdb.MODE_SENSE_6, cdb.MODE_SENSE_10):
            self.assertInvalidField(self.command(command, page=0x01, allocation=255), 2, 5)
            self.assertInvalidField(self.command(command, page=0x0A, subpage=1, allocation=255), 3, 7)

    def test_writeProtected(self) -> None:
        """WP is set for a read-only unit, and for a nexus that may not write (SBC-3 6.5.1)."""
        readOnly = self.makeUnit(self.device, readOnly=True)
        data = self.good(cdb.MODE_SENSE_6, unit=readOnly, page=0x08, allocation=255)
        self.assertEqual(data[2], 0x90)
        data = self.good(cdb.MODE_SENSE_10, nexus=Nexus(readOnly=True), page=0x08, allocation=255)
        self.assertEqual(data[3], 0x90)

    def test_noCache(self) -> None:
        """WCE is clear for a device without a volatile cache (SBC-3 6.5.5)."""
        unit = self.makeUnit(MemoryDisk(BLOCKS * BLOCK, Capabilities()))
        data = self.good(cdb.MODE_SENSE_6, unit=unit, page=0x08, flags=0x08, allocation=255)
        self.assertEqual(data[4:].hex(), "0812" + "00" * 18)
