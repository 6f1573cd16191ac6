# -*- test-case-name: tests.scsi.test_defects -*-
"""READ DEFECT DATA: a unit of files and devices has no defect lists but empty ones (SBC-3 5.17, 5.18)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import ITask
from iscsi_twisted.scsi import cdb
from iscsi_twisted.scsi.codes import ILLEGAL_REQUEST, INVALID_FIELD_IN_CDB
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.unit import reply

if TYPE_CHECKING:
    from iscsi_twisted.scsi.disk import DiskUnit

COMMANDS = CommandSet()


@COMMANDS.handles(cdb.READ_DEFECT_DATA_10)
def readDefectData10(unit: DiskUnit, task: ITask) -> None:
    """READ DEFECT DATA (10); SBC-3 5.17."""
    _, lists, allocation, _ = cdb.READ_DEFECT_DATA_10.layout.unpack(task.cdb)
    reply(task, struct.pack(">xB2x", _lists(lists, 2)), allocation)


@COMMANDS.handles(cdb.READ_DEFECT_DATA_12)
def readDefectData12(unit: DiskUnit, task: ITask) -> None:
    """READ DEFECT DATA (12); SBC-3 5.18.  No index leads into an empty list, so none is looked at."""
    _, lists, allocation, _ = cdb.READ_DEFECT_DATA_12.layout.unpack(task.cdb)
    reply(task, struct.pack(">xB6x", _lists(lists, 1)), allocation)


def _lists(asked: int, field: int) -> int:
    """
    The lists that are there, and their format: those that were asked for, as an empty list has any format.

    @raise CheckCondition: if the format is the reserved one.
    """
    if asked & 0x07 == 0x07:
        raise CheckCondition(ILLEGAL_REQUEST, INVALID_FIELD_IN_CDB, field=field, bit=2)
    return asked & 0x1F
