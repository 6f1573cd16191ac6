"""What tests of EXTENDED COPY share: its parameter lists, and two units of one target."""

from __future__ import annotations

import struct
from typing import Any

import attrs

from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.cdblong import EXTENDED_COPY
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.luns import Inventory
from tests.scsi.cases import BLOCK, IDENTITY, DiskTests
from tests.scsi.devices import MemoryDisk, PendingDisk, Turns
from tests.support.tasks import Task

BLOCKS = 64
NAA_KIND, VENDOR_KIND = 3, 1


def target(naa: bytes, kind: int = NAA_KIND, pad: bool = False, blockSize: int = 0, flags: int = 0) -> bytes:
    """An identification descriptor."""
    return struct.pack(
        ">BBHBBxB20sB3s", 0xE4, flags, 0, 1, kind, len(naa), naa, 4 * pad, blockSize.to_bytes(3, "big")
    )


def segment(source: int, destination: int, blocks: int, read: int, write: int, flags: int = 0) -> bytes:
    """A block to block segment."""
    return struct.pack(">BBHHH2xHQQ", 2, flags, 24, source, destination, blocks, read, write)


def copyList(
    targets: list[bytes], segments: list[bytes], identifier: int = 1, usage: int = 0, inline: int = 0
) -> bytes:
    """A parameter list."""
    named, told = b"".join(targets), b"".join(segments)
    head = struct.pack(">BBH4xII", identifier, usage << 3, len(named), len(told), inline)
    return head + named + told


class CopierDisk(MemoryDisk):
    """A disk that copies from others of its kind."""

    able = True

    def copiesFrom(self, source: object) -> bool:
        """From those."""
        return self.able and isinstance(source, CopierDisk)

    def copy(self, source: Any, sourceOffset: int, offset: int, length: int) -> Any:
        """Copy."""
        data = bytes(source.content[sourceOffset : sourceOffset + length])
        return self.answer(("copy", sourceOffset, offset, length), lambda: self._put(offset, data))


class PendingCopier(PendingDisk, CopierDisk):
    """One that answers when it is told to."""


class CopyCases(DiskTests):
    """
    Two units of one target.

    @ivar units: by LUN.
    """

    kind: type[MemoryDisk] = MemoryDisk

    def setUp(self) -> None:
        """Make them; the first has data."""
        super().setUp()
        self.turns = Turns()
        self.units: dict[int, DiskUnit] = {}
        self.devices = [self.add(lun, self.kind(BLOCKS * BLOCK)) for lun in range(2)]
        self.unit = self.units[0]
        self.data = b"".join(number.to_bytes(2, "big") * (BLOCK // 2) for number in range(BLOCKS))
        self.devices[0].content[:] = self.data

    def add(self, lun: int, device: Any, **options: Any) -> Any:
        """One unit more."""
        identity = attrs.evolve(IDENTITY, naa=self.naa(lun), serial=f"s{lun}", deviceName=f"naa.{lun}")
        unit = DiskUnit(device, identity=identity, report=self.surprise, later=self.turns.later, **options)
        unit.opened()
        unit.inventory = Inventory(self.units)
        unit.nexusFound(self.nexus)
        unit.takeAttention(self.nexus)
        self.units[lun] = unit
        return device

    def naa(self, lun: int) -> bytes:
        """The NAA designator of a unit."""
        return bytes((0x30, 0, 0, 0, 0, 0, 0, lun))

    def copy(self, *segments: bytes, **more: Any) -> Task:
        """Begin a copy between units 0 and 1."""
        targets = more.pop("targets", None) or [target(self.naa(0)), target(self.naa(1))]
        fields = {key: more.pop(key) for key in ("identifier", "usage", "inline") if key in more}
        data = copyList(targets, list(segments), **fields)
        return self.command(EXTENDED_COPY, data, length=len(data), **more)

    def finished(self, *segments: bytes, **more: Any) -> Task:
        """A copy that has ended."""
        task = self.copy(*segments, **more)
        self.turns.all()
        self.assertEqual(task.endings, 1)
        return task

    def assertAborted(
        self, task: Task, code: int, segments: int = 0, field: int | None = None, said: Any = None
    ) -> None:
        """
        COPY ABORTED.

        @param field: in the segment descriptor.
        @param said: who has said what: 1 for the source or 2 for the destination, status, key and code.
        """
        self.assertSense(task, codes.COPY_ABORTED, code)
        sense = task.sense
        self.assertEqual(sense[10:12], segments.to_bytes(2, "big"))
        pointer = bytes(3) if field is None else struct.pack(">BH", 0xA0, field)
        self.assertEqual(sense[15:18], pointer)
        if said is None:
            self.assertEqual((sense[8:10], len(sense)), (bytes(2), 18))
            return
        whose, status, *condition = said
        self.assertEqual(sense[8:10], bytes((18, 0)) if whose == 1 else bytes((0, 18)))
        self.assertEqual(sense[18], status)
        told = [sense[19 + 2], int.from_bytes(sense[19 + 12 : 19 + 14], "big")] if len(sense) > 19 else []
        self.assertEqual(told, condition)
        self.assertEqual(sense[7], len(sense) - 8)

    def assertIdle(self) -> None:
        """Nothing is left behind."""
        for unit in self.units.values():
            self.assertEqual((unit.works, unit.operations, unit.fences, unit.copying), (set(), set(), [], 0))
        self.assertEqual(self.turns.waiting, [])
