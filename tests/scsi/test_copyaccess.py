"""Who may have what copied by L{iscsi_twisted.scsi.copying}."""

from __future__ import annotations

from typing import Any

from iscsi_twisted.scsi import cdb, codes, copying
from iscsi_twisted.scsi.cdblong import SANITIZE_OVERWRITE
from iscsi_twisted.scsi.modes import Settings
from iscsi_twisted.scsi.paths import STANDBY, Paths
from tests.scsi.cases import BLOCK
from tests.scsi.copies import BLOCKS, CopyCases, segment, target
from tests.scsi.devices import MemoryDisk, PendingDisk
from tests.support.tasks import Nexus


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
