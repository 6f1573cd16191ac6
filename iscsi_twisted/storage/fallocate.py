# -*- test-case-name: tests.storage.test_fallocate -*-
"""
Giving storage back, and zeroing without writing zeros: C{fallocate(2)} for files, ioctls for block devices.

Everything here blocks.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

_KEEP_SIZE: Final = 0x01
_PUNCH_HOLE: Final = 0x02
_ZERO_RANGE: Final = 0x10

_BLKSSZGET: Final = 0x1268
_BLKDISCARD: Final = 0x1277
_BLKZEROOUT: Final = 0x127F

UNSUPPORTED: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.ENODEV})
"""The error numbers of a file system or device that cannot do it."""

_PROBED: Final = 4096


def _bind() -> Callable[[int, int, int, int], int] | None:
    library = ctypes.CDLL(None, use_errno=True)
    # Where off_t has 32 bits only the function with 64 in its name reaches everything.
    function = getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)
    if function is None:
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    function.restype = ctypes.c_int
    return function  # type: ignore[no-any-return]


_fallocate = _bind()


def _call(fd: int, mode: int, offset: int, length: int) -> None:
    if _fallocate is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    while _fallocate(fd, mode, offset, length):
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def punchHole(fd: int, offset: int, length: int) -> None:
    """Give the storage of these bytes of a file back; they then read as zeros."""
    _call(fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length)


def zeroRange(fd: int, offset: int, length: int) -> None:
    """Make these bytes of a file read as zeros, and keep or reserve storage for them."""
    _call(fd, _ZERO_RANGE | _KEEP_SIZE, offset, length)


class Abilities(NamedTuple):
    """
    What can be done beneath an extent.

    @ivar punch: storage can be given back.
    @ivar zero: bytes can be zeroed without writing them.
    """

    punch: bool = False
    zero: bool = False


def probeFile(path: str, device: int) -> Abilities:
    """
    What the file system of a file can do, tried on a file without a name beside it: a trial on the file
    itself would change it.  Where such a file cannot be made nothing is promised.

    @param path: the file's own path; symbolic links are followed.
    @param device: its C{st_dev}: a trial on another file system would tell nothing.
    """
    try:
        return _probeDirectory(os.path.dirname(os.path.realpath(path)), device)
    except OSError:
        return Abilities()


@lru_cache(maxsize=64)
def _probeDirectory(directory: str, device: int) -> Abilities:
    """Remembered, where there was an answer, since thousands of extents may lie in one directory."""
    fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(fd).st_dev != device:
            return Abilities()
        os.ftruncate(fd, _PROBED)
        return Abilities(_works(punchHole, fd), _works(zeroRange, fd))
    finally:
        os.close(fd)


def _works(function: Callable[[int, int, int], None], fd: int) -> bool:
    try:
        function(fd, 0, _PROBED)
    except OSError:
        return False
    return True


def queueSetting(number: int, name: str) -> int:
    """
    A number from the request queue of a block device, or 0 if the system does not tell.

    @param number: the C{st_rdev} of a device, or the C{st_dev} of a file on it.
    """
    where = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
    for directory in (where, where + "/.."):  # A partition has its disk's queue.
        try:
            with open(f"{directory}/queue/{name}", encoding="ascii") as setting:
                return int(setting.read())
        except (OSError, ValueError):
            continue
    return 0


def probeBlocks(number: int) -> Abilities:
    """What a block device can do.  Zeroing is always worth a call: at worst the kernel writes zeros."""
    return Abilities(queueSetting(number, "discard_max_bytes") > 0, True)


def sectorSize(fd: int) -> int:
    """Bytes of the smallest piece that a block device addresses."""
    answer = fcntl.ioctl(fd, _BLKSSZGET, bytes(4))
    return int.from_bytes(answer, "little" if struct.pack("=H", 1)[0] else "big")


def discardBlocks(fd: int, offset: int, length: int) -> None:
    """Discard whole sectors of a block device; they then read as anything."""
    fcntl.ioctl(fd, _BLKDISCARD, struct.pack("=QQ", offset, length))


def zeroBlocks(fd: int, offset: int, length: int) -> None:
    """Zero whole sectors of a block device."""
    fcntl.ioctl(fd, _BLKZEROOUT, struct.pack("=QQ", offset, length))
