# -*- test-case-name: tests.session.test_management -*-
"""Task management (RFC 7143 11.5, 11.6; SAM-5 chapter 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from iscsi_twisted.errors import RejectError
from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.session.session import IMMEDIATE_TASKS, WAITING, Session
from iscsi_twisted.wire import layout, numbers
from iscsi_twisted.wire.serial import MASK, distance

if TYPE_CHECKING:
    from iscsi_twisted.session.connection import Connection

COMMANDS_CLEARED: Final = 0x2F00
"""Unit attention: commands cleared by another initiator (SAM-5 5.14)."""
DEVICE_RESET: Final = 0x2903
"""Unit attention: bus device reset function occurred."""

NAMES: Final = {
    numbers.ABORT_TASK: "abort task",
    numbers.ABORT_TASK_SET: "abort task set",
    numbers.CLEAR_ACA: "clear ACA",
    numbers.CLEAR_TASK_SET: "clear task set",
    numbers.LOGICAL_UNIT_RESET: "logical unit reset",
    numbers.TARGET_WARM_RESET: "target warm reset",
    numbers.TARGET_COLD_RESET: "target cold reset",
}


def manage(connection: Connection, chunk: Buffer, offset: int, ahs: Buffer, data: Buffer) -> None:
    """
    Task Management Function Request.

    Functions on a task set cover the commands with lower CmdSN, so one that is immediate waits for those
    that have not come (RFC 7143 4.2.3.3); for a function on the whole target they count as received.
    """
    session = connection.session
    assert session is not None
    cmdSN = int.from_bytes(chunk[offset + 24 : offset + 28], "big")
    if chunk[offset] & numbers.IMMEDIATE and 0 < distance(session.expCmdSN, cmdSN) <= session.depth:
        function = chunk[offset + 1] & 0x7F
        if function in _ON_TASK_SET:
            _postpone(session, cmdSN, bytes(chunk[offset : offset + 48]))
            return
        if function in _ON_TARGET:
            _skipUpTo(session, cmdSN)
    _carryOut(connection, chunk, offset)


def _postpone(session: Session, cmdSN: int, header: bytes) -> None:
    if len(session.postponed) >= IMMEDIATE_TASKS:
        raise RejectError(numbers.REASON_IMMEDIATE, "too many immediate task management requests")
    session.postponed.append((cmdSN, header))
    session.early[WAITING] = b"", b"", b""


def resume(connection: Connection) -> None:
    """Carry out the functions that waited for commands all of which have come now."""
    session = connection.session
    assert session is not None
    while session.postponed and distance(session.expCmdSN, session.postponed[0][0]) <= 0:
        _carryOut(connection, session.postponed.pop(0)[1], 0)
    if not session.postponed:
        session.early.pop(WAITING, None)


def _carryOut(connection: Connection, chunk: Buffer, offset: int) -> None:
    _, flags, _, lunField, itt, referenced, cmdSN, _, refCmdSN, _ = layout.TASK_MANAGEMENT_REQUEST.unpack(
        chunk, offset
    )
    session = connection.session
    assert session is not None
    function = flags & 0x7F
    if function == numbers.ABORT_TASK:
        response = _abortTask(session, lunField, referenced, cmdSN, refCmdSN)
    elif function in _ON_UNIT:
        response = _onUnit(session, function, lunField)
    elif function in _ON_TARGET:
        response = _onTarget(session, function)
    elif function == numbers.TASK_REASSIGN:
        response = numbers.REASSIGN_NOT_SUPPORTED
    else:
        response = numbers.FUNCTION_NOT_SUPPORTED
    header = layout.TASK_MANAGEMENT_RESPONSE.pack(
        numbers.TASK_MANAGEMENT_RESPONSE, numbers.FINAL, response, 0, itt,
        connection.nextStatSN(), session.expCmdSN, session.maxCmdSN,
    )  # fmt: skip
    connection.put(header)
    if function == numbers.TARGET_COLD_RESET and response == numbers.FUNCTION_COMPLETE:
        _dropAll(session)


def _abortTask(session: Session, lunField: bytes, referenced: int, cmdSN: int, refCmdSN: int) -> int:
    """ABORT TASK (RFC 7143 11.5.1, 11.6.1)."""
    task = session.tasks.get(referenced)
    if task is not None:
        if task.lunField != lunField:
            return numbers.NO_SUCH_TASK
        task.abort()
        return numbers.FUNCTION_COMPLETE
    # A command that has not come yet: count it as received and aborted.
    if session.expects(refCmdSN) and distance(refCmdSN, cmdSN) > 0:
        _skip(session, refCmdSN)
        return numbers.FUNCTION_COMPLETE
    return numbers.NO_SUCH_TASK


def _skip(session: Session, cmdSN: int) -> None:
    """The command with this number will not be carried out."""
    if cmdSN == session.expCmdSN:
        session.expCmdSN = (cmdSN + 1) & MASK
        session.release()
        return
    # In its turn something goes by that does nothing: a NOP-Out that wants no answer.
    header = layout.NOP_OUT.pack(
        numbers.NOP_OUT, numbers.FINAL, 0, bytes(8), numbers.NO_TAG, numbers.NO_TAG, cmdSN, 0
    )
    _forget(session, cmdSN)
    session.early[cmdSN] = header, b"", b""
    session.earlyBytes += len(header)


def _forget(session: Session, cmdSN: int) -> None:
    """Drop what came before its turn with this number."""
    session.earlyBytes -= sum(map(len, session.early.pop(cmdSN, ())))


def _skipUpTo(session: Session, cmdSN: int) -> None:
    """Commands before this number that have not been carried out count as received and aborted."""
    while session.expCmdSN != cmdSN:
        _forget(session, session.expCmdSN)
        session.expCmdSN = (session.expCmdSN + 1) & MASK
        session.release()


def _onUnit(session: Session, function: int, lunField: bytes) -> int:
    """Functions on one logical unit."""
    target = session.target
    assert target is not None and session.nexus is not None
    lun, unit = target.addressed(lunField, session.nexus)
    if unit is target.absent:
        return numbers.NO_SUCH_LUN
    if function == numbers.CLEAR_ACA:
        unit.clearACA(session.nexus)
        return numbers.FUNCTION_COMPLETE
    if function == numbers.ABORT_TASK_SET:
        session.abortUnit(lun)
        return numbers.FUNCTION_COMPLETE
    if _onlyReads(session):
        return numbers.FUNCTION_NOT_AUTHORIZED
    others = [other for other in target.sessions.values() if other is not session]
    session.abortUnit(lun)
    if function == numbers.CLEAR_TASK_SET:
        tell = unit.tellsAborted
        for other in others:
            if other.abortUnit(lun, tell) and other.nexus is not None and not tell:
                unit.attention(COMMANDS_CLEARED, nexus=other.nexus)
    else:
        for other in others:
            other.abortUnit(lun)
        unit.reset(DEVICE_RESET)
    session.node.events.reset(session, NAMES[function], lun)
    return numbers.FUNCTION_COMPLETE


_ON_TASK_SET: Final = frozenset((numbers.ABORT_TASK_SET, numbers.CLEAR_TASK_SET, numbers.LOGICAL_UNIT_RESET))
_ON_UNIT: Final = _ON_TASK_SET | {numbers.CLEAR_ACA}
_ON_TARGET: Final = frozenset((numbers.TARGET_WARM_RESET, numbers.TARGET_COLD_RESET))


def _onlyReads(session: Session) -> bool:
    """Whether it may only read where others may write: it must not end what they do."""
    target = session.target
    assert target is not None and session.nexus is not None
    return session.nexus.readOnly and not target.readOnly


def _onTarget(session: Session, function: int) -> int:
    """Reset all units (RFC 7143 11.5.1)."""
    target = session.target
    assert target is not None and session.nexus is not None
    if session.nexus.luns is not None or _onlyReads(session):
        # There may be units that it must not know of.
        return numbers.FUNCTION_NOT_AUTHORIZED
    for other in list(target.sessions.values()):
        other.abortAll()
    for unit in target.servers():
        unit.reset(DEVICE_RESET)
    session.node.events.reset(session, NAMES[function], None)
    return numbers.FUNCTION_COMPLETE


def _dropAll(session: Session) -> None:
    """A cold reset ends all connections to the target."""
    assert session.target is not None
    for other in list(session.target.sessions.values()):
        assert other.connection is not None
        other.connection.abandon("target cold reset")
