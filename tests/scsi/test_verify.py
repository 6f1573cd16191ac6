"""Tests for L{iscsi_twisted.scsi.verify}."""

from typing import Any

from iscsi_twisted.errors import ReadError, WriteError
from iscsi_twisted.interfaces import Capabilities
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.codes import DPO
from iscsi_twisted.scsi.provisioning import SLICE
from tests.scsi.cases import BLOCK, BLOCKS, DiskTests
from tests.scsi.devices import THIN, MemoryDisk, PendingDisk
from tests.support.tasks import Task, run

VERIFIES = (cdb.VERIFY_10, cdb.VERIFY_12, cdb.VERIFY_16)
WRITES = (cdb.WRITE_AND_VERIFY_10, cdb.WRITE_AND_VERIFY_12, cdb.WRITE_AND_VERIFY_16)
PREFETCHES = (cdb.PREFETCH_10, cdb.PREFETCH_16)
ALL, ONE = 0x02, 0x06
"""BYTCHK 01b and 11b."""


def pattern(blocks: int, start: int = 1) -> bytes:
    """Blocks that differ from one another."""
    return b"".join(bytes([(start + number) % 256]) * BLOCK for number in range(blocks))


def spoilt(data: bytes, place: int) -> bytes:
    """Data with another byte at one place."""
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


class PatternTests(DiskTests):
    """A disk with a pattern."""

    def setUp(self) -> None:
        """Make the disk."""
        super().setUp()
        self.device.content[:] = pattern(BLOCKS)


class RangeTests(PatternTests):
    """Which blocks these commands may name, and with which flags."""

    def test_beyond(self) -> None:
        """Blocks beyond the last are refused, with the first of them as INFORMATION (SBC-3 5.29)."""
        for command in VERIFIES + WRITES + PREFETCHES:
            for lba, length, first in ((BLOCKS, 1, 64), (BLOCKS - 1, 2, 64), (BLOCKS + 5, 0, 69)):
                task = self.command(command, bytes(1024), lba=lba, length=length)
                self.assertSense(task, codes.ILLEGAL_REQUEST, codes.LBA_OUT_OF_RANGE, (True, 2, None), first)
                self.assertIsNone(task.wanted)
        self.assertEqual(self.device.calls, [])

    def test_nothing(self) -> None:
        """No blocks is GOOD, and nothing is fetched (SBC-3 5.29)."""
        for command in VERIFIES + WRITES:
            for flags in (0, ALL):
                task = self.command(command, lba=BLOCKS, length=0, flags=flags)
                self.assertEqual((task.status, task.wanted), (codes.GOOD, None))
        self.assertEqual(self.device.calls, [])

    def test_limit(self) -> None:
        """More than the maximum transfer length is refused (SBC-3 6.6.4)."""
        self.unit.blockCount = 1 << 20
        for command in VERIFIES + WRITES:
            task = self.command(command, length=32769)
            self.assertInvalidField(task, command.layout.offsets["length"])

    def test_flags(self) -> None:
        """Protection information and reserved values of BYTCHK are refused; DPO is not (SBC-3 5.29)."""
        for command in VERIFIES + WRITES:
            for flags, bit in ((0x20, 7), (0xE0, 7), (0x04, 2)):
                self.assertInvalidField(self.command(command, bytes(BLOCK), length=1, flags=flags), 1, bit)
            self.good(command, pattern(1), length=1, flags=DPO)
        for command in WRITES:
            self.assertInvalidField(self.command(command, bytes(BLOCK), length=1, flags=ONE), 1, 2)


class VerifyTests(PatternTests):
    """VERIFY, SBC-3 5.29 to 5.31."""

    def test_readable(self) -> None:
        """Without comparison the blocks are read from the medium, and nothing is fetched."""
        for command in VERIFIES:
            self.device.calls.clear()
            task = self.command(command, lba=3, length=5)
            self.assertEqual((task.status, task.wanted, task.data), (codes.GOOD, None, b""))
            self.assertEqual(self.device.calls, [("flush",), ("read", 3 * BLOCK, 5 * BLOCK)])

    def test_same(self) -> None:
        """BYTCHK 01b compares all with what comes."""
        for command in VERIFIES:
            task = self.command(command, pattern(5, 4), lba=3, length=5, flags=ALL)
            self.assertEqual((task.status, task.wanted), (codes.GOOD, 5 * BLOCK))

    def test_other(self) -> None:
        """A difference is a miscompare with the LBA of its block (SBC-3 4.18)."""
        for command in VERIFIES:
            for place in (0, 511, 512, 5 * BLOCK - 1):
                data = spoilt(pattern(5, 4), place)
                task = self.command(command, data, lba=3, length=5, flags=ALL)
                lba = 3 + place // BLOCK
                self.assertSense(task, codes.MISCOMPARE, codes.MISCOMPARE_DURING_VERIFY, None, lba)

    def test_one(self) -> None:
        """BYTCHK 11b compares each block with the one that comes."""
        self.device.content[3 * BLOCK : 6 * BLOCK] = b"x" * 3 * BLOCK
        for command in VERIFIES:
            task = self.command(command, b"x" * BLOCK, lba=3, length=3, flags=ONE)
            self.assertEqual((task.status, task.wanted), (codes.GOOD, BLOCK))
            task = self.command(command, b"x" * BLOCK, lba=3, length=4, flags=ONE)
            self.assertSense(task, codes.MISCOMPARE, codes.MISCOMPARE_DURING_VERIFY, None, 6)

    def test_fewer(self) -> None:
        """Where the initiator has less than it announced, the whole blocks that came are compared."""
        self.good(cdb.VERIFY_10, pattern(2, 4) + b"?" * 100, lba=3, length=5, flags=ALL)
        self.good(cdb.VERIFY_10, pattern(1, 4), lba=3, length=5, flags=ALL)
        self.good(cdb.VERIFY_10, b"?" * 100, lba=3, length=5, flags=ALL)
        task = self.command(cdb.VERIFY_10, bytes(100), lba=3, length=5, flags=ONE)
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)

    def large(self, content: bytes, data: bytes, flags: int) -> tuple[Task, MemoryDisk]:
        """Verify two slices and a half of a large disk."""
        device = MemoryDisk(3 * SLICE, Capabilities())
        device.content[:] = content * (len(device.content) // len(content))
        unit = self.makeUnit(device)
        length = 5 * SLICE // 1024
        return self.command(cdb.VERIFY_16, data, unit=unit, lba=0, length=length, flags=flags), device

    def test_slices(self) -> None:
        """A large range is read in pieces, and no further than to the first difference."""
        task, device = self.large(b"x" * BLOCK, b"", 0)
        self.assertEqual([call[2] for call in device.calls], [SLICE, SLICE, SLICE // 2])
        data = spoilt(b"x" * (5 * SLICE // 2), SLICE + 700)
        task, device = self.large(b"x" * BLOCK, data, ALL)
        self.assertEqual((task.information, len(device.calls)), (SLICE // BLOCK + 1, 2))
        task, device = self.large(b"x" * BLOCK, b"x" * BLOCK, ONE)
        self.assertEqual((task.status, len(device.calls)), (codes.GOOD, 3))

    def test_errors(self) -> None:
        """What cannot be read, or is not there, is a read error."""
        self.device.error = ReadError(offset=4 * BLOCK)
        task = self.command(cdb.VERIFY_10, lba=3, length=5)
        self.assertSense(task, codes.MEDIUM_ERROR, codes.UNRECOVERED_READ_ERROR, None, 4)
        self.device.error = None
        del self.device.content[5 * BLOCK :]
        task = self.command(cdb.VERIFY_10, lba=3, length=5)
        self.assertSense(task, codes.MEDIUM_ERROR, codes.UNRECOVERED_READ_ERROR, None, 5)

    def test_pending(self) -> None:
        """A device may take its time."""
        slow = PendingDisk(BLOCKS * BLOCK, THIN)
        slow.content[:] = pattern(BLOCKS)
        unit = self.makeUnit(slow)
        for data, status in ((pattern(2), codes.GOOD), (pattern(2, 2), codes.CHECK_CONDITION)):
            task = self.command(cdb.VERIFY_10, data, unit=unit, length=2, flags=ALL)
            slow.fire()
            self.assertIsNone(task.status)
            slow.fire()
            self.assertEqual((task.status, task.endings), (status, 1))


class WriteAndVerifyTests(PatternTests):
    """WRITE AND VERIFY, SBC-3 5.39 to 5.41."""

    def test_forms(self) -> None:
        """The blocks are written, flushed, and read back."""
        for number, command in enumerate(WRITES):
            for flags in (0, ALL):
                self.device.calls.clear()
                data = pattern(3, 20 * number + 1 + flags)
                task = self.command(command, data, lba=5, length=3, flags=flags)
                self.assertEqual((task.status, task.wanted), (codes.GOOD, 3 * BLOCK))
                self.assertEqual(bytes(self.device.content[5 * BLOCK : 8 * BLOCK]), data)
                place = 5 * BLOCK, 3 * BLOCK
                self.assertEqual(self.device.calls, [("write", *place), ("flush",), ("read", *place)])
        self.assertEqual((self.unit.snapshot().writes, self.unit.fences), (6, []))

    def test_forgetful(self) -> None:
        """A device that gives back something else is found out, if comparison was asked for."""
        self.device.write = lambda offset, data: None  # type: ignore[method-assign]
        self.good(cdb.WRITE_AND_VERIFY_10, pattern(2, 9), lba=5, length=2)
        task = self.command(cdb.WRITE_AND_VERIFY_10, pattern(2, 9), lba=5, length=2, flags=ALL)
        self.assertSense(task, codes.MISCOMPARE, codes.MISCOMPARE_DURING_VERIFY, None, 5)
        self.assertEqual(self.unit.fences, [])

    def test_fewer(self) -> None:
        """Where the initiator has less than it announced, the whole blocks that came are written."""
        self.good(cdb.WRITE_AND_VERIFY_10, pattern(2, 9) + b"?", lba=5, length=4, flags=ALL)
        self.assertEqual(bytes(self.device.content[5 * BLOCK :]), pattern(2, 9) + pattern(BLOCKS - 7, 8))
        self.device.calls.clear()
        self.good(cdb.WRITE_AND_VERIFY_10, b"?", lba=5, length=4)
        self.assertEqual(self.device.calls, [])

    def test_error(self) -> None:
        """What cannot be written is a write error, and the range is free again."""
        self.device.error = WriteError(offset=6 * BLOCK)
        task = self.command(cdb.WRITE_AND_VERIFY_16, pattern(3), lba=5, length=3)
        self.assertSense(task, codes.MEDIUM_ERROR, codes.WRITE_FAULT, None, 6)
        self.assertEqual(self.unit.fences, [])

    def test_alone(self) -> None:
        """A write of another task to the same blocks waits until they have been read back."""
        slow = PendingDisk(BLOCKS * BLOCK, THIN)
        unit = self.makeUnit(slow)
        first = self.command(cdb.WRITE_AND_VERIFY_10, pattern(2, 9), unit=unit, length=2, flags=ALL)
        second = self.command(cdb.WRITE_10, pattern(1, 50), unit=unit, lba=1, length=1)
        for _ in range(3):
            self.assertEqual(len(slow.pending), 1)
            slow.fire()
        self.assertEqual((first.status, second.status), (codes.GOOD, None))
        slow.fire()
        self.assertEqual((second.status, slow.content[BLOCK]), (codes.GOOD, 50))


class PrefetchTests(PatternTests):
    """PRE-FETCH, SBC-3 5.7 and 5.8."""

    def test_reads(self) -> None:
        """The blocks are read, so that the device may keep them; nothing is sent."""
        for command in PREFETCHES:
            self.device.calls.clear()
            self.assertEqual(self.good(command, lba=3, length=5), b"")
            self.assertEqual(self.device.calls, [("read", 3 * BLOCK, 5 * BLOCK)])

    def test_immediate(self) -> None:
        """With IMMED the status comes at once."""
        for command in PREFETCHES:
            self.good(command, lba=3, length=5, flags=0x02)
        self.assertEqual(self.device.calls, [])

    def test_toTheEnd(self) -> None:
        """No blocks means all to the end, or as many as a READ may transfer."""
        self.good(cdb.PREFETCH_10, lba=60)
        self.assertEqual(self.device.calls, [("read", 60 * BLOCK, 4 * BLOCK)])
        self.good(cdb.PREFETCH_10, lba=BLOCKS)
        self.assertEqual(len(self.device.calls), 1)
        device = MemoryDisk(40000 * BLOCK)
        self.good(cdb.PREFETCH_16, unit=self.makeUnit(device))
        self.assertEqual(sum(call[2] for call in device.calls), 32768 * BLOCK)

    def test_error(self) -> None:
        """What cannot be read is told."""
        self.device.error = ReadError(offset=0)
        task: Any = self.command(cdb.PREFETCH_10, length=1)
        self.assertSense(task, codes.MEDIUM_ERROR, codes.UNRECOVERED_READ_ERROR, None, 0)

    def test_late(self) -> None:
        """Data that come late are compared as those that come at once."""
        task = Task(cdb.VERIFY_10.encode(length=1, flags=ALL), self.nexus, pattern(1), late=True)
        run(self.unit, task)
        self.assertEqual((task.status, self.unit.receiving), (None, {task}))
        task.arrive(self.unit)
        self.assertEqual((task.status, self.unit.receiving), (codes.GOOD, set()))
