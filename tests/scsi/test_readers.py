"""What a nexus that may only read must not do to those that may write."""

from __future__ import annotations

import struct

from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.cdb import STEERS
from iscsi_twisted.scsi.codes import ORDERED, SIMPLE
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.persistent import LIST
from iscsi_twisted.scsi.registrations import MOST, READERS
from iscsi_twisted.scsi.unit import ALL_ABORTED
from tests.scsi.cases import BLOCK, BLOCKS, DiskTests
from tests.scsi.devices import THIN, MemoryDisk, PendingDisk
from tests.support.tasks import Nexus, Task, run

LOEJ, START, PREVENT = 2, 1, 1
SPEC_I_PT, ALL_TG_PT, APTPL = 8, 4, 1


def nexusOf(reader: Nexus) -> Nexus:
    """The first of those that have registered."""
    return Nexus(reader.initiatorName, bytes(6), readOnly=True)


class ReadersTests(DiskTests):
    """A disk that one nexus may write, and another only read."""

    def setUp(self) -> None:
        """Make a removable disk, and the reader."""
        super().setUp()
        self.unit = self.makeUnit(self.device, removable=True)
        self.reader = Nexus("iqn.2001-04.com.example:reader", readOnly=True)
        self.unit.nexusFound(self.reader)
        self.unit.takeAttention(self.reader)

    def assertProtected(self, task: Task) -> None:
        """It was refused, and nothing was fetched."""
        self.assertSense(task, codes.DATA_PROTECT, codes.WRITE_PROTECTED)

    def register(self, nexus: Nexus, flags: int = 0, key: int = 0, new: int = 7) -> Task:
        """REGISTER."""
        return self.command(cdb.PR_REGISTER, LIST.pack(key, new, flags), nexus=nexus, length=LIST.size)

    def test_steers(self) -> None:
        """Whatever is declared to concern others is refused."""
        found = [each for each in DiskUnit.table if each.access & STEERS and not each.condition]
        for command in found:
            self.assertProtected(self.command(command, nexus=self.reader))
        names = {each.name for each in found}
        for name in ("RESERVE (6)", "MODE SELECT (10)", "WRITE BUFFER", "PERSISTENT RESERVE OUT (CLEAR)"):
            self.assertIn(name, names)

    def test_register(self) -> None:
        """It may register itself, at its own port."""
        self.assertEqual(self.register(self.reader).status, codes.GOOD)
        for flags in (ALL_TG_PT, APTPL):
            self.assertProtected(self.register(self.reader, flags, 7, 8))
        self.assertEqual(self.register(self.reader, key=7, new=0).status, codes.GOOD)
        self.assertEqual(self.unit.registrations.keys, {})

    def test_others(self) -> None:
        """It registers nobody else."""
        data = LIST.pack(0, 7, SPEC_I_PT) + struct.pack(">I", 0)
        task = self.command(cdb.PR_REGISTER, data, nexus=self.reader, length=len(data))
        self.assertProtected(task)

    def test_registrations(self) -> None:
        """However often it comes with another ISID: most of the registrations are left for the others."""
        registered = 0
        for number in range(MOST):
            nexus = Nexus(self.reader.initiatorName, number.to_bytes(6, "big"), readOnly=True)
            registered += self.register(nexus).status == codes.GOOD
        self.assertEqual(registered, READERS)
        self.assertSense(self.register(self.reader), codes.ILLEGAL_REQUEST, codes.INSUFFICIENT_REGISTRATIONS)
        for number in range(MOST - READERS):
            self.assertEqual(self.register(Nexus(isid=number.to_bytes(6, "big"))).status, codes.GOOD)
        # Who has registered may change its key, and go.
        for key, new in ((7, 8), (8, 0)):
            self.assertEqual(self.register(nexusOf(self.reader), key=key, new=new).status, codes.GOOD)

    def test_kept(self) -> None:
        """It does not end that registrations are kept."""
        self.unit.registrations.kept = True
        self.assertEqual(self.register(self.reader).status, codes.GOOD)
        self.assertTrue(self.unit.registrations.kept)

    def test_medium(self) -> None:
        """It neither stops nor ejects nor locks; to start and to unlock harms nobody."""
        for options in (0, LOEJ, LOEJ | START):
            self.assertProtected(self.command(cdb.START_STOP_UNIT, nexus=self.reader, options=options))
        self.good(cdb.START_STOP_UNIT, nexus=self.reader, options=START)
        self.assertProtected(self.command(cdb.PREVENT_ALLOW, nexus=self.reader, options=PREVENT))
        self.good(cdb.PREVENT_ALLOW, nexus=self.reader)
        self.good(cdb.START_STOP_UNIT, options=LOEJ)

    def test_allegiance(self) -> None:
        """Its error does not stop the others."""
        task = self.command(cdb.READ_10, nexus=self.reader, lba=BLOCKS, length=1, control=codes.NACA)
        self.assertEqual(task.status, codes.CHECK_CONDITION)
        self.assertIsNone(self.unit.allegiance.nexus)
        self.good(cdb.TEST_UNIT_READY)

    def test_ordered(self) -> None:
        """Its ORDERED tasks, and data that it does not send, keep nobody waiting."""
        check = {"flags": 2, "length": 1}
        for attribute in (ORDERED, SIMPLE):
            task = Task(cdb.VERIFY_10.encode(**check), self.reader, bytes(BLOCK), late=True)
            task.flags = attribute
            run(self.unit, task)
            self.assertEqual(task.wanted, BLOCK)
            self.good(cdb.READ_10, length=1)
            ordered = Task(cdb.WRITE_10.encode(length=1), self.nexus, bytes(BLOCK))
            ordered.flags = ORDERED
            self.assertEqual(run(self.unit, ordered).status, codes.GOOD)
            task.arrive(self.unit)
            self.assertEqual(task.status, codes.GOOD)

    def test_flushes(self) -> None:
        """It waits for its flushes, so that there are not more of them than it may have tasks."""
        slow = PendingDisk(BLOCKS * BLOCK, THIN)
        self.unit = self.makeUnit(slow)
        self.unit.nexusFound(self.reader)
        self.unit.takeAttention(self.reader)
        task = self.command(cdb.SYNCHRONIZE_CACHE_10, nexus=self.reader, flags=2)
        self.assertIsNone(task.status)
        slow.fire()
        self.assertEqual(task.status, codes.GOOD)

    def test_queueError(self) -> None:
        """Whatever QERR says, its errors abort its own tasks alone."""
        slow = PendingDisk(BLOCKS * BLOCK, THIN)
        self.unit = self.makeUnit(slow)
        self.unit.nexusFound(self.reader)
        self.unit.takeAttention(self.reader)
        self.unit.queueError = ALL_ABORTED
        tasks = [self.command(cdb.READ_10, nexus=each, length=1) for each in (self.nexus, self.reader)]
        self.command(cdb.READ_10, nexus=self.reader, lba=BLOCKS, length=1)
        self.assertEqual([task.aborted for task in tasks], [False, True])
        self.command(cdb.READ_10, lba=BLOCKS, length=1)
        self.assertTrue(tasks[0].aborted)

    def test_equal(self) -> None:
        """Where nobody may write all are equal."""
        unit = self.makeUnit(MemoryDisk(BLOCKS * BLOCK), readOnly=True)
        unit.nexusFound(self.reader)
        unit.takeAttention(self.reader)
        self.good(cdb.RESERVE_6, unit=unit, nexus=self.reader)
