# -*- test-case-name: tests.cli.test_ends -*-
"""What can be at either end of a copy: a unit, a file or a stream."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from iscsi_twisted.cli.streams import Stream
from iscsi_twisted.errors import CheckCondition, LocalError, RemoteError
from iscsi_twisted.initiator import LUN
from iscsi_twisted.scsi.client import designators

Runs = list[tuple[int, int]]
"""First byte and end of each range that has storage."""


@contextmanager
def named(what: str) -> Iterator[None]:
    """Errors of the system within this tell what they are about."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), what) from error


class End(Protocol):
    """
    One end of a copy.

    @ivar size: bytes; 0 if nobody knows.
    @ivar blockSize: what is written are multiples of this many bytes.
    @ivar ordered: bytes come and go in their order alone.
    """

    size: int
    blockSize: int
    ordered: bool

    async def prepare(self, size: int, kept: int) -> None:
        """Before writing: there will be so many bytes, the first C{kept} of which are there."""

    async def read(self, place: int, view: memoryview) -> int:
        """Fill a buffer; how far it is filled, which is less than all at the end alone."""

    async def write(self, place: int, data: memoryview) -> None:
        """Write bytes, which do not change until this is done."""

    async def zero(self, place: int, length: int) -> bool:
        """Make a hole that reads as zeros; whether that can be done, else they have to be written."""

    async def stored(self, place: int, length: int) -> Runs | None:
        """Where there is anything else than zeros, from the first byte on; None if nobody knows."""

    async def finish(self, size: int) -> None:
        """After writing: so many bytes there are."""

    async def flush(self) -> None:
        """Make durable what was written."""

    def identity(self, reading: bool) -> dict[str, Any]:
        """What is the same as long as it is the same end; of one that is read, with the same content."""


class UnitEnd:
    """A unit, open."""

    ordered = False

    def __init__(self, lun: LUN, serial: str = "") -> None:
        """@param serial: what L{identify} made of it."""
        self.lun, self._serial = lun, serial
        self.size, self.blockSize = lun.size, lun.blockSize

    def __str__(self) -> str:
        return str(self.lun)

    async def prepare(self, size: int, kept: int) -> None:
        """It has the size that it has."""

    async def read(self, place: int, view: memoryview) -> int:
        """READ."""
        await self.lun.readInto(place, view)
        return len(view)

    async def write(self, place: int, data: memoryview) -> None:
        """WRITE."""
        await self.lun.write(place, data)

    async def zero(self, place: int, length: int) -> bool:
        """WRITE SAME that unmaps, if what is unmapped reads as zeros."""
        if not self.lun.capabilities().discardZeroes:
            return False
        await self.lun.zero(place, length, True)
        return True

    async def stored(self, place: int, length: int) -> Runs | None:
        """GET LBA STATUS, which a thin unit need not have."""
        able = self.lun.capabilities()
        if not length or not able.allocated or not able.discardZeroes:
            return None
        mapped, reached = [], 0
        try:
            runs = await self.lun.allocated(place, length)
        except CheckCondition:
            return None
        for count, stored in runs:
            if stored:
                mapped.append((reached, reached + count))
            reached += count
        return mapped

    async def finish(self, size: int) -> None:
        """The rest of the unit stays as it is."""

    async def flush(self) -> None:
        """SYNCHRONIZE CACHE."""
        await self.lun.flush()

    def identity(self, reading: bool) -> dict[str, Any]:
        """Its target and number, its size, and what it calls itself."""
        return {
            "target": self.lun.session.wish.targetName, "lun": self.lun.number, "bytes": self.size,
            "blockSize": self.blockSize, "designators": self._serial,
        }  # fmt: skip


async def unitEnd(lun: LUN) -> UnitEnd:
    """The end that an open unit is; it is asked for its names (SPC-4 7.8.6)."""
    try:
        page = await lun.page(0x83)
    except (CheckCondition, RemoteError):
        page = b""
    return UnitEnd(lun, ",".join(sorted(one.hex() for one in designators(page))))


Threads = Callable[..., Any]
"""Calls a function, maybe in a thread; its result, or a Deferred of it."""


EAGER: Final = 32 << 20
"""Bytes after which the disk begins to write."""


class FileEnd:
    """
    A file or a block device.

    Reads, and writes to the page cache, are done at once.  What waits for the disk is done in a thread.

    @ivar eager: whether the disk begins to write while there is more to come, as it is waited for at the end.
    """

    ordered = False
    blockSize = 1

    def __init__(self, path: str, reading: bool, threads: Threads = maybeDeferred) -> None:
        """
        @raise OSError: if it cannot be opened.
        @raise LocalError: if it is neither.
        """
        self.path, self._threads = path, threads
        flags = os.O_RDONLY if reading else os.O_RDWR | os.O_CREAT
        self._fd = os.open(path, flags | os.O_CLOEXEC, 0o666)
        found = os.fstat(self._fd)
        self._regular = stat.S_ISREG(found.st_mode)
        if not self._regular and not stat.S_ISBLK(found.st_mode):
            os.close(self._fd)
            raise LocalError(
                f"{path} is neither a file nor a block device; for a pipe there is read, and write"
            )
        self.size = os.lseek(self._fd, 0, os.SEEK_END)
        self._hollow = self._dirty = 0
        self.eager = False
        self._syncing: Deferred[Any] | None = None
        self._waiting: Deferred[None] | None = None
        self._error: Failure | None = None

    def __str__(self) -> str:
        return self.path

    def close(self) -> None:
        """It is not used any more."""
        os.close(self._fd)

    async def prepare(self, size: int, kept: int) -> None:
        """
        A file becomes so long, and behind what is kept a hole.

        @raise LocalError: for a block device that is too small.
        """
        if self._regular:
            if self.size > kept:
                os.ftruncate(self._fd, kept)
                # ext4 writes a file that was emptied to the disk when it is closed next: close it while
                # there is nothing to write, else closing it at the end would wait for that.
                os.close(os.open(self.path, os.O_RDONLY | os.O_CLOEXEC))
            with named(self.path):
                os.ftruncate(self._fd, size)
            self._hollow, self.size = kept, size
        elif size > self.size:
            raise LocalError(f"{self.path} has {self.size} bytes, and {size} are to be copied")

    async def read(self, place: int, view: memoryview) -> int:
        """The bytes there."""
        with named(self.path):
            got = os.preadv(self._fd, (view,), place)
            while got < len(view) and (more := os.preadv(self._fd, (view[got:],), place + got)):
                got += more
        return got

    async def write(self, place: int, data: memoryview) -> None:
        """Write bytes."""
        self._dirty += len(data)
        with named(self.path):
            while len(data):
                done = os.pwrite(self._fd, data, place)
                place, data = place + done, data[done:]
        if self.eager and self._dirty >= EAGER and self._syncing is None:
            self._dirty = 0
            self._syncing = maybeDeferred(self._threads, os.fdatasync, self._fd)
            self._syncing.addErrback(self._failed).addBoth(self._synced)

    def _failed(self, why: Failure) -> None:
        """The system tells once that something could not be written."""
        self._error = why

    def _synced(self, _: object) -> None:
        self._syncing = None
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    async def zero(self, place: int, length: int) -> bool:
        """Each place is written once, and all of them are holes before."""
        return self._regular and place >= self._hollow

    async def stored(self, place: int, length: int) -> Runs | None:
        """What the file system says."""
        if not self._regular:
            return None
        runs, begin, end = [], place, place + length
        try:
            while begin < end:
                first = os.lseek(self._fd, begin, os.SEEK_DATA)
                begin = os.lseek(self._fd, first, os.SEEK_HOLE)
                runs.append((first - place, begin - place))
        except OSError as error:
            if error.errno != errno.ENXIO:
                return None
        return runs

    async def finish(self, size: int) -> None:
        """A file has as many bytes as were copied."""
        if self._regular and size != self.size:
            os.ftruncate(self._fd, size)

    async def flush(self) -> None:
        """Wait for the disk."""
        if self._syncing is not None:
            self._waiting = Deferred()
            await self._waiting
        with named(self.path):
            if self._error is not None:
                self._error.raiseException()
            await self._threads(os.fsync, self._fd)

    def identity(self, reading: bool) -> dict[str, Any]:
        """Its path and inode, its size, and when it was changed last."""
        found = os.fstat(self._fd)
        told = {"path": os.path.abspath(self.path), "inode": found.st_ino, "bytes": self.size}
        return told | ({"changed": found.st_mtime_ns} if reading and self._regular else {})


class StreamEnd:
    """Standard input or output."""

    size = 0
    blockSize = 1
    ordered = True

    def __init__(self, stream: Stream, name: str) -> None:
        """@param name: what it is called in messages."""
        self._stream, self._name = stream, name

    def __str__(self) -> str:
        return self._name

    async def prepare(self, size: int, kept: int) -> None:
        """Whoever is at the other end will see."""

    async def read(self, place: int, view: memoryview) -> int:
        """What comes next."""
        got = 0
        with named(self._name):
            while got < len(view) and (more := await self._stream.read(view[got:])):
                got += more
        return got

    async def write(self, place: int, data: memoryview) -> None:
        """Pass bytes on."""
        with named(self._name):
            await self._stream.write(data)

    async def zero(self, place: int, length: int) -> bool:
        """There are no holes in streams."""
        return False

    async def stored(self, place: int, length: int) -> Runs | None:
        """Nobody knows."""
        return None

    async def finish(self, size: int) -> None:
        """Nothing is left to do."""

    async def flush(self) -> None:
        """What was written has gone."""

    def identity(self, reading: bool) -> dict[str, Any]:
        """None: a stream cannot be gone back in."""
        return {}
