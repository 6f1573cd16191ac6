# -*- test-case-name: tests.storage.test_beneath -*-
"""
What a block device lies on: a partition on its disk, a loop device on its file.

The same bytes may be reached under both names, and a lock on the one says nothing to whoever opens the other.
So the range below is locked too, all the way down.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from typing import Final

import attrs

from iscsi_twisted.storage.locks import holder, lockRange

SYSTEM: Final = "/sys/dev/block"
NODES: Final = "/dev"

SECTOR: Final = 512
"""The unit in which the system tells where partitions begin, whatever the disk's blocks are."""

_GET_STATUS: Final = 0x4C05
_LOOP: Final = struct.Struct("@QQQQ")
"""C{LOOP_GET_STATUS64}: it begins with the file's device, inode, device number and where the loop begins."""

_ROOM: Final = 256
DEPTH: Final = 8
"""Levels that are looked at."""


@attrs.frozen
class Place:
    """
    Where a range lies one level below.

    @ivar path: of the file or node there.
    @ivar start: the first byte of it.
    @ivar exclusive: whether to lock it as a writer does.  A disk is not opened for writing because of its
        partition: when that is closed the system looks for partitions anew.
    """

    path: str
    start: int
    exclusive: bool


class Occupied(Exception):
    """What is below is used by somebody else; tells by whom."""


def below(fd: int, start: int) -> Place | None:
    """
    What an open node lies on.

    @return: None if that is nothing that can be locked, or nobody knows.
    """
    status = os.fstat(fd)
    if not stat.S_ISBLK(status.st_mode):
        return None
    place = f"{SYSTEM}/{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    first = _line(f"{place}/start")
    if first and _line(f"{place}/partition"):
        name = os.path.basename(os.path.dirname(os.path.realpath(place)))
        return Place(f"{NODES}/{name.replace('!', '/')}", start + int(first) * SECTOR, False)
    path = _line(f"{place}/loop/backing_file")
    if not path:
        return None
    buffer = bytearray(_ROOM)
    try:
        fcntl.ioctl(fd, _GET_STATUS, buffer)
        _, inode, _, offset = _LOOP.unpack_from(buffer)
        # Another file may have this name by now.
        return Place(path, start + offset, True) if os.stat(path).st_ino == inode else None
    except OSError:
        return None


def _line(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return os.fsdecode(file.read(4096)).rstrip("\n")
    except OSError:
        return ""


def lockBelow(fd: int, start: int, size: int, *, shared: bool) -> tuple[int, ...]:
    """
    Lock what a range of an open node lies on.

    @param shared: as a reader beside other readers.
    @return: descriptors that hold the locks; to be closed with the node.
    @raise Occupied: if others use a part of it.
    """
    held: list[int] = []
    try:
        for place, one in _levels(fd, start, shared, held):
            try:
                lockRange(one, place.start, size, shared=shared or not place.exclusive)
            except BlockingIOError:
                raise Occupied(_told(one, place, size)) from None
    except BaseException:
        for one in held:
            os.close(one)
        raise
    return tuple(held)


def _levels(fd: int, start: int, shared: bool, held: list[int]) -> Iterator[tuple[Place, int]]:
    """Each level that can be opened, and its descriptor, which is put with the others."""
    for _ in range(DEPTH):
        place = below(fd, start)
        if place is None:
            return
        writes = place.exclusive and not shared
        try:
            fd = os.open(place.path, (os.O_RDWR if writes else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            return  # Who may not open it does not use it under its own name either.
        held.append(fd)
        start = place.start
        yield place, fd


def _told(fd: int, place: Place, size: int) -> str:
    found = holder(fd, place.start, size)
    who = f"process {found[2]}" if found is not None and found[2] > 0 else "another extent or process"
    return (
        f"lies in {place.path}, bytes {place.start} to {place.start + size - 1}, and {who} uses these;"
        " end that use, or give each its own range"
    )
