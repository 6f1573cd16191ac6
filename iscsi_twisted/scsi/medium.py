# -*- test-case-name: tests.scsi.test_medium -*-
"""
START STOP UNIT and PREVENT ALLOW MEDIUM REMOVAL: the medium of a removable unit (SBC-3 5.25, 5.14).

Nothing here rotates or saves power: all power conditions are the same to a unit, and it can always
be used while its medium is in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import ITask
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.operation import Sequence
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.transfer import flushes

if TYPE_CHECKING:
    from iscsi_twisted.scsi.disk import DiskUnit

COMMANDS = CommandSet()

_POWER_CONDITION = 0xF0
_NO_FLUSH = 0x04
_LOEJ = 0x02
_START = 0x01
_PREVENT = 0x01
_OBSOLETE = 0x02
"""Of PREVENT: for medium changers."""


@COMMANDS.handles(cdb.START_STOP_UNIT)
def startStopUnit(unit: DiskUnit, task: ITask) -> None:
    """START STOP UNIT; SBC-3 5.25."""
    _, _, _, options, _ = cdb.START_STOP_UNIT.layout.unpack(task.cdb)
    if unit.reservedAgainst(task.nexus) and options & (_POWER_CONDITION | _START) != _START:
        unit.turnAway(task, codes.RESERVATION_CONFLICT)
    elif options & _POWER_CONDITION:
        # LOEJ and START are then ignored.
        task.complete()
    elif unit.onlyReads(task.nexus) and options & (_LOEJ | _START) != _START:
        # Others are using it; to start it harms nobody.
        raise CheckCondition(codes.DATA_PROTECT, codes.WRITE_PROTECTED)
    elif options & _LOEJ:
        _loadOrEject(unit, task, bool(options & _START))
    elif options & (_START | _NO_FLUSH) or unit.notReady:
        _turned(None, unit, task, bool(options & _START))
    else:
        Sequence(unit, task, flushes(unit), _turned, unit, task, False).proceed()


def _turned(_: None, unit: DiskUnit, task: ITask, running: bool) -> None:
    """It was started or stopped."""
    unit.started(running)
    task.complete()


def _loadOrEject(unit: DiskUnit, task: ITask, load: bool) -> None:
    if not unit.removable:
        raise unit.invalidField(task, "options", 1)
    if unit.prevents and not (load and not unit.ejected):
        # What is locked moves neither way.
        raise CheckCondition(codes.ILLEGAL_REQUEST, codes.MEDIUM_REMOVAL_PREVENTED)
    if load:
        unit.load(task.nexus)
        task.complete()
    elif unit.notReady:
        _ejected(None, unit, task)
    else:
        Sequence(unit, task, flushes(unit), _ejected, unit, task).proceed()


def _ejected(_: None, unit: DiskUnit, task: ITask) -> None:
    unit.eject()
    task.complete()


@COMMANDS.handles(cdb.PREVENT_ALLOW)
def preventAllow(unit: DiskUnit, task: ITask) -> None:
    """PREVENT ALLOW MEDIUM REMOVAL; SBC-3 5.14: for each nexus, until it allows again, or a reset."""
    _, options, _ = cdb.PREVENT_ALLOW.layout.unpack(task.cdb)
    if options & _OBSOLETE:
        raise unit.invalidField(task, "options", 1)
    if not options & _PREVENT:
        unit.prevents.discard(task.nexus)
    elif unit.reservedAgainst(task.nexus):
        unit.turnAway(task, codes.RESERVATION_CONFLICT)
        return
    elif unit.onlyReads(task.nexus):
        raise CheckCondition(codes.DATA_PROTECT, codes.WRITE_PROTECTED)
    else:
        unit.prevents.add(task.nexus)
    task.complete()
