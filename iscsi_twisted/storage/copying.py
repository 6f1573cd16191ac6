# -*- test-case-name: tests.storage.test_copying -*-
"""Copying between ranges of files without carrying the data: the kernel does it, or shares the blocks."""

from __future__ import annotations

import errno
import os
from typing import Final

from iscsi_twisted.errors import ReadError, WriteError
from iscsi_twisted.storage.device import ZEROS
from iscsi_twisted.storage.openrange import OpenRange, deviceError

PIECE: Final = len(ZEROS)
"""Bytes that are carried in one go where the kernel does not copy."""

_UNABLE: Final = frozenset(
    (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM, errno.ETXTBSY)
)
"""How a kernel says that it does not copy between these two."""


def together(source: OpenRange, destination: OpenRange) -> bool:
    """Whether two ranges are of regular files of one file system."""
    if source.isBlock or destination.isBlock or not hasattr(os, "copy_file_range"):
        return False
    return os.fstat(source.fd).st_dev == os.fstat(destination.fd).st_dev


def copyRange(source: OpenRange, destination: OpenRange, sourceOffset: int, offset: int, length: int) -> None:
    """
    Copy bytes; the ranges may not overlap.  Blocks.

    @raise ReadError: naming the byte of the source that could not be read.
    @raise WriteError: or L{OutOfSpace}, naming the byte of the destination that could not be written.
    """
    done = 0
    destination.join(offset, offset + length)
    while done < length:
        got = _offload(source, destination, sourceOffset + done, offset + done, length - done)
        done += got or _carry(source, destination, sourceOffset + done, offset + done, length - done)
    if destination.durable:
        # It does not care about O_DSYNC.
        destination.flush()


def _offload(source: OpenRange, destination: OpenRange, start: int, offset: int, length: int) -> int:
    """How many bytes the kernel has copied; 0 if it does not."""
    try:
        return os.copy_file_range(
            source.fd, destination.fd, length, source.start + start, destination.start + offset
        )
    except OSError as error:
        if error.errno in _UNABLE:
            return 0
        # Whose fault it was the kernel does not say: whoever carries the bytes finds out.
        if error.errno == errno.EIO:
            return 0
        doing = f"copy {length} bytes"
        raise deviceError(WriteError, destination.path, doing, error, offset) from error


def _carry(source: OpenRange, destination: OpenRange, start: int, offset: int, length: int) -> int:
    """Read some and write it."""
    piece = min(PIECE, length)
    if start + piece > source.size:
        raise ReadError(f"{source.path}: bytes {start} to {start + piece} are not there", start)
    destination.write(offset, source.read(bytearray(piece), 0, start))
    return piece
