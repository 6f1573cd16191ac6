# -*- test-case-name: tests.storage.test_extentsystem -*-
"""Extents with real threads, and on real block device nodes."""

from __future__ import annotations

import fcntl
import threading
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SkipTest, TestCase

from iscsi_twisted.errors import (
    DeviceError,
    InUse,
)
from iscsi_twisted.storage import FileExtent
from iscsi_twisted.storage.pace import Never


class RealThreadTests(TestCase):
    """An extent with its own threads and the real reactor."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.path = self.mktemp()
        self.device = FileExtent(self.path, 0, 1 << 20, reactor=reactor)  # type: ignore[arg-type]
        self.device.open(lambda: None)
        self.addCleanup(self.device.close)

    async def test_sideBySide(self) -> None:
        """Operations in threads run side by side and all arrive; closing ends the threads."""
        self.device._readPace = self.device._writePace = Never()
        writes = [self.device.write(index * 4096, bytes([index]) * 4096) for index in range(64)]
        for write in writes:
            await write  # type: ignore[misc]
        await self.device.flush()  # type: ignore[misc]
        reads = [self.device.read(index * 4096, 4096) for index in range(64)]
        for index, read in enumerate(reads):
            self.assertEqual(await read, bytes([index]) * 4096)  # type: ignore[misc]
        await self.device.zero(0, 1 << 20, True)  # type: ignore[misc]
        self.assertEqual(await self.device.read(0, 1 << 20), bytes(1 << 20))  # type: ignore[misc]
        await self.device.close()  # type: ignore[misc]
        self.assertFalse([thread for thread in threading.enumerate() if "iscsi-storage" in thread.name])

    async def test_slowNeighbour(self) -> None:
        """A device whose calls hang does not delay another one."""
        hang, reactor = threading.Event(), self.device._threads._reactor
        slow = FileExtent(self.mktemp(), 0, 4096, reactor=reactor)
        slow.open(lambda: None)
        stuck = [slow._threads.run(hang.wait, 60.0) for _ in range(20)]
        try:
            await self.device.flush()  # type: ignore[misc]
            self.assertFalse(any(operation.called for operation in stuck))
        finally:
            hang.set()
        for operation in stuck:
            await operation
        slow.close()


class BlockDeviceTests(TestCase):
    """An extent on a real block device node, where there may be one."""

    LOOP_CONTROL, FREE, SET, CLEAR = "/dev/loop-control", 0x4C82, 0x4C00, 0x4C01

    def setUp(self) -> None:
        self.path = self.mktemp()
        with open(self.path, "wb") as file:
            file.truncate(1 << 20)
        try:
            self.node = self.attach()
        except OSError as error:
            raise SkipTest(f"no loop device can be had: {error}") from error

    def attach(self) -> str:
        """Make a block device of the file, until the test ends."""
        with open(self.LOOP_CONTROL, "r+b", buffering=0) as control:
            number = fcntl.ioctl(control.fileno(), self.FREE)
        node = f"/dev/loop{number}"
        with open(node, "r+b", buffering=0) as loop, open(self.path, "r+b") as file:
            fcntl.ioctl(loop.fileno(), self.SET, file.fileno())
        self.addCleanup(self.detach, node)
        return node

    def detach(self, node: str) -> None:
        """Let the block device go."""
        with open(node, "rb", buffering=0) as loop:
            fcntl.ioctl(loop.fileno(), self.CLEAR)

    def test_block(self) -> Any:
        """Its size is found, all I/O is in threads, and zeroing and discarding work."""
        return ensureDeferred(self.exercise())

    async def exercise(self) -> None:
        """The test above."""
        from twisted.internet import reactor

        device: Any = FileExtent(self.node, 512, reactor=reactor)  # type: ignore[arg-type]
        device.open(lambda: None)
        try:
            self.assertEqual(device.size, (1 << 20) - 512)
            await device.write(0, b"x" * 20000)
            await device.zero(100, 10000, False)
            await device.flush()
            whole = await device.read(0, 20001)
            self.assertEqual(whole, b"x" * 100 + bytes(10000) + b"x" * 9900 + b"\0")
            await device.discard(0, 20000)
            self.assertEqual(device.allocated(0, 100), [(100, True)])
            self.assertEqual(device.threaded, 4 + device.capabilities().discard)
            self.assertFalse(device.capabilities().discardZeroes)
            with self.assertRaises(InUse):
                FileExtent(self.node, 0, 1024, reactor=reactor).open(lambda: None)  # type: ignore[arg-type]
            with self.assertRaises(DeviceError) as caught:
                FileExtent(self.node, 1 << 20, 512, reactor=reactor).open(lambda: None)  # type: ignore[arg-type]
            self.assertIn("there are only 1048576", str(caught.exception))
        finally:
            await device.close()
