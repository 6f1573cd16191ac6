"""Tests for L{iscsi_twisted.scsi.cdb}."""

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.scsi import cdb
from iscsi_twisted.scsi.cdb import Layout, declare
from iscsi_twisted.scsi.disk import DiskUnit

DECLARED = [*DiskUnit.table]


def _ones(layout: Layout, name: str) -> int:
    """The greatest value of a field."""
    values = layout.unpack(b"\xff" * layout.size)
    return int(values[layout.fields.index(name)])


class LayoutTests(SynchronousTestCase):
    """The fields of a CDB."""

    def test_offsets(self) -> None:
        """A layout knows where each field begins, reserved bytes counted."""
        layout = Layout("opcode:B _:2x length:H control:B")
        self.assertEqual(layout.offsets, {"opcode": 0, "length": 3, "control": 5})
        self.assertEqual(layout.size, 6)

    def test_unpack(self) -> None:
        """Fields come out big-endian and in order, from a CDB that is longer than they are."""
        layout = Layout("opcode:B flags:B lba:I group:B length:H control:B")
        values = layout.unpack(bytes.fromhex("28 08 00010203 00 0405 04").ljust(16, b"\0"))
        self.assertEqual(values, (0x28, 0x08, 0x010203, 0, 0x0405, 4))


def _unasked(command: cdb.Command) -> set[int | None]:
    """The bytes that may have no bit that is looked at; a service action of zero is one."""
    offsets = command.layout.offsets
    action = offsets.get("action") if command.serviceAction == 0 else None
    return {offsets.get("group"), offsets.get("flags"), action}


class DeclarationTests(SynchronousTestCase):
    """What is declared about commands."""

    def test_size(self) -> None:
        """A declaration whose fields do not fill its operation code's group is refused (SPC-4 4.2.5.1)."""
        with self.assertRaises(ValueError):
            declare(0x28, "READ (10)", "opcode:B control:B", "28 00")

    def test_usage(self) -> None:
        """Usage data begin with the operation code and hold the service action as it is (SPC-4 6.35.3)."""
        for command in DECLARED:
            self.assertEqual(command.usage[0], command.opcode, command.name)
            if command.serviceAction is not None:
                self.assertEqual(command.usage[1] & 0x1F, command.serviceAction, command.name)

    def test_control(self) -> None:
        """Of the CONTROL byte, the NACA bit is looked at in every command (SAM-5 5.2)."""
        for command in DECLARED:
            self.assertEqual(command.usage[command.layout.offsets["control"]], 0x04, command.name)

    def test_reserved(self) -> None:
        """Usage data claim no bit of a reserved byte, and some bit of every field but the group number."""
        for command in DECLARED:
            layout = command.layout
            ones = layout.pack(*(_ones(layout, name) for name in layout.fields))
            for place, (mask, one) in enumerate(zip(command.usage[1:], ones[1:], strict=True), 1):
                self.assertFalse(mask & ~one, f"{command.name} byte {place}")
                if one and place not in _unasked(command):
                    self.assertTrue(mask, f"{command.name} byte {place}")

    def test_encode(self) -> None:
        """A declaration also makes CDBs, padded to sixteen bytes."""
        self.assertEqual(
            cdb.READ_CAPACITY_16.encode(allocation=32),
            bytes.fromhex("9e10 0000000000000000 00000020 00 00"),
        )
        self.assertEqual(cdb.TEST_UNIT_READY.encode(), bytes(16))
