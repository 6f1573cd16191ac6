"""Tests for L{iscsi_twisted.scsi.provisioning}."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from iscsi_twisted.errors import WriteError
from iscsi_twisted.interfaces import Capabilities
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.cdb import Command
from iscsi_twisted.scsi.modes import Settings
from iscsi_twisted.scsi.provisioning import SLICE, slices
from tests.scsi.cases import BLOCK, BLOCKS, DiskTests
from tests.scsi.devices import THIN, MemoryDisk, PendingDisk
from tests.support.tasks import Task, abort, run

SAMES = (cdb.WRITE_SAME_10, cdb.WRITE_SAME_16)


def parameterList(*ranges: tuple[int, int], announced: int | None = None) -> bytes:
    """An UNMAP parameter list, SBC-3 5.28.2."""
    size = 16 * len(ranges) if announced is None else announced
    head = struct.pack(">HH4x", size + 6, size)
    return head + b"".join(struct.pack(">QI4x", *each) for each in ranges)


class UnmapTests(DiskTests):
    """UNMAP, SBC-3 5.28."""

    def setUp(self) -> None:
        """A disk that is full of ones."""
        super().setUp()
        self.device.content[:] = b"\xff" * len(self.device.content)

    def unmap(self, data: bytes, length: int | None = None, flags: int = 0) -> Task:
        """Send a parameter list."""
        return self.command(cdb.UNMAP, data, length=len(data) if length is None else length, flags=flags)

    def test_ranges(self) -> None:
        """All that the list names is discarded, and nothing else."""
        task = self.unmap(parameterList((1, 2), (10, 1), (63, 1)))
        self.assertEqual(task.status, codes.GOOD)
        self.assertEqual(
            self.device.calls,
            [("discard", BLOCK, 2 * BLOCK), ("discard", 10 * BLOCK, BLOCK), ("discard", 63 * BLOCK, BLOCK)],
        )
        self.assertEqual(self.device.content.count(0), 4 * BLOCK)

    def test_nothing(self) -> None:
        """No list, an empty list, and a range without blocks are GOOD."""
        for data, length in ((b"", 0), (parameterList(), 8), (parameterList((5, 0), (BLOCKS, 0)), 40)):
            self.assertEqual(self.unmap(data, length).status, codes.GOOD)
        self.assertEqual(self.device.calls, [])

    def test_truncated(self) -> None:
        """Descriptors that are cut off, by either length, are ignored (SBC-3 5.28.2)."""
        data = parameterList((1, 1), (2, 1))
        for each, length in (
            (data, 8 + 31),
            (data[: 8 + 31], len(data)),
            (parameterList((1, 1), (2, 1), announced=31), None),
            (parameterList((1, 1), announced=160), None),
        ):
            self.device.calls.clear()
            self.assertEqual(self.unmap(each, length).status, codes.GOOD)
            self.assertEqual(self.device.calls, [("discard", BLOCK, BLOCK)])

    def test_noHeader(self) -> None:
        """A parameter list shorter than its header is refused (SBC-3 5.28.1)."""
        for length in range(1, 8):
            task = self.unmap(bytes(8), length)
            self.assertSense(task, codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR, (True, 7, None))
            self.assertIsNone(task.wanted)
        self.assertSense(self.unmap(bytes(7), 24), codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)

    def test_outOfRange(self) -> None:
        """One range that is not there stops all of them (SBC-3 5.28.2)."""
        for lba, blocks, first in ((BLOCKS, 1, 64), (60, 5, 64), ((1 << 64) - 1, 0xFFFFFFFF, None)):
            task = self.unmap(parameterList((1, 1), (lba, blocks)))
            self.assertSense(task, codes.ILLEGAL_REQUEST, codes.LBA_OUT_OF_RANGE, (False, 24, None), first)
        self.assertEqual(self.device.calls, [])

    def test_tooMany(self) -> None:
        """More descriptors or blocks than page B0h allows are refused (SBC-3 5.28.2)."""
        self.assertEqual(self.unmap(parameterList(*[(1, 1)] * 256)).status, codes.GOOD)
        task = self.unmap(parameterList(*[(1, 1)] * 257))
        self.assertSense(task, 5, codes.INVALID_FIELD_IN_PARAMETER_LIST, (False, 2, None))
        self.device.calls.clear()
        self.unit.blockCount = 1 << 30
        task = self.unmap(parameterList((0, 1048576), (1, 1)))
        self.assertSense(task, 5, codes.INVALID_FIELD_IN_PARAMETER_LIST, (False, 32, None))
        self.assertEqual(self.device.calls, [])

    def test_anchor(self) -> None:
        """ANCHOR is refused, as there are no anchored blocks (SBC-3 5.28.1)."""
        self.assertInvalidField(self.unmap(parameterList((1, 1)), flags=1), 1, 0)

    def test_pending(self) -> None:
        """Ranges are discarded one after the other; the status waits for the last."""
        slow = PendingDisk(BLOCKS * BLOCK, THIN)
        data = parameterList((1, 1), (3, 1))
        task = self.command(cdb.UNMAP, data, unit=self.makeUnit(slow), length=len(data))
        self.assertEqual(slow.calls, [("discard", BLOCK, BLOCK)])
        slow.fire()
        self.assertIsNone(task.status)
        slow.fire()
        self.assertEqual((task.status, task.endings), (codes.GOOD, 1))

    def test_aborted(self) -> None:
        """After an abort no further range is discarded."""
        slow = PendingDisk(BLOCKS * BLOCK, THIN)
        unit = self.makeUnit(slow)
        data = parameterList((1, 1), (3, 1))
        task = self.command(cdb.UNMAP, data, unit=unit, length=len(data))
        abort(unit, task)
        slow.fire()
        self.assertEqual(slow.calls, [("discard", BLOCK, BLOCK)])
        self.assertIsNone(task.status)


class WriteSameTests(DiskTests):
    """WRITE SAME, SBC-3 5.42 and 5.43."""

    def test_pattern(self) -> None:
        """A block is written to every place of the range, and to no other."""
        block = bytes(range(256)) * 2
        for command in SAMES:
            self.device.content[:] = bytes(len(self.device.content))
            task = self.command(command, block, lba=2, length=5)
            self.assertEqual((task.status, task.wanted), (codes.GOOD, BLOCK))
            self.assertEqual(bytes(self.device.content), bytes(2 * BLOCK) + block * 5 + bytes(57 * BLOCK))

    def test_zeros(self) -> None:
        """A block of zeros zeroes the range, giving storage back if UNMAP says so."""
        for command in SAMES:
            for flags, unmap in ((0, False), (0x08, True)):
                self.device.calls.clear()
                self.good(command, bytes(BLOCK), lba=2, length=5, flags=flags)
                self.assertEqual(self.device.calls, [("zero", 2 * BLOCK, 5 * BLOCK, unmap)])

    def test_unmapPattern(self) -> None:
        """With UNMAP, a block that unmapped blocks would not give is written (SBC-3 4.7.3.4.4)."""
        self.good(cdb.WRITE_SAME_16, b"x" * BLOCK, lba=2, length=5, flags=0x08)
        self.assertEqual(self.device.calls, [("write", 2 * BLOCK, 5 * BLOCK)])

    def test_noBuffer(self) -> None:
        """NDOB means zeros, and no data are fetched (SBC-3 5.43)."""
        task = self.command(cdb.WRITE_SAME_16, lba=2, length=5, flags=0x01)
        self.assertEqual((task.status, task.wanted), (codes.GOOD, None))
        self.assertEqual(self.device.calls, [("zero", 2 * BLOCK, 5 * BLOCK, False)])
        self.assertInvalidField(self.command(cdb.WRITE_SAME_10, lba=2, length=5, flags=0x01), 1, 0)

    def test_flags(self) -> None:
        """Protection, anchors and obsolete bits are refused."""
        for command in SAMES:
            for flags, bit in ((0x20, 7), (0x10, 4), (0x18, 4), (0x04, 2), (0x02, 1)):
                task = self.command(command, bytes(BLOCK), length=1, flags=flags)
                self.assertInvalidField(task, 1, bit)

    def test_thick(self) -> None:
        """UNMAP is refused where nothing is thin; zeros are not."""
        device = MemoryDisk(BLOCKS * BLOCK)
        unit = self.makeUnit(device)
        task = self.command(cdb.WRITE_SAME_16, bytes(BLOCK), unit=unit, length=1, flags=0x08)
        self.assertInvalidField(task, 1, 3)
        self.good(cdb.WRITE_SAME_16, bytes(BLOCK), unit=unit, length=1)

    def test_none(self) -> None:
        """No blocks, which would mean all to the end, are refused (WSNZ, SBC-3 6.6.4)."""
        for command in SAMES:
            task = self.command(command, bytes(BLOCK), lba=0, length=0)
            self.assertInvalidField(task, command.layout.offsets["length"])
            self.assertIsNone(task.wanted)

    def test_toTheEnd(self) -> None:
        """Where WSNZ is zero, no blocks mean all to the end, if not too many (SBC-3 5.42, 6.6.4)."""
        unit = self.makeUnit(self.device, sameZero=True)
        self.assertEqual(self.good(cdb.INQUIRY, unit=unit, flags=1, page=0xB0, allocation=64)[4], 0)
        for command in SAMES:
            self.device.calls.clear()
            self.good(command, b"x" * BLOCK, unit=unit, lba=62, length=0)
            self.assertEqual(self.device.calls, [("write", 62 * BLOCK, 2 * BLOCK)])
            task = self.command(command, bytes(BLOCK), unit=unit, lba=BLOCKS, length=0)
            self.assertInvalidField(task, command.layout.offsets["length"])
            task = self.command(command, bytes(BLOCK), unit=unit, lba=BLOCKS + 1, length=0)
            self.assertSense(task, codes.ILLEGAL_REQUEST, codes.LBA_OUT_OF_RANGE)
        unit.blockCount = unit.sameLimit + 2
        task = self.command(cdb.WRITE_SAME_16, bytes(BLOCK), unit=unit, lba=1, length=0)
        self.assertInvalidField(task, 10)

    def test_limit(self) -> None:
        """More than the maximum write same length is refused (SBC-3 6.6.4)."""
        self.unit.blockCount = 1 << 20
        self.assertInvalidField(self.command(cdb.WRITE_SAME_16, bytes(BLOCK), length=32769), 10)

    def test_outOfRange(self) -> None:
        """Blocks that are not there are refused."""
        for command in SAMES:
            task = self.command(command, bytes(BLOCK), lba=60, length=5)
            self.assertSense(task, codes.ILLEGAL_REQUEST, codes.LBA_OUT_OF_RANGE, (True, 2, None), BLOCKS)
            self.assertIsNone(task.wanted)

    def test_short(self) -> None:
        """More or less than a block of data is refused before it is fetched, and nothing written."""
        for command in SAMES:
            for size in (0, BLOCK - 1, 2 * BLOCK):
                task = self.command(command, bytes(size), length=1)
                self.assertSense(task, codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)
                self.assertIsNone(task.wanted)
        self.assertEqual(self.device.calls, [])

    def test_cutOff(self) -> None:
        """Less than was announced is refused, and nothing written."""
        task = Task(cdb.WRITE_SAME_16.encode(length=1), self.nexus, bytes(BLOCK - 1))
        task.expected = BLOCK
        self.assertSense(run(self.unit, task), codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)
        self.assertEqual(self.device.calls, [])

    def test_durable(self) -> None:
        """Without a write cache (WCE is zero) WRITE SAME and UNMAP flush at their end."""
        self.unit.adjust(Settings(writeCache=False))
        self.good(cdb.WRITE_SAME_10, bytes(BLOCK), length=1)
        data = parameterList((1, 1))
        self.good(cdb.UNMAP, data, length=len(data))
        self.assertEqual([call[0] for call in self.device.calls], ["zero", "flush", "discard", "flush"])

    def large(self, capabilities: Capabilities, block: bytes) -> MemoryDisk:
        """Write the same to two slices and a half."""
        device = MemoryDisk(3 * SLICE, capabilities)
        unit = self.makeUnit(device)
        self.good(cdb.WRITE_SAME_16, block, unit=unit, lba=1, length=5 * SLICE // 1024)
        self.assertEqual(unit.snapshot().writtenBytes, 5 * SLICE // 2)
        return device

    def test_slices(self) -> None:
        """A large range is written in pieces, so that none takes long."""
        device = self.large(THIN, b"x" * BLOCK)
        sizes = [(call[0], call[2]) for call in device.calls]
        self.assertEqual(sizes, [("write", SLICE), ("write", SLICE), ("write", SLICE // 2)])
        self.assertEqual(device.content.count(b"x"), 5 * SLICE // 2)

    def test_zeroSlices(self) -> None:
        """Zeros go in pieces to a device that has to write them, and in one go to any other."""
        sizes = [call[2] for call in self.large(Capabilities(), bytes(BLOCK)).calls]
        self.assertEqual(sizes, [SLICE, SLICE, SLICE // 2])
        sizes = [call[2] for call in self.large(Capabilities(zero=True), bytes(BLOCK)).calls]
        self.assertEqual(sizes, [5 * SLICE // 2])

    def test_pending(self) -> None:
        """The pieces follow one another; an error ends the task at once."""
        slow = PendingDisk(3 * SLICE, THIN)
        unit = self.makeUnit(slow)
        task = self.command(cdb.WRITE_SAME_16, b"x" * BLOCK, unit=unit, length=3 * SLICE // BLOCK)
        slow.fire()
        self.assertEqual(len(slow.calls), 2)
        slow.breakDown(WriteError(offset=SLICE))
        self.assertSense(task, codes.MEDIUM_ERROR, codes.WRITE_FAULT, None, SLICE // BLOCK)
        self.assertEqual(len(slow.calls), 2)

    @given(
        st.integers(0, BLOCKS - 1), st.integers(1, BLOCKS), st.sampled_from(SAMES), st.sampled_from((0, 7))
    )
    def test_any(self, lba: int, length: int, command: Command, value: int) -> None:
        """Whatever range is written holds the block, and what is around it does not change."""
        before = b"\x55" * len(self.device.content)
        self.device.content[:] = before
        task = self.command(command, bytes([value]) * BLOCK, lba=lba, length=length)
        if task.status == codes.GOOD:
            start, end = lba * BLOCK, (lba + length) * BLOCK
            before = before[:start] + bytes([value]) * (end - start) + before[end:]
        self.assertEqual(task.status == codes.GOOD, lba + length <= BLOCKS)
        self.assertEqual(bytes(self.device.content), before)

    @given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 100))
    def test_slicing(self, offset: int, length: int, size: int) -> None:
        """Pieces are small enough, follow one another, and add up to the whole."""
        place = offset
        for start, count in slices(offset, length, size):
            self.assertEqual(start, place)
            self.assertTrue(0 < count <= size)
            place += count
        self.assertEqual(place, offset + length)
