# -*- test-case-name: tests.storage.test_extent -*-
"""Tests for L{iscsi_twisted.storage.extent}."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.defer import CancelledError

from iscsi_twisted.errors import (
    InUse,
    LocalError,
    NotReady,
    OutOfSpace,
    ReadError,
    WriteError,
    WriteProtected,
)
from iscsi_twisted.storage import extent, extentlife, opening, openrange
from iscsi_twisted.storage.pace import LONG, REST, TRUST, Never, Pace, Trust
from tests.support.devicecontract import SIZE
from tests.support.extents import ExtentCase


class LifeTests(ExtentCase):
    """Opening and closing."""

    def test_nonsense(self) -> None:
        """An extent needs a place and a length."""
        self.assertRaises(LocalError, self.makeExtent, start=-1)
        self.assertRaises(LocalError, self.makeExtent, length=0)

    def test_notOpen(self) -> None:
        """Before it is open, and after it was closed, nothing can be done, and nothing has been."""
        device = self.makeExtent()
        for _ in range(2):
            for method, arguments in (
                (device.read, (0, 1)),
                (device.write, (0, b"x")),
                (device.flush, ()),
                (device.discard, (0, 1)),
                (device.zero, (0, 1, True)),
                (device.allocated, (0, 1)),
                (device.space, ()),
                (device.capabilities, ()),
            ):
                self.assertRaises(NotReady, method, *arguments)
            device.open(lambda: None)
            self.assertIsNone(device.close())
        self.assertIsNone(device.close())

    def test_space(self) -> None:
        """What the file system tells of the range comes from a thread; a block device tells nothing."""
        device = self.opened()
        self.assertTrue(device.capabilities().space)
        used, available = self.outcome(device.space())
        self.assertTrue(0 <= used <= device.size and available > 0)
        device._ready().isBlock = True
        self.assertEqual((device.capabilities().space, device.space()), (False, None))

    def test_openTwice(self) -> None:
        """It is opened once."""
        device = self.opened()
        self.assertRaises(LocalError, device.open, lambda: None)

    def test_sizeLearnt(self) -> None:
        """Without a length the size is known when it is open."""
        with open(self.path, "wb") as file:
            file.write(b"x" * 7000)
        device = self.opened(length=None)
        self.assertEqual((device.size, device.start, str(device)), (2000, 5000, self.path))

    def test_closeReleases(self) -> None:
        """While it is open nobody else can have the range; afterwards they can."""
        device = self.opened()
        other = self.makeExtent(start=self.START + 1)
        self.assertRaises(InUse, other.open, lambda: None)
        device.close()
        self.assertIsNone(other.open(lambda: None))
        other.close()

    def test_closeFlushes(self) -> None:
        """What was written is flushed before it closes; then the range is free."""
        device = self.opened()
        device.write(0, b"x")
        result = device.close()
        flushed: list[int] = []
        real = os.fdatasync
        self.patch(openrange.os, "fdatasync", lambda fd: (flushed.append(fd), real(fd)))
        self.assertNoResult(result)
        self.assertIsNone(self.outcome(result))
        self.assertEqual(len(flushed), 1)
        self.opened()

    def test_closeWaits(self) -> None:
        """Operations that are running end first, and well."""
        device = self.opened()
        reading, zeroing = device.allocated(0, 10), device.zero(0, 10, False)
        result: Any = device.close()
        self.assertRaises(NotReady, device.read, 0, 1)
        self.pool.step()
        self.assertEqual(sum(count for count, _ in self.successResultOf(reading)), 10)  # type: ignore[arg-type]
        self.assertNoResult(result)
        self.pool.run()
        self.assertIsNone(self.successResultOf(zeroing))  # type: ignore[arg-type]
        self.assertIsNone(self.successResultOf(result))

    def test_closeWaitsOnly(self) -> None:
        """Where nothing was written closing waits for what is running, and flushes nothing."""
        device = self.opened()
        holes: Any = device.allocated(0, 10)
        self.failing("fdatasync", errno.EIO, openrange)
        result: Any = device.close()
        self.assertNoResult(result)
        self.pool.run()
        self.successResultOf(holes)
        self.assertIsNone(self.successResultOf(result))

    def test_closeFails(self) -> None:
        """If the flush fails that is told, but the file is let go."""
        device = self.opened()
        device.write(0, b"x")
        self.failing("fdatasync", errno.EIO, openrange)
        result: Any = device.close()
        self.pool.run()
        self.failureResultOf(result, WriteError)
        self.opened()

    def test_unlocked(self) -> None:
        """An extent tells where there are no locks."""
        self.assertFalse(self.opened().unlocked)
        self.patch(opening, "lockRange", lambda *arguments, **more: False)
        self.assertTrue(self.opened().unlocked)

    def test_capabilities(self) -> None:
        """Capabilities tell the write cache as it is, and holes of a file read as zeros."""
        capabilities = self.opened().capabilities()
        self.assertTrue(capabilities.volatileCache and capabilities.allocated)
        self.assertEqual(capabilities.discard, capabilities.discardZeroes)
        self.assertFalse(self.opened(start=200000, writeCache=False).capabilities().volatileCache)


class ReadTests(ExtentCase):
    """Where reads run."""

    def test_trust(self) -> None:
        """Where the file system tells what is cached it is asked, until that was long the case."""
        self.cachedAnswers(True)
        device = self.opened()
        asked: list[int] = []
        real = extent.os.preadv
        self.patch(extent.os, "preadv", lambda *arguments: (asked.append(1), real(*arguments))[1])
        for _ in range(TRUST + 5):
            self.assertEqual(device.read(0, 3), bytes(3))
        self.assertEqual(len(asked), TRUST)
        self.assertEqual((device.reads, device.bytesRead), (TRUST + 5, 3 * (TRUST + 5)))
        self.assertEqual(device.threaded, 0)

    def test_notCached(self) -> None:
        """What is not cached is read in a thread, and only what is missing."""
        self.cachedAnswers(True)
        device = self.opened()
        device.write(0, b"abcdefgh")
        real = os.preadv

        def half(fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
            self.patch(extent.os, "preadv", rest)
            return real(fd, [memoryview(buffers[0])[:4]], offset)

        def rest(fd: int, buffers: Any, offset: int) -> int:
            self.assertEqual((len(buffers[0]), offset), (4, self.START + 4))
            return real(fd, buffers, offset)

        self.patch(extent.os, "preadv", half)
        self.assertEqual(self.outcome(device.read(0, 8)), b"abcdefgh")
        self.assertEqual((device.reads, device.bytesRead, device.threaded), (1, 8, 1))

    def test_lateOnce(self) -> None:
        """A plain read that came late ends trust in the cache."""
        self.cachedAnswers(True)
        device = self.opened()
        for _ in range(TRUST):
            device.read(0, 1)
        self.assertTrue(device._readPace.inline)
        self.clock.cost = 0.01
        self.assertEqual(device.read(0, 1), b"\0")
        self.assertFalse(device._readPace.inline)

    def test_probe(self) -> None:
        """The file system is asked once, when the extent is opened, whether it tells what is cached."""
        for error, kind in (
            (BlockingIOError(errno.EAGAIN, ""), Trust),
            (OSError(errno.EOPNOTSUPP, ""), Pace),
            (None, Trust),
        ):

            def probe(*arguments: Any, error: Any = error) -> int:
                if error is not None:
                    raise error
                return 1

            patch = self.patch(extent.os, "preadv", probe)
            device = self.opened()
            patch.restore()
            self.assertIsInstance(device._readPace, kind)
            self.doCleanups()
        self.patch(extentlife, "NOWAIT", 0)
        self.assertIsInstance(self.opened()._readPace, Pace)

    def test_slow(self) -> None:
        """Elsewhere a read that took long sends the next ones to threads, for a while."""
        self.cachedAnswers(False)
        device = self.opened()
        self.clock.cost = LONG * 2
        self.assertEqual(device.read(0, 2), b"\0\0")
        self.clock.cost = 0.0
        self.assertEqual(self.outcome(device.read(0, 2)), b"\0\0")
        self.clock.now += LONG * 2 * REST + 1
        self.assertEqual(device.read(0, 2), b"\0\0")
        self.assertEqual((device.reads, device.threaded), (3, 1))

    def test_cutShort(self) -> None:
        """The end of the file inside of the extent is an error that a thread tells."""
        for answer in (True, False):
            self.cachedAnswers(answer)
            device = self.opened()
            os.truncate(self.path, self.START + 10)
            result: Any = device.read(8, 4)
            self.pool.run()
            self.assertEqual(self.failureResultOf(result, ReadError).value.offset, 10)
            self.assertEqual((device.errors, device.reads), (1, 0))
            self.doCleanups()

    def test_error(self) -> None:
        """An error is told by a thread, with the offset."""
        self.cachedAnswers(False)
        device = self.opened()
        self.failing("pread", errno.EIO)
        self.failing("preadv", errno.EIO)
        result: Any = device.read(100, 5)
        self.pool.run()
        self.assertEqual(self.failureResultOf(result, ReadError).value.offset, 100)
        self.assertEqual(device.errors, 1)

    def test_missedOnce(self) -> None:
        """One read that was not cached begins the row anew."""
        self.cachedAnswers(True)
        device = self.opened()
        for _ in range(TRUST - 1):
            device.read(0, 1)
        real = os.preadv

        def miss(fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
            patch.restore()
            raise BlockingIOError(errno.EAGAIN, "")

        patch = self.patch(extent.os, "preadv", miss)
        self.outcome(device.read(0, 1))
        self.patch(extent.os, "preadv", lambda fd, buffers, offset, flags=0: real(fd, buffers, offset))
        device.read(0, 1)
        self.assertFalse(device._readPace.inline)

    def test_slowInThread(self) -> None:
        """While threads take long, inline is not tried."""
        self.cachedAnswers(False)
        device = self.opened()
        self.clock.cost = 0.1
        device.read(0, 1)
        result = device.read(0, 1)
        self.clock.now += 0.1 * REST - 0.1
        self.outcome(result)
        self.clock.now += 0.3
        self.clock.cost = 0.0
        self.outcome(device.read(0, 1))

    def test_cancel(self) -> None:
        """A cancelled read is not counted as an error."""
        device = self.opened()
        device._readPace = Never()
        result: Any = device.read(0, 1)
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual(device.errors, 0)


class WriteTests(ExtentCase):
    """Where writes run."""

    def content(self) -> bytes:
        """What the file holds in the extent."""
        with open(self.path, "rb") as file:
            file.seek(self.START)
            return file.read()

    def test_inline(self) -> None:
        """A write that is quick is inline, and counted."""
        device = self.opened()
        self.assertIsNone(device.write(3, b"abc"))
        self.assertEqual((device.writes, device.bytesWritten, device.threaded), (1, 3, 0))
        self.assertEqual(self.content()[:7], b"\0\0\0abc\0")

    def test_slow(self) -> None:
        """One that took long sends the next ones to threads; that is over after a while."""
        device = self.opened()
        self.clock.cost = 0.1
        self.assertIsNone(device.write(0, b"a"))
        self.clock.cost = 0.0
        self.assertIsNone(self.outcome(device.write(1, b"b")))
        self.clock.now += 0.1 * REST + 1
        self.assertIsNone(device.write(2, b"c"))
        self.assertEqual(self.content()[:4], b"abc\0")
        self.assertEqual((device.writes, device.bytesWritten, device.threaded), (3, 3, 1))

    def test_slowInThread(self) -> None:
        """While threads take long, inline is not tried."""
        device = self.opened()
        self.clock.cost = 0.1
        device.write(0, b"a")
        result = device.write(0, b"a")
        self.clock.now += 0.1 * REST - 0.1
        self.outcome(result)
        self.clock.now += 0.3
        self.clock.cost = 0.0
        self.outcome(device.write(0, b"a"))

    def test_short(self) -> None:
        """What a short write left over is written in a thread."""
        device = self.opened()
        real = os.pwrite

        def short(fd: int, data: Any, offset: int) -> int:
            patch.restore()
            return real(fd, data[:2], offset)

        patch = self.patch(extent.os, "pwrite", short)
        result = device.write(0, b"abcde")
        self.assertEqual(self.content()[:6], b"ab\0\0\0\0")
        self.outcome(result)
        self.assertEqual(self.content()[:6], b"abcde\0")
        self.assertEqual((device.writes, device.bytesWritten), (1, 5))

    def test_full(self) -> None:
        """A full file system is told by a thread, with the offset."""
        device = self.opened()
        self.failing("pwrite", errno.ENOSPC)
        result: Any = device.write(7, b"abcde")
        self.pool.run()
        self.assertEqual(self.failureResultOf(result, OutOfSpace).value.offset, 7)
        self.assertEqual((device.errors, device.writes), (1, 0))

    def test_durable(self) -> None:
        """Without a write cache every write is in a thread, even after an hour of quick ones."""
        device = self.opened(writeCache=False)
        for _ in range(3):
            self.clock.now += 3600
            self.outcome(device.write(0, b"x"))
        self.assertEqual(device.threaded, 3)

    def test_readOnly(self) -> None:
        """A read-only extent refuses, and needs no flush."""
        self.opened().close()
        device = self.opened(readOnly=True)
        self.assertRaises(WriteProtected, device.write, 0, b"x")
        self.assertIsNone(device.flush())

    def test_neverGrows(self) -> None:
        """A write beyond the end is refused before anything is written."""
        device = self.opened()
        self.assertRaises(LocalError, device.write, SIZE - 1, b"xy")
        self.assertEqual(os.stat(self.path).st_size, self.START + SIZE)
        self.assertEqual(self.content(), bytes(SIZE))


class OtherTests(ExtentCase):
    """Flushes, discards, zeroing, and holes."""

    def test_counters(self) -> None:
        """Each is done in a thread and counted when it has ended."""
        device = self.opened()
        for result in (device.flush(), device.zero(0, 10, True), device.zero(0, 10, False)):
            self.assertIsNone(self.outcome(result))
        self.assertEqual((device.flushes, device.zeroes, device.threaded), (1, 2, 3))

    def test_discard(self) -> None:
        """A discard gives storage back where that is possible; elsewhere nothing happens, as promised."""
        device = self.opened()
        device.write(0, b"x" * SIZE)
        if device.capabilities().discard:
            before = os.stat(self.path).st_blocks
            self.outcome(device.flush())
            self.assertIsNone(self.outcome(device.discard(0, SIZE)))
            self.assertLess(os.stat(self.path).st_blocks, max(before, 2 * SIZE // 512))
            self.assertEqual(device.discards, 1)
        opened: Any = device._range
        opened.abilities = opened.abilities._replace(punch=False)
        self.assertFalse(device.capabilities().discard)
        self.assertIsNone(device.discard(0, SIZE))

    def test_abilityLost(self) -> None:
        """If the system refuses what it had promised that is told as a change."""
        told: list[int] = []
        device = self.makeExtent()
        device.open(lambda: told.append(1))
        self.addCleanup(self.closed, device)
        opened: Any = device._range
        opened.abilities = opened.abilities._replace(punch=True, zero=False)

        def refuse(*arguments: object) -> None:
            raise OSError(errno.EOPNOTSUPP, "no")

        self.patch(openrange, "punchHole", refuse)
        device.write(0, b"x" * 10)
        self.assertIsNone(self.outcome(device.discard(0, 10)))
        self.assertEqual(told, [1])
        self.assertFalse(device.capabilities().discard)
        self.assertEqual(bytes(device.read(0, 10)), bytes(10))  # type: ignore[arg-type]

    def test_nothingLost(self) -> None:
        """What changes nothing of what the extent can do is not told as a change."""
        device = self.makeExtent()
        device.open(self.fail)
        self.addCleanup(self.closed, device)
        self.assertIsNone(self.outcome(device.flush()))

    def test_flushFails(self) -> None:
        """A flush that failed is an error, and so is every later one."""
        device = self.opened()
        self.failing("fdatasync", errno.EIO, openrange)
        first: Any = device.flush()
        self.pool.run()
        self.failureResultOf(first, WriteError)
        self.patch(openrange.os, "fdatasync", lambda fd: None)
        second: Any = device.flush()
        self.pool.run()
        self.failureResultOf(second, WriteError)
        self.assertEqual((device.errors, device.flushes), (2, 0))

    def test_holes(self) -> None:
        """A new file is one hole; what was written is data."""
        device = self.opened(start=0)
        self.assertEqual(self.outcome(device.allocated(0, SIZE)), [(SIZE, False)])
        device.write(0, b"x")
        self.assertTrue(self.outcome(device.allocated(0, 1))[0][1])
