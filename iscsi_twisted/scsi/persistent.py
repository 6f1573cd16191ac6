# -*- test-case-name: tests.scsi.test_persistent,tests.scsi.test_reservationports -*-
"""PERSISTENT RESERVE IN and OUT (SPC-4 6.15, 6.16)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import Buffer, IReservationStore, ITask, Pending, isPending
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.registrations import (
    READERS,
    TYPES,
    Conflict,
    Full,
    Port,
    Registrations,
    Told,
    portOf,
)
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.transportid import parseTransportID, parseTransportIDs, transportID
from iscsi_twisted.scsi.unit import LogicalUnit, reply

COMMANDS = CommandSet()

LIST: Final = struct.Struct(">QQ4xB3x")
"""The parameter list: reservation key, service action key, flags; SPC-4 6.16.3."""
MOVE_LIST: Final = struct.Struct(">QQxBHI")
"""That of REGISTER AND MOVE, before the TransportID; SPC-4 6.16.4."""
LONGEST: Final = 1 << 14
"""Bytes of a parameter list that anybody needs: some sixty TransportIDs with the longest names."""

_SPEC_I_PT, _ALL_TG_PT, _APTPL = 0x08, 0x04, 0x01
_UNREG = 0x02
_RLR_C, _CRH, _SIP_C, _ATP_C, _PTPL_C = 0x80, 0x10, 0x08, 0x04, 0x01
"""Bits of REPORT CAPABILITIES; SPC-4 6.15.4."""
_LIST_LENGTH = struct.Struct(">I")
"""Of TransportIDs, after the parameter list."""

TYPE_MASK: Final = b"\xea\x01"
"""All types there are; SPC-4 6.15.4."""

Action = Callable[[Registrations, Port, int, int, int], Told]


# IN


def _known(unit: LogicalUnit) -> Registrations:
    """
    The state.

    @raise CheckCondition: if it was lost.
    """
    if unit.registrations.lost:
        raise CheckCondition(codes.HARDWARE_ERROR, codes.RESERVATIONS_LOST)
    return unit.registrations


@COMMANDS.handles(cdb.READ_KEYS)
def readKeys(unit: LogicalUnit, task: ITask) -> None:
    """READ KEYS; SPC-4 6.15.2."""
    state = _known(unit)
    keys = b"".join(key.to_bytes(8, "big") for key in state.keys.values())
    _answer(task, struct.pack(">II", state.generation & 0xFFFFFFFF, len(keys)) + keys)


@COMMANDS.handles(cdb.READ_RESERVATION)
def readReservation(unit: LogicalUnit, task: ITask) -> None:
    """READ RESERVATION; SPC-4 6.15.3."""
    state = _known(unit)
    data = b""
    if state.type:
        key = 0 if state.holder is None else state.keys[state.holder]
        data = struct.pack(">Q5xB2x", key, state.type)
    _answer(task, struct.pack(">II", state.generation & 0xFFFFFFFF, len(data)) + data)


@COMMANDS.handles(cdb.REPORT_CAPABILITIES)
def reportCapabilities(unit: LogicalUnit, task: ITask) -> None:
    """REPORT CAPABILITIES; SPC-4 6.15.4.  All that there is; PTPL_C and PTPL_A where there is a store."""
    capable = _RLR_C | _CRH | _SIP_C | _ATP_C | (_PTPL_C if unit.store is not None else 0)
    kept = 0x01 if unit.registrations.kept and not unit.unkept else 0
    _answer(task, struct.pack(">HBB2s2x", 8, capable, 0x80 | kept, TYPE_MASK))


@COMMANDS.handles(cdb.READ_FULL_STATUS)
def readFullStatus(unit: LogicalUnit, task: ITask) -> None:
    """READ FULL STATUS; SPC-4 6.15.5."""
    state = _known(unit)
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


# OUT


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
    if not new and state.type and state.holder is not None and state.keyOf(port) == key != 0:
        raise _badList(8)
    return state.preempt(port, key, new, kind)


def _badList(byte: int, bit: int | None = None) -> CheckCondition:
    return CheckCondition(
        codes.ILLEGAL_REQUEST, codes.INVALID_FIELD_IN_PARAMETER_LIST, field=byte, bit=bit, inData=True
    )


_ACTIONS: Final[dict[cdb.Command, tuple[Action, bool]]] = {
    cdb.PR_RESERVE: (_reserve, True),
    cdb.PR_RELEASE: (_release, True),
    cdb.PR_CLEAR: (_clear, False),
    cdb.PR_PREEMPT: (_preempt, True),
    cdb.PR_PREEMPT_AND_ABORT: (_preempt, True),
}
"""What each service action that is like the others does, and whether it has a scope and a type."""


def _checkType(unit: LogicalUnit, task: ITask) -> None:
    """@raise CheckCondition: for a scope that is not the unit, or a type that there is not."""
    if task.cdb[2] >> 4 or task.cdb[2] & 15 not in TYPES:
        raise unit.invalidField(task, "type", 7 if task.cdb[2] >> 4 else 3)


def _handle(command: cdb.Command, action: Action, typed: bool) -> None:
    def persistentReserveOut(unit: LogicalUnit, task: ITask) -> None:
        if typed:
            _checkType(unit, task)
        _receive(unit, task, LIST.size, LIST.size, _apply, action)

    COMMANDS.handles(command)(persistentReserveOut)


for _command, (_action, _typed) in _ACTIONS.items():
    _handle(_command, _action, _typed)


def _receive(
    unit: LogicalUnit, task: ITask, least: int, most: int, then: Callable[..., None], *arguments: object
) -> None:
    """Fetch the parameter list, all of it (SPC-4 6.16.1)."""
    length = int.from_bytes(task.cdb[5:9], "big")
    if not least <= length <= most:
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
        raise _wrongLength()
    if unit.holder is not None:
        # Whoever reserves in the old way keeps the new one out (SPC-2 5.5.1).
        unit.turnAway(task, codes.RESERVATION_CONFLICT)
        return
    if then is not _replace:
        _known(unit)
    try:
        then(unit, task, bytes(data), *arguments)
    except Conflict:
        unit.turnAway(task, codes.RESERVATION_CONFLICT)
    except Full:
        raise CheckCondition(codes.ILLEGAL_REQUEST, codes.INSUFFICIENT_REGISTRATIONS) from None


def _wrongLength() -> CheckCondition:
    return CheckCondition(codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)


@COMMANDS.handles(cdb.PR_REGISTER)
def register(unit: LogicalUnit, task: ITask) -> None:
    """REGISTER; SPC-4 5.13.7, table 66."""
    _receive(unit, task, LIST.size, LONGEST, _register)


def _register(unit: LogicalUnit, task: ITask, data: bytes) -> None:
    key, new, flags = LIST.unpack_from(data)
    state, own = unit.registrations, portOf(task.nexus)
    if not flags & _SPEC_I_PT:
        if len(data) != LIST.size:
            raise _wrongLength()
        _enter(unit, task, key, new, flags, [own])
        return
    names = _specified(data)
    if state.keyOf(own) != key:
        raise Conflict
    # Only who registers for the first time may do it for others.
    if key or not new:
        raise _badList(20)
    ports = [own, *(Port(*each, own.tag) for each in names)]
    if any(state.isTaken(port) for port in _everywhere(unit, ports, flags)):
        raise _badList(LIST.size + _LIST_LENGTH.size)
    _enter(unit, task, key, new, flags, ports)


def _specified(data: bytes) -> list[tuple[str, bytes]]:
    """The TransportIDs after a parameter list."""
    begin = LIST.size + _LIST_LENGTH.size
    if len(data) < begin or len(data) != begin + _LIST_LENGTH.unpack_from(data, LIST.size)[0]:
        raise _wrongLength()
    names = parseTransportIDs(data[begin:])
    if names is None:
        raise _badList(begin)
    return names


@COMMANDS.handles(cdb.PR_REGISTER_IGNORING)
def registerIgnoring(unit: LogicalUnit, task: ITask) -> None:
    """REGISTER AND IGNORE EXISTING KEY; SPC-4 5.13.7, table 67."""
    _receive(unit, task, LIST.size, LIST.size, _registerIgnoring)


def _registerIgnoring(unit: LogicalUnit, task: ITask, data: bytes) -> None:
    _, new, flags = LIST.unpack(data)
    if flags & _SPEC_I_PT:
        raise _badList(20, 3)
    _enter(unit, task, None, new, flags, [portOf(task.nexus)])


def _everywhere(unit: LogicalUnit, ports: list[Port], flags: int) -> list[Port]:
    """These ports, with ALL_TG_PT at all target ports; each once, the first one first."""
    if not flags & _ALL_TG_PT:
        return list(dict.fromkeys(ports))
    tags = dict.fromkeys((ports[0].tag, *(each.group for each in unit.inventory.ports)))
    return list(dict.fromkeys(port._replace(tag=tag) for tag in tags for port in ports))


def _enter(unit: LogicalUnit, task: ITask, key: int | None, new: int, flags: int, ports: list[Port]) -> None:
    reader = unit.onlyReads(task.nexus)
    if reader and flags & (_SPEC_I_PT | _ALL_TG_PT | _APTPL):
        raise CheckCondition(codes.DATA_PROTECT, codes.WRITE_PROTECTED)
    _checkStore(unit, flags, 20)
    state = unit.registrations
    own, *also = _everywhere(unit, ports, flags)
    if reader and new and not state.isTaken(own) and len(state.keys) >= READERS:
        raise Full
    told = state.register(own, key, new, also)
    if not reader:
        # Whether it is kept is for those who may write to say.
        state.kept = bool(flags & _APTPL)
    unit.tellPorts(told)
    _end(unit, task)


def _apply(unit: LogicalUnit, task: ITask, data: bytes, action: Action) -> None:
    key, new, flags = LIST.unpack(data)
    if flags & _SPEC_I_PT:
        raise _badList(20, 3)
    state, number = unit.registrations, task.cdb[1] & 0x1F
    told = action(state, portOf(task.nexus), key, new, task.cdb[2] & 15)
    if number == cdb.PR_PREEMPT_AND_ABORT.serviceAction:
        unit.abortNexuses(
            {port for port, code in told.items() if code == codes.REGISTRATIONS_PREEMPTED}, task
        )
    unit.tellPorts(told)
    _end(unit, task)


def _checkStore(unit: LogicalUnit, flags: int, byte: int) -> None:
    """@raise CheckCondition: if this is to be kept, and there is nowhere to keep it (REPORT CAPABILITIES)."""
    if flags & _APTPL and unit.store is None:
        raise _badList(byte, 0)


def _end(unit: LogicalUnit, task: ITask) -> None:
    """
    Complete the task, once what has to be kept is kept.

    If that fails the command does, and what it changed holds all the same: to keep somebody out matters more
    than to remember it.
    """
    store = unit.store
    if store is None or not (unit.registrations.kept or unit.stored):
        task.complete()
        return
    saved = _save(unit, store)
    if isPending(saved):
        unit.pend(task, saved, 0, 0, True, _saved, task)
    else:
        task.complete()


def _saved(_: object, task: ITask) -> None:
    task.complete()


def _save(unit: LogicalUnit, store: IReservationStore) -> Pending | None:
    """Keep the state as it is now."""
    kept = unit.registrations.kept

    def done(_: object) -> None:
        unit.stored, unit.unkept = kept, False

    def lost(why: Any) -> Any:
        unit.unkept = True
        return why

    # Until it is known to be gone, and to be there.
    unit.stored = unit.unkept = True
    saved = store.save(unit.registrations.dump())
    if isPending(saved):
        saved.addCallbacks(done, lost)
        return saved
    done(None)
    return None


def keepAgain(unit: LogicalUnit) -> None:
    """Try to keep what could not be kept: what is kept is older than what all have been told."""
    if unit.store is None or not unit.unkept or unit.retrying:
        return
    saved = _save(unit, unit.store)
    if isPending(saved):
        unit.retrying = True

        def ended(_: object) -> None:
            unit.retrying = False

        saved.addBoth(ended)


@COMMANDS.handles(cdb.PR_REGISTER_AND_MOVE)
def registerAndMove(unit: LogicalUnit, task: ITask) -> None:
    """REGISTER AND MOVE; SPC-4 5.13.8."""
    _receive(unit, task, MOVE_LIST.size, LONGEST, _move)


def _move(unit: LogicalUnit, task: ITask, data: bytes) -> None:
    key, new, flags, tag, length = MOVE_LIST.unpack_from(data)
    if len(data) != MOVE_LIST.size + length:
        raise _wrongLength()
    _checkStore(unit, flags, 17)
    state, port = unit.registrations, portOf(task.nexus)
    if not key or state.keyOf(port) != key:
        raise Conflict
    found = parseTransportID(data[MOVE_LIST.size :])
    if not new:
        raise _badList(8)
    if found is None or state.of(Port(*found, tag)) == state.of(port):
        raise _badList(MOVE_LIST.size)
    state.move(port, key, Port(*found, tag), new, bool(flags & _UNREG))
    state.kept = bool(flags & _APTPL)
    unit.reconsider()
    _end(unit, task)


@COMMANDS.handles(cdb.PR_REPLACE_LOST)
def replaceLost(unit: LogicalUnit, task: ITask) -> None:
    """REPLACE LOST RESERVATION; SPC-4 5.13.11.3: only where something was lost."""
    if not unit.registrations.lost:
        raise unit.invalidField(task, "action", 4)
    _checkType(unit, task)
    _receive(unit, task, LIST.size, LIST.size, _replace)


def _replace(unit: LogicalUnit, task: ITask, data: bytes) -> None:
    key, new, flags = LIST.unpack(data)
    state = unit.registrations
    if not state.lost:
        # Somebody else was faster.
        raise Conflict
    if key:
        raise _badList(0)
    if not new:
        raise _badList(8)
    if flags & _SPEC_I_PT:
        raise _badList(20, 3)
    _checkStore(unit, flags, 20)
    state.replace(portOf(task.nexus), new, task.cdb[2] & 15)
    state.kept = bool(flags & _APTPL)
    unit.reconsider()
    _end(unit, task)
