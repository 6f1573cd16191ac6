"""Every allocation length of every command with Data-In (SPC-4 4.2.5.6): an answer is cut, no more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from iscsi_twisted.scsi import cdb, cdbprimary
from iscsi_twisted.scsi.cdb import Command
from iscsi_twisted.scsi.cdblong import (
    COPY_STATUS,
    FAILED_SEGMENT_DETAILS,
    OPERATING_PARAMETERS,
    RECEIVE_DATA,
)
from iscsi_twisted.scsi.copying import FAILED, CopyRecord
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.logs import PAGES as LOG_PAGES
from iscsi_twisted.scsi.modes import PAGES as MODE_PAGES
from iscsi_twisted.scsi.paths import Paths
from tests.scsi.cases import DiskTests

LEAST = {cdb.REPORT_LUNS: 16, cdb.REPORT_TASK_MANAGEMENT: 4}
"""Allocation lengths that are refused are below these (SPC-4 6.33, 6.36)."""

STEADY = (0x15, 0x19)
"""Log pages that tell the time."""
LISTS = ((0x00, 0x00), (0x00, 0xFF), (0x19, 0xFF))
"""Log pages and subpages that list others."""

ASKED: list[tuple[Command, dict[str, int]]] = [
    (cdb.REQUEST_SENSE, {}),
    (cdb.REQUEST_SENSE, {"flags": 1}),
    (cdb.INQUIRY, {}),
    *((cdb.INQUIRY, {"flags": 1, "page": page}) for page in sorted(DiskUnit.pages)),
    *(
        (command, {"page": control << 6 | page, "subpage": subpage, "flags": flags})
        for command in (cdb.MODE_SENSE_6, cdb.MODE_SENSE_10)
        for control in (0, 1, 2)
        for page, subpage in (*((each.code, each.subpage) for each in MODE_PAGES), (0x3F, 0), (0x3F, 0xFF))
        for flags in (0, 8)
    ),
    (cdb.MODE_SENSE_10, {"page": 0x3F, "flags": 0x10}),
    *((cdb.REPORT_LUNS, {"select": select}) for select in (0, 1, 2)),
    (cdb.REPORT_TARGET_PORT_GROUPS, {}),
    (cdb.REPORT_TARGET_PORT_GROUPS, {"action": 0x20}),
    (cdb.REPORT_OPCODES, {}),
    (cdb.REPORT_OPCODES, {"options": 0x80}),
    (cdb.REPORT_OPCODES, {"options": 0x81, "requested": 0x28}),
    (cdb.REPORT_OPCODES, {"options": 2, "requested": 0x9E, "requestedAction": 0x10}),
    (cdb.REPORT_OPCODES, {"options": 3, "requested": 0xEE}),
    (cdb.REPORT_TASK_MANAGEMENT, {}),
    (cdb.REPORT_TASK_MANAGEMENT, {"options": 0x80}),
    *(
        (cdb.LOG_SENSE, {"page": control << 6 | page.code, "subpage": page.subpage})
        for control in range(4)
        for page in LOG_PAGES
        if page.code not in STEADY
    ),
    *((cdb.LOG_SENSE, {"page": 0x40 | page, "subpage": subpage}) for page, subpage in LISTS),
    *(
        (each, {})
        for each in (cdb.READ_KEYS, cdb.READ_RESERVATION, cdb.REPORT_CAPABILITIES, cdb.READ_FULL_STATUS)
    ),
    (cdb.READ_CAPACITY_16, {}),
    (cdb.GET_LBA_STATUS, {}),
    (cdb.READ_DEFECT_DATA_10, {"lists": 0x18}),
    *((each, {}) for each in (COPY_STATUS, RECEIVE_DATA, OPERATING_PARAMETERS, FAILED_SEGMENT_DETAILS)),
    (cdb.READ_DEFECT_DATA_12, {"lists": 0x18}),
    *((cdbprimary.READ_BUFFER, {"mode": mode}) for mode in (2, 3, 10, 11)),
    *((cdbprimary.REPORT_IDENTIFYING, {"type": kind}) for kind in (0, 4, 0xFE)),
    (cdbprimary.REPORT_TIMESTAMP, {}),
    (cdbprimary.RECEIVE_DIAGNOSTIC, {}),
]
"""Commands and their other fields: every page, control and reporting option."""


def settle(case: DiskTests) -> None:
    """Give a unit names and an echo buffer, and let its time stand still."""
    unit = case.unit
    unit.calendar = lambda: 1e9
    unit.tellsSpace = True
    for kind in (0, 4):
        case.good(cdbprimary.SET_IDENTIFYING, b"name", type=kind, length=4)
    case.good(cdbprimary.WRITE_BUFFER, b"echo", mode=10, length=4)


class AllocationTests(DiskTests):
    """All that is asked with an allocation length."""

    def setUp(self) -> None:
        """A unit with something to tell, whose time stands still."""
        super().setUp()
        self.unit.paths = Paths((1, 2))
        settle(self)
        self.unit.copies[self.nexus, 0] = CopyRecord(FAILED, 3, 1 << 20, bytes(18))

    def test_all(self) -> None:
        """No command with an allocation length is left out."""
        with_ = {each for each in DiskUnit.table if "allocation" in each.layout.fields}
        self.assertEqual({each.name for each in with_}, {command.name for command, _ in ASKED})

    @given(st.sampled_from(ASKED), st.integers(0, 0xFFFFFFFF) | st.integers(0, 300))
    def test_cut(self, asked: tuple[Command, dict[str, int]], length: int) -> None:
        """What comes is the beginning of the whole answer, and as much as was asked for or there is."""
        command, fields = asked
        size = command.layout.size - command.layout.offsets["allocation"]
        most = {2: 0xFF, 3: 0xFFFF}.get(size, 0xFFFFFFFF)
        allocation = max(LEAST.get(command, 0), length % (most + 1))
        whole = self.good(command, allocation=most, **fields)
        answer = self.good(command, allocation=allocation, **fields)
        if command is cdb.GET_LBA_STATUS:
            # The number of descriptors, and so the length field, is up to the device server.
            self.assertEqual((len(answer), answer[8:]), (min(allocation, 24), whole[8:allocation]))
        else:
            self.assertEqual(answer, whole[:allocation])
        self.assertEqual(self.surprises, [])
