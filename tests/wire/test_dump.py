"""Tests for L{iscsi_twisted.wire.dump}."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.wire import layout, numbers
from iscsi_twisted.wire.dump import dump


class DumpTests(SynchronousTestCase):
    """Headers for people."""

    def test_command(self) -> None:
        """A header is its name and its fields, lengths taken apart, bytes as they are."""
        header = layout.SCSI_COMMAND.pack(
            numbers.SCSI_COMMAND, 0xC1, 0x02000200, b"\0\1" + bytes(6), 0x10, 512, 7, 8, b"\x28" + bytes(15)
        )
        self.assertEqual(
            dump(header),
            "SCSI_COMMAND flags=0xc1 lun=0001000000000000 itt=0x10 expectedLength=0x200 cmdSN=0x7"
            " expStatSN=0x8 cdb=28000000000000000000000000000000 ahs=8 data=512",
        )

    def test_immediate(self) -> None:
        """The I bit is a word behind the name."""
        header = bytes((numbers.NOP_OUT | numbers.IMMEDIATE,)) + bytes(47)
        self.assertTrue(dump(header).startswith("NOP_OUT immediate flags=0x0 "), dump(header))

    def test_unknown(self) -> None:
        """An opcode that nobody knows is shown with all its bytes."""
        header = b"\x1c" + bytes(range(47))
        self.assertEqual(dump(header), "opcode 0x1c " + header.hex())

    @settings(deadline=None)
    @given(st.binary(min_size=48, max_size=48))
    def test_anything(self, header: bytes) -> None:
        """Any header becomes one printable line."""
        self.assertTrue(dump(header).isprintable())
