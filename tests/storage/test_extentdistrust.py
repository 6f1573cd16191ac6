# -*- test-case-name: tests.storage.test_extentdistrust -*-
"""Extents that are trusted no more, since a flush has failed."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.logger import capturedLogs

from iscsi_twisted.errors import (
    DeviceError,
    LocalError,
    NotReady,
    OutOfSpace,
    ReadError,
    WriteError,
)
from iscsi_twisted.storage import FileExtent, openrange
from tests.support.devicecontract import SIZE
from tests.support.extents import ExtentCase


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

    def test_nothingInline(self) -> None:
        """While it is opened anew, and when it is closed, nothing goes to the descriptor that it had."""
        self.cachedAnswers(False)
        for end in (FileExtent.reopen, FileExtent.close):
            device = self.opened()
            self.assertIsNone(device.write(0, b"x"))
            self.assertEqual(device.read(0, 1), b"x")
            zeroing: Any = device.zero(100, 10, False)
            ending: Any = end(device)
            self.assertRaises(NotReady, device.read, 0, 1)
            self.assertRaises(NotReady, device.write, 0, b"y")
            self.assertIsNone(self.outcome(ending))
            self.assertIsNone(self.successResultOf(zeroing))
            self.closed(device)

    def test_told(self) -> None:
        """That it was opened anew is logged; whoever opened it hears of nothing if its size is the same."""
        device = self.makeExtent()
        device.open(self.fail)
        self.addCleanup(self.closed, device)
        with capturedLogs() as events:
            self.assertIsNone(self.successResultOf(device.reopen()))
        self.assertEqual([event["event"] for event in events], ["reopened"])

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
