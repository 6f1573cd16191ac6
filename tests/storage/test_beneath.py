# -*- test-case-name: tests.storage.test_beneath -*-
"""Tests for L{iscsi_twisted.storage.beneath}, on loop devices where there may be some."""

from __future__ import annotations

import os
import stat
import subprocess
from typing import Any
from unittest import SkipTest

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import InUse
from iscsi_twisted.storage import FileExtent, Mirror
from iscsi_twisted.storage.beneath import below

SIZE = 8 << 20
HALF = SIZE // 2
FIRST = 2048
"""The sector in which the partition begins."""


class LoopTests(SynchronousTestCase):
    """The bytes of a file that are reached under two names."""

    def setUp(self) -> None:
        self.file = os.path.abspath(self.mktemp())
        with open(self.file, "wb") as file:
            file.truncate(SIZE)
        self.clock: Any = Clock()
        self.fds = len(os.listdir("/proc/self/fd"))
        self.addCleanup(lambda: self.assertEqual(len(os.listdir("/proc/self/fd")), self.fds))

    def node(self, *options: str) -> str:
        """A new loop device on the file."""
        done = subprocess.run(
            ["losetup", "--find", "--show", *options, self.file], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SkipTest(f"no loop device can be had: {done.stderr}")
        node = done.stdout.strip()
        self.addCleanup(subprocess.run, ["losetup", "--detach", node], check=True)
        return node

    def open(self, path: str, start: int = 0, length: int | None = HALF, readOnly: bool = False) -> None:
        """Use a range until the test ends."""
        extent = FileExtent(path, start, length, reactor=self.clock, readOnly=readOnly)
        extent.open(lambda: None)
        self.addCleanup(extent.close)

    def refused(self, path: str, start: int = 0, length: int | None = HALF, readOnly: bool = False) -> str:
        """Why a range cannot be used."""
        extent = FileExtent(path, start, length, reactor=self.clock, readOnly=readOnly)
        before = len(os.listdir("/proc/self/fd"))
        error = self.assertRaises(InUse, extent.open, lambda: None)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
        return str(error)

    def test_nothing(self) -> None:
        """A file lies on nothing that is looked at."""
        with open(self.file, "rb") as file:
            self.assertIsNone(below(file.fileno(), 0))

    def test_fileFirst(self) -> None:
        """What of a file is in use cannot be used through a loop device; what is not can."""
        node = self.node()
        self.open(self.file)
        words = self.refused(node)
        self.assertIn(f"lies in {self.file}, bytes 0 to {HALF - 1}, and another extent or process", words)
        self.open(node, HALF)

    def test_loopFirst(self) -> None:
        """Nor the other way round, wherever the loop device begins in the file."""
        node = self.node("--offset", str(HALF))
        self.open(node, 0, None)
        self.assertIn(f"bytes {HALF} to", self.refused(self.file, HALF))
        self.assertIn(f"bytes {HALF} to", self.refused(self.file, HALF, readOnly=True))
        self.open(self.file, 0)

    def test_twoLoops(self) -> None:
        """Nor through two loop devices, if one writes."""
        first, second = self.node(), self.node()
        self.open(first, readOnly=True)
        self.open(second, readOnly=True)
        self.refused(second, HALF // 2)
        self.open(second, HALF)

    def test_otherFile(self) -> None:
        """If there is another file under that name it is left alone."""
        node = self.node()
        os.rename(self.file, f"{self.file}.old")
        with open(self.file, "wb") as file:
            file.truncate(SIZE)
        self.open(self.file)
        self.open(node)

    def test_mirror(self) -> None:
        """So no mirror has one file as two members."""
        node = self.node()
        members = [FileExtent(path, 0, HALF, reactor=self.clock) for path in (self.file, node)]
        self.assertRaises(InUse, Mirror(members, reactor=self.clock).open, lambda: None)

    def test_partition(self) -> None:
        """A partition is a part of its disk, and of what the disk lies on."""
        disk = self.node("--partscan")
        name = os.path.basename(disk)
        try:
            subprocess.run(["addpart", disk, "1", str(FIRST), "4096"], capture_output=True, check=True)
            with open(f"/sys/block/{name}/{name}p1/dev", encoding="ascii") as numbers:
                major, minor = map(int, numbers.read().split(":"))
            part = os.path.abspath(self.mktemp())
            os.mknod(part, 0o600 | stat.S_IFBLK, os.makedev(major, minor))
            os.close(os.open(part, os.O_RDWR))
        except (OSError, subprocess.CalledProcessError) as error:
            raise SkipTest(f"no partition of a loop device can be had: {error}") from error
        self.open(part, 0, None)
        start = FIRST * 512
        self.refused(disk, start, 512)
        self.assertIn("process", self.refused(self.file, start + 4096 * 512 - 512, 512))
        self.open(disk, 0, start)
        self.open(self.file, start + 4096 * 512, 512)
