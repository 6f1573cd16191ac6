# -*- test-case-name: tests.scsi.test_portgroups -*-
"""REPORT and SET TARGET PORT GROUPS (SPC-4 6.37, 6.45)."""

from __future__ import annotations

import struct
from typing import Final

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import Buffer, ITask
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.paths import BY_COMMAND, SETTABLE
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.unit import LogicalUnit, reply

COMMANDS = CommandSet()

PREFERRED: Final = 0x80
SUPPORTED: Final = 0xCF
"""T_SUP, O_SUP, U_SUP, S_SUP, AN_SUP and AO_SUP: all states but LBA dependent; SPC-4 table 295."""
LENGTH_ONLY, EXTENDED = range(2)
"""Parameter data formats; SPC-4 table 293."""
LONGEST: Final = 4 + 4 * 1024
"""Bytes of the parameter list of SET TARGET PORT GROUPS that anybody needs."""

_GROUP = struct.Struct(">BBHxBxBxxH")
"""A target port group descriptor with its one target port; SPC-4 table 295."""


@COMMANDS.handles(cdb.REPORT_TARGET_PORT_GROUPS)
def reportTargetPortGroups(unit: LogicalUnit, task: ITask) -> None:
    """REPORT TARGET PORT GROUPS; SPC-4 6.37."""
    _, action, allocation, _ = cdb.REPORT_TARGET_PORT_GROUPS.layout.unpack(task.cdb)
    form = action >> 5
    if form > EXTENDED:
        raise unit.invalidField(task, "action", 7)
    paths = unit.paths
    groups = b"".join(
        _GROUP.pack(
            (PREFERRED if group in paths.preferred else 0) | paths.state(group),
            SUPPORTED,
            group,
            paths.causes.get(group, 0),
            1,
            group,
        )
        for group in paths.groups
    )
    # How long a transition takes is not told.
    head = struct.pack(">BBxx", EXTENDED << 4, 0) if form == EXTENDED else b""
    reply(task, struct.pack(">I", len(head + groups)) + head + groups, allocation)


@COMMANDS.handles(cdb.SET_TARGET_PORT_GROUPS)
def setTargetPortGroups(unit: LogicalUnit, task: ITask) -> None:
    """SET TARGET PORT GROUPS; SPC-4 6.45."""
    _, _, length, _ = cdb.SET_TARGET_PORT_GROUPS.layout.unpack(task.cdb)
    if not length:
        task.complete()
    elif length % 4 or length > LONGEST:
        raise unit.refusal(task, codes.PARAMETER_LIST_LENGTH_ERROR, "length")
    else:
        unit.receive(task, length, _set, unit, length)


def _set(task: ITask, data: Buffer, unit: LogicalUnit, length: int) -> None:
    if len(data) < length:
        raise CheckCondition(codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)
    states: dict[int, int] = {}
    for place in range(4, len(data), 4):
        first, group = struct.unpack_from(">BxH", data, place)
        state = first & 0x0F
        if state not in SETTABLE:
            raise _invalid(place, 3)
        # OFFLINE is of a target port, all others of a group; here they have the same number.
        if group not in unit.paths.groups or states.get(group, state) != state:
            raise _invalid(place + 2)
        states[group] = state
    unit.setAccess(states, task.nexus, BY_COMMAND)
    task.complete()


def _invalid(place: int, bit: int | None = None) -> CheckCondition:
    return CheckCondition(
        codes.ILLEGAL_REQUEST, codes.INVALID_FIELD_IN_PARAMETER_LIST, field=place, bit=bit, inData=True
    )
