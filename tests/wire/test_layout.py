"""Tests for L{iscsi_twisted.wire.layout} and the numbers that go with it."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.wire import layout, numbers
from iscsi_twisted.wire.layout import Layout

LAYOUTS = {name: value for name, value in vars(layout).items() if isinstance(value, Layout)}

# Where RFC 7143 chapter 11 puts fields: layout, field, first byte, bytes.
PLACES = [
    *((name, "itt", 16, 4) for name in LAYOUTS),
    *((name, "lengths", 4, 4) for name in LAYOUTS),
    *(
        (name, "statSN", 24, 4)
        for name in LAYOUTS
        if getattr(numbers, name) >= numbers.NOP_IN and name != "SNACK_REQUEST"
    ),
    *((name, "expCmdSN", 28, 4) for name in LAYOUTS if getattr(numbers, name) >= numbers.NOP_IN),
    *((name, "maxCmdSN", 32, 4) for name in LAYOUTS if getattr(numbers, name) >= numbers.NOP_IN),
    ("SCSI_COMMAND", "lun", 8, 8),
    ("SCSI_COMMAND", "expectedLength", 20, 4),
    ("SCSI_COMMAND", "cmdSN", 24, 4),
    ("SCSI_COMMAND", "expStatSN", 28, 4),
    ("SCSI_COMMAND", "cdb", 32, 16),
    ("SCSI_RESPONSE", "response", 2, 1),
    ("SCSI_RESPONSE", "status", 3, 1),
    ("SCSI_RESPONSE", "expDataSN", 36, 4),
    ("SCSI_RESPONSE", "bidiResidual", 40, 4),
    ("SCSI_RESPONSE", "residual", 44, 4),
    ("TASK_MANAGEMENT_REQUEST", "referencedTag", 20, 4),
    ("TASK_MANAGEMENT_REQUEST", "refCmdSN", 32, 4),
    ("TASK_MANAGEMENT_RESPONSE", "response", 2, 1),
    ("DATA_OUT", "ttt", 20, 4),
    ("DATA_OUT", "expStatSN", 28, 4),
    ("DATA_OUT", "dataSN", 36, 4),
    ("DATA_OUT", "bufferOffset", 40, 4),
    ("DATA_IN", "status", 3, 1),
    ("DATA_IN", "ttt", 20, 4),
    ("DATA_IN", "dataSN", 36, 4),
    ("DATA_IN", "bufferOffset", 40, 4),
    ("DATA_IN", "residual", 44, 4),
    ("R2T", "ttt", 20, 4),
    ("R2T", "r2tSN", 36, 4),
    ("R2T", "bufferOffset", 40, 4),
    ("R2T", "desiredLength", 44, 4),
    ("ASYNC_MESSAGE", "event", 36, 1),
    ("ASYNC_MESSAGE", "vendorCode", 37, 1),
    ("ASYNC_MESSAGE", "parameter1", 38, 2),
    ("ASYNC_MESSAGE", "parameter3", 42, 2),
    ("TEXT_REQUEST", "ttt", 20, 4),
    ("TEXT_RESPONSE", "ttt", 20, 4),
    ("LOGIN_REQUEST", "versionMax", 2, 1),
    ("LOGIN_REQUEST", "versionMin", 3, 1),
    ("LOGIN_REQUEST", "isid", 8, 6),
    ("LOGIN_REQUEST", "tsih", 14, 2),
    ("LOGIN_REQUEST", "cid", 20, 2),
    ("LOGIN_REQUEST", "cmdSN", 24, 4),
    ("LOGIN_RESPONSE", "versionActive", 3, 1),
    ("LOGIN_RESPONSE", "isid", 8, 6),
    ("LOGIN_RESPONSE", "tsih", 14, 2),
    ("LOGIN_RESPONSE", "status", 36, 2),
    ("LOGOUT_REQUEST", "cid", 20, 2),
    ("LOGOUT_REQUEST", "cmdSN", 24, 4),
    ("LOGOUT_RESPONSE", "response", 2, 1),
    ("LOGOUT_RESPONSE", "time2Wait", 40, 2),
    ("LOGOUT_RESPONSE", "time2Retain", 42, 2),
    ("SNACK_REQUEST", "begRun", 40, 4),
    ("SNACK_REQUEST", "runLength", 44, 4),
    ("REJECT", "reason", 2, 1),
    ("REJECT", "dataSN", 36, 4),
    ("NOP_OUT", "ttt", 20, 4),
    ("NOP_IN", "ttt", 20, 4),
]


class LayoutTests(SynchronousTestCase):
    """Records in general."""

    def test_wrongSize(self) -> None:
        """A declaration that does not have the size that it says is refused at once."""
        error = self.assertRaises(ValueError, Layout, "a:B b:H", size=4)
        self.assertEqual(str(error), "the layout is 3 bytes, not 4")

    def test_bigEndian(self) -> None:
        """Numbers have their most significant byte first and nothing is aligned."""
        record = Layout("a:B b:H c:I", size=7)
        self.assertEqual(record.pack(1, 0x0203, 0x04050607), bytes(range(1, 8)))

    def test_reserved(self) -> None:
        """Reserved space is no field: it is written as zeros and skipped in reading."""
        record = Layout("a:B _:2x b:B", size=4)
        self.assertEqual(record.fields, ("a", "b"))
        self.assertEqual(record.pack(1, 2), b"\1\0\0\2")
        self.assertEqual(record.unpack(b"\1\xff\xff\2"), (1, 2))

    def test_offset(self) -> None:
        """A record is read from anywhere in a buffer."""
        record = Layout("a:B b:H", size=3)
        self.assertEqual(record.asDict(b"\0\0\1\0\2\0", 2), {"a": 1, "b": 2})


class HeaderTests(SynchronousTestCase):
    """The headers of RFC 7143 chapter 11."""

    def test_size(self) -> None:
        """Every header is a Basic Header Segment of 48 bytes that begins with its opcode."""
        self.assertEqual(len(LAYOUTS), 18)
        for name, record in LAYOUTS.items():
            self.assertEqual((record.size, record.fields[0]), (layout.BHS_LENGTH, "opcode"), name)
            self.assertIn(getattr(numbers, name), range(64), name)

    def test_places(self) -> None:
        """Fields stand at the bytes where the standard puts them."""
        for name, field, first, size in PLACES:
            record = LAYOUTS[name]
            place = (1 << 8 * size) - 1
            image = (place << 8 * (48 - first - size)).to_bytes(48, "big")
            value = record.asDict(image)[field]
            expected: Any = b"\xff" * size if isinstance(value, bytes) else place
            self.assertEqual(value, expected, f"{name} {field}")

    @settings(deadline=None)
    @given(st.sampled_from(sorted(LAYOUTS)), st.binary(min_size=48, max_size=48))
    def test_roundTrip(self, name: str, header: bytes) -> None:
        """Whatever is unpacked packs to the same values again."""
        record = LAYOUTS[name]
        values = record.unpack(header)
        self.assertEqual(record.unpack(record.pack(*values)), values)
