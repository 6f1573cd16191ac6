# -*- test-case-name: tests.session.test_client,tests.session.test_clientanswers -*-
"""
What an initiator does with each PDU of a target (RFC 7143 chapter 11).

Every handler is called with the connection, the buffer and the offset of the header in it, and the data
segment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from iscsi_twisted.errors import ISCSIError, RemoteError
from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.session import asking
from iscsi_twisted.session.answers import (
    ConnectionEnded,
    Event,
    LoginRefused,
    LogoutRefused,
    Redirected,
    Rejected,
    TargetFailure,
)
from iscsi_twisted.session.command import Command
from iscsi_twisted.session.request import LONGEST
from iscsi_twisted.wire import layout, numbers, text
from iscsi_twisted.wire.serial import MASK

if TYPE_CHECKING:
    from iscsi_twisted.session.client import ClientConnection

LONGEST_TEXT: Final = 16 << 20
"""Bytes of a text answer in several PDUs: 100,000 targets."""

TEXT_ROUNDS: Final = LONGEST_TEXT // 512
"""PDUs of one text answer: no target has smaller segments (RFC 7143 13.12)."""

UNREAD_PINGS: Final = 1024
"""NOP-Ins that are answered while the target does not read: 48 bytes each, which wait in our memory."""

_NO_TAG: Final = numbers.NO_TAG
_STATUS: Final = numbers.STATUS

_unpackDataIn = layout.DATA_IN.unpack


def loginResponse(connection: ClientConnection, chunk: Buffer, offset: int, data: Buffer) -> None:
    """Login Response, RFC 7143 11.13."""
    (_, flags, _, _, _, isid, tsih, itt, statSN, expCmdSN, maxCmdSN, status) = layout.LOGIN_RESPONSE.unpack(
        chunk, offset
    )
    if itt != connection.loginTag:
        raise RemoteError("a Login Response to another request")
    if status:
        # Whatever else stands in it: old targets leave out their copy of the ISID.
        raise _refusal(connection, status, data)
    if isid != connection.wish.isid:
        raise RemoteError("a Login Response to another request")
    if not connection.loginText and not connection.expStatSN and not connection.tsih:
        connection.expStatSN = statSN
    connection.numbered(statSN, expCmdSN, maxCmdSN)
    connection.loginText += data
    if len(connection.loginText) > LONGEST:
        raise RemoteError(f"a login answer of more than {LONGEST} bytes")
    negotiator = connection.negotiator
    assert negotiator is not None
    if flags & numbers.CONTINUE:
        if flags & numbers.FINAL:
            raise RemoteError("a Login Response with both the T and the C bit")
        if not data:
            # It could go on like that for ever.
            raise RemoteError("a part of a login answer with nothing in it")
        asking.sendLogin(connection, [])
        return
    pairs = text.decode(bytes(connection.loginText))
    connection.loginText.clear()
    reply = negotiator.answer(pairs, flags & 3 if flags & numbers.FINAL else None)
    if reply is None:
        _begin(connection, tsih)
    else:
        asking.sendLogin(connection, reply)


def _refusal(connection: ClientConnection, status: int, data: Buffer) -> ISCSIError:
    """End the connection for a login that did not succeed."""
    address = dict(text.decode(bytes(data))).get("TargetAddress", "")
    error = Redirected(status, address) if status >> 8 == 1 and address else LoginRefused(status)
    connection.end(error)
    return RemoteError(str(error))


def _begin(connection: ClientConnection, tsih: int) -> None:
    """The full feature phase."""
    negotiator, connection.negotiator = connection.negotiator, None
    assert negotiator is not None
    connection.parameters = negotiator.parameters()
    connection.declared = negotiator.declared
    connection.tsih = tsih
    if not tsih:
        raise RemoteError("the target gave the session no handle (TSIH)")
    connection.headerDigest = connection.framer.headerDigest = connection.parameters.headerDigest
    connection.dataDigest = connection.framer.dataDigest = connection.parameters.dataDigest
    connection.begin(FULL)
    connection.owner.loggedIn(connection)


def place(connection: ClientConnection, chunk: Buffer, offset: int, length: int) -> memoryview | None:
    """Where a long data segment is to be received: of Data-In that are due, where their command wants it."""
    if chunk[offset] & numbers.OPCODE_MASK != numbers.DATA_IN:
        return None
    (_, _, _, _, _, itt, _, _, _, _, dataSN, at, _) = _unpackDataIn(chunk, offset)
    command = connection.commands.get(itt)
    return None if command is None else command.room(dataSN, at, length)


def dataIn(connection: ClientConnection, chunk: Buffer, offset: int, data: Buffer) -> None:
    """Data-In, RFC 7143 11.7."""
    (_, flags, status, _, _, itt, _, statSN, expCmdSN, maxCmdSN, dataSN, place, residual) = _unpackDataIn(
        chunk, offset
    )
    command = connection.commands.get(itt)
    if command is None:
        _lateDataIn(connection, itt, flags & _STATUS, statSN, expCmdSN, maxCmdSN)
        return
    command.dataIn(dataSN, place, data)
    if not flags & _STATUS:
        connection.window(expCmdSN, maxCmdSN)
        return
    # As 'numbered' does, without a call for the ordinary number.
    if statSN == connection.expStatSN:
        connection.expStatSN = statSN + 1 & MASK
        connection.window(expCmdSN, maxCmdSN)
    else:
        connection.numbered(statSN, expCmdSN, maxCmdSN)
    del connection.commands[itt]
    command.ended(status, b"", _residual(flags, residual) if residual else 0)


def _lateDataIn(
    connection: ClientConnection, itt: int, last: int, statSN: int, expCmdSN: int, maxCmdSN: int
) -> None:
    """Data-In for what was aborted."""
    _dropped(connection, itt, "Data-In")
    if last:
        connection.late(statSN, expCmdSN, maxCmdSN)
    else:
        connection.window(expCmdSN, maxCmdSN)


def scsiResponse(connection: ClientConnection, chunk: Buffer, offset: int, data: Buffer) -> None:
    """SCSI Response, RFC 7143 11.4."""
    (_, flags, response, status, _, itt, _, statSN, expCmdSN, maxCmdSN, _, _, residual) = (
        layout.SCSI_RESPONSE.unpack(chunk, offset)
    )
    command = connection.commands.get(itt) or _dropped(connection, itt, "a SCSI Response")
    length = int.from_bytes(data[:2], "big")
    if length > max(0, len(data) - 2):
        raise RemoteError(f"sense data of {length} bytes in a data segment of {len(data)}")
    if command is None:
        connection.late(statSN, expCmdSN, maxCmdSN)
        return
    connection.numbered(statSN, expCmdSN, maxCmdSN)
    del connection.commands[itt]
    if response:
        command.failed(TargetFailure(response))
    else:
        command.ended(status, bytes(data[2 : 2 + length]), _residual(flags, residual))


def r2t(connection: ClientConnection, chunk: Buffer, offset: int, data: Buffer) -> None:
    """Ready To Transfer, RFC 7143 11.8."""
    (_, _, _, _, itt, ttt, _, expCmdSN, maxCmdSN, r2tSN, place, wanted) = layout.R2T.unpack(chunk, offset)
    command = connection.commands.get(itt) or _dropped(connection, itt, "an R2T")
    connection.window(expCmdSN, maxCmdSN)
    if command is None:
        return
    end = place + wanted
    if not wanted or end > len(command.data) or wanted > connection.parameters.maxBurst or ttt == _NO_TAG:
        raise RemoteError(f"an R2T for {wanted} bytes at offset {place} of {len(command.data)}")
    if r2tSN != command.r2tSN:
        raise RemoteError(f"an R2T with R2TSN {r2tSN} where {command.r2tSN} is due")
    if wanted > command.due:
        # At recovery level 0 nothing is sent twice; a small PDU could make us queue much, again and again.
        raise RemoteError(f"an R2T for {wanted} bytes where {command.due} have not been sent yet")
    command.due -= wanted
    command.r2tSN += 1
    connection.dataOut(command, ttt, place, end)


def _dropped(connection: ClientConnection, itt: int, what: str) -> Command | None:
    """Late PDUs for what was aborted mean nothing; those for what never was break the protocol."""
    if itt not in connection.dropped:
        raise RemoteError(f"{what} for task {itt:08x}h, which there is not")
    return None


def managed(connection: ClientConnection, chunk: Buffer, offset: int, data: Buffer) -> None:
    """Task Management Function Response, RFC 7143 11.6."""
    _, _, response, _, itt, statSN, expCmdSN, maxCmdSN = layout.TASK_MANAGEMENT_RESPONSE.unpack(chunk, offset)
    connection.numbered(statSN, expCmdSN, maxCmdSN)
    _answered(connection, itt, "a Task Management Function Response", response)


def loggedOut(connection: ClientConnection, chunk: Buffer, offset: int, data: Buffer) -> None:
    """Logout Response, RFC 7143 11.15."""
    (_, _, response, _, itt, statSN, expCmdSN, maxCmdSN, _, _) = layout.LOGOUT_RESPONSE.unpack(chunk, offset)
    connection.numbered(statSN, expCmdSN, maxCmdSN)
    result = response if response == numbers.LOGOUT_SUCCESS else LogoutRefused(response)
    _answered(connection, itt, "a Logout Response", result)
    connection.end(ConnectionEnded("logged out"))


def _answered(connection: ClientConnection, itt: int, what: str, result: Any) -> None:
    done = connection.callbacks.pop(itt, None)
    if done is None:
        raise RemoteError(f"{what} that nobody waits for")
    done(result)


def textResponse(connection: ClientConnection, chunk: Buffer, offset: int, data: Buffer) -> None:
    """Text Response, RFC 7143 11.11."""
    (_, flags, _, _, itt, ttt, statSN, expCmdSN, maxCmdSN) = layout.TEXT_RESPONSE.unpack(chunk, offset)
    connection.numbered(statSN, expCmdSN, maxCmdSN)
    waiting = connection.texts.get(itt)
    if waiting is None:
        raise RemoteError("a Text Response that nobody waits for")
    waiting.parts += data
    if len(waiting.parts) > LONGEST_TEXT:
        raise RemoteError(f"a text answer of more than {LONGEST_TEXT} bytes")
    waiting.rounds += 1
    if waiting.rounds > TEXT_ROUNDS:
        raise RemoteError(f"a text answer in more than {TEXT_ROUNDS} parts")
    if flags & numbers.FINAL:
        pairs = text.decode(bytes(waiting.parts))
        del connection.texts[itt]
        waiting.done(pairs)
    elif ttt == _NO_TAG:
        raise RemoteError("a Text Response that is not the last, without a Target Transfer Tag")
    else:
        asking.sendText(connection, itt, ttt, b"")


def nopIn(connection: ClientConnection, chunk: Buffer, offset: int, data: Buffer) -> None:
    """NOP-In, RFC 7143 11.19."""
    (_, _, _, lunField, itt, ttt, statSN, expCmdSN, maxCmdSN) = layout.NOP_IN.unpack(chunk, offset)
    connection.numbered(statSN, expCmdSN, maxCmdSN, counts=itt != _NO_TAG)
    if itt != _NO_TAG:
        _answered(connection, itt, "a NOP-In", bytes(data))
    elif ttt != _NO_TAG:
        if connection.clogged:
            connection.clogged += 1
            if connection.clogged > UNREAD_PINGS:
                raise RemoteError(f"{UNREAD_PINGS} NOP-Ins want an answer from us, and none is read")
        asking.sendNOP(connection, _NO_TAG, ttt, lunField, b"")


def asynchronous(connection: ClientConnection, chunk: Buffer, offset: int, data: Buffer) -> None:
    """Asynchronous Message, RFC 7143 11.9."""
    (_, _, _, lunField, _, statSN, expCmdSN, maxCmdSN, code, _, one, two, three) = (
        layout.ASYNC_MESSAGE.unpack(chunk, offset)
    )
    connection.numbered(statSN, expCmdSN, maxCmdSN)
    length = int.from_bytes(data[:2], "big") if code == numbers.EVENT_SCSI else 0
    connection.owner.told(Event(code, lunField, bytes(data[2 : 2 + length]), (one, two, three)))
    if code in (numbers.EVENT_CONNECTION_DROP, numbers.EVENT_SESSION_DROP):
        connection.end(ConnectionEnded("the target has announced that it drops the connection"))


def rejected(connection: ClientConnection, chunk: Buffer, offset: int, data: Buffer) -> None:
    """Reject, RFC 7143 11.17."""
    (_, _, reason, _, _, statSN, expCmdSN, maxCmdSN, _) = layout.REJECT.unpack(chunk, offset)
    connection.numbered(statSN, expCmdSN, maxCmdSN)
    error = Rejected(reason)
    if len(data) < layout.BHS_LENGTH:
        return
    opcode, tag = data[0], int.from_bytes(data[16:20], "big")
    if opcode & numbers.OPCODE_MASK == numbers.DATA_OUT:
        # Its task goes on, or ends with a status of its own (RFC 7143 7.8, 11.17.1).
        return
    command = connection.commands.get(tag)
    if command is not None:
        if reason == numbers.REASON_DATA_DIGEST and not opcode & numbers.IMMEDIATE:
            # The target waits for its CmdSN, and at recovery level 0 nothing is sent twice.
            connection.end(error)
            return
        connection.drop(command)
        command.failed(error)
        return
    done = connection.callbacks.pop(tag, None)
    waiting = connection.texts.pop(tag, None)
    if done is not None or waiting is not None:
        (done or waiting.done)(error)  # type: ignore[union-attr]


def _residual(flags: int, count: int) -> int:
    if flags & numbers.UNDERFLOW:
        return count
    return -count if flags & numbers.OVERFLOW else 0


Handler = Callable[["ClientConnection", Buffer, int, Buffer], None]

LOGIN: Final[dict[int, Handler]] = {numbers.LOGIN_RESPONSE: loginResponse}
FULL: Final[dict[int, Handler]] = {
    numbers.SCSI_RESPONSE: scsiResponse,
    numbers.DATA_IN: dataIn,
    numbers.R2T: r2t,
    numbers.TASK_MANAGEMENT_RESPONSE: managed,
    numbers.TEXT_RESPONSE: textResponse,
    numbers.LOGOUT_RESPONSE: loggedOut,
    numbers.NOP_IN: nopIn,
    numbers.ASYNC_MESSAGE: asynchronous,
    numbers.REJECT: rejected,
}
