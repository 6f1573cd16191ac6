# -*- test-case-name: tests.storage.test_extent -*-
"""
A range of a file, or of a block device node, as a block device.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from iscsi_twisted.errors import DeviceError, LocalError, NotReady, ReadError, WriteError, WriteProtected
from iscsi_twisted.interfaces import Buffer, Capabilities, IRangeCopier, Pending, Space
from iscsi_twisted.storage.birth import fileIdentity
from iscsi_twisted.storage.copying import copyRange, together
from iscsi_twisted.storage.device import BlockDevice, checkRange, outOfRange
from iscsi_twisted.storage.fingerprint import Stamp
from iscsi_twisted.storage.opening import Opening
from iscsi_twisted.storage.openrange import OpenRange
from iscsi_twisted.storage.pace import QUICK, Never, Pace, Trust, waitedForProcessor
from iscsi_twisted.storage.threads import Operation, Pool, ThreadReactor, Threads

_NOWAIT: Final = getattr(os, "RWF_NOWAIT", 0)

_NEVER: Final = Never()


@implementer(IRangeCopier)
class FileExtent(BlockDevice):
    """
    A range of a regular file or a block device node.

    Where things run: reads and writes of a file inline while that is quick, else in threads (L{Pace},
    L{Trust}); flushes, discards, zeroing, the search for holes, writes without a write cache, and all I/O of
    block device nodes or past the page cache in threads, always.  Whatever goes wrong inline, a thread does
    again and tells.

    Order: operations that are pending at the same time run side by side, and a later one may
    be inline while an earlier one is in a thread: so of two pending writes to the same bytes either may win.
    What has completed has been applied: a read that begins then sees it, and a flush makes it durable.

    Once a flush has failed nobody knows what the medium holds: then reads and writes fail too, until the
    extent is opened anew (L{reopen}).

    @ivar path: the file's name as it was given.
    @ivar start: the first byte of the range.
    @ivar size: bytes; with C{length} None known once the extent is open.
    @ivar shrunk: the file was found to end before the extent does.
    @ivar unlocked: the file system has no locks, so nothing keeps others from using the range.
    @ivar reads: completed reads, and so on; C{threaded} counts the calls that went to threads, C{errors}
        the operations that failed.
    """

    log = Logger(namespace="iscsi_twisted")

    def __init__(
        self,
        path: str,
        start: int = 0,
        length: int | None = None,
        *,
        readOnly: bool = False,
        reactor: ThreadReactor,
        threadPool: Pool | None = None,
        writeCache: bool = True,
        create: bool = True,
        direct: bool = False,
        clock: Callable[[], float] = perf_counter,
        waited: Callable[[], float] = waitedForProcessor,
    ) -> None:
        """
        @param length: bytes; None for 'to the end of the file'.
        @param readOnly: open for reading only: nothing is created or grown.
        @param reactor: to which threads hand their results.
        @param threadPool: a pool that the caller starts and stops; None for threads of the extent's own.
        @param writeCache: whether a completed write may wait for a flush to become durable; if not each
            write waits for the medium.
        @param create: whether a missing file is created, sparse.
        @param direct: whether to go past the page cache: the system keeps nothing of what is moved.
        @param clock: seconds, from any beginning.
        @param waited: seconds that the calling thread has waited for a processor.
        """
        if start < 0 or (length is not None and length < 1):
            raise LocalError(f"{path}: an extent of {length} bytes from byte {start} makes no sense")
        self.path = path
        self.start = start
        self.size = length or 0
        self.shrunk = self.unlocked = False
        self.reads = self.bytesRead = 0
        self.writes = self.bytesWritten = 0
        self.flushes = self.discards = self.zeroes = 0
        self.errors = 0
        self._create = create
        self._opening = Opening(
            path, start, length, readOnly=readOnly, create=create, durable=not writeCache, direct=direct
        )
        self._range: OpenRange | None = None
        self._fd = -1
        self._wanted = False
        self._clock = clock
        self._waited = waited
        self._threads = Threads(reactor, clock, threadPool)
        self._readPace: Pace | Trust | Never = _NEVER
        self._writePace: Pace | Never = _NEVER
        self._changed: Callable[[], None] = _ignore

    def __str__(self) -> str:
        return self.path

    @property
    def threaded(self) -> int:
        """Calls that went to threads."""
        return self._threads.count

    # Life

    def open(self, changed: Callable[[], None]) -> None:
        """
        Open and lock the range; create or grow a file that is to be written.

        @raise DeviceError: in one line, what is wrong with which file, and what would be right.
        """
        if self._wanted:
            raise LocalError(f"{self.path}: is open already")
        self._use(self._opening.open())
        self._wanted, self._changed = True, changed

    def _use(self, opened: OpenRange) -> None:
        self._range = opened
        self._fd, self.size, self.unlocked = opened.fd, opened.size, not opened.locked
        if not opened.isBlock and not self._opening.direct:
            self._readPace = (
                Trust(self._waited)
                if _tellsWhatIsCached(opened.fd, self.start)
                else Pace(self._clock, self._waited)
            )
            if not self._opening.readOnly and not opened.durable:
                self._writePace = Pace(self._clock, self._waited)

    def rehearse(self) -> None:
        """
        Find out what stands against opening it, as far as that goes without making or locking anything.

        @raise DeviceError: as L{open} does.
        """
        self._opening.rehearse()

    def permitCreation(self, permitted: bool) -> None:
        """Whether opening may make a missing file, if it may at all."""
        self._opening.create = permitted and self._create

    def measure(self) -> bool:
        """
        See whether the file has grown, and take what is new, if the extent goes to its end.  One that has
        become too short is logged.

        @return: whether it has; then whoever opened the extent has been told.
        @raise DeviceError: if others use what is new; the extent stays as it is.
        """
        opened = self._ready()
        size = os.lseek(opened.fd, 0, os.SEEK_END) - self.start
        self._compare(size)
        size -= size % opened.alignment
        if self._opening.length is not None or size <= self.size:
            return False
        if opened.locked:
            self._opening.lock(opened.fd, size)
        self.size = opened.size = size
        self._changed()
        return True

    def _compare(self, size: int) -> None:
        """Tell, once, that the file is too short."""
        if size < self.size and not self.shrunk:
            self.log.error(
                "{path}: has become shorter: {left} of the {size} bytes of the extent are there; what is"
                " beyond cannot be read until it is written or the file is lengthened",
                event="shrunk", path=self.path, left=max(0, size), size=self.size,
            )  # fmt: skip
        self.shrunk = size < self.size

    def reopen(self) -> Deferred[None]:
        """
        Open the file anew, when what failed has been repaired: it is read and written again, as the medium
        holds it, after what is running has ended.  What was written last may be gone.

        @return: fires when that is done.
        @raise DeviceError: pending, if it cannot be opened; then this may be tried again.
        """
        if not self._wanted:
            raise NotReady(f"{self.path}: is not open")
        old, self._range = self._range, None
        self._readPace = self._writePace = _NEVER
        self._fd = -1
        return Deferred.fromCoroutine(self._reopen(old))

    async def _reopen(self, old: OpenRange | None) -> None:
        await self._calm()
        if old is not None:
            try:
                if old.lost is None and self._altered():
                    await self._threads.run(old.flush)
            finally:
                old.forget()
                old.close()
        if not self._wanted:
            return
        size = self.size
        self._use(self._opening.open())
        self.log.warn("{path}: opened anew", event="reopened", path=self.path)
        if self.size != size:
            self._changed()

    def close(self) -> Deferred[None] | None:
        """
        Wait for what is running, make writes durable, and let the file and its lock go.

        @raise WriteError: afterwards, if writes could not be made durable.
        """
        closing, self._range = self._range, None
        self._wanted = False
        if closing is None:
            if not self._threads.running:
                self._threads.stop()
            return None
        self._readPace = self._writePace = _NEVER
        self._fd = -1
        if self._threads.running or self._altered():
            return Deferred.fromCoroutine(self._finish(closing))
        self._letGo(closing)
        return None

    def _altered(self) -> bool:
        """Whether anything may have been written; what failed may have been in part."""
        return not self._opening.readOnly and bool(self.writes or self.discards or self.zeroes or self.errors)

    async def _finish(self, closing: OpenRange) -> None:
        await self._calm()
        try:
            if self._altered():
                await self._threads.run(closing.flush)
        finally:
            self._letGo(closing)

    async def _calm(self) -> None:
        idle = self._threads.idle()
        if idle is not None:
            await idle

    def _letGo(self, closing: OpenRange) -> None:
        self._threads.stop()
        if closing.lost is not None:
            # Whoever opens it next sees what the medium holds.
            closing.forget()
        closing.close()

    def capabilities(self) -> Capabilities:
        opened = self._ready()
        punch, zero = opened.abilities
        return Capabilities(
            readOnly=self._opening.readOnly,
            volatileCache=not self._opening.readOnly and not opened.durable,
            discard=punch,
            zero=zero,
            allocated=not opened.isBlock,
            discardZeroes=punch and not opened.isBlock,
            rotational=opened.rotational,
            space=not opened.isBlock,
        )

    def fingerprint(self) -> str | None:
        """Which file or disk it is, whatever its name, and which bytes of it."""
        opened = self._ready()
        identity = fileIdentity(opened.fd)
        return None if identity is None else f"{identity} bytes {self.start} to {self.start + self.size}"

    def stamp(self) -> Stamp | Pending:
        """When its file was changed last; nobody knows that of a disk."""
        opened = self._ready()
        return () if opened.isBlock else self._threads.run(opened.modified)

    def _ready(self) -> OpenRange:
        if self._range is None:
            raise NotReady(f"{self.path}: is not open")
        return self._range

    def _usable(self, kind: type[DeviceError], offset: int) -> OpenRange:
        """
        What is open and may be trusted.

        @raise DeviceError: of that kind, if a flush has failed.
        """
        opened = self._ready()
        if opened.lost is not None:
            raise kind(
                f"{opened.lost}; nothing is read or written since, until the extent is opened anew", offset
            )
        return opened

    # Reading

    def read(self, offset: int, length: int) -> Buffer | Pending:
        if not 0 <= offset <= offset + length <= self.size:
            raise outOfRange(self.size, offset, length)
        if self._readPace.inline:
            clock = self._clock
            began = clock()
            try:
                data = os.pread(self._fd, length, self.start + offset)
            except OSError:
                return self._readInThread(bytearray(length), 0, offset)
            elapsed = clock() - began
            if elapsed > QUICK:
                self._readPace.late(elapsed, length, self.reads)
            if len(data) == length:
                self.reads += 1
                self.bytesRead += length
                return data
        return self._readCarefully(offset, length)

    def _readCarefully(self, offset: int, length: int) -> Buffer | Pending:
        """Read what is cached, or in a thread."""
        self._usable(ReadError, offset)
        pace = self._readPace
        if not isinstance(pace, Trust):
            if pace.mayTry(self.reads):
                return self.read(offset, length)
            return self._readInThread(bytearray(length), 0, offset)
        buffer = bytearray(length)
        try:
            got = os.preadv(self._fd, (buffer,), self.start + offset, _NOWAIT)
        except OSError:
            got = 0
        if got < length:
            pace.missed()
            return self._readInThread(buffer, got, offset)
        pace.hit()
        self.reads += 1
        self.bytesRead += length
        return buffer

    def _readInThread(self, buffer: bytearray, got: int, offset: int) -> Pending:
        operation = self._threads.run(self._usable(ReadError, offset).read, buffer, got, offset)
        operation.addCallbacks(self._hasRead, self._failed, callbackArgs=(operation,))
        return operation

    def _hasRead(self, data: bytearray, operation: Operation) -> bytearray:
        self.reads += 1
        self.bytesRead += len(data)
        if isinstance(self._readPace, Pace):
            self._readPace.threaded(operation.elapsed)
        return data

    def _failed(self, failure: Failure) -> Failure:
        if failure.check(DeviceError):
            self.errors += 1
        opened = self._range
        if opened is not None:
            if opened.lost is not None and (self._readPace, self._writePace) != (_NEVER, _NEVER):
                # From now on everything goes where that is looked at.
                self._readPace = self._writePace = _NEVER
                self.log.error(
                    "{error}; what was written may be lost, and nothing is read or written until the extent"
                    " is opened anew", event="distrusted", error=str(opened.lost), path=self.path,
                )  # fmt: skip
            if opened.short and not self.shrunk:
                self._compare(os.lseek(opened.fd, 0, os.SEEK_END) - self.start)
        return failure

    # Writing

    def write(self, offset: int, data: Buffer) -> Pending | None:
        length = len(data)
        if not 0 <= offset <= offset + length <= self.size:
            raise outOfRange(self.size, offset, length)
        done = 0
        if self._writePace.inline:
            clock = self._clock
            began = clock()
            try:
                done = os.pwrite(self._fd, data, self.start + offset)
            except OSError:
                return self._writeInThread(offset, data, 0)
            elapsed = clock() - began
            if elapsed > QUICK:
                self._writePace.late(elapsed, length, self.writes)
            if done == length:
                self.writes += 1
                self.bytesWritten += length
                return None
        elif self._writePace.mayTry(self.writes):
            return self.write(offset, data)
        return self._writeInThread(offset, data, done)

    def _writeInThread(self, offset: int, data: Buffer, done: int) -> Pending:
        operation = self._threads.run(self._writable(offset).write, offset, data, done)
        operation.addCallbacks(self._hasWritten, self._failed, callbackArgs=(operation, len(data)))
        return operation

    def _writable(self, offset: int) -> OpenRange:
        opened = self._usable(WriteError, offset)
        if self._opening.readOnly:
            raise WriteProtected(f"{self.path}: is read-only")
        return opened

    def _hasWritten(self, result: None, operation: Operation, length: int) -> None:
        self.writes += 1
        self.bytesWritten += length
        self._writePace.threaded(operation.elapsed)

    # All else

    def flush(self) -> Pending | None:
        """Make completed writes durable; see L{OpenRange.flush} about what happens after a failure."""
        opened = self._ready()
        if self._opening.readOnly:
            return None
        return self._alter(opened.flush, "flushes")

    def discard(self, offset: int, length: int) -> Pending | None:
        checkRange(self.size, offset, length)
        opened = self._writable(offset)
        if not opened.abilities.punch or not length:
            return None
        return self._alter(opened.discard, "discards", offset, length)

    def zero(self, offset: int, length: int, unmap: bool) -> Pending | None:
        checkRange(self.size, offset, length)
        return self._alter(self._writable(offset).zero, "zeroes", offset, length, unmap)

    def copiesFrom(self, source: object) -> bool:
        """See L{IRangeCopier}: from files of the same file system."""
        if not isinstance(source, FileExtent):
            return False
        return not self._opening.readOnly and together(source._ready(), self._ready())

    def copy(self, source: FileExtent, sourceOffset: int, offset: int, length: int) -> Pending | None:
        """See L{IRangeCopier}."""
        checkRange(source.size, sourceOffset, length)
        checkRange(self.size, offset, length)
        if not length:
            return None
        operation = self._threads.run(
            copyRange,
            source._usable(ReadError, sourceOffset),
            self._writable(offset),
            sourceOffset,
            offset,
            length,
        )
        # While that runs the source's file must stay open.
        source._threads.hold()
        operation.addBoth(_releasing, source._threads)
        return operation.addCallbacks(self._hasCopied, self._failed, callbackArgs=(source, length))

    def _hasCopied(self, result: None, source: FileExtent, length: int) -> None:
        source.reads += 1
        source.bytesRead += length
        self.writes += 1
        self.bytesWritten += length

    def _alter(self, function: Callable[..., None], counter: str, *arguments: Any) -> Pending:
        operation = self._threads.run(function, *arguments)
        return operation.addCallbacks(
            self._hasAltered, self._failed, callbackArgs=(counter, self._ready().abilities)
        )

    def _hasAltered(self, result: None, counter: str, before: object) -> None:
        setattr(self, counter, getattr(self, counter) + 1)
        if self._range is not None and self._range.abilities != before:
            self._changed()

    def allocated(self, offset: int, length: int) -> list[tuple[int, bool]] | Pending:
        """Ask the file system; a block device is all data."""
        checkRange(self.size, offset, length)
        opened = self._usable(ReadError, offset)
        if opened.isBlock:
            return super().allocated(offset, length)
        return self._threads.run(opened.allocated, offset, length).addErrback(self._failed)

    def space(self) -> Space | Pending | None:
        """Ask the file system; what a block device has of a thin volume it does not tell."""
        opened = self._ready()
        return None if opened.isBlock else self._threads.run(opened.space).addErrback(self._failed)


def _releasing(result: Any, threads: Threads) -> Any:
    threads.release()
    return result


def _ignore() -> None:
    """Before anybody wants to know of changes."""


def _tellsWhatIsCached(fd: int, position: int) -> bool:
    """Whether the file system says at once that data are not cached.  Tmpfs and NFS, for two, do not."""
    if not _NOWAIT:
        return False
    try:
        os.preadv(fd, (bytearray(1),), position, _NOWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True
