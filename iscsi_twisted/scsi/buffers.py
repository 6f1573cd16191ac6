# -*- test-case-name: tests.scsi.test_buffers -*-
"""
READ BUFFER and WRITE BUFFER: a buffer of the unit, and one of each nexus that gives back what it was sent,
to test the way between them (SPC-4 6.17, 6.49).

There is no microcode to be loaded, and no error history: those modes are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import Buffer, ITask
from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.cdbprimary import READ_BUFFER, WRITE_BUFFER
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.unit import reply

if TYPE_CHECKING:
    from iscsi_twisted.scsi.disk import DiskUnit

COMMANDS = CommandSet()

CAPACITY: Final = 1 << 16
"""Bytes of the data buffer: longer than a data segment is by default, so that it takes several."""
ECHO_CAPACITY: Final = 4096
"""Bytes of an echo buffer; there may be one for each nexus."""

DATA, DESCRIPTOR = 0x02, 0x03
ECHO, ECHO_DESCRIPTOR = 0x0A, 0x0B
"""Modes, SPC-4 tables 236 and 283; of those that write, only L{DATA} and L{ECHO}."""
_OVERWRITTEN: Final = 0x01
"""EBOS: an echo buffer is not overwritten by others unnoticed; here not at all."""


@COMMANDS.handles(READ_BUFFER)
def readBuffer(unit: DiskUnit, task: ITask) -> None:
    """READ BUFFER (10); SPC-4 6.17."""
    _, mode, number, high, offset, more, allocation, _ = READ_BUFFER.layout.unpack(task.cdb)
    offset |= high << 16
    reply(task, _content(unit, task, mode & 0x1F, number, offset), more << 16 | allocation)


def _content(unit: DiskUnit, task: ITask, mode: int, number: int, offset: int) -> bytes:
    if mode == DATA:
        _checkPlace(unit, task, number, offset)
        return bytes(unit.buffer[offset:]) + bytes(CAPACITY - max(offset, len(unit.buffer)))
    if mode == DESCRIPTOR:
        # Any place is fit to begin at; a buffer that is not there has no capacity.
        return (0 if number else CAPACITY).to_bytes(4, "big")
    if mode == ECHO:
        echo = unit.echoes.get(task.nexus)
        if echo is None:
            raise CheckCondition(codes.ILLEGAL_REQUEST, codes.COMMAND_SEQUENCE_ERROR)
        return echo
    if mode == ECHO_DESCRIPTOR:
        return bytes((_OVERWRITTEN, 0)) + ECHO_CAPACITY.to_bytes(2, "big")
    raise unit.invalidField(task, "mode", 4)


@COMMANDS.handles(WRITE_BUFFER)
def writeBuffer(unit: DiskUnit, task: ITask) -> None:
    """WRITE BUFFER; SPC-4 6.49."""
    _, mode, number, high, offset, more, length, _ = WRITE_BUFFER.layout.unpack(task.cdb)
    mode &= 0x1F
    offset |= high << 16
    length |= more << 16
    if mode not in (DATA, ECHO):
        raise unit.invalidField(task, "mode", 4)
    if mode == DATA:
        _checkPlace(unit, task, number, offset)
    if length > (CAPACITY - offset if mode == DATA else ECHO_CAPACITY):
        raise unit.invalidField(task, "lengthHigh")
    if length:
        unit.receive(task, length, _received, unit, mode, offset)
    else:
        task.complete()


def _received(task: ITask, data: Buffer, unit: DiskUnit, mode: int, offset: int) -> None:
    if mode == ECHO:
        unit.echoes[task.nexus] = bytes(data)
    else:
        missing = offset + len(data) - len(unit.buffer)
        unit.buffer.extend(bytes(max(0, missing)))
        unit.buffer[offset : offset + len(data)] = data
    task.complete()


def _checkPlace(unit: DiskUnit, task: ITask, number: int, offset: int) -> None:
    """@raise CheckCondition: for a buffer that is not there, or a place that is not in it."""
    if number:
        raise unit.invalidField(task, "buffer")
    if offset > CAPACITY:
        raise unit.invalidField(task, "offsetHigh")
