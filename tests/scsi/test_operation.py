"""Tests for L{iscsi_twisted.scsi.operation}: aborts, fences, and steps."""

from functools import partial
from typing import Any

from twisted.internet.defer import succeed

from iscsi_twisted.errors import WriteError
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.codes import FUA
from iscsi_twisted.scsi.operation import Sequence
from tests.scsi.cases import BLOCK, BLOCKS, DiskTests
from tests.scsi.devices import THIN, PendingDisk
from tests.support.tasks import Task, abort


def _keep(results: list[tuple[None, int]], result: None, argument: int) -> None:
    """Remember what a sequence ended with."""
    results.append((result, argument))


class FenceTests(DiskTests):
    """What an aborted task leaves behind while its device does not stop."""

    def setUp(self) -> None:
        """A disk that answers when it is told to, and cannot be cancelled."""
        super().setUp()
        self.slow = PendingDisk(BLOCKS * BLOCK, THIN)
        self.unit = self.makeUnit(self.slow)

    def write(self, letter: bytes, lba: int, blocks: int = 1, **fields: Any) -> Task:
        """Begin a WRITE."""
        return self.command(cdb.WRITE_10, letter * BLOCK * blocks, lba=lba, length=blocks, **fields)

    def read(self, lba: int, blocks: int = 1) -> Task:
        """Begin a READ."""
        return self.command(cdb.READ_10, lba=lba, length=blocks)

    def block(self, lba: int) -> bytes:
        """The first byte of a block."""
        return bytes(self.slow.content[lba * BLOCK : lba * BLOCK + 1])

    def test_late(self) -> None:
        """A late write of an aborted task never overwrites a newer one."""
        old = self.write(b"o", 5)
        abort(self.unit, old)
        new = self.write(b"n", 5)
        self.assertEqual(len(self.slow.pending), 1)
        self.slow.fire()
        self.slow.fire()
        self.assertEqual((new.status, self.block(5)), (codes.GOOD, b"n"))
        self.assertEqual((old.status, old.endings), (None, 0))
        self.assertEqual(self.unit.fences, [])

    def test_reads(self) -> None:
        """A read that overlaps waits too, so that it gives what will stay."""
        abort(self.unit, self.write(b"o", 5, 3))
        read = self.read(7, 4)
        self.assertEqual(len(self.slow.pending), 1)
        self.slow.fire()
        self.slow.fire()
        self.assertEqual(read.data, b"o" * BLOCK + bytes(3 * BLOCK))

    def test_beside(self) -> None:
        """I/O beside the fence does not wait."""
        abort(self.unit, self.write(b"o", 5, 3))
        for task in (self.read(4), self.read(8), self.write(b"n", 3, 2), self.write(b"n", 8)):
            self.slow.fire(1)
            self.assertEqual(task.status, codes.GOOD)

    def test_readFence(self) -> None:
        """The read of an aborted task changes nothing: nobody waits for it."""
        abort(self.unit, self.read(5))
        new = self.write(b"n", 5)
        self.slow.fire(1)
        self.assertEqual(new.status, codes.GOOD)
        self.slow.fire()

    def test_failing(self) -> None:
        """A fence also ends when its operation fails."""
        abort(self.unit, self.write(b"o", 5))
        new = self.write(b"n", 5)
        self.slow.breakDown(WriteError())
        self.slow.fire()
        self.assertEqual((new.status, self.block(5)), (codes.GOOD, b"n"))

    def test_order(self) -> None:
        """Those that waited go on in the order in which they came."""
        abort(self.unit, self.write(b"o", 5))
        self.write(b"1", 5)
        self.write(b"2", 5)
        for _ in range(3):
            self.slow.fire()
        self.assertEqual(self.block(5), b"2")

    def test_two(self) -> None:
        """I/O that overlaps two fences waits for both."""
        abort(self.unit, self.write(b"a", 5))
        abort(self.unit, self.write(b"b", 6))
        new = self.write(b"n", 5, 2)
        self.slow.fire()
        self.assertEqual(len(self.slow.pending), 1)
        self.slow.fire()
        self.slow.fire()
        self.assertEqual((new.status, self.block(5), self.block(6)), (codes.GOOD, b"n", b"n"))

    def test_abortedWaiting(self) -> None:
        """A task that is aborted while it waits for a fence never reaches the device."""
        abort(self.unit, self.write(b"o", 5))
        waiting = self.write(b"n", 5)
        abort(self.unit, waiting)
        self.slow.fire()
        self.assertEqual((self.slow.pending, self.block(5), waiting.endings), ([], b"o", 0))

    def test_failingWaiting(self) -> None:
        """A task whose I/O fails after it waited is told so, and the next goes on."""
        abort(self.unit, self.write(b"o", 5))
        first, second = self.write(b"1", 5), self.write(b"2", 5)
        errors = [WriteError()]
        write = self.slow.write

        def fail(offset: int, data: Any) -> Any:
            if errors:
                raise errors.pop()
            return write(offset, data)

        self.slow.write = fail  # type: ignore[method-assign]
        self.slow.fire()
        self.assertSense(first, codes.MEDIUM_ERROR, codes.WRITE_FAULT)
        self.slow.fire()
        self.assertEqual(second.status, codes.GOOD)

    def test_steps(self) -> None:
        """Commands of several steps wait before the step that overlaps, and go on after it."""
        abort(self.unit, self.write(b"o", 5))
        task = self.write(b"n", 5, flags=FUA)
        zeros = self.command(cdb.WRITE_SAME_16, bytes(BLOCK), lba=4, length=2)
        self.assertEqual(len(self.slow.pending), 1)
        while self.slow.pending:
            self.slow.fire()
        self.assertEqual((task.status, zeros.status), (codes.GOOD, codes.GOOD))
        self.assertEqual(self.block(5), b"\0")
        self.assertEqual(self.slow.calls[1:], [("write", 2560, 512), ("zero", 2048, 1024, False), ("flush",)])

    def test_betweenSteps(self) -> None:
        """After an abort the steps that were still to come are left out."""
        task = self.write(b"n", 5, flags=FUA)
        abort(self.unit, task)
        self.slow.fire()
        self.assertEqual((self.slow.pending, task.endings), ([], 0))

    def test_cancelled(self) -> None:
        """Where the device can cancel, the operation ends at once: nobody waits, nothing is reported."""
        self.slow.cancellable = True
        old = self.write(b"o", 5)
        abort(self.unit, old)
        self.assertEqual((self.unit.fences, self.slow.pending), ([], []))
        new = self.write(b"n", 5)
        self.slow.fire()
        self.assertEqual((new.status, old.endings, self.surprises), (codes.GOOD, 0, []))

    def test_released(self) -> None:
        """An aborted task is ended once, when its device has succeeded or failed: not before."""
        for end in (self.slow.fire, lambda: self.slow.breakDown(WriteError())):
            for begin in (
                lambda: self.write(b"o", 5),
                lambda: self.read(5),
                lambda: self.write(b"n", 5, flags=FUA),
            ):
                task = begin()
                abort(self.unit, task)
                self.assertEqual(task.released, 0)
                end()
                self.assertEqual((task.released, task.endings, self.slow.pending), (1, 0, []))

    def test_releasedByCancelling(self) -> None:
        """Where the device can cancel, an aborted task is ended at once."""
        self.slow.cancellable = True
        task = self.write(b"o", 5)
        abort(self.unit, task)
        self.assertEqual((task.released, task.endings), (1, 0))

    def test_parkedAndAborted(self) -> None:
        """What is aborted while it waits for a fence is forgotten at once, and its session ends it itself."""
        abort(self.unit, self.write(b"o", 5))
        first, second = self.write(b"1", 5), self.write(b"2", 5)
        abort(self.unit, first)
        (fence,) = self.unit.fences
        self.assertEqual([task for task, *_ in fence.waiting], [second])
        self.slow.fire()
        self.slow.fire()
        self.assertEqual((first.released, self.block(5)), (0, b"2"))

    def test_counted(self) -> None:
        """The operation of an aborted task counts as in flight until it has ended."""
        abort(self.unit, self.write(b"o", 5))
        self.assertEqual(self.unit.snapshot().inFlight, 1)
        self.slow.fire()
        self.assertEqual(self.unit.snapshot().inFlight, 0)

    def test_idle(self) -> None:
        """Aborting a task that no device works for does nothing."""
        task = self.command(cdb.WRITE_10, bytes(BLOCK), late=True, length=1)
        abort(self.unit, task)
        self.assertEqual((self.unit.fences, self.slow.calls), ([], []))


class SequenceTests(DiskTests):
    """Many steps of one command."""

    def test_many(self) -> None:
        """Thousands of steps that are answered at once, or already, do not pile up on the stack."""
        for answer in (lambda: None, lambda: succeed(None)):
            results: list[tuple[None, int]] = []
            steps = ((0, 0, False, answer) for _ in range(5000))
            then = partial(_keep, results)
            Sequence(self.unit, Task(b"", self.nexus), steps, then, 7).proceed()
            self.assertEqual(results, [(None, 7)])

    def test_result(self) -> None:
        """The result of the last step is handed on; without steps it is None."""
        for steps, expected in (([], None), ([(0, 0, False, lambda: 5)], 5)):
            results: list[Any] = []
            Sequence(self.unit, Task(b"", self.nexus), iter(steps), results.append).proceed()
            self.assertEqual(results, [expected])
