# -*- test-case-name: tests.storage.test_overlayfile -*-
"""The parts of an overlay: what its store begins with, its map, and such a store in a file."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Callable
from typing import Final, NamedTuple

from twisted.internet.defer import Deferred

from iscsi_twisted.errors import DeviceError
from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.storage.extent import FileExtent
from iscsi_twisted.storage.fingerprint import Stamp
from iscsi_twisted.storage.memory import UNRESERVED

GRANULE: Final = 4096
"""Bytes that come from one place: what file systems write, so that they seldom write a part of one."""

PAGE: Final = 4096
"""Bytes of the map that are written at once."""

MAGIC: Final = b"iscsi-twisted overlay 1\n"
HEADER: Final = 4096
"""Bytes before the map: the magic words, the size of the base as eight bytes, what is under way, as one, and
which base it is."""

SETTLED, FORGETTING, COMMITTING = range(3)
"""What is under way: nothing, all changes are being forgotten, or written to the base or a copy of it."""

UNKNOWN: Final = bytes(16)
"""A base that does not tell when it was changed, or one from before that was kept."""

FOREIGN: Final = "is no overlay; name the file of one, or a file that does not exist"


def mapLength(size: int) -> int:
    """Bytes of the map of a device of so many bytes: one for each granule, in whole pages."""
    granules = -(-size // GRANULE)
    return -(-granules // PAGE) * PAGE


def zeros(size: int) -> mmap.mmap:
    """Zeros that take memory only where they are written: the map of a large device is mostly empty."""
    return mmap.mmap(-1, max(size, PAGE), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | UNRESERVED)


class Header(NamedTuple):
    """
    What an overlay knows of itself.

    @ivar size: bytes of its base.
    @ivar state: what is under way.
    @ivar base: when the base was changed last, as L{digest} tells it.
    """

    size: int
    state: int = SETTLED
    base: bytes = UNKNOWN

    def encode(self) -> bytes:
        """As it is stored."""
        fields = MAGIC + self.size.to_bytes(8, "big") + bytes((self.state,)) + self.base
        return fields.ljust(HEADER, b"\0")


def decode(data: Buffer) -> Header | None:
    """
    What the first L{HEADER} bytes of a store say; None if it is a new one.

    @raise DeviceError: if it is something else, without its name.
    """
    data = bytes(data)
    if not any(data):
        return None
    size, state, base = data[24:32], data[32], data[33:49]
    if not data.startswith(MAGIC) or state > COMMITTING or any(data[49:]):
        raise DeviceError(FOREIGN)
    return Header(int.from_bytes(size, "big"), state, base)


def digest(stamp: Stamp) -> bytes:
    """When a base was changed last, in a few bytes; L{UNKNOWN} if it does not tell."""
    return hashlib.sha256(repr(tuple(stamp)).encode()).digest()[: len(UNKNOWN)] if stamp else UNKNOWN


class Held:
    """Granules that are being filled."""

    def __init__(self, first: int, last: int) -> None:
        self.waiters: list[Deferred[None]] = []
        self._first = first
        self._last = last

    def touches(self, first: int, last: int) -> bool:
        """Whether any of these is among them."""
        return first < self._last and self._first < last


class OverlayFile(FileExtent):
    """The store of an overlay in a sparse file of its own."""

    def open(self, changed: Callable[[], None]) -> None:
        """@raise DeviceError: if the file holds something else, which is left alone."""
        try:
            with open(self.path, "rb") as file:
                foreign = file.read(len(MAGIC)) != MAGIC and _hasData(file.fileno())
        except OSError:
            foreign = False  # Whatever is wrong, opening it properly says it better.
        if foreign:
            raise DeviceError(f"{self.path}: {FOREIGN}")
        super().open(changed)


def _hasData(fd: int) -> bool:
    try:
        os.lseek(fd, 0, os.SEEK_DATA)
    except OSError:
        return False
    return True
