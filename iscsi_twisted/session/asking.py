# -*- test-case-name: tests.session.test_client,tests.session.test_clientanswers -*-
"""
What an initiator asks beside SCSI commands, all of it immediate (RFC 7143 11.5, 11.10, 11.12, 11.14, 11.18).

Each takes a connection, and what is called with the answer, or with an error; each raises L{LocalError} if
there is no session, or no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from iscsi_twisted.errors import LocalError
from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.session.command import Command
from iscsi_twisted.wire import layout, numbers, text

if TYPE_CHECKING:
    from iscsi_twisted.session.client import ClientConnection

Callback = Callable[[Any], Any]

_NO_LUN: Final = bytes(8)
_NO_TAG: Final = numbers.NO_TAG


class Text:
    """A text request that waits for its answer, or for more of it."""

    def __init__(self, done: Callback) -> None:
        self.done = done
        self.parts = bytearray()
        self.rounds = 0


def manage(
    connection: ClientConnection, function: int, lunField: bytes, command: Command | None, done: Callback
) -> None:
    """
    Send a task management function (RFC 7143 11.5).

    @param command: which to abort, for ABORT TASK.
    @param done: called with the response code (RFC 7143 11.6.1), or with an error.
    """
    tag = connection.begins(done)
    # Some targets count the status of an aborted task, though they do not send it.
    connection.gaps.allowed += len(connection.commands) if command is None else 1
    referenced, refCmdSN = (_NO_TAG, 0) if command is None else (command.itt, command.cmdSN)
    connection.put(
        layout.TASK_MANAGEMENT_REQUEST.pack(
            numbers.TASK_MANAGEMENT_REQUEST | numbers.IMMEDIATE, numbers.FINAL | function, 0, lunField,
            tag, referenced, connection.cmdSN, connection.expStatSN, refCmdSN, 0,
        )
    )  # fmt: skip
    connection.pushed()


def ask(connection: ClientConnection, pairs: Iterable[tuple[str, str]], done: Callback) -> None:
    """
    Send a Text Request (RFC 7143 11.10).

    @param done: called with the pairs of the whole answer, or with an error.
    """
    tag = connection.begins(None)
    connection.texts[tag] = Text(done)
    sendText(connection, tag, _NO_TAG, text.encode(pairs))


def sendText(connection: ClientConnection, tag: int, ttt: int, data: bytes) -> None:
    """All that is asked here fits one PDU; the request for more of an answer is empty."""
    header = layout.TEXT_REQUEST.pack(
        numbers.TEXT_REQUEST | numbers.IMMEDIATE, numbers.FINAL, 0, _NO_LUN, tag, ttt, connection.cmdSN,
        connection.expStatSN,
    )  # fmt: skip
    connection.put(header, data)
    connection.pushed()


def ping(connection: ClientConnection, done: Callback, data: bytes = b"") -> None:
    """
    Send a NOP-Out that wants an answer (RFC 7143 11.18).

    @param done: called with the data that came back, or with an error.
    @raise LocalError: for more data than the target takes.
    """
    _fits(connection, data)
    sendNOP(connection, connection.begins(done), _NO_TAG, _NO_LUN, data)
    connection.pushed()


def nop(connection: ClientConnection, data: bytes = b"") -> None:
    """
    Send a NOP-Out that wants no answer.

    @raise LocalError: for more data than the target takes.
    """
    connection.usable()
    _fits(connection, data)
    sendNOP(connection, _NO_TAG, _NO_TAG, _NO_LUN, data)
    connection.pushed()


def sendNOP(connection: ClientConnection, tag: int, ttt: int, lunField: bytes, data: Buffer) -> None:
    """Queue a NOP-Out: a ping, or the answer to one."""
    header = layout.NOP_OUT.pack(
        numbers.NOP_OUT | numbers.IMMEDIATE, numbers.FINAL, 0, lunField, tag, ttt, connection.cmdSN,
        connection.expStatSN,
    )  # fmt: skip
    connection.put(header, data)


def _fits(connection: ClientConnection, data: bytes) -> None:
    most = connection.parameters.maxSegment
    if len(data) > most:
        raise LocalError(f"{len(data)} bytes of data, where the target takes {most}")


def logout(connection: ClientConnection, done: Callback) -> None:
    """
    Close the session (RFC 7143 11.14).

    @param done: called with the response code, or with an error; then the connection ends.
    """
    tag = connection.begins(done)
    connection.put(
        layout.LOGOUT_REQUEST.pack(
            numbers.LOGOUT_REQUEST | numbers.IMMEDIATE, numbers.FINAL | numbers.CLOSE_SESSION, 0, tag, 0,
            connection.cmdSN, connection.expStatSN,
        )
    )  # fmt: skip
    # No other request may follow (RFC 7143 11.14).
    connection.full, connection.leaving = False, True
    connection.pushed()


def sendLogin(connection: ClientConnection, pairs: Iterable[tuple[str, str]]) -> None:
    """Queue a Login Request (RFC 7143 11.12) for the stage that the negotiation is in."""
    negotiator = connection.negotiator
    assert negotiator is not None
    flags = negotiator.stage << 2
    if negotiator.next is not None:
        flags |= numbers.FINAL | negotiator.next
    header = layout.LOGIN_REQUEST.pack(
        numbers.LOGIN_REQUEST | numbers.IMMEDIATE, flags, 0, 0, 0, connection.wish.isid, connection.tsih,
        connection.loginTag, 0, connection.cmdSN, connection.expStatSN,
    )  # fmt: skip
    connection.put(header, text.encode(pairs))
