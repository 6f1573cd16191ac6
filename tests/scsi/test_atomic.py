"""Tests for L{iscsi_twisted.scsi.atomic}."""

from hypothesis import given
from hypothesis import strategies as st

from iscsi_twisted.errors import ReadError, WriteError
from iscsi_twisted.interfaces import Capabilities
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.codes import DPO, FUA
from iscsi_twisted.scsi.modes import Settings
from tests.scsi.cases import BLOCK, BLOCKS, DiskTests
from tests.scsi.devices import THIN, MemoryDisk, PendingDisk
from tests.support.tasks import Nexus, Task, abort, run


class CompareAndWriteTests(DiskTests):
    """COMPARE AND WRITE, SBC-3 5.2."""

    def caw(self, old: bytes, new: bytes, lba: int = 3, **fields: int) -> Task:
        """Send the command."""
        return self.command(cdb.COMPARE_AND_WRITE, old + new, lba=lba, length=len(old) // BLOCK, **fields)

    def test_same(self) -> None:
        """What is as expected is written, and counted."""
        task = self.caw(bytes(2 * BLOCK), b"n" * 2 * BLOCK)
        self.assertEqual((task.status, task.wanted), (codes.GOOD, 4 * BLOCK))
        self.assertEqual(bytes(self.device.content), bytes(3 * BLOCK) + b"n" * 2 * BLOCK + bytes(59 * BLOCK))
        status = self.unit.snapshot()
        self.assertEqual((status.writes, status.writtenBytes, self.unit.fences), (1, 2 * BLOCK, []))

    @given(st.integers(0, 2 * BLOCK - 1))
    def test_other(self, place: int) -> None:
        """What is not is left, and the offset of the first difference is told (SBC-3 5.2)."""
        old = bytearray(2 * BLOCK)
        old[place] = 1
        old[-1] = 1
        task = self.caw(bytes(old), b"n" * 2 * BLOCK)
        self.assertSense(task, codes.MISCOMPARE, codes.MISCOMPARE_DURING_VERIFY, None, place)
        self.assertEqual((bytes(self.device.content), self.unit.fences), (bytes(BLOCKS * BLOCK), []))

    def test_flags(self) -> None:
        """DPO changes nothing, FUA flushes, protection information is refused."""
        self.caw(bytes(BLOCK), bytes(BLOCK), flags=DPO)
        self.assertNotIn(("flush",), self.device.calls)
        self.caw(bytes(BLOCK), bytes(BLOCK), flags=FUA)
        self.assertEqual(self.device.calls[-1], ("flush",))
        self.assertInvalidField(self.caw(bytes(BLOCK), bytes(BLOCK), flags=0x20), 1, 7)

    def test_writeThrough(self) -> None:
        """Without a write cache (WCE is zero) it is durable too."""
        self.unit.adjust(Settings())
        self.caw(bytes(BLOCK), bytes(BLOCK))
        self.assertEqual(self.device.calls[-1], ("flush",))

    def test_none(self) -> None:
        """No blocks is GOOD (SBC-3 5.2)."""
        self.assertEqual(self.caw(b"", b"").status, codes.GOOD)
        self.assertEqual(self.device.calls, [])

    def test_size(self) -> None:
        """Another amount of data than twice the blocks is refused before it is fetched."""
        for length, size in ((1, 1), (1, 4), (3, 4), (0, 512)):
            task = self.command(cdb.COMPARE_AND_WRITE, bytes(size * BLOCK), length=length)
            self.assertInvalidField(task, 13)
            self.assertIsNone(task.wanted)

    def test_cutOff(self) -> None:
        """Less than was announced is refused, and nothing written."""
        task = Task(cdb.COMPARE_AND_WRITE.encode(length=1), self.nexus, bytes(2 * BLOCK - 1))
        task.expected = 2 * BLOCK
        self.assertSense(run(self.unit, task), codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)
        self.assertEqual(self.device.calls, [])

    def test_range(self) -> None:
        """Blocks that are not there, and more than page B0h allows, are refused (SBC-3 5.2)."""
        task = self.caw(bytes(2 * BLOCK), bytes(2 * BLOCK), lba=BLOCKS - 1)
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.LBA_OUT_OF_RANGE, (True, 2, None), BLOCKS)
        self.unit.compareLimit = 1
        self.assertInvalidField(self.caw(bytes(2 * BLOCK), bytes(2 * BLOCK)), 13)

    def test_errors(self) -> None:
        """What cannot be read or written is told, and the range is free again."""
        self.device.error = ReadError(offset=3 * BLOCK)
        task = self.caw(bytes(BLOCK), bytes(BLOCK))
        self.assertSense(task, codes.MEDIUM_ERROR, codes.UNRECOVERED_READ_ERROR, None, 3)
        self.device.error = None
        del self.device.content[3 * BLOCK + 9 :]
        task = self.caw(bytes(BLOCK), bytes(BLOCK))
        self.assertSense(task, codes.MEDIUM_ERROR, codes.UNRECOVERED_READ_ERROR, None, 3)
        self.assertEqual(self.unit.fences, [])


class OrWriteTests(DiskTests):
    """ORWRITE, SBC-3 5.6."""

    @given(st.integers(0, BLOCKS), st.integers(0, 4), st.integers(0, 255), st.integers(0, 255))
    def test_any(self, lba: int, blocks: int, old: int, new: int) -> None:
        """Bits are set and none is cleared, in these blocks and no others."""
        self.device.content[:] = bytes([old]) * len(self.device.content)
        before = bytes(self.device.content)
        task = self.command(cdb.ORWRITE_16, bytes([new]) * blocks * BLOCK, lba=lba, length=blocks)
        if lba + blocks > BLOCKS:
            self.assertSense(task, codes.ILLEGAL_REQUEST, codes.LBA_OUT_OF_RANGE, (True, 2, None), BLOCKS)
            blocks = 0
        start, end = lba * BLOCK, (lba + blocks) * BLOCK
        expected = before[:start] + bytes([old | new]) * (blocks * BLOCK) + before[end:]
        self.assertEqual(bytes(self.device.content), expected)

    def test_fewer(self) -> None:
        """Where the initiator has less than it announced, the whole blocks that came are used."""
        self.good(cdb.ORWRITE_16, b"x" * (BLOCK + 1), lba=3, length=3)
        self.assertEqual(bytes(self.device.content[3 * BLOCK : 5 * BLOCK]), b"x" * BLOCK + bytes(BLOCK))
        self.device.calls.clear()
        self.good(cdb.ORWRITE_16, b"x", lba=3, length=3)
        self.assertEqual(self.device.calls, [])

    def test_flags(self) -> None:
        """DPO changes nothing, FUA flushes, protection information is refused, so is too much."""
        self.good(cdb.ORWRITE_16, bytes(BLOCK), length=1, flags=DPO)
        self.assertNotIn(("flush",), self.device.calls)
        self.good(cdb.ORWRITE_16, bytes(BLOCK), length=1, flags=FUA)
        self.assertEqual(self.device.calls[-1], ("flush",))
        self.assertInvalidField(self.command(cdb.ORWRITE_16, bytes(BLOCK), length=1, flags=0x20), 1, 7)
        self.unit.blockCount = 1 << 20
        self.assertInvalidField(self.command(cdb.ORWRITE_16, length=32769), 10)


class AtomicityTests(DiskTests):
    """Beside other I/O, on a device that answers when it is told to."""

    def setUp(self) -> None:
        """Make the disk."""
        super().setUp()
        self.slow = PendingDisk(BLOCKS * BLOCK, Capabilities(discard=True, zero=True))
        self.unit = self.makeUnit(self.slow)

    def caw(self, old: bytes, new: bytes, lba: int = 3, blocks: int = 1, **more: Nexus) -> Task:
        """Begin a COMPARE AND WRITE."""
        data = old * BLOCK * blocks + new * BLOCK * blocks
        return self.command(cdb.COMPARE_AND_WRITE, data, lba=lba, length=blocks, **more)  # type: ignore[arg-type]

    def write(self, letter: bytes, lba: int = 3, blocks: int = 1) -> Task:
        """Begin a WRITE."""
        return self.command(cdb.WRITE_10, letter * BLOCK * blocks, lba=lba, length=blocks)

    def drain(self) -> None:
        """Let the device do all that it has to do, the oldest first."""
        while self.slow.pending:
            self.slow.fire()

    def test_race(self) -> None:
        """Of two that expect the same, one writes and the other is told (what locks are made of)."""
        first, second = self.caw(b"\0", b"1"), self.caw(b"\0", b"2", nexus=Nexus())
        self.assertEqual(len(self.slow.pending), 1)
        self.drain()
        self.assertEqual((first.status, second.key), (codes.GOOD, codes.MISCOMPARE))
        self.assertEqual((self.slow.content[3 * BLOCK], self.unit.fences), (ord("1"), []))

    def test_overlap(self) -> None:
        """Whatever overlaps waits until it has ended; what does not goes on beside it."""
        caw = self.caw(b"\0", b"n", lba=3, blocks=2)
        write, read = self.write(b"w", 4, 2), self.command(cdb.READ_10, lba=3, length=1)
        zeros = self.command(cdb.WRITE_SAME_16, bytes(BLOCK), lba=0, length=10)
        self.assertEqual(len(self.slow.pending), 1)
        beside = [self.write(b"b", 2), self.write(b"b", 5), self.command(cdb.READ_10, lba=0, length=3)]
        self.assertEqual(len(self.slow.pending), 4)
        while len(self.slow.pending) > 1:
            self.slow.fire(1)
        self.assertEqual([task.status for task in beside], [0, 0, 0])
        self.slow.fire()
        self.assertEqual((caw.status, len(self.slow.pending)), (None, 1))
        self.drain()
        self.assertEqual([task.status for task in (caw, write, read, zeros)], [0, 0, 0, 0])
        self.assertEqual(read.data, b"n" * BLOCK)

    def test_earlier(self) -> None:
        """It waits for what overlaps and came before it, and only for that."""
        self.write(b"x", 30)
        self.write(b"w", 3)
        self.command(cdb.READ_10, lba=2, length=2)
        caw = self.caw(b"w", b"n")
        later = self.write(b"l", 3)
        self.assertEqual(len(self.slow.pending), 3)
        self.slow.fire(1)
        self.slow.fire(1)
        self.assertEqual(self.slow.calls[-1], ("read", 3 * BLOCK, BLOCK))
        self.drain()
        self.assertEqual((caw.status, later.status, self.slow.content[3 * BLOCK]), (0, 0, ord("l")))

    def test_chain(self) -> None:
        """Several in a row each see what the one before has written."""
        tasks = [self.caw(bytes([number]), bytes([number + 1])) for number in range(20)]
        self.drain()
        self.assertEqual({task.status for task in tasks}, {codes.GOOD})

    def test_orWrite(self) -> None:
        """Of two ORWRITEs none loses the bits of the other."""
        for bit in (1, 2):
            self.command(cdb.ORWRITE_16, bytes([bit]) * BLOCK, lba=3, length=1)
        self.drain()
        self.assertEqual(self.slow.content[3 * BLOCK], 3)

    def test_abortReading(self) -> None:
        """Aborted before it has written, it writes nothing and lets others go on."""
        caw = self.caw(b"\0", b"n")
        write = self.write(b"w")
        abort(self.unit, caw)
        self.assertEqual(len(self.slow.pending), 2)
        self.drain()
        self.assertEqual((caw.endings, write.status, self.slow.content[3 * BLOCK]), (0, 0, ord("w")))
        self.assertEqual(self.unit.fences, [])

    def test_abortWriting(self) -> None:
        """Aborted while it writes, it is a fence: a late write overwrites nothing newer."""
        caw = self.caw(b"\0", b"n")
        self.slow.fire()
        write = self.write(b"w")
        abort(self.unit, caw)
        self.assertEqual(len(self.slow.pending), 1)
        self.drain()
        self.assertEqual((caw.endings, write.status, self.slow.content[3 * BLOCK]), (0, 0, ord("w")))
        self.assertEqual(self.unit.fences, [])

    def test_abortWaiting(self) -> None:
        """Aborted while it waits, it does nothing and holds nobody up."""
        self.write(b"1")
        caw = self.caw(b"1", b"n")
        second = self.caw(b"1", b"2")
        for task in (caw, second):
            abort(self.unit, task)
        write = self.write(b"w")
        self.assertEqual(len(self.slow.pending), 2)
        self.drain()
        self.assertEqual((write.status, self.slow.content[3 * BLOCK], self.unit.fences), (0, ord("w"), []))

    def test_abortedReadBefore(self) -> None:
        """It does not wait for an aborted task that only reads, even one that it waited for."""
        first, second = self.command(cdb.READ_10, lba=3, length=1), self.command(cdb.READ_10, lba=3, length=1)
        abort(self.unit, first)
        self.caw(b"\0", b"n")
        self.assertEqual(len(self.slow.pending), 2)
        abort(self.unit, second)
        self.assertEqual(len(self.slow.pending), 3)

    def test_failure(self) -> None:
        """A failure lets others go on."""
        caw = self.caw(b"\0", b"n")
        write = self.write(b"w")
        self.slow.fire()
        self.slow.breakDown(WriteError(offset=3 * BLOCK))
        self.assertSense(caw, codes.MEDIUM_ERROR, codes.WRITE_FAULT, None, 3)
        self.drain()
        self.assertEqual((write.status, self.unit.fences), (codes.GOOD, []))

    def test_atOnce(self) -> None:
        """On a device that answers at once nothing is left behind."""
        unit = self.makeUnit(MemoryDisk(BLOCKS * BLOCK, THIN))
        for number in range(3):
            data = bytes([number]) * BLOCK + bytes([number + 1]) * BLOCK
            self.good(cdb.COMPARE_AND_WRITE, data, unit=unit, length=1)
        self.assertEqual((unit.fences, unit.operations), ([], set()))
