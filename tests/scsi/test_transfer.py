"""Tests for L{iscsi_twisted.scsi.transfer}."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from iscsi_twisted.errors import ReadError, WriteError
from iscsi_twisted.interfaces import Capabilities
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.cdb import Command
from iscsi_twisted.scsi.codes import DPO, FUA
from iscsi_twisted.scsi.modes import Settings
from tests.scsi.cases import BLOCK, BLOCKS, DiskTests
from tests.scsi.devices import MemoryDisk, PendingDisk
from tests.support.tasks import Nexus, Task

READS = (cdb.READ_10, cdb.READ_12, cdb.READ_16)
WRITES = (cdb.WRITE_10, cdb.WRITE_12, cdb.WRITE_16)
SYNCHRONIZES = (cdb.SYNCHRONIZE_CACHE_10, cdb.SYNCHRONIZE_CACHE_16)
LIMIT = 32768


def pattern(blocks: int, start: int = 1) -> bytes:
    """Blocks that differ from one another."""
    return b"".join(bytes([(start + number) % 256]) * BLOCK for number in range(blocks))


class RangeTests(DiskTests):
    """Which blocks READ, WRITE and SYNCHRONIZE CACHE may name."""

    def greatest(self, command: Command, field: str) -> int:
        """The greatest value that a field can hold."""
        layout = command.layout
        return int(layout.unpack(b"\xff" * layout.size)[layout.fields.index(field)])

    def test_beyond(self) -> None:
        """Blocks beyond the last are refused, with the first of them as INFORMATION (SBC-3 5.11)."""
        for command in READS + WRITES + SYNCHRONIZES:
            for lba, length, first in (
                (BLOCKS, 1, BLOCKS),
                (BLOCKS - 1, 2, BLOCKS),
                (BLOCKS + 5, 0, BLOCKS + 5),
            ):
                task = self.command(command, bytes(1024), lba=lba, length=length)
                self.assertSense(task, codes.ILLEGAL_REQUEST, codes.LBA_OUT_OF_RANGE, (True, 2, None), first)
                self.assertIsNone(task.wanted)
        self.assertEqual(self.device.calls, [])

    def test_overflow(self) -> None:
        """The greatest LBA and length do not wrap around."""
        for command in READS + WRITES + SYNCHRONIZES:
            lba = self.greatest(command, "lba")
            length = self.greatest(command, "length")
            task = self.command(command, lba=lba, length=length)
            self.assertSense(task, codes.ILLEGAL_REQUEST, codes.LBA_OUT_OF_RANGE)

    def test_nothing(self) -> None:
        """A length of zero is GOOD, even just behind the last block, and moves nothing (SBC-3 5.11)."""
        for command in READS + WRITES:
            for lba in (0, BLOCKS):
                task = self.command(command, lba=lba, length=0)
                self.assertEqual((task.status, task.data, task.wanted), (codes.GOOD, b"", None))
        self.assertEqual(self.device.calls, [])

    def test_limit(self) -> None:
        """More than the maximum transfer length is an invalid field (SBC-3 6.6.4)."""
        self.unit.blockCount = 1 << 20
        for command in READS + WRITES:
            task = self.command(command, lba=0, length=LIMIT + 1)
            self.assertInvalidField(task, command.layout.offsets["length"])
            self.assertIsNone(task.wanted)

    def test_atLimit(self) -> None:
        """The maximum transfer length itself is served."""
        unit = self.makeUnit(MemoryDisk((LIMIT + 1) * BLOCK))
        data = self.good(cdb.READ_10, unit=unit, lba=1, length=LIMIT)
        self.assertEqual(len(data), 16 << 20)

    def test_protection(self) -> None:
        """RDPROTECT and WRPROTECT are refused, as there is no protection information (SBC-3 5.11)."""
        for command in READS + WRITES:
            for flags in (0x20, 0x40, 0xE0):
                self.assertInvalidField(self.command(command, flags=flags, length=1), 1, 7)


class ReadTests(DiskTests):
    """READ, SBC-3 5.10 to 5.13."""

    def setUp(self) -> None:
        """A disk with a pattern."""
        super().setUp()
        self.device.content[:] = pattern(BLOCKS)

    def test_forms(self) -> None:
        """The three long forms read the same blocks."""
        for command in READS:
            self.assertEqual(self.good(command, lba=5, length=3), pattern(3, 6))

    def test_six(self) -> None:
        """READ (6) has 21 bits of LBA, and ignores the three above them."""
        data = self.good(cdb.READ_6, lba=0xE0, low=5, length=3)
        self.assertEqual(data, pattern(3, 6))
        self.unit.blockCount = 1 << 30
        self.good(cdb.TEST_UNIT_READY)
        self.command(cdb.READ_6, lba=0x1F, low=0xFFFF, length=1)
        self.assertEqual(self.device.calls[-1], ("read", 0x1FFFFF * BLOCK, BLOCK))

    def test_sixMany(self) -> None:
        """A length of zero in READ (6) means 256 blocks."""
        unit = self.makeUnit(MemoryDisk(300 * BLOCK))
        self.assertEqual(len(self.good(cdb.READ_6, unit=unit, low=1, length=0)), 256 * BLOCK)
        self.assertSense(
            self.command(cdb.READ_6, unit=unit, low=45, length=0),
            codes.ILLEGAL_REQUEST,
            codes.LBA_OUT_OF_RANGE,
            (True, 1, None),
            300,
        )

    def test_far(self) -> None:
        """An LBA beyond 32 bits reaches its bytes."""
        self.unit.blockCount = 1 << 40
        self.command(cdb.READ_16, lba=(1 << 40) - 1, length=1)
        self.assertEqual(self.device.calls, [("read", ((1 << 40) - 1) * BLOCK, BLOCK)])

    @given(st.integers(0, BLOCKS), st.integers(0, BLOCKS), st.sampled_from(READS))
    def test_any(self, lba: int, length: int, command: Command) -> None:
        """Whatever range is read gives those bytes, or is refused as out of range."""
        task = self.command(command, lba=lba, length=length)
        if lba + length > BLOCKS:
            self.assertSense(task, codes.ILLEGAL_REQUEST, codes.LBA_OUT_OF_RANGE)
        else:
            self.assertEqual(task.data, pattern(BLOCKS)[lba * BLOCK : (lba + length) * BLOCK])

    def test_cacheHints(self) -> None:
        """DPO changes nothing."""
        self.good(cdb.READ_10, flags=DPO, length=1)
        self.assertEqual(self.device.calls, [("read", 0, BLOCK)])

    def test_fua(self) -> None:
        """FUA reads what the medium holds: a volatile cache is flushed first (SBC-3 4.15)."""
        self.assertEqual(self.good(cdb.READ_10, flags=FUA, lba=1, length=1), pattern(1, 2))
        self.assertEqual(self.device.calls, [("flush",), ("read", BLOCK, BLOCK)])

    def test_fuaWithoutCache(self) -> None:
        """FUA costs nothing where there is no volatile cache."""
        device = MemoryDisk(BLOCKS * BLOCK)
        self.good(cdb.READ_10, unit=self.makeUnit(device), flags=FUA, length=1)
        self.assertEqual(device.calls, [("read", 0, BLOCK)])

    def test_error(self) -> None:
        """A read error tells the first LBA that could not be read (SBC-3 4.18)."""
        self.device.error = ReadError(offset=7 * BLOCK)
        task = self.command(cdb.READ_10, lba=5, length=4)
        self.assertSense(task, codes.MEDIUM_ERROR, codes.UNRECOVERED_READ_ERROR, None, 7)
        self.assertEqual(self.surprises, [])

    def test_short(self) -> None:
        """A device that gives fewer bytes than it was asked for has failed to read them."""
        del self.device.content[6 * BLOCK + 100 :]
        task = self.command(cdb.READ_10, lba=5, length=4)
        self.assertSense(task, codes.MEDIUM_ERROR, codes.UNRECOVERED_READ_ERROR, None, 6)

    def test_counted(self) -> None:
        """Reads, bytes and time are counted, failures not among them."""
        times = iter((0.0, 1.0, 1.5, 2.0, 2.25, 3.0))
        unit = self.makeUnit(self.device, clock=lambda: next(times))
        self.good(cdb.READ_10, unit=unit, length=2)
        self.good(cdb.READ_10, unit=unit, length=1)
        self.device.error = ReadError()
        self.command(cdb.READ_10, unit=unit, length=1)
        status = unit.snapshot()
        self.assertEqual((status.commands, status.errors), (3, 1))
        self.assertEqual((status.reads, status.readBytes, status.writes), (2, 3 * BLOCK, 0))
        self.assertEqual((status.latencySum, status.latencyMax), (0.75, 0.5))


class WriteTests(DiskTests):
    """WRITE, SBC-3 5.33 to 5.36."""

    def test_forms(self) -> None:
        """The three long forms write the same blocks, and nothing beside them."""
        for number, command in enumerate(WRITES):
            data = pattern(3, 10 * number + 1)
            self.good(command, data, lba=5, length=3)
            self.assertEqual(
                bytes(self.device.content[4 * BLOCK : 9 * BLOCK]), bytes(BLOCK) + data + bytes(BLOCK)
            )

    def test_six(self) -> None:
        """WRITE (6) has 21 bits of LBA, and a length of zero means 256 blocks."""
        self.good(cdb.WRITE_6, pattern(2), lba=0xE0, low=5, length=2)
        self.assertEqual(bytes(self.device.content[5 * BLOCK : 7 * BLOCK]), pattern(2))
        unit = self.makeUnit(MemoryDisk(256 * BLOCK))
        task = self.command(cdb.WRITE_6, pattern(256), unit=unit, length=0)
        self.assertEqual((task.status, task.wanted), (codes.GOOD, 256 * BLOCK))

    def test_late(self) -> None:
        """Nothing is written before the data are there, and no status sent before they are written."""
        task = self.command(cdb.WRITE_10, pattern(2), late=True, lba=1, length=2)
        self.assertEqual((task.wanted, task.status, self.device.calls), (2 * BLOCK, None, []))
        task.arrive(self.unit)
        self.assertEqual(task.status, codes.GOOD)
        self.assertEqual(bytes(self.device.content[BLOCK : 3 * BLOCK]), pattern(2))

    def test_fewer(self) -> None:
        """Where the initiator has less than it announced, the whole blocks that came are written."""
        self.good(cdb.WRITE_10, pattern(3)[: 2 * BLOCK + 100], lba=1, length=3)
        self.assertEqual(self.device.calls, [("write", BLOCK, 2 * BLOCK)])
        self.assertEqual(bytes(self.device.content[BLOCK : 3 * BLOCK]), pattern(2))

    def test_none(self) -> None:
        """Where the initiator has no data at all, nothing is written."""
        for data in (b"", bytes(100)):
            self.good(cdb.WRITE_10, data, lba=1, length=3)
        self.assertEqual(self.device.calls, [])

    def test_buffers(self) -> None:
        """Any buffer will do, cut or not."""
        for kind in (bytearray, memoryview):
            self.good(cdb.WRITE_10, kind(pattern(2)), length=2)
            self.good(cdb.WRITE_10, kind(pattern(2) + b"x"), length=3)
            self.assertEqual(bytes(self.device.content[: 2 * BLOCK]), pattern(2))

    def test_fua(self) -> None:
        """FUA flushes a volatile cache before the status (SBC-3 4.15)."""
        self.good(cdb.WRITE_10, pattern(1), flags=FUA | DPO, length=1)
        self.assertEqual(self.device.calls, [("write", 0, BLOCK), ("flush",)])

    def test_fuaWithoutCache(self) -> None:
        """FUA costs nothing where there is no volatile cache."""
        device = MemoryDisk(BLOCKS * BLOCK)
        self.good(cdb.WRITE_10, pattern(1), unit=self.makeUnit(device), flags=FUA, length=1)
        self.assertEqual(device.calls, [("write", 0, BLOCK)])

    def test_writeThrough(self) -> None:
        """Without a write cache (WCE is zero) every WRITE is flushed before its status (SBC-3 6.5.5)."""
        self.unit.adjust(Settings(writeCache=False))
        for command in (cdb.WRITE_6, *WRITES):
            self.device.calls.clear()
            self.good(command, pattern(1), length=1)
            self.assertEqual(self.device.calls, [("write", 0, BLOCK), ("flush",)])

    def test_softwareProtected(self) -> None:
        """With SWP every WRITE is refused before its data are fetched (SPC-4 7.5.8)."""
        self.unit.adjust(Settings(writeCache=True, softwareProtected=True))
        for command in (cdb.WRITE_6, *WRITES):
            task = self.command(command, pattern(1), length=1)
            self.assertSense(task, codes.DATA_PROTECT, codes.SOFTWARE_WRITE_PROTECTED)
            self.assertIsNone(task.wanted)
        self.good(cdb.READ_10, length=1)

    def test_readOnlyNexus(self) -> None:
        """A nexus that may not write is refused before its data are fetched; another is not."""
        task = self.command(cdb.WRITE_10, pattern(1), nexus=Nexus(readOnly=True), length=1)
        self.assertSense(task, codes.DATA_PROTECT, codes.WRITE_PROTECTED)
        self.assertIsNone(task.wanted)
        self.good(cdb.WRITE_10, pattern(1), length=1)

    def test_error(self) -> None:
        """A write error tells the first LBA that could not be written (SBC-3 4.18)."""
        self.device.error = WriteError(offset=2 * BLOCK)
        task = self.command(cdb.WRITE_10, pattern(2), lba=1, length=2)
        self.assertSense(task, codes.MEDIUM_ERROR, codes.WRITE_FAULT, None, 2)

    def test_counted(self) -> None:
        """Writes, bytes and time are counted."""
        times = iter((0.0, 1.0, 1.5, 2.0, 4.0))
        unit = self.makeUnit(self.device, clock=lambda: next(times))
        self.good(cdb.WRITE_10, pattern(1), unit=unit, length=1)
        self.good(cdb.WRITE_10, pattern(2), unit=unit, length=2, flags=FUA)
        status = unit.snapshot()
        self.assertEqual((status.writes, status.writtenBytes, status.reads), (2, 3 * BLOCK, 0))
        self.assertEqual((status.latencySum, status.latencyMax), (2.5, 2.0))


class SynchronizeTests(DiskTests):
    """SYNCHRONIZE CACHE, SBC-3 5.23 and 5.24."""

    def test_flush(self) -> None:
        """The device is flushed, for any range that is there, and with IMMED too."""
        for command in SYNCHRONIZES:
            for fields in ({}, {"lba": 3, "length": 5}, {"lba": BLOCKS}, {"flags": 2}):
                self.device.calls.clear()
                self.good(command, **fields)
                self.assertEqual(self.device.calls, [("flush",)])

    def test_withoutCache(self) -> None:
        """Where there is no volatile cache there is nothing to do."""
        device = MemoryDisk(BLOCKS * BLOCK)
        for command in SYNCHRONIZES:
            self.good(command, unit=self.makeUnit(device))
        self.assertEqual(device.calls, [])

    def test_error(self) -> None:
        """A flush that fails is a write error."""
        self.device.error = WriteError()
        task = self.command(cdb.SYNCHRONIZE_CACHE_10)
        self.assertSense(task, codes.MEDIUM_ERROR, codes.WRITE_FAULT)


class PendingTests(DiskTests):
    """A device that takes its time."""

    def setUp(self) -> None:
        """A disk that answers when it is told to."""
        super().setUp()
        self.slow = PendingDisk(BLOCKS * BLOCK, Capabilities(volatileCache=True))
        self.unit = self.makeUnit(self.slow)

    def begin(self, command: Command, data: bytes = b"", **fields: Any) -> Task:
        """A command that has begun and has not ended."""
        task = self.command(command, data, **fields)
        self.assertIsNone(task.status)
        return task

    def test_read(self) -> None:
        """A READ ends when the device has answered; the others do not wait for it."""
        self.slow.content[:] = pattern(BLOCKS)
        first, second = self.begin(cdb.READ_10, lba=1, length=1), self.begin(cdb.READ_10, lba=2, length=2)
        self.assertEqual(self.unit.snapshot().inFlight, 2)
        self.slow.fire(1)
        self.assertEqual((first.status, second.data), (None, pattern(2, 3)))
        self.slow.fire()
        self.assertEqual((first.data, first.endings), (pattern(1, 2), 1))
        status = self.unit.snapshot()
        self.assertEqual((status.inFlight, status.reads, status.readBytes), (0, 2, 3 * BLOCK))

    def test_fuaRead(self) -> None:
        """A READ with FUA waits for the flush, then for the read."""
        task = self.begin(cdb.READ_10, flags=FUA, length=1)
        self.assertEqual(self.slow.calls, [("flush",)])
        self.slow.fire()
        self.assertEqual(self.slow.calls, [("flush",), ("read", 0, BLOCK)])
        self.slow.fire()
        self.assertEqual(task.data, bytes(BLOCK))

    def test_write(self) -> None:
        """A WRITE ends when the device has written."""
        task = self.begin(cdb.WRITE_10, pattern(1), lba=3, length=1)
        self.slow.fire()
        self.assertEqual((task.status, task.endings), (codes.GOOD, 1))
        self.assertEqual(bytes(self.slow.content[3 * BLOCK : 4 * BLOCK]), pattern(1))

    def test_fuaWrite(self) -> None:
        """A WRITE with FUA ends when the device has written, and then flushed."""
        task = self.begin(cdb.WRITE_10, pattern(1), flags=FUA, length=1)
        self.slow.fire()
        self.assertIsNone(task.status)
        self.assertEqual(self.slow.calls, [("write", 0, BLOCK), ("flush",)])
        self.slow.fire()
        self.assertEqual(task.status, codes.GOOD)
        self.assertEqual(self.unit.snapshot().writes, 1)

    def test_errors(self) -> None:
        """What fails later ends its task as what fails at once does."""
        read = self.begin(cdb.READ_10, length=1)
        self.slow.breakDown(ReadError(offset=0))
        self.assertSense(read, codes.MEDIUM_ERROR, codes.UNRECOVERED_READ_ERROR, None, 0)
        flush = self.begin(cdb.SYNCHRONIZE_CACHE_10)
        self.slow.breakDown(OSError(5, "I/O"))
        self.assertSense(flush, codes.MEDIUM_ERROR, codes.WRITE_FAULT)
        self.assertEqual(self.unit.snapshot().inFlight, 0)

    def test_surprise(self) -> None:
        """A bug of a device is reported once, and costs that task alone."""
        error = ValueError("a bug")
        task = self.begin(cdb.READ_10, length=1)
        self.slow.breakDown(error)
        self.assertSense(task, codes.HARDWARE_ERROR, codes.INTERNAL_TARGET_FAILURE)
        self.assertEqual(self.surprises, [error])

    def test_short(self) -> None:
        """A device that gives too little later has failed to read, too."""
        task = self.begin(cdb.READ_10, length=2)
        del self.slow.content[100:]
        self.slow.fire()
        self.assertSense(task, codes.MEDIUM_ERROR, codes.UNRECOVERED_READ_ERROR, None, 0)
