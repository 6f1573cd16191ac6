# -*- test-case-name: tests.scsi.test_transfer -*-
"""
READ, WRITE and SYNCHRONIZE CACHE (SBC-3): the data path.

The four forms of READ and of WRITE differ in their CDBs alone.  What a device answers at once is
passed on at once; only what has to wait makes an object.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from iscsi_twisted.errors import CheckCondition, ReadError
from iscsi_twisted.interfaces import Buffer, ITask, isPending
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.codes import FUA, PROTECT
from iscsi_twisted.scsi.operation import Sequence, Step
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.work import Work

if TYPE_CHECKING:
    from iscsi_twisted.scsi.disk import DiskUnit

COMMANDS = CommandSet()

_IMMED = 0x02
"""Of SYNCHRONIZE CACHE."""

_READ_6 = cdb.READ_6.layout.unpack
_READ_10 = cdb.READ_10.layout.unpack
_READ_12 = cdb.READ_12.layout.unpack
_READ_16 = cdb.READ_16.layout.unpack


@COMMANDS.handles(cdb.READ_6)
def read6(unit: DiskUnit, task: ITask) -> None:
    """READ (6); SBC-3 5.10: 21 bits of LBA, and a length of zero means 256."""
    _, high, low, blocks, _ = _READ_6(task.cdb)
    readBlocks(unit, task, (high & 0x1F) << 16 | low, blocks or 256, 0)


@COMMANDS.handles(cdb.READ_10)
def read10(unit: DiskUnit, task: ITask) -> None:
    """READ (10); SBC-3 5.11."""
    _, flags, lba, _, blocks, _ = _READ_10(task.cdb)
    readBlocks(unit, task, lba, blocks, flags)


@COMMANDS.handles(cdb.READ_12)
def read12(unit: DiskUnit, task: ITask) -> None:
    """READ (12); SBC-3 5.12."""
    _, flags, lba, blocks, _, _ = _READ_12(task.cdb)
    readBlocks(unit, task, lba, blocks, flags)


@COMMANDS.handles(cdb.READ_16)
def read16(unit: DiskUnit, task: ITask) -> None:
    """READ (16); SBC-3 5.13."""
    _, flags, lba, blocks, _, _ = _READ_16(task.cdb)
    readBlocks(unit, task, lba, blocks, flags)


@COMMANDS.handles(cdb.WRITE_6)
def write6(unit: DiskUnit, task: ITask) -> None:
    """WRITE (6); SBC-3 5.33: 21 bits of LBA, and a length of zero means 256."""
    _, high, low, blocks, _ = _READ_6(task.cdb)
    writeBlocks(unit, task, (high & 0x1F) << 16 | low, blocks or 256, 0)


@COMMANDS.handles(cdb.WRITE_10)
def write10(unit: DiskUnit, task: ITask) -> None:
    """WRITE (10); SBC-3 5.34."""
    _, flags, lba, _, blocks, _ = _READ_10(task.cdb)
    writeBlocks(unit, task, lba, blocks, flags)


@COMMANDS.handles(cdb.WRITE_12)
def write12(unit: DiskUnit, task: ITask) -> None:
    """WRITE (12); SBC-3 5.35."""
    _, flags, lba, blocks, _, _ = _READ_12(task.cdb)
    writeBlocks(unit, task, lba, blocks, flags)


@COMMANDS.handles(cdb.WRITE_16)
def write16(unit: DiskUnit, task: ITask) -> None:
    """WRITE (16); SBC-3 5.36."""
    _, flags, lba, blocks, _, _ = _READ_16(task.cdb)
    writeBlocks(unit, task, lba, blocks, flags)


# Reading


def readBlocks(unit: DiskUnit, task: ITask, lba: int, blocks: int, flags: int) -> None:
    """What every READ does once its CDB is understood."""
    if flags & PROTECT:
        raise protected(unit, task)
    if (not 0 < blocks <= unit.transferLimit or lba + blocks > unit.blockCount) and refuseRange(
        unit, task, lba, blocks, unit.transferLimit
    ):
        task.complete()
        return
    blockSize = unit.blockSize
    if flags & FUA and unit.volatileCache:
        # What is read must be what the medium holds.
        Sequence(unit, task, iter([flushing(unit)]), _flushed, unit, task, lba, blocks).proceed()
    else:
        load(unit, task, lba * blockSize, blocks * blockSize)


def _flushed(_: None, unit: DiskUnit, task: ITask, lba: int, blocks: int) -> None:
    load(unit, task, lba * unit.blockSize, blocks * unit.blockSize)


def load(unit: DiskUnit, task: ITask, offset: int, length: int) -> None:
    """Read from the device, and end the task with what was read."""
    if unit.fences and unit.held(task, offset, length, load, unit, task, offset, length):
        return
    started = unit.clock()
    data: Any = unit.device.read(offset, length)
    # L{isPending}, without the cost of a call.
    if hasattr(data, "addCallbacks"):
        unit.waitedReads += 1
        unit.pend(task, data, offset, length, False, loaded, unit, task, offset, length, started)
    else:
        loaded(data, unit, task, offset, length, started)


def loaded(data: Buffer, unit: DiskUnit, task: ITask, offset: int, length: int, started: float) -> None:
    """Count what was read and hand it over."""
    elapsed = unit.clock() - started
    unit.readSeconds += elapsed
    if elapsed > unit.latencyMax:
        unit.latencyMax = elapsed
    if len(data) != length:
        raise ReadError(f"the device gave {len(data)} bytes instead of {length}", offset + len(data))
    unit.reads += 1
    unit.readBytes += length
    task.complete(data)


# Writing


def writeBlocks(unit: DiskUnit, task: ITask, lba: int, blocks: int, flags: int) -> None:
    """What every WRITE does once its CDB is understood: nothing is fetched that cannot be written."""
    if flags & PROTECT:
        raise protected(unit, task)
    if unit.guarded or task.nexus.readOnly:
        flags |= guard(unit, task)
    if (not 0 < blocks <= unit.transferLimit or lba + blocks > unit.blockCount) and refuseRange(
        unit, task, lba, blocks, unit.transferLimit
    ):
        task.complete()
        return
    blockSize = unit.blockSize
    if task.receive(blocks * blockSize, received, unit, lba * blockSize, flags & FUA):
        unit.receiving.add(task)
        unit.room.entered()


def received(task: ITask, data: Buffer, unit: DiskUnit, offset: int, fua: int) -> None:
    """
    Write what has come.  An initiator may have less than its CDB says; a part of a block is dropped.
    """
    if unit.receiving and unit.arrived(task, data, received, unit, offset, fua):
        return
    extra = len(data) % unit.blockSize
    if extra:
        data = bytes(memoryview(data)[:-extra])
    if not data:
        task.complete()
    elif fua and unit.volatileCache:
        started = unit.clock()
        steps = iter([storing(unit, offset, data), flushing(unit)])
        Sequence(unit, task, steps, stored, unit, task, len(data), started).proceed()
    else:
        store(unit, task, data, offset)


def store(unit: DiskUnit, task: ITask, data: Buffer, offset: int) -> None:
    """Write to the device, then end the task."""
    length = len(data)
    if unit.fences and unit.held(task, offset, length, store, unit, task, data, offset):
        return
    started = unit.clock()
    result = unit.device.write(offset, data)
    if result is not None and isPending(result):
        unit.pend(task, result, offset, length, True, stored, unit, task, length, started)
    else:
        stored(None, unit, task, length, started)


def stored(_: None, unit: DiskUnit, task: ITask, length: int, started: float) -> None:
    """Count what was written and end the task."""
    elapsed = unit.clock() - started
    unit.writeSeconds += elapsed
    if elapsed > unit.latencyMax:
        unit.latencyMax = elapsed
    unit.writes += 1
    unit.writtenBytes += length
    task.complete()


def storing(unit: DiskUnit, offset: int, data: Buffer) -> Step:
    """A step that writes."""
    return offset, len(data), True, lambda: unit.device.write(offset, data)


def flushing(unit: DiskUnit) -> Step:
    """A step that makes durable what was written."""
    return 0, 0, False, unit.device.flush


# Refusing


def protected(unit: DiskUnit, task: ITask) -> CheckCondition:
    """Protection information is not supported (SBC-3 5.11)."""
    return unit.invalidField(task, "flags", 7)


def guard(unit: DiskUnit, task: ITask) -> int:
    """
    Refuse what would write where it must not.

    @return: FUA if every write is to be durable (WCE is zero), else 0: to be added to the flags of a CDB.
    @raise CheckCondition: the unit, or this nexus, may not be written (SBC-3 4.12, SPC-4 7.5.8).
    """
    if unit.readOnly or task.nexus.readOnly:
        raise CheckCondition(codes.DATA_PROTECT, codes.WRITE_PROTECTED)
    if unit.settings.softwareProtected:
        raise CheckCondition(codes.DATA_PROTECT, codes.SOFTWARE_WRITE_PROTECTED)
    if unit.journal is not None and unit.journal.stale:
        # It would not last: at the next start an older write is done once more.
        raise CheckCondition(codes.HARDWARE_ERROR, codes.INTERNAL_TARGET_FAILURE)
    return FUA if unit.writeThrough else 0


def refuseRange(unit: DiskUnit, task: ITask, lba: int, blocks: int, limit: int) -> bool:
    """
    Look closer at blocks that were not all within bounds.

    @param limit: how many blocks the command may concern.
    @return: True if the range is empty and harmless; False if nothing is wrong with it.
    @raise CheckCondition: LBA OUT OF RANGE with the first such LBA, or a field that is too large.
    """
    # An empty range may stand just behind the last block (SBC-3 5.11).
    if lba + blocks > unit.blockCount:
        first = max(lba, unit.blockCount)
        raise unit.refusal(task, codes.LBA_OUT_OF_RANGE, "lba", information=first)
    if blocks > limit:
        raise unit.invalidField(task, "length")
    return blocks == 0


# Flushing


@COMMANDS.handles(cdb.SYNCHRONIZE_CACHE_10)
def synchronizeCache10(unit: DiskUnit, task: ITask) -> None:
    """SYNCHRONIZE CACHE (10); SBC-3 5.23."""
    _, flags, lba, _, blocks, _ = cdb.SYNCHRONIZE_CACHE_10.layout.unpack(task.cdb)
    synchronize(unit, task, lba, blocks, flags)


@COMMANDS.handles(cdb.SYNCHRONIZE_CACHE_16)
def synchronizeCache16(unit: DiskUnit, task: ITask) -> None:
    """SYNCHRONIZE CACHE (16); SBC-3 5.24."""
    _, flags, lba, blocks, _, _ = cdb.SYNCHRONIZE_CACHE_16.layout.unpack(task.cdb)
    synchronize(unit, task, lba, blocks, flags)


def synchronize(unit: DiskUnit, task: ITask, lba: int, blocks: int, flags: int) -> None:
    """
    Make everything durable, whatever the range.

    With IMMED that goes on after the status; if it fails, a later command is told (SPC-4 4.5.5).  Whoever may
    only read has to wait: it could ask for so many that others find no room.
    """
    refuseRange(unit, task, lba, blocks, unit.blockCount)
    if not flags & _IMMED or unit.onlyReads(task.nexus):
        Sequence(unit, task, flushes(unit), synchronized, task).proceed()
        return
    nexus = task.nexus

    def ended(work: Work) -> None:
        if work.condition is not None:
            unit.belate(nexus, work.condition)

    Work(unit, task.cdb, 0, ended).begin(flushes(unit))
    task.complete()


def flushes(unit: DiskUnit) -> Iterator[Step]:
    """The one step of a flush, or none where writes are durable when they end."""
    if unit.volatileCache:
        yield flushing(unit)


def synchronized(_: None, task: ITask) -> None:
    """End a task when all is durable."""
    task.complete()
