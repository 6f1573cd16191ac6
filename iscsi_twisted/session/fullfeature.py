# -*- test-case-name: tests.session.test_fullfeature -*-
"""
The PDUs of the full feature phase, one function each, and the tables that find them.

A function takes the connection, the buffer and offset of the header, the additional header segments
and the data segment; it may raise L{RejectError}, or another L{iscsi_twisted.errors.RemoteError} to
end the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import attrs

from iscsi_twisted.errors import RejectError, RemoteError, TextError
from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.session import notices
from iscsi_twisted.session.dataout import DataOut
from iscsi_twisted.session.discovery import answer
from iscsi_twisted.session.management import manage, resume
from iscsi_twisted.session.session import EARLY, IMMEDIATE_TASKS
from iscsi_twisted.session.task import Task
from iscsi_twisted.wire import layout, numbers, text
from iscsi_twisted.wire.serial import MASK

if TYPE_CHECKING:
    from iscsi_twisted.session.connection import Connection
    from iscsi_twisted.session.session import Session

Handler = Callable[["Connection", Buffer, int, Buffer, Buffer], None]

LONGEST_TEXT: Final = 65536
"""Bytes of one text request over all its PDUs: more than all keys at their longest."""

LONGEST_ANSWER: Final = 262144
"""
Bytes of one text response, however much the initiator takes: what is made at a time.  Initiators that
take no continued answer can thus see some thousand targets.
"""

_unpackCommand = layout.SCSI_COMMAND.unpack
_SCSI_COMMAND = numbers.SCSI_COMMAND
_READ = numbers.READ
_WRITE = numbers.WRITE
_NO_TAG = numbers.NO_TAG
_RESERVED = numbers.NO_TAG.to_bytes(4, "big")
_WHOLE = numbers.FINAL | numbers.WRITE


@attrs.define
class Text:
    """
    A text negotiation that takes several PDUs (RFC 7143 11.10).

    @ivar tag: the target transfer tag of its next request.
    @ivar received: what has come so far.
    @ivar answers: what has not been made yet of the answer.
    @ivar unsent: what has been made and not been sent; not empty if there is more to send.
    """

    tag: int
    received: bytes = b""
    answers: Iterator[tuple[str, str]] = attrs.field(factory=lambda: iter(()))
    unsent: bytes = b""

    def take(self, most: int) -> bytes:
        """The next part of the answer, so many bytes at most."""
        made = bytearray(self.unsent)
        for pair in self.answers:
            made += text.encode((pair,))
            if len(made) > most:
                break
        self.unsent = bytes(made[most:])
        return bytes(made[:most])


def scsiCommand(connection: Connection, chunk: Buffer, offset: int, ahs: Buffer, data: Buffer) -> None:
    """SCSI Command, RFC 7143 11.3: one whose turn has come becomes a task."""
    session: Session = connection.session  # type: ignore[assignment]
    opcode, flags, _, lunField, itt, expected, cmdSN, _, cdb = _unpackCommand(chunk, offset)
    immediate = opcode != _SCSI_COMMAND
    if immediate:
        if session.immediates >= IMMEDIATE_TASKS:
            raise RejectError(numbers.REASON_IMMEDIATE, "too many immediate commands")
    elif cmdSN != session.expCmdSN or cmdSN == (session.maxCmdSN + 1) & MASK:
        _early(connection, cmdSN, chunk, offset, ahs, data)
        return
    else:
        session.expCmdSN = (cmdSN + 1) & MASK
    if itt in session.tasks or ahs or itt == _NO_TAG:
        cdb = _unusual(session, immediate, itt, cdb, ahs)
    lun, unit = session.units.get(lunField) or session.addressed(lunField)
    task = Task(connection, session, immediate, flags, lunField, itt, expected, cdb, lun, unit)
    session.tasks[itt] = task
    session.commands += 1
    if immediate:
        session.immediates += 1
    if data or flags & _WRITE:
        if flags & _WHOLE == _WHOLE and expected == len(data) <= session.immediateLimit:
            task.data = data
        else:
            _expectData(task, data)
    if connection.held and connection.share.holds(connection, task):
        if not task.done:
            session.waiting.append(task)
    elif not task.done:
        try:
            unit.execute(task)
        except Exception as error:
            unit.failed(task, error)
        if not task.done and flags & _READ:
            connection.share.pends(connection, expected)
    if session.early:
        catchUp(connection)


def _unusual(session: Session, immediate: bool, itt: int, cdb: bytes, ahs: Buffer) -> bytes:
    """
    The CDB of a command with an additional header segment.

    @raise RejectError: for such a segment that is not understood, or a task tag that is in use or reserved.
    """
    try:
        if itt == numbers.NO_TAG:
            raise RejectError(numbers.REASON_INVALID_FIELD, "the task tag is the reserved one")
        if itt in session.tasks:
            raise RejectError(numbers.REASON_TASK_IN_PROGRESS, "the task tag is in use")
        return _extended(cdb, bytes(ahs))
    except RejectError:
        if not immediate:
            session.release()
        raise


def _expectData(task: Task, data: Buffer) -> None:
    """What comes with a command, and whether more comes by itself (RFC 7143 4.2.5.2)."""
    parameters = task.session.parameters
    dataOut = task.dataOut = DataOut(task, data)
    limit = min(parameters.firstBurst, task.expected)
    writes = task.flags & numbers.WRITE
    if writes and not task.flags & numbers.FINAL and not parameters.initialR2T:
        dataOut.expectUnsolicited(limit)
    if not writes or (data and not parameters.immediateData):
        dataOut.refuse(numbers.UNEXPECTED_UNSOLICITED_DATA)
    elif len(data) > limit:
        dataOut.refuse(numbers.INCORRECT_AMOUNT_OF_DATA)


def _extended(cdb: bytes, ahs: bytes) -> bytes:
    """
    The CDB with the part that an additional header segment carries (RFC 7143 11.2.2).

    @raise RejectError: for segments that are not understood.
    """
    position = 0
    while position + 4 <= len(ahs):
        length = int.from_bytes(ahs[position : position + 2], "big")
        kind = ahs[position + 2] & 0x3F
        if kind == 2:
            raise RejectError(numbers.REASON_NOT_SUPPORTED, "bidirectional commands are not supported")
        if kind != 1 or length < 2 or position + 3 + length > len(ahs):
            break
        cdb += ahs[position + 4 : position + 3 + length]
        position += (3 + length + 3) & ~3
    if position < len(ahs):
        raise RejectError(numbers.REASON_INVALID_FIELD, "an additional header segment is not understood")
    return cdb


def _early(connection: Connection, cmdSN: int, chunk: Buffer, offset: int, ahs: Buffer, data: Buffer) -> None:
    """A numbered PDU that is not the next: keep it if its turn will come, else ignore it (4.2.2.1)."""
    session = connection.session
    assert session is not None
    if session.expects(cmdSN) and cmdSN not in session.early:
        session.earlyBytes += 48 + len(ahs) + len(data)
        if session.earlyBytes > EARLY:
            raise RemoteError(f"more than {EARLY} bytes before their turn")
        session.early[cmdSN] = bytes(chunk[offset : offset + 48]), bytes(ahs), bytes(data)


def catchUp(connection: Connection) -> None:
    """The PDUs that came before their turn, or waited for others, and whose turn it is now."""
    session = connection.session
    assert session is not None
    if session.catchingUp:
        # A window full of them must not pile up on the stack.
        return
    session.catchingUp = True
    try:
        while True:
            if session.postponed:
                resume(connection)
            if session.expCmdSN not in session.early:
                break
            header, ahs, data = came = session.early.pop(session.expCmdSN)
            session.earlyBytes -= sum(map(len, came))
            try:
                HANDLERS[header[0] & 0x3F](connection, header, 0, ahs, data)
            except RejectError as error:
                notices.reject(connection, error.reason, header, 0)
    finally:
        session.catchingUp = False


def _numbered(connection: Connection, chunk: Buffer, offset: int, ahs: Buffer, data: Buffer) -> bool:
    """
    Take the CmdSN of a PDU that is not a SCSI command.

    @return: whether it is to be handled now.
    """
    session = connection.session
    assert session is not None
    if chunk[offset] & numbers.IMMEDIATE:
        return True
    cmdSN = int.from_bytes(chunk[offset + 24 : offset + 28], "big")
    if cmdSN != session.expCmdSN or not session.expects(cmdSN):
        _early(connection, cmdSN, chunk, offset, ahs, data)
        return False
    session.expCmdSN = (cmdSN + 1) & MASK
    # It has no task: its place in the window is free again at once.
    session.release()
    return True


def numbered(handler: Handler) -> Handler:
    """A handler for PDUs that carry a CmdSN at byte 24."""

    def inOrder(connection: Connection, chunk: Buffer, offset: int, ahs: Buffer, data: Buffer) -> None:
        if _numbered(connection, chunk, offset, ahs, data):
            if chunk[offset + 16 : offset + 20] == _RESERVED and chunk[offset] & 0x3F != numbers.NOP_OUT:
                raise RejectError(numbers.REASON_INVALID_FIELD, "the task tag is the reserved one")
            handler(connection, chunk, offset, ahs, data)
            session = connection.session
            if session is not None and session.early:
                catchUp(connection)

    return inOrder


def dataOut(connection: Connection, chunk: Buffer, offset: int, ahs: Buffer, data: Buffer) -> None:
    """Data-Out, RFC 7143 11.7."""
    _, flags, _, _, itt, ttt, _, dataSN, bufferOffset = layout.DATA_OUT.unpack(chunk, offset)
    session = connection.session
    assert session is not None
    task = session.tasks.get(itt)
    # Without a task they are the data of one that has ended or was aborted.
    if task is not None and task.dataOut is not None:
        task.dataOut.data(ttt, flags, dataSN, bufferOffset, data)


def spoiltDataOut(connection: Connection, chunk: Buffer, offset: int) -> None:
    """A Data-Out whose data segment failed its digest, RFC 7143 7.8."""
    _, flags, _, _, itt, ttt, _, dataSN, _ = layout.DATA_OUT.unpack(chunk, offset)
    task = connection.session.tasks.get(itt) if connection.session is not None else None
    if task is not None and task.dataOut is not None:
        task.dataOut.spoilt(ttt, flags, dataSN)


def nopOut(connection: Connection, chunk: Buffer, offset: int, ahs: Buffer, data: Buffer) -> None:
    """NOP-Out, RFC 7143 11.18: a ping is answered with its own data."""
    _, _, _, lun, itt, _, _, _ = layout.NOP_OUT.unpack(chunk, offset)
    session = connection.session
    if itt == numbers.NO_TAG or session is None:
        return
    echoed = data[: connection.maxSegment]
    header = layout.NOP_IN.pack(
        numbers.NOP_IN, numbers.FINAL, len(echoed), lun, itt, numbers.NO_TAG,
        connection.nextStatSN(), session.expCmdSN, session.maxCmdSN,
    )  # fmt: skip
    connection.put(header, echoed)


def textRequest(connection: Connection, chunk: Buffer, offset: int, ahs: Buffer, data: Buffer) -> None:
    """Text Request, RFC 7143 11.10."""
    _, flags, _, lun, itt, ttt, _, _ = layout.TEXT_REQUEST.unpack(chunk, offset)
    state = connection.text
    if ttt == numbers.NO_TAG:
        # A new one takes the place of one that was not brought to its end.
        state = connection.text = Text(connection.nextTransferTag())
    elif state is None or ttt != state.tag:
        raise RejectError(numbers.REASON_PROTOCOL_ERROR, "no text negotiation has this tag")
    try:
        _read(connection, state, flags, data)
    except TextError as error:
        connection.text = None
        raise RejectError(numbers.REASON_PROTOCOL_ERROR, str(error)) from None
    _textResponse(connection, state, flags, lun, itt)


def _read(connection: Connection, state: Text, flags: int, data: Buffer) -> None:
    """Take the text of one request, and find the answer if it is complete."""
    if state.unsent:
        if data:
            raise TextError("text before the answer was complete")
        return
    if len(state.received) + len(data) > LONGEST_TEXT:
        raise TextError(f"the text is longer than {LONGEST_TEXT} bytes")
    state.received += data
    if not flags & numbers.CONTINUE:
        received, state.received = state.received, b""
        state.answers = answer(connection, text.decode(received))


def _textResponse(connection: Connection, state: Text, flags: int, lun: bytes, itt: int) -> None:
    """Send as much as the initiator takes at a time."""
    session = connection.session
    assert session is not None
    part = state.take(min(connection.maxSegment, LONGEST_ANSWER))
    if state.unsent:
        answered, tag = numbers.CONTINUE, state.tag
    elif flags & numbers.FINAL and not flags & numbers.CONTINUE:
        answered, tag = numbers.FINAL, numbers.NO_TAG
        connection.text = None
    else:
        answered, tag = 0, state.tag
    header = layout.TEXT_RESPONSE.pack(
        numbers.TEXT_RESPONSE, answered, len(part), lun, itt, tag,
        connection.nextStatSN(), session.expCmdSN, session.maxCmdSN,
    )  # fmt: skip
    connection.put(header, part)
    if connection.held:
        # A short request may have a long answer.  It cannot wait like a command, so the rest does.
        connection.breathe()


def logout(connection: Connection, chunk: Buffer, offset: int, ahs: Buffer, data: Buffer) -> None:
    """Logout Request, RFC 7143 11.14."""
    _, flags, _, itt, cid, _, _ = layout.LOGOUT_REQUEST.unpack(chunk, offset)
    reason = flags & 0x7F
    if reason == numbers.CLOSE_CONNECTION and cid != connection.cid:
        response = numbers.CID_NOT_FOUND
    elif reason in (numbers.CLOSE_SESSION, numbers.CLOSE_CONNECTION):
        response = numbers.LOGOUT_SUCCESS
    elif reason == numbers.REMOVE_FOR_RECOVERY:
        response = numbers.RECOVERY_NOT_SUPPORTED
    else:
        raise RejectError(numbers.REASON_INVALID_FIELD, "the logout reason is not known")
    session = connection.session
    assert session is not None
    if response == numbers.LOGOUT_SUCCESS:
        session.abortAll()
    header = layout.LOGOUT_RESPONSE.pack(
        numbers.LOGOUT_RESPONSE, numbers.FINAL, response, 0, itt, connection.nextStatSN(),
        session.expCmdSN, session.maxCmdSN, 0, 0,
    )  # fmt: skip
    connection.put(header)
    if response == numbers.LOGOUT_SUCCESS:
        connection.loggedOut()


def snack(connection: Connection, chunk: Buffer, offset: int, ahs: Buffer, data: Buffer) -> None:
    """SNACK is for recovery levels above 0 (RFC 7143 11.16)."""
    raise RejectError(numbers.REASON_PROTOCOL_ERROR, "SNACK at recovery level 0")


def unknown(connection: Connection, chunk: Buffer, offset: int, ahs: Buffer, data: Buffer) -> None:
    """An opcode that this phase does not know."""
    raise RejectError(numbers.REASON_NOT_SUPPORTED, "the opcode is not supported here")


def tooEarly(connection: Connection, chunk: Buffer, offset: int, ahs: Buffer, data: Buffer) -> None:
    """Anything but Login before the login is complete ends the connection (RFC 7143 6.3)."""
    assert connection.login is not None
    connection.login.interrupt()


def lateLogin(connection: Connection, chunk: Buffer, offset: int, ahs: Buffer, data: Buffer) -> None:
    """A Login Request in full feature phase is a protocol error (RFC 7143 11.12)."""
    raise RejectError(numbers.REASON_PROTOCOL_ERROR, "Login in full feature phase")


def loginRequest(connection: Connection, chunk: Buffer, offset: int, ahs: Buffer, data: Buffer) -> None:
    """Login Request, RFC 7143 11.12."""
    assert connection.login is not None
    connection.login.request(chunk, offset, data)


def _table(default: Handler, **handlers: Handler) -> list[Handler]:
    table = [default] * 64
    for name, handler in handlers.items():
        table[getattr(numbers, name)] = handler
    return table


LOGIN_HANDLERS: Final = _table(tooEarly, LOGIN_REQUEST=loginRequest)
DISCOVERY_HANDLERS: Final = _table(
    unknown,
    NOP_OUT=numbered(nopOut),
    LOGIN_REQUEST=lateLogin,
    TEXT_REQUEST=numbered(textRequest),
    LOGOUT_REQUEST=numbered(logout),
)
HANDLERS: Final = _table(
    unknown,
    NOP_OUT=numbered(nopOut),
    SCSI_COMMAND=scsiCommand,
    TASK_MANAGEMENT_REQUEST=numbered(manage),
    LOGIN_REQUEST=lateLogin,
    TEXT_REQUEST=numbered(textRequest),
    DATA_OUT=dataOut,
    LOGOUT_REQUEST=numbered(logout),
    SNACK_REQUEST=snack,
)
