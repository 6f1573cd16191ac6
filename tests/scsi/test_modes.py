"""Tests for L{iscsi_twisted.scsi.modes}."""

from typing import Any

from iscsi_twisted.interfaces import Capabilities
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.modes import Settings
from tests.scsi.cases import BLOCK, BLOCKS, DiskTests
from tests.scsi.devices import MemoryDisk
from tests.support.tasks import Nexus

RECOVERY = "010a" + "00" * 10
DISCONNECT = "020e" + "00" * 14
VERIFY = "070a" + "00" * 10
CACHING = "0812" + "04" + "00" * 17
CONTROL = "0a0a" + "0210" + "00" * 8
EXTENSION = "4a01001c" + "06" + "00" * 27
POWER = "1a26" + "00" * 38
EXCEPTIONS = "1c0a" + "08" + "00" * 9
ALL = RECOVERY + DISCONNECT + VERIFY + CACHING + CONTROL + EXTENSION + POWER + EXCEPTIONS
PLAIN = ALL.replace(EXTENSION, "")
SHORT = "00000040" + "00000200"
LONG = "0000000000000040" + "00000000" + "00000200"


class ModeSenseTests(DiskTests):
    """MODE SENSE, SPC-4 6.13 and 6.14."""

    def makeUnit(self, device: Any, **options: Any) -> DiskUnit:
        """A unit that remembers nothing."""
        unit = super().makeUnit(device, **options)
        unit.nonvolatile = None
        return unit

    def six(self, page: int, subpage: int = 0, flags: int = 0) -> str:
        """The answer to MODE SENSE (6)."""
        return self.good(cdb.MODE_SENSE_6, page=page, subpage=subpage, flags=flags, allocation=255).hex()

    def ten(self, page: int, subpage: int = 0, flags: int = 0) -> str:
        """The answer to MODE SENSE (10)."""
        return self.good(cdb.MODE_SENSE_10, page=page, subpage=subpage, flags=flags, allocation=255).hex()

    def test_pages(self) -> None:
        """Each page, and all of them, come after the head and the block descriptor."""
        for code, subpage, page in (
            (0x01, 0, RECOVERY),  # SBC-3 6.5.8
            (0x02, 0, DISCONNECT),  # SPC-4 7.5.11
            (0x07, 0, VERIFY),  # SBC-3 6.5.9
            (0x08, 0, CACHING),  # SBC-3 6.5.5
            (0x0A, 0, CONTROL),  # SPC-4 7.5.8
            (0x0A, 1, EXTENSION),  # SPC-4 7.5.9
            (0x0A, 0xFF, CONTROL + EXTENSION),
            (0x1A, 0, POWER),  # SPC-4 7.5.13
            (0x1C, 0, EXCEPTIONS),  # SBC-3 6.5.6
            (0x3F, 0, PLAIN),
            (0x3F, 0xFF, ALL),
        ):
            size = len(page) // 2
            self.assertEqual(self.six(code, subpage), f"{11 + size:02x}001008" + SHORT + page)
            self.assertEqual(self.ten(code, subpage), f"{14 + size:04x}001000000008" + SHORT + page)

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
        """Changeable values have ones where MODE SELECT may change something (SPC-4 6.13.4)."""
        mask = {CACHING: "0812" + "04" + "00" * 17, CONTROL: "0a0a" + "04063840" + "00" * 6}
        for code, page in ((0x08, CACHING), (0x0A, CONTROL), (0x1A, POWER), (0x1C, EXCEPTIONS)):
            expected = mask.get(page, page[:4] + "00" * (len(page) // 2 - 2))
            self.assertEqual(self.six(0x40 | code, flags=0x08)[8:], expected)
        unit = self.makeUnit(MemoryDisk(BLOCKS * BLOCK, Capabilities()))
        data = self.good(cdb.MODE_SENSE_6, unit=unit, page=0x48, flags=8, allocation=255)
        self.assertEqual(data[4:], bytes.fromhex("0812") + bytes(18))

    def test_default(self) -> None:
        """The default values are those of the start, whatever was set since (SPC-4 6.13.5)."""
        self.unit.adjust(Settings(softwareProtected=True, descriptorSense=True))
        self.assertEqual(self.six(0xBF, flags=0x08)[8:], PLAIN)
        self.assertNotEqual(self.six(0x3F, flags=0x08)[8:], PLAIN)

    def test_saved(self) -> None:
        """Saved values do not exist (SPC-4 6.13.6)."""
        for command in (cdb.MODE_SENSE_6, cdb.MODE_SENSE_10):
            task = self.command(command, page=0xC8, allocation=255)
            self.assertSense(task, codes.ILLEGAL_REQUEST, codes.SAVING_NOT_SUPPORTED, (True, 2, 7))

    def test_unknown(self) -> None:
        """Pages and subpages that are not there are refused (SPC-4 6.13.1)."""
        for command in (cdb.MODE_SENSE_6, cdb.MODE_SENSE_10):
            self.assertInvalidField(self.command(command, page=0x03, allocation=255), 2, 5)
            for page, subpage in ((0x0A, 2), (0x08, 1), (0x3F, 1)):
                self.assertInvalidField(
                    self.command(command, page=page, subpage=subpage, allocation=255), 3, 7
                )

    def test_writeProtected(self) -> None:
        """WP is set for a read-only unit, and for a nexus that may not write (SBC-3 6.5.1)."""
        readOnly = self.makeUnit(self.device, readOnly=True)
        data = self.good(cdb.MODE_SENSE_6, unit=readOnly, page=0x08, allocation=255)
        self.assertEqual(data[2], 0x90)
        data = self.good(cdb.MODE_SENSE_10, nexus=Nexus(readOnly=True), page=0x08, allocation=255)
        self.assertEqual(data[3], 0x90)
        self.unit.adjust(Settings(softwareProtected=True))
        self.assertEqual(self.good(cdb.MODE_SENSE_6, page=0x08, allocation=255)[2], 0x90)

    def test_noCache(self) -> None:
        """WCE is clear for a device without a volatile cache (SBC-3 6.5.5)."""
        unit = self.makeUnit(MemoryDisk(BLOCKS * BLOCK, Capabilities()))
        data = self.good(cdb.MODE_SENSE_6, unit=unit, page=0x08, flags=0x08, allocation=255)
        self.assertEqual(data[4:].hex(), "0812" + "00" * 18)
