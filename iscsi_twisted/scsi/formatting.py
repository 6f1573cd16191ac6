# -*- test-case-name: tests.scsi.test_formatting -*-
"""
FORMAT UNIT: all blocks as new (SBC-3 5.3).

Blocks of a thin unit are deallocated, those of any other become zeros, or whatever pattern is asked for.
A file has no defects to be told of: the defect list has to be empty.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import Buffer, ITask
from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.cdblong import FORMAT_UNIT
from iscsi_twisted.scsi.overhaul import ERASE, FORMAT, NOTHING, WRITE, Overhaul, Plan
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.transfer import guard

if TYPE_CHECKING:
    from iscsi_twisted.scsi.disk import DiskUnit

COMMANDS = CommandSet()

_PROTECTION: Final = 0xC0
"""FMTPINFO."""
_LONG, _DATA, _COMPLETE, _LIST_FORMAT = 0x20, 0x10, 0x08, 0x07

# Of the parameter list header (SBC-3 5.3.2.2)
_USAGE: Final = 0x07
"""PROTECTION FIELD USAGE."""
_VALID, _PATTERN, _IMMED = 0x80, 0x08, 0x02
_OPTIONS: Final = 0x78
"""DPRY, DCRT, STPF and IP, which FOV makes valid.  The first three are about defects; there are none."""
_FAST: Final = 1
"""FFMT: the medium may be left as it is (SBC-4 5.4.1)."""
_DEFAULT, _REPEATED = 0, 1
"""Initialization pattern types (SBC-3 5.3.2.3)."""


@COMMANDS.handles(FORMAT_UNIT)
def formatUnit(unit: DiskUnit, task: ITask) -> None:
    """FORMAT UNIT; SBC-3 5.3."""
    _, flags, fast, _ = FORMAT_UNIT.layout.unpack(task.cdb)
    guard(unit, task)
    if flags & _PROTECTION:
        raise unit.invalidField(task, "flags", 7)
    if fast & 0x03 > _FAST:
        raise unit.invalidField(task, "fast", 1)
    fast &= _FAST
    if flags & _DATA:
        head = 8 if flags & _LONG else 4
        most = head + 4 + unit.blockSize
        unit.receive(task, min(task.expected, most), _received, unit, head, fast)
    elif flags & (_COMPLETE | _LIST_FORMAT):
        raise unit.invalidField(task, "flags", 3 if flags & _COMPLETE else 2)
    else:
        _begin(unit, task, None, fast, False)


def _invalid(place: int, bit: int | None = None) -> CheckCondition:
    return CheckCondition(
        codes.ILLEGAL_REQUEST, codes.INVALID_FIELD_IN_PARAMETER_LIST, field=place, bit=bit, inData=True
    )


def _tooShort() -> CheckCondition:
    return CheckCondition(codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)


def _received(task: ITask, data: Buffer, unit: DiskUnit, head: int, fast: int) -> None:
    if len(data) < head:
        raise _tooShort()
    usage, options = data[0], data[1]
    if usage & _USAGE:
        raise _invalid(0, 2)
    if not options & _VALID and options & _OPTIONS:
        raise _invalid(1, (options & _OPTIONS).bit_length() - 1)
    if head == 8 and data[3]:
        raise _invalid(3, 7)
    (defects,) = struct.unpack_from(">I" if head == 8 else ">H", data, head // 2)
    if defects:
        raise _invalid(head // 2)
    pattern = _pattern(unit, bytes(data), head) if options & _PATTERN else None
    _begin(unit, task, pattern, fast, bool(options & _IMMED))


def _pattern(unit: DiskUnit, data: bytes, head: int) -> bytes | None:
    """
    The pattern of an initialization pattern descriptor (SBC-3 5.3.2.3).

    @return: None for the default one.
    """
    if len(data) < head + 4:
        raise _tooShort()
    modifier, kind, length = struct.unpack_from(">BBH", data, head)
    if modifier:
        # Patterns with LBAs in them, and 'security initialize': obsolete.
        raise _invalid(head, 7)
    if kind > _REPEATED:
        raise _invalid(head + 1)
    if (kind == _REPEATED) != bool(length) or length > unit.blockSize:
        raise _invalid(head + 2)
    if len(data) < head + 4 + length:
        raise _tooShort()
    return data[head + 4 : head + 4 + length] if length else None


def _begin(unit: DiskUnit, task: ITask, pattern: bytes | None, fast: int, immediate: bool) -> None:
    if unit.isOverhauled:
        assert unit.closure is not None
        raise unit.closure.condition()
    if pattern is not None:
        plan = Plan(FORMAT, WRITE, pattern)
    else:
        plan = Plan(FORMAT, NOTHING if fast and not unit.thin else ERASE)
    Overhaul(unit, plan, cdb=task.cdb, asker=task, immediate=immediate).begin()
