# -*- test-case-name: tests.storage.test_openrange -*-
"""
An open range of a file, and all that may block on it.

Everything here may be called in any thread.  Offsets count from the start of the range.  The interpreter
repeats system calls that a signal interrupts.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from iscsi_twisted.errors import (
    DeviceError,
    NotReady,
    OutOfSpace,
    ReadError,
    WriteError,
    WriteProtected,
)
from iscsi_twisted.interfaces import Buffer, Space
from iscsi_twisted.storage.device import ZEROS
from iscsi_twisted.storage.fallocate import (
    UNSUPPORTED,
    Abilities,
    discardBlocks,
    punchHole,
    sectorSize,
    zeroBlocks,
    zeroRange,
)

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_GONE: Final = frozenset({errno.ENXIO, errno.ENODEV, errno.ENOMEDIUM, errno.ESTALE})


def deviceError(
    kind: type[DeviceError], path: str, doing: str, error: OSError, offset: int | None
) -> DeviceError:
    """
    What an C{OSError} means to whoever uses the device.

    @param kind: the class for everything that has no better one.
    @param doing: what failed, after 'cannot'.
    """
    number = error.errno
    if number in _FULL and kind is WriteError:
        kind = OutOfSpace
    elif number in _GONE:
        kind = NotReady
    elif number == errno.EROFS:
        kind = WriteProtected
    where = "" if offset is None else f" at byte {offset}"
    return kind(f"{path}: cannot {doing}{where}: {error.strerror}", offset)


WITNESS: Final = "user.iscsi_twisted."
"""What the names of extended attributes begin with."""


class OpenRange:
    """
    An open range of a file or a block device node.

    @ivar alignment: what the system wants offsets and lengths to be multiples of, in bytes.

    @ivar path: the file's name as it was given.
    @ivar fd: its descriptor.
    @ivar start: where in the file the range begins.
    @ivar size: bytes.
    @ivar isBlock: it is a block device node.
    @ivar locked: nobody else can use the range; False where the file system has no such locks.
    @ivar durable: what has been written must survive a power cut at once (there is no write cache).
    @ivar abilities: what can be done without writing; less, once the system refused it.
    @ivar rotational: the medium rotates.
    @ivar lost: why writes could not be made durable, which then may be gone; None if that never happened.
    @ivar short: the file was found to end before the range does.
    @ivar below: descriptors that lock what the node lies on.
    """

    alignment = 1

    def __init__(
        self,
        path: str,
        fd: int,
        start: int,
        size: int,
        *,
        isBlock: bool,
        locked: bool,
        durable: bool,
        abilities: Abilities,
        rotational: bool,
    ) -> None:
        self.path = path
        self.fd = fd
        self.start = start
        self.size = size
        self.isBlock = isBlock
        self.locked = locked
        self.durable = durable
        self.abilities = abilities
        self.rotational = rotational
        self._sector = sectorSize(fd) if isBlock else 1
        self.lost: DeviceError | None = None
        self.short = False
        self.below: tuple[int, ...] = ()
        self._punches = isBlock and abilities.punch

    def forget(self) -> None:
        """Let the system forget what it has cached, so that what is read next is what the medium holds."""
        with suppress(OSError):
            os.posix_fadvise(self.fd, self.start, self.size, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Let the file go, and the lock with it."""
        fds, self.fd, self.below = (self.fd, *self.below), -1, ()
        for fd in fds:
            os.close(fd)

    def read(self, buffer: bytearray, got: int, offset: int) -> bytearray:
        """
        Fill a buffer.

        @param got: how many of its bytes are there already.
        @param offset: of the buffer's first byte.
        @raise ReadError: naming the first byte that could not be read.
        """
        if not got:
            got = self._readSome(buffer, offset)
        if got < len(buffer):
            with memoryview(buffer) as view:
                while got < len(buffer):
                    got += self._readSome(view[got:], offset + got)
        return buffer

    def _readSome(self, view: bytearray | memoryview, offset: int) -> int:
        if not len(view):
            return 0
        try:
            got = os.preadv(self.fd, (view,), self.start + offset)
        except OSError as error:
            raise deviceError(ReadError, self.path, f"read {len(view)} bytes", error, offset) from error
        if not got:
            raise self.cut(offset)
        return got

    def cut(self, offset: int) -> ReadError:
        """The error for a file that ends before the range does."""
        self.short = True
        return ReadError(
            f"{self.path}: the file ends at byte {offset} of {self.size} of the extent: it was cut short",
            offset,
        )

    def join(self, offset: int, end: int) -> None:
        """
        See that a write leaves no gap where the file was cut short: that would read as zeros.

        @raise WriteError: if it would, or if a disk has no such bytes any more.
        """
        there = os.lseek(self.fd, 0, os.SEEK_END) - self.start
        self.short = there < self.size
        if self.short and self._leavesGap(offset, end, there):
            raise WriteError(
                f"{self.path}: cannot write at byte {offset}: {'it' if self.isBlock else 'the file'} ends at"
                f" byte {max(0, there)} of {self.size} of the extent: it was cut short",
                max(offset, there) if self.isBlock else offset,
            )

    def _leavesGap(self, offset: int, end: int, there: int) -> bool:
        return (end if self.isBlock else offset) > there

    def write(self, offset: int, data: Buffer, done: int = 0) -> None:
        """
        Write all of C{data}, or what is left of it after C{done} bytes.

        @param offset: of the first byte of C{data}.
        @raise WriteError: or L{OutOfSpace}, naming the first byte that could not be written.
        """
        view = memoryview(data)
        self.join(offset, offset + len(view))
        while done < len(view):
            try:
                done += os.pwrite(self.fd, view[done:], self.start + offset + done)
            except OSError as error:
                doing = f"write {len(view) - done} bytes"
                raise deviceError(WriteError, self.path, doing, error, offset + done) from error

    def flush(self) -> None:
        """
        Make what has been written durable.

        Once that failed it fails for ever, until the range is opened anew: the kernel reports a lost write
        once and then calls the page clean, so a later success would say that data are safe which are gone.
        """
        if self.lost is None:
            try:
                os.fdatasync(self.fd)
            except OSError as error:
                self.lost = deviceError(WriteError, self.path, "make writes durable", error, None)
        if self.lost is not None:
            # Each command has an error of its own, whose offset may be rewritten.
            raise type(self.lost)(str(self.lost)) from self.lost

    def modified(self) -> tuple[int]:
        """
        When the file was changed last, in nanoseconds.  That is made durable first, or a power cut would make
        it look older than it is.
        """
        os.fsync(self.fd)
        return (os.fstat(self.fd).st_mtime_ns,)

    def witness(self, key: str) -> int:
        """A number that is kept in an extended attribute of the file; 0 if there is none."""
        try:
            return int(os.getxattr(self.fd, WITNESS + key))
        except (OSError, ValueError):
            return 0

    def keepWitness(self, key: str, number: int) -> None:
        """Keep a number there, if the file system can do that."""
        with suppress(OSError):
            os.setxattr(self.fd, WITNESS + key, b"%d" % number)

    def discard(self, offset: int, length: int) -> None:
        """Give storage back: a file then reads as zeros there, a block device as anything."""
        if not self.isBlock:
            self.zero(offset, length, True)
            return
        first, last = self._wholeSectors(offset, offset + length)
        if last > first:
            self._try(discardBlocks, first, last - first)

    def zero(self, offset: int, length: int, unmap: bool) -> None:
        """Make bytes read as zeros, by the cheapest way that there is."""
        if not length:
            return
        if self.isBlock:
            self._zeroBlocks(offset, offset + length, unmap)
        elif not self._zeroedFile(offset, length, unmap):
            self._writeZeros(offset, offset + length)
        if self.durable:
            # fallocate() does not care about O_DSYNC.
            self.flush()

    def _zeroedFile(self, offset: int, length: int, unmap: bool) -> bool:
        """Zero bytes of a file without writing them, where that is possible: it makes no file longer."""
        if os.lseek(self.fd, 0, os.SEEK_END) < self.start + offset + length:
            return False
        return (unmap and self._try(punchHole, offset, length)) or self._try(zeroRange, offset, length)

    def _zeroBlocks(self, offset: int, end: int, unmap: bool) -> None:
        first, last = self._wholeSectors(offset, end)
        if last <= first or not (
            (unmap and self._punched(first, last - first)) or self._try(zeroBlocks, first, last - first)
        ):
            self._writeZeros(offset, end)
            return
        self._writeZeros(offset, first)
        self._writeZeros(last, end)

    def _punched(self, offset: int, length: int) -> bool:
        """Zero sectors of a block device by giving their storage back, where it promises zeros then."""
        if self._punches:
            try:
                punchHole(self.fd, self.start + offset, length)
            except OSError as error:
                self._punches = error.errno not in UNSUPPORTED
                return False
        return self._punches

    def _wholeSectors(self, offset: int, end: int) -> tuple[int, int]:
        """The part of a range of a block device that consists of whole sectors."""
        sector = self._sector
        first = -(-(self.start + offset) // sector) * sector - self.start
        return first, (self.start + end) // sector * sector - self.start

    def _try(self, function: Callable[[int, int, int], None], offset: int, length: int) -> bool:
        """
        Do without writing what can be done so.

        @return: False if the system cannot, and is not asked again.
        """
        ability = "punch" if function in (punchHole, discardBlocks) else "zero"
        if not getattr(self.abilities, ability):
            return False
        try:
            function(self.fd, self.start + offset, length)
        except OSError as error:
            if error.errno in UNSUPPORTED:
                self.abilities = self.abilities._replace(**{ability: False})
                return False
            doing = f"{'discard' if ability == 'punch' else 'zero'} {length} bytes"
            raise deviceError(WriteError, self.path, doing, error, offset) from error
        return True

    def _writeZeros(self, offset: int, end: int) -> None:
        while offset < end:
            piece = min(len(ZEROS), end - offset)
            self.write(offset, memoryview(ZEROS)[:piece])
            offset += piece

    def allocated(self, offset: int, length: int) -> list[tuple[int, bool]]:
        """Runs of data and of holes.  What a file that was cut short lacks is no hole: it cannot be read."""
        runs: list[tuple[int, bool]] = []
        position, last = self.start + offset, self.start + offset + length
        end = max(position, self._seek(0, os.SEEK_END, last))
        while position < end:
            data = self._seek(position, os.SEEK_DATA, end)
            if data > position:
                runs.append((data - position, False))
            hole = self._seek(data, os.SEEK_HOLE, end) if data < end else end
            if hole > data:
                runs.append((hole - data, True))
            position = hole
        if last > end:
            runs.append((last - end, True))
        return runs

    def space(self) -> Space:
        """What the range has of the file system, and what that has left."""
        status = os.fstat(self.fd)
        if self.start == 0 and status.st_size <= self.size:
            # The file system may keep more than the content, for itself or for later.
            used = min(status.st_blocks * 512, self.size)
        else:
            used = sum(length for length, stored in self.allocated(0, self.size) if stored)
        volume = os.fstatvfs(self.fd)
        return Space(used, volume.f_bavail * volume.f_frsize)

    def _seek(self, position: int, whence: int, end: int) -> int:
        """
        Where data or a hole begins next, at most C{end}.  The descriptor's own position means nothing to
        anybody, so threads may do this side by side.
        """
        try:
            return min(os.lseek(self.fd, position, whence), end)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return end
            offset = max(0, position - self.start)
            raise deviceError(ReadError, self.path, "look for holes", error, offset) from error
