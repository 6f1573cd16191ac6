# -*- test-case-name: tests.storage.test_extent -*-
"""Tests for L{iscsi_twisted.storage.extent}."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.logger import capturedLogs

from iscsi_twisted.errors import (
    DeviceError,
    InUse,
    LocalError,
    NotReady,
    OutOfSpace,
    ReadError,
    WriteError,
    WriteProtected,
)
from iscsi_twisted.storage import FileExtent, extent, extentlife, opening, openrange
from iscsi_twisted.storage.extentlife import LOOK
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


class DistrustTests(ExtentCase):
    """What becomes of an extent whose flush has failed."""

    def distrusted(self, **how: Any) -> FileExtent:
        """One whose flush has failed."""
        device = self.opened(**how)
        device.write(0, b"x" * 10)
        self.failing("fdatasync", errno.EIO, openrange)
        result: Any = device.flush()
        self.pool.run()
        self.failureResultOf(result, WriteError)
        self.patch(openrange.os, "fdatasync", lambda fd: None)
        return device

    def test_everything(self) -> None:
        """Reads, writes and all else fail, naming their places, and nothing reaches the file."""
        device = self.distrusted()
        for kind, method, arguments in (
            (ReadError, device.read, (7, 1)),
            (WriteError, device.write, (7, b"y")),
            (WriteError, device.zero, (7, 1, False)),
            (WriteError, device.discard, (7, 1)),
            (ReadError, device.allocated, (7, 1)),
        ):
            error: Any = self.assertRaises(kind, method, *arguments)
            self.assertEqual(error.offset, 7)
            self.assertIn("until the extent is opened anew", str(error))
        with open(self.path, "rb") as file:
            file.seek(self.START)
            self.assertEqual(file.read(20), b"x" * 10 + bytes(10))
        self.assertEqual(device.measure(), False)

    def test_durable(self) -> None:
        """Without a write cache, too: the flush after zeroing is one."""
        device = self.opened(writeCache=False)
        self.failing("fdatasync", errno.EIO, openrange)
        result: Any = device.zero(0, 10, True)
        self.pool.run()
        self.failureResultOf(result, WriteError)
        self.assertRaises(ReadError, device.read, 0, 1)

    def test_space(self) -> None:
        """If it failed for lack of space that is said."""
        device = self.opened()
        self.failing("fdatasync", errno.ENOSPC, openrange)
        result: Any = device.flush()
        self.pool.run()
        self.failureResultOf(result, OutOfSpace)

    def test_reopened(self) -> None:
        """Opened anew it works, and forgets what was only in the cache."""
        device = self.distrusted()
        advice: list[tuple[int, ...]] = []
        self.patch(openrange.os, "posix_fadvise", lambda *arguments: advice.append(arguments[1:]))
        self.assertIsNone(self.outcome(device.reopen()))
        self.assertEqual(advice, [(self.START, SIZE, os.POSIX_FADV_DONTNEED)])
        device.write(10, b"y")
        self.assertIsNone(self.outcome(device.flush()))
        self.assertEqual(bytes(device.read(0, 11)), b"x" * 10 + b"y")  # type: ignore[arg-type]
        self.assertRaises(LocalError, device.open, lambda: None)

    def test_closed(self) -> None:
        """Closed and opened it works as well, and what was only in the cache is forgotten."""
        device = self.distrusted()
        advice: list[tuple[int, ...]] = []
        self.patch(openrange.os, "posix_fadvise", lambda *arguments: advice.append(arguments[1:]))
        closing: Any = device.close()
        self.pool.run()
        self.failureResultOf(closing, WriteError)
        self.assertEqual(advice, [(self.START, SIZE, os.POSIX_FADV_DONTNEED)])
        device.open(lambda: None)
        self.assertEqual(bytes(device.read(0, 10)), b"x" * 10)  # type: ignore[arg-type]

    def test_waits(self) -> None:
        """It waits for what is running, is not ready meanwhile, and flushes what it can."""
        device = self.opened()
        device.write(0, b"x")
        zeroing: Any = device.zero(100, 10, False)
        result = device.reopen()
        self.assertRaises(NotReady, device.read, 0, 1)
        self.pool.step()
        self.assertIsNone(self.successResultOf(zeroing))
        self.assertNoResult(result)
        self.assertIsNone(self.outcome(result))
        self.assertEqual(bytes(device.read(0, 1)), b"x")  # type: ignore[arg-type]

    def test_size(self) -> None:
        """If the file has another size by now that is told."""
        with open(self.path, "wb") as file:
            file.write(bytes(self.START + 1000))
        told: list[int] = []
        device = self.makeExtent(length=None)
        device.open(lambda: told.append(device.size))
        self.addCleanup(self.closed, device)
        os.truncate(self.path, self.START + 700)
        self.assertIsNone(self.successResultOf(device.reopen()))
        self.assertEqual(told, [700])

    def test_closedMeanwhile(self) -> None:
        """One that is closed before it was opened anew stays closed, and lets the file go."""
        device = self.opened()
        device.allocated(0, 10)
        result = device.reopen()
        self.assertIsNone(device.close())
        self.pool.run()
        self.assertIsNone(self.successResultOf(result))
        self.assertRaises(NotReady, device.read, 0, 1)
        self.opened()

    def test_notOpen(self) -> None:
        """What is not open cannot be opened anew."""
        self.assertRaises(NotReady, self.makeExtent().reopen)

    def test_neverMade(self) -> None:
        """Opening anew makes no file and none longer; where one would have to be, all goes on as it was."""
        device = self.opened()
        device.write(0, b"x" * 10)
        os.rename(self.path, self.path + ".away")
        error = self.assertRaises(NotReady, device.reopen)
        self.assertEqual(str(error), f"{self.path}: does not exist")
        self.assertFalse(os.path.exists(self.path))
        os.rename(self.path + ".away", self.path)
        os.truncate(self.path, self.START + 10)
        error = self.assertRaises(DeviceError, device.reopen)
        self.assertIn(f"lengthen the file to {self.START + SIZE}", str(error))
        self.assertEqual(bytes(device.read(0, 10)), b"x" * 10)  # type: ignore[arg-type]

    def test_vanishes(self) -> None:
        """One that vanishes while it is opened anew is not made either, and can be tried again."""
        device = self.opened()
        zeroing: Any = device.zero(100, 10, False)
        result = device.reopen()
        os.rename(self.path, self.path + ".away")
        self.pool.run()
        self.assertIsNone(self.successResultOf(zeroing))
        self.failureResultOf(result, NotReady)
        self.assertFalse(os.path.exists(self.path))
        self.assertRaises(NotReady, device.read, 0, 1)
        os.rename(self.path + ".away", self.path)
        self.assertIsNone(self.successResultOf(device.reopen()))
        self.assertEqual(bytes(device.read(0, 1)), b"\0")  # type: ignore[arg-type]


class GrowthTests(ExtentCase):
    """Files that grow while they are served."""

    def test_grown(self) -> None:
        """An extent to the end of its file takes what is new when it is asked to look, and tells so once."""
        with open(self.path, "wb") as file:
            file.write(bytes(self.START + 1000))
        told: list[int] = []
        device = self.makeExtent(length=None)
        device.open(lambda: told.append(device.size))
        self.addCleanup(self.closed, device)
        self.assertFalse(device.measure())
        os.truncate(self.path, self.START + 5000)
        self.assertTrue(device.measure())
        self.assertFalse(device.measure())
        self.assertEqual(told, [5000])
        device.write(4000, b"x" * 1000)
        self.assertEqual(device.read(4999, 1), b"x")

    def test_takenByOthers(self) -> None:
        """If others use what is new the extent stays as it is."""
        with open(self.path, "wb") as file:
            file.write(bytes(self.START + 1000))
        device = self.opened(length=None)
        self.opened(start=self.START + 1000, length=4000)
        self.assertRaises(DeviceError, device.measure)
        self.assertEqual(device.size, 1000)

    def test_fixed(self) -> None:
        """An extent with a length of its own never grows."""
        device = self.opened(length=512)
        os.truncate(self.path, 1 << 20)
        self.assertFalse(device.measure())


class ShrunkTests(ExtentCase):
    """Files that are cut short while they are served."""

    def cut(self, device: FileExtent, left: int) -> None:
        """Cut its file, and let some time pass."""
        os.truncate(self.path, self.START + left)
        self.clock.now += LOOK

    def written(self, device: FileExtent, offset: int, data: bytes) -> Any:
        """What becomes of a write that has to go to a thread."""
        result: Any = device.write(offset, data)
        assert result is not None
        self.pool.run()
        return result

    def test_noGap(self) -> None:
        """A write that would make zeros of what is missing fails, and that is told once."""
        device = self.opened()
        device.write(0, b"x" * 1000)
        self.cut(device, 100)
        with capturedLogs() as events:
            for _ in range(2):
                failure = self.failureResultOf(self.written(device, 200, b"y"), WriteError)
                self.assertEqual(failure.value.offset, 200)
        told = [event for event in events if event.get("event") == "shrunk"]
        self.assertEqual([(each["left"], each["size"]) for each in told], [(100, SIZE)])
        self.assertEqual((device.shrunk, os.stat(self.path).st_size), (True, self.START + 100))
        self.assertEqual((device.errors, device.writes), (2, 1))

    def test_healed(self) -> None:
        """What is written from the end on makes the file whole; then all is inline again."""
        device = self.opened()
        device.write(0, b"x" * 1000)
        self.cut(device, 100)
        self.successResultOf(self.written(device, 100, b"y" * 100))
        self.assertTrue(device.shrunk)
        self.successResultOf(self.written(device, 200, b"y" * (SIZE - 200)))
        self.successResultOf(self.written(device, 0, b"z"))
        self.assertFalse(device.shrunk)
        self.assertIsNone(device.write(1, b"z"))
        self.assertEqual(bytes(device.read(0, 102)), b"zz" + b"x" * 98 + b"yy")  # type: ignore[arg-type]

    def test_notAlways(self) -> None:
        """The system is asked for the length now and then, not before each write."""
        device = self.opened()
        asked: list[int] = []
        real = os.lseek
        self.patch(extent.os, "lseek", lambda *arguments: (asked.append(1), real(*arguments))[1])
        for _ in range(5):
            device.write(0, b"x")
        self.assertEqual(len(asked), 1)
        self.clock.now += LOOK
        device.write(0, b"x")
        self.assertEqual(len(asked), 2)

    def test_unknown(self) -> None:
        """If the system does not tell, a thread finds out why."""
        device = self.opened()
        self.failing("lseek", errno.EIO)
        self.failureResultOf(self.written(device, 0, b"y"), OSError)

    def test_distrusted(self) -> None:
        """A file that is whole again does not end distrust."""
        device = self.opened()
        self.cut(device, 100)
        device.examine()
        self.failing("fdatasync", errno.EIO, openrange)
        result: Any = device.flush()
        self.pool.run()
        self.failureResultOf(result, WriteError)
        os.truncate(self.path, self.START + SIZE)
        device.examine()
        self.assertEqual((device.shrunk, bool(device.distrusted)), (False, True))
        self.assertRaises(WriteError, device.write, 0, b"x")


class DisplacedTests(ExtentCase):
    """Files that are not what their names lead to any more."""

    def told(self, device: FileExtent) -> list[Any]:
        """What it tells when it looks."""
        with capturedLogs() as events:
            device.examine()
        return [event["event"] for event in events]

    def test_exchanged(self) -> None:
        """Another file of that name is told once; the old one is served, until the extent is opened anew."""
        device = self.opened()
        device.write(0, b"old")
        self.assertEqual((self.told(device), device.displaced), ([], ""))
        with open(self.path + ".new", "wb") as file:
            file.write(bytes(self.START) + b"new".ljust(SIZE, b"-"))
        os.rename(self.path + ".new", self.path)
        self.assertEqual((self.told(device), self.told(device)), (["displaced"], []))
        self.assertEqual(device.displaced, "another file has that name now")
        self.assertEqual(bytes(device.read(0, 3)), b"old")  # type: ignore[arg-type]
        self.outcome(device.reopen())
        self.assertEqual((bytes(device.read(0, 3)), device.displaced), (b"new", ""))  # type: ignore[arg-type]

    def test_removed(self) -> None:
        """So is a file that has no name any more, and one that has it again."""
        device = self.opened()
        os.rename(self.path, self.path + ".away")
        self.assertEqual((self.told(device), self.told(device)), (["displaced"], []))
        self.assertEqual(device.displaced, "there is no file of that name any more")
        os.rename(self.path + ".away", self.path)
        self.assertEqual((self.told(device), self.told(device)), (["replaced"], []))
        self.assertEqual(device.displaced, "")

    def test_closed(self) -> None:
        """What is not open has nothing to look at."""
        self.assertEqual(self.told(self.makeExtent()), [])
