# -*- test-case-name: tests.scsi.test_persistent -*-
"""PERSISTENT RESERVE IN and OUT (SPC-4 6.15, 6.16)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import Buffer, ITask, isPending
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.registrations import TYPES, Conflict, Port, Registrations, Told, portOf
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.unit import LogicalUnit, reply

COMMANDS = CommandSet()

LIST: Final = struct.Struct(">QQ4xB3x")
"""The parameter list: reservation key, service action key, flags; SPC-4 6.16.3."""
MOVE_LIST: Final = struct.Struct(">QQxBHI")
"""That of REGISTER AND MOVE, before the TransportID; SPC-4 6.16.4."""
LONGEST: Final = 1024
"""Bytes of a parameter list that anybody needs."""

_SPEC_I_PT, _ALL_TG_PT, _APTPL = 0x08, 0x04, 0x01
_UNREG = 0x02
_NAME, _NAME_AND_ISID = 0x05, 0x45
"""TransportIDs of iSCSI; SPC-4 7.6.4.6."""

TYPE_MASK: Final = b"\xea\x01"
"""All types there are; SPC-4 6.15.4."""

Action = Callable[[Registrations, Port, int, int, int], Told]


# IN


@COMMANDS.handles(cdb.READ_KEYS)
def readKeys(unit: LogicalUnit, task: ITask) -> None:
    """READ KEYS; SPC-4 6.15.2."""
    state = unit.registrations
    keys = b"".join(key.to_bytes(8, "big") for key in state.keys.values())
    _answer(task, struct.pack(">II", state.generation & 0xFFFFFFFF, len(keys)) + keys)


@COMMANDS.handles(cdb.READ_RESERVATION)
def readReservation(unit: LogicalUnit, task: ITask) -> None:
    """READ RESERVATION; SPC-4 6.15.3."""
    state = unit.registrations
    data = b""
    if state.type:
        key = 0 if state.holder is None else state.keys[state.holder]
        data = struct.pack(">Q5xB2x", key, state.type)
    _answer(task, struct.pack(">II", state.generation & 0xFFFFFFFF, len(data)) + data)


@COMMANDS.handles(cdb.REPORT_CAPABILITIES)
def reportCapabilities(unit: LogicalUnit, task: ITask) -> None:
    """REPORT CAPABILITIES; SPC-4 6.15.4.  All types; PTPL_C and PTPL_A where there is a store."""
    capable = 0x01 if unit.store is not None else 0
    kept = 0x01 if unit.registrations.kept else 0
    _answer(task, struct.pack(">HBB2s2x", 8, capable, 0x80 | kept, TYPE_MASK))


@COMMANDS.handles(cdb.READ_FULL_STATUS)
def readFullStatus(unit: LogicalUnit, task: ITask) -> None:
    """READ FULL STATUS; SPC-4 6.15.5."""
    state = unit.registrations
    each = b"".join(_status(state, port, key) for port, key in state.keys.items())
    _answer(task, struct.pack(">II", state.generation & 0xFFFFFFFF, len(each)) + each)


def _status(state: Registrations, port: Port, key: int) -> bytes:
    held = state.holds(port)
    transport = transportID(port)
    head = struct.pack(
        ">Q4xBB4xHI", key, 0x01 if held else 0, state.type if held else 0, port.tag, len(transport)
    )
    return head + transport


def _answer(task: ITask, data: bytes) -> None:
    reply(task, data, int.from_bytes(task.cdb[7:9], "big"))


def transportID(port: Port) -> bytes:
    """The TransportID of an iSCSI initiator port; SPC-4 7.6.4.6."""
    text = f"{port.initiatorName},i,0x{port.isid.hex()}".encode()
    text += bytes(max(4 - len(text) % 4, 20 - len(text)))
    return struct.pack(">BxH", _NAME_AND_ISID, len(text)) + text


def parseTransportID(data: bytes) -> tuple[str, bytes] | None:
    """The name and ISID of an iSCSI initiator port; None if it is none."""
    if len(data) < 4 or data[0] != _NAME_AND_ISID or len(data) < 4 + int.from_bytes(data[2:4], "big"):
        return None
    text = data[4 : 4 + int.from_bytes(data[2:4], "big")].partition(b"\0")[0]
    try:
        name, comma, isid = text.decode().partition(",i,0x")
        number = bytes.fromhex(isid)
    except ValueError:
        return None
    return (name, number) if name and comma and len(number) == 6 else None


# OUT


def _register(state: Registrations, port: Port, key: int, new: int, kind: int) -> Told:
    return state.register(port, key, new)


def _registerIgnoring(state: Registrations, port: Port, key: int, new: int, kind: int) -> Told:
    return state.register(port, None, new)


def _reserve(state: Registrations, port: Port, key: int, new: int, kind: int) -> Told:
    state.reserve(port, key, kind)
    return {}


def _release(state: Registrations, port: Port, key: int, new: int, kind: int) -> Told:
    told = state.release(port, key, kind)
    if told is None:
        raise CheckCondition(codes.ILLEGAL_REQUEST, codes.INVALID_RELEASE)
    return told


def _clear(state: Registrations, port: Port, key: int, new: int, kind: int) -> Told:
    return state.clear(port, key)


def _preempt(state: Registrations, port: Port, key: int, new: int, kind: int) -> Told:
    if not new and state.type and state.holder is not None and state.keys.get(port) == key:
        raise _badList(8)
    return state.preempt(port, key, new, kind)


def _badList(byte: int) -> CheckCondition:
    return CheckCondition(
        codes.ILLEGAL_REQUEST, codes.INVALID_FIELD_IN_PARAMETER_LIST, field=byte, inData=True
    )


_ACTIONS: Final[dict[cdb.Command, tuple[Action, bool]]] = {
    cdb.PR_REGISTER: (_register, False),
    cdb.PR_REGISTER_IGNORING: (_registerIgnoring, False),
    cdb.PR_RESERVE: (_reserve, True),
    cdb.PR_RELEASE: (_release, True),
    cdb.PR_CLEAR: (_clear, False),
    cdb.PR_PREEMPT: (_preempt, True),
    cdb.PR_PREEMPT_AND_ABORT: (_preempt, True),
}
"""What each service action does, and whether it has a scope and a type."""


def _handle(command: cdb.Command, action: Action, typed: bool) -> None:
    def persistentReserveOut(unit: LogicalUnit, task: ITask) -> None:
        if typed and (task.cdb[2] >> 4 or task.cdb[2] & 15 not in TYPES):
            raise unit.invalidField(task, "type", 7 if task.cdb[2] >> 4 else 3)
        _receive(unit, task, LIST.size, _apply, action)

    COMMANDS.handles(command)(persistentReserveOut)


for _command, (_action, _typed) in _ACTIONS.items():
    _handle(_command, _action, _typed)


def _receive(
    unit: LogicalUnit, task: ITask, least: int, then: Callable[..., None], *arguments: object
) -> None:
    """Fetch the parameter list, all of it (SPC-4 6.16.1)."""
    length = int.from_bytes(task.cdb[5:9], "big")
    exact = then is _apply
    if length < least or length > LONGEST or (exact and length != least):
        raise CheckCondition(codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR, field=5)
    unit.receive(task, length, _whole, length, unit, then, arguments)


def _whole(
    task: ITask,
    data: Buffer,
    length: int,
    unit: LogicalUnit,
    then: Callable[..., None],
    arguments: tuple[object, ...],
) -> None:
    if len(data) < length:
        raise CheckCondition(codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)
    if unit.holder is not None:
        # Whoever reserves in the old way keeps the new one out (SPC-2 5.5.1).
        task.fail(codes.RESERVATION_CONFLICT)
        return
    try:
        then(unit, task, bytes(data), *arguments)
    except Conflict:
        task.fail(codes.RESERVATION_CONFLICT)


def _apply(unit: LogicalUnit, task: ITask, data: bytes, action: Action) -> None:
    key, new, flags = LIST.unpack(data)
    _checkFlags(unit, flags, 20)
    state, number = unit.registrations, task.cdb[1] & 0x1F
    told = action(state, portOf(task.nexus), key, new, task.cdb[2] & 15)
    if action in (_register, _registerIgnoring):
        state.kept = bool(flags & _APTPL)
    if number == cdb.PR_PREEMPT_AND_ABORT.serviceAction:
        unit.abortNexuses(
            {port for port, code in told.items() if code == codes.REGISTRATIONS_PREEMPTED}, task
        )
    unit.tellPorts(told)
    _end(unit, task)


def _checkFlags(unit: LogicalUnit, flags: int, byte: int) -> None:
    """@raise CheckCondition: for what cannot be done here, as REPORT CAPABILITIES says."""
    if flags & (_SPEC_I_PT | _ALL_TG_PT) or (flags & _APTPL and unit.store is None):
        raise _badList(byte)


def _end(unit: LogicalUnit, task: ITask) -> None:
    """
    Complete the task, once what has to be kept is kept.

    If that fails the command does, and what it changed holds all the same: to keep somebody out matters more
    than to remember it.
    """
    state, store = unit.registrations, unit.store
    if store is None or not (state.kept or unit.stored):
        task.complete()
        return
    # Until it is known to be gone.
    unit.stored = True
    saved = store.save(state.dump())
    if isPending(saved):
        unit.pend(task, saved, 0, 0, True, _saved, unit, task, state.kept)
    else:
        _saved(None, unit, task, state.kept)


def _saved(_: None, unit: LogicalUnit, task: ITask, kept: bool) -> None:
    unit.stored = kept
    task.complete()


@COMMANDS.handles(cdb.PR_REGISTER_AND_MOVE)
def registerAndMove(unit: LogicalUnit, task: ITask) -> None:
    """REGISTER AND MOVE; SPC-4 5.13.8."""
    _receive(unit, task, MOVE_LIST.size, _move)


def _move(unit: LogicalUnit, task: ITask, data: bytes) -> None:
    key, new, flags, tag, length = MOVE_LIST.unpack_from(data)
    if len(data) != MOVE_LIST.size + length:
        raise CheckCondition(codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)
    _checkFlags(unit, flags & _APTPL, 17)
    port = portOf(task.nexus)
    if unit.registrations.keys.get(port) != key:
        raise Conflict
    found = parseTransportID(data[MOVE_LIST.size :])
    if not new:
        raise _badList(8)
    if found is None or Port(*found, tag) == port:
        raise _badList(MOVE_LIST.size)
    unit.registrations.move(port, key, Port(*found, tag), new, bool(flags & _UNREG))
    unit.registrations.kept = bool(flags & _APTPL)
    unit.reconsider()
    _end(unit, task)
