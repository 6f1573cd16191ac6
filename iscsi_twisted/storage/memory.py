# -*- test-case-name: tests.storage.test_memory -*-
"""A block device in memory."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable
from typing import Final

from iscsi_twisted.errors import LocalError, NotReady, OutOfSpace
from iscsi_twisted.interfaces import Buffer, Capabilities
from iscsi_twisted.storage.device import BlockDevice, checkRange, outOfRange

UNRESERVED: Final = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
"""The module has a name for it from Python 3.12 on."""


class MemoryDevice(BlockDevice):
    """
    Bytes in memory, zeros at first, forgotten when it is closed.

    Memory is taken page by page as it is written, and given back by C{discard}.

    @ivar size: bytes.
    """

    def __init__(self, size: int, blockSize: int = 1, *, reserved: bool = True) -> None:
        """
        @param reserved: whether the system has to promise all of the memory when the device is opened;
            otherwise it may be larger than the machine, and the process ends if that is used up.
        """
        if size < 1 or blockSize < 1 or size % blockSize:
            raise LocalError(f"{size} bytes are not one or more whole blocks of {blockSize}")
        self.size = size
        self.blockSize = blockSize
        self._flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | (0 if reserved else UNRESERVED)
        self._memory: mmap.mmap | None = None

    def open(self, changed: Callable[[], None]) -> None:
        """@raise OutOfSpace: if the system does not promise that much memory."""
        try:
            # Private, not shared: only such pages are given back, and read as zeros, by madvise.
            self._memory = mmap.mmap(-1, self.size, self._flags)
        except (OSError, OverflowError) as error:
            raise OutOfSpace(f"{self.size} bytes of memory cannot be had: {error}") from error

    def close(self) -> None:
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def capabilities(self) -> Capabilities:
        return Capabilities(discard=True, zero=True, discardZeroes=True)

    def read(self, offset: int, length: int) -> Buffer:
        end = offset + length
        if not 0 <= offset <= end <= self.size:
            raise outOfRange(self.size, offset, length)
        if self._memory is None:
            raise NotReady
        return self._memory[offset:end]

    def write(self, offset: int, data: Buffer) -> None:
        end = offset + len(data)
        if not 0 <= offset <= end <= self.size:
            raise outOfRange(self.size, offset, len(data))
        if self._memory is None:
            raise NotReady
        self._memory[offset:end] = data

    def discard(self, offset: int, length: int) -> None:
        self.zero(offset, length, True)

    def zero(self, offset: int, length: int, unmap: bool) -> None:
        """Whole pages are given back even if C{unmap} is false: a later write takes them again."""
        checkRange(self.size, offset, length)
        if self._memory is None:
            raise NotReady
        end = offset + length
        first = min(end, -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE)
        last = max(first, end // mmap.PAGESIZE * mmap.PAGESIZE)
        self._memory[offset:first] = bytes(first - offset)
        if last > first:
            self._memory.madvise(mmap.MADV_DONTNEED, first, last - first)
        self._memory[last:end] = bytes(end - last)
