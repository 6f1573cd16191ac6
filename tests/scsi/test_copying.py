"""Tests for L{iscsi_twisted.scsi.copying}: EXTENDED COPY (LID1)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from iscsi_twisted.errors import ReadError, WriteError
from iscsi_twisted.interfaces import Capabilities
from iscsi_twisted.scsi import cdb, codes, copying
from iscsi_twisted.scsi.cdblong import EXTENDED_COPY, SANITIZE_OVERWRITE
from iscsi_twisted.scsi.copying import COMPLETED, COPY_LIMIT, FAILED, IN_PROGRESS
from iscsi_twisted.scsi.modes import Settings
from tests.scsi.cases import BLOCK
from tests.scsi.copies import BLOCKS, VENDOR_KIND, CopyCases, segment, target
from tests.scsi.devices import MemoryDisk, PendingDisk
from tests.support.tasks import abort


class CopyTests(CopyCases):
    """What is copied."""

    def test_copied(self) -> None:
        """These blocks are copied and no others, by reading and writing; both sides count."""
        task = self.finished(segment(0, 1, 5, 10, 20))
        self.assertEqual(task.status, codes.GOOD)
        expected = bytes(20 * BLOCK) + self.data[10 * BLOCK : 15 * BLOCK] + bytes(39 * BLOCK)
        self.assertEqual(bytes(self.devices[1].content), expected)
        self.assertEqual(bytes(self.devices[0].content), self.data)
        self.assertEqual(self.units[0].snapshot().readBytes, 5 * BLOCK)
        self.assertEqual(self.units[1].snapshot().writtenBytes, 5 * BLOCK)
        self.assertIdle()

    def test_segments(self) -> None:
        """Segments are done in order."""
        self.finished(segment(0, 1, 2, 0, 8), segment(1, 0, 1, 9, 63), segment(0, 1, 0, 0, 0))
        self.assertEqual(bytes(self.devices[0].content[63 * BLOCK :]), self.data[BLOCK : 2 * BLOCK])

    def test_nothing(self) -> None:
        """No parameter list is GOOD, and so is one without segments (SPC-3 6.3.1)."""
        self.assertEqual(self.command(EXTENDED_COPY).status, codes.GOOD)
        self.assertEqual(self.finished().status, codes.GOOD)

    @given(st.integers(1, 24), st.integers(0, 40), st.integers(0, 40))
    def test_overlapping(self, blocks: int, read: int, write: int) -> None:
        """Within one unit nothing is overwritten before it was read, whichever way it goes."""
        self.patch(copying, "SLICE", 4 * BLOCK)
        device = self.devices[0]
        device.content[:] = self.data
        expected = bytearray(self.data)
        expected[write * BLOCK : (write + blocks) * BLOCK] = self.data[read * BLOCK : (read + blocks) * BLOCK]
        task = self.finished(segment(0, 0, blocks, read, write))
        self.assertEqual(task.status, codes.GOOD)
        self.assertEqual(bytes(device.content), bytes(expected))

    def test_slices(self) -> None:
        """A piece is copied in each turn, and others are served meanwhile."""
        self.patch(copying, "SLICE", 4 * BLOCK)
        task = self.copy(segment(0, 1, 12, 0, 0))
        self.assertIsNone(task.status)
        seen = []
        while self.turns.waiting:
            self.good(cdb.READ_10, unit=self.units[1], lba=63, length=1)
            self.turns.turn()
            seen.append(sum(call[0] == "write" for call in self.devices[1].calls))
        self.assertEqual((task.status, seen[-1], sorted(seen)), (codes.GOOD, 3, seen))
        self.assertGreater(len(set(seen)), 2)

    def test_blockSizes(self) -> None:
        """Between blocks of different sizes: counted in the source's, or with DC in the destination's."""
        self.add(2, MemoryDisk(16 * 4096), blockSize=4096)
        targets = [target(self.naa(0)), target(self.naa(2), blockSize=4096)]
        self.assertEqual(self.finished(segment(0, 1, 16, 8, 1), targets=targets).status, codes.GOOD)
        content = bytes(self.units[2].device.content)  # type: ignore[attr-defined]
        self.assertEqual(content[4096 : 3 * 4096], self.data[8 * BLOCK : 24 * BLOCK])
        self.assertEqual(self.finished(segment(0, 1, 1, 0, 5, 2), targets=targets).status, codes.GOOD)
        content = bytes(self.units[2].device.content)  # type: ignore[attr-defined]
        self.assertEqual(content[5 * 4096 : 6 * 4096], self.data[: 8 * BLOCK])

    def test_inexact(self) -> None:
        """What does not fill a block is refused, or filled up with zeros if PAD says so."""
        self.add(2, MemoryDisk(16 * 4096), blockSize=4096)
        targets = [target(self.naa(0)), target(self.naa(2))]
        for flags in (0, 1):
            task = self.finished(segment(0, 1, 9, 0, 0, flags), targets=targets)
            self.assertAborted(task, codes.UNEXPECTED_INEXACT_SEGMENT, 0, 10)
        task = self.finished(segment(1, 0, 9, 0, 0, 2), targets=targets)
        self.assertAborted(task, codes.UNEXPECTED_INEXACT_SEGMENT, 0, 10)
        self.units[2].device.content[:] = b"s" * 16 * 4096  # type: ignore[attr-defined]
        targets = [target(self.naa(0)), target(self.naa(2), pad=True)]
        self.assertEqual(self.finished(segment(0, 1, 9, 0, 0), targets=targets).status, codes.GOOD)
        content = bytes(self.units[2].device.content)  # type: ignore[attr-defined]
        self.assertEqual(content, self.data[: 9 * BLOCK] + bytes(7 * BLOCK) + b"s" * 14 * 4096)

    def test_carried(self) -> None:
        """What CAT would carry over to the next segment is refused, not filled up (SPC-3 6.3.7.2)."""
        self.add(2, MemoryDisk(16 * 4096), blockSize=4096)
        targets = [target(self.naa(0)), target(self.naa(2), pad=True)]
        parts = segment(0, 1, 9, 0, 0, 1), segment(0, 1, 7, 9, 2, 1)
        task = self.finished(*parts, targets=targets)
        self.assertAborted(task, codes.UNEXPECTED_INEXACT_SEGMENT, 0, 10)
        self.assertEqual(self.finished(parts[1], targets=targets).status, codes.GOOD)

    def test_durable(self) -> None:
        """Where the destination's writes are durable when they end, so is the copy."""
        device = self.add(2, MemoryDisk(BLOCKS * BLOCK, Capabilities(volatileCache=True)))
        targets = [target(self.naa(0)), target(self.naa(2))]
        self.finished(segment(0, 1, 1, 0, 0), targets=targets)
        self.assertNotIn(("flush",), device.calls)
        self.units[2].adjust(Settings())
        self.finished(segment(0, 1, 1, 0, 0), targets=targets)
        self.assertEqual(device.calls[-1], ("flush",))

    def test_designators(self) -> None:
        """Units are named by NAA, or by T10 vendor identification where there is room for it."""
        identity = self.units[1].identity
        vendor = (identity.vendor.ljust(8) + identity.serial).encode()
        task = self.finished(
            segment(0, 1, 1, 3, 0), targets=[target(self.naa(0)), target(vendor, VENDOR_KIND)]
        )
        self.assertEqual(
            (task.status, self.devices[1].content[:BLOCK]), (0, self.data[3 * BLOCK : 4 * BLOCK])
        )

    def test_obsolete(self) -> None:
        """LU ID TYPE does not matter in such a descriptor, and NUL is obsolete (SPC-4 6.4.5.2)."""
        targets = [target(self.naa(0), flags=0x80), target(self.naa(1), flags=0x20)]
        self.assertEqual(self.finished(segment(0, 1, 1, 0, 0), targets=targets).status, codes.GOOD)


class FailureTests(CopyCases):
    """When a device fails, and how copies end before they are done."""

    def test_source(self) -> None:
        """An error of the source is told as that, with the segment."""
        self.devices[0].error = ReadError(offset=BLOCK)
        task = self.finished(segment(1, 1, 1, 0, 5), segment(0, 1, 1, 0, 0))
        said = 1, codes.CHECK_CONDITION, codes.MEDIUM_ERROR, codes.UNRECOVERED_READ_ERROR
        self.assertAborted(task, codes.THIRD_PARTY_FAILURE, 1, None, said)
        self.assertIdle()

    def test_short(self) -> None:
        """A source that gives too few bytes has failed."""
        del self.devices[0].content[BLOCK // 2 :]
        task = self.finished(segment(0, 1, 1, 0, 0))
        said = 1, codes.CHECK_CONDITION, codes.MEDIUM_ERROR, codes.UNRECOVERED_READ_ERROR
        self.assertAborted(task, codes.THIRD_PARTY_FAILURE, 0, None, said)

    def test_destination(self) -> None:
        """An error of the destination too."""
        self.devices[1].error = WriteError(offset=BLOCK)
        task = self.finished(segment(0, 1, 1, 0, 0))
        said = 2, codes.CHECK_CONDITION, codes.MEDIUM_ERROR, codes.WRITE_FAULT
        self.assertAborted(task, codes.THIRD_PARTY_FAILURE, 0, None, said)

    def test_aborted(self) -> None:
        """An abort stops it after its piece."""
        self.patch(copying, "SLICE", BLOCK)
        task = self.copy(segment(0, 1, 8, 0, 0))
        self.turns.turn(3)
        abort(self.unit, task)
        self.turns.all()
        self.assertEqual((task.endings, task.released), (0, 1))
        self.assertEqual(sum(call[0] == "write" for call in self.devices[1].calls), 2)
        self.assertEqual(self.unit.copies[self.nexus, 1].status, FAILED)
        self.assertIdle()

    def test_closed(self) -> None:
        """It ends when the device at either end goes."""
        for lun in (0, 1):
            task = self.copy(segment(0, 1, 1, 0, 0), unit=self.units[0])
            self.units[lun].closed()
            self.turns.all()
            self.assertEqual((task.key, task.code), (codes.NOT_READY, codes.NOT_READY_CAUSE_NOT_REPORTABLE))
            self.units[lun].opened()
            self.assertIdle()

    def test_sanitizedMeanwhile(self) -> None:
        """What it has read of a unit that is then sanitized is written nowhere."""
        for lun in (0, 1):
            self.devices[0].content[:] = self.data
            task = self.copy(segment(0, lun, 8, 0, 32))
            self.assertEqual(self.devices[0].calls[-1][0], "read")
            self.command(SANITIZE_OVERWRITE, bytes((1, 0, 0, 1, 0)), length=5, unit=self.units[0])
            self.turns.all()
            said = 1, codes.CHECK_CONDITION, codes.NOT_READY, codes.SANITIZE_IN_PROGRESS
            self.assertAborted(task, codes.THIRD_PARTY_FAILURE, 0, None, said)
            self.assertFalse(any(self.devices[0].content) or any(self.devices[1].content))
            self.assertIdle()

    def test_reset(self) -> None:
        """A reset of the unit at the other end stops it too."""
        task = self.copy(segment(0, 1, 1, 0, 0))
        self.units[1].reset(codes.DEVICE_RESET_OCCURRED)
        self.turns.all()
        said = 1, codes.CHECK_CONDITION, codes.ABORTED_COMMAND, codes.NO_ADDITIONAL_SENSE
        self.assertAborted(task, codes.THIRD_PARTY_FAILURE, 0, None, said)
        self.assertFalse(any(self.devices[1].content))

    def test_identifiers(self) -> None:
        """Of one nexus, copies that run at the same time have different list identifiers."""
        first = self.copy(segment(0, 1, 1, 0, 0))
        self.assertEqual(self.unit.copies[self.nexus, 1].status, IN_PROGRESS)
        task = self.copy(segment(0, 1, 1, 0, 0))
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.OPERATION_IN_PROGRESS)
        others = [
            self.copy(segment(0, 1, 1, 0, 0), identifier=2),
            self.copy(segment(0, 1, 1, 0, 0), identifier=0, usage=3),
        ]
        self.turns.all()
        self.assertEqual({each.status for each in (first, *others)}, {codes.GOOD})
        self.assertEqual(self.finished(segment(0, 1, 1, 0, 0)).status, codes.GOOD)
        self.assertEqual({key[1] for key in self.unit.copies}, {1, 2})

    def test_discarded(self) -> None:
        """With LIST ID USAGE 10b nothing is known of it once it has ended; nor when its nexus has gone."""
        self.copy(segment(0, 1, 1, 0, 0), usage=2)
        self.assertIn((self.nexus, 1), self.unit.copies)
        self.turns.all()
        self.assertEqual(self.unit.copies, {})
        self.finished(segment(0, 1, 1, 0, 0))
        self.assertEqual(self.unit.copies[self.nexus, 1].status, COMPLETED)
        self.unit.nexusLost(self.nexus)
        self.assertEqual(self.unit.copies, {})

    def test_discardedAnew(self) -> None:
        """What a copy from before a reset leaves behind is not another's of the same identifier."""
        slow = self.add(3, PendingDisk(BLOCKS * BLOCK))
        task = self.copy(segment(0, 1, 1, 0, 0), usage=2, targets=[target(self.naa(3)), target(self.naa(1))])
        abort(self.unit, task)
        self.unit.reset(codes.DEVICE_RESET_OCCURRED)
        self.unit.takeAttention(self.nexus)
        self.finished(segment(0, 1, 1, 0, 0))
        slow.fire()
        self.turns.all()
        self.assertEqual(self.unit.copies[self.nexus, 1].status, COMPLETED)

    def test_bounded(self) -> None:
        """There are only so many at a time; another one is told that the unit is busy."""
        tasks = [self.copy(segment(0, 1, 1, 0, 0), identifier=number) for number in range(COPY_LIMIT)]
        self.assertEqual(self.copy(segment(0, 1, 1, 0, 0), identifier=99).status, codes.BUSY)
        self.turns.all()
        self.assertEqual({task.status for task in tasks}, {codes.GOOD})
        self.assertEqual(self.finished(segment(0, 1, 1, 0, 0)).status, codes.GOOD)
