# -*- test-case-name: tests.scsi.test_verify -*-
"""VERIFY, WRITE AND VERIFY and PRE-FETCH: reading without sending (SBC-3 4.23, 5.29 to 5.41)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from iscsi_twisted.comparing import mismatch
from iscsi_twisted.errors import CheckCondition, ReadError
from iscsi_twisted.interfaces import Buffer, ITask, isPending
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.codes import PROTECT
from iscsi_twisted.scsi.operation import Sequence, Step
from iscsi_twisted.scsi.provisioning import SLICE, slices
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.transfer import flushes, guard, refuseRange, stored, storing, synchronized

if TYPE_CHECKING:
    from iscsi_twisted.scsi.disk import DiskUnit

COMMANDS = CommandSet()

NOTHING, ALL, RESERVED, ONE = range(4)
"""BYTCHK: what comes for comparison; SBC-3 table 85."""

_IMMED: Final = 0x02


# VERIFY


@COMMANDS.handles(cdb.VERIFY_10)
def verify10(unit: DiskUnit, task: ITask) -> None:
    """VERIFY (10); SBC-3 5.29."""
    _, flags, lba, _, blocks, _ = cdb.VERIFY_10.layout.unpack(task.cdb)
    verify(unit, task, lba, blocks, flags)


@COMMANDS.handles(cdb.VERIFY_12)
def verify12(unit: DiskUnit, task: ITask) -> None:
    """VERIFY (12); SBC-3 5.30."""
    _, flags, lba, blocks, _, _ = cdb.VERIFY_12.layout.unpack(task.cdb)
    verify(unit, task, lba, blocks, flags)


@COMMANDS.handles(cdb.VERIFY_16)
def verify16(unit: DiskUnit, task: ITask) -> None:
    """VERIFY (16); SBC-3 5.31."""
    _, flags, lba, blocks, _, _ = cdb.VERIFY_16.layout.unpack(task.cdb)
    verify(unit, task, lba, blocks, flags)


def byteCheck(unit: DiskUnit, task: ITask, flags: int) -> int:
    """BYTCHK; protection information, and the value that is reserved, are refused."""
    if flags & PROTECT:
        raise unit.invalidField(task, "flags", 7)
    check = flags >> 1 & 0x03
    if check == RESERVED:
        raise unit.invalidField(task, "flags", 2)
    return check


def verify(unit: DiskUnit, task: ITask, lba: int, blocks: int, flags: int) -> None:
    """What every VERIFY does once its CDB is understood."""
    check = byteCheck(unit, task, flags)
    if refuseRange(unit, task, lba, blocks, unit.transferLimit):
        task.complete()
        return
    offset, length = lba * unit.blockSize, blocks * unit.blockSize
    if check == NOTHING:
        _compare(unit, task, offset, length, None)
    elif check == ALL:
        unit.receive(task, length, _allReceived, unit, offset)
    else:
        unit.receive(task, unit.blockSize, _oneReceived, unit, offset, length)


def _allReceived(task: ITask, data: Buffer, unit: DiskUnit, offset: int) -> None:
    """The initiator may have less than its CDB says: what WRITE would write of it is compared."""
    whole = len(data) - len(data) % unit.blockSize
    if whole:
        _compare(unit, task, offset, whole, bytes(data)[:whole])
    else:
        task.complete()


def _oneReceived(task: ITask, data: Buffer, unit: DiskUnit, offset: int, length: int) -> None:
    """Every block has to be like this one."""
    if len(data) != unit.blockSize:
        raise CheckCondition(codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)
    _compare(unit, task, offset, length, bytes(data) * (min(SLICE, length) // unit.blockSize))


def _compare(unit: DiskUnit, task: ITask, offset: int, length: int, wanted: Buffer | None) -> None:
    steps = chain(flushes(unit), comparing(unit, offset, length, wanted))
    Sequence(unit, task, steps, _verified, unit, task, length).proceed()


def _verified(_: Any, unit: DiskUnit, task: ITask, length: int) -> None:
    unit.verifiedBytes += length
    task.complete()


def comparing(unit: DiskUnit, offset: int, length: int, wanted: Buffer | None) -> Iterator[Step]:
    """
    Steps that read a range piece by piece, and look at each before the next.

    @param wanted: what should be there, over and over if it is shorter; None if anything may.
    """
    size = SLICE if wanted is None else min(SLICE, len(wanted))
    for start, count in slices(offset, length, size):
        found: list[Buffer] = []
        yield start, count, False, partial(_read, unit, start, count, found)
        if len(found[0]) != count:
            raise ReadError("the device gave too few bytes", start + len(found[0]))
        if wanted is not None:
            place = (start - offset) % len(wanted)
            difference = mismatch(found[0], memoryview(wanted)[place : place + count])
            if difference is not None:
                raise miscompare((start + difference) // unit.blockSize)


def _read(unit: DiskUnit, offset: int, length: int, found: list[Buffer]) -> Any:
    """Read, and keep what was read in C{found}."""

    def keep(data: Buffer) -> Buffer:
        found.append(data)
        return data

    data: Any = unit.device.read(offset, length)
    return data.addCallbacks(keep) if isPending(data) else keep(data)


def miscompare(information: int) -> CheckCondition:
    """MISCOMPARE DURING VERIFY OPERATION; SBC-3 4.18."""
    return CheckCondition(codes.MISCOMPARE, codes.MISCOMPARE_DURING_VERIFY, information=information)


# WRITE AND VERIFY


@COMMANDS.handles(cdb.WRITE_AND_VERIFY_10)
def writeAndVerify10(unit: DiskUnit, task: ITask) -> None:
    """WRITE AND VERIFY (10); SBC-3 5.39."""
    _, flags, lba, _, blocks, _ = cdb.WRITE_AND_VERIFY_10.layout.unpack(task.cdb)
    writeAndVerify(unit, task, lba, blocks, flags)


@COMMANDS.handles(cdb.WRITE_AND_VERIFY_12)
def writeAndVerify12(unit: DiskUnit, task: ITask) -> None:
    """WRITE AND VERIFY (12); SBC-3 5.40."""
    _, flags, lba, blocks, _, _ = cdb.WRITE_AND_VERIFY_12.layout.unpack(task.cdb)
    writeAndVerify(unit, task, lba, blocks, flags)


@COMMANDS.handles(cdb.WRITE_AND_VERIFY_16)
def writeAndVerify16(unit: DiskUnit, task: ITask) -> None:
    """WRITE AND VERIFY (16); SBC-3 5.41."""
    _, flags, lba, blocks, _, _ = cdb.WRITE_AND_VERIFY_16.layout.unpack(task.cdb)
    writeAndVerify(unit, task, lba, blocks, flags)


def writeAndVerify(unit: DiskUnit, task: ITask, lba: int, blocks: int, flags: int) -> None:
    """What every WRITE AND VERIFY does once its CDB is understood."""
    check = byteCheck(unit, task, flags)
    if check > ALL:
        raise unit.invalidField(task, "flags", 2)
    guard(unit, task)
    if refuseRange(unit, task, lba, blocks, unit.transferLimit):
        task.complete()
        return
    length = blocks * unit.blockSize
    unit.receive(task, length, _writeReceived, unit, lba * unit.blockSize, check == ALL)


def _writeReceived(task: ITask, data: Buffer, unit: DiskUnit, offset: int, compared: bool) -> None:
    whole = len(data) - len(data) % unit.blockSize
    if not whole:
        task.complete()
        return
    if whole < len(data):
        data = bytes(memoryview(data)[:whole])
    # What is read back is what was written, and not what another task wrote there since.
    unit.exclude(task, offset, whole, _writeThenVerify, unit, task, offset, data, compared)


def _writeThenVerify(unit: DiskUnit, task: ITask, offset: int, data: Buffer, compared: bool) -> None:
    steps = chain(
        [storing(unit, offset, data)],
        flushes(unit),
        comparing(unit, offset, len(data), data if compared else None),
    )
    Sequence(unit, task, steps, alone, unit, task, len(data), unit.clock()).proceed()


def alone(_: Any, unit: DiskUnit, task: ITask, length: int, started: float) -> None:
    """Count what was written, end the task, and let others into its range."""
    stored(None, unit, task, length, started)
    unit.release(task)


# PRE-FETCH


@COMMANDS.handles(cdb.PREFETCH_10)
def prefetch10(unit: DiskUnit, task: ITask) -> None:
    """PRE-FETCH (10); SBC-3 5.7."""
    _, flags, lba, _, blocks, _ = cdb.PREFETCH_10.layout.unpack(task.cdb)
    prefetch(unit, task, lba, blocks, flags)


@COMMANDS.handles(cdb.PREFETCH_16)
def prefetch16(unit: DiskUnit, task: ITask) -> None:
    """PRE-FETCH (16); SBC-3 5.8."""
    _, flags, lba, blocks, _, _ = cdb.PREFETCH_16.layout.unpack(task.cdb)
    prefetch(unit, task, lba, blocks, flags)


def prefetch(unit: DiskUnit, task: ITask, lba: int, blocks: int, flags: int) -> None:
    """
    Read what the device may then have in its cache; no blocks means all to the end.

    Nobody knows how much a device keeps, so the status is GOOD and not CONDITION MET.  As this may take
    long, no more is read than one READ may transfer, and with IMMED nothing.
    """
    refuseRange(unit, task, lba, blocks, unit.blockCount)
    count = min(blocks or unit.blockCount - lba, unit.transferLimit)
    if flags & _IMMED:
        task.complete()
        return
    steps = comparing(unit, lba * unit.blockSize, count * unit.blockSize, None)
    Sequence(unit, task, steps, synchronized, task).proceed()
