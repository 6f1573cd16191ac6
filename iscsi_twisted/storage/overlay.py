# -*- test-case-name: tests.storage.test_overlay -*-
"""A device that leaves another as it is, and keeps what was written elsewhere (copy on write)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import lcm
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from iscsi_twisted.errors import DeviceError, LocalError, WriteProtected
from iscsi_twisted.interfaces import Buffer, Capabilities, IBlockDevice, Pending, Space
from iscsi_twisted.storage.concatenation import chained, shift, shifted
from iscsi_twisted.storage.device import ZEROS, BlockDevice, asDevice, checkRange, outOfRange
from iscsi_twisted.storage.fingerprint import Stamp, jointFingerprint, jointStamp, stampOf
from iscsi_twisted.storage.memory import MemoryDevice
from iscsi_twisted.storage.overlayfile import (
    COMMITTING,
    FORGETTING,
    GRANULE,
    HEADER,
    PAGE,
    SETTLED,
    UNKNOWN,
    Header,
    Held,
    decode,
    digest,
    mapLength,
    zeros,
)
from iscsi_twisted.storage.pending import answered, attempt, gather, ifLater, ready, whenDone

_T = TypeVar("_T")


class Overlay(BlockDevice):
    """
    What was written, over a base that stays as it is.

    The base may be under other overlays too.  What is written goes to the store: a header, a map that says
    which granules it has, and behind it the granules, each where it is on the base, so that a
    sparse file is large only where it was written.

    Order: a granule is whole in the store before the map names it, in a file and in memory.  The map becomes
    durable with a flush, after the granules.  So after a power cut each granule is what it was or what
    it became, and what had been flushed is there.

    The store knows when the base was changed last, if that can be known, and is refused over one that was
    changed since.  To forget all changes is noted in the store before it is done, so that it is done wholly.

    @ivar base: what is below; it is only read.
    @ivar store: where the rest is, once the device is open.
    """

    log = Logger(namespace="iscsi_twisted")

    def __init__(
        self,
        base: Any,
        store: Callable[[int], Any] | None = None,
        *,
        readOnly: bool = False,
        adopt: bool = False,
    ) -> None:
        """
        @param store: given a number of bytes, makes a device of that size, which is not open.  What begins
            with zeros is taken for a new one.  None for memory, where all is forgotten on closing.
        @param readOnly: nothing more is written; the store has to be there.
        @param adopt: whether to take the base as it is, though it was changed since the store was begun.
        """
        self.base: IBlockDevice = asDevice(base)
        self.store: IBlockDevice = _NONE
        self._kept = store is not None
        self._makeStore = store or partial(MemoryDevice, reserved=False)
        self._readOnly = readOnly
        self._adopt = adopt
        self._header = Header(0)
        self._seen = UNKNOWN
        self._volatile = False
        self._marks: Any = bytearray()
        self._start = 0
        self._dirty: set[int] = set()
        self._held: list[Held] = []
        self._saving: list[Deferred[None]] | None = None

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.base}, {self.store})" if self._start else f"Overlay({self.base})"

    @property
    def members(self) -> tuple[IBlockDevice, ...]:
        """The base, and the store once there is one."""
        return (self.base,) if self.store is _NONE else (self.base, self.store)

    # Life

    def open(self, changed: Callable[[], None]) -> Pending | None:
        """@raise DeviceError: if base and store do not fit together, or the store is something else."""
        return answered(self._open(changed))  # type: ignore[no-any-return]

    async def _open(self, changed: Callable[[], None]) -> None:
        await ready(self.base.open(changed))
        try:
            size = self.base.size
            self._start = HEADER + mapLength(size)
            self.store = asDevice(self._makeStore(self._start + size))
            await ready(self.store.open(changed))
            try:
                await self._fit(size)
            except BaseException:
                await ready(self.store.close())
                raise
        except BaseException:
            await ready(self.base.close())
            raise

    def fingerprint(self) -> str | None:
        """The base and what lies over it; what is forgotten on closing is a new device each time."""
        return jointFingerprint("Overlay", self.members) if self._kept else None

    def stamp(self) -> Stamp | Pending:
        """As the base and what lies over it."""
        return jointStamp(self.members)

    async def _fit(self, size: int) -> None:
        block = lcm(self.base.blockSize, self.store.blockSize)
        if GRANULE % block:
            raise DeviceError(f"{self.store}: blocks of {block} bytes do not divide {GRANULE}")
        able = self.store.capabilities()
        self._readOnly = self._readOnly or able.readOnly
        self._volatile = able.volatileCache
        self._header = Header(size, SETTLED, digest(await ready(stampOf(self.base))))
        self._marks = zeros(mapLength(size))
        if self._kept:
            await self._load(size)
        self.size, self.blockSize = size, block

    async def _load(self, size: int) -> None:
        """Read the header and the map, or begin them."""
        try:
            found = decode(await ready(self.store.read(0, HEADER)))
        except DeviceError as error:
            error.args = (f"{self.store}: {error}",)
            raise
        wanted = self._header
        if found is not None:
            self._compare(found, wanted)
            if found.state == FORGETTING:
                await self._forget()
            else:
                await self._loadMap()
                wanted = wanted._replace(state=found.state)
        self._header = wanted
        if not self._readOnly and found != wanted:
            await ready(self.store.write(0, wanted.encode()))

    def _compare(self, found: Header, wanted: Header) -> None:
        """@raise DeviceError: if what the store lies over is not this base, or not as it was."""
        if found.size != wanted.size:
            raise DeviceError(
                f"{self.store}: lies over a base of {found.size} bytes, but this one has {wanted.size}"
            )
        changed = found.base != wanted.base and UNKNOWN not in (found.base, wanted.base)
        if changed and found.state == SETTLED and not self._adopt:
            raise DeviceError(
                f"{self.store}: was begun over another base than {self.base}, or before that was changed:"
                " together they would be a mixture; put the right base there, remove the overlay, or say"
                " adopt=yes if the base holds what it always did"
            )

    async def _loadMap(self) -> None:
        """The map, as far as it has storage: that of a large device is mostly a hole."""
        position = HEADER
        for count, hasStorage in await ready(self.store.allocated(HEADER, len(self._marks))):
            end = position + count
            while hasStorage and position < end:
                piece = min(len(ZEROS), end - position)
                data = await ready(self.store.read(position, piece))
                self._marks[position - HEADER : position - HEADER + piece] = data
                position += piece
            position = end

    def examine(self) -> None:
        """See whether somebody has changed the base; that is logged, once."""
        if self._start and self._header.base != UNKNOWN:
            whenDone(attempt(stampOf, self.base), self._examined)

    def _examined(self, stamp: Any) -> None:
        if digest(stamp) not in (self._header.base, self._seen):
            self._seen = digest(stamp)
            self.log.error(
                "{base}: was changed while an overlay lies over it, which shows a mixture of both now",
                event="baseChanged", base=str(self.base),
            )  # fmt: skip

    def close(self) -> Pending | None:
        """Make the map durable, and close store and base."""
        return answered(self._close())  # type: ignore[no-any-return]

    async def _close(self) -> None:
        try:
            if self._dirty or self._saving is not None:
                await self._save()
        finally:
            await ready(gather([attempt(member.close) for member in self.members]))

    def capabilities(self) -> Capabilities:
        able, base = self.store.capabilities(), self.base.capabilities()
        writable = not self._readOnly
        return Capabilities(
            readOnly=self._readOnly,
            volatileCache=able.volatileCache,
            discard=writable and able.discard,
            zero=writable and able.zero,
            allocated=True,
            discardZeroes=writable and able.discard,
            rotational=able.rotational or base.rotational,
            retains=True,
            space=able.space,
        )

    def space(self) -> Space | Pending | None:
        """That of what has been written: the base takes nothing more."""
        return self.store.space()

    # Where bytes are

    def _runs(self, offset: int, length: int) -> list[tuple[int, int, int]]:
        """
        How a range lies in store and base.

        @return: whether it is in the store, the first byte, and the number of bytes of each part.
        """
        runs, end = [], offset + length
        last = -(-end // GRANULE)
        while offset < end:
            mark = self._marks[offset // GRANULE]
            until = self._marks.find(bytes((1 - mark,)), offset // GRANULE, last)
            stop = end if until < 0 else until * GRANULE
            runs.append((mark, offset, stop - offset))
            offset = stop
        return runs

    def _spread(self, name: str, offset: int, length: int) -> list[Any] | Pending:
        """Ask store and base for their parts of a range, at the same time."""
        return gather(
            [
                attempt(self._stored, getattr(self.store, name), first, count)
                if mark
                else attempt(getattr(self.base, name), first, count)
                for mark, first, count in self._runs(offset, length)
            ]
        )

    def _stored(self, method: Callable[..., _T], offset: int, *arguments: Any) -> _T:
        """Call a method of the store; C{offset} is of this device, and so is that in an error."""
        try:
            result = method(self._start + offset, *arguments)
        except DeviceError as error:
            shift(error, -self._start)
            raise
        return ifLater(result, shifted, -self._start)

    def read(self, offset: int, length: int) -> Buffer | Pending:
        end = offset + length
        if not 0 <= offset <= end <= self.size:
            raise outOfRange(self.size, offset, length)
        first, last = offset // GRANULE, -(-end // GRANULE)
        if self._marks.find(b"\1", first, last) < 0:
            return self.base.read(offset, length)
        if self._marks.find(b"\0", first, last) < 0:
            return self._stored(self.store.read, offset, length)
        return whenDone(self._spread("read", offset, length), b"".join)

    def allocated(self, offset: int, length: int) -> list[tuple[int, bool]] | Pending:
        checkRange(self.size, offset, length)
        return whenDone(self._spread("allocated", offset, length), chained)

    # Writing

    def write(self, offset: int, data: Buffer) -> Pending | None:
        end = offset + len(data)
        if not 0 <= offset <= end <= self.size:
            raise outOfRange(self.size, offset, len(data))
        self._checkWritable()
        if self._marks.find(b"\0", offset // GRANULE, -(-end // GRANULE)) < 0:
            return self._stored(self.store.write, offset, data)
        return answered(self._fill(offset, data))  # type: ignore[no-any-return]

    def _checkWritable(self) -> None:
        if self._readOnly:
            raise WriteProtected(f"{self.base}: what lies over it is served read-only")

    async def _fill(self, offset: int, data: Buffer) -> None:
        """Write granules that the store does not have yet, whole."""
        end = offset + len(data)
        first, last = offset // GRANULE, -(-end // GRANULE)
        held = await self._hold(first, last)
        try:
            parts: list[Buffer] = [data]
            begin = first * GRANULE
            if begin < offset and not self._marks[first]:
                parts.insert(0, await ready(self.base.read(begin, offset - begin)))
            else:
                begin = offset
            rest = min(last * GRANULE, self.size) - end
            if rest and not self._marks[last - 1]:
                parts.append(await ready(self.base.read(end, rest)))
            whole = data if len(parts) == 1 else b"".join(parts)
            await ready(self._stored(self.store.write, begin, whole))
            self._mark(first, last)
        except DeviceError as error:
            if error.offset is not None:
                # What is beside the data is not what was asked for.
                error.offset = min(max(error.offset, offset), end - 1)
            raise
        finally:
            self._release(held)
        await self._keep()

    def discard(self, offset: int, length: int) -> Pending | None:
        """The storage of whole granules is given back; they read as zeros, not as the base does."""
        return self.zero(offset, length, True)

    def zero(self, offset: int, length: int, unmap: bool) -> Pending | None:
        checkRange(self.size, offset, length)
        self._checkWritable()
        return answered(self._zero(offset, length, unmap))  # type: ignore[no-any-return]

    async def _zero(self, offset: int, length: int, unmap: bool) -> None:
        end = offset + length
        first = -(-offset // GRANULE)
        last = -(-end // GRANULE) if end == self.size else end // GRANULE
        if last <= first:
            await ready(self.write(offset, bytes(length)))
            return
        if offset < first * GRANULE:
            await ready(self.write(offset, bytes(first * GRANULE - offset)))
        if last * GRANULE < end:
            await ready(self.write(last * GRANULE, bytes(end - last * GRANULE)))
        held = await self._hold(first, last)
        try:
            count = min(last * GRANULE, self.size) - first * GRANULE
            await ready(self._stored(self.store.zero, first * GRANULE, count, unmap))
            self._mark(first, last)
        finally:
            self._release(held)
        await self._keep()

    async def _hold(self, first: int, last: int) -> Held:
        """Wait until nobody else fills these granules, and keep others from it."""
        while (other := next((one for one in self._held if one.touches(first, last)), None)) is not None:
            waiter: Deferred[None] = Deferred()
            other.waiters.append(waiter)
            await waiter
        held = Held(first, last)
        self._held.append(held)
        return held

    def _release(self, held: Held) -> None:
        self._held.remove(held)
        for waiter in held.waiters:
            waiter.callback(None)

    def _mark(self, first: int, last: int) -> None:
        self._marks[first:last] = b"\1" * (last - first)
        if self._kept:
            self._dirty.update(range(first // PAGE, (last - 1) // PAGE + 1))

    # The map

    def flush(self) -> Pending | None:
        if self._dirty or self._saving is not None:
            return answered(self._save())  # type: ignore[no-any-return]
        return self.store.flush()

    async def _keep(self) -> None:
        """Without a write cache the map is durable before a write is done."""
        if not self._volatile and self._kept:
            await self._save()

    async def _save(self) -> None:
        """Make granules durable, then the map that names them; one at a time."""
        while self._saving is not None:
            waiter: Deferred[None] = Deferred()
            self._saving.append(waiter)
            await waiter
        waiters: list[Deferred[None]] = []
        self._saving = waiters
        dirty, self._dirty = self._dirty, set()
        # As it is now: what is filled from here on is not durable when the map is.
        pages = [(page * PAGE, bytes(self._marks[page * PAGE : (page + 1) * PAGE])) for page in sorted(dirty)]
        try:
            await ready(self.store.flush())
            for position, page in pages:
                await ready(self.store.write(HEADER + position, page))
            if pages:
                await ready(self.store.flush())
        except BaseException as error:
            self._dirty |= dirty
            if isinstance(error, DeviceError):
                # The map is at no place of this device.
                error.offset = None
            raise
        finally:
            self._saving = None
            for waiter in waiters:
                waiter.callback(None)

    # What an administrator does

    def changes(self) -> int:
        """How many bytes the store holds in place of the base's."""
        pages = range(0, len(self._marks), PAGE)
        marks: int = sum(self._marks[page : page + PAGE].count(1) for page in pages)
        return min(marks * GRANULE, self.size)

    def revert(self) -> Pending | None:
        """
        Forget all that was written, for good.  Nobody may write meanwhile.

        @raise LocalError: if somebody does.
        """
        self._checkWritable()
        self._checkIdle()
        return answered(self._revert())  # type: ignore[no-any-return]

    def _checkIdle(self) -> None:
        if self._held or self._saving is not None:
            raise LocalError(f"{self}: is being written; end that first")

    async def _revert(self) -> None:
        self._marks = zeros(len(self._marks))
        self._dirty.clear()
        if self._kept:
            await self._note(FORGETTING)
            await self._forget()
            base = digest(await ready(stampOf(self.base)))
            self._header = self._header._replace(base=base)
            await self._note(SETTLED)
        await ready(self.store.discard(self._start, self.size))

    async def _note(self, state: int) -> None:
        """Let the store know, durably, what is under way."""
        self._header = self._header._replace(state=state)
        await ready(self.store.write(0, self._header.encode()))
        await ready(self.store.flush())

    async def _forget(self) -> None:
        """Let the stored map name nothing, durably."""
        if not self._readOnly:
            await ready(self.store.zero(HEADER, len(self._marks), True))
            await ready(self.store.flush())

    def commit(self, device: Any) -> Pending | None:
        """
        Write all that was written to another device, make it durable there, and forget it here.  Nobody may
        write meanwhile.  If that fails, or the process is killed, the changes are still here, and it may be
        done again, with the same device.

        @param device: an open device of the same size with the base's content; mostly the base, opened
            once more for writing.
        @raise LocalError: if somebody writes.
        @raise DeviceError: if the sizes differ.
        """
        target = asDevice(device)
        self._checkWritable()
        self._checkIdle()
        if target.size != self.size:
            raise DeviceError(f"{target}: has {target.size} bytes, but the overlay {self.size}")
        return answered(self._commit(target))  # type: ignore[no-any-return]

    async def _commit(self, target: IBlockDevice) -> None:
        if self._kept:
            await self._save()
            await self._note(COMMITTING)
        for mark, offset, length in self._runs(0, self.size):
            end = offset + length
            while mark and offset < end:
                piece = min(len(ZEROS), end - offset)
                data = await ready(self._stored(self.store.read, offset, piece))
                await ready(target.write(offset, data))
                offset += piece
        await ready(target.flush())
        await self._revert()


_NONE: Final[IBlockDevice] = BlockDevice()
