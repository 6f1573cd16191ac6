"""What each command is refused for: the sense data of every error, from tables that name the standard."""

from __future__ import annotations

from typing import Any

from iscsi_twisted.errors import (
    CheckCondition,
    NotReady,
    OutOfSpace,
    ReadError,
    WriteError,
    WriteProtected,
)
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.cdb import Command
from iscsi_twisted.scsi.cdblong import (
    FORMAT_UNIT,
    SANITIZE_BLOCK_ERASE,
    SANITIZE_CRYPTO_ERASE,
    SANITIZE_OVERWRITE,
)
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.modes import Settings
from tests.scsi.cases import BLOCK, BLOCKS, DiskTests
from tests.support.tasks import Nexus, Task, run

CDB = codes.INVALID_FIELD_IN_CDB
RANGE = codes.LBA_OUT_OF_RANGE
LENGTH = codes.PARAMETER_LIST_LENGTH_ERROR
PARAMETER = codes.INVALID_FIELD_IN_PARAMETER_LIST

REFUSED: list[tuple[str, Command, dict[str, int], bytes, int, tuple[bool, int, int | None] | None]] = [
    ("SPC-4 6.6.1", cdb.INQUIRY, {"page": 1}, b"", CDB, (True, 2, 7)),
    ("SPC-4 6.6.1", cdb.INQUIRY, {"flags": 1, "page": 0x99}, b"", CDB, (True, 2, 7)),
    ("SPC-4 6.6.1", cdb.INQUIRY, {"flags": 2}, b"", CDB, (True, 1, 1)),
    ("SPC-4 6.13.1", cdb.MODE_SENSE_6, {"page": 0x30}, b"", CDB, (True, 2, 5)),
    ("SPC-4 6.13.1", cdb.MODE_SENSE_6, {"page": 8, "subpage": 9}, b"", CDB, (True, 3, 7)),
    ("SPC-4 6.14", cdb.MODE_SENSE_10, {"page": 0x30}, b"", CDB, (True, 2, 5)),
    ("SPC-4 6.11", cdb.MODE_SELECT_6, {"length": 4}, bytes(4), CDB, (True, 1, 4)),
    ("SPC-4 6.11", cdb.MODE_SELECT_6, {"flags": 0x10, "length": 3}, bytes(3), LENGTH, (True, 4, None)),
    ("SPC-4 6.11", cdb.MODE_SELECT_6, {"flags": 0x10, "length": 5}, bytes(5), LENGTH, None),
    ("SPC-4 6.12", cdb.MODE_SELECT_10, {"flags": 0x10, "length": 7}, bytes(7), LENGTH, (True, 7, None)),
    ("SPC-4 7.5.5", cdb.MODE_SELECT_10, {"flags": 0x10, "length": 10}, b"\0" * 10, PARAMETER, (False, 8, 5)),
    ("SPC-4 6.7", cdb.LOG_SENSE, {"page": 0x0B}, b"", CDB, (True, 2, 5)),
    ("SPC-4 6.7", cdb.LOG_SENSE, {"page": 0x2F, "subpage": 1}, b"", CDB, (True, 3, 7)),
    ("SPC-4 6.7", cdb.LOG_SENSE, {"page": 0x2F, "parameter": 1}, b"", CDB, (True, 5, None)),
    ("SPC-4 6.7", cdb.LOG_SENSE, {"flags": 1}, b"", CDB, (True, 1, 0)),
    ("SPC-4 6.6", cdb.LOG_SELECT, {"flags": 1}, b"", CDB, (True, 1, 0)),
    ("SPC-4 6.6", cdb.LOG_SELECT, {"flags": 2, "length": 4}, bytes(4), CDB, (True, 7, None)),
    ("SPC-4 6.6", cdb.LOG_SELECT, {"flags": 2, "page": 0x0B}, b"", CDB, (True, 2, 5)),
    ("SPC-4 6.6", cdb.LOG_SELECT, {"flags": 2, "page": 0x02, "subpage": 1}, b"", CDB, (True, 3, 7)),
    ("SPC-4 6.33", cdb.REPORT_LUNS, {"select": 3, "allocation": 16}, b"", CDB, (True, 2, 7)),
    ("SPC-4 6.33", cdb.REPORT_LUNS, {"allocation": 15}, b"", CDB, (True, 6, 7)),
    ("SPC-4 6.35", cdb.REPORT_OPCODES, {"options": 5}, b"", CDB, (True, 2, 2)),
    ("SPC-4 6.35", cdb.REPORT_OPCODES, {"options": 1, "requested": 0xA3}, b"", CDB, (True, 2, 2)),
    ("SPC-4 6.36", cdb.REPORT_TASK_MANAGEMENT, {"allocation": 3}, b"", CDB, (True, 6, None)),
    ("SPC-2 7.21", cdb.RESERVE_6, {"flags": 0x01}, b"", CDB, (True, 1, 0)),
    ("SPC-2 7.20", cdb.RESERVE_10, {"flags": 0x02}, b"", CDB, (True, 1, 1)),
    ("SPC-2 7.17", cdb.RELEASE_6, {"flags": 0x10}, b"", CDB, (True, 1, 4)),
    ("SPC-2 7.16", cdb.RELEASE_10, {"flags": 0x10}, b"", CDB, (True, 1, 4)),
    ("SBC-3 5.25", cdb.START_STOP_UNIT, {"options": 2}, b"", CDB, (True, 4, 1)),
    ("SBC-3 5.14", cdb.PREVENT_ALLOW, {"options": 2}, b"", CDB, (True, 4, 1)),
    ("SBC-3 5.4", cdb.GET_LBA_STATUS, {"lba": BLOCKS, "allocation": 24}, b"", RANGE, (True, 2, None)),
    ("SBC-3 5.28", cdb.UNMAP, {"flags": 1, "length": 8}, bytes(8), CDB, (True, 1, 0)),
    ("SBC-3 5.28", cdb.UNMAP, {"length": 7}, bytes(7), LENGTH, (True, 7, None)),
    ("SBC-3 5.42", cdb.WRITE_SAME_10, {"length": 1, "flags": 1}, bytes(BLOCK), CDB, (True, 1, 0)),
    ("SBC-3 5.43", cdb.WRITE_SAME_16, {"length": 1, "flags": 0x10}, bytes(BLOCK), CDB, (True, 1, 4)),
    ("SBC-3 5.43", cdb.WRITE_SAME_16, {"length": 1}, bytes(BLOCK + 1), LENGTH, None),
    ("SBC-3 6.6.4", cdb.WRITE_SAME_16, {"length": 0}, bytes(BLOCK), CDB, (True, 10, None)),
    ("SBC-3 5.2", cdb.COMPARE_AND_WRITE, {"length": 1}, bytes(BLOCK), CDB, (True, 13, None)),
    ("SBC-3 5.29", cdb.VERIFY_10, {"length": 1, "flags": 4}, b"", CDB, (True, 1, 2)),
    ("SBC-3 5.39", cdb.WRITE_AND_VERIFY_10, {"length": 1, "flags": 6}, bytes(BLOCK), CDB, (True, 1, 2)),
]
"""Section, command, fields, data, code, field pointer."""

WITHOUT = (
    cdb.GET_LBA_STATUS,
    cdb.READ_DEFECT_DATA_10,
    cdb.READ_DEFECT_DATA_12,
    SANITIZE_OVERWRITE,
    SANITIZE_BLOCK_ERASE,
    SANITIZE_CRYPTO_ERASE,
    FORMAT_UNIT,
)
"""Commands that do not use the device, or do not tell of its errors but have some of their own."""

DEVICE_ERRORS = [
    (ReadError(offset=BLOCK), codes.MEDIUM_ERROR, codes.UNRECOVERED_READ_ERROR, 1),
    (WriteError(offset=BLOCK), codes.MEDIUM_ERROR, codes.WRITE_FAULT, 1),
    (OutOfSpace(), codes.DATA_PROTECT, codes.SPACE_ALLOCATION_FAILED, None),
    (WriteProtected(), codes.DATA_PROTECT, codes.WRITE_PROTECTED, None),
    (NotReady(), codes.NOT_READY, codes.NOT_READY_CAUSE_NOT_REPORTABLE, None),
    (ZeroDivisionError(), codes.HARDWARE_ERROR, codes.INTERNAL_TARGET_FAILURE, None),
]
"""What a device raises; sense key, code and INFORMATION (SPC-4 annex F, SBC-3 4.18)."""


class RefusalTests(DiskTests):
    """Errors of commands."""

    def task(self, command: Command, **fields: Any) -> Task:
        """A command on one block, with the data that go with it."""
        size = 1 if command is not cdb.COMPARE_AND_WRITE else 2
        data = bytes(size * BLOCK)
        if command is cdb.UNMAP:
            data, fields = (
                bytes.fromhex("0016001000000000" + "00" * 8 + "00000001" + "00" * 4),
                {"length": 24},
            )
        elif "length" in command.layout.fields:
            fields = {"length": 1, **fields}
        return Task(command.encode(**fields), self.nexus, data)

    def onMedium(self, access: int) -> list[Command]:
        """The commands that do something to blocks."""
        return [each for each in DiskUnit.table if each.access & access == access]

    def test_table(self) -> None:
        """Every refusal of the table has its code and its field pointer (SPC-4 4.5.2.4.2)."""
        for section, command, fields, data, code, pointer in REFUSED:
            task = self.command(command, data, **fields)
            self.assertEqual(
                (task.status, task.endings, task.key, hex(task.code), task.pointer),
                (codes.CHECK_CONDITION, 1, codes.ILLEGAL_REQUEST, hex(code), pointer),
                f"{section} {command.name} {fields}",
            )
        self.assertEqual([call for call in self.device.calls if call[0] not in ("read", "flush")], [])

    def test_outOfRange(self) -> None:
        """Every command with an LBA refuses blocks that are not there, with the first as INFORMATION."""
        for command in (each for each in DiskUnit.table if "lba" in each.layout.fields):
            if command.layout.offsets["lba"] == 1:
                fields = {"low": BLOCKS}
            else:
                fields = {"lba": BLOCKS, "allocation": 24}
            task = run(self.unit, self.task(command, **fields))
            self.assertSense(
                task, codes.ILLEGAL_REQUEST, RANGE, (True, command.layout.offsets["lba"], None), BLOCKS
            )
        self.assertEqual(self.device.calls, [])

    def test_protection(self) -> None:
        """Every command with RDPROTECT, WRPROTECT, VRPROTECT or ORPROTECT refuses protection (SBC-3 4.22)."""
        found = []
        for command in (each for each in DiskUnit.table if "lba" in each.layout.fields):
            if command.usage[1] & codes.PROTECT and command.layout.offsets["lba"] == 2:
                task = run(self.unit, self.task(command, flags=0x20))
                self.assertInvalidField(task, 1, 7)
                found.append(command)
        self.assertEqual(len(found), 3 + 3 + 2 + 3 + 3 + 1 + 1 + 1)

    def test_deviceErrors(self) -> None:
        """Whatever a device raises, every command that uses it tells it, and leaves nothing behind."""
        for command in self.onMedium(cdb.WRITES) + self.onMedium(cdb.READS):
            if command in WITHOUT:
                continue
            for error, key, code, information in DEVICE_ERRORS:
                self.device.error = error
                task = run(self.unit, self.task(command))
                self.assertSense(task, key, code, None, information)
        self.assertEqual((self.unit.fences, self.unit.operations, self.unit.receiving), ([], set(), set()))
        self.assertEqual({type(error) for error in self.surprises}, {ZeroDivisionError})

    def test_writeProtected(self) -> None:
        """Every command that writes is refused where nobody may, this nexus may not, or SWP is set."""
        protected = self.makeUnit(self.device, readOnly=True)
        software = self.makeUnit(self.device)
        software.adjust(Settings(softwareProtected=True))
        guest = Nexus(readOnly=True)
        self.unit.rekeys = protected.rekeys = software.rekeys = True
        for command in self.onMedium(cdb.WRITES):
            for unit, nexus, code in (
                (protected, self.nexus, codes.WRITE_PROTECTED),
                (self.unit, guest, codes.WRITE_PROTECTED),
                (software, self.nexus, codes.SOFTWARE_WRITE_PROTECTED),
            ):
                task = self.task(command)
                task.nexus = nexus
                self.assertSense(run(unit, task), codes.DATA_PROTECT, code)
                self.assertIsNone(task.wanted)
        self.assertEqual(self.device.calls, [])

    def test_descriptorFormat(self) -> None:
        """With D_SENSE the same errors are told in descriptor format (SPC-4 4.5.2)."""
        self.unit.descriptorSense = True
        for _, command, fields, data, code, pointer in REFUSED:
            sense = self.command(command, data, **fields).sense
            self.assertEqual((sense[0], sense[1], sense[2:4].hex()), (0x72, 5, f"{code:04x}"))
            self.assertEqual(sense[7], len(sense) - 8)
            self.assertEqual(b"\x02\x06" in sense[8:], pointer is not None)
        caught = self.command(cdb.READ_10, lba=BLOCKS, length=1).sense
        self.assertEqual(caught[8:20].hex(), "000a8000" + f"{BLOCKS:016x}")

    def test_conditions(self) -> None:
        """A condition that a device raises itself is told as it is."""
        self.device.error = CheckCondition(codes.MISCOMPARE, codes.MISCOMPARE_DURING_VERIFY, information=7)
        task = self.command(cdb.READ_10, length=1)
        self.assertSense(task, codes.MISCOMPARE, codes.MISCOMPARE_DURING_VERIFY, None, 7)
