"""Tests for L{iscsi_twisted.scsi.unit}."""

from twisted.internet.defer import CancelledError

from iscsi_twisted.errors import CheckCondition, ReadError
from iscsi_twisted.scsi import cdb, codes
from tests.scsi.cases import DiskTests
from tests.support.tasks import Nexus, Task


class AttentionTests(DiskTests):
    """Unit attentions on the way of a command, SAM-5 5.14."""

    def test_powerOn(self) -> None:
        """The first command of a nexus is refused with POWER ON, once; it has no effect."""
        nexus = Nexus()
        self.unit.nexusFound(nexus)
        task = self.command(cdb.WRITE_10, bytes(512), nexus=nexus, length=1)
        self.assertSense(task, codes.UNIT_ATTENTION, codes.POWER_ON)
        self.assertEqual((task.wanted, self.device.calls), (None, []))
        self.good(cdb.WRITE_10, bytes(512), nexus=nexus, length=1)

    def test_unknownCommand(self) -> None:
        """An operation code that nobody knows is also refused for the unit attention first."""
        self.unit.attention(codes.CAPACITY_CHANGED)
        task = Task(b"\xc0", self.nexus)
        with self.assertRaises(CheckCondition) as caught:
            self.unit.execute(task)
        self.assertEqual(caught.exception.code, codes.CAPACITY_CHANGED)

    def test_other(self) -> None:
        """What is pending for one nexus does not touch another."""
        other = Nexus()
        self.unit.nexusFound(other)
        self.good(cdb.TEST_UNIT_READY)
        self.assertSense(self.command(cdb.TEST_UNIT_READY, nexus=other), 6, codes.POWER_ON)

    def test_reset(self) -> None:
        """A reset is told to all nexuses but the one that caused it."""
        other = Nexus()
        self.unit.nexusFound(other)
        self.unit.takeAttention(other)
        self.unit.reset(codes.DEVICE_RESET_OCCURRED, but=self.nexus)
        self.good(cdb.TEST_UNIT_READY)
        self.assertSense(self.command(cdb.TEST_UNIT_READY, nexus=other), 6, codes.DEVICE_RESET_OCCURRED)

    def test_lost(self) -> None:
        """A nexus that went leaves nothing behind."""
        self.unit.attention(codes.CAPACITY_CHANGED, self.nexus)
        self.unit.nexusLost(self.nexus)
        self.good(cdb.TEST_UNIT_READY)

    def test_beforeNotReady(self) -> None:
        """A unit attention is told before NOT READY, as it tells why."""
        self.unit.closed()
        self.unit.attention(codes.CAPACITY_CHANGED)
        for key in (codes.UNIT_ATTENTION, codes.NOT_READY):
            self.assertEqual(self.command(cdb.TEST_UNIT_READY).key, key)


class FailedTests(DiskTests):
    """From exceptions to statuses."""

    def setUp(self) -> None:
        """A task that reads."""
        super().setUp()
        self.task = Task(cdb.READ_10.encode(length=1), self.nexus)

    def test_condition(self) -> None:
        """A condition is told as sense data, and counted."""
        self.unit.failed(self.task, CheckCondition(codes.ILLEGAL_REQUEST, codes.INVALID_OPCODE))
        self.assertSense(self.task, codes.ILLEGAL_REQUEST, codes.INVALID_OPCODE)
        self.assertEqual(self.unit.snapshot().errors, 1)

    def test_descriptors(self) -> None:
        """Sense data have the format that the unit is set to."""
        self.unit.descriptorSense = True
        self.unit.failed(self.task, ReadError(offset=1 << 50))
        self.assertEqual(self.task.sense.hex(), "720311000000000c000a80000000020000000000")

    def test_surprise(self) -> None:
        """A bug is reported once and told as INTERNAL TARGET FAILURE."""
        error = ZeroDivisionError()
        self.unit.failed(self.task, error)
        self.assertSense(self.task, codes.HARDWARE_ERROR, codes.INTERNAL_TARGET_FAILURE)
        self.assertEqual(self.surprises, [error])

    def test_aborted(self) -> None:
        """A task that was aborted ends in silence, but a bug is still reported."""
        self.task.aborted = True
        bug = KeyError("x")
        for error in (CancelledError(), ReadError(), bug):
            self.unit.failed(self.task, error)
        self.assertEqual((self.task.endings, self.surprises), (0, [bug]))
        self.assertEqual(self.unit.snapshot().errors, 0)

    def test_cancelled(self) -> None:
        """An operation that somebody else cancelled is a surprise like any other."""
        error = CancelledError()
        self.unit.failed(self.task, error)
        self.assertSense(self.task, codes.HARDWARE_ERROR, codes.INTERNAL_TARGET_FAILURE)
        self.assertEqual(self.surprises, [error])


class OddTests(DiskTests):
    """What belongs nowhere else."""

    def test_commands(self) -> None:
        """Every command is counted, also one that is refused."""
        self.good(cdb.TEST_UNIT_READY)
        self.command(cdb.READ_10, lba=1 << 30, length=1)
        self.assertEqual(self.unit.snapshot().commands, 2)
