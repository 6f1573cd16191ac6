"""Tests for L{iscsi_twisted.scsi.lbastatus}."""

from __future__ import annotations

import itertools
import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from iscsi_twisted.interfaces import Capabilities
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.lbastatus import blockRuns
from tests.scsi.cases import BLOCK, BLOCKS, DiskTests
from tests.scsi.devices import MemoryDisk
from tests.support.tasks import Task

HOLES = Capabilities(discard=True, zero=True, allocated=True, discardZeroes=True)


class HolyDisk(MemoryDisk):
    """A disk whose holes are given; it answers late if there is something to answer with."""

    runs: list[tuple[int, bool]]
    late: Deferred[Any] | None = None

    def allocated(self, offset: int, length: int) -> Any:
        """The runs, at once or late."""
        self.asked = offset, length
        return self.runs if self.late is None else self.late


def descriptors(task: Task) -> list[tuple[int, int, int]]:
    """The LBA status descriptors of an answer (SBC-3 5.4.2)."""
    data = bytes(task.data)
    (length,) = struct.unpack_from(">I", data)
    assert length == len(data) - 4, "the parameter data length"
    return [struct.unpack_from(">QIB", data, at) for at in range(8, len(data), 16)]


class StatusTests(DiskTests):
    """GET LBA STATUS, SBC-3 5.4."""

    def setUp(self) -> None:
        """A disk with a hole."""
        super().setUp()
        self.holy = HolyDisk(BLOCKS * BLOCK, HOLES)
        self.holy.runs = [(10 * BLOCK, True), (20 * BLOCK, False), ((BLOCKS - 30) * BLOCK, True)]
        self.unit = self.makeUnit(self.holy)

    def test_holes(self) -> None:
        """Blocks are told apart by whether they have storage."""
        task = self.command(cdb.GET_LBA_STATUS, lba=0, allocation=1000, unit=self.unit)
        self.assertEqual(descriptors(task), [(0, 10, 0), (10, 20, 1), (30, BLOCKS - 30, 0)])
        self.assertEqual(self.holy.asked, (0, BLOCKS * BLOCK))

    def test_room(self) -> None:
        """There are as many descriptors as the allocation length has room for, and one at least."""
        for allocation, count in ((24, 1), (39, 1), (40, 2), (1000, 3)):
            task = self.command(cdb.GET_LBA_STATUS, lba=0, allocation=allocation, unit=self.unit)
            self.assertEqual(len(descriptors(task)), count)
        task = self.command(cdb.GET_LBA_STATUS, lba=0, allocation=4, unit=self.unit)
        self.assertEqual(bytes(task.data), struct.pack(">I", 20))

    def test_late(self) -> None:
        """A device may take its time."""
        self.holy.late = Deferred()
        task = self.command(cdb.GET_LBA_STATUS, lba=4, allocation=24, unit=self.unit, late=True)
        self.holy.late.callback([((BLOCKS - 4) * BLOCK, False)])
        self.assertEqual(descriptors(task), [(4, BLOCKS - 4, 1)])

    def test_untold(self) -> None:
        """Without knowledge of holes everything is mapped."""
        task = self.command(cdb.GET_LBA_STATUS, lba=3, allocation=24, unit=self.makeUnit(self.device))
        self.assertEqual(descriptors(task), [(3, BLOCKS - 3, 0)])

    def test_outOfRange(self) -> None:
        """A first block that is not there is refused."""
        task = self.command(cdb.GET_LBA_STATUS, lba=BLOCKS, allocation=24, unit=self.unit)
        self.assertEqual(task.status, codes.CHECK_CONDITION)
        self.assertEqual(bytes(task.sense[12:14]), b"\x21\0")

    @given(
        st.lists(st.tuples(st.integers(1, 700), st.booleans()), min_size=1, max_size=30), st.integers(0, 9)
    )
    def test_runs(self, runs: list[tuple[int, bool]], lba: int) -> None:
        """A block is mapped if any byte of it has storage; descriptors follow one another without gaps."""
        stored = [byte for length, has in runs for byte in [has] * length]
        stored += [False] * (-len(stored) % 64)
        blocks = len(stored) // 64
        wanted = [0 if any(stored[b * 64 : b * 64 + 64]) else 1 for b in range(blocks)]
        total = sum(length for length, _ in runs)
        padded = [*runs, (blocks * 64 - total, False)] if blocks * 64 > total else runs
        found = list(blockRuns(padded, 64, lba, blocks))
        self.assertEqual([status for _, count, status in found for _ in range(count)], wanted)
        self.assertEqual(
            [first for first, _, _ in found],
            [lba + sum(c for _, c, _ in found[:i]) for i in range(len(found))],
        )
        self.assertTrue(all(a[2] != b[2] for a, b in itertools.pairwise(found)))
