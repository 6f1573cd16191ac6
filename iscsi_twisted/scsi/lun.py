# -*- test-case-name: tests.scsi.test_lun -*-
"""Logical unit numbers: eight bytes on the wire, an integer here (SAM-5 4.7)."""

from __future__ import annotations

from typing import Final

from iscsi_twisted.errors import CheckCondition, LocalError
from iscsi_twisted.scsi.codes import ILLEGAL_REQUEST, LUN_NOT_SUPPORTED

LAST_LUN: Final = 0x3FFF
"""The greatest number that flat space addressing can say."""

_PERIPHERAL: Final = 0
_FLAT: Final = 1


def encodeLUN(lun: int) -> bytes:
    """
    The eight bytes for a number: peripheral device addressing to 255, flat space addressing above.

    @raise LocalError: if it is not in 0 to L{LAST_LUN}.
    """
    if not 0 <= lun <= LAST_LUN:
        raise LocalError(f"LUN {lun} is not in 0 to {LAST_LUN}")
    method = _PERIPHERAL if lun < 256 else _FLAT
    return (method << 14 | lun).to_bytes(2, "big") + bytes(6)


def decodeLUN(field: bytes) -> int:
    """
    The number in eight bytes, by either addressing method.

    @raise CheckCondition: LOGICAL UNIT NOT SUPPORTED, for another method, another bus, or a second level.
    """
    first = field[0] << 8 | field[1]
    method = first >> 14
    lun = first & LAST_LUN
    if any(field[2:8]) or method > _FLAT or (method == _PERIPHERAL and lun > 255):
        raise CheckCondition(ILLEGAL_REQUEST, LUN_NOT_SUPPORTED)
    return lun
