"""Tests for L{iscsi_twisted.scsi.untorn}."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from iscsi_twisted.errors import DeviceError, WriteError
from iscsi_twisted.interfaces import Capabilities
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.cdblong import WRITE_ATOMIC_16
from iscsi_twisted.scsi.origin import NO_MARK, mark
from iscsi_twisted.scsi.untorn import ATOMIC_LIMIT, parseRecord, record
from tests.scsi.cases import BLOCK, BLOCKS, DiskTests
from tests.scsi.devices import THIN, MemoryDisk, MemoryStore, PendingDisk
from tests.support.tasks import Task, abort, run


class AtomicCases(DiskTests):
    """A unit with a place to keep writes."""

    def setUp(self) -> None:
        """Know the place."""
        super().setUp()
        self.store = MemoryStore()
        self.unit.keepWrites(self.store)

    def write(self, letter: bytes, lba: int = 3, blocks: int = 1, **fields: int) -> Task:
        """Begin a WRITE ATOMIC."""
        return self.command(WRITE_ATOMIC_16, letter * BLOCK * blocks, lba=lba, length=blocks, **fields)


class WriteAtomicTests(AtomicCases):
    """WRITE ATOMIC (16), SBC-4 5.44."""

    def test_written(self) -> None:
        """It is kept before it is written, made durable, and forgotten then."""
        task = self.write(b"a", 3, 2)
        self.assertEqual((task.status, task.endings), (codes.GOOD, 1))
        self.assertEqual(self.device.content[3 * BLOCK : 5 * BLOCK], b"a" * 2 * BLOCK)
        self.assertEqual(self.device.calls, [("write", 3 * BLOCK, 2 * BLOCK), ("flush",)])
        self.assertEqual(self.store.states, [record(3 * BLOCK, b"a" * 2 * BLOCK), b""])
        status = self.unit.snapshot()
        self.assertEqual((status.writes, status.writtenBytes, status.inFlight), (1, 2 * BLOCK, 0))
        self.assertEqual((self.unit.fences, self.unit.works), ([], set()))

    def test_notThere(self) -> None:
        """Without a place to keep it there is no such command, and page B0h says so."""
        self.unit.journal, self.unit.atomicLimit = None, 0
        self.assertSense(self.write(b"a"), codes.ILLEGAL_REQUEST, codes.INVALID_OPCODE)
        self.assertEqual(self.good(cdb.INQUIRY, flags=1, page=0xB0, allocation=64)[44:], bytes(20))

    def test_limits(self) -> None:
        """Page B0h tells the limits (SBC-4 6.6.4), and what is above them is refused."""
        page = self.good(cdb.INQUIRY, flags=1, page=0xB0, allocation=64)
        blocks = ATOMIC_LIMIT // BLOCK
        told = [int.from_bytes(page[at : at + 4], "big") for at in range(44, 64, 4)]
        self.assertEqual(told, [blocks, 0, 0, blocks, blocks])
        self.unit.atomicLimit = 2
        self.assertInvalidField(self.write(b"a", 0, 3), 12)
        task = self.write(b"a", BLOCKS - 1, 2)
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.LBA_OUT_OF_RANGE, (True, 2, None), BLOCKS)
        self.assertInvalidField(self.write(b"a", flags=0x20), 1, 7)
        self.assertEqual((self.write(b"a", blocks=0).status, self.device.calls), (codes.GOOD, []))

    def test_size(self) -> None:
        """Other amounts of data than the CDB's are refused; one that is cut off is not written in part."""
        self.assertInvalidField(self.command(WRITE_ATOMIC_16, bytes(BLOCK), length=2), 12)
        task = Task(WRITE_ATOMIC_16.encode(length=2), self.nexus, bytes(BLOCK))
        task.expected = 2 * BLOCK
        self.assertSense(run(self.unit, task), codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)
        self.assertEqual((self.device.calls, self.store.states), ([], []))

    def test_boundary(self) -> None:
        """Whatever boundary is asked for, all of it is atomic."""
        self.assertEqual(self.write(b"a", boundary=8).status, codes.GOOD)

    def test_failed(self) -> None:
        """What could not be written is told, and not written by and by."""
        self.device.error = WriteError(offset=3 * BLOCK)
        self.assertSense(self.write(b"a"), codes.MEDIUM_ERROR, codes.WRITE_FAULT, None, 3)
        self.assertEqual((self.store.load(), self.unit.fences, self.unit.works), (b"", [], set()))
        self.device.error = None
        self.assertEqual(self.write(b"b").status, codes.GOOD)


class BesideOthersTests(AtomicCases):
    """Beside other commands, on a device that answers when it is told to."""

    def setUp(self) -> None:
        """Make the disk."""
        super().setUp()
        self.slow = PendingDisk(BLOCKS * BLOCK, Capabilities())
        self.unit = self.makeUnit(self.slow)
        self.unit.keepWrites(self.store)

    def test_overlapping(self) -> None:
        """A read of its range waits and sees all of it; others do not wait."""
        writing = self.write(b"a", 3, 2)
        inside = self.command(cdb.READ_10, lba=4, length=1)
        beside = self.command(cdb.READ_10, lba=5, length=1)
        self.assertEqual([call[0] for call in self.slow.calls], ["write", "read"])
        self.slow.fire(1)
        self.assertEqual(beside.status, codes.GOOD)
        self.slow.fire()
        self.assertEqual((writing.status, inside.status), (codes.GOOD, None))
        self.slow.fire()
        self.assertEqual(inside.data, b"a" * BLOCK)

    def test_forgottenFirst(self) -> None:
        """Its range is free when it is durably forgotten: it must not be written again over newer data."""
        kept = self.store.waiting = Deferred()
        writing = self.write(b"a")
        self.assertEqual(self.slow.calls, [])
        kept.callback(None)
        forgotten = self.store.waiting = Deferred()
        self.slow.fire()
        after = self.command(cdb.WRITE_10, b"b" * BLOCK, lba=3, length=1)
        self.assertEqual((writing.status, len(self.slow.pending)), (None, 0))
        forgotten.callback(None)
        self.assertEqual((writing.status, len(self.slow.pending)), (codes.GOOD, 1))
        self.slow.fire()
        self.assertEqual(after.status, codes.GOOD)

    def test_oneByOne(self) -> None:
        """Two at once are kept one after the other."""
        first, second = self.write(b"a", 3), self.write(b"b", 9)
        self.assertEqual(len(self.store.states), 1)
        self.slow.fire()
        self.assertEqual((first.status, second.status, len(self.store.states)), (codes.GOOD, None, 3))
        self.slow.fire()
        self.assertEqual(second.status, codes.GOOD)

    def test_aborted(self) -> None:
        """One that has begun is finished although its task was aborted; one that waits is not begun."""
        first, second = self.write(b"a", 3), self.write(b"b", 9)
        for task in (first, second):
            abort(self.unit, task)
        self.slow.fire()
        self.assertEqual((self.slow.pending, self.store.load()), ([], b""))
        self.assertEqual((first.released, first.endings, second.released, second.endings), (1, 0, 1, 0))
        self.assertEqual(bytes(self.slow.content), bytes(3 * BLOCK) + b"a" * BLOCK + bytes(60 * BLOCK))
        self.assertEqual((self.unit.fences, self.unit.operations, self.unit.works), ([], set(), set()))

    def test_firstFailed(self) -> None:
        """After a failure the next one has its turn when the first is durably forgotten."""
        first, second = self.write(b"a", 3), self.write(b"b", 9)
        forgotten = self.store.waiting = Deferred()
        self.slow.breakDown(WriteError(offset=3 * BLOCK))
        self.assertEqual((first.code, self.slow.pending), (codes.WRITE_FAULT, []))
        forgotten.callback(None)
        self.slow.fire()
        self.assertEqual(second.status, codes.GOOD)

    def test_stale(self) -> None:
        """While one cannot be forgotten nobody may write what it would undo at the next start."""
        first = self.write(b"a", 3)
        self.store.waiting = forgetting = Deferred()
        self.slow.fire()
        self.store.waiting = again = Deferred()
        forgetting.errback(DeviceError())
        again.errback(DeviceError())
        self.assertSense(first, codes.HARDWARE_ERROR, codes.INTERNAL_TARGET_FAILURE)
        for command in (cdb.WRITE_10, WRITE_ATOMIC_16):
            task = self.command(command, b"b" * BLOCK, lba=3, length=1)
            self.assertSense(task, codes.HARDWARE_ERROR, codes.INTERNAL_TARGET_FAILURE)
        self.unit.watch()
        writing = self.command(cdb.WRITE_10, b"b" * BLOCK, lba=3, length=1)
        self.slow.fire()
        self.assertEqual((writing.status, self.unit.guarded, self.store.load()), (codes.GOOD, False, b""))


class RecordTests(DiskTests):
    """What is kept."""

    @given(st.integers(0, 1 << 60), st.binary(min_size=1, max_size=64))
    def test_roundTrip(self, offset: int, data: bytes) -> None:
        """What was kept is found again."""
        self.assertEqual(parseRecord(record(offset, data)), (offset, data, NO_MARK))
        self.assertEqual(parseRecord(record(offset, data, "m")), (offset, data, mark("m")))

    @given(st.integers(0, 103), st.integers(1, 255))
    def test_damaged(self, place: int, change: int) -> None:
        """A record with a changed byte, or cut off, is none."""
        whole = bytearray(record(512, b"x" * 64))
        self.assertRaises(ValueError, parseRecord, bytes(whole[:place]))
        whole[place] ^= change
        self.assertRaises(ValueError, parseRecord, bytes(whole))

    def test_closed(self) -> None:
        """A unit whose device goes stops; the record stays for the next start."""
        slow = PendingDisk(BLOCKS * BLOCK, THIN)
        unit, store = self.makeUnit(slow), MemoryStore()
        unit.keepWrites(store)
        task = self.command(WRITE_ATOMIC_16, bytes(BLOCK), unit=unit, lba=3, length=1)
        unit.closed()
        slow.fire()
        self.assertSense(task, codes.NOT_READY, codes.NOT_READY_CAUSE_NOT_REPORTABLE)
        self.assertEqual(parseRecord(store.load())[:2], (3 * BLOCK, bytes(BLOCK)))

    def test_withoutCache(self) -> None:
        """On a device whose writes are durable when they end nothing is flushed."""
        device = MemoryDisk(BLOCKS * BLOCK)
        self.good(WRITE_ATOMIC_16, bytes(BLOCK), unit=self.makeUnit(device), length=1)
        self.assertEqual([call[0] for call in device.calls], ["write"])
