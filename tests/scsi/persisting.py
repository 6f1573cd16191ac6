"""Units for tests of persistent reservations."""

from __future__ import annotations

from typing import Any

from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.cdb import Command
from iscsi_twisted.scsi.persistent import LIST
from tests.scsi.cases import DiskTests
from tests.support.tasks import Nexus, Task, run

ALWAYS = {
    "INQUIRY", "LOG SENSE", "READ CAPACITY (10)", "READ CAPACITY (16)", "RELEASE (10)", "RELEASE (6)",
    "REPORT LUNS", "REPORT SUPPORTED OPERATION CODES", "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
    "REPORT IDENTIFYING INFORMATION", "REPORT TIMESTAMP", "REPORT TARGET PORT GROUPS",
    "REQUEST SENSE", "TEST UNIT READY", "START STOP UNIT", "PREVENT ALLOW MEDIUM REMOVAL",
}  # fmt: skip
"""What SPC-4 table 68 and SBC-3 table 12 allow to everybody, or what has a say of its own."""


class PersistentCases(DiskTests):
    """A unit and three nexuses."""

    def setUp(self) -> None:
        super().setUp()
        self.other, self.third = (Nexus(isid=b"\x80\0\0\0\0" + bytes((number,))) for number in (2, 3))
        for nexus in (self.other, self.third):
            self.unit.nexusFound(nexus)
            self.unit.takeAttention(nexus)

    def out(
        self, command: Command, key: int = 0, new: int = 0, kind: int = 0, flags: int = 0, **how: Any
    ) -> Task:
        """One PERSISTENT RESERVE OUT."""
        data = LIST.pack(key, new, flags)
        return self.command(command, data, length=len(data), type=kind, **how)

    def ok(self, command: Command, *values: int, **how: Any) -> None:
        """One that ends well."""
        task = self.out(command, *values, **how)
        self.assertEqual(task.status, codes.GOOD, task.sense.hex())

    def conflict(self, command: Command, *values: int, **how: Any) -> None:
        """One that ends with RESERVATION CONFLICT."""
        self.assertEqual(self.out(command, *values, **how).status, codes.RESERVATION_CONFLICT)

    def register(self, *pairs: tuple[Nexus, int]) -> None:
        """Register keys."""
        for nexus, key in pairs:
            self.ok(cdb.PR_REGISTER, 0, key, nexus=nexus)

    def told(self, nexus: Nexus) -> int | None:
        """The unit attention that a nexus is told next."""
        return self.unit.takeAttention(nexus)

    def refused(self, command: Command, nexus: Nexus) -> bool:
        """Whether a command meets the reservation."""
        return run(self.unit, Task(command.encode(), nexus)).status == codes.RESERVATION_CONFLICT
