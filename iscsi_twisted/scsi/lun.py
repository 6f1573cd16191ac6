# -*- test-case-name: tests.scsi.test_lun -*-
"""Logical unit numbers: eight bytes on the wire, an integer here (SAM-5 4.7)."""

from __future__ import annotations

from typing import Final

from iscsi_twisted.errors import CheckCondition, LocalError
from iscsi_twisted.scsi.codes import ILLEGAL_REQUEST, LUN_NOT_SUPPORTED

LAST_LUN: Final = 0xFFFFFF
"""The greatest number that extended flat space addressing can say in four bytes."""
LAST_FLAT: Final = 0x3FFF
"""The greatest number that flat space addressing can say."""

WELL_KNOWN: Final = 1 << 24
"""Well known logical units have their W-LUN and this as their number here, which no other unit can have."""
REPORT_LUNS_UNIT: Final = WELL_KNOWN | 0x01
"""The REPORT LUNS well known logical unit; SPC-4 8.2."""

_PERIPHERAL: Final = 0
_FLAT: Final = 1
_EXTENDED: Final = 3
_WELL_KNOWN: Final = 0xC1
"""First byte: extended addressing, one byte of number, method 1 (SAM-5 4.7.7.5.1)."""
_EXTENDED_FLAT: Final = 0xD2
"""First byte: extended addressing, three bytes of number, method 2 (SAM-5 4.7.7.5.2)."""
_LONG_FLAT: Final = 0xE2
"""The same with five bytes of number (SAM-5 4.7.7.5.3)."""


def encodeLUN(lun: int) -> bytes:
    """
    The eight bytes for a number: peripheral device addressing to 255, flat space addressing to 16383,
    extended flat space addressing above.

    @raise LocalError: if it is not in 0 to L{LAST_LUN}, nor that of a well known logical unit.
    """
    if WELL_KNOWN < lun <= WELL_KNOWN + 0xFF:
        return bytes((_WELL_KNOWN, lun - WELL_KNOWN)) + bytes(6)
    if not 0 <= lun <= LAST_LUN:
        raise LocalError(f"LUN {lun} is not in 0 to {LAST_LUN}")
    if lun > LAST_FLAT:
        return (_EXTENDED_FLAT << 24 | lun).to_bytes(4, "big") + bytes(4)
    method = _PERIPHERAL if lun < 256 else _FLAT
    return (method << 14 | lun).to_bytes(2, "big") + bytes(6)


def decodeLUN(field: bytes) -> int:
    """
    The number in eight bytes, by whichever of these addressing methods.

    @raise CheckCondition: LOGICAL UNIT NOT SUPPORTED, for another method, another bus, or a second level.
    """
    first = field[0] << 8 | field[1]
    method = first >> 14
    lun = first & LAST_FLAT
    if method == _EXTENDED:
        return _extended(field)
    if any(field[2:8]) or method > _FLAT or (method == _PERIPHERAL and lun > 255):
        raise _notSupported()
    return lun


def _extended(field: bytes) -> int:
    if field[0] == _WELL_KNOWN and not any(field[2:8]):
        return WELL_KNOWN | field[1]
    if field[0] == _EXTENDED_FLAT and not any(field[4:8]):
        return int.from_bytes(field[1:4], "big")
    if field[0] == _LONG_FLAT and not any((*field[1:3], *field[6:8])):
        return int.from_bytes(field[3:6], "big")
    raise _notSupported()


def _notSupported() -> CheckCondition:
    return CheckCondition(ILLEGAL_REQUEST, LUN_NOT_SUPPORTED)
