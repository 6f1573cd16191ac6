"""Tests for L{iscsi_twisted.storage.copying}, and what L{FileExtent} makes of it."""

from __future__ import annotations

import errno
import os
from typing import Any

from zope.interface.verify import verifyObject

from iscsi_twisted.errors import LocalError, NotReady, OutOfSpace, ReadError, WriteError, WriteProtected
from iscsi_twisted.interfaces import IRangeCopier
from iscsi_twisted.storage import FileExtent, MemoryDevice, copying, openrange
from tests.support.devicecontract import SIZE
from tests.support.extents import ExtentCase

DATA = bytes(range(251)) * (SIZE // 251 + 1)


class CopyTests(ExtentCase):
    """Copies between two extents of one file system."""

    def setUp(self) -> None:
        """Two extents, each in its own file; the first has data."""
        super().setUp()
        self.source = self.opened()
        self.path = self.mktemp()
        self.destination = self.opened()
        self.put(self.source, DATA[:SIZE])

    def put(self, device: FileExtent, data: bytes) -> None:
        """Write everywhere."""
        device.write(0, data)
        self.pool.run()

    def content(self, device: FileExtent) -> bytes:
        """All bytes of an extent."""
        result: Any = device.read(0, SIZE)
        return bytes(result if isinstance(result, (bytes, bytearray)) else self.outcome(result))

    def copy(self, *arguments: int) -> Any:
        """Copy; what comes of it."""
        return self.outcome(self.destination.copy(self.source, *arguments))

    def test_able(self) -> None:
        """It copies from extents of the same file system, itself among them, and from nothing else."""
        verifyObject(IRangeCopier, self.destination)
        self.assertTrue(self.destination.copiesFrom(self.source))
        self.assertTrue(self.destination.copiesFrom(self.destination))
        self.assertFalse(self.destination.copiesFrom(MemoryDevice(512)))
        self.patch(copying.os, "fstat", lambda fd: os.stat_result((0, 0, fd, 0, 0, 0, 0, 0, 0, 0)))
        self.assertFalse(self.destination.copiesFrom(self.source))

    def test_copied(self) -> None:
        """These bytes are copied and no others, and counted on both sides."""
        reads, writes = self.source.reads, self.destination.writes
        bytesRead, bytesWritten = self.source.bytesRead, self.destination.bytesWritten
        self.assertIsNone(self.copy(100, 300, 1000))
        self.assertEqual(self.source.bytesRead, bytesRead + 1000)
        self.assertEqual(self.destination.bytesWritten, bytesWritten + 1000)
        self.assertEqual(self.content(self.destination), bytes(300) + DATA[100:1100] + bytes(SIZE - 1300))
        self.assertEqual((self.source.reads, self.destination.writes), (reads + 1, writes + 1))

    def test_same(self) -> None:
        """Within one extent, too."""
        self.outcome(self.source.copy(self.source, 0, 2000, 500))
        self.assertEqual(self.content(self.source), DATA[:2000] + DATA[:500] + DATA[2500:SIZE])

    def test_nothing(self) -> None:
        """No bytes take no thread."""
        self.assertIsNone(self.destination.copy(self.source, 0, 0, 0))

    def test_unable(self) -> None:
        """Where the kernel does not copy the bytes are carried, piece by piece."""
        for number in (errno.EXDEV, errno.EOPNOTSUPP, errno.EIO):
            self.failing("copy_file_range", number, copying)
            self.patch(copying, "PIECE", 100)
            self.copy(100, 300, 1000)
            self.assertEqual(self.content(self.destination)[300:1300], DATA[100:1100])

    def test_short(self) -> None:
        """What is copied in part is gone on with."""
        real = os.copy_file_range

        def some(source: int, destination: int, length: int, start: int, offset: int) -> int:
            return real(source, destination, min(length, 7), start, offset)

        self.patch(copying.os, "copy_file_range", some)
        self.copy(0, 0, 100)
        self.assertEqual(self.content(self.destination)[:100], DATA[:100])

    def test_failed(self) -> None:
        """What cannot be read or written is told with its place; a full disk as that."""
        self.failing("copy_file_range", errno.ENOSPC, copying)
        failing = self.destination.copy(self.source, 0, 10, 100)
        self.pool.run()
        self.assertEqual(self.failureResultOf(failing, OutOfSpace).value.offset, 10)
        self.failing("copy_file_range", errno.EXDEV, copying)
        self.failing("pwrite", errno.EIO, openrange)
        failing = self.destination.copy(self.source, 0, 10, 100)
        self.pool.run()
        self.assertEqual(self.failureResultOf(failing, WriteError).value.offset, 10)
        self.failing("preadv", errno.EIO, openrange)
        failing = self.destination.copy(self.source, 20, 10, 100)
        self.pool.run()
        self.assertEqual(self.failureResultOf(failing, ReadError).value.offset, 20)
        self.assertEqual(self.destination.errors, 3)

    def test_cutShort(self) -> None:
        """A source file that has become shorter is told of, and the copy ends."""
        os.truncate(self.source.path, self.START + 50)
        failing = self.destination.copy(self.source, 0, 0, 100)
        self.pool.run()
        self.failureResultOf(failing, ReadError)

    def test_noGap(self) -> None:
        """So is a destination that is too short, where the copy would leave zeros before it."""
        os.truncate(self.destination.path, self.START + 50)
        failing = self.destination.copy(self.source, 0, 60, 100)
        self.pool.run()
        self.assertEqual(self.failureResultOf(failing, WriteError).value.offset, 60)
        self.assertEqual(os.stat(self.destination.path).st_size, self.START + 50)
        self.assertIsNone(self.outcome(self.destination.copy(self.source, 0, 50, 100)))

    def test_refused(self) -> None:
        """What is outside of either, closed or read-only is refused."""
        self.assertRaises(LocalError, self.destination.copy, self.source, SIZE, 0, 1)
        self.assertRaises(LocalError, self.destination.copy, self.source, 0, SIZE, 1)
        self.path = self.source.path
        self.closed(self.source)
        protected = self.opened(readOnly=True)
        self.assertFalse(protected.copiesFrom(self.destination))
        self.assertRaises(WriteProtected, protected.copy, self.destination, 0, 0, 1)
        self.assertRaises(NotReady, self.destination.copy, self.source, 0, 0, 1)

    def test_sourceCloses(self) -> None:
        """A source that is closed meanwhile stays open until the copy has ended."""
        copying = self.destination.copy(self.source, 0, 0, SIZE)
        closing = self.source.close()
        assert closing is not None
        self.assertNoResult(closing)
        self.pool.run()
        self.successResultOf(copying)
        self.pool.run()
        self.successResultOf(closing)
        self.assertEqual(self.content(self.destination), DATA[:SIZE])

    def test_protectedCloses(self) -> None:
        """So does one that has nothing to flush."""
        path, self.path = self.path, self.source.path
        self.closed(self.source)
        self.source, self.path = self.opened(readOnly=True), path
        copying = self.destination.copy(self.source, 0, 0, SIZE)
        closing = self.source.close()
        assert closing is not None
        self.assertNoResult(closing)
        self.pool.run()
        self.successResultOf(copying)
        self.successResultOf(closing)
        self.assertEqual(self.content(self.destination), DATA[:SIZE])

    def test_durable(self) -> None:
        """Without a write cache what was copied is durable when it ends."""
        self.closed(self.destination)
        self.destination = self.opened(writeCache=False)
        synced: list[int] = []
        self.patch(openrange.os, "fdatasync", synced.append)
        self.copy(0, 0, 100)
        self.assertEqual(len(synced), 1)
