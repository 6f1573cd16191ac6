# -*- test-case-name: tests.storage.test_locks -*-
"""
Locks on ranges of a file, against a second user of the same range.

Open-file-description locks: they belong to the opened file, so that two extents of one process exclude each
other too, and closing another descriptor of the same file does not drop them (as POSIX locks would).
"""

from __future__ import annotations

import errno
import fcntl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_FLOCK: Final = struct.Struct("@hhqqi0q")
"""C{struct flock}: type, whence, start, length, process."""

_UNSUPPORTED: Final = frozenset({errno.ENOLCK, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})

_GATE: Final = (1 << 63) - 1
"""The byte that is locked while a file is grown: the last that a file could have, and none has."""


def lockRange(fd: int, start: int, length: int, *, shared: bool) -> bool:
    """
    Lock C{length} bytes from C{start} until C{fd} is closed.

    @param shared: as a reader beside other readers.
    @return: False if the file system has no such locks.
    @raise BlockingIOError: if somebody else holds some of these bytes.
    """
    kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, 0, start, length, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise BlockingIOError(errno.EAGAIN, "locked by another") from error
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


def holder(fd: int, start: int, length: int) -> tuple[int, int, int] | None:
    """
    Who keeps C{fd} from a write lock on these bytes.

    @return: first byte, length (0 for 'to the end') and process id (-1 if unknown) of one lock, or None.
    """
    asked = _FLOCK.pack(fcntl.F_WRLCK, 0, start, length, 0)
    try:
        kind, _, first, count, process = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))
    except OSError:
        return None
    return None if kind == fcntl.F_UNLCK else (first, count, process)


@contextmanager
def growing(fd: int) -> Iterator[None]:
    """
    Keep other processes from growing the same file meanwhile: between the look at its size and the
    C{ftruncate} it must not have become longer, or it would be cut.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLKW, _FLOCK.pack(fcntl.F_WRLCK, 0, _GATE, 1, 0))
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        yield
        return
    try:
        yield
    finally:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, 0, _GATE, 1, 0))
