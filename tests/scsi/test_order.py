"""Tests for L{iscsi_twisted.scsi.order}: task attributes, SAM-5 chapter 8."""

from typing import Any

from iscsi_twisted.errors import WriteError
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.codes import HEAD_OF_QUEUE, ORDERED, SIMPLE, UNTAGGED
from tests.scsi.cases import BLOCK, BLOCKS, DiskTests
from tests.scsi.devices import THIN, PendingDisk
from tests.support.tasks import Nexus, Task, abort, run


class OrderTests(DiskTests):
    """What waits for what, on a disk that answers when it is told to."""

    def setUp(self) -> None:
        """Make the disk."""
        super().setUp()
        self.slow = PendingDisk(BLOCKS * BLOCK, THIN)
        self.unit = self.makeUnit(self.slow)

    def begin(self, attribute: int, lba: int, *, write: bool = False, late: bool = False) -> Task:
        """Send a READ or WRITE of one block."""
        command = cdb.WRITE_10 if write else cdb.READ_10
        task = Task(command.encode(lba=lba, length=1), self.nexus, bytes(BLOCK * write), late=late)
        task.flags = attribute
        return run(self.unit, task)

    def begun(self) -> list[int]:
        """The blocks that the device was asked for, in order."""
        return [call[1] // BLOCK for call in self.slow.calls]

    def test_simple(self) -> None:
        """SIMPLE and untagged tasks begin as they come, and nothing is kept for them."""
        for lba, attribute in enumerate((SIMPLE, UNTAGGED, SIMPLE)):
            self.begin(attribute, lba)
        self.assertEqual((self.begun(), self.unit.order.active), ([0, 1, 2], False))

    def test_ordered(self) -> None:
        """An ORDERED task begins when all before it have ended, those after it when it has (SAM-5 8.6.3)."""
        self.begin(SIMPLE, 0)
        self.begin(SIMPLE, 1)
        ordered = self.begin(ORDERED, 2)
        self.begin(SIMPLE, 3)
        self.begin(SIMPLE, 4)
        self.slow.fire(1)
        self.assertEqual(self.begun(), [0, 1])
        self.slow.fire()
        self.assertEqual(self.begun(), [0, 1, 2])
        self.slow.fire()
        self.assertEqual((ordered.status, self.begun()), (codes.GOOD, [0, 1, 2, 3, 4]))
        self.slow.fire()
        self.slow.fire()
        self.assertFalse(self.unit.order.active)

    def test_orderedIdle(self) -> None:
        """An ORDERED task of an idle unit begins at once; one that ends at once holds nobody up."""
        self.begin(ORDERED, 0)
        self.assertEqual(self.begun(), [0])
        self.slow.fire()
        task = Task(cdb.TEST_UNIT_READY.encode(), self.nexus)
        task.flags = ORDERED
        self.assertEqual(run(self.unit, task).status, codes.GOOD)
        self.begin(SIMPLE, 1)
        self.assertEqual(self.begun(), [0, 1])

    def test_nexuses(self) -> None:
        """All nexuses share one task set (TST is 000b): an ORDERED task of one waits for those of another."""
        other = Nexus(isid=b"\x80\0\0\0\0\2")
        self.unit.nexusFound(other)
        self.unit.takeAttention(other)
        self.begin(SIMPLE, 0)
        mine, self.nexus = self.nexus, other
        self.begin(ORDERED, 1)
        self.nexus = mine
        self.begin(SIMPLE, 2)
        self.assertEqual(self.begun(), [0])
        self.slow.fire()
        self.assertEqual(self.begun(), [0, 1])
        self.slow.fire()
        self.assertEqual(self.begun(), [0, 1, 2])

    def test_orderedAfterOrdered(self) -> None:
        """ORDERED tasks go one at a time, in order."""
        for lba in range(4):
            self.begin(ORDERED, lba)
        for lba in range(4):
            self.assertEqual(self.begun(), list(range(lba + 1)))
            self.slow.fire()
        self.assertFalse(self.unit.order.active)

    def test_held(self) -> None:
        """While a unit is held no task begins; it is idle when all have ended that had, aborted ones too."""
        idle: list[bool] = []
        self.begin(SIMPLE, 0)
        aborted = self.begin(SIMPLE, 1, write=True)
        late = self.begin(SIMPLE, 2, write=True, late=True)
        self.unit.hold(lambda: idle.append(True))
        for lba, attribute in ((3, SIMPLE), (4, HEAD_OF_QUEUE), (5, ORDERED), (6, SIMPLE)):
            self.begin(attribute, lba)
        forgotten = self.begin(SIMPLE, 7)
        abort(self.unit, forgotten)
        abort(self.unit, aborted)
        late.arrive(self.unit)
        self.assertEqual((self.begun(), idle), ([0, 1, 2], []))
        for remaining in (2, 1, 0):
            self.assertEqual((self.begun(), idle), ([0, 1, 2], []))
            self.slow.fire()
            self.assertEqual(len(self.unit.operations), remaining)
        self.assertEqual((self.begun(), idle), ([0, 1, 2], [True]))
        self.unit.resume()
        self.assertEqual(self.begun(), [0, 1, 2, 3, 4])
        self.slow.fire()
        self.slow.fire()
        self.assertEqual(self.begun(), [0, 1, 2, 3, 4, 5])
        self.slow.fire()
        self.assertEqual(self.begun(), [0, 1, 2, 3, 4, 5, 6])
        self.slow.fire()
        self.assertFalse(self.unit.order.active)

    def test_heldIdle(self) -> None:
        """A unit that is idle is so at once."""
        idle: list[bool] = []
        self.unit.hold(lambda: idle.append(True))
        self.assertEqual(idle, [True])
        self.unit.resume()
        self.assertFalse(self.unit.order.active)

    def test_headOfQueue(self) -> None:
        """A HEAD OF QUEUE task begins at once, whatever waits (SAM-5 8.6.4)."""
        self.begin(SIMPLE, 0)
        self.begin(ORDERED, 1)
        self.begin(HEAD_OF_QUEUE, 2)
        self.assertEqual(self.begun(), [0, 2])
        self.slow.fire()
        self.assertEqual(self.begun(), [0, 2])
        self.slow.fire()
        self.assertEqual(self.begun(), [0, 2, 1])

    def test_dataOut(self) -> None:
        """A WRITE whose data have not come has not ended: an ORDERED task waits for it."""
        write = self.begin(SIMPLE, 0, write=True, late=True)
        self.begin(ORDERED, 1)
        self.assertEqual(self.begun(), [])
        write.arrive(self.unit)
        self.slow.fire()
        self.assertEqual(self.begun(), [0, 1])

    def test_dataOutAtOnce(self) -> None:
        """A WRITE that a device answers at once lets the ORDERED task go on, whatever command it is."""
        unit = self.makeUnit(self.device)
        for command in (cdb.WRITE_10, cdb.WRITE_AND_VERIFY_10, cdb.ORWRITE_16):
            write = Task(command.encode(length=1), self.nexus, bytes(BLOCK), late=True)
            run(unit, write)
            ordered = Task(cdb.READ_10.encode(length=1), self.nexus)
            ordered.flags = ORDERED
            run(unit, ordered)
            self.assertIsNone(ordered.status)
            write.arrive(unit)
            self.assertEqual((write.status, ordered.status, unit.order.active), (0, 0, False))

    def test_besideDataOut(self) -> None:
        """A WRITE that has all its data does not take the place of one that has not."""
        late = self.begin(SIMPLE, 0, write=True, late=True)
        self.begin(SIMPLE, 1, write=True)
        self.slow.fire()
        self.assertEqual(self.unit.receiving, {late})
        late.arrive(self.unit)
        self.assertEqual((self.unit.receiving, self.begun()), (set(), [1, 0]))

    def test_failure(self) -> None:
        """A task that fails lets the next begin too."""
        first = self.begin(SIMPLE, 0, write=True)
        self.begin(ORDERED, 1)
        self.slow.breakDown(WriteError())
        self.assertEqual((first.key, self.begun()), (codes.MEDIUM_ERROR, [0, 1]))

    def test_failureInTurn(self) -> None:
        """A task that is refused when its turn comes is told so, and the next begins."""
        self.begin(ORDERED, 0)
        wrong = self.begin(SIMPLE, BLOCKS)
        self.begin(SIMPLE, 1)
        self.slow.fire()
        self.assertSense(wrong, codes.ILLEGAL_REQUEST, codes.LBA_OUT_OF_RANGE)
        self.assertEqual(self.begun(), [0, 1])

    def test_abortDormant(self) -> None:
        """A task that is aborted while it waits never begins."""
        self.begin(SIMPLE, 0)
        ordered = self.begin(ORDERED, 1)
        self.begin(SIMPLE, 2)
        abort(self.unit, ordered)
        self.assertEqual((self.begun(), self.unit.order.active), ([0, 2], False))

    def test_abortWorking(self) -> None:
        """Nobody waits for an aborted task, although its device still works."""
        first = self.begin(SIMPLE, 0)
        self.begin(ORDERED, 1)
        abort(self.unit, first)
        self.assertEqual(self.begun(), [0, 1])

    def test_abortReceiving(self) -> None:
        """Nobody waits for the data of an aborted task."""
        first = self.begin(SIMPLE, 0, write=True, late=True)
        self.begin(ORDERED, 1)
        abort(self.unit, first)
        self.assertEqual((self.begun(), self.unit.receiving), ([1], set()))

    def test_fence(self) -> None:
        """A task that waits for a fence has begun: an ORDERED one waits for it."""
        abort(self.unit, self.begin(SIMPLE, 0, write=True))
        self.begin(SIMPLE, 0)
        self.begin(ORDERED, 1)
        self.assertEqual(self.begun(), [0])
        self.slow.fire()
        self.assertEqual(self.begun(), [0, 0])
        self.slow.fire()
        self.assertEqual(self.begun(), [0, 0, 1])

    def test_attention(self) -> None:
        """Unit attentions are told to tasks in the order in which they begin."""
        self.begin(SIMPLE, 0)
        self.begin(ORDERED, 1)
        second = self.begin(SIMPLE, 2)
        self.unit.attention(codes.CAPACITY_CHANGED)
        self.slow.fire()
        self.assertIsNotNone(second)
        self.assertEqual((self.begun(), second.status), ([0, 2], None))

    def test_unknown(self) -> None:
        """ACA, as there is no ACA condition, and reserved values are refused (SAM-5 5.10)."""
        for attribute in (4, 5, 6, 7):
            task = self.begin(attribute, 0)
            self.assertSense(task, codes.ILLEGAL_REQUEST, codes.INVALID_MESSAGE)

    def test_many(self) -> None:
        """A thousand tasks that end at once as their turn comes do not pile up on the stack."""
        unit: Any = self.unit
        self.begin(ORDERED, 0)
        tasks = []
        for _ in range(1000):
            task = Task(cdb.TEST_UNIT_READY.encode(), self.nexus)
            task.flags = ORDERED
            tasks.append(run(unit, task))
        self.slow.fire()
        self.assertEqual({task.status for task in tasks}, {codes.GOOD})


class QueueErrorTests(DiskTests):
    """What becomes of other tasks when one ends with CHECK CONDITION: QERR, SPC-4 7.5.8."""

    def setUp(self) -> None:
        """Two nexuses with a task each."""
        super().setUp()
        self.slow = PendingDisk(BLOCKS * BLOCK, THIN)
        self.unit = self.makeUnit(self.slow)
        self.other = Nexus()
        self.unit.nexusFound(self.other)
        self.unit.takeAttention(self.other)
        self.mine = self.command(cdb.READ_10, length=1)
        self.late = self.command(cdb.WRITE_10, bytes(BLOCK), length=1, late=True)
        self.theirs = self.command(cdb.READ_10, length=1, nexus=self.other)

    def fault(self) -> None:
        """End a command with CHECK CONDITION."""
        self.command(cdb.READ_10, lba=BLOCKS, length=1)

    def test_none(self) -> None:
        """0: nothing."""
        self.fault()
        self.assertFalse(self.mine.aborted or self.late.aborted or self.theirs.aborted)

    def test_nexus(self) -> None:
        """3: those of the same nexus are aborted in silence."""
        self.unit.queueError = 3
        self.fault()
        self.assertEqual((self.mine.aborted, self.late.aborted, self.theirs.aborted), (True, True, False))
        self.assertEqual((self.mine.endings, self.late.endings), (0, 0))

    def test_all(self) -> None:
        """1: all are aborted; other nexuses are told by a unit attention."""
        self.unit.queueError = 1
        self.fault()
        self.assertEqual((self.mine.aborted, self.theirs.aborted, self.theirs.endings), (True, True, 0))
        task = self.command(cdb.TEST_UNIT_READY, nexus=self.other)
        self.assertSense(task, codes.UNIT_ATTENTION, codes.COMMANDS_CLEARED)

    def test_told(self) -> None:
        """With TAS the tasks of other nexuses end with TASK ABORTED instead."""
        self.unit.queueError, self.unit.tellsAborted = 1, True
        self.fault()
        self.assertEqual((self.mine.status, self.theirs.status), (None, codes.TASK_ABORTED))
        self.assertEqual(self.command(cdb.TEST_UNIT_READY, nexus=self.other).status, codes.GOOD)
