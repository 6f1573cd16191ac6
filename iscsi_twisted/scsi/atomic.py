# -*- test-case-name: tests.scsi.test_atomic -*-
"""
COMPARE AND WRITE and ORWRITE: reading and writing as one (SBC-3 5.2, 5.6).

Such a task has its range to itself from before it reads until after it has written.  I/O that does
not overlap goes on beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from iscsi_twisted.comparing import mismatch
from iscsi_twisted.errors import CheckCondition, ReadError
from iscsi_twisted.interfaces import Buffer, ITask
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.codes import FUA, PROTECT
from iscsi_twisted.scsi.operation import Sequence, Step
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.transfer import flushes, guard, refuseRange, storing
from iscsi_twisted.scsi.verify import alone, miscompare

if TYPE_CHECKING:
    from iscsi_twisted.scsi.disk import DiskUnit

COMMANDS = CommandSet()


def permitted(unit: DiskUnit, task: ITask, flags: int) -> int:
    """Refuse protection information, and what may not be written; the flags that hold."""
    if flags & PROTECT:
        raise unit.invalidField(task, "flags", 7)
    return flags | guard(unit, task)


def _reading(unit: DiskUnit, offset: int, length: int) -> Step:
    return offset, length, False, lambda: unit.device.read(offset, length)


def _writing(unit: DiskUnit, offset: int, data: Buffer, flags: int) -> Iterator[Step]:
    return chain([storing(unit, offset, data)], flushes(unit) if flags & FUA else ())


def _whole(found: Buffer, offset: int, length: int) -> None:
    if len(found) != length:
        raise ReadError(f"the device gave {len(found)} bytes instead of {length}", offset + len(found))


# COMPARE AND WRITE


@COMMANDS.handles(cdb.COMPARE_AND_WRITE)
def compareAndWrite(unit: DiskUnit, task: ITask) -> None:
    """COMPARE AND WRITE; SBC-3 5.2."""
    _, flags, lba, blocks, _, _ = cdb.COMPARE_AND_WRITE.layout.unpack(task.cdb)
    flags = permitted(unit, task, flags)
    length = 2 * blocks * unit.blockSize
    if task.expected != length:
        # What is compared and what is written would be other data than the initiator means.
        raise unit.invalidField(task, "length")
    if refuseRange(unit, task, lba, blocks, unit.compareLimit):
        task.complete()
        return
    unit.receive(task, length, _compareReceived, unit, lba * unit.blockSize, length // 2, flags)


def _compareReceived(task: ITask, data: Buffer, unit: DiskUnit, offset: int, length: int, flags: int) -> None:
    if len(data) != 2 * length:
        raise CheckCondition(codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)
    unit.exclude(task, offset, length, _readToCompare, unit, task, bytes(data), offset, length, flags)


def _readToCompare(unit: DiskUnit, task: ITask, data: bytes, offset: int, length: int, flags: int) -> None:
    steps = iter([_reading(unit, offset, length)])
    Sequence(unit, task, steps, _compared, unit, task, data, offset, length, flags).proceed()


def _compared(
    found: Buffer, unit: DiskUnit, task: ITask, data: bytes, offset: int, length: int, flags: int
) -> None:
    _whole(found, offset, length)
    difference = mismatch(found, memoryview(data)[:length])
    if difference is not None:
        # The offset in the Data-Out Buffer (SBC-3 5.2).
        raise miscompare(difference)
    steps = _writing(unit, offset, data[length:], flags)
    Sequence(unit, task, steps, alone, unit, task, length, unit.clock()).proceed()


# ORWRITE


@COMMANDS.handles(cdb.ORWRITE_16)
def orWrite16(unit: DiskUnit, task: ITask) -> None:
    """ORWRITE (16); SBC-3 5.6."""
    _, flags, lba, blocks, _, _ = cdb.ORWRITE_16.layout.unpack(task.cdb)
    flags = permitted(unit, task, flags)
    if refuseRange(unit, task, lba, blocks, unit.transferLimit):
        task.complete()
        return
    length = blocks * unit.blockSize
    unit.receive(task, length, _orReceived, unit, lba * unit.blockSize, flags)


def _orReceived(task: ITask, data: Buffer, unit: DiskUnit, offset: int, flags: int) -> None:
    whole = len(data) - len(data) % unit.blockSize
    if not whole:
        task.complete()
        return
    data = bytes(data)[:whole]
    unit.exclude(task, offset, whole, _readToOr, unit, task, data, offset, flags)


def _readToOr(unit: DiskUnit, task: ITask, data: bytes, offset: int, flags: int) -> None:
    steps = iter([_reading(unit, offset, len(data))])
    Sequence(unit, task, steps, _ored, unit, task, data, offset, flags).proceed()


def _ored(found: Buffer, unit: DiskUnit, task: ITask, data: bytes, offset: int, flags: int) -> None:
    length = len(data)
    _whole(found, offset, length)
    result = (int.from_bytes(found, "little") | int.from_bytes(data, "little")).to_bytes(length, "little")
    steps = _writing(unit, offset, result, flags)
    Sequence(unit, task, steps, alone, unit, task, length, unit.clock()).proceed()
