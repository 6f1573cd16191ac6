# -*- test-case-name: tests.session.test_connection -*-
"""What a target tells an initiator without being asked (RFC 7143 11.9, 11.17, 11.19)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.wire import layout, numbers

if TYPE_CHECKING:
    from iscsi_twisted.session.connection import Connection


def requestLogout(connection: Connection, seconds: int) -> None:
    """Ask the initiator to log out (RFC 7143 11.9.1, event 1)."""
    tell(connection, numbers.EVENT_LOGOUT_REQUEST, parameter3=seconds)


def reportEvent(connection: Connection, lunField: bytes, sense: bytes) -> None:
    """
    Tell the initiator of a SCSI asynchronous event (RFC 7143 11.9.1, event 0).

    @param lunField: the unit that reports it, as eight bytes.
    @param sense: its sense data.
    """
    tell(connection, numbers.EVENT_SCSI, lunField, len(sense).to_bytes(2, "big") + sense)


def tell(
    connection: Connection, event: int, lunField: bytes = bytes(8), data: bytes = b"", parameter3: int = 0
) -> None:
    """An asynchronous message (RFC 7143 11.9); without a session, or when it ends, nobody is told."""
    session = connection.session
    if session is None or connection.closing:
        return
    header = layout.ASYNC_MESSAGE.pack(
        numbers.ASYNC_MESSAGE, numbers.FINAL, len(data), lunField, numbers.NO_TAG, connection.nextStatSN(),
        session.expCmdSN, session.maxCmdSN, event, 0, 0, 0, parameter3,
    )  # fmt: skip
    connection.put(header, data)
    if not connection.corked:
        connection.flush()


def ping(connection: Connection) -> None:
    """Ask the initiator for a sign of life (RFC 7143 11.19).  This takes no StatSN."""
    session = connection.session
    assert session is not None
    header = layout.NOP_IN.pack(
        numbers.NOP_IN, numbers.FINAL, 0, bytes(8), numbers.NO_TAG, connection.nextTransferTag(),
        connection.statSN, session.expCmdSN, session.maxCmdSN,
    )  # fmt: skip
    connection.put(header)
    connection.flush()


def reject(connection: Connection, reason: int, chunk: Buffer, offset: int) -> None:
    """Answer a PDU with a Reject that carries its header (RFC 7143 11.17)."""
    connection.rejects += 1
    session = connection.session
    expCmdSN, maxCmdSN = (session.expCmdSN, session.maxCmdSN) if session else (0, 0)
    header = layout.REJECT.pack(
        numbers.REJECT, numbers.FINAL, reason, 48, numbers.NO_TAG, connection.nextStatSN(),
        expCmdSN, maxCmdSN, 0,
    )  # fmt: skip
    connection.put(header, bytes(chunk[offset : offset + 48]))
