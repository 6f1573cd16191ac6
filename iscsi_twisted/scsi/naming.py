# -*- test-case-name: tests.scsi.test_naming -*-
"""Names that initiators give to a unit: REPORT and SET IDENTIFYING INFORMATION (SPC-4 6.32, 6.43)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import Buffer, ITask, isPending
from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.cdbprimary import REPORT_IDENTIFYING, SET_IDENTIFYING
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.unit import reply

if TYPE_CHECKING:
    from iscsi_twisted.scsi.disk import DiskUnit

COMMANDS = CommandSet()

PERIPHERAL, TEXT, SUPPORTED = 0, 2, 0x7F
"""Types of identifying information, SPC-4 table 241."""
LONGEST: Final = {PERIPHERAL: 512, TEXT: 256}
"""Bytes of each type at most."""


@COMMANDS.handles(REPORT_IDENTIFYING)
def reportIdentifying(unit: DiskUnit, task: ITask) -> None:
    """REPORT IDENTIFYING INFORMATION; SPC-4 6.32."""
    _, _, allocation, kind, _ = REPORT_IDENTIFYING.layout.unpack(task.cdb)
    kind >>= 1
    assert unit.nonvolatile is not None
    if kind == SUPPORTED:
        data = b"".join(struct.pack(">BxH", each << 1, most) for each, most in sorted(LONGEST.items()))
    elif kind in LONGEST:
        data = unit.nonvolatile.now.information.get(kind, b"")
    else:
        raise unit.invalidField(task, "type", 7)
    reply(task, struct.pack(">xxH", len(data)) + data, allocation)


@COMMANDS.handles(SET_IDENTIFYING)
def setIdentifying(unit: DiskUnit, task: ITask) -> None:
    """SET IDENTIFYING INFORMATION; SPC-4 6.43.  No list takes the information away."""
    _, _, length, kind, _ = SET_IDENTIFYING.layout.unpack(task.cdb)
    kind >>= 1
    if kind not in LONGEST:
        raise unit.invalidField(task, "type", 7)
    if length > LONGEST[kind]:
        raise unit.invalidField(task, "length")
    if length:
        unit.receive(task, length, _received, unit, kind)
    else:
        _received(task, b"", unit, kind)


def _received(task: ITask, data: Buffer, unit: DiskUnit, kind: int) -> None:
    """Keep it, durably; then tell the others."""
    value = bytes(data)
    if kind == TEXT:
        _checkText(value)
    assert unit.nonvolatile is not None
    saved = unit.nonvolatile.inform(kind, value)
    if isPending(saved):
        unit.pend(task, saved, 0, 0, True, _kept, unit, task)
    else:
        _kept(None, unit, task)


def _checkText(value: bytes) -> None:
    """@raise CheckCondition: for what is not UTF-8 (SPC-4 4.3.2)."""
    try:
        value.decode()
    except UnicodeDecodeError as error:
        raise CheckCondition(
            codes.ILLEGAL_REQUEST, codes.INVALID_FIELD_IN_PARAMETER_LIST, field=error.start, inData=True
        ) from None


def _kept(_: None, unit: DiskUnit, task: ITask) -> None:
    unit.attention(codes.DEVICE_IDENTIFIER_CHANGED, but=task.nexus)
    task.complete()
