"""Tests for L{iscsi_twisted.scsi.disk}."""

from zope.interface.verify import verifyObject

from iscsi_twisted.errors import LocalError
from iscsi_twisted.interfaces import Capabilities, IBlockDevice, ILogicalUnit, INexus, ITask
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.disk import DiskUnit
from tests.scsi.cases import BLOCK, BLOCKS, IDENTITY, DiskTests
from tests.scsi.devices import MemoryDisk
from tests.support.tasks import Task


class CapacityTests(DiskTests):
    """READ CAPACITY, SBC-3 5.15 and 5.16."""

    def test_ten(self) -> None:
        """READ CAPACITY (10) gives the last LBA and the block length."""
        self.assertEqual(self.good(cdb.READ_CAPACITY_10).hex(), "0000003f00000200")

    def test_tenLarge(self) -> None:
        """A last LBA beyond 32 bits is all ones, which sends the initiator to the long form."""
        for count, last in ((0xFFFFFFFF, "fffffffe"), (1 << 32, "ffffffff"), (1 << 33, "ffffffff")):
            self.unit.blockCount = count
            self.assertEqual(self.good(cdb.READ_CAPACITY_10).hex(), last + "00000200")

    def test_sixteen(self) -> None:
        """READ CAPACITY (16) adds the physical block and the provisioning."""
        self.unit.blockCount = 1 << 40
        self.assertEqual(
            self.good(cdb.READ_CAPACITY_16, allocation=32).hex(),
            "000000ffffffffff" + "00000200" + "00" + "03" + "c000" + "00" * 16,
        )

    def test_thick(self) -> None:
        """LBPME is clear where nothing is thin, LBPRZ also where unmapped blocks may read as anything."""
        for capabilities, provisioned in (
            (Capabilities(discardZeroes=True), "0000"),
            (Capabilities(discard=True), "8000"),
        ):
            unit = self.makeUnit(MemoryDisk(BLOCKS * BLOCK, capabilities), blockSize=4096)
            data = self.good(cdb.READ_CAPACITY_16, unit=unit, allocation=32)
            self.assertEqual(data.hex(), "0000000000000007" + "00001000" + "0000" + provisioned + "00" * 16)


class LifeTests(DiskTests):
    """From the opening of the device to its end."""

    def test_interfaces(self) -> None:
        """The disk, and what these tests put on either side of it, provide what they should."""
        verifyObject(ILogicalUnit, self.unit)
        verifyObject(IBlockDevice, self.device)
        verifyObject(INexus, self.nexus)
        verifyObject(ITask, Task(b"", self.nexus))

    def test_opening(self) -> None:
        """Before its device is open a disk is becoming ready, and asks its device nothing."""
        unit = DiskUnit(self.device, identity=IDENTITY, report=self.surprise)
        for command in (cdb.TEST_UNIT_READY, cdb.READ_10, cdb.WRITE_10, cdb.READ_CAPACITY_10):
            task = self.command(command, bytes(BLOCK), unit=unit, length=1)
            self.assertSense(task, codes.NOT_READY, codes.BECOMING_READY)
        self.assertEqual(self.device.calls, [])
        self.good(cdb.MODE_SENSE_6, unit=unit, page=0x3F, allocation=255)
        unit.opened()
        self.good(cdb.TEST_UNIT_READY, unit=unit)

    def test_tail(self) -> None:
        """What is behind the last whole block is not exported."""
        unit = self.makeUnit(MemoryDisk(10 * BLOCK + 511))
        self.assertEqual(unit.blockCount, 10)

    def test_empty(self) -> None:
        """A device without a whole block never becomes ready."""
        unit = self.makeUnit(MemoryDisk(BLOCK - 1))
        self.assertSense(
            self.command(cdb.READ_CAPACITY_10, unit=unit),
            codes.NOT_READY,
            codes.NOT_READY_CAUSE_NOT_REPORTABLE,
        )

    def test_sizes(self) -> None:
        """Block sizes that do not fit one another, or the device, are refused."""
        for logical, physical in ((500, 4096), (512, 256), (512, 1536), (4096, 6144), (0, 0)):
            with self.assertRaises(LocalError, msg=(logical, physical)):
                self.makeUnit(self.device, blockSize=logical, physicalBlockSize=physical)
        self.device.blockSize = 4096
        with self.assertRaises(LocalError):
            self.makeUnit(self.device)
        self.makeUnit(self.device, blockSize=8192)

    def test_readOnlyDevice(self) -> None:
        """A device that cannot be written makes a read-only unit."""
        unit = self.makeUnit(MemoryDisk(BLOCKS * BLOCK, Capabilities(readOnly=True)))
        task = self.command(cdb.WRITE_10, bytes(BLOCK), unit=unit, length=1)
        self.assertSense(task, codes.DATA_PROTECT, codes.WRITE_PROTECTED)

    def test_grown(self) -> None:
        """When the device has grown, every nexus is told once, and the new blocks are there."""
        self.device.size *= 2
        self.device.content.extend(bytes(self.device.size // 2))
        self.unit.changed()
        self.assertSense(self.command(cdb.READ_10, lba=100, length=1), 6, codes.CAPACITY_CHANGED)
        self.assertEqual(self.good(cdb.READ_10, lba=100, length=1), bytes(BLOCK))
        self.unit.changed()
        self.good(cdb.TEST_UNIT_READY)

    def test_shrunkToNothing(self) -> None:
        """A device whose blocks are all gone is not ready until they come back."""
        size, self.device.size = self.device.size, 0
        self.unit.changed()
        self.unit.takeAttention(self.nexus)
        self.assertSense(
            self.command(cdb.TEST_UNIT_READY), codes.NOT_READY, codes.NOT_READY_CAUSE_NOT_REPORTABLE
        )
        self.device.size = size
        self.unit.changed()
        self.unit.takeAttention(self.nexus)
        self.good(cdb.TEST_UNIT_READY)

    def test_changedTooLate(self) -> None:
        """News of a device that was closed do not make the unit ready."""
        self.unit.closed()
        self.device.size //= 2
        self.unit.changed()
        self.assertSense(
            self.command(cdb.TEST_UNIT_READY), codes.NOT_READY, codes.NOT_READY_CAUSE_NOT_REPORTABLE
        )

    def test_changedTooEarly(self) -> None:
        """News of a device that is not open yet do not make the unit ready."""
        unit = DiskUnit(self.device, identity=IDENTITY, report=self.surprise)
        unit.changed()
        self.assertSense(self.command(cdb.TEST_UNIT_READY, unit=unit), codes.NOT_READY, codes.BECOMING_READY)
