# -*- test-case-name: tests.scsi.test_copyresults -*-
"""RECEIVE COPY RESULTS, and the VPD page that tells what can be copied (SPC-3 6.18, SPC-4 7.8.17)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from iscsi_twisted.interfaces import ITask
from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.cdb import Command
from iscsi_twisted.scsi.cdblong import (
    COPY_STATUS,
    EXTENDED_COPY,
    FAILED_SEGMENT_DETAILS,
    OPERATING_PARAMETERS,
    RECEIVE_DATA,
)
from iscsi_twisted.scsi.copying import COPY_LIMIT, FAILED, CopyRecord
from iscsi_twisted.scsi.copylist import (
    BLOCK_TO_BLOCK,
    IDENTIFICATION,
    LIST_LIMIT,
    SEGMENT_LIMIT,
    TARGET_LIMIT,
)
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.unit import reply

if TYPE_CHECKING:
    from iscsi_twisted.scsi.disk import DiskUnit

COMMANDS = CommandSet()

SEGMENT_BYTES: Final = 0xFFFF * 8192
"""Bytes of one segment: all that its fields can say."""
_GRANULARITY: Final = 9
"""Exponent of the least amount of data that is copied."""
_DESCRIPTORS: Final = bytes((BLOCK_TO_BLOCK, IDENTIFICATION))


def _record(unit: DiskUnit, task: ITask, command: Command) -> tuple[CopyRecord, int]:
    """
    The copy that is asked for, and the allocation length.

    @raise CheckCondition: if this nexus has no copy with that identifier.
    """
    _, _, identifier, allocation, _ = command.layout.unpack(task.cdb)
    record = unit.copies.get((task.nexus, identifier))
    if record is None:
        raise unit.invalidField(task, "list")
    return record, allocation


@COMMANDS.handles(COPY_STATUS)
def copyStatus(unit: DiskUnit, task: ITask) -> None:
    """RECEIVE COPY RESULTS (COPY STATUS); SPC-3 6.18.2."""
    record, allocation = _record(unit, task, COPY_STATUS)
    count, units = record.copied, 0
    while count >> 32:
        # Kibibytes, mebibytes and so on; told is not more than was copied.
        count, units = count >> 10, units + 1
    reply(task, struct.pack(">IBHBI", 8, record.status, record.segments, units, count), allocation)


@COMMANDS.handles(RECEIVE_DATA)
def receiveData(unit: DiskUnit, task: ITask) -> None:
    """RECEIVE COPY RESULTS (RECEIVE DATA); SPC-3 6.18.3: no kind of segment holds any."""
    _, allocation = _record(unit, task, RECEIVE_DATA)
    reply(task, bytes(4), allocation)


@COMMANDS.handles(FAILED_SEGMENT_DETAILS)
def failedSegmentDetails(unit: DiskUnit, task: ITask) -> None:
    """RECEIVE COPY RESULTS (FAILED SEGMENT DETAILS); SPC-3 6.18.5."""
    record, allocation = _record(unit, task, FAILED_SEGMENT_DETAILS)
    if record.status != FAILED:
        reply(task, bytes(4), allocation)
        return
    said = record.sense
    status = codes.CHECK_CONDITION if said else codes.TASK_ABORTED
    details = struct.pack(">52xBxH", status, len(said)) + said
    reply(task, struct.pack(">I", len(details)) + details, allocation)


@COMMANDS.handles(OPERATING_PARAMETERS)
def operatingParameters(unit: DiskUnit, task: ITask) -> None:
    """RECEIVE COPY RESULTS (OPERATING PARAMETERS); SPC-3 6.18.4."""
    _, _, _, allocation, _ = OPERATING_PARAMETERS.layout.unpack(task.cdb)
    body = struct.pack(
        ">B3xHHIIIII2xHBBBB3xB",
        0x01,  # SNLID: there need not be a list identifier
        TARGET_LIMIT,
        SEGMENT_LIMIT,
        LIST_LIMIT,
        SEGMENT_BYTES,
        0,
        0,
        0,
        COPY_LIMIT,
        COPY_LIMIT,
        _GRANULARITY,
        0,
        0,
        len(_DESCRIPTORS),
    )
    reply(task, struct.pack(">I", len(body) + len(_DESCRIPTORS)) + body + _DESCRIPTORS, allocation)


# VPD page 8Fh


def _padded(kind: int, body: bytes) -> bytes:
    """A third-party copy descriptor, whose length is a multiple of four."""
    body += bytes(-len(body) % 4)
    return struct.pack(">HH", kind, len(body)) + body


def _commands() -> bytes:
    """The service actions by operation code; SPC-4 7.8.17.4."""
    actions: dict[int, list[int]] = {}
    for each in (EXTENDED_COPY, COPY_STATUS, RECEIVE_DATA, OPERATING_PARAMETERS, FAILED_SEGMENT_DETAILS):
        assert each.serviceAction is not None
        actions.setdefault(each.opcode, []).append(each.serviceAction)
    body = b"".join(bytes((opcode, len(found), *found)) for opcode, found in actions.items())
    return bytes((len(body),)) + body


def thirdPartyCopy(unit: DiskUnit, task: ITask) -> bytes:
    """Page 8Fh; SPC-4 7.8.17."""
    parameters = struct.pack(">4xHHII12x", TARGET_LIMIT, SEGMENT_LIMIT, LIST_LIMIT, 0)
    general = struct.pack(">IIIBB18x", COPY_LIMIT, COPY_LIMIT, SEGMENT_BYTES, _GRANULARITY, 0)
    return b"".join(
        (
            _padded(0x0001, _commands()),
            _padded(0x0004, parameters),
            _padded(0x0008, bytes((len(_DESCRIPTORS),)) + _DESCRIPTORS),
            _padded(0x8001, general),
        )
    )
