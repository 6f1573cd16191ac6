"""Tests for L{iscsi_twisted.scsi.medium}."""

from iscsi_twisted.errors import WriteError
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.cdb import MEDIUM
from iscsi_twisted.scsi.disk import DiskUnit
from tests.scsi.cases import BLOCK, BLOCKS, DiskTests
from tests.scsi.devices import MemoryDisk
from tests.support.tasks import Nexus

START, LOEJ, NO_FLUSH = 1, 2, 4


class StartStopTests(DiskTests):
    """START STOP UNIT, SBC-3 5.25."""

    def test_fixed(self) -> None:
        """A fixed disk stays ready whatever is said, and flushes when it is stopped."""
        for options, calls in ((START, []), (0, [("flush",)]), (NO_FLUSH, []), (0x30, [])):
            self.device.calls.clear()
            self.good(cdb.START_STOP_UNIT, options=options)
            self.assertEqual(self.device.calls, calls)
            self.good(cdb.TEST_UNIT_READY)

    def test_fixedEject(self) -> None:
        """The medium of a fixed disk cannot be loaded or ejected."""
        for options in (LOEJ, LOEJ | START):
            self.assertInvalidField(self.command(cdb.START_STOP_UNIT, options=options), 4, 1)

    def test_durable(self) -> None:
        """Where writes are durable there is nothing to flush."""
        device = MemoryDisk(BLOCKS * BLOCK)
        self.good(cdb.START_STOP_UNIT, unit=self.makeUnit(device), options=0)
        self.assertEqual(device.calls, [])

    def test_notReady(self) -> None:
        """A unit whose device is gone can be stopped."""
        self.unit.closed()
        self.good(cdb.START_STOP_UNIT, options=0)
        self.assertEqual(self.device.calls, [])


class RemovableTests(DiskTests):
    """A medium that can be taken out."""

    def setUp(self) -> None:
        """A removable disk, and a second nexus."""
        super().setUp()
        self.unit = self.makeUnit(self.device, removable=True)
        self.other = Nexus()
        self.unit.nexusFound(self.other)
        self.unit.takeAttention(self.other)

    def test_inquiry(self) -> None:
        """RMB is set (SPC-4 6.6.2)."""
        self.assertEqual(self.good(cdb.INQUIRY, allocation=36)[1], 0x80)

    def test_eject(self) -> None:
        """Without its medium every command that needs it is refused, for every nexus; the others are not."""
        self.good(cdb.START_STOP_UNIT, options=LOEJ)
        self.assertEqual(self.device.calls, [("flush",)])
        for nexus in (self.nexus, self.other):
            for command in DiskUnit.table:
                if command.access & MEDIUM:
                    task = self.command(command, bytes(BLOCK), nexus=nexus, length=1)
                    self.assertSense(task, codes.NOT_READY, codes.MEDIUM_NOT_PRESENT)
        self.good(cdb.INQUIRY, allocation=36)
        self.good(cdb.MODE_SENSE_6, page=0x3F, allocation=255)
        data = self.good(cdb.REQUEST_SENSE, allocation=252)
        self.assertEqual((data[2], data[12:14].hex()), (codes.NOT_READY, "3a02"))
        self.assertEqual(self.device.calls, [("flush",)])

    def test_load(self) -> None:
        """With its medium back the unit is ready; all but who loaded it are told (SBC-3 4.3)."""
        self.good(cdb.START_STOP_UNIT, options=LOEJ)
        self.good(cdb.START_STOP_UNIT, options=LOEJ | START)
        self.good(cdb.TEST_UNIT_READY)
        task = self.command(cdb.TEST_UNIT_READY, nexus=self.other)
        self.assertSense(task, codes.UNIT_ATTENTION, codes.MEDIUM_MAY_HAVE_CHANGED)
        self.good(cdb.TEST_UNIT_READY, nexus=self.other)

    def test_twice(self) -> None:
        """What is out can be ejected, and what is in can be loaded; nobody is told."""
        for options in (LOEJ | START, LOEJ, LOEJ, LOEJ | START):
            self.good(cdb.START_STOP_UNIT, options=options)
        self.good(cdb.TEST_UNIT_READY)

    def test_powerCondition(self) -> None:
        """With a power condition LOEJ and START are ignored (SBC-3 5.25)."""
        for condition in range(1, 16):
            self.good(cdb.START_STOP_UNIT, options=condition << 4 | LOEJ)
            self.good(cdb.TEST_UNIT_READY)

    def test_deviceGone(self) -> None:
        """Loading does not make a unit ready whose device is gone."""
        self.good(cdb.START_STOP_UNIT, options=LOEJ)
        self.unit.closed()
        self.good(cdb.START_STOP_UNIT, options=LOEJ | START)
        task = self.command(cdb.TEST_UNIT_READY)
        self.assertSense(task, codes.NOT_READY, codes.NOT_READY_CAUSE_NOT_REPORTABLE)

    def test_flushFails(self) -> None:
        """A medium that cannot be flushed is not ejected."""
        self.device.error = WriteError()
        self.assertSense(
            self.command(cdb.START_STOP_UNIT, options=LOEJ), codes.MEDIUM_ERROR, codes.WRITE_FAULT
        )
        self.good(cdb.TEST_UNIT_READY)

    def refused(self) -> bool:
        """Whether the medium cannot be ejected just now; if it can it is loaded again."""
        task = self.command(cdb.START_STOP_UNIT, options=LOEJ, nexus=self.other)
        if task.status == codes.GOOD:
            self.good(cdb.START_STOP_UNIT, options=LOEJ | START)
            self.unit.takeAttention(self.other)
            return False
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.MEDIUM_REMOVAL_PREVENTED)
        return True

    def test_prevent(self) -> None:
        """Nobody can eject a medium while some nexus prevents it (SBC-3 5.14)."""
        self.good(cdb.PREVENT_ALLOW, options=1)
        self.good(cdb.PREVENT_ALLOW, options=1, nexus=self.other)
        self.assertTrue(self.refused())
        self.good(cdb.PREVENT_ALLOW, options=0)
        self.assertTrue(self.refused())
        self.good(cdb.PREVENT_ALLOW, options=0, nexus=self.other)
        self.assertFalse(self.refused())

    def test_locked(self) -> None:
        """What is locked moves neither way: no medium is loaded while some nexus prevents its removal."""
        self.good(cdb.START_STOP_UNIT, options=LOEJ)
        self.good(cdb.PREVENT_ALLOW, options=1, nexus=self.other)
        task = self.command(cdb.START_STOP_UNIT, options=LOEJ | START)
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.MEDIUM_REMOVAL_PREVENTED)
        self.good(cdb.PREVENT_ALLOW, options=0, nexus=self.other)
        self.good(cdb.START_STOP_UNIT, options=LOEJ | START)
        self.good(cdb.PREVENT_ALLOW, options=1)
        self.good(cdb.START_STOP_UNIT, options=LOEJ | START)

    def test_preventEnds(self) -> None:
        """Prevention ends with its nexus, and with a reset."""
        self.good(cdb.PREVENT_ALLOW, options=1)
        self.unit.nexusLost(self.nexus)
        self.assertFalse(self.refused())
        self.good(cdb.PREVENT_ALLOW, options=1)
        self.unit.reset(codes.DEVICE_RESET_OCCURRED, but=self.other)
        self.assertFalse(self.refused())

    def test_preventObsolete(self) -> None:
        """The obsolete values of PREVENT are refused."""
        for options in (2, 3):
            self.assertInvalidField(self.command(cdb.PREVENT_ALLOW, options=options), 4, 1)
