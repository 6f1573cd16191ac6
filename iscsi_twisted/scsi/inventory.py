# -*- test-case-name: tests.scsi.test_inventory -*-
"""REPORT LUNS, and the unit behind the numbers that are not in its answer."""

from __future__ import annotations

import struct
from typing import Final

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import INexus, ITask
from iscsi_twisted.scsi import cdb, codes, inquiry, sense, vpd
from iscsi_twisted.scsi.lun import encodeLUN
from iscsi_twisted.scsi.table import CommandSet, CommandTable
from iscsi_twisted.scsi.unit import LogicalUnit, reply

COMMANDS = CommandSet()

ALL: Final = 0x02
WELL_KNOWN: Final = 0x01
"""SELECT REPORT: well known logical units only.  There are none."""
LEAST_ALLOCATION: Final = 16
"""A smaller allocation length is refused."""


@COMMANDS.handles(cdb.REPORT_LUNS)
def reportLUNs(unit: LogicalUnit, task: ITask) -> None:
    """REPORT LUNS; SPC-4 6.33."""
    _, select, allocation, _ = cdb.REPORT_LUNS.layout.unpack(task.cdb)
    if select > ALL:
        raise unit.invalidField(task, "select", 7)
    if allocation < LEAST_ALLOCATION:
        raise unit.invalidField(task, "allocation", 7)
    luns = [] if select == WELL_KNOWN else unit.inventory.visible(task.nexus)
    # Whoever asks has learnt of the change.
    unit.inventory.reported(task.nexus)
    reply(task, struct.pack(">I4x", 8 * len(luns)) + b"".join(map(encodeLUN, luns)), allocation)


def notSupported(unit: LogicalUnit, task: ITask) -> None:
    """Refuse what is addressed to no logical unit (SPC-4 table 32, SAM-5 4.8.3)."""
    raise CheckCondition(codes.ILLEGAL_REQUEST, codes.LUN_NOT_SUPPORTED)


_ABSENT = CommandSet()


@_ABSENT.handles(cdb.REQUEST_SENSE)
def requestSense(unit: LogicalUnit, task: ITask) -> None:
    """REQUEST SENSE of an incorrect logical unit: the refusal as data; SPC-4 6.39."""
    _, flags, allocation, _ = cdb.REQUEST_SENSE.layout.unpack(task.cdb)
    condition = CheckCondition(codes.ILLEGAL_REQUEST, codes.LUN_NOT_SUPPORTED)
    reply(task, sense.encode(condition, bool(flags & 0x01)), allocation)


class AbsentUnit(LogicalUnit):
    """What answers for every LUN of a target that has no logical unit."""

    table = CommandTable(inquiry.COMMANDS, COMMANDS, _ABSENT, otherwise=notSupported)
    peripheral = 0x7F
    pages = {0x00: vpd.supportedPages}

    def nexusFound(self, nexus: INexus) -> None:
        """Nothing happens here that anybody needs to be told."""
