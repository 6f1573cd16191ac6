"""Long work, atomic writes, copies and plain I/O on two units at once: every task ends once."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from iscsi_twisted.errors import WriteError
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.cdb import Command
from iscsi_twisted.scsi.cdblong import (
    EXTENDED_COPY,
    FORMAT_UNIT,
    SANITIZE_BLOCK_ERASE,
    SANITIZE_EXIT_FAILURE_MODE,
    SANITIZE_OVERWRITE,
    WRITE_ATOMIC_16,
)
from iscsi_twisted.scsi.disk import DiskUnit
from tests.scsi.cases import BLOCK
from tests.scsi.copies import CopyCases, PendingCopier, copyList, segment, target
from tests.scsi.devices import MemoryStore
from tests.support.tasks import Task, run

PLAIN = (cdb.READ_10, cdb.WRITE_10, cdb.VERIFY_10, cdb.COMPARE_AND_WRITE, cdb.ORWRITE_16, WRITE_ATOMIC_16)
WHOLE = (SANITIZE_OVERWRITE, SANITIZE_BLOCK_ERASE, SANITIZE_EXIT_FAILURE_MODE, FORMAT_UNIT)
WITHOUT_DATA = (cdb.READ_10, cdb.VERIFY_10)


class TogetherTests(CopyCases):
    """Two devices that copy by themselves, and answer in any order."""

    kind = PendingCopier

    def setUp(self) -> None:
        super().setUp()
        for unit in self.units.values():
            unit.keepWrites(MemoryStore())
            unit.keepPlans(MemoryStore())
        self.random = Random(0)
        self.tasks: list[Task] = []

    def begin(self, unit: DiskUnit, command: Command, data: bytes = b"", **fields: int) -> Task:
        """Begin a command."""
        task = Task(command.encode(**fields), self.nexus, data)
        self.tasks.append(task)
        return run(unit, task)

    def beginAny(self) -> None:
        """Begin some command on one of the units."""
        random, unit = self.random, self.units[self.random.randrange(2)]
        kind = random.random()
        if kind < 0.3:
            parts = [
                segment(random.randrange(2), random.randrange(2), *(random.randrange(20) for _ in range(3)))
                for _ in range(random.randint(1, 3))
            ]
            data = copyList([target(self.naa(0)), target(self.naa(1))], parts, random.randrange(3))
            self.begin(unit, EXTENDED_COPY, data, length=len(data))
        elif kind < 0.4:
            self.beginWhole(unit, random.choice(WHOLE))
        elif kind < 0.5:
            self.begin(unit, cdb.SYNCHRONIZE_CACHE_10, flags=random.choice((0, 2)))
        else:
            command, blocks = random.choice(PLAIN), random.randint(1, 8)
            size = 0 if command in WITHOUT_DATA else blocks * (2 if command is cdb.COMPARE_AND_WRITE else 1)
            self.begin(unit, command, bytes(size * BLOCK), lba=random.randrange(56), length=blocks)

    def beginWhole(self, unit: DiskUnit, command: Command) -> None:
        """Begin what concerns all blocks."""
        random = self.random
        flags = random.choice((0, 0x80, 0x20, 0xA0))
        if command is SANITIZE_OVERWRITE:
            self.begin(unit, command, bytes((random.randint(1, 3), 0, 0, 1, 7)), length=5, action=flags)
        elif command is FORMAT_UNIT:
            self.begin(unit, command, bytes((0, random.choice((0, 2)), 0, 0)), flags=0x10)
        else:
            self.begin(unit, command, action=flags)

    def goOn(self) -> None:
        """A device answers, or fails; a turn goes by; or a task is aborted."""
        random, device = self.random, self.random.choice(self.devices)
        kind = random.random()
        if kind < 0.6 and device.pending:
            place = random.randrange(len(device.pending))
            if random.random() < 0.1:
                device.breakDown(WriteError(offset=0), place)
            else:
                device.fire(place)
        elif kind < 0.9:
            self.turns.turn()
        elif self.tasks:
            task = random.choice(self.tasks)
            if task.status is None and not task.aborted:
                task.abort()

    def settle(self) -> None:
        """Let everything come to its end."""
        for _ in range(10000):
            if not any(device.pending for device in self.devices) and not self.turns.waiting:
                return
            for device in self.devices:
                while device.pending:
                    device.fire(self.random.randrange(len(device.pending)))
            self.turns.turn()
        self.fail("something goes on for ever")

    @given(st.integers(0, 1 << 32))
    def test_any(self, seed: int) -> None:
        """Every task ends once, or is aborted; nothing waits for ever, and nothing is left behind."""
        self.setUp()
        self.random.seed(seed)
        for device in self.devices:
            device.cancellable = self.random.random() < 0.5
        for _ in range(self.random.randint(5, 60)):
            self.beginAny() if self.random.random() < 0.5 else self.goOn()
        self.settle()
        for task in self.tasks:
            self.assertEqual(task.endings, 0 if task.aborted else 1, task.cdb.hex())
            self.assertLessEqual(task.released, 1)
        self.assertEqual(self.surprises, [])
        self.assertIdle()
        for unit in self.units.values():
            self.assertFalse(unit.receiving or unit.busy() or unit.order.dormant)
            assert unit.journal is not None
            self.assertEqual(len(unit.journal.waiting), 0)

    def test_noDeadlock(self) -> None:
        """A copy within a unit, and a format of it that waits for other I/O, do not wait for one another."""
        unit = self.units[0]
        data = copyList([target(self.naa(0))], [segment(0, 0, 2, 0, 32)])
        copy = self.begin(unit, EXTENDED_COPY, data, length=len(data))
        reading = self.begin(unit, cdb.READ_10, lba=8, length=1)
        formatting = self.begin(unit, FORMAT_UNIT)
        self.turns.turn()
        self.settle()
        self.assertEqual(reading.status, codes.GOOD)
        self.assertEqual((copy.endings, formatting.endings), (1, 1))
