"""Tests for L{iscsi_twisted.scsi.copylist}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.copylist import (
    DISCARDED,
    HEADER,
    LIST_LIMIT,
    SEGMENT_LIMIT,
    TARGET_LIMIT,
    CopyList,
    CopyTarget,
    Segment,
    parse,
)
from tests.scsi.copies import copyList, segment, target

NAA = bytes.fromhex("3000000012345678")
INVALID = codes.INVALID_FIELD_IN_PARAMETER_LIST
LENGTH = codes.PARAMETER_LIST_LENGTH_ERROR


class ParseTests(SynchronousTestCase):
    """L{parse}, SPC-3 6.3."""

    def refused(self, data: bytes, code: int, field: int | None = None) -> None:
        """The list is refused."""
        caught = self.assertRaises(CheckCondition, parse, data)
        self.assertEqual((caught.key, hex(caught.code)), (codes.ILLEGAL_REQUEST, hex(code)))
        self.assertEqual(caught.field, field)

    def test_all(self) -> None:
        """Every field of a list."""
        data = copyList([target(NAA, 3, True, 4096)], [segment(1, 2, 3, 4, 5, 3)], 7, DISCARDED)
        self.assertEqual(
            parse(data),
            CopyList(
                7, DISCARDED, (CopyTarget(0, 3, NAA, True, 4096),), (Segment(1, 2, 3, 4, 5, True, True),)
            ),
        )

    def test_header(self) -> None:
        """Reserved usages, identifiers where there is none, inline data, and odd lengths are refused."""
        self.refused(copyList([], [], usage=1), INVALID, 1)
        self.refused(copyList([], [], usage=3), INVALID, 0)
        self.refused(copyList([], [], inline=1), codes.INLINE_DATA_TOO_LONG, 12)
        self.refused(copyList([target(NAA) + b"x"], []), INVALID, 2)

    def test_cutOff(self) -> None:
        """A list that is cut off is refused, wherever that is."""
        whole = copyList([target(NAA)] * 2, [segment(0, 1, 1, 1, 1)] * 2)
        for length in range(len(whole)):
            self.refused(whole[:length], LENGTH)
        self.refused(copyList([], [segment(0, 1, 1, 1, 1)[:-1]]), LENGTH)

    def test_limits(self) -> None:
        """As many descriptors as there may be, and no more."""
        one = segment(0, 0, 1, 1, 1)
        parse(copyList([target(NAA)] * TARGET_LIMIT, [one] * SEGMENT_LIMIT))
        self.refused(copyList([target(NAA)] * (TARGET_LIMIT + 1), [one]), codes.TOO_MANY_TARGETS, 2)
        self.refused(copyList([target(NAA)], [one] * (SEGMENT_LIMIT + 1)), codes.TOO_MANY_SEGMENTS, 8)
        many = copyList([target(NAA)] * (TARGET_LIMIT + 1), [one] * SEGMENT_LIMIT)
        self.assertGreater(len(many), HEADER + LIST_LIMIT)
        self.refused(many, LENGTH)

    def test_unsupported(self) -> None:
        """Other kinds of descriptors are refused as that, and so are names of ports."""
        self.refused(copyList([b"\xe0" + target(NAA)[1:]], []), codes.UNSUPPORTED_TARGET, HEADER)
        self.refused(copyList([], [b"\x03" + bytes(19)]), codes.UNSUPPORTED_SEGMENT, HEADER)
        self.refused(copyList([target(NAA, 0x13)], []), INVALID, HEADER + 5)
        long = bytearray(target(NAA))
        long[7] = 21
        self.refused(copyList([bytes(long)], []), INVALID, HEADER + 7)
        wrong = bytearray(segment(0, 0, 1, 1, 1))
        wrong[3] = 23
        self.refused(copyList([], [bytes(wrong)]), INVALID, HEADER + 2)

    @given(st.binary(max_size=LIST_LIMIT + HEADER))
    def test_any(self, data: bytes) -> None:
        """Whatever comes, it is a list or is refused."""
        try:
            parse(data)
        except CheckCondition as condition:
            self.assertEqual(condition.key, codes.ILLEGAL_REQUEST)
