"""Units on RAID0 devices: what an initiator is told when a member fails."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import NotReady, ReadError, WriteError
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.storage import Concatenation, Fault, Faults, MemoryDevice, Stripe
from tests.support.tasks import Nexus, Task, run
from tests.support.wire import makeUnit

BLOCK = 512


class Bad(MemoryDevice):
    """
    A member with a range that cannot be read or written.

    @ivar first: its first byte.
    @ivar end: the byte after its last.
    @ivar silent: it does not say where it fails.
    """

    def __init__(self, blocks: int) -> None:
        super().__init__(blocks * BLOCK)
        self.first, self.end = 0, 0
        self.silent = False

    def read(self, offset: int, length: int) -> Any:
        self._check(offset, length, ReadError)
        return super().read(offset, length)

    def write(self, offset: int, data: Any) -> Any:
        self._check(offset, len(data), WriteError)
        return super().write(offset, data)

    def _check(self, offset: int, length: int, kind: Any) -> None:
        if self.first < offset + length and offset < self.end:
            raise kind("bad", None if self.silent else max(offset, self.first))


class JoinedCase(SynchronousTestCase):
    """A unit on members of which one may be bad."""

    def setUp(self) -> None:
        self.nexus = Nexus()
        self.members = self.makeMembers()
        self.unit = makeUnit(self.makeDevice(self.members), 0)
        self.unit.nexusFound(self.nexus)
        self.unit.takeAttention(self.nexus)

    def makeMembers(self) -> list[Bad]:
        """Three of them."""
        return [Bad(64) for _ in range(3)]

    def makeDevice(self, members: list[Bad]) -> Any:
        """What joins them."""
        raise NotImplementedError

    def read(self, lba: int, blocks: int) -> Task:
        """READ (10)."""
        return run(self.unit, Task(cdb.READ_10.encode(lba=lba, length=blocks), self.nexus))

    def write(self, lba: int, blocks: int) -> Task:
        """WRITE (10)."""
        data = bytes(blocks * BLOCK)
        return run(self.unit, Task(cdb.WRITE_10.encode(lba=lba, length=blocks), self.nexus, data))

    def assertBad(self, lba: int, *ranges: tuple[int, int]) -> None:
        """Reads and writes of these first blocks and numbers of blocks fail at one block."""
        for first, blocks in ranges:
            for task, code in (
                (self.read(first, blocks), codes.UNRECOVERED_READ_ERROR),
                (self.write(first, blocks), codes.WRITE_FAULT),
            ):
                found = (task.status, task.key, task.code, task.information)
                self.assertEqual(
                    found, (codes.CHECK_CONDITION, codes.MEDIUM_ERROR, code, lba), (first, blocks)
                )

    def assertGood(self, *ranges: tuple[int, int]) -> None:
        """Reads and writes of these succeed."""
        for first, blocks in ranges:
            for task in (self.read(first, blocks), self.write(first, blocks)):
                self.assertEqual((task.status, task.endings), (codes.GOOD, 1), (first, blocks))


class ConcatenationTests(JoinedCase):
    """Members of 64, 10 and 64 blocks, one after the other."""

    def makeMembers(self) -> list[Bad]:
        return [Bad(64), Bad(10), Bad(64)]

    def makeDevice(self, members: list[Bad]) -> Any:
        return Concatenation(members)

    def test_gone(self) -> None:
        """A member that fails altogether is bad from its first block on, and nothing else is."""
        for silent in (False, True):
            self.members[1].end, self.members[1].silent = 10 * BLOCK, silent
            self.assertBad(64, (60, 20), (0, 138), (63, 2), (60, 6))
            self.assertGood((0, 64), (74, 64), (63, 1), (74, 1))
        self.members[1].silent = False
        self.assertBad(70, (70, 1), (70, 20))

    def test_place(self) -> None:
        """A bad place is bad at its own block, in whatever command."""
        self.members[2].first, self.members[2].end = 7 * BLOCK + 100, 7 * BLOCK + 101
        self.assertBad(81, (81, 1), (80, 2), (0, 138), (74, 64))
        self.assertGood((0, 81), (82, 56), (80, 1))

    def test_two(self) -> None:
        """Of two bad members the first is told."""
        self.members[2].end = 64 * BLOCK
        self.members[1].first, self.members[1].end = 9 * BLOCK, 10 * BLOCK
        self.assertBad(73, (0, 138), (64, 20))
        self.assertBad(74, (74, 5))

    def test_notReady(self) -> None:
        """A member that is gone for now is NOT READY, for its range alone."""

        def gone(*arguments: Any) -> Any:
            raise NotReady("gone")

        unit = makeUnit(Concatenation([MemoryDevice(4 * BLOCK), Gone(gone)]), 0)
        unit.nexusFound(self.nexus)
        unit.takeAttention(self.nexus)
        bad = run(unit, Task(cdb.READ_10.encode(lba=2, length=4), self.nexus))
        good = run(unit, Task(cdb.READ_10.encode(lba=0, length=4), self.nexus))
        self.assertEqual((bad.key, bad.information, good.status), (codes.NOT_READY, 4, codes.GOOD))


class Gone(MemoryDevice):
    """A member whose reads are done by a function."""

    def __init__(self, read: Any) -> None:
        super().__init__(4 * BLOCK)
        self.read = read  # type: ignore[method-assign]


class StripeTests(JoinedCase):
    """Three members of 64 blocks, in chunks of 8."""

    def makeDevice(self, members: list[Bad]) -> Any:
        return Stripe(members, 8 * BLOCK)

    def test_gone(self) -> None:
        """A member that fails is bad in every third chunk: at the first such block of a command."""
        for silent in (False, True):
            self.members[1].end, self.members[1].silent = 64 * BLOCK, silent
            self.assertBad(8, (0, 192), (0, 16), (7, 2), (0, 9))
            self.assertBad(32, (16, 24), (31, 2), (16, 176))
            self.assertGood((0, 8), (16, 16), (40, 16), (31, 1), (40, 1))
        self.members[1].silent = False
        self.assertBad(10, (10, 3), (10, 30))

    def test_place(self) -> None:
        """A bad place is bad at its own block, whatever else a command reads from that member."""
        self.members[2].first, self.members[2].end = 11 * BLOCK, 12 * BLOCK
        # Block 11 of a member is block 3 of its second chunk, which is the sixth of all.
        self.assertBad(5 * 8 + 3, (0, 192), (43, 1), (40, 8), (16, 100))
        self.assertGood((0, 43), (44, 148))

    def test_two(self) -> None:
        """Of two bad places the one with the lower address is told, whichever member has it."""
        self.members[0].first, self.members[0].end = 8 * BLOCK, 9 * BLOCK
        self.members[2].first, self.members[2].end = 0, BLOCK
        self.assertBad(16, (0, 192), (8, 100))
        self.assertBad(24, (17, 100))


class NestedTests(JoinedCase):
    """A stripe behind a member of 10 blocks, with a filter above all."""

    def makeDevice(self, members: list[Bad]) -> Any:
        self.fault = Fault("error", start=(10 + 40) * BLOCK, length=BLOCK, active=False)
        joined = Concatenation([MemoryDevice(10 * BLOCK), Stripe(members, 8 * BLOCK)])
        return Faults(joined, [self.fault], None)

    def test_deep(self) -> None:
        """The block that is told is one of the unit, however deep its member lies."""
        self.members[1].first, self.members[1].end = 9 * BLOCK, 10 * BLOCK
        # Chunk 4 of the stripe, block 1 of it.
        self.assertBad(10 + 4 * 8 + 1, (0, 100), (43, 1), (12, 50))
        self.assertGood((0, 43), (44, 100))

    def test_filter(self) -> None:
        """A filter's own bad place is one of the unit, too."""
        self.fault.active = True
        self.assertBad(50, (50, 1), (0, 100), (49, 2))
        self.assertGood((0, 50), (51, 100))
