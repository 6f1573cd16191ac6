# -*- test-case-name: tests.storage.test_direct -*-
"""
A range of a file or disk past the page cache (C{O_DIRECT}).

The system moves such data straight between the disk and memory, and wants both in whole pieces of the disk:
offsets and lengths that are multiples of an alignment, in memory that begins at a page.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import Condition
from typing import Any, Final

from iscsi_twisted.errors import DeviceError, ReadError, WriteError
from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.storage.openrange import OpenRange, deviceError

PIECE: Final = 1 << 20
"""Bytes of one transfer, and of one buffer: beyond that a disk gains nothing."""

KEPT: Final = 16
"""Buffers that are kept for the next transfers: as many as the threads of two devices hold at a time."""

_LARGEST: Final = 4096
"""The largest alignment that is tried where the system does not tell it."""

_AT_EMPTY_PATH: Final = 0x1000
_DIOALIGN: Final = 0x2000
_STATX: Final = struct.Struct("=I148xII")
"""Of C{struct statx}: what was told, and the alignments of memory and of offsets (in Linux since 6.1)."""
_IN_MEMORY: Final = frozenset((0x01021994, 0x858458F6))
"""Tmpfs and ramfs, as C{statfs} tells them: their files are the page cache."""


class Buffers:
    """Memory that begins at a page.  To be used from any thread."""

    def __init__(self) -> None:
        self._free: list[mmap.mmap] = []

    @contextmanager
    def one(self) -> Iterator[memoryview]:
        """A buffer of L{PIECE} bytes; what it holds is anything."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = mmap.mmap(-1, PIECE)
        try:
            with memoryview(memory) as view:
                yield view
        finally:
            if len(self._free) < KEPT:
                self._free.append(memory)


class Claims:
    """
    Who is at work where.  To be used from any thread.

    What replaces a part of an aligned piece reads the rest of it and writes it back: until then nobody else
    may change that.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._held: list[tuple[int, int, bool]] = []

    @contextmanager
    def claim(self, first: int, end: int, alone: bool) -> Iterator[None]:
        """
        Wait until a range may be changed, and hold it.

        @param alone: nobody else may change it meanwhile.
        """
        mine = (first, end, alone)
        with self._changed:
            while any(begin < end and first < stop and (alone or other) for begin, stop, other in self._held):
                self._changed.wait()
            self._held.append(mine)
        try:
            yield
        finally:
            with self._changed:
                self._held.remove(mine)
                self._changed.notify_all()


BUFFERS: Final = Buffers()


class DirectRange(OpenRange):
    """
    An open range that is read and written past the page cache.

    Whatever the alignment is, any bytes can be read and written; those that do not begin and end at a
    multiple of it cost a read more.  C{start} and C{size} are multiples of it.

    """

    def __init__(self, *arguments: Any, alignment: int, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.alignment = alignment
        self._claims = Claims()

    def _down(self, offset: int) -> int:
        return offset - offset % self.alignment

    def _up(self, offset: int) -> int:
        return offset + -offset % self.alignment

    def read(self, buffer: bytearray, got: int, offset: int) -> bytearray:
        """See L{OpenRange.read}."""
        place, end = offset + got, offset + len(buffer)
        limit = PIECE
        with BUFFERS.one() as piece:
            while place < end:
                first = self._down(place)
                wanted = min(limit, self._up(end) - first)
                try:
                    count = self._readSome(piece[:wanted], first)
                except ReadError as error:
                    if wanted == self.alignment:
                        error.offset = place
                        raise
                    # Halves, until it is known where the bad place is.
                    limit = max(self.alignment, self._down(wanted // 2))
                    continue
                stop = min(first + count, end)
                if stop <= place:
                    raise self.cut(place)
                buffer[place - offset : stop - offset] = piece[place - first : stop - first]
                place = stop
        return buffer

    def write(self, offset: int, data: Buffer, done: int = 0) -> None:
        """See L{OpenRange.write}."""
        view = memoryview(data)
        place, end = offset + done, offset + len(view)
        self.join(offset, end)
        with BUFFERS.one() as piece:
            while place < end:
                first = self._down(place)
                last = min(first + PIECE, self._up(end))
                stop = min(last, end)
                partial = first < place or stop < last
                with self._claims.claim(first, last, partial):
                    if first < place:
                        self._fill(piece, first, first)
                    if stop < last and (self._down(stop) > first or first == place):
                        self._fill(piece, self._down(stop), first)
                    piece[place - first : stop - first] = view[place - offset : stop - offset]
                    self._writeAll(piece[: last - first], first, place)
                place = stop

    def _leavesGap(self, offset: int, end: int, there: int) -> bool:
        # Behind the end there are zeros up to the next multiple of the alignment.
        return super()._leavesGap(offset, end, there) or there < self._up(end) != end

    def _fill(self, piece: memoryview, place: int, first: int) -> None:
        """Read an aligned piece that is to be replaced in part; what a file does not have is zeros."""
        target = piece[place - first : place - first + self.alignment]
        try:
            got = os.preadv(self.fd, (target,), self.start + place)
        except OSError as error:
            raise deviceError(WriteError, self.path, "read what is around a write", error, place) from error
        target[got:] = bytes(self.alignment - got)

    def _writeAll(self, piece: memoryview, first: int, place: int) -> None:
        done = 0
        while done < len(piece):
            doing = f"write {len(piece) - done} bytes"
            try:
                count = os.pwrite(self.fd, piece[done:], self.start + first + done)
                if not self._down(count):
                    raise OSError(errno.EIO, "only a part of a block could be written")
            except OSError as error:
                raise deviceError(WriteError, self.path, doing, error, max(first + done, place)) from error
            done += self._down(count)

    def _try(self, function: Callable[[int, int, int], None], offset: int, length: int) -> bool:
        with self._claims.claim(self._down(offset), self._up(offset + length), False):
            return super()._try(function, offset, length)


def beDirect(fd: int, path: str, sector: int) -> int:
    """
    Let what is open be read and written past the page cache.

    @param sector: bytes of a sector of a block device; 0 for a file.
    @return: what offsets and lengths have to be multiples of.
    @raise DeviceError: if that cannot be.
    """
    refusal = DeviceError(
        f"{path}: its file system has no direct I/O; leave direct=yes out, or put the file on another one"
    )
    if not sector and _kind(fd) in _IN_MEMORY:
        raise refusal
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)
    except OSError as error:
        raise refusal from error
    told = _told(fd)
    alignment = sector or (_tried(fd) if told is None else told)
    if not alignment:
        raise refusal
    return alignment


@cache
def _function(name: str) -> Any:
    """A function of the system's; None if it is not there.  To look for it costs more than to call it."""
    return getattr(ctypes.CDLL(None), name, None)


def _kind(fd: int) -> int:
    """The number of a file system's kind; 0 if the system does not tell."""
    answer = ctypes.create_string_buffer(256)
    statfs = _function("fstatfs")
    if statfs is None or statfs(fd, answer):
        return 0
    return ctypes.c_long.from_buffer(answer).value & 0xFFFFFFFF


def _told(fd: int) -> int | None:
    """The alignment as the system tells it, 0 for 'not possible'; None if it tells nothing."""
    answer = ctypes.create_string_buffer(256)
    statx = _function("statx")
    if statx is None or statx(fd, b"", _AT_EMPTY_PATH, _DIOALIGN, answer):
        return None
    mask, _, offsets = _STATX.unpack_from(answer)
    return offsets if mask & _DIOALIGN else None


def _tried(fd: int) -> int:
    """The alignment with which a read succeeds; 0 if none does."""
    alignment = 512
    with BUFFERS.one() as piece:
        while alignment <= _LARGEST:
            try:
                os.preadv(fd, (piece[:alignment],), alignment)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    return _LARGEST
                alignment *= 2
            else:
                return alignment
    return 0
