"""Tests for L{iscsi_twisted.scsi.inquiry}."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from iscsi_twisted.scsi import cdb, cdbprimary, codes
from iscsi_twisted.scsi.cdblong import (
    COPY_STATUS,
    FAILED_SEGMENT_DETAILS,
    OPERATING_PARAMETERS,
    RECEIVE_DATA,
)
from iscsi_twisted.scsi.copying import FAILED, CopyRecord
from iscsi_twisted.scsi.inquiry import standardData
from iscsi_twisted.scsi.paths import Paths
from iscsi_twisted.scsi.unit import reply
from tests.scsi.cases import DiskTests
from tests.scsi.test_allocation import settle
from tests.support.tasks import Nexus, Task


class InquiryTests(DiskTests):
    """INQUIRY, SPC-4 6.6."""

    def test_standard(self) -> None:
        """Standard data are 96 bytes: a disk of SPC-4 with queueing, its names, and its standards."""
        data = self.good(cdb.INQUIRY, allocation=255)
        self.assertEqual(len(data), 96)
        self.assertEqual(data[:8].hex(), "000006325b080002")
        self.assertEqual(data[8:36], b"EXAMPLE DISK            1.0 ")
        self.assertEqual(data[58:74].hex(), "00a00960046004c0" + "0000" * 4)
        self.assertEqual(data[36:58] + data[74:], bytes(44))

    def test_page(self) -> None:
        """A page code without EVPD is refused (SPC-4 6.6.1)."""
        self.assertInvalidField(self.command(cdb.INQUIRY, page=0x80, allocation=255), 2, 7)

    def test_unknownPage(self) -> None:
        """A VPD page that is not supported is refused (SPC-4 6.6.1)."""
        self.assertInvalidField(self.command(cdb.INQUIRY, flags=1, page=0xC0, allocation=255), 2, 7)

    def test_commandSupport(self) -> None:
        """CMDDT, which is obsolete, is refused."""
        self.assertInvalidField(self.command(cdb.INQUIRY, flags=2, page=0x12, allocation=255), 1, 1)

    def test_attention(self) -> None:
        """INQUIRY is answered although a unit attention is pending, and leaves it so (SAM-5 5.14)."""
        self.unit.attention(codes.CAPACITY_CHANGED)
        self.good(cdb.INQUIRY, allocation=255)
        self.assertSense(self.command(cdb.TEST_UNIT_READY), codes.UNIT_ATTENTION, codes.CAPACITY_CHANGED)

    def test_notReady(self) -> None:
        """INQUIRY is answered by a unit that is not ready."""
        self.unit.closed()
        self.assertEqual(len(self.good(cdb.INQUIRY, allocation=96)), 96)


class AllocationTests(DiskTests):
    """Allocation lengths, SPC-4 4.2.5.6."""

    @given(st.integers(0, 300))
    def test_truncated(self, allocation: int) -> None:
        """An answer is cut to the allocation length, its own length fields as they were."""
        data = standardData(self.unit)
        task = Task(b"", Nexus())
        reply(task, data, allocation)
        self.assertEqual(task.data, data[:allocation])


DATA_IN = [
    (cdb.INQUIRY, {}, 0, 0xFFFF),
    (cdb.INQUIRY, {"flags": 1, "page": 0x83}, 0, 0xFFFF),
    (cdb.INQUIRY, {"flags": 1, "page": 0xB0}, 0, 0xFFFF),
    (cdb.REQUEST_SENSE, {}, 0, 0xFF),
    (cdb.REQUEST_SENSE, {"flags": 1}, 0, 0xFF),
    (cdb.MODE_SENSE_6, {"page": 0x3F}, 0, 0xFF),
    (cdb.MODE_SENSE_10, {"page": 0x3F, "subpage": 0xFF}, 0, 0xFFFF),
    (cdb.LOG_SENSE, {"page": 0x02}, 0, 0xFFFF),
    (cdb.READ_KEYS, {}, 0, 0xFFFF),
    (cdb.READ_RESERVATION, {}, 0, 0xFFFF),
    (cdb.REPORT_CAPABILITIES, {}, 0, 0xFFFF),
    (cdb.READ_FULL_STATUS, {}, 0, 0xFFFF),
    (cdb.READ_CAPACITY_16, {}, 0, 0xFFFFFFFF),
    (cdb.GET_LBA_STATUS, {}, 0, 0xFFFFFFFF),
    (cdb.READ_DEFECT_DATA_10, {"lists": 0x18}, 0, 0xFFFF),
    (cdb.READ_DEFECT_DATA_12, {"lists": 0x18}, 0, 0xFFFFFFFF),
    (cdbprimary.READ_BUFFER, {"mode": 2}, 0, 0xFFFF),
    (cdbprimary.READ_BUFFER, {"mode": 10}, 0, 0xFFFF),
    (cdbprimary.REPORT_IDENTIFYING, {}, 0, 0xFFFFFFFF),
    (cdbprimary.REPORT_TIMESTAMP, {}, 0, 0xFFFFFFFF),
    (cdbprimary.RECEIVE_DIAGNOSTIC, {}, 0, 0xFFFF),
    (COPY_STATUS, {}, 0, 0xFFFFFFFF),
    (RECEIVE_DATA, {}, 0, 0xFFFFFFFF),
    (OPERATING_PARAMETERS, {}, 0, 0xFFFFFFFF),
    (FAILED_SEGMENT_DETAILS, {}, 0, 0xFFFFFFFF),
    (cdb.REPORT_LUNS, {}, 16, 0xFFFFFFFF),
    (cdb.REPORT_TARGET_PORT_GROUPS, {}, 0, 0xFFFFFFFF),
    (cdb.REPORT_OPCODES, {}, 0, 0xFFFFFFFF),
    (cdb.REPORT_OPCODES, {"options": 0x81, "requested": 0x28}, 0, 0xFFFFFFFF),
    (cdb.REPORT_TASK_MANAGEMENT, {"options": 0x80}, 4, 0xFFFFFFFF),
]
"""Commands that give parameter data, with the least and the greatest allocation length."""


class EveryAllocationTests(DiskTests):
    """Allocation lengths of every command that gives parameter data."""

    def setUp(self) -> None:
        super().setUp()
        self.unit.paths = Paths((1, 2))
        settle(self)
        self.unit.copies[self.nexus, 0] = CopyRecord(FAILED, 3, 1 << 20, bytes(18))

    def test_all(self) -> None:
        """The list below leaves no command out that has an allocation length."""
        having = {each.name for each in self.unit.table if "allocation" in each.layout.fields}
        self.assertEqual({command.name for command, *_ in DATA_IN}, having)

    @given(st.sampled_from(DATA_IN), st.data())
    def test_prefix(self, case: Any, data: st.DataObject) -> None:
        """Whatever the allocation length, the answer is the beginning of the whole answer."""
        command, fields, least, most = case
        whole = self.good(command, allocation=most, **fields)
        allocation = data.draw(st.integers(least, min(most, len(whole) + 3)) | st.integers(least, most))
        self.assertEqual(self.good(command, allocation=allocation, **fields), whole[:allocation])

    def test_tooSmall(self) -> None:
        """Where the standard has a least allocation length, less is refused (SPC-4 6.33, 6.36)."""
        for command, fields, least, _ in DATA_IN:
            if least:
                task = self.command(command, allocation=least - 1, **fields)
                self.assertEqual(task.code, codes.INVALID_FIELD_IN_CDB, command.name)
