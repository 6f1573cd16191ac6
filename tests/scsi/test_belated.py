"""Errors that come after the status: SYNCHRONIZE CACHE with IMMED, and deferred sense data (SPC-4 4.5.5)."""

from __future__ import annotations

from iscsi_twisted.errors import CheckCondition, WriteError
from iscsi_twisted.scsi import cdb, codes
from tests.scsi.cases import BLOCK, BLOCKS, DiskTests
from tests.scsi.devices import THIN, PendingDisk
from tests.support.tasks import Nexus, Task, abort

IMMED = 0x02


class BelatedTests(DiskTests):
    """A device that answers when it is told to."""

    def setUp(self) -> None:
        """Make the disk."""
        super().setUp()
        self.slow = PendingDisk(BLOCKS * BLOCK, THIN)
        self.unit = self.makeUnit(self.slow)
        self.other = Nexus()
        self.unit.nexusFound(self.other)
        self.unit.takeAttention(self.other)

    def flush(self, command: cdb.Command = cdb.SYNCHRONIZE_CACHE_10) -> Task:
        """Begin a flush in the background."""
        return self.command(command, flags=IMMED)

    def fail(self) -> None:
        """It fails."""
        self.flush()
        self.slow.breakDown(WriteError(offset=3 * BLOCK))

    def test_atOnce(self) -> None:
        """The status comes at once, and the flush goes on."""
        for command in (cdb.SYNCHRONIZE_CACHE_10, cdb.SYNCHRONIZE_CACHE_16):
            task = self.flush(command)
            self.assertEqual((task.status, len(self.slow.pending)), (codes.GOOD, 1))
            self.slow.fire()
            self.assertEqual((task.endings, self.unit.works, self.unit.operations), (1, set(), set()))

    def test_waits(self) -> None:
        """Without IMMED the status waits."""
        task = self.command(cdb.SYNCHRONIZE_CACHE_10)
        self.assertIsNone(task.status)
        self.slow.fire()
        self.assertEqual(task.status, codes.GOOD)

    def test_refused(self) -> None:
        """Blocks that are not there are refused before anything else."""
        task = self.command(cdb.SYNCHRONIZE_CACHE_10, flags=IMMED, lba=BLOCKS, length=1)
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.LBA_OUT_OF_RANGE, (True, 2, None), BLOCKS)

    def test_deferred(self) -> None:
        """If it fails, its nexus' next command is not carried out but told; the one after that is."""
        self.fail()
        task = self.command(cdb.WRITE_10, bytes(BLOCK), length=1)
        self.assertSense(task, codes.MEDIUM_ERROR, codes.WRITE_FAULT, None, 3)
        self.assertEqual((task.sense[0], task.wanted), (0xF1, None))
        self.command(cdb.TEST_UNIT_READY, nexus=self.other)
        self.good(cdb.TEST_UNIT_READY)
        self.assertFalse(self.unit._unusual)

    def test_others(self) -> None:
        """Other nexuses are not told."""
        self.fail()
        self.good(cdb.TEST_UNIT_READY, nexus=self.other)
        self.assertEqual(self.command(cdb.TEST_UNIT_READY).code, codes.WRITE_FAULT)

    def test_descriptors(self) -> None:
        """In descriptor format it is 73h."""
        self.unit.descriptorSense = True
        self.fail()
        self.assertEqual(self.command(cdb.TEST_UNIT_READY).sense[:4].hex(), "73030c00")

    def test_requestSense(self) -> None:
        """REQUEST SENSE gives it as data, after a unit attention; INQUIRY and REPORT LUNS are answered."""
        self.fail()
        self.unit.attention(codes.MODE_PARAMETERS_CHANGED)
        self.good(cdb.INQUIRY, allocation=36)
        self.good(cdb.REPORT_LUNS, allocation=16)
        seen = [self.good(cdb.REQUEST_SENSE, allocation=18) for _ in range(3)]
        self.assertEqual([(data[0], data[2]) for data in seen], [(0x70, 6), (0xF1, 3), (0x70, 0)])

    def test_reserved(self) -> None:
        """A command that a reservation keeps out meets that; the error is told later."""
        self.fail()
        self.unit.reserve(self.other)
        self.assertEqual(self.command(cdb.READ_10, length=1).status, codes.RESERVATION_CONFLICT)
        self.unit.reserve(None)
        self.assertEqual(self.command(cdb.READ_10, length=1).code, codes.WRITE_FAULT)

    def test_first(self) -> None:
        """Of several failures the first is told, once; a nexus that went is told nothing."""
        self.fail()
        self.unit.belate(self.nexus, CheckCondition(codes.HARDWARE_ERROR, codes.INTERNAL_TARGET_FAILURE))
        self.assertEqual(self.command(cdb.TEST_UNIT_READY).code, codes.WRITE_FAULT)
        self.good(cdb.TEST_UNIT_READY)
        self.flush()
        self.flush()
        self.slow.breakDown(WriteError())
        self.unit.nexusLost(self.nexus)
        self.slow.breakDown(WriteError())
        self.assertEqual(self.unit.belated, {})

    def test_aborted(self) -> None:
        """The command has ended: nothing aborts the flush."""
        self.slow.cancellable = True
        task = self.flush()
        abort(self.unit, task)
        self.assertEqual(len(self.slow.pending), 1)
