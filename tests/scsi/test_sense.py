"""Tests for L{iscsi_twisted.scsi.sense}."""

import errno

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted import errors
from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.sense import conditionOf, encode

FORMATS = [
    # SPC-4 4.5.3 and 4.5.2: condition, fixed format, descriptor format
    (
        CheckCondition(5, 0x2000),
        "70 00 05 00000000 0a 00000000 2000 00 000000",
        "72 05 2000 000000 00",
    ),
    (
        CheckCondition(3, 0x1100, information=0x01020304),
        "f0 00 03 01020304 0a 00000000 1100 00 000000",
        "72 03 1100 000000 0c 000a8000 0000000001020304",
    ),
    (
        CheckCondition(3, 0x0C00, information=0x0102030405060708),
        "70 00 03 00000000 0a 00000000 0c00 00 000000",
        "72 03 0c00 000000 0c 000a8000 0102030405060708",
    ),
    (
        CheckCondition(5, 0x2400, field=1, bit=7),
        "70 00 05 00000000 0a 00000000 2400 00 cf0001",
        "72 05 2400 000000 08 02060000 cf0001 00",
    ),
    (
        CheckCondition(5, 0x2600, field=0x0118, inData=True),
        "70 00 05 00000000 0a 00000000 2600 00 800118",
        "72 05 2600 000000 08 02060000 800118 00",
    ),
    (
        CheckCondition(5, 0x2100, information=9, field=2),
        "f0 00 05 00000009 0a 00000000 2100 00 c00002",
        "72 05 2100 000000 14 000a8000 0000000000000009 02060000 c00002 00",
    ),
]

ERRORS = [
    # error, while writing, key, code, INFORMATION
    (errors.DeviceError(), False, 0x4, 0x4400, None),
    (errors.ReadError(offset=5 * 512 + 3), False, 0x3, 0x1100, 5),
    (errors.WriteError(), True, 0x3, 0x0C00, None),
    (errors.OutOfSpace(offset=512), True, 0x7, 0x2707, 1),
    (errors.WriteProtected(), True, 0x7, 0x2700, None),
    (errors.NotReady(), False, 0x2, 0x0400, None),
    (OSError(errno.EIO, ""), False, 0x3, 0x1100, None),
    (OSError(errno.EIO, ""), True, 0x3, 0x0C00, None),
    (OSError(errno.ENOSPC, ""), True, 0x7, 0x2707, None),
    (OSError(errno.EDQUOT, ""), True, 0x7, 0x2707, None),
    (OSError(errno.EROFS, ""), True, 0x7, 0x2700, None),
    (OSError(errno.EACCES, ""), True, 0x7, 0x2700, None),
    (OSError(errno.EACCES, ""), False, 0x2, 0x0400, None),
    (OSError(errno.ENODEV, ""), False, 0x2, 0x0400, None),
    (OSError(errno.ETIMEDOUT, ""), False, 0xB, 0x0801, None),
    (OSError(errno.EAGAIN, ""), False, 0xB, 0x0000, None),
]


class EncodeTests(SynchronousTestCase):
    """Sense data on the wire."""

    def test_formats(self) -> None:
        """Sense data are what SPC-4 4.5 draws, in both formats."""
        for condition, fixed, descriptor in FORMATS:
            self.assertEqual(encode(condition).hex(), fixed.replace(" ", ""))
            self.assertEqual(encode(condition, True).hex(), descriptor.replace(" ", ""))

    @given(
        st.builds(
            CheckCondition,
            st.integers(0, 15),
            st.integers(0, 0xFFFF),
            information=st.none() | st.integers(0, (1 << 64) - 1),
            field=st.none() | st.integers(0, 0xFFFF),
            bit=st.none() | st.integers(0, 7),
            inData=st.booleans(),
        )
    )
    def test_lengths(self, condition: CheckCondition) -> None:
        """The additional length always counts what follows it."""
        for descriptors in (False, True):
            data = encode(condition, descriptors)
            self.assertEqual(len(data), 8 + data[7])


class ConditionTests(SynchronousTestCase):
    """From exceptions to sense."""

    def test_errors(self) -> None:
        """What devices and the system report becomes the key, the code and the LBA that belong to it."""
        for error, writing, key, code, information in ERRORS:
            condition = conditionOf(error, writing, 512)
            assert condition is not None, error
            self.assertEqual(
                (condition.key, condition.code, condition.information), (key, code, information), error
            )

    def test_condition(self) -> None:
        """A condition stands for itself."""
        condition = CheckCondition(codes.ILLEGAL_REQUEST, codes.INVALID_OPCODE)
        self.assertIs(conditionOf(condition, False, 512), condition)

    def test_surprise(self) -> None:
        """What is nobody's report is nothing that could be told to an initiator."""
        for error in (ValueError(), KeyError("x"), OSError(errno.EBADF, ""), OSError("no number")):
            self.assertIsNone(conditionOf(error, False, 512))
