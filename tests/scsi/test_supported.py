"""Tests for L{iscsi_twisted.scsi.supported}."""

from iscsi_twisted.scsi import cdb
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.paths import Paths
from tests.scsi.cases import BLOCK, BLOCKS, DiskTests
from tests.scsi.devices import MemoryDisk


class ReportOpcodesTests(DiskTests):
    """REPORT SUPPORTED OPERATION CODES, SPC-4 6.35."""

    def report(self, options: int, opcode: int = 0, action: int = 0, unit: DiskUnit | None = None) -> bytes:
        """The whole answer."""
        return self.good(
            cdb.REPORT_OPCODES,
            unit=unit,
            options=options,
            requested=opcode,
            requestedAction=action,
            allocation=0x10000,
        )

    def listed(self, data: bytes, size: int) -> list[tuple[int, int | None, int]]:
        """Operation code, service action, CDB length of each descriptor."""
        self.assertEqual(int.from_bytes(data[:4], "big"), len(data) - 4)
        each = [data[place : place + size] for place in range(4, len(data), size)]
        return [(d[0], d[3] if d[5] & 1 else None, d[7]) for d in each]

    def test_all(self) -> None:
        """All commands are listed in order, each once, with the length of its CDB (SPC-4 6.35.2)."""
        self.unit.paths = Paths((1, 2))
        self.unit.rekeys = True
        listed = self.listed(self.report(0), 8)
        expected = [(each.opcode, each.serviceAction, each.layout.size) for each in DiskUnit.table]
        self.assertEqual(listed, expected)
        self.assertEqual(listed, sorted(set(listed)))
        self.assertIn((0x9E, 0x10, 16), listed)

    def test_timeouts(self) -> None:
        """With RCTD each descriptor is followed by one of twelve bytes (SPC-4 6.35.4)."""
        data = self.report(0x80)
        self.assertEqual(self.listed(data, 20), self.listed(self.report(0), 8))
        self.assertEqual(data[9] & 2, 2)
        self.assertEqual(data[12:24].hex(), "000a" + "00" * 10)
        self.assertEqual(self.report(0x81, 0x00).hex(), "0083" + "0006" + "000000000004" + "000a" + "00" * 10)

    def test_one(self) -> None:
        """Usage data are given for one command (SPC-4 6.35.3)."""
        self.assertEqual(self.report(1, 0x28).hex(), "0003000a" + "28f8ffffffff00ffff04")
        self.assertEqual(self.report(2, 0x9E, 0x10).hex(), "00030010" + "9e10" + "00" * 8 + "ffffffff0004")
        self.assertEqual(self.report(3, 0x28), self.report(1, 0x28))
        self.assertEqual(self.report(3, 0x9E, 0x10), self.report(2, 0x9E, 0x10))

    def test_notSupported(self) -> None:
        """What is not there is reported as not supported, with GOOD status."""
        for option, opcode, action in (
            (1, 0xC0, 0),
            (2, 0xC0, 1),
            (2, 0x9E, 0x1F),
            (3, 0xC0, 0),
            (3, 0x28, 1),
        ):
            self.assertEqual(self.report(option, opcode, action).hex(), "00010000")

    def test_wrongWay(self) -> None:
        """Asking for a service action where there is none, or the reverse, is refused (SPC-4 table 254)."""
        for option, opcode in ((1, 0x9E), (2, 0x28)):
            task = self.command(cdb.REPORT_OPCODES, options=option, requested=opcode, allocation=255)
            self.assertInvalidField(task, 2, 2)

    def test_reservedOption(self) -> None:
        """Reporting options that are reserved are refused."""
        self.assertInvalidField(self.command(cdb.REPORT_OPCODES, options=4, allocation=255), 2, 2)

    def test_condition(self) -> None:
        """What this very unit does not have is not listed."""
        unit = self.makeUnit(MemoryDisk(BLOCKS * BLOCK))
        self.assertNotIn(0x42, [each[0] for each in self.listed(self.report(0, unit=unit), 8)])
        self.assertEqual(self.report(1, 0x42, unit=unit).hex(), "00010000")
        self.assertEqual(self.report(1, 0x42)[1], 3)


class ReportTaskManagementTests(DiskTests):
    """REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS, SPC-4 6.36."""

    def test_short(self) -> None:
        """The functions of iSCSI are there, in four bytes."""
        self.assertEqual(self.good(cdb.REPORT_TASK_MANAGEMENT, allocation=255).hex(), "fa000000")

    def test_extended(self) -> None:
        """With REPD the answer has 16 bytes, and promises no timeouts."""
        data = self.good(cdb.REPORT_TASK_MANAGEMENT, options=0x80, allocation=255)
        self.assertEqual(data.hex(), "fa00000c" + "00" * 12)

    def test_allocation(self) -> None:
        """Less than four bytes are refused."""
        self.assertInvalidField(self.command(cdb.REPORT_TASK_MANAGEMENT, allocation=3), 6)
