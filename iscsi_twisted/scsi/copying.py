# -*- test-case-name: tests.scsi.test_copying,tests.scsi.test_copyaccess,tests.scsi.test_copyoffload -*-
"""
EXTENDED COPY (LID1): units copy among themselves, and no data go over the network (SPC-3 6.3).

Source and destination may be any units of this target that the nexus sees.  It may copy what it could
read and write itself: masking, write protection, reservations, access states and the state of the medium
hold for both ends.  Within one file system the kernel copies; else data are read and written, a piece in
each turn.  What has no storage behind it in a thin source is given none in a thin destination.  An abort
stops it after the piece that is being done.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from iscsi_twisted.errors import CheckCondition, ReadError
from iscsi_twisted.interfaces import Buffer, INexus, ITask, isPending
from iscsi_twisted.scsi import cdb, codes, sense
from iscsi_twisted.scsi.cdblong import EXTENDED_COPY
from iscsi_twisted.scsi.copylist import (
    DISCARDED,
    HEADER,
    LIST_LIMIT,
    NONE,
    CopyList,
    Segment,
    parse,
    tooShort,
)
from iscsi_twisted.scsi.operation import Ongoing, Step
from iscsi_twisted.scsi.provisioning import SLICE, durable
from iscsi_twisted.scsi.sense import DESTINATION, SOURCE
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.transfer import guard, storing
from iscsi_twisted.scsi.vpd import NAA, NAME_STRING, T10_VENDOR, nameString
from iscsi_twisted.scsi.work import Work

if TYPE_CHECKING:
    from iscsi_twisted.scsi.disk import DiskUnit

COMMANDS = CommandSet()

COPY_LIMIT: Final = 16
"""Copies of one unit at the same time: each holds a piece in memory, or a thread."""
OFFLOAD_SLICE: Final = 8 << 20
"""Bytes that a device copies by itself in one go."""

IN_PROGRESS, COMPLETED, FAILED = range(3)
"""COPY MANAGER STATUS; SPC-3 table 189."""


@attrs.define(eq=False)
class CopyRecord:
    """
    What is known of a copy.

    @ivar status: L{IN_PROGRESS}, L{COMPLETED} or L{FAILED}.
    @ivar segments: those that are done.
    @ivar copied: bytes.
    @ivar sense: why it failed.
    """

    status: int = IN_PROGRESS
    segments: int = 0
    copied: int = 0
    sense: bytes = b""


_Said: TypeAlias = tuple[int, int, CheckCondition | None]
"""What a source or a destination answers: which of them, its status, and its condition."""


class _Refused(Exception):
    """A segment cannot be carried out."""

    def __init__(self, code: int, field: int | None = None, forwarded: _Said | None = None) -> None:
        super().__init__(code)
        self.code, self.field, self.forwarded = code, field, forwarded


# Places in a segment descriptor
_SOURCE, _DESTINATION, _BLOCKS, _READ, _WRITTEN = 4, 6, 10, 12, 20


@COMMANDS.handles(EXTENDED_COPY)
def extendedCopy(unit: DiskUnit, task: ITask) -> None:
    """EXTENDED COPY (LID1); SPC-3 6.3."""
    _, _, length, _ = EXTENDED_COPY.layout.unpack(task.cdb)
    if not length:
        task.complete()
    elif not HEADER <= length <= HEADER + LIST_LIMIT:
        raise tooShort()
    else:
        unit.receive(task, length, _received, unit)


def _received(task: ITask, data: Buffer, unit: DiskUnit) -> None:
    what = parse(bytes(data))
    record, key = CopyRecord(), (task.nexus, what.identifier)
    if what.usage != NONE:
        other = unit.copies.get(key)
        if other is not None and other.status == IN_PROGRESS:
            raise CheckCondition(codes.ILLEGAL_REQUEST, codes.OPERATION_IN_PROGRESS)
    if unit.copying >= COPY_LIMIT:
        unit.turnAway(task, codes.BUSY)
        return
    if what.usage != NONE:
        unit.copies[key] = record
    Copy(unit, task, what, record).begin()


class Copy:
    """One EXTENDED COPY that is under way."""

    def __init__(self, unit: DiskUnit, task: ITask, what: CopyList, record: CopyRecord) -> None:
        self._unit = unit
        self._task = task
        self._what = what
        self._record = record
        self._end = SOURCE
        self._visible = neighbours(unit, task.nexus)
        self._written: dict[DiskUnit, None] = {}
        self._work = Work(unit, task.cdb, 0, self._ended, asker=task)
        self._work.carries = True
        unit.copying += 1

    def begin(self) -> None:
        """Take the first step."""
        self._work.begin(self._steps())

    def _steps(self) -> Iterator[Step]:
        for segment in self._what.segments:
            try:
                yield from self._segment(segment)
            except _Refused as refused:
                raise self._aborted(refused) from None
            self._record.segments += 1
        for unit in self._written:
            self._work.at, self._end = unit, DESTINATION
            yield from durable(unit)

    def _segment(self, segment: Segment) -> Iterator[Step]:
        source = self._find(segment.source, SOURCE, segment)
        destination = self._find(segment.destination, DESTINATION, segment)
        length, rest = self._measure(segment, source, destination)
        if not length + rest:
            return
        self._written[destination] = None
        for each in (source, destination):
            self._work.concerns(each)
        start = segment.sourceBlock * source.blockSize
        offset = segment.destinationBlock * destination.blockSize
        for piece, count in pieces(source, destination, start, offset, length):
            yield from self._piece(source, destination, start + piece, offset + piece, count)
        if rest:
            self._work.at, self._end = destination, DESTINATION
            yield storing(destination, offset + length, bytes(rest))

    # Which units

    def _find(self, index: int, end: int, segment: Segment) -> DiskUnit:
        """The unit at one end of a segment, if the nexus could read or write it there itself."""
        field = _SOURCE if end == SOURCE else _DESTINATION
        targets = self._what.targets
        if index >= len(targets):
            raise _Refused(codes.UNREACHABLE_COPY_TARGET, field)
        target = targets[index]
        unit = self._visible.get((target.kind, target.designator))
        if unit is None:
            raise _Refused(codes.COPY_TARGET_NOT_REACHABLE, field)
        if target.peripheral != unit.peripheral & 0x1F:
            raise _Refused(codes.WRONG_COPY_TARGET_TYPE, field)
        if target.blockSize not in (0, unit.blockSize):
            raise _Refused(codes.NO_ADDITIONAL_SENSE, field)
        self._permit(unit, end)
        return unit

    def _permit(self, unit: DiskUnit, end: int) -> None:
        """@raise _Refused: if the nexus sees that unit no more, could not read there, or write."""
        if not seen(unit, self._task.nexus):
            raise _Refused(codes.COPY_TARGET_NOT_REACHABLE, _SOURCE if end == SOURCE else _DESTINATION)
        denied = unit.denial(self._task.nexus, cdb.READ_16 if end == SOURCE else cdb.WRITE_16)
        if denied is None and end == DESTINATION:
            try:
                guard(unit, self._task)
            except CheckCondition as condition:
                denied = codes.CHECK_CONDITION, condition
        if denied is not None:
            field = _SOURCE if end == SOURCE else _DESTINATION
            raise _Refused(codes.THIRD_PARTY_FAILURE, field, (end, *denied))

    def _measure(self, segment: Segment, source: DiskUnit, destination: DiskUnit) -> tuple[int, int]:
        """
        How many bytes are copied, and how many zeros follow them to fill the last block (PAD).

        @raise _Refused: for what is left over and belongs nowhere, and for blocks that are not there.
        """
        size = destination.blockSize if segment.byDestination else source.blockSize
        length = segment.blocks * size
        rest = -length % destination.blockSize
        inexact = bool(length % source.blockSize)
        # With CAT it would go in front of the next segment's data (SPC-3 6.3.7.2), which is not done here.
        carried = segment.concatenates and segment is not self._what.segments[-1]
        if inexact or (rest and (carried or not self._what.targets[segment.destination].pad)):
            raise _Refused(codes.UNEXPECTED_INEXACT_SEGMENT, _BLOCKS)
        for unit, first, count, end, field in (
            (source, segment.sourceBlock, length // source.blockSize, SOURCE, _READ),
            (
                destination,
                segment.destinationBlock,
                (length + rest) // destination.blockSize,
                DESTINATION,
                _WRITTEN,
            ),
        ):
            if first + count > unit.blockCount:
                beyond = CheckCondition(
                    codes.ILLEGAL_REQUEST, codes.LBA_OUT_OF_RANGE, information=max(first, unit.blockCount)
                )
                refused = (end, codes.CHECK_CONDITION, beyond)
                raise _Refused(codes.NO_ADDITIONAL_SENSE, field, refused)
        return length, rest

    # Copying

    def _piece(
        self, source: DiskUnit, destination: DiskUnit, start: int, offset: int, length: int
    ) -> Iterator[Step]:
        # Things may have changed since the piece before.
        self._permit(source, SOURCE)
        self._permit(destination, DESTINATION)
        found: list[list[tuple[int, bool]]] = []
        if staysThin(source, destination, start, offset, length):
            self._work.at, self._end = source, SOURCE
            asked = partial(source.device.allocated, start, length)
            yield start, length, False, partial(keeping, asked, found)
        for run, stored in found.pop() if found else [(length, True)]:
            if stored:
                yield from self._carry(source, destination, start, offset, run)
            else:
                self._work.at, self._end = destination, DESTINATION
                yield offset, run, True, partial(destination.device.zero, offset, run, True)
            start, offset = start + run, offset + run
        self._record.copied += length
        destination.writtenBytes += length
        source.readBytes += length

    def _carry(
        self, source: DiskUnit, destination: DiskUnit, start: int, offset: int, length: int
    ) -> Iterator[Step]:
        if offloads(source, destination, start, offset, length):
            begun: list[bool] = []
            while not begun:
                # Where another task has the source's range to itself that is waited for, holding nothing.
                self._work.at, self._end = source, SOURCE
                yield start, length, False, _nothing
                self._work.at, self._end = destination, DESTINATION
                begin = partial(self._offload, source, destination, start, offset, length, begun)
                yield offset, length, True, begin
        else:
            found: list[Buffer] = []
            self._work.at, self._end = source, SOURCE
            yield start, length, False, partial(keeping, partial(source.device.read, start, length), found)
            if len(found[0]) != length:
                raise ReadError("the device gave too few bytes", start + len(found[0]))
            self._work.at, self._end = destination, DESTINATION
            yield storing(destination, offset, found.pop())

    def _offload(
        self, source: DiskUnit, destination: DiskUnit, start: int, offset: int, length: int, begun: list[bool]
    ) -> Any:
        """Let the device copy, unless the source's range is another task's by now."""
        if source.fenced(self._work, start, length):
            return None
        begun.append(True)
        reader = Ongoing(source, self._work, start, start + length)
        source.operations.add(reader)

        def ended(result: Any) -> Any:
            source.operations.discard(reader)
            reader.resume()
            return result

        device: Any = destination.device
        try:
            result = device.copy(source.device, start, offset, length)
        except Exception:
            ended(None)
            raise
        return result.addBoth(ended) if isPending(result) else ended(result)

    # Its end

    def _aborted(self, refused: _Refused) -> CheckCondition:
        """COPY ABORTED, pointing at a field of the segment (SPC-3 6.3.3, 4.5.2.4.5)."""
        forwarded = None
        if refused.forwarded is not None:
            end, status, condition = refused.forwarded
            forwarded = (end, status, b"" if condition is None else sense.encode(condition))
        pointer = bytes(3) if refused.field is None else struct.pack(">BH", 0xA0, refused.field)
        return CheckCondition(
            codes.COPY_ABORTED,
            refused.code,
            specific=pointer,
            commandSpecific=self._record.segments,
            forwarded=forwarded,
        )

    def _ended(self, work: Work) -> None:
        unit, record = self._unit, self._record
        unit.copying -= 1
        if work.condition is None and not work.aborted:
            record.status = COMPLETED
        else:
            record.status = FAILED
            condition = work.condition
            if condition is not None and condition.key != codes.COPY_ABORTED:
                failed = self._end, codes.CHECK_CONDITION, condition
                condition = work.condition = self._aborted(_Refused(codes.THIRD_PARTY_FAILURE, None, failed))
            record.sense = b"" if condition is None else sense.encode(condition)
        key = self._task.nexus, self._what.identifier
        if self._what.usage == DISCARDED and unit.copies.get(key) is record:
            del unit.copies[key]


def _nothing() -> None:
    """The device is asked later."""


def neighbours(unit: DiskUnit, nexus: INexus) -> dict[tuple[int, bytes], DiskUnit]:
    """The disks of a unit's target that a nexus sees, by designator type and designator (SPC-4 7.8.6)."""
    inventory = unit.inventory
    found: dict[tuple[int, bytes], DiskUnit] = {}
    for lun in inventory.visible(nexus):
        each = inventory.units.get(lun)
        if each is not None and each.copyable:
            identity = each.identity
            vendor = (identity.vendor.ljust(8) + identity.serial).encode("ascii")[:255]
            found[NAA, identity.naa] = each  # type: ignore[assignment]
            found[T10_VENDOR, vendor] = each  # type: ignore[assignment]
            found[NAME_STRING, nameString(identity.deviceName)] = each  # type: ignore[assignment]
    return found


def seen(unit: DiskUnit, nexus: INexus) -> bool:
    """Whether a nexus sees a unit."""
    inventory = unit.inventory
    return any(inventory.units.get(lun) is unit for lun in inventory.visible(nexus))


def keeping(call: Callable[[], Any], found: list[Any]) -> Any:
    """Call something, and keep what comes of it, now or later, in C{found}."""

    def keep(result: Any) -> None:
        found.append(result)

    result = call()
    return result.addCallbacks(keep) if isPending(result) else keep(result)


def staysThin(source: DiskUnit, destination: DiskUnit, start: int, offset: int, length: int) -> bool:
    """Whether what has no storage in the source needs none in the destination: both read as zeros there."""
    return (
        source.tellsAllocation
        and source.unmappedZeroes
        and destination.thin
        and destination.unmappedZeroes
        and not overlap(source, destination, start, offset, length)
    )


def overlap(source: DiskUnit, destination: DiskUnit, start: int, offset: int, length: int) -> bool:
    """Whether a copy within one unit reads what it writes."""
    return source is destination and start < offset + length and offset < start + length


def offloads(source: DiskUnit, destination: DiskUnit, start: int, offset: int, length: int) -> bool:
    """Whether the destination's device copies a piece by itself."""
    ask = getattr(destination.device, "copiesFrom", None)
    if ask is None or overlap(source, destination, start, offset, length):
        return False
    return bool(ask(source.device))


def pieces(
    source: DiskUnit, destination: DiskUnit, start: int, offset: int, length: int
) -> Iterator[tuple[int, int]]:
    """
    Cut a copy into pieces: where each begins, and its length.

    Where a unit copies to a place of its own that overlaps, nothing is overwritten before it was read.
    """
    size = OFFLOAD_SLICE if offloads(source, destination, start, offset, length) else SLICE
    found = [(place, min(size, length - place)) for place in range(0, length, size)]
    return reversed(found) if source is destination and start < offset else iter(found)
