"""Tests for L{iscsi_twisted.scsi.table}."""

from iscsi_twisted.errors import LocalError
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.cdb import WRITES
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.inventory import AbsentUnit
from iscsi_twisted.scsi.paths import Paths
from iscsi_twisted.scsi.table import CommandSet, CommandTable
from tests.scsi.cases import BLOCK, BLOCKS, IDENTITY, DiskTests
from tests.scsi.devices import MemoryDisk
from tests.support.tasks import Task, run


class CommandTableTests(DiskTests):
    """From operation codes to handlers."""

    def test_twice(self) -> None:
        """Two rooms cannot both handle a command."""
        first, second = CommandSet(), CommandSet()
        for each in first, second:
            each.handles(cdb.INQUIRY)(lambda unit, task: None)
        with self.assertRaises(LocalError):
            CommandTable(first, second)

    def test_unknown(self) -> None:
        """Operation codes that are not declared are refused as invalid (SPC-4 4.2.5.1)."""
        declared = {command.opcode for command in DiskUnit.table}
        for opcode in set(range(256)) - declared:
            task = run(self.unit, Task(bytes([opcode]), self.nexus))
            self.assertSense(task, codes.ILLEGAL_REQUEST, codes.INVALID_OPCODE, (True, 0, None))

    def test_unknownServiceAction(self) -> None:
        """A service action that is not declared is an invalid field (SPC-4 4.2.5.2)."""
        for opcode in (0x9E, 0xA3):
            task = run(self.unit, Task(bytes([opcode, 0x1F]), self.nexus))
            self.assertInvalidField(task, 1, 4)

    def test_naca(self) -> None:
        """NACA is refused in every command of a unit without ACA (SAM-5 5.2), and alone changes nothing."""
        self.unit.paths = Paths((1, 2))
        for command in DiskUnit.table:
            self.assertEqual(command.layout.size - 1, command.layout.offsets["control"])
        absent = AbsentUnit(IDENTITY, self.surprise)
        for command in AbsentUnit.table:
            task = self.command(command, unit=absent, control=codes.NACA)
            self.assertInvalidField(task, command.layout.offsets["control"], 2)
        self.good(cdb.READ_10, length=1, control=codes.NACA)
        self.good(cdb.INQUIRY, allocation=36, control=codes.NACA)

    def test_writeProtected(self) -> None:
        """Every command that is declared to write is refused by a read-only unit, before data are fetched."""
        unit = self.makeUnit(self.device, readOnly=True)
        unit.rekeys = True
        for command in (each for each in DiskUnit.table if each.access & WRITES == WRITES):
            task = self.command(command, bytes(BLOCK), unit=unit, length=8)
            self.assertSense(task, codes.DATA_PROTECT, codes.WRITE_PROTECTED)
            self.assertIsNone(task.wanted, command.name)
        self.assertEqual(self.device.calls, [])

    def test_condition(self) -> None:
        """A command that a unit does not have is refused like one that nobody knows."""
        unit = self.makeUnit(MemoryDisk(BLOCKS * BLOCK))
        self.assertSense(
            self.command(cdb.UNMAP, unit=unit), codes.ILLEGAL_REQUEST, codes.INVALID_OPCODE, (True, 0, None)
        )
