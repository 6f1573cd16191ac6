"""What L{iscsi_twisted.scsi.copying} need not copy: holes, and what a device copies itself."""

from __future__ import annotations

from typing import Any

from iscsi_twisted.errors import ReadError
from iscsi_twisted.interfaces import Capabilities
from iscsi_twisted.scsi import cdb, codes
from tests.scsi.cases import BLOCK
from tests.scsi.copies import BLOCKS, CopierDisk, CopyCases, PendingCopier, segment, target
from tests.scsi.devices import MemoryDisk
from tests.support.tasks import abort


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
