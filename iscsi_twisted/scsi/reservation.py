# -*- test-case-name: tests.scsi.test_reservation -*-
"""
RESERVE and RELEASE: a unit for one nexus alone (SPC-2 7.16 to 7.22).

A reservation ends with RELEASE, with a reset, and with its nexus.
"""

from __future__ import annotations

from iscsi_twisted.interfaces import ITask
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.registrations import portOf
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.unit import LogicalUnit

COMMANDS = CommandSet()

_THIRD_PARTY = 0x10
_LONG_ID = 0x02
_EXTENT = 0x01
"""Of a part of the medium: obsolete since SPC-2."""


@COMMANDS.handles(cdb.RESERVE_6)
def reserve6(unit: LogicalUnit, task: ITask) -> None:
    """RESERVE (6); SPC-2 7.21."""
    reserve(unit, task, cdb.RESERVE_6)


@COMMANDS.handles(cdb.RESERVE_10)
def reserve10(unit: LogicalUnit, task: ITask) -> None:
    """RESERVE (10); SPC-2 7.20."""
    reserve(unit, task, cdb.RESERVE_10)


@COMMANDS.handles(cdb.RELEASE_6)
def release6(unit: LogicalUnit, task: ITask) -> None:
    """RELEASE (6); SPC-2 7.17."""
    release(unit, task, cdb.RELEASE_6)


@COMMANDS.handles(cdb.RELEASE_10)
def release10(unit: LogicalUnit, task: ITask) -> None:
    """RELEASE (10); SPC-2 7.16."""
    release(unit, task, cdb.RELEASE_10)


def reserve(unit: LogicalUnit, task: ITask, command: cdb.Command) -> None:
    """Whoever gets here finds the unit free, or has it already."""
    _refuseOthers(unit, task, command)
    if not _compatible(unit, task):
        unit.reserve(task.nexus)
        task.complete()


def release(unit: LogicalUnit, task: ITask, command: cdb.Command) -> None:
    """Give the unit back; without effect, and no error, for who has not reserved it."""
    _refuseOthers(unit, task, command)
    if not _compatible(unit, task):
        if unit.holder is task.nexus:
            unit.reserve(None)
        task.complete()


def _compatible(unit: LogicalUnit, task: ITask) -> bool:
    """
    Where there are registrations this way of reserving is closed; but to whom a persistent reservation lets
    do everything it looks as if it were open (CRH; SPC-4 5.13.3).

    @return: whether the task was ended.
    """
    state = unit.registrations
    if not state.keys:
        return False
    if state.type and not state.restricts(portOf(task.nexus)):
        task.complete()
    else:
        unit.turnAway(task, codes.RESERVATION_CONFLICT)
    return True


def _refuseOthers(unit: LogicalUnit, task: ITask, command: cdb.Command) -> None:
    """Refuse reservations for a third party, and of extents."""
    _, flags, _ = command.layout.unpack(task.cdb)
    for bit, flag in ((4, _THIRD_PARTY), (1, _LONG_ID), (0, _EXTENT)):
        if flags & flag & command.usage[1]:
            raise unit.invalidField(task, "flags", bit)
