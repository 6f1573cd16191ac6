# -*- test-case-name: tests.scsi.test_provisioning -*-
"""UNMAP and WRITE SAME: many blocks with little data (SBC-3 4.7, 5.28, 5.43)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Final, TypeAlias

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import Buffer, ITask
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.codes import PROTECT
from iscsi_twisted.scsi.operation import Sequence, Step
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.transfer import flushes, guard, refuseRange, stored, storing, synchronized

if TYPE_CHECKING:
    from iscsi_twisted.scsi.disk import DiskUnit

COMMANDS = CommandSet()

Range: TypeAlias = tuple[int, int]
"""First block, and how many."""

SLICE: Final = 1 << 20
"""Bytes of a pattern that are written in one go: calls cost little, and nobody waits for long."""

_HEADER: Final = 8
_DESCRIPTOR: Final = struct.Struct(">QI4x")

# Flags of WRITE SAME
_ANCHOR: Final = 0x10
_UNMAP: Final = 0x08
_OBSOLETE: Final = 0x06
"""PBDATA and LBDATA."""
_NDOB: Final = 0x01


# UNMAP


@COMMANDS.handles(cdb.UNMAP)
def unmap(unit: DiskUnit, task: ITask) -> None:
    """UNMAP; SBC-3 5.28."""
    _, flags, _, length, _ = cdb.UNMAP.layout.unpack(task.cdb)
    if flags & 0x01:  # ANCHOR
        raise unit.invalidField(task, "flags", 0)
    guard(unit, task)
    if not length:
        task.complete()
    elif length < _HEADER:
        raise unit.refusal(task, codes.PARAMETER_LIST_LENGTH_ERROR, "length")
    else:
        unit.receive(task, length, unmapReceived, unit)


def unmapReceived(task: ITask, data: Buffer, unit: DiskUnit) -> None:
    """Discard what a parameter list names, if all of it may be."""
    ranges = parseRanges(unit, data)
    steps = (
        (lba * unit.blockSize, blocks * unit.blockSize, True, partial(_discard, unit, lba, blocks))
        for lba, blocks in ranges
        if blocks
    )
    Sequence(unit, task, chain(steps, durable(unit)), synchronized, task).proceed()


def durable(unit: DiskUnit) -> Iterator[Step]:
    """The last step of what writes, where every write is to be durable (WCE is zero)."""
    return flushes(unit) if unit.writeThrough else iter(())


def _discard(unit: DiskUnit, lba: int, blocks: int) -> object:
    return unit.device.discard(lba * unit.blockSize, blocks * unit.blockSize)


def parseRanges(unit: DiskUnit, data: Buffer) -> list[Range]:
    """
    The ranges of an UNMAP parameter list (SBC-3 5.28.2); a descriptor that is cut off is ignored.

    @raise CheckCondition: if the list has no header, names too much, or blocks that are not there.
    """
    if len(data) < _HEADER:
        raise CheckCondition(codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)
    (announced,) = struct.unpack_from(">H", data, 2)
    count = min(announced, len(data) - _HEADER) // _DESCRIPTOR.size
    if count > unit.descriptorLimit:
        raise _invalidParameter(2)
    ranges: list[Range] = []
    total = 0
    for place in range(_HEADER, _HEADER + count * _DESCRIPTOR.size, _DESCRIPTOR.size):
        lba, blocks = _DESCRIPTOR.unpack_from(data, place)
        if lba + blocks > unit.blockCount:
            raise CheckCondition(
                codes.ILLEGAL_REQUEST,
                codes.LBA_OUT_OF_RANGE,
                information=max(lba, unit.blockCount),
                field=place,
                inData=True,
            )
        total += blocks
        if total > unit.unmapLimit:
            raise _invalidParameter(place + 8)
        ranges.append((lba, blocks))
    return ranges


def _invalidParameter(place: int) -> CheckCondition:
    return CheckCondition(
        codes.ILLEGAL_REQUEST, codes.INVALID_FIELD_IN_PARAMETER_LIST, field=place, inData=True
    )


# WRITE SAME


@COMMANDS.handles(cdb.WRITE_SAME_10)
def writeSame10(unit: DiskUnit, task: ITask) -> None:
    """WRITE SAME (10); SBC-3 5.42."""
    _, flags, lba, _, blocks, _ = cdb.WRITE_SAME_10.layout.unpack(task.cdb)
    if flags & _NDOB:  # here an obsolete bit, RELADR
        raise unit.invalidField(task, "flags", 0)
    writeSame(unit, task, lba, blocks, flags)


@COMMANDS.handles(cdb.WRITE_SAME_16)
def writeSame16(unit: DiskUnit, task: ITask) -> None:
    """WRITE SAME (16); SBC-3 5.43."""
    _, flags, lba, blocks, _, _ = cdb.WRITE_SAME_16.layout.unpack(task.cdb)
    writeSame(unit, task, lba, blocks, flags)


def writeSame(unit: DiskUnit, task: ITask, lba: int, blocks: int, flags: int) -> None:
    """What every WRITE SAME does once its CDB is understood."""
    checkSameFlags(unit, task, flags)
    guard(unit, task)
    if not blocks and unit.sameZero and lba < unit.blockCount:
        blocks = unit.blockCount - lba
    if refuseRange(unit, task, lba, blocks, unit.sameLimit):
        # Of no blocks: it would mean all of them to the end (WSNZ).
        raise unit.invalidField(task, "length")
    wantsUnmap = bool(flags & _UNMAP)
    if flags & _NDOB:
        _same(unit, task, bytes(unit.blockSize), lba, blocks, wantsUnmap)
    elif task.expected != unit.blockSize:
        # The initiator means something else than the one block of this command.
        raise CheckCondition(codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)
    else:
        unit.receive(task, unit.blockSize, sameReceived, unit, lba, blocks, wantsUnmap)


def checkSameFlags(unit: DiskUnit, task: ITask, flags: int) -> None:
    """Refuse protection information, anchors, what is obsolete, and UNMAP where nothing is thin."""
    if flags & PROTECT:
        raise unit.invalidField(task, "flags", 7)
    if flags & _ANCHOR:
        raise unit.invalidField(task, "flags", 4)
    if flags & _UNMAP and not unit.thin:
        raise unit.invalidField(task, "flags", 3)
    if flags & _OBSOLETE:
        raise unit.invalidField(task, "flags", 2 if flags & 0x04 else 1)


def sameReceived(task: ITask, data: Buffer, unit: DiskUnit, lba: int, blocks: int, wantsUnmap: bool) -> None:
    """Write the one block that has come to many places."""
    if len(data) != unit.blockSize:
        raise CheckCondition(codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)
    _same(unit, task, bytes(data), lba, blocks, wantsUnmap)


def _same(unit: DiskUnit, task: ITask, block: bytes, lba: int, blocks: int, wantsUnmap: bool) -> None:
    length = blocks * unit.blockSize
    steps = chain(pieces(unit, block, lba * unit.blockSize, length, wantsUnmap), durable(unit))
    Sequence(unit, task, steps, stored, unit, task, length, unit.clock()).proceed()


def pieces(unit: DiskUnit, block: bytes, offset: int, length: int, wantsUnmap: bool) -> Iterator[Step]:
    """The steps of a WRITE SAME."""
    if not any(block):
        # A device for which zeros are cheap gets them in one go.
        size = length if unit.cheapZeroes else SLICE
        for start, count in slices(offset, length, size):
            yield start, count, True, partial(unit.device.zero, start, count, wantsUnmap)
        return
    pattern = block * (min(SLICE, length) // len(block))
    for start, count in slices(offset, length, len(pattern)):
        yield storing(unit, start, pattern if count == len(pattern) else pattern[:count])


def slices(offset: int, length: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut a range into pieces of at most C{size} bytes."""
    end = offset + length
    for start in range(offset, end, size):
        yield start, min(size, end - start)
