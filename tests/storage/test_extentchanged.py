# -*- test-case-name: tests.storage.test_extentchanged -*-
"""Extents whose files are grown, cut short, exchanged or removed while they are served."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.logger import capturedLogs

from iscsi_twisted.errors import (
    DeviceError,
    WriteError,
)
from iscsi_twisted.storage import FileExtent, extent, openrange
from iscsi_twisted.storage.extentlife import LOOK
from tests.support.devicecontract import SIZE
from tests.support.extents import ExtentCase


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
        with capturedLogs() as events:
            device.examine()
            device.examine()
        self.assertEqual([(event["event"], event["left"]) for event in events], [("shrunk", 100)])
        self.assertTrue(device.shrunk)
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

    def test_nothingLeft(self) -> None:
        """A file that ends before the extent begins has nothing left of it."""
        device = self.opened()
        os.truncate(self.path, 1)
        with capturedLogs() as events:
            device.examine()
        self.assertEqual([event["left"] for event in events], [0])

    def test_closed(self) -> None:
        """What is not open has nothing to look at."""
        self.assertEqual(self.told(self.makeExtent()), [])
