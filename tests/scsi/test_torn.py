"""Commands that are one step to others, on a device whose writes are not: nobody ever sees a half of one."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.cdblong import WRITE_ATOMIC_16
from tests.scsi.cases import BLOCK, BLOCKS, DiskTests
from tests.scsi.devices import THIN, PendingDisk, Turns
from tests.support.tasks import Nexus, Task, run

WIDTH = 4
"""Blocks that are always written together."""


class TornDisk(PendingDisk):
    """Writes one half at once, the other when it answers."""

    def write(self, offset: int, data: Buffer) -> Any:
        """Begin to change the bytes."""
        half = len(data) // 2
        self._put(offset, data[:half])
        return self.answer(("write", offset, len(data)), lambda: self._put(offset + half, data[half:]))


class TornTests(DiskTests):
    """Two nexuses that write and read the same blocks."""

    def setUp(self) -> None:
        super().setUp()
        self.turns = Turns()
        self.slow = TornDisk(BLOCKS * BLOCK, THIN)
        self.unit = self.makeUnit(self.slow, later=self.turns.later)
        self.other = Nexus("iqn.2001-04.com.example:other")
        self.unit.nexusFound(self.other)
        self.unit.takeAttention(self.other)
        self.reads: list[Task] = []
        self.swaps: list[tuple[Task, int, int]] = []

    def begin(self, command: cdb.Command, random: Random, data: bytes = b"") -> Task:
        """A command to all of the blocks from one of the nexuses."""
        task = Task(command.encode(length=WIDTH), random.choice((self.nexus, self.other)), data)
        return run(self.unit, task)

    def beginAny(self, random: Random) -> None:
        """Read, write as a whole, or compare and write."""
        kind, letter = random.randrange(3), random.randrange(1, 4)
        if kind == 0:
            self.reads.append(self.begin(cdb.READ_10, random))
        elif kind == 1:
            self.begin(WRITE_ATOMIC_16, random, bytes((letter,)) * (WIDTH * BLOCK))
        else:
            old = random.randrange(4)
            data = bytes((old,)) * (WIDTH * BLOCK) + bytes((letter,)) * (WIDTH * BLOCK)
            self.begin(cdb.COMPARE_AND_WRITE, random, data)

    def goOn(self, random: Random) -> None:
        """The device answers, or a turn goes by."""
        if self.slow.pending and random.random() < 0.7:
            self.slow.fire(random.randrange(len(self.slow.pending)))
        else:
            self.turns.turn()

    @given(st.integers(0, 1 << 32))
    def test_whole(self, seed: int) -> None:
        """Whatever is read was written by one command."""
        self.setUp()
        random = Random(seed)
        for _ in range(random.randint(2, 40)):
            self.beginAny(random) if random.random() < 0.4 else self.goOn(random)
        while self.slow.pending or self.turns.waiting:
            self.goOn(random)
        for task in self.reads:
            self.assertEqual((task.status, len(set(task.data))), (codes.GOOD, 1))
        self.assertEqual(len(set(self.slow.content[: WIDTH * BLOCK])), 1)
        self.assertEqual(self.surprises, [])

    @given(st.integers(0, 1 << 32))
    def test_counted(self, seed: int) -> None:
        """Of those that compare with the same, one writes: a count that all keep up is right."""
        self.setUp()
        random = Random(seed)
        tries = [self.count(random, number % 8) for number in range(16)]
        while self.slow.pending or self.turns.waiting:
            self.goOn(random)
        won = sum(task.status == codes.GOOD for task in tries)
        self.assertEqual(self.slow.content[: WIDTH * BLOCK], bytes((won,)) * (WIDTH * BLOCK))

    def count(self, random: Random, value: int) -> Task:
        """Try to make the next number of one."""
        data = bytes((value,)) * (WIDTH * BLOCK) + bytes((value + 1,)) * (WIDTH * BLOCK)
        return self.begin(cdb.COMPARE_AND_WRITE, random, data)
