"""Tests for L{iscsi_twisted.scsi.copying}: EXTENDED COPY (LID1)."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from iscsi_twisted.errors import ReadError, WriteError
from iscsi_twisted.interfaces import Capabilities
from iscsi_twisted.scsi import cdb, codes, copying
from iscsi_twisted.scsi.cdblong import EXTENDED_COPY, SANITIZE_OVERWRITE
from iscsi_twisted.scsi.copying import COMPLETED, COPY_LIMIT, FAILED, IN_PROGRESS
from iscsi_twisted.scsi.modes import Settings
from iscsi_twisted.scsi.paths import STANDBY, Paths
from tests.scsi.cases import BLOCK
from tests.scsi.copies import BLOCKS, VENDOR_KIND, CopierDisk, CopyCases, PendingCopier, segment, target
from tests.scsi.devices import MemoryDisk, PendingDisk
from tests.support.tasks import Nexus, abort


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


class AllowedTests(CopyCases):
    """What may be copied: what the nexus could read and write itself."""

    def setUp(self) -> None:
        super().setUp()
        self.other = Nexus(isid=b"\x80\0\0\0\0\2")
        for unit in self.units.values():
            unit.nexusFound(self.other)
            unit.takeAttention(self.other)

    def refused(
        self, code: int = codes.THIRD_PARTY_FAILURE, field: int = 4, said: Any = None, **more: Any
    ) -> None:
        """A copy from unit 0 to unit 1 is refused, and nothing was read or written."""
        task = self.finished(segment(0, 1, 1, 0, 0), **more)
        self.assertAborted(task, code, 0, field, said)
        self.assertEqual((self.devices[0].calls, self.devices[1].calls), ([], []))
        self.assertIdle()

    def test_masked(self) -> None:
        """A unit that the nexus does not see cannot be reached by its NAA, neither to read nor to write."""
        secret = self.add(7, MemoryDisk(BLOCKS * BLOCK))
        secret.content[:] = b"secret! " * (BLOCKS * BLOCK // 8)
        guest = Nexus()
        guest.luns = frozenset((0, 1))
        for unit in self.units.values():
            unit.nexusFound(guest)
            unit.takeAttention(guest)
        for targets, field in (
            ([target(self.naa(7)), target(self.naa(1))], 4),
            ([target(self.naa(0)), target(self.naa(7))], 6),
        ):
            self.refused(codes.COPY_TARGET_NOT_REACHABLE, field, targets=targets, nexus=guest)
        self.assertEqual(secret.calls, [])
        task = self.finished(segment(0, 1, 1, 0, 0), targets=[target(self.naa(7)), target(self.naa(1))])
        self.assertEqual(task.status, codes.GOOD)

    def test_unknown(self) -> None:
        """What is not there, or is no disk, cannot be reached; an index without a descriptor neither."""
        self.refused(codes.COPY_TARGET_NOT_REACHABLE, 6, targets=[target(self.naa(0)), target(self.naa(9))])
        self.refused(codes.UNREACHABLE_COPY_TARGET, 6, targets=[target(self.naa(0))])
        targets = [target(self.naa(0), flags=1), target(self.naa(1))]
        self.refused(codes.WRONG_COPY_TARGET_TYPE, 4, targets=targets)
        targets = [target(self.naa(0), blockSize=4096), target(self.naa(1))]
        self.refused(codes.NO_ADDITIONAL_SENSE, 4, targets=targets)

    def test_readOnly(self) -> None:
        """What may not be written is not: a unit, for this nexus, or by SWP; it may be read."""
        said = (2, codes.CHECK_CONDITION, codes.DATA_PROTECT, codes.WRITE_PROTECTED)
        self.units[1].readOnly = True
        self.refused(field=6, said=said)
        self.units[1].readOnly = False
        self.refused(field=6, said=said, nexus=Nexus(readOnly=True))
        self.units[1].adjust(Settings(softwareProtected=True))
        self.refused(field=6, said=(*said[:3], codes.SOFTWARE_WRITE_PROTECTED))
        task = self.finished(segment(1, 0, 1, 0, 0))
        self.assertEqual(task.status, codes.GOOD)

    def test_reserved(self) -> None:
        """A reservation of another keeps a copy from either end; of the unit that is asked, the command."""
        for lun, said, field in (
            (0, (1, codes.RESERVATION_CONFLICT), 4),
            (1, (2, codes.RESERVATION_CONFLICT), 6),
        ):
            self.unit = self.units[1 - lun]
            self.units[lun].reserve(self.other)
            self.refused(field=field, said=said)
            self.assertEqual(self.copy(unit=self.units[lun]).status, codes.RESERVATION_CONFLICT)
            self.units[lun].reserve(self.nexus)
            self.assertEqual(self.finished(segment(0, 1, 1, 0, 0)).status, codes.GOOD)
            self.units[lun].reserve(None)
            for device in self.devices:
                device.calls.clear()

    def test_persistent(self) -> None:
        """So does a persistent reservation: write exclusive may be read from, exclusive access may not."""
        for kind, allowed in ((1, True), (3, False)):
            key = (1).to_bytes(8, "big")
            more = {"unit": self.units[0], "nexus": self.other, "length": 24}
            self.good(cdb.PR_REGISTER, bytes(8) + key + bytes(8), **more)
            self.good(cdb.PR_RESERVE, key + bytes(16), type=kind, **more)
            self.unit = self.units[1]
            task = self.finished(segment(0, 1, 1, 0, 0))
            if allowed:
                self.assertEqual(task.status, codes.GOOD)
            else:
                self.assertAborted(task, codes.THIRD_PARTY_FAILURE, 0, 4, (1, codes.RESERVATION_CONFLICT))
            task = self.finished(segment(1, 0, 1, 0, 0))
            self.assertAborted(task, codes.THIRD_PARTY_FAILURE, 0, 6, (2, codes.RESERVATION_CONFLICT))
            self.good(cdb.PR_CLEAR, key + bytes(16), **more)
            self.units[0].takeAttention(self.nexus)

    def test_reservedMeanwhile(self) -> None:
        """A reservation that comes in the middle of a copy stops it."""
        self.patch(copying, "SLICE", BLOCK)
        task = self.copy(segment(0, 1, 4, 0, 0))
        self.turns.turn(2)
        self.units[1].reserve(self.other)
        self.turns.all()
        self.assertAborted(task, codes.THIRD_PARTY_FAILURE, 0, 6, (2, codes.RESERVATION_CONFLICT))
        self.assertEqual(self.devices[1].content[3 * BLOCK :], bytes(61 * BLOCK))

    def test_preempted(self) -> None:
        """Whoever preempts and aborts writes after what another has the unit copied to through a third."""
        slow = self.add(3, PendingDisk(BLOCKS * BLOCK))
        targets = [target(self.naa(0)), target(self.naa(3))]
        third = Nexus(isid=b"\x80\0\0\0\0\7")
        for nexus, key in ((self.nexus, 1), (self.other, 2), (third, 3)):
            data = bytes(8) + key.to_bytes(8, "big") + bytes(8)
            self.good(cdb.PR_REGISTER, data, unit=self.units[3], nexus=nexus, length=24)
        copies = [
            self.copy(segment(0, 1, 1, number, number), targets=targets, nexus=nexus)
            for number, nexus in ((0, self.nexus), (1, third))
        ]
        self.turns.all()
        self.assertEqual([call[0] for call in slow.calls], ["write", "write"])
        data = (2).to_bytes(8, "big") + (1).to_bytes(8, "big") + bytes(8)
        how: Any = {"unit": self.units[3], "nexus": self.other}
        self.good(cdb.PR_PREEMPT_AND_ABORT, data, length=24, type=1, **how)
        after = self.command(cdb.WRITE_10, b"n" * BLOCK, length=1, **how)
        slow.fire()
        self.assertEqual(copies[0].key, codes.COPY_ABORTED)
        while slow.pending:
            slow.fire()
        self.turns.all()
        self.assertEqual((after.status, copies[1].status), (codes.GOOD, codes.GOOD))
        self.assertEqual(slow.content[: 2 * BLOCK], b"n" * BLOCK + self.data[BLOCK : 2 * BLOCK])
        self.assertIdle()

    def test_maskedMeanwhile(self) -> None:
        """So does a unit at either end that is hidden from the nexus in the middle."""
        self.patch(copying, "SLICE", BLOCK)
        for lun, field in ((0, 4), (1, 6)):
            self.nexus.luns = None
            task = self.copy(segment(0, 1, 4, 0, 0))
            self.turns.turn(2)
            self.nexus.luns = frozenset((1 - lun,))
            self.turns.all()
            self.assertAborted(task, codes.COPY_TARGET_NOT_REACHABLE, 0, field)
            self.assertIdle()

    def test_notReady(self) -> None:
        """Nor can be copied what is not ready, is being sanitized, or is not accessible through this path."""
        self.units[1].closed()
        said = (2, codes.CHECK_CONDITION, codes.NOT_READY, codes.NOT_READY_CAUSE_NOT_REPORTABLE)
        self.refused(field=6, said=said)
        self.units[1].opened()
        self.units[0].paths = Paths((1,), {1: STANDBY})
        self.unit = self.units[1]
        self.refused(field=4, said=(1, codes.CHECK_CONDITION, codes.NOT_READY, codes.IN_STANDBY))
        self.units[0].paths = Paths((1,))
        data = bytes((1, 0, 0, 1, 0))
        self.command(SANITIZE_OVERWRITE, data, length=5, unit=self.units[0])
        self.assertEqual(self.units[0].isOverhauled, True)
        task = self.copy(segment(0, 1, 1, 0, 0))
        said = (1, codes.CHECK_CONDITION, codes.NOT_READY, codes.SANITIZE_IN_PROGRESS)
        self.assertAborted(task, codes.THIRD_PARTY_FAILURE, 0, 4, said)

    def test_range(self) -> None:
        """Blocks that are not there are refused, naming the field, with what the unit would have said."""
        said = codes.CHECK_CONDITION, codes.ILLEGAL_REQUEST, codes.LBA_OUT_OF_RANGE
        task = self.finished(segment(0, 1, 1, 0, 0), segment(0, 1, 2, 63, 0))
        self.assertAborted(task, codes.NO_ADDITIONAL_SENSE, 1, 12, (1, *said))
        task = self.finished(segment(0, 1, 2, 0, 63))
        self.assertAborted(task, codes.NO_ADDITIONAL_SENSE, 0, 20, (2, *said))

    def test_descriptors(self) -> None:
        """In descriptor format what the other end said is forwarded sense data (SPC-4 4.5.2.7)."""
        self.units[0].descriptorSense = True
        self.units[1].reserve(self.other)
        task = self.finished(segment(0, 1, 1, 0, 0))
        self.assertEqual(task.sense[:4].hex(), "720a0d01")
        self.assertIn(bytes((0x0C, 2, 2, codes.RESERVATION_CONFLICT)), task.sense)
        self.assertEqual(task.sense[7], len(task.sense) - 8)


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


class ThinDisk(MemoryDisk):
    """A disk whose every other block of eight has no storage."""

    def allocated(self, offset: int, length: int) -> Any:
        """Where that is so."""
        runs: list[tuple[int, bool]] = []
        while length:
            run = min(length, 8 * BLOCK - offset % (8 * BLOCK))
            runs.append((run, not offset // (8 * BLOCK) % 2))
            offset, length = offset + run, length - run
        return self.answer(("allocated",), lambda: runs)


ABLE = Capabilities(discard=True, zero=True, allocated=True, discardZeroes=True)


class ThinTests(CopyCases):
    """Between thin units."""

    def setUp(self) -> None:
        super().setUp()
        for lun in (2, 3):
            self.add(lun, ThinDisk(BLOCKS * BLOCK, ABLE))
        self.targets = [target(self.naa(lun)) for lun in range(4)]
        self.thin = self.units[2].device
        self.thin.content[:] = b"".join(  # type: ignore[attr-defined]
            bytes((number % 2 ^ 1,)) * 8 * BLOCK for number in range(8)
        )

    def copied(
        self, source: int, destination: int, blocks: int = 20, start: int = 4, offset: int = 4
    ) -> list[Any]:
        """Copy; what the destination was asked, reading apart."""
        device: Any = self.units[destination].device
        origin: Any = self.units[source].device
        expected = bytearray(device.content)
        data = bytes(origin.content[start * BLOCK : (start + blocks) * BLOCK])
        expected[offset * BLOCK : (offset + blocks) * BLOCK] = data
        device.calls.clear()
        task = self.finished(segment(source, destination, blocks, start, offset), targets=self.targets)
        self.assertEqual(task.status, codes.GOOD)
        self.assertEqual(bytes(device.content), bytes(expected))
        self.assertIdle()
        return [call for call in device.calls if call[0] not in ("read", "allocated")]

    def test_stays(self) -> None:
        """What has no storage in one is given none in the other."""
        self.units[3].device.content[:] = b"s" * BLOCKS * BLOCK  # type: ignore[attr-defined]
        self.assertEqual(
            self.copied(2, 3),
            [
                ("write", 4 * BLOCK, 4 * BLOCK),
                ("zero", 8 * BLOCK, 8 * BLOCK, True),
                ("write", 16 * BLOCK, 8 * BLOCK),
            ],
        )

    def test_thick(self) -> None:
        """Where either is not thin everything is copied, and so it is where a copy reads what it writes."""
        self.assertEqual([call[0] for call in self.copied(2, 1)], ["write"])
        self.assertEqual([call[0] for call in self.copied(0, 3)], ["write"])
        self.assertIn("zero", [call[0] for call in self.copied(2, 2, 10, 4, 40)])
        self.assertEqual([call[0] for call in self.copied(2, 2, 20, 4, 8)], ["write"])

    def test_failed(self) -> None:
        """A source that cannot tell has failed."""
        self.thin.error = ReadError(offset=BLOCK)  # type: ignore[attr-defined]
        task = self.finished(segment(2, 3, 8, 0, 0), targets=self.targets)
        said = 1, codes.CHECK_CONDITION, codes.MEDIUM_ERROR, codes.UNRECOVERED_READ_ERROR
        self.assertAborted(task, codes.THIRD_PARTY_FAILURE, 0, None, said)


class OffloadTests(CopyCases):
    """Devices that copy by themselves."""

    kind = CopierDisk

    def test_offloaded(self) -> None:
        """No data are read or written by the unit."""
        task = self.finished(segment(0, 1, 5, 10, 20))
        self.assertEqual((task.status, self.devices[0].calls), (codes.GOOD, []))
        self.assertEqual(self.devices[1].calls, [("copy", 10 * BLOCK, 20 * BLOCK, 5 * BLOCK)])
        self.assertEqual(self.devices[1].content[20 * BLOCK : 25 * BLOCK], self.data[10 * BLOCK : 15 * BLOCK])
        self.assertIdle()

    def test_unable(self) -> None:
        """Where a device cannot, and where ranges overlap, data are read and written."""
        self.finished(segment(0, 0, 5, 10, 12))
        self.assertEqual([call[0] for call in self.devices[0].calls], ["read", "write"])
        self.finished(segment(0, 0, 5, 10, 15))
        self.assertEqual(self.devices[0].calls[-1][0], "copy")
        self.devices[1].able = False  # type: ignore[attr-defined]
        self.finished(segment(0, 1, 5, 10, 12))
        self.assertEqual([call[0] for call in self.devices[1].calls], ["write"])

    def test_fences(self) -> None:
        """Both ends' ranges are respected: who has one to itself is waited for, and waits for the copy."""
        slow = [self.add(lun, PendingCopier(BLOCKS * BLOCK)) for lun in (2, 3)]
        targets = [target(self.naa(2)), target(self.naa(3))]
        data = bytes(2 * BLOCK)
        before = self.command(cdb.COMPARE_AND_WRITE, data, unit=self.units[2], lba=10, length=1)
        copy = self.copy(segment(0, 1, 1, 10, 20), targets=targets)
        self.assertEqual(slow[1].calls, [])
        slow[0].fire()
        slow[0].fire()
        self.turns.all()
        self.assertEqual((before.status, [call[0] for call in slow[1].calls]), (codes.GOOD, ["copy"]))
        after = [
            self.command(cdb.COMPARE_AND_WRITE, data, unit=self.units[lun], lba=lba, length=1)
            for lun, lba in ((2, 10), (3, 20))
        ]
        self.assertEqual((len(slow[0].pending), len(slow[1].pending)), (0, 1))
        slow[1].fire()
        self.turns.all()
        self.assertEqual((copy.status, len(slow[0].pending), len(slow[1].pending)), (codes.GOOD, 1, 1))
        for device in slow:
            device.fire()
            device.fire()
        self.assertEqual([task.status for task in after], [codes.GOOD, codes.GOOD])
        self.assertIdle()

    def test_abortedMeanwhile(self) -> None:
        """An aborted copy's place, and its range, are free when the device has ended the piece."""
        slow = self.add(3, PendingCopier(BLOCKS * BLOCK))
        task = self.copy(segment(0, 1, 2, 0, 0), targets=[target(self.naa(0)), target(self.naa(3))])
        self.turns.all()
        abort(self.unit, task)
        after = self.command(cdb.WRITE_10, b"n" * BLOCK, unit=self.units[3], length=1)
        self.assertEqual((task.released, len(slow.pending)), (0, 1))
        slow.fire()
        self.assertEqual((task.released, len(slow.pending)), (1, 1))
        slow.fire()
        self.assertEqual((after.status, slow.content[:BLOCK]), (codes.GOOD, b"n" * BLOCK))
        self.assertIdle()
