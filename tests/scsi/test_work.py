"""Tests for L{iscsi_twisted.scsi.work}."""

from __future__ import annotations

from collections.abc import Iterator

from zope.interface.verify import verifyObject

from iscsi_twisted.errors import WriteError
from iscsi_twisted.interfaces import Capabilities, INexus, ITask
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.operation import Step
from iscsi_twisted.scsi.transfer import storing
from iscsi_twisted.scsi.work import NOBODY, WHOLE, Work
from tests.scsi.cases import BLOCK, BLOCKS, DiskTests
from tests.scsi.devices import PendingDisk, Turns
from tests.support.tasks import Task, abort


class WorkCases(DiskTests):
    """Work that writes blocks one after the other."""

    def setUp(self) -> None:
        """A device that answers at once, and turns that the test gives."""
        super().setUp()
        self.turns = Turns()
        self.ended: list[Work] = []
        self.unit = self.makeUnit(self.device, later=self.turns.later)

    def steps(self, letters: bytes) -> Iterator[Step]:
        """One block for each letter."""
        for number, letter in enumerate(letters):
            yield storing(self.unit, number * BLOCK, bytes([letter]) * BLOCK)

    def work(self, letters: bytes, asker: Task | None = None, lasting: bool = False) -> Work:
        """Begin work."""
        work = Work(self.unit, cdb.WRITE_10.encode(), len(letters) * BLOCK, self.ended.append, asker=asker)
        work.lasting = lasting
        work.begin(self.steps(letters))
        return work

    def asker(self) -> Task:
        """A task whose end is that of some work."""
        task = Task(cdb.WRITE_10.encode(), self.nexus)
        task.unit = self.unit
        return task

    def assertIdle(self) -> None:
        """Nothing is left behind."""
        unit = self.unit
        self.assertEqual(
            (unit.works, unit.operations, unit.fences, self.turns.waiting), (set(), set(), [], [])
        )


class WorkTests(WorkCases):
    """On a device that answers at once."""

    def test_interfaces(self) -> None:
        """It is a task to units and their devices, from a nexus that is none."""
        verifyObject(ITask, self.work(b""))
        verifyObject(INexus, NOBODY)

    def test_slices(self) -> None:
        """A turn brings one piece; others are served between them; the task ends with the last."""
        task = self.asker()
        work = self.work(b"abc", task)
        for number in (1, 2):
            self.assertEqual((len(self.device.calls), work.progress), (number, number * WHOLE // 3))
            self.turns.turn()
        self.assertEqual((len(self.device.calls), work.progress, task.status), (3, WHOLE - 1, None))
        self.device.calls.clear()
        self.good(cdb.READ_10, lba=0, length=1)
        self.turns.turn()
        self.assertEqual((task.status, task.endings, self.ended), (codes.GOOD, 1, [work]))
        self.assertIdle()

    def test_failed(self) -> None:
        """What fails in it is told to the task that waits, and counted once."""
        task = self.asker()
        self.work(b"abc", task)
        self.device.error = WriteError(offset=BLOCK)
        self.turns.all()
        self.assertSense(task, codes.MEDIUM_ERROR, codes.WRITE_FAULT, None, 1)
        self.assertEqual((self.unit.errors, self.surprises), (1, []))
        self.assertIdle()

    def test_surprise(self) -> None:
        """A bug is reported, and ends it as any failure."""
        task = self.asker()
        self.device.error = error = ZeroDivisionError()
        self.work(b"a", task)
        self.assertSense(task, codes.HARDWARE_ERROR, codes.INTERNAL_TARGET_FAILURE)
        self.assertEqual(self.surprises, [error])

    def test_alone(self) -> None:
        """With nobody who waits it goes on and tells nobody."""
        self.work(b"abc")
        self.turns.all()
        self.assertEqual(bytes(self.device.content[: 3 * BLOCK]), b"a" * BLOCK + b"b" * BLOCK + b"c" * BLOCK)
        self.assertIdle()

    def test_aborted(self) -> None:
        """It stops after its piece if its task is aborted."""
        task = self.asker()
        work = self.work(b"abc", task)
        abort(self.unit, task)
        self.assertEqual((task.endings, task.released, work.aborted, self.ended), (0, 1, True, [work]))
        self.turns.all()
        self.assertEqual(len(self.device.calls), 1)
        self.assertIdle()

    def test_lasting(self) -> None:
        """If it lasts, the task's place is free at once, and the work goes on."""
        task = self.asker()
        work = self.work(b"abc", task, lasting=True)
        abort(self.unit, task)
        self.assertEqual((task.released, work.ended), (1, False))
        self.turns.all()
        self.assertEqual((len(self.device.calls), work.condition, work.aborted), (3, None, False))
        self.assertIdle()

    def test_answered(self) -> None:
        """It may let its task go before its end."""
        task = self.asker()
        work = self.work(b"abc", task)
        work.answer()
        self.assertEqual((task.status, work.ended), (codes.GOOD, False))
        self.turns.all()
        self.assertEqual((task.endings, work.ended), (1, True))

    def test_busy(self) -> None:
        """An ORDERED task waits for the one whose end is the work's, and not for work alone."""
        self.work(b"ab")
        self.assertFalse(self.unit.busy())
        self.work(b"ab", self.asker())
        self.assertTrue(self.unit.busy())

    def test_closed(self) -> None:
        """It stops when the device goes; the task that waits is told."""
        task = self.asker()
        self.work(b"abc", task)
        self.unit.closed()
        self.assertSense(task, codes.NOT_READY, codes.NOT_READY_CAUSE_NOT_REPORTABLE)
        self.turns.all()
        self.assertEqual(len(self.device.calls), 1)


class SlowWorkTests(WorkCases):
    """On a device that answers when it is told to."""

    def setUp(self) -> None:
        """Make the disk."""
        super().setUp()
        self.slow = PendingDisk(BLOCKS * BLOCK, Capabilities())
        self.unit = self.makeUnit(self.slow, later=self.turns.later)

    def test_fence(self) -> None:
        """What overlaps a piece of stopped work waits until the device has ended it."""
        task = self.asker()
        self.work(b"abc", task)
        abort(self.unit, task)
        after = self.command(cdb.WRITE_10, b"n" * BLOCK, lba=0, length=1)
        self.assertEqual((len(self.slow.pending), task.released), (1, 0))
        self.slow.fire()
        self.assertEqual((task.released, len(self.slow.pending)), (1, 1))
        self.slow.fire()
        self.assertEqual((after.status, bytes(self.slow.content[:BLOCK])), (codes.GOOD, b"n" * BLOCK))
        self.assertIdle()

    def test_cancelled(self) -> None:
        """A device that can give up does so."""
        self.slow.cancellable = True
        task = self.asker()
        work = self.work(b"abc", task)
        abort(self.unit, task)
        self.assertEqual((task.released, work.ended, self.slow.pending), (1, True, []))
        self.assertIdle()

    def test_held(self) -> None:
        """A piece waits for a range that another task has to itself; stopped meanwhile, it never begins."""
        other = self.command(cdb.COMPARE_AND_WRITE, bytes(2 * BLOCK), lba=0, length=1)
        task = self.asker()
        self.work(b"a", task)
        patient = self.work(b"b")
        self.assertEqual(len(self.slow.pending), 1)
        abort(self.unit, task)
        self.assertEqual(task.released, 1)
        self.slow.fire()
        self.slow.fire()
        self.assertEqual((other.status, len(self.slow.pending)), (codes.GOOD, 1))
        self.slow.fire()
        self.assertTrue(patient.ended)
        self.assertEqual(bytes(self.slow.content[:BLOCK]), b"b" * BLOCK)
        self.assertIdle()

    def test_otherTasks(self) -> None:
        """What aborts the tasks of others aborts no work (QERR, PREEMPT AND ABORT)."""
        self.work(b"a")
        self.assertEqual(self.unit.outstanding(), set())
        self.unit.queueError = 1
        self.command(cdb.READ_10, lba=BLOCKS, length=1)
        self.slow.fire()
        self.assertEqual(len(self.ended), 1)
        self.assertEqual(self.ended[0].aborted, False)
