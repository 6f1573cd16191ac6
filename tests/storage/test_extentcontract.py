# -*- test-case-name: tests.storage.test_extentcontract -*-
"""Extents keep the contract of block devices, wherever their operations run."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.task import Clock

from iscsi_twisted.storage import Concatenation, FileExtent, Mirror, extent
from iscsi_twisted.storage.pace import Never
from tests.support.devicecontract import SIZE, DeviceContract, ProtectedContract
from tests.support.extents import ExtentCase


class InlineContract(DeviceContract, ExtentCase):
    """A file whose reads and writes are inline."""

    def makeDevice(self) -> Any:
        self.path = self.mktemp()
        return self.makeExtent()

    def settle(self) -> None:
        self.pool.run()


class ThreadedContract(InlineContract):
    """A file whose reads and writes are in threads."""

    def makeDevice(self) -> Any:
        device = super().makeDevice()
        real = device.open

        def openSlow(changed: Any) -> None:
            real(changed)
            device._readPace = device._writePace = Never()

        device.open = openSlow
        return device


class UncachedContract(InlineContract):
    """A file whose reads are answered by the file system only as far as they are cached."""

    def setUp(self) -> None:
        super().setUp()
        self.cachedAnswers(True)
        real, turns = os.preadv, [0]

        def partly(fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
            if not flags:
                return real(fd, buffers, offset)
            turns[0] += 1
            if turns[0] % 3 == 0:
                raise BlockingIOError(errno.EAGAIN, "not cached")
            (buffer,) = buffers
            piece = len(buffer) // (turns[0] % 3)
            return real(fd, [memoryview(buffer)[:piece]], offset) if piece else 0

        self.patch(extent.os, "preadv", partly)


class DurableContract(InlineContract):
    """A file without a write cache."""

    def makeExtent(self, **how: Any) -> FileExtent:
        return super().makeExtent(writeCache=False, **how)


class ReadOnlyContract(ProtectedContract, ExtentCase):
    """A file that is served read-only."""

    def initial(self) -> bytes:
        return bytes(range(256)) * (SIZE // 256)

    def makeDevice(self) -> Any:
        self.path = self.mktemp()
        with open(self.path, "wb") as file:
            file.write(bytes(self.START) + self.initial() + b"beyond")
        return self.makeExtent(readOnly=True)

    def settle(self) -> None:
        self.pool.run()


class CombinedContract(InlineContract):
    """Mirrors of concatenations of several extents of one file."""

    def makeDevice(self) -> Any:
        self.path = self.mktemp()
        parts = [
            self.makeExtent(start=start, length=length)
            for start, length in ((0, 10000), (10000, SIZE - 10000), (200000, SIZE))
        ]
        return Mirror([Concatenation(parts[:2]), parts[2]], reactor=Clock())
