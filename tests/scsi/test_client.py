"""What answers mean to an application client."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.scsi import client, codes, sense
from iscsi_twisted.scsi.client import (
    Capacity,
    Inquiry,
    decodeSense,
    designators,
    failure,
    parseLUNs,
    parseStatus,
    unmapList,
)


class SenseTests(SynchronousTestCase):
    """Sense data, and statuses."""

    @given(st.integers(0, 15), st.integers(0, 0xFFFF), st.none() | st.integers(0, 1 << 63), st.booleans())
    def test_roundTrip(self, key: int, code: int, information: int | None, descriptors: bool) -> None:
        """What a target encodes is decoded: key, code, and information where the format can tell it."""
        found = decodeSense(sense.encode(CheckCondition(key, code, information=information), descriptors))
        if information is not None and not descriptors and information >> 32:
            information = None
        self.assertEqual((found.key, found.code, found.information), (key, code, information))

    @given(st.binary(max_size=64))
    def test_anything(self, data: bytes) -> None:
        """Whatever comes is a condition."""
        self.assertIsInstance(decodeSense(data), CheckCondition)

    def test_names(self) -> None:
        """Every sense key that means something has a class of its own, and so has every status."""
        kinds = {type(decodeSense(bytes((0x70, 0, key)))) for key in range(16) if key not in (0, 0xC)}
        self.assertEqual(len(kinds), 14)
        self.assertNotIn(CheckCondition, kinds)
        for key in (0, 0xC):
            self.assertIs(type(decodeSense(bytes((0x70, 0, key)))), CheckCondition)

    def test_deferred(self) -> None:
        """In both formats sense data tell whether they are of an earlier command (SPC-4 4.5.1)."""
        for code, deferred in ((0x70, False), (0x71, True), (0x72, False), (0x73, True)):
            self.assertEqual(decodeSense(bytes((code, 3, 3))).deferred, deferred)

    def test_statuses(self) -> None:
        """Every status has one, with sense data or without."""
        for status, kind in (
            (codes.BUSY, client.Busy),
            (codes.RESERVATION_CONFLICT, client.ReservationConflict),
            (codes.TASK_SET_FULL, client.TaskSetFull),
            (codes.TASK_ABORTED, client.TaskAborted),
            (client.ACA_ACTIVE, client.ACAActive),
            (0x7E, client.StatusError),
            (codes.CHECK_CONDITION, client.StatusError),
        ):
            error = failure(status, b"")
            self.assertIs(type(error), kind)
            self.assertIn(f"{status:02X}h", str(error))
            self.assertTrue(str(error)[0].isupper() and str(error).isprintable(), str(error))


class DataTests(SynchronousTestCase):
    """Parameter data."""

    @given(st.binary(max_size=80))
    def test_anything(self, data: bytes) -> None:
        """However short or wrong, data are read as far as they go."""
        Inquiry.parse(data)
        Capacity.parse(data)
        for field in parseLUNs(data):
            self.assertEqual(len(field), 8)
        for first, count, _ in parseStatus(data):
            self.assertTrue(first >= 0 <= count)

    def test_inquiry(self) -> None:
        """Control characters stay out of names."""
        data = bytes((5, 0x80)) + bytes(6) + b"ACME\x1b[2J" + b"anvil".ljust(16) + b"1.0\0"
        self.assertEqual(Inquiry.parse(data), Inquiry(5, True, True, "ACME?[2J", "anvil", "1.0"))
        self.assertFalse(Inquiry.parse(b"\x7f").present)

    def test_capacity(self) -> None:
        """Blocks and what is known of them."""
        data = (99).to_bytes(8, "big") + (512).to_bytes(4, "big") + b"\0\x03\xc0\0"
        self.assertEqual(Capacity.parse(data), Capacity(100, 512, 4096, True, True))

    def test_designators(self) -> None:
        """Names of the unit, not those of its ports and target; what is cut off is left out."""
        unit, port = bytes.fromhex("02010003") + b"abc", bytes.fromhex("51940004") + bytes(4)
        page = b"\0\x83" + (len(unit) * 2 + len(port)).to_bytes(2, "big") + unit + port + unit
        self.assertEqual(designators(page), [unit, unit])
        self.assertEqual(designators(page[:-1]), [unit])
        self.assertEqual(designators(b""), [])

    def test_unmapList(self) -> None:
        """As UNMAP wants it."""
        self.assertEqual(
            unmapList([(1, 2)]).hex(), "0016001000000000" + "0000000000000001" + "00000002" + "00000000"
        )
