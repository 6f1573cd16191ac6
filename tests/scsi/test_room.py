"""Tests for L{iscsi_twisted.scsi.room}."""

from __future__ import annotations

from typing import Any

from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.codes import ORDERED, SIMPLE
from tests.scsi.cases import BLOCK, BLOCKS, DiskTests
from tests.scsi.devices import THIN, PendingDisk
from tests.support.tasks import Nexus, Task, abort, run


class RoomTests(DiskTests):
    """A unit that has three tasks at a time, on a disk that hangs."""

    def setUp(self) -> None:
        super().setUp()
        self.slow = PendingDisk(BLOCKS * BLOCK, THIN)
        self.unit = self.makeUnit(self.slow, queue=3)
        self.other = Nexus("iqn.2001-04.com.example:other")
        self.unit.nexusFound(self.other)
        self.unit.takeAttention(self.other)

    def read(self, lba: int = 0, **options: Any) -> Task:
        """Begin a READ."""
        return self.command(cdb.READ_10, lba=lba, length=1, **options)

    def write(self, lba: int = 0, **options: Any) -> Task:
        """Begin a WRITE."""
        return self.command(cdb.WRITE_10, bytes(BLOCK), lba=lba, length=1, **options)

    def test_taskSetFull(self) -> None:
        """One more is sent back with TASK SET FULL, and has reached nothing."""
        tasks = [self.read(lba) for lba in range(3)]
        more = self.write(5)
        self.assertEqual((more.status, more.endings, more.wanted), (codes.TASK_SET_FULL, 1, None))
        self.assertEqual(len(self.slow.calls), 3)
        self.slow.fire()
        again = self.read(9)
        self.assertEqual((tasks[0].status, again.status, len(self.slow.pending)), (codes.GOOD, None, 3))
        self.assertEqual(self.unit.snapshot().sentBack, 1)

    def test_busy(self) -> None:
        """A nexus that has no task in the unit is told BUSY: it would wait for the end of its own in vain."""
        for lba in range(3):
            self.read(lba)
        self.assertEqual(self.read(nexus=self.other).status, codes.BUSY)

    def test_exempt(self) -> None:
        """What asks nothing of the disk is answered all the same; what nobody knows is refused as that."""
        for lba in range(3):
            self.read(lba)
        self.good(cdb.INQUIRY, allocation=36)
        self.good(cdb.REPORT_LUNS, allocation=16)
        self.good(cdb.TEST_UNIT_READY)
        self.good(cdb.READ_CAPACITY_10)
        self.assertEqual(self.command(cdb.SYNCHRONIZE_CACHE_10).status, codes.TASK_SET_FULL)
        unknown = run(self.unit, Task(b"\xc0", self.nexus))
        self.assertSense(unknown, codes.ILLEGAL_REQUEST, codes.INVALID_OPCODE)

    def test_aborted(self) -> None:
        """What was aborted counts until its device has ended it, and overlapping I/O still waits for it."""
        for lba in range(3):
            abort(self.unit, self.write(lba))
        self.assertEqual((self.read().status, len(self.slow.calls)), (codes.BUSY, 3))
        self.slow.fire()
        waiting = self.write(2)
        self.assertEqual((waiting.status, len(self.slow.calls)), (None, 3))
        self.assertEqual(self.write(3).status, codes.TASK_SET_FULL)
        self.slow.fire()
        self.slow.fire()
        self.assertEqual(len(self.slow.calls), 4)
        self.slow.fire()
        self.assertEqual((waiting.status, self.unit.room.parked), (codes.GOOD, 0))

    def test_parked(self) -> None:
        """What waits for the end of another counts, and no more once it was aborted."""
        abort(self.unit, self.write(5))
        first, second = self.write(5), self.write(5)
        self.assertEqual(self.read().status, codes.TASK_SET_FULL)
        abort(self.unit, first)
        abort(self.unit, second)
        self.assertEqual((self.read().status, self.unit.room.parked), (None, 0))

    def test_receiving(self) -> None:
        """Writes whose data have not come count."""
        tasks = [self.write(lba, late=True) for lba in range(3)]
        self.assertEqual(self.read().status, codes.TASK_SET_FULL)
        abort(self.unit, tasks[0])
        self.assertIsNone(self.read().status)

    def test_dormant(self) -> None:
        """So do tasks whose turn has not come."""
        task = Task(cdb.READ_10.encode(length=1), self.nexus)
        self.read()
        for attribute in (ORDERED, SIMPLE):
            task = Task(cdb.READ_10.encode(length=1), self.nexus)
            task.flags = attribute
            run(self.unit, task)
        self.assertEqual((len(self.unit.order.dormant), self.read().status), (2, codes.TASK_SET_FULL))

    def test_readers(self) -> None:
        """Those that may only read take half of it, and leave the other for those that may write."""
        self.unit = self.makeUnit(self.slow, queue=6)
        reader = Nexus("iqn.2001-04.com.example:reader", readOnly=True)
        self.unit.nexusFound(reader)
        self.unit.takeAttention(reader)
        first = [self.read(lba, nexus=reader) for lba in range(2)]
        verify = Task(cdb.VERIFY_10.encode(flags=2, length=1), reader, bytes(BLOCK), late=True)
        run(self.unit, verify)
        self.assertEqual(
            (self.read(nexus=reader).status, self.unit.snapshot().sentBack), (codes.TASK_SET_FULL, 1)
        )
        abort(self.unit, first[0])
        self.assertEqual(self.read(nexus=reader).status, codes.TASK_SET_FULL)
        self.assertEqual([self.write(lba).status for lba in (9, 10, 11)], [None] * 3)
        self.assertEqual(self.write(12).status, codes.TASK_SET_FULL)
        while self.slow.pending:
            self.slow.fire()
        self.assertIsNone(self.read(nexus=reader).status)

    def test_ordinary(self) -> None:
        """Once there is room commands go the short way again."""
        for lba in range(3):
            self.read(lba)
        self.assertTrue(self.unit._unusual)
        while self.slow.pending:
            self.slow.fire()
        self.read()
        self.assertFalse(self.unit._unusual)
