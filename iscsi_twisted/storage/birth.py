# -*- test-case-name: tests.storage.test_birth -*-
"""
Which file it is, whatever it is called: facts that a new file of the same name, and even of the same inode
number, does not have.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import stat
import struct
from functools import cache
from typing import Any, Final

_EMPTY_PATH: Final = 0x1000
_BIRTH: Final = 0x800
_MASK: Final = 0
_SECONDS: Final = 80
_GET_GENERATION: Final = 0x80087601
"""C{statx}: AT_EMPTY_PATH, STATX_BTIME, and where mask and birth time stand; C{FS_IOC_GETVERSION}."""


def fileIdentity(fd: int) -> str | None:
    """
    What tells an open file, or the device behind a node, from all others that there are or were.

    @return: None if the system does not tell enough: the number of an inode alone is given again to the next
        file.
    """
    status = os.fstat(fd)
    if stat.S_ISBLK(status.st_mode):
        return _device(status.st_rdev)
    born = birth(fd)
    number = generation(fd)
    if born is None and number is None:
        return None
    return f"inode {status.st_ino} born {born} generation {number}"


def _device(number: int) -> str:
    """A disk's own name, which stays when it is plugged in elsewhere, or else its number."""
    place = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
    part = _line(f"{place}/partition")
    whole = f"{place}/.." if part else place
    for fact in ("wwid", "device/wwid", "device/serial", "serial", "dm/uuid", "md/uuid"):
        name = _line(f"{whole}/{fact}")
        if name:
            return f"device {name} part {part}" if part else f"device {name}"
    return f"device {number} {_line(f'{place}/loop/backing_file')}".rstrip()


def _line(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(256).decode("ascii", "replace").strip()
    except OSError:
        return ""


def birth(fd: int) -> str | None:
    """When an open file was made, to the nanosecond; None where nobody knows."""
    call = _statx()
    buffer = ctypes.create_string_buffer(256)
    if call is None or call(fd, b"", _EMPTY_PATH, _BIRTH, buffer) != 0:
        return None
    (mask,) = struct.unpack_from("@I", buffer, _MASK)
    seconds, nanoseconds = struct.unpack_from("@qI", buffer, _SECONDS)
    return f"{seconds}.{nanoseconds:09}" if mask & _BIRTH else None


@cache
def _statx() -> Any:
    """The system's function; None if there is none.  To look for it costs more than to open a file."""
    try:
        return ctypes.CDLL(None, use_errno=True).statx
    except (OSError, AttributeError):
        return None


def generation(fd: int) -> int | None:
    """The number that some file systems draw for each file that they make; None where there is none."""
    buffer = bytearray(8)
    try:
        fcntl.ioctl(fd, _GET_GENERATION, buffer)
    except OSError:
        return None
    return int.from_bytes(buffer[:4], "little")
