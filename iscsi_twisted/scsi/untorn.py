# -*- test-case-name: tests.scsi.test_untorn -*-
"""
WRITE ATOMIC: all of it or nothing, whatever happens (SBC-4 4.29, 5.44).

To other commands it is one step, as its range is its own while it is written.  A crash is another
matter: no file system promises that a large write is not torn.  So what is to be written is first kept
durably beside the medium, then written, then made durable there, and only then forgotten; what a crash has
left is written again before the unit is ready.  Without a place to keep it there is no such command.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import Buffer, IStateStore, ITask
from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.atomic import permitted
from iscsi_twisted.scsi.cdblong import WRITE_ATOMIC_16
from iscsi_twisted.scsi.operation import Step
from iscsi_twisted.scsi.origin import MARK, mark
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.transfer import flushes, refuseRange, storing
from iscsi_twisted.scsi.work import Work

if TYPE_CHECKING:
    from iscsi_twisted.scsi.disk import DiskUnit

COMMANDS = CommandSet()

ATOMIC_LIMIT: Final = 1 << 20
"""Bytes of one WRITE ATOMIC: each is written twice, and flushed twice."""

_RECORD: Final = struct.Struct(f">8s{MARK}sQII")
_MAGIC: Final = b"untorn 2"
RECORD_LIMIT: Final = _RECORD.size + ATOMIC_LIMIT
"""Bytes of the largest record."""


def record(offset: int, data: bytes, medium: str | None = None) -> bytes:
    """What is kept of a write that is under way to a medium."""
    whose = mark(medium)
    return _RECORD.pack(_MAGIC, whose, offset, len(data), _check(whose, offset, data)) + data


def _check(whose: bytes, offset: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(whose + offset.to_bytes(8, "big")))


def parseRecord(state: bytes) -> tuple[int, bytes, bytes]:
    """
    Offset and data of a write that was under way, and the mark of its medium (L{mark}).

    @raise ValueError: if that is no record.
    """
    if len(state) < _RECORD.size:
        raise ValueError(f"{len(state)} bytes are no record of a write")
    magic, whose, offset, length, check = _RECORD.unpack_from(state)
    data = state[_RECORD.size :]
    if magic != _MAGIC or len(data) != length or _check(whose, offset, data) != check:
        raise ValueError("the record of a write does not match its checksum")
    return offset, data, whose


class Journal:
    """
    Keeps one write at a time until it is durable on the medium.

    @ivar store: where.
    @ivar waiting: what waits for its turn, in order; the first is at work.
    @ivar stale: what it keeps could not be forgotten: it would be written again at the next start, over all
        that is written until then.
    """

    def __init__(self, store: IStateStore, changed: Callable[[], None], stale: bool = False) -> None:
        """@param changed: called when C{stale} may be another."""
        self.store = store
        self.stale = stale
        self._changed = changed
        self.waiting: list[tuple[Work, Iterator[Step]]] = []

    def enter(self, work: Work, steps: Iterator[Step]) -> None:
        """Begin work when it is its turn."""
        self.waiting.append((work, steps))
        if len(self.waiting) == 1:
            work.begin(steps)

    def leave(self, work: Work) -> None:
        """Work has ended, or waits no more."""
        if work.condition is not None and self.waiting and self.waiting[0][0] is work:
            # It has failed, and was told so: it must not be written after all, some day.
            self.forget(lambda: self._next(work))
        else:
            self._next(work)

    def forget(self, then: Callable[[], None] = lambda: None) -> None:
        """Keep nothing, and go on; while that cannot be done nobody may write."""

        def done(stale: bool) -> None:
            self.stale = stale
            self._changed()
            then()

        forgotten = self.store.save(b"")
        if forgotten is None:
            done(False)
        else:
            forgotten.addCallbacks(lambda _: done(False), lambda _: done(True))

    def _next(self, work: Work) -> None:
        first = self.waiting[0][0] if self.waiting else None
        self.waiting = [each for each in self.waiting if each[0] is not work]
        if first is work and self.waiting:
            self.waiting[0][0].begin(self.waiting[0][1])

    def writing(self, work: Work, unit: DiskUnit, offset: int, data: bytes) -> Iterator[Step]:
        """The steps of one write."""
        # From now on it is too late for second thoughts: an abort ends the task alone.
        work.lasting = True
        yield offset, 0, False, lambda: self.store.save(record(offset, data, unit.medium))
        yield storing(unit, offset, data)
        yield from flushes(unit)
        yield offset, 0, False, lambda: self.store.save(b"")


@COMMANDS.handles(WRITE_ATOMIC_16)
def writeAtomic16(unit: DiskUnit, task: ITask) -> None:
    """WRITE ATOMIC (16); SBC-4 5.44.  It is durable when it ends, with FUA and without."""
    _, flags, lba, _, blocks, _, _ = WRITE_ATOMIC_16.layout.unpack(task.cdb)
    permitted(unit, task, flags)
    # An atomic boundary allows parts that are atomic each on its own; here all of it always is.
    if refuseRange(unit, task, lba, blocks, unit.atomicLimit):
        task.complete()
        return
    length = blocks * unit.blockSize
    if task.expected != length:
        # A part of it would be torn.
        raise unit.invalidField(task, "length")
    unit.receive(task, length, _received, unit, lba * unit.blockSize, length)


def _received(task: ITask, data: Buffer, unit: DiskUnit, offset: int, length: int) -> None:
    journal = unit.journal
    if journal is None or len(data) != length:
        raise CheckCondition(codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)

    def ended(work: Work) -> None:
        journal.leave(work)
        if work.condition is None and not work.aborted:
            unit.writes += 1
            unit.writtenBytes += length

    work = Work(unit, task.cdb, length, ended, asker=task)
    steps = journal.writing(work, unit, offset, bytes(data))
    unit.exclude(work, offset, length, journal.enter, work, steps)
