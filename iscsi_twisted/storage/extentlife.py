# -*- test-case-name: tests.storage.test_extent,tests.storage.test_extentchanged -*-
"""What an extent has open, from its opening to its end, and whether that is to be trusted."""

from __future__ import annotations

import os
from collections.abc import Callable
from time import perf_counter
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from iscsi_twisted.errors import DeviceError, LocalError, NotReady
from iscsi_twisted.interfaces import Capabilities, Pending
from iscsi_twisted.storage.birth import fileIdentity
from iscsi_twisted.storage.device import BlockDevice
from iscsi_twisted.storage.displaced import displacement
from iscsi_twisted.storage.fingerprint import Stamp
from iscsi_twisted.storage.opening import Opening
from iscsi_twisted.storage.openrange import OpenRange
from iscsi_twisted.storage.pace import Never, Pace, Trust, waitedForProcessor
from iscsi_twisted.storage.threads import Pool, ThreadReactor, Threads

NOWAIT: Final = getattr(os, "RWF_NOWAIT", 0)
"""The flag for reads that do not wait, where the system has it."""

LOOK: Final = 1e-3
"""Seconds after which a write looks again whether the file is as long as it was: a write behind the end of a
file that was cut short would make zeros of what is missing."""

_NEVER: Final = Never()


class ExtentLife(BlockDevice):
    """
    The half of an extent that opens, measures, opens anew and closes.

    @ivar path: the file's name as it was given.
    @ivar start: the first byte of the range.
    @ivar size: bytes; with C{length} None known once the extent is open.
    @ivar shrunk: the file was found to end before the extent does.
    @ivar displaced: what has become of the file's name, if it leads to what is open no more.
    @ivar unlocked: the file system has no locks, so nothing keeps others from using the range.
    @ivar distrusted: why nothing is read or written until it is opened anew; empty if it is.
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
        self.distrusted = self.displaced = ""
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
        self._lookAt = 0.0
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
        self._range, self.distrusted, self.displaced = opened, "", ""
        self._fd, self.size, self.unlocked = opened.fd, opened.size, not opened.locked
        self.shrunk = False
        self._setPace(opened)

    def _setPace(self, opened: OpenRange) -> None:
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

    def examine(self) -> None:
        """See whether the file has become too short, or has lost its name; that is logged, once."""
        opened = self._range
        if opened is None:
            return
        self._compare(os.lseek(opened.fd, 0, os.SEEK_END) - self.start)
        before, self.displaced = self.displaced, displacement(opened.fd, self.path)
        if self.displaced and self.displaced != before:
            self.log.error(
                "{path}: {why}; what is served is still the old one, which is gone for good when it is closed"
                " if it has no other name", event="displaced", path=self.path, why=self.displaced,
            )  # fmt: skip
        elif before and not self.displaced:
            self.log.info("{path}: is the name of what is served again", event="replaced", path=self.path)

    def measure(self) -> bool:
        """
        See whether the file has grown, and take what is new, if the extent goes to its end.

        @return: whether it has; then whoever opened the extent has been told.
        @raise DeviceError: if others use what is new; the extent stays as it is.
        """
        opened = self._ready()
        size = os.lseek(opened.fd, 0, os.SEEK_END) - self.start
        size -= size % opened.alignment
        if self._opening.length is not None or size <= self.size:
            return False
        if opened.locked:
            self._opening.lock(opened.fd, size)
        self.size = opened.size = size
        self._changed()
        return True

    def _compare(self, size: int) -> None:
        """Tell, once, that the file is too short; then no write may go unseen."""
        opened = self._ready()
        if size < self.size and not self.shrunk:
            self.log.error(
                "{path}: has become shorter: {left} of the {size} bytes of the extent are there; what is"
                " beyond cannot be read until it is written or the file is lengthened",
                event="shrunk", path=self.path, left=max(0, size), size=self.size,
            )  # fmt: skip
            self._writePace = _NEVER
        elif self.shrunk and size >= self.size and not self.distrusted:
            self._setPace(opened)
        self.shrunk = opened.short = size < self.size

    def _cut(self, now: float) -> bool:
        """
        Whether the file has been cut short, asked before a write that is inline.

        @param now: seconds.
        """
        self._lookAt = now + LOOK
        opened = self._ready()
        try:
            return os.lseek(opened.fd, 0, os.SEEK_END) < self.start + self.size
        except OSError:
            return True

    def _noticed(self) -> None:
        """Tell what a thread has found out about the length."""
        opened = self._range
        if opened is not None and opened.short != self.shrunk:
            self._compare(os.lseek(opened.fd, 0, os.SEEK_END) - self.start)

    def reopen(self) -> Deferred[None]:
        """
        Open the file anew, when what failed has been repaired: it is read and written again, as the medium
        holds it, after what is running has ended.  What was written last may be gone.

        @return: fires when that is done.
        @raise DeviceError: at once, if it cannot be opened; then it goes on as it was.  Pending, if that came
            as a surprise; then it is not ready.  Both may be tried again.
        """
        if not self._wanted:
            raise NotReady(f"{self.path}: is not open")
        if self._range is not None:
            self._opening.rehearse(making=False)
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
        self._use(self._opening.open(making=False))
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

    def witness(self, key: str) -> int | Pending:
        """See L{iscsi_twisted.storage.fingerprint}; the node of a disk is made anew at each start."""
        opened = self._ready()
        return 0 if opened.isBlock else self._threads.run(opened.witness, key)

    def keepWitness(self, key: str, number: int) -> Pending | None:
        """See L{iscsi_twisted.storage.fingerprint}."""
        opened = self._ready()
        if opened.isBlock or self._opening.readOnly:
            return None
        return self._threads.run(opened.keepWitness, key, number)

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

    def _failed(self, failure: Failure) -> Failure:
        if failure.check(DeviceError):
            self.errors += 1
        opened = self._range
        if opened is not None:
            if opened.lost is not None and not self.distrusted:
                self.distrusted = str(opened.lost)
                # From now on everything goes where that is looked at.
                self._readPace = self._writePace = _NEVER
                self.log.error(
                    "{error}; what was written may be lost, and nothing is read or written until the extent"
                    " is opened anew", event="distrusted", error=self.distrusted, path=self.path,
                )  # fmt: skip
            self._noticed()
        return failure


def _ignore() -> None:
    """Before anybody wants to know of changes."""


def _tellsWhatIsCached(fd: int, position: int) -> bool:
    """Whether the file system says at once that data are not cached.  Tmpfs and NFS, for two, do not."""
    if not NOWAIT:
        return False
    try:
        os.preadv(fd, (bytearray(1),), position, NOWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True
