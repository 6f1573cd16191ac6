# -*- test-case-name: tests.scsi.test_primary -*-
"""Commands of every device type that say how the unit is (SPC-4)."""

from __future__ import annotations

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import ITask
from iscsi_twisted.scsi import cdb, codes, sense
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.unit import LogicalUnit, reply

COMMANDS = CommandSet()


@COMMANDS.handles(cdb.TEST_UNIT_READY)
def testUnitReady(unit: LogicalUnit, task: ITask) -> None:
    """TEST UNIT READY; SPC-4 6.47.  Whoever gets here is ready."""
    task.complete()


@COMMANDS.handles(cdb.REQUEST_SENSE)
def requestSense(unit: LogicalUnit, task: ITask) -> None:
    """REQUEST SENSE; SPC-4 6.39: what is pending, as data, which clears it."""
    _, flags, allocation, _ = cdb.REQUEST_SENSE.layout.unpack(task.cdb)
    code = unit.takeAttention(task.nexus)
    if code is not None:
        condition = CheckCondition(codes.UNIT_ATTENTION, code)
    else:
        nothing = CheckCondition(codes.NO_SENSE, codes.NO_ADDITIONAL_SENSE)
        condition = unit.takeBelated(task.nexus) or unit.pendingCondition() or nothing
    reply(task, sense.encode(condition, bool(flags & 0x01)), allocation)
