# -*- test-case-name: tests.scsi.test_timestamp -*-
"""
What time it is for a unit: REPORT and SET TIMESTAMP (SPC-4 5.2, 6.37, 6.45).

It is that of the machine until somebody sets another one, which then goes on until the target ends.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import Buffer, ITask
from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.cdbprimary import REPORT_TIMESTAMP, SET_TIMESTAMP
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.unit import reply

if TYPE_CHECKING:
    from iscsi_twisted.scsi.disk import DiskUnit

COMMANDS = CommandSet()

SET, OUTSIDE = 2, 3
"""Where the timestamp comes from: SET TIMESTAMP, or a method of our own; SPC-4 table 44."""
LIST: Final = struct.Struct(">4xHI2x")
"""Parameter list of SET TIMESTAMP: milliseconds since the beginning of 1970, in 48 bits."""
_REPORT = struct.Struct(">HBxHI2x")
_MASK: Final = (1 << 48) - 1


@COMMANDS.handles(REPORT_TIMESTAMP)
def reportTimestamp(unit: DiskUnit, task: ITask) -> None:
    """REPORT TIMESTAMP; SPC-4 6.37."""
    _, _, allocation, _ = REPORT_TIMESTAMP.layout.unpack(task.cdb)
    now = int((unit.calendar() + (unit.ahead or 0.0)) * 1000) & _MASK
    origin = OUTSIDE if unit.ahead is None else SET
    reply(task, _REPORT.pack(_REPORT.size - 2, origin, now >> 32, now & 0xFFFFFFFF), allocation)


@COMMANDS.handles(SET_TIMESTAMP)
def setTimestamp(unit: DiskUnit, task: ITask) -> None:
    """SET TIMESTAMP; SPC-4 6.45."""
    _, _, length, _ = SET_TIMESTAMP.layout.unpack(task.cdb)
    if not length:
        task.complete()
    elif length < LIST.size:
        raise unit.refusal(task, codes.PARAMETER_LIST_LENGTH_ERROR, "length")
    else:
        unit.receive(task, LIST.size, _received, unit)


def _received(task: ITask, data: Buffer, unit: DiskUnit) -> None:
    if len(data) < LIST.size:
        raise CheckCondition(codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)
    high, low = LIST.unpack_from(data)
    unit.ahead = (high << 32 | low) / 1000 - unit.calendar()
    unit.attention(codes.TIMESTAMP_CHANGED, but=task.nexus)
    task.complete()
