# -*- test-case-name: tests.scsi.test_sanitize,tests.scsi.test_sanitizeresume -*-
"""
SANITIZE: make what was stored unreadable (SBC-4 4.11, 5.30).

OVERWRITE is for every device that writes in place, BLOCK ERASE for those that give storage back and then
read as zeros.  A device that keeps what lies below what is written (an overlay) has neither.  CRYPTOGRAPHIC
ERASE is for those that encrypt all that they store; to others it is a service action that they do not have.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import Buffer, ITask, isPending
from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.cdb import Command
from iscsi_twisted.scsi.cdblong import (
    SANITIZE_BLOCK_ERASE,
    SANITIZE_CRYPTO_ERASE,
    SANITIZE_EXIT_FAILURE_MODE,
    SANITIZE_OVERWRITE,
)
from iscsi_twisted.scsi.overhaul import ERASE, REKEY, SANITIZE, WRITE, Overhaul, Plan
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.transfer import guard

if TYPE_CHECKING:
    from iscsi_twisted.scsi.disk import DiskUnit

COMMANDS = CommandSet()

_IMMED: Final = 0x80
_ZNR: Final = 0x40
"""Zoned no reset: nothing here has zones."""
_AUSE: Final = 0x20
_RESERVED: Final = range(2, 7)
"""Bytes of the CDB; whoever sets them means something else than to destroy everything."""
_HEAD: Final = 4
"""Bytes of an overwrite parameter list before its pattern (SBC-4 table 99)."""


def _parse(unit: DiskUnit, task: ITask, command: Command) -> tuple[bool, bool, int]:
    """
    IMMED, AUSE and the parameter list length.

    @raise CheckCondition: for what is reserved, and for AUSE after a failure that does not allow it.
    """
    _, flags, length, _ = command.layout.unpack(task.cdb)
    if flags & _ZNR:
        raise unit.invalidField(task, "action", 6)
    for field in _RESERVED:
        if task.cdb[field]:
            raise CheckCondition(codes.ILLEGAL_REQUEST, codes.INVALID_FIELD_IN_CDB, field=field, bit=7)
    unrestricted = bool(flags & _AUSE)
    failed = unit.failedPlan
    if unrestricted and failed is not None and failed.kind == SANITIZE and not failed.unrestricted:
        raise unit.invalidField(task, "action", 5)
    return bool(flags & _IMMED), unrestricted, length


@COMMANDS.handles(SANITIZE_OVERWRITE)
def overwrite(unit: DiskUnit, task: ITask) -> None:
    """SANITIZE (OVERWRITE); SBC-4 5.30.2."""
    guard(unit, task)
    immediate, unrestricted, length = _parse(unit, task, SANITIZE_OVERWRITE)
    if not _HEAD < length <= _HEAD + unit.blockSize:
        raise unit.invalidField(task, "length")
    unit.receive(task, length, _received, unit, length, immediate, unrestricted)


def _received(
    task: ITask, data: Buffer, unit: DiskUnit, length: int, immediate: bool, unrestricted: bool
) -> None:
    if len(data) != length:
        raise CheckCondition(codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)
    options, size = struct.unpack_from(">BxH", data)
    passes, test = options & 0x1F, options & 0x60
    for wrong, place, bit in ((test, 0, 6), (not passes, 0, 4), (size != length - _HEAD, 2, None)):
        if wrong:
            raise CheckCondition(
                codes.ILLEGAL_REQUEST,
                codes.INVALID_FIELD_IN_PARAMETER_LIST,
                field=place,
                bit=bit,
                inData=True,
            )
    plan = Plan(
        SANITIZE, WRITE, bytes(data[_HEAD:]), passes, invert=bool(options & 0x80), unrestricted=unrestricted
    )
    _begin(unit, task, plan, immediate)


@COMMANDS.handles(SANITIZE_BLOCK_ERASE)
def blockErase(unit: DiskUnit, task: ITask) -> None:
    """SANITIZE (BLOCK ERASE); SBC-4 5.30.3."""
    _withoutList(unit, task, SANITIZE_BLOCK_ERASE, ERASE)


@COMMANDS.handles(SANITIZE_CRYPTO_ERASE)
def cryptographicErase(unit: DiskUnit, task: ITask) -> None:
    """SANITIZE (CRYPTOGRAPHIC ERASE); SBC-4 5.30.4."""
    _withoutList(unit, task, SANITIZE_CRYPTO_ERASE, REKEY)


def _withoutList(unit: DiskUnit, task: ITask, command: Command, action: str) -> None:
    guard(unit, task)
    immediate, unrestricted, length = _parse(unit, task, command)
    if length:
        raise unit.invalidField(task, "length")
    _begin(unit, task, Plan(SANITIZE, action, unrestricted=unrestricted), immediate)


def _begin(unit: DiskUnit, task: ITask, plan: Plan, immediate: bool) -> None:
    if unit.isOverhauled:
        # It was let in before another one began.
        assert unit.closure is not None
        raise unit.closure.condition()
    Overhaul(unit, plan, cdb=task.cdb, asker=task, immediate=immediate).begin()


@COMMANDS.handles(SANITIZE_EXIT_FAILURE_MODE)
def exitFailureMode(unit: DiskUnit, task: ITask) -> None:
    """SANITIZE (EXIT FAILURE MODE); SBC-4 5.30.5: only after what AUSE has allowed."""
    _, _, length = _parse(unit, task, SANITIZE_EXIT_FAILURE_MODE)
    failed = unit.failedPlan
    if failed is not None and failed.kind == SANITIZE and not failed.unrestricted:
        raise unit.invalidField(task, "action", 4)
    if length:
        raise unit.invalidField(task, "length")
    if failed is None or failed.kind != SANITIZE or unit.unfinished is None:
        _exited(None, unit, task)
        return
    # What is written from now on must not be overwritten at the next start.
    forgotten = unit.unfinished.save(b"")
    if isPending(forgotten):
        unit.pend(task, forgotten, 0, 0, True, _exited, unit, task)
    else:
        _exited(None, unit, task)


def _exited(_: None, unit: DiskUnit, task: ITask) -> None:
    failed = unit.failedPlan
    if failed is not None and failed.kind == SANITIZE:
        unit.reopen()
    task.complete()
