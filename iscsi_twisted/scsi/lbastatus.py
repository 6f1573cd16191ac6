# -*- test-case-name: tests.scsi.test_lbastatus -*-
"""GET LBA STATUS: which blocks have storage behind them (SBC-3 5.4)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from iscsi_twisted.interfaces import ITask, isPending
from iscsi_twisted.scsi import cdb
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.transfer import refuseRange
from iscsi_twisted.scsi.unit import reply

if TYPE_CHECKING:
    from iscsi_twisted.scsi.disk import DiskUnit

COMMANDS = CommandSet()

EXAMINED: Final = 1 << 30
"""Bytes that one command looks at: an initiator that wants to know more asks again."""

_DESCRIPTOR: Final = struct.Struct(">QIB3x")
_MAPPED: Final = 0
_DEALLOCATED: Final = 1

Run = tuple[int, int, int]
"""First block, how many, provisioning status."""


@COMMANDS.handles(cdb.GET_LBA_STATUS)
def getLBAStatus(unit: DiskUnit, task: ITask) -> None:
    """GET LBA STATUS; SBC-3 5.4."""
    _, _, lba, allocation, _ = cdb.GET_LBA_STATUS.layout.unpack(task.cdb)
    refuseRange(unit, task, lba, 1, 1)
    blocks = min(unit.blockCount - lba, EXAMINED // unit.blockSize)
    if not unit.thin or not unit.tellsAllocation:
        _answer(task, [(lba, min(unit.blockCount - lba, 0xFFFFFFFF), _MAPPED)], allocation)
        return
    runs: Any = unit.device.allocated(lba * unit.blockSize, blocks * unit.blockSize)
    if isPending(runs):
        unit.pend(task, runs, lba * unit.blockSize, 0, False, _examined, unit, task, lba, blocks, allocation)
    else:
        _examined(runs, unit, task, lba, blocks, allocation)


def _examined(
    runs: list[tuple[int, bool]], unit: DiskUnit, task: ITask, lba: int, blocks: int, allocation: int
) -> None:
    _answer(task, list(blockRuns(runs, unit.blockSize, lba, blocks)), allocation)


def blockRuns(runs: Iterable[tuple[int, bool]], blockSize: int, lba: int, blocks: int) -> Iterator[Run]:
    """
    Runs of bytes as runs of blocks: a block that has storage for any of its bytes is mapped.

    @param runs: C{(bytes, has storage)}, in order, from the first byte of block C{lba} on.
    @param blocks: how many blocks they cover.
    """
    end = lba + blocks
    position = lba * blockSize
    reached = lba
    start = lba
    for length, stored in runs:
        first = max(reached, position // blockSize)
        position += length
        last = min(end, -(-position // blockSize))
        if stored and last > first:
            if first > reached:
                if reached > start:
                    yield start, reached - start, _MAPPED
                yield reached, first - reached, _DEALLOCATED
                start = first
            reached = last
    if reached > start:
        yield start, reached - start, _MAPPED
    if end > reached:
        yield reached, end - reached, _DEALLOCATED


def _answer(task: ITask, runs: list[Run], allocation: int) -> None:
    """As many descriptors as there is room for, and one at least."""
    room = max(1, (allocation - 8) // _DESCRIPTOR.size)
    descriptors = b"".join(_DESCRIPTOR.pack(*run) for run in runs[:room])
    header = struct.pack(">I4x", len(descriptors) + 4)
    reply(task, header + descriptors, allocation)
