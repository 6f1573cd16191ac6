"""Tests for L{iscsi_twisted.scsi.copyresults}."""

from __future__ import annotations

import struct

from iscsi_twisted.errors import WriteError
from iscsi_twisted.scsi import cdb, codes, copying
from iscsi_twisted.scsi.cdb import Command
from iscsi_twisted.scsi.cdblong import (
    COPY_STATUS,
    EXTENDED_COPY,
    FAILED_SEGMENT_DETAILS,
    OPERATING_PARAMETERS,
    RECEIVE_DATA,
)
from iscsi_twisted.scsi.copying import COMPLETED, COPY_LIMIT, FAILED, IN_PROGRESS, CopyRecord
from iscsi_twisted.scsi.copylist import LIST_LIMIT, SEGMENT_LIMIT, TARGET_LIMIT
from tests.scsi.cases import BLOCK
from tests.scsi.copies import CopyCases, segment
from tests.support.tasks import Nexus, abort


class ResultTests(CopyCases):
    """RECEIVE COPY RESULTS, SPC-3 6.18."""

    def ask(self, command: Command, identifier: int = 1) -> bytes:
        """The whole answer."""
        return self.good(command, list=identifier, allocation=0xFFFF)

    def status(self) -> tuple[int, ...]:
        """Manager status, segments, units of the count, and the count."""
        data = self.ask(COPY_STATUS)
        self.assertEqual(data[:4], struct.pack(">I", len(data) - 4))
        return struct.unpack(">BHBI", data[4:])

    def test_status(self) -> None:
        """While it runs, and when it has ended, again and again (SPC-3 6.18.2)."""
        self.patch(copying, "SLICE", BLOCK)
        self.copy(segment(0, 1, 2, 0, 0), segment(0, 1, 2, 0, 0))
        self.assertEqual(self.status(), (IN_PROGRESS, 0, 0, 0))
        self.turns.turn(4)
        self.assertEqual(self.status(), (IN_PROGRESS, 1, 0, 2 * BLOCK))
        self.turns.all()
        for _ in range(2):
            self.assertEqual(self.status(), (COMPLETED, 2, 0, 4 * BLOCK))
        self.assertEqual(self.ask(FAILED_SEGMENT_DETAILS), bytes(4))
        self.assertEqual(self.ask(RECEIVE_DATA), bytes(4))

    def test_large(self) -> None:
        """What does not fit is told in larger units."""
        self.unit.copies[self.nexus, 1] = CopyRecord(COMPLETED, 1, (5 << 32) + 1023)
        self.assertEqual(self.status(), (COMPLETED, 1, 1, 5 << 22))

    def test_failed(self) -> None:
        """Why it failed is told as the command was (SPC-3 6.18.5)."""
        self.devices[1].error = WriteError()
        task = self.finished(segment(0, 1, 1, 0, 0))
        self.assertEqual(self.status()[0], FAILED)
        data = self.ask(FAILED_SEGMENT_DETAILS)
        self.assertEqual(int.from_bytes(data[:4], "big"), len(data) - 4)
        self.assertEqual(
            data[4:60], bytes(52) + bytes((codes.CHECK_CONDITION, 0)) + struct.pack(">H", len(task.sense))
        )
        self.assertEqual(data[60:], task.sense)

    def test_aborted(self) -> None:
        """So is that it was aborted."""
        task = self.copy(segment(0, 1, 1, 0, 0))
        abort(self.unit, task)
        self.turns.all()
        self.assertEqual(self.ask(FAILED_SEGMENT_DETAILS)[56:], bytes((codes.TASK_ABORTED, 0, 0, 0)))

    def test_unknown(self) -> None:
        """Of another identifier, and of another nexus' copies, nothing is told."""
        self.finished(segment(0, 1, 1, 0, 0))
        other = Nexus()
        self.unit.nexusFound(other)
        self.unit.takeAttention(other)
        for command in (COPY_STATUS, RECEIVE_DATA, FAILED_SEGMENT_DETAILS):
            self.assertInvalidField(self.command(command, list=2), 2)
            self.assertInvalidField(self.command(command, list=1, nexus=other), 2)

    def test_parameters(self) -> None:
        """The limits that hold (SPC-3 6.18.4)."""
        data = self.ask(OPERATING_PARAMETERS)
        self.assertEqual((len(data), data[:5]), (46, struct.pack(">IB", 42, 1)))
        self.assertEqual(
            struct.unpack(">HHII", data[8:20]), (TARGET_LIMIT, SEGMENT_LIMIT, LIST_LIMIT, 0xFFFF * 8192)
        )
        self.assertEqual(data[20:34], bytes(14))
        self.assertEqual(struct.unpack(">HBB", data[34:38]), (COPY_LIMIT, COPY_LIMIT, 9))
        self.assertEqual(data[43:], bytes((2, 0x02, 0xE4)))


class PageTests(CopyCases):
    """VPD page 8Fh, SPC-4 7.8.17, and the bit 3PC."""

    def test_page(self) -> None:
        """Its descriptors: commands, parameters, kinds of descriptors, and general operations."""
        data = self.good(cdb.INQUIRY, flags=1, page=0x8F, allocation=0xFFFF)
        self.assertEqual(int.from_bytes(data[2:4], "big"), len(data) - 4)
        place, found = 4, {}
        while place < len(data):
            kind, length = struct.unpack_from(">HH", data, place)
            self.assertEqual(length % 4, 0)
            found[kind] = data[place + 4 : place + 4 + length]
            place += 4 + length
        self.assertEqual(sorted(found), [0x0001, 0x0004, 0x0008, 0x8001])
        commands = bytes((9, 0x83, 1, 0, 0x84, 4, 0, 1, 3, 4))
        self.assertEqual(found[0x0001], commands + bytes(2))
        self.assertEqual((len(found[0x0004]), len(found[0x8001])), (0x1C, 0x20))
        self.assertEqual(found[0x0008], bytes((2, 0x02, 0xE4, 0)))
        self.assertEqual(struct.unpack(">II", found[0x8001][:8]), (COPY_LIMIT, COPY_LIMIT))

    def test_inquiry(self) -> None:
        """3PC is set (SPC-4 6.6.2)."""
        self.assertTrue(self.good(cdb.INQUIRY, allocation=36)[5] & 0x08)

    def test_commands(self) -> None:
        """The page names the commands that there are."""
        named = {(0x83, 0), *((0x84, action) for action in (0, 1, 3, 4))}
        there = {(each.opcode, each.serviceAction) for each in self.unit.table if each.opcode in (0x83, 0x84)}
        self.assertEqual(there, named)
        self.assertIn(EXTENDED_COPY, list(self.unit.table))
