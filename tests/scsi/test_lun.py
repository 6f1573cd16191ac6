"""Tests for L{iscsi_twisted.scsi.lun}."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import CheckCondition, LocalError
from iscsi_twisted.scsi.codes import ILLEGAL_REQUEST, LUN_NOT_SUPPORTED
from iscsi_twisted.scsi.lun import LAST_LUN, REPORT_LUNS_UNIT, WELL_KNOWN, decodeLUN, encodeLUN

ENCODED = [
    # SAM-5 4.7.6.2 and 4.7.6.3
    (0, "0000000000000000"),
    (1, "0001000000000000"),
    (255, "00ff000000000000"),
    (256, "4100000000000000"),
    (16383, "7fff000000000000"),
    # 4.7.7.5.2 and 4.7.7.5.1
    (16384, "d200400000000000"),
    (LAST_LUN, "d2ffffff00000000"),
    (REPORT_LUNS_UNIT, "c101000000000000"),
]

REFUSED = [
    ("0100000000000000", "another bus"),
    ("8001000000000000", "logical unit addressing"),
    ("c101000000000001", "a well known logical unit at another level"),
    ("d200000100000001", "extended flat space addressing at another level"),
    ("e200010000010000", "a number beyond the last"),
    ("e200000000010001", "long extended flat space addressing at another level"),
    ("f200000000000001", "seven bytes of number"),
    ("d100000100000000", "another method of extended addressing"),
    ("0000000100000000", "a second level"),
    ("0000000000000001", "a fourth level"),
    ("ffffffffffffffff", "not specified"),
]


class LUNTests(SynchronousTestCase):
    """Logical unit numbers on the wire."""

    def test_encode(self) -> None:
        """Small numbers use peripheral device addressing, greater ones flat space addressing in two sizes."""
        for lun, field in ENCODED:
            self.assertEqual(encodeLUN(lun).hex(), field)

    @given(st.integers(0, LAST_LUN))
    def test_roundTrip(self, lun: int) -> None:
        """A number survives its way over the wire."""
        self.assertEqual(decodeLUN(encodeLUN(lun)), lun)

    @given(st.integers(0, 255))
    def test_flat(self, lun: int) -> None:
        """Small numbers are understood in every addressing method that can say them."""
        self.assertEqual(decodeLUN(bytes([0x40, lun]) + bytes(6)), lun)
        self.assertEqual(decodeLUN(bytes([0xD2, 0, 0, lun]) + bytes(4)), lun)
        self.assertEqual(decodeLUN(bytes([0xE2, 0, 0, 0, 0, lun]) + bytes(2)), lun)

    def test_refused(self) -> None:
        """What is not understood is a logical unit that is not there."""
        for field, what in REFUSED:
            with self.assertRaises(CheckCondition) as caught:
                decodeLUN(bytes.fromhex(field))
            condition = caught.exception
            self.assertEqual((condition.key, condition.code), (ILLEGAL_REQUEST, LUN_NOT_SUPPORTED), what)

    @given(st.binary(min_size=8, max_size=8))
    def test_any(self, field: bytes) -> None:
        """Eight bytes are a number that names the same unit, or are refused."""
        try:
            lun = decodeLUN(field)
        except CheckCondition:
            return
        self.assertEqual(decodeLUN(encodeLUN(lun)), lun)

    def test_tooGreat(self) -> None:
        """A number that cannot be encoded is our own fault."""
        for lun in (-1, LAST_LUN + 1, WELL_KNOWN + 256):
            with self.assertRaises(LocalError):
                encodeLUN(lun)
