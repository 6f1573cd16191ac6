# -*- test-case-name: tests.scsi.test_supported -*-
"""What a unit can do, told to an initiator: the command table, and task management (SPC-4 6.35, 6.36)."""

from __future__ import annotations

import struct
from typing import Final

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import ITask
from iscsi_twisted.scsi import cdb
from iscsi_twisted.scsi.cdb import Command
from iscsi_twisted.scsi.codes import ILLEGAL_REQUEST, INVALID_FIELD_IN_CDB
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.unit import LogicalUnit, reply

COMMANDS = CommandSet()

_RCTD: Final = 0x80
"""Return command timeouts descriptors."""
_NO_TIMEOUTS: Final = struct.pack(">H10x", 0x0A)
"""A command timeouts descriptor that promises nothing; SPC-4 6.35.4."""

ALL, ONE, ACTION, EITHER = range(4)
"""Reporting options, SPC-4 table 254."""
NOT_SUPPORTED, AS_STANDARD = 1, 3
"""SUPPORT field, SPC-4 table 258."""


def exists(unit: LogicalUnit, command: Command) -> bool:
    """Whether this very unit has the command."""
    return command.condition is None or bool(getattr(unit, command.condition))


@COMMANDS.handles(cdb.REPORT_OPCODES)
def reportOpcodes(unit: LogicalUnit, task: ITask) -> None:
    """REPORT SUPPORTED OPERATION CODES; SPC-4 6.35."""
    _, _, options, opcode, action, allocation, _ = cdb.REPORT_OPCODES.layout.unpack(task.cdb)
    timeouts = bool(options & _RCTD)
    option = options & 0x07
    if option == ALL:
        reply(task, _all(unit, timeouts), allocation)
        return
    if option > EITHER:
        raise unit.invalidField(task, "options", 2)
    hasActions = unit.table.hasActions(opcode)
    if option == (ONE if hasActions else ACTION) and (hasActions or unit.table.get(opcode, None)):
        # Asked in the wrong way for this operation code.
        raise CheckCondition(ILLEGAL_REQUEST, INVALID_FIELD_IN_CDB, field=2, bit=2)
    command = unit.table.get(opcode, action if hasActions else None)
    if option == EITHER and not hasActions and action:
        command = None
    reply(task, _one(unit, command, timeouts), allocation)


def _all(unit: LogicalUnit, timeouts: bool) -> bytes:
    descriptors = b"".join(_descriptor(each, timeouts) for each in unit.table if exists(unit, each))
    return struct.pack(">I", len(descriptors)) + descriptors


def _descriptor(command: Command, timeouts: bool) -> bytes:
    """A command descriptor of the list of all; SPC-4 6.35.2."""
    action = command.serviceAction
    flags = (0x02 if timeouts else 0) | (0x01 if action is not None else 0)
    head = struct.pack(">BxHxBH", command.opcode, action or 0, flags, command.layout.size)
    return head + _NO_TIMEOUTS if timeouts else head


def _one(unit: LogicalUnit, command: Command | None, timeouts: bool) -> bytes:
    """The answer about one command; SPC-4 6.35.3."""
    if command is None or not exists(unit, command):
        return bytes((0, NOT_SUPPORTED, 0, 0))
    head = struct.pack(">xBH", AS_STANDARD | (0x80 if timeouts else 0), command.layout.size)
    return head + command.usage + (_NO_TIMEOUTS if timeouts else b"")


TASK_MANAGEMENT: Final = 0xFA
"""
ABORT TASK, ABORT TASK SET, CLEAR ACA, CLEAR TASK SET, LOGICAL UNIT RESET, TARGET RESET; SPC-4 6.36.
(iSCSI carries no QUERY functions before RFC 7144, and has no I_T NEXUS RESET.)
"""
_REPD: Final = 0x80
"""Return extended parameter data."""


@COMMANDS.handles(cdb.REPORT_TASK_MANAGEMENT)
def reportTaskManagement(unit: LogicalUnit, task: ITask) -> None:
    """REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS; SPC-4 6.36.  No timeouts are promised."""
    _, _, options, allocation, _ = cdb.REPORT_TASK_MANAGEMENT.layout.unpack(task.cdb)
    if allocation < 4:
        raise unit.invalidField(task, "allocation")
    extended = 12 if options & _REPD else 0
    reply(task, bytes((TASK_MANAGEMENT, 0, 0, extended)) + bytes(extended), allocation)
