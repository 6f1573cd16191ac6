# -*- test-case-name: tests.initiator.test_lun -*-
"""A logical unit of a target, with a method for what is asked of disks; it is a block device too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from iscsi_twisted.errors import (
    CheckCondition,
    DeviceError,
    LocalError,
    NotReady,
    OutOfSpace,
    RemoteError,
    WriteError,
    WriteProtected,
)
from iscsi_twisted.initiator.asked import Asked, AskedAgain, Flushed, Flushing, Reading, Volatile, Writing
from iscsi_twisted.initiator.identity import PAGES, named
from iscsi_twisted.initiator.parts import ROUNDS, RUNS, addRun, addRuns, few, together
from iscsi_twisted.initiator.session import Session
from iscsi_twisted.interfaces import Buffer, Capabilities
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.client import (
    Capacity,
    IllegalRequest,
    Inquiry,
    Miscompare,
    UnitAttention,
    unmapList,
)
from iscsi_twisted.scsi.lun import encodeLUN
from iscsi_twisted.session.answers import FunctionRefused
from iscsi_twisted.session.command import SIMPLE, Outcome
from iscsi_twisted.storage.device import BlockDevice, checkRange
from iscsi_twisted.wire import numbers

LARGEST: Final = 1 << 20
"""Bytes of one READ or WRITE, if the unit does not want fewer: larger ones gain nothing."""

BLOCKS: Final = (256, LARGEST)
"""Bytes that a block may have, in multiples of 8; no disk has others."""

LONGEST: Final = (1 << 63) - 1
"""Bytes that a unit may have: as many as a file."""

RESTARTS: Final = (codes.POWER_ON, codes.POWER_ON_OCCURRED, codes.DEVICE_INTERNAL_RESET)
"""
Unit attentions after which a cache may be empty; not those of resets, and of a mere loss of the nexus, which
leave it as it is.  (Some targets tell of a power on in each session.)
"""

ALLOCATION: Final = 0xFFFF
_SHORT: Final = 0xFFFF
_LOW: Final = 0xFFFFFFFF
"""Blocks and addresses that a ten-byte CDB can name."""

_pack10 = cdb.READ_10.layout.pack
_pack16 = cdb.READ_16.layout.pack
_READ_10, _WRITE_10 = cdb.READ_10.opcode, cdb.WRITE_10.opcode
_READ_16, _WRITE_16 = cdb.READ_16.opcode, cdb.WRITE_16.opcode


class LUN(BlockDevice):
    """
    A logical unit, as the initiator sees it.

    All that C{scsi...} methods and the others return may be awaited, and cancelled, which aborts the task.
    Unit attentions are taken, told to C{attention}, and the command is sent again.

    Offsets and lengths are bytes, multiples of C{blockSize}.

    @ivar number: the logical unit number.
    @ivar size: bytes; known once it was opened.
    @ivar inquiry: its standard INQUIRY data; known once it was opened.
    @ivar capacityData: its L{Capacity}; known once it was opened.
    @ivar attention: called with each L{UnitAttention}; may be replaced.
    @ivar restarts: how often it was started anew, as its unit attentions tell.
    @ivar volatile: what it may still lose.
    @ivar cached: it has a volatile write cache; known once it was opened.
    @ivar forced: it takes FUA (SBC-3 6.4.1, DPOFUA); known once it was opened.
    @ivar timeout: seconds after which a command is aborted; None for never.
    """

    inquiry: Inquiry
    capacityData: Capacity

    def __init__(self, session: Session, number: int = 0, *, timeout: float | None = None) -> None:
        """@raise LocalError: if there can be no such number."""
        self.session = session
        self.number = number
        self.timeout = timeout
        self.attention: Callable[[UnitAttention], Any] = lambda condition: None
        self._field = encodeLUN(number)
        self.restarts = 0
        self.volatile = Volatile()
        self._changed: Callable[[], None] = lambda: None
        self._step = self._same = LARGEST
        self._unmapBlocks = 0
        self.cached = self.forced = self._readOnly = False

    def __str__(self) -> str:
        return f"LUN {self.number} of {self.session.wish.targetName}"

    # Commands as they are

    def execute(
        self,
        cdbBytes: bytes,
        *,
        expected: int = 0,
        data: Buffer = b"",
        into: bytearray | memoryview | None = None,
        attribute: int = SIMPLE,
        replay: bool = False,
    ) -> Deferred[Outcome]:
        """
        Execute any command.

        @param cdbBytes: 6 to 16 bytes.
        @param expected: bytes of Data-In that there is room for.
        @param replay: whether it may be sent again when the connection is lost before it was answered.
        @return: fires if the status is GOOD or CONDITION MET; else fails with what
            L{iscsi_twisted.scsi.client.failure} makes of it.
        """
        kind = AskedAgain if replay else Asked
        return self._start(kind(self._field, cdbBytes, expected, data, into, attribute))

    def _start(self, request: Asked) -> Deferred[Any]:
        request.lun = self
        return self.session.start(request, self.timeout)

    def _change(self, command: bytes, data: Buffer = b"", kind: type[Flushed] = Writing) -> Deferred[None]:
        """Execute a command that changes the medium, and that may be sent twice."""
        return self._start(kind(self._field, command, 0, data))

    def attended(self, condition: UnitAttention) -> None:
        """A unit attention came instead of an answer."""
        self.attention(condition)
        restarted = condition.code in RESTARTS and self.size > 0
        if restarted:
            self.restarts += 1
            if self.cached and self.volatile.dirty:
                self._forgot(condition, "was started anew")
        if restarted or condition.code in (codes.CAPACITY_CHANGED, codes.MODE_PARAMETERS_CHANGED):
            self._changed()

    def belated(self, error: CheckCondition) -> None:
        """Something has gone wrong with a command that was said to have succeeded (SPC-4 4.5.7)."""
        if error.key != codes.RECOVERED_ERROR:
            self._forgot(error, f"has failed belatedly ({error})")

    def _forgot(self, cause: CheckCondition, what: str) -> None:
        """What was written and not flushed may be gone."""
        lost = WriteError(f"{self} {what}: what was written before, and not flushed, may be lost")
        lost.__cause__ = cause
        self.volatile.lost(lost)

    def restored(self) -> None:
        """Whoever was told that it was started anew writes again what may be lost: no flush has to fail."""
        self.volatile.restored()

    async def _ask(self, command: cdb.Command, expected: int, **fields: int) -> bytes:
        outcome = await self.execute(_cdb(command, **fields), expected=expected, replay=True)
        return bytes(outcome.data)

    async def _tell(
        self, command: cdb.Command, data: Buffer = b"", replay: bool = True, **fields: int
    ) -> None:
        await self.execute(_cdb(command, **fields), data=data, replay=replay)

    # Looking at it

    async def ready(self) -> None:
        """
        TEST UNIT READY.

        @raise UnitNotReady: if it is not.
        """
        await self._tell(cdb.TEST_UNIT_READY)

    async def identify(self) -> Inquiry:
        """Standard INQUIRY data."""
        return Inquiry.parse(await self._ask(cdb.INQUIRY, 96, allocation=96))

    async def page(self, code: int) -> bytes:
        """
        A page of vital product data (SPC-4 7.8), with its head.

        @raise IllegalRequest: if the unit does not have it.
        @raise RemoteError: if it sends something else, or less than it says.
        """
        page = await self._ask(cdb.INQUIRY, ALLOCATION, flags=1, page=code, allocation=ALLOCATION)
        length = 4 + int.from_bytes(page[2:4], "big")
        if len(page) < 4 or page[1] != code or len(page) < min(length, ALLOCATION):
            raise RemoteError(f"{self} was asked for page {code:02X}h of its data, and sent something else")
        return page[:length]

    async def capacity(self) -> Capacity:
        """READ CAPACITY (16), or (10) from a unit that has no other."""
        try:
            return Capacity.parse(await self._ask(cdb.READ_CAPACITY_16, 32, allocation=32))
        except CheckCondition as error:
            if error.key != codes.ILLEGAL_REQUEST:
                raise
        data = await self._ask(cdb.READ_CAPACITY_10, 8)
        return Capacity.parse(bytes(4) + data)

    # The medium

    def read(self, offset: int, length: int) -> Deferred[Buffer]:
        """Read bytes; long ranges are read by several commands at once."""
        checkRange(self.size, offset, length)
        if length <= self._step:
            return self._read(offset, length, None)
        whole = bytearray(length)
        return self.readInto(offset, whole).addCallback(lambda _: whole)

    def readInto(self, offset: int, buffer: bytearray | memoryview) -> Deferred[None]:
        """Read as many bytes as there is room for, into a buffer of the caller's."""
        view = memoryview(buffer).cast("B")
        length = len(view)
        checkRange(self.size, offset, length)
        parts = [
            self._read(offset + place, min(self._step, length - place), view[place : place + self._step])
            for place in range(0, length, self._step)
        ]
        return together(parts)

    def _read(self, offset: int, length: int, into: memoryview | None) -> Deferred[Any]:
        if not length:
            return succeed(b"")
        command = self._transfer(offset, length, _READ_10, _READ_16, 0)
        request = Reading(self._field, command, length, b"", into)
        request.lun = self
        return self.session.start(request, self.timeout)

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> Deferred[None]:
        """
        Write bytes, which must not change until this fires.

        @param fua: whether they are durable then (FUA), without a flush.
        """
        checkRange(self.size, offset, len(data))
        flags, kind = (codes.FUA, Flushed) if fua else (0, Writing)
        if 0 < len(data) <= self._step:
            return self._change(self._transfer(offset, len(data), _WRITE_10, _WRITE_16, flags), data, kind)
        view = memoryview(data).cast("B")
        return together(
            self.write(offset + place, view[place : place + self._step], fua=fua)
            for place in range(0, len(data), self._step)
        )

    def _transfer(self, offset: int, length: int, short: int, long: int, flags: int) -> bytes:
        """The CDB of a READ or WRITE: ten bytes where they can say it."""
        lba, blocks = self._blocks(offset, length)
        if blocks <= _SHORT and lba <= _LOW:
            return _pack10(short, flags, lba, 0, blocks, 0)
        return _pack16(long, flags, lba, blocks, 0, 0)

    def flush(self) -> Deferred[None]:
        """
        SYNCHRONIZE CACHE: all that was written before is durable when this fires.

        It fails with L{WriteError}, once, if the unit was started anew since, and what it had in its cache
        may be lost.
        """
        command = _cdb(cdb.SYNCHRONIZE_CACHE_10)
        request = Flushing(self._field, command)
        request.covers, request.losses = self.volatile.written, self.volatile.losses
        return self._start(request)

    def discard(self, offset: int, length: int) -> Deferred[None]:
        """UNMAP: nobody needs these bytes any more."""
        checkRange(self.size, offset, length)
        if not self._unmapBlocks or not length:
            return succeed(None)
        return few(self._unmap, offset, length, self._unmapBlocks * self.blockSize)

    def _unmap(self, offset: int, length: int) -> Deferred[None]:
        data = unmapList([self._blocks(offset, length)])
        return self._change(_cdb(cdb.UNMAP, length=len(data)), data)

    def zero(self, offset: int, length: int, unmap: bool = False) -> Deferred[None]:
        """
        Make bytes read as zeros: WRITE SAME of a block of zeros.

        @param unmap: whether their storage may be given back.
        """
        checkRange(self.size, offset, length)
        block = bytes(self.blockSize)
        flags = 0x08 if unmap and self._unmapBlocks else 0

        def same(offset: int, length: int) -> Deferred[None]:
            lba, blocks = self._blocks(offset, length)
            return self._change(_cdb(cdb.WRITE_SAME_16, lba=lba, length=blocks, flags=flags), block)

        return few(same, offset, length, self._same)

    def allocated(self, offset: int, length: int) -> Deferred[list[tuple[int, bool]]]:
        """GET LBA STATUS: runs of C{(length in bytes, has storage)}."""
        checkRange(self.size, offset, length)
        return Deferred.fromCoroutine(self._allocated(offset, length))

    async def _allocated(self, offset: int, length: int) -> list[tuple[int, bool]]:
        runs: list[tuple[int, bool]] = []
        place, end = offset, offset + length
        for _ in range(ROUNDS):
            if place == end or len(runs) > RUNS:
                break
            lba = place // self.blockSize
            data = await self._ask(cdb.GET_LBA_STATUS, ALLOCATION, lba=lba, allocation=ALLOCATION)
            place = addRuns(runs, data, place, end, self.blockSize)
        # Nothing is wrong with taking the rest for stored.
        addRun(runs, end - place, True)
        return runs

    async def compareAndWrite(self, offset: int, old: Buffer, new: Buffer) -> None:
        """
        COMPARE AND WRITE: write bytes if others are there, as one operation (SBC-3 5.2).

        It is never sent twice: after a lost connection nobody knows whether it was carried out.

        @raise Miscompare: if they are not there; its C{information} is the first byte that differs.
        @raise LocalError: for lengths that differ.
        """
        if len(old) != len(new):
            raise LocalError(f"{len(old)} bytes to compare, and {len(new)} to write")
        lba, blocks = self._blocks(offset, len(old))
        data = bytes(old) + bytes(new)
        await self._tell(cdb.COMPARE_AND_WRITE, data, replay=False, lba=lba, length=blocks)

    # Others' access

    async def reserve(self) -> None:
        """
        RESERVE (6): for this session alone, until it releases it or ends.

        @raise ReservationConflict: if another has it.
        """
        await self._tell(cdb.RESERVE_6, replay=False)

    async def release(self) -> None:
        """RELEASE (6)."""
        await self._tell(cdb.RELEASE_6, replay=False)

    async def reset(self) -> None:
        """
        LOGICAL UNIT RESET: all commands of all initiators are aborted.

        @raise FunctionRefused: if the target does not do it.
        """
        response = await self.session.manage(numbers.LOGICAL_UNIT_RESET, self._field)
        if response != numbers.FUNCTION_COMPLETE:
            raise FunctionRefused(response)

    # The block device

    def open(self, changed: Callable[[], None] = lambda: None) -> Deferred[None]:
        """
        Learn what it is and what it can do.

        @raise DeviceError: if it is no disk, or not ready.
        """
        self._changed = changed
        return Deferred.fromCoroutine(self._learn()).addErrback(self._unready)

    async def _learn(self) -> None:
        self.inquiry = await self.identify()
        if not self.inquiry.present:
            raise NotReady(f"there is no unit {self}")
        if self.inquiry.kind != 0:
            raise NotReady(f"{self} is no disk (peripheral device type {self.inquiry.kind})")
        await self.ready()
        await self._recognisable()
        self._measure(await self.capacity())
        self._step = self._same = LARGEST // self.blockSize * self.blockSize
        await self._limits()
        await self._mode()

    async def _recognisable(self) -> None:
        """A session that lasts has to know the unit again, if that says who it is."""
        if not self.session.lasting:
            return
        for code in PAGES:
            try:
                name = named(code, await self.page(code))
            except (CheckCondition, RemoteError):
                continue
            if name:
                self.session.known[self._field] = code, name
                return

    def _measure(self, capacity: Capacity) -> None:
        """@raise NotReady: for what no disk has."""
        smallest, largest = BLOCKS
        if not smallest <= capacity.blockSize <= largest or capacity.blockSize % 8:
            raise NotReady(
                f"{self} has blocks of {capacity.blockSize} bytes, which should be a multiple of 8 from"
                f" {smallest} to {largest}"
            )
        size = capacity.blocks * capacity.blockSize
        if size > LONGEST:
            raise NotReady(f"{self} has {size} bytes, and at most {LONGEST} can be used")
        self.capacityData, self.blockSize, self.size = capacity, capacity.blockSize, size

    async def relearn(self) -> None:
        """
        Learn what may have changed: its size, and whether it may be written.

        @raise NotReady: if it has other blocks now.
        """
        capacity = await self.capacity()
        if capacity.blockSize != self.blockSize:
            raise NotReady(f"{self} has blocks of {capacity.blockSize} bytes now, not of {self.blockSize}")
        self._measure(capacity)
        await self._mode()

    async def _mode(self) -> None:
        """
        What its mode pages say: whether it may be written, and whether it has a volatile cache.

        One that has no such page is taken for one without a cache.
        """
        try:
            mode = await self._ask(cdb.MODE_SENSE_6, 255, page=0x08, allocation=255)
        except IllegalRequest:
            mode = b""
        self._readOnly = len(mode) > 2 and bool(mode[2] & 0x80)
        self.forced = len(mode) > 2 and bool(mode[2] & 0x10)
        body = mode[4 + mode[3] :] if len(mode) > 3 else b""
        self.cached = len(body) > 2 and body[0] & 0x3F == 0x08 and bool(body[2] & 0x04)

    async def _limits(self) -> None:
        """What VPD page B0h says (SBC-3 6.6.4); an old target has none, or knows no such pages at all."""
        try:
            page = (await self.page(0xB0)).ljust(44, b"\0")
        except (CheckCondition, RemoteError):
            return
        longest, same = int.from_bytes(page[8:12], "big"), int.from_bytes(page[36:44], "big")
        if longest:
            self._step = min(self._step, longest * self.blockSize)
        if same:
            self._same = min(self._same, same * self.blockSize)
        if self.capacityData.thin:
            self._unmapBlocks = min(int.from_bytes(page[20:24], "big"), 0x7FFFFFFF)

    def capabilities(self) -> Capabilities:
        """As the unit has told."""
        thin = self._unmapBlocks > 0
        return Capabilities(
            readOnly=self._readOnly, volatileCache=self.cached, discard=thin, zero=True, allocated=thin,
            discardZeroes=thin and self.capacityData.unmappedZeroes,
        )  # fmt: skip

    def close(self) -> Deferred[None]:
        """Make all durable; the session stays."""
        return self.flush() if self.cached and not self._readOnly else succeed(None)

    def _blocks(self, offset: int, length: int) -> tuple[int, int]:
        """@raise LocalError: for what does not begin and end with a block."""
        size = self.blockSize
        if offset % size or length % size:
            raise LocalError(f"bytes {offset} to {offset + length} are not whole blocks of {size} bytes")
        return offset // size, length // size

    def translated(self, error: Exception, otherwise: type[DeviceError]) -> Exception:
        """A check condition as what a block device fails with."""
        if not isinstance(error, CheckCondition) or isinstance(error, Miscompare):
            return error
        kinds: dict[int, type[DeviceError]] = {
            codes.NOT_READY: NotReady,
            codes.DATA_PROTECT: OutOfSpace if error.code == codes.SPACE_ALLOCATION_FAILED else WriteProtected,
        }
        place = None if error.information is None else error.information * self.blockSize
        made = kinds.get(error.key, otherwise)(f"{self}: {error}", place)
        made.__cause__ = error
        return made

    def _unready(self, why: Failure) -> Failure:
        error = why.value
        return Failure(self.translated(error, NotReady)) if isinstance(error, CheckCondition) else why


def _cdb(command: cdb.Command, **fields: int) -> bytes:
    return command.encode(**fields)[: command.layout.size]
