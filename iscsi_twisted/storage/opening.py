# -*- test-case-name: tests.storage.test_opening -*-
"""
Opening a range of a file: every check, and not one byte written to storage that exists.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from functools import partial
from typing import Final, NoReturn

from iscsi_twisted.errors import DeviceError, InUse, NotReady, OutOfSpace, WriteProtected
from iscsi_twisted.storage.beneath import Occupied, lockBelow
from iscsi_twisted.storage.direct import DirectRange, beDirect
from iscsi_twisted.storage.fallocate import Abilities, probeBlocks, probeFile, queueSetting, sectorSize
from iscsi_twisted.storage.locks import growing, holder, lockRange
from iscsi_twisted.storage.openrange import OpenRange

_LAST: Final = (1 << 63) - 1
"""The number of the last byte that a file could have."""

_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a character device",
}

_ATTEMPTS: Final = 8
"""How often a name may appear and vanish between two looks before that is called an error."""


class Opening:
    """
    One attempt to open a range.

    @ivar path: the file's name as it was given.
    @ivar start: first byte of the range.
    @ivar length: bytes, or None for 'to the end'.
    @ivar readOnly: never write, create or grow anything.
    @ivar create: whether a missing file may be made.
    @ivar durable: each write shall be on the medium when it has completed.
    @ivar direct: past the page cache.
    """

    def __init__(
        self,
        path: str,
        start: int,
        length: int | None,
        *,
        readOnly: bool,
        create: bool,
        durable: bool,
        direct: bool = False,
    ) -> None:
        self.path = path
        self.start = start
        self.length = length
        self.readOnly = readOnly
        self.create = create
        self.durable = durable
        self.direct = direct

    def rehearse(self, *, making: bool = True) -> None:
        """
        Find out what stands against opening, as far as that goes without making or locking anything.

        @param making: whether a file may be missing or too short that can be made, or made longer.
        @raise DeviceError: as L{open} does.
        """
        fd = self._existing()
        if fd is None:
            self._checkCreatable(making)
            return
        try:
            status = os.fstat(fd)
            isBlock = stat.S_ISBLK(status.st_mode)
            end = os.lseek(fd, 0, os.SEEK_END) if isBlock else status.st_size
            size = self._size(end)
            if self.direct:
                self._align(fd, size, isBlock)
            wanted = self.start + size
            if wanted > end:
                self._checkLonger(wanted, end, isBlock, making)
        finally:
            os.close(fd)

    def open(self, *, making: bool = True) -> OpenRange:
        """
        @param making: whether a missing file may be made, and one that is too short made longer.
        @raise DeviceError: in one line, what is wrong with which file, and what would be right.
        """
        if self.start + (self.length or 0) > _LAST:
            raise DeviceError(f"{self.path}: the extent ends beyond what any file can hold, {_LAST} bytes")
        fd, created = self._descriptor(making)
        try:
            return self._opened(fd, making)
        except BaseException:
            if created:
                self._remove(fd)
            os.close(fd)
            raise

    # The descriptor

    def _descriptor(self, making: bool) -> tuple[int, bool]:
        """Open the file, or make it; whether it was made."""
        for _ in range(_ATTEMPTS):
            fd = self._existing()
            if fd is not None:
                return fd, False
            fd = self._fresh(making)
            if fd is not None:
                return fd, True
        raise NotReady(f"{self.path}: is a symbolic link to a file that does not exist; make that file first")

    def _flags(self) -> int:
        mode = os.O_RDONLY if self.readOnly else os.O_RDWR | (os.O_DSYNC if self.durable else 0)
        return mode | os.O_CLOEXEC | os.O_NOCTTY

    def _existing(self) -> int | None:
        """@return: a descriptor, or None if there is no such file."""
        try:
            # Before it is opened: to open a FIFO waits for a writer, and to open a tape may move it.
            self._checkKind(os.stat(self.path).st_mode)
            return os.open(self.path, self._flags())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self._refuse(error)

    def _checkKind(self, mode: int) -> None:
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            kind = _KINDS.get(stat.S_IFMT(mode), "something else")
            raise DeviceError(f"{self.path}: is {kind}; an extent is a regular file or a block device")

    def _fresh(self, making: bool) -> int | None:
        """@return: the descriptor of a new file, or None if one has appeared."""
        self._checkCreatable(making)
        try:
            return os.open(self.path, self._flags() | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return None
        except OSError as error:
            self._refuse(error)

    def _checkCreatable(self, making: bool) -> None:
        """@raise NotReady: if a file that is missing is not to be made."""
        parent = os.path.dirname(self.path) or "."
        if not os.path.isdir(parent):
            raise NotReady(f"{self.path}: the directory {parent} does not exist; make it first")
        if self.readOnly:
            raise NotReady(f"{self.path}: does not exist, and what is served read-only is never created")
        if not (making and self.create):
            raise NotReady(f"{self.path}: does not exist")
        if self.length is None:
            raise NotReady(
                f"{self.path}: does not exist, so it has no end to go to; to create it give a length"
            )

    def _refuse(self, error: Exception) -> NoReturn:
        """@raise DeviceError: saying why the file cannot be opened."""
        if isinstance(error, DeviceError):
            raise error
        number = getattr(error, "errno", None)
        wanted = "reading" if self.readOnly else "reading and writing"
        if number in (errno.EACCES, errno.EPERM):
            raise DeviceError(f"{self.path}: {self._forbidden(wanted)}") from error
        if number == errno.EROFS:
            raise WriteProtected(
                f"{self.path}: is on a file system that is mounted read-only; serve it read-only"
            ) from error
        if number == errno.ENOTDIR:
            raise NotReady(f"{self.path}: a part of this path is a file, not a directory") from error
        if number in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfSpace(f"{self.path}: cannot be created: {os.strerror(number)}") from error
        if number in (errno.ENXIO, errno.ENODEV, errno.ENOMEDIUM):
            raise NotReady(f"{self.path}: there is no device behind this node, or no medium in it") from error
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DeviceError(f"{self.path}: cannot be opened for {wanted}: {reason}") from error

    def _forbidden(self, wanted: str) -> str:
        """What the permissions do not allow, and which of them have to change."""
        directory = os.path.dirname(self.path) or "."
        if not os.path.lexists(self.path):
            if not os.access(directory, os.X_OK):
                return f"no permission to look into {directory}; change its mode or who serves it"
            return f"no permission to create it; change the mode of {directory} or who serves it"
        return f"no permission to open it for {wanted}; change its mode or who serves it"

    def _remove(self, fd: int) -> None:
        """Take away the file that was made here, unless somebody uses it or has put another in its place."""
        try:
            if lockRange(fd, 0, 0, shared=False) and os.path.samestat(os.fstat(fd), os.lstat(self.path)):
                os.unlink(self.path)
        except OSError:
            pass  # The error that is on its way says more.

    # What is behind the descriptor

    def _opened(self, fd: int, making: bool) -> OpenRange:
        status = os.fstat(fd)
        self._checkKind(status.st_mode)
        isBlock = stat.S_ISBLK(status.st_mode)
        end = os.lseek(fd, 0, os.SEEK_END) if isBlock else status.st_size
        size = self._size(end)
        kind: Callable[..., OpenRange] = OpenRange
        if self.direct:
            kind = partial(DirectRange, alignment=self._align(fd, size, isBlock))
        locked = self.lock(fd, size)
        if self.start + size > end:
            self._reach(fd, self.start + size, end, isBlock, making)
        opened = kind(
            self.path,
            fd,
            self.start,
            size,
            isBlock=isBlock,
            locked=locked,
            durable=self.durable,
            abilities=self._abilities(status),
            rotational=bool(queueSetting(status.st_rdev if isBlock else status.st_dev, "rotational")),
        )
        if isBlock:
            opened.below = self._lockBelow(fd, size)
        return opened

    def _align(self, fd: int, size: int, isBlock: bool) -> int:
        """
        Go past the page cache from now on.

        @return: what offsets and lengths are to be multiples of.
        @raise DeviceError: if the file cannot be used so, or not this range of it.
        """
        alignment = beDirect(fd, self.path, sectorSize(fd) if isBlock else 0)
        if self.start % alignment or size % alignment:
            raise DeviceError(
                f"{self.path}: with direct=yes an extent begins and ends at a multiple of {alignment} bytes;"
                f" this one has {size} bytes from byte {self.start}"
            )
        return alignment

    def _size(self, end: int) -> int:
        if self.length is not None:
            return self.length
        if self.start >= end:
            raise DeviceError(
                f"{self.path}: has {end} bytes, so nothing is left from byte {self.start} on; "
                "start earlier, or give a length"
            )
        return end - self.start

    def _abilities(self, status: os.stat_result) -> Abilities:
        if self.readOnly:
            return Abilities()
        if stat.S_ISBLK(status.st_mode):
            return probeBlocks(status.st_rdev)
        return probeFile(self.path, status.st_dev)

    def lock(self, fd: int, size: int) -> bool:
        """
        Lock the range.

        @return: whether the file system has such locks.
        @raise DeviceError: if others use a part of it.
        """
        try:
            return lockRange(fd, self.start, size, shared=self.readOnly)
        except BlockingIOError as error:
            raise InUse(f"{self.path}: {self._conflict(fd, size)}") from error
        except OSError as error:
            raise DeviceError(f"{self.path}: cannot be locked: {error.strerror}") from error

    def _lockBelow(self, fd: int, size: int) -> tuple[int, ...]:
        """
        Lock what a device lies on, too.

        @raise DeviceError: if others use that.
        """
        try:
            return lockBelow(fd, self.start, size, shared=self.readOnly)
        except Occupied as error:
            raise InUse(f"{self.path}: {error}") from None
        except OSError as error:
            raise DeviceError(f"{self.path}: what it lies on cannot be locked: {error.strerror}") from error

    def _conflict(self, fd: int, size: int) -> str:
        mine = f"bytes {self.start} to {self.start + size - 1}"
        found = holder(fd, self.start, size)
        if found is None:
            return f"{mine} are in use elsewhere; end that use, or give each its own range"
        first, count, process = found
        theirs = f"{first} to {first + count - 1}" if count else f"{first} to the end"
        who = f"process {process}" if process > 0 else "another extent or process"
        return f"{mine} are wanted, but {who} uses bytes {theirs}; end that use, or give each its own range"

    def _reach(self, fd: int, wanted: int, end: int, isBlock: bool, making: bool) -> None:
        """Make a file long enough, without writing anything."""
        self._checkLonger(wanted, end, isBlock, making)
        self._lengthen(fd, wanted)

    def _checkLonger(self, wanted: int, end: int, isBlock: bool, making: bool) -> None:
        """@raise DeviceError: if a file that is too short is not to be made longer."""
        if isBlock or self.readOnly or not making:
            raise DeviceError(
                f"{self.path}: the extent ends at byte {wanted}, but there are only {end}; "
                + ("end the extent there" if isBlock else f"end it there, or lengthen the file to {wanted}")
            )

    def _lengthen(self, fd: int, wanted: int) -> None:
        try:
            with growing(fd):
                # Looked at again: another process may have made it longer meanwhile.
                if os.fstat(fd).st_size < wanted:
                    os.ftruncate(fd, wanted)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OutOfSpace(f"{self.path}: cannot grow to {wanted} bytes: {error.strerror}") from error
            raise DeviceError(
                f"{self.path}: cannot grow to {wanted} bytes: {error.strerror}; "
                "its file system may not hold files of that size"
            ) from error
