# -*- test-case-name: tests.session.test_datain -*-
"""Data-In and SCSI Response PDUs (RFC 7143 11.7, 11.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.wire import layout, numbers

if TYPE_CHECKING:
    from iscsi_twisted.session.task import Task


def respond(task: Task, status: int, data: Buffer, sense: bytes) -> None:
    """Queue all that answers a task: its data as far as the initiator expects them, and its status."""
    flags, residual = _residual(task, len(data), status)
    sent = min(len(data), task.expected) if task.flags & numbers.READ else 0
    if sent < len(data):
        # What is left out must not live on as long as the rest waits to be sent.
        task.connection.costs(len(data) - sent)
        data = bytes(memoryview(data)[:sent])
    if not sent:
        _response(task, status, flags, residual, sense, 0)
    elif status:
        count = _dataIn(task, data, sent, None)
        _response(task, status, flags, residual, sense, count)
    else:
        _dataIn(task, data, sent, (flags, residual))


def _residual(task: Task, length: int, status: int) -> tuple[int, int]:
    """The residual flags and count (RFC 7143 11.4.5.1, SAM-5 5.4.3)."""
    if task.flags & numbers.WRITE:
        moved = task.wanted
    elif task.flags & numbers.READ:
        moved = length
    else:
        moved = length
        if not task.expected and not length:
            return 0, 0
    if moved > task.expected:
        return numbers.OVERFLOW, moved - task.expected
    if moved < task.expected:
        return numbers.UNDERFLOW, task.expected - moved
    return 0, 0


def _dataIn(task: Task, data: Buffer, length: int, final: tuple[int, int] | None) -> int:
    """
    Data-In PDUs, each no longer than the initiator takes; the last one carries GOOD status if C{final}.

    @param final: residual flags and count, or None if a SCSI Response follows.
    @return: how many PDUs.
    """
    connection, session = task.connection, task.session
    segment, burst = connection.maxSegment, session.parameters.maxBurst
    view = data if length == len(data) <= segment else memoryview(data)
    offset = dataSN = 0
    burstEnd = burst
    while offset < length:
        size = min(segment, length - offset, burstEnd - offset)
        end = offset + size
        flags = residual = statSN = 0
        if end in (length, burstEnd):
            flags = numbers.FINAL
            burstEnd += burst
        if end == length and final is not None:
            flags |= numbers.STATUS | final[0]
            residual = final[1]
            statSN = connection.nextStatSN()
        header = layout.DATA_IN.pack(
            numbers.DATA_IN, flags, 0, size, task.lunField, task.itt, numbers.NO_TAG,
            statSN, session.expCmdSN, session.maxCmdSN, dataSN, offset, residual,
        )  # fmt: skip
        connection.put(header, view if size == len(view) else view[offset:end])
        dataSN += 1
        offset = end
    return dataSN


def _response(task: Task, status: int, flags: int, residual: int, sense: bytes, dataSN: int) -> None:
    connection, session = task.connection, task.session
    segment = len(sense).to_bytes(2, "big") + sense if sense else b""
    header = layout.SCSI_RESPONSE.pack(
        numbers.SCSI_RESPONSE, numbers.FINAL | flags, 0, status, len(segment), task.itt, 0,
        connection.nextStatSN(), session.expCmdSN, session.maxCmdSN, dataSN, 0, residual,
    )  # fmt: skip
    connection.put(header, segment)
