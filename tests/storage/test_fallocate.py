# -*- test-case-name: tests.storage.test_fallocate -*-
"""Tests for L{iscsi_twisted.storage.fallocate}."""

from __future__ import annotations

import errno
import os

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.storage import fallocate
from iscsi_twisted.storage.fallocate import (
    Abilities,
    probeBlocks,
    probeFile,
    punchHole,
    queueSetting,
    zeroRange,
)


class FallocateTests(SynchronousTestCase):
    """The binding of C{fallocate(2)}."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, self.fd)
        os.pwrite(self.fd, b"x" * 65536, 0)
        os.fsync(self.fd)
        self.abilities = probeFile(self.path, os.fstat(self.fd).st_dev)

    def test_punchHole(self) -> None:
        """A punched hole reads as zeros, gives storage back, and leaves the size."""
        if not self.abilities.punch:
            self.assertRaises(OSError, punchHole, self.fd, 0, 4096)
            return
        before = os.fstat(self.fd).st_blocks
        punchHole(self.fd, 8192, 32768)
        self.assertEqual(os.pread(self.fd, 65536, 0), b"x" * 8192 + bytes(32768) + b"x" * 24576)
        self.assertLess(os.fstat(self.fd).st_blocks, before)
        punchHole(self.fd, 65536, 4096)
        self.assertEqual(os.fstat(self.fd).st_size, 65536)

    def test_zeroRange(self) -> None:
        """A zeroed range reads as zeros and keeps its storage."""
        if not self.abilities.zero:
            self.assertRaises(OSError, zeroRange, self.fd, 0, 4096)
            return
        before = os.fstat(self.fd).st_blocks
        zeroRange(self.fd, 100, 32768)
        self.assertEqual(os.pread(self.fd, 65536, 0), b"x" * 100 + bytes(32768) + b"x" * (65536 - 32868))
        self.assertGreaterEqual(os.fstat(self.fd).st_blocks, before)

    def test_error(self) -> None:
        """An error carries its number."""
        with self.assertRaises(OSError) as caught:
            punchHole(-1, 0, 1)
        self.assertEqual(caught.exception.errno, errno.EBADF)

    def test_noFunction(self) -> None:
        """A C library without the function cannot do anything, and says so."""
        self.patch(fallocate, "_fallocate", None)
        fallocate._probeDirectory.cache_clear()
        self.addCleanup(fallocate._probeDirectory.cache_clear)
        with self.assertRaises(OSError) as caught:
            zeroRange(self.fd, 0, 1)
        self.assertIn(caught.exception.errno, fallocate.UNSUPPORTED)
        self.assertEqual(probeFile(self.path, os.fstat(self.fd).st_dev), Abilities())

    def test_interrupted(self) -> None:
        """A call that a signal interrupts is repeated."""
        answers = [-1, -1, 0]
        self.patch(fallocate, "_fallocate", lambda *arguments: answers.pop(0))
        self.patch(fallocate.ctypes, "get_errno", lambda: errno.EINTR)
        punchHole(self.fd, 0, 1)
        self.assertEqual(answers, [])


class ProbeTests(SynchronousTestCase):
    """What is asked before anything is promised."""

    def test_leavesNothing(self) -> None:
        """The trial changes neither the file nor its directory's contents."""
        directory = self.mktemp()
        os.mkdir(directory)
        path = os.path.join(directory, "file")
        with open(path, "wb") as file:
            file.write(b"x" * 100)
        os.utime(path, ns=(1, 1))
        before = os.stat(path)
        probeFile(path, before.st_dev)
        self.assertEqual(os.stat(path), before)
        self.assertEqual(os.listdir(directory), ["file"])

    def test_once(self) -> None:
        """A directory is tried once, however many files it holds."""
        directory = self.mktemp()
        os.mkdir(directory)
        device = os.stat(directory).st_dev
        first = probeFile(os.path.join(directory, "one"), device)
        self.patch(fallocate.os, "open", self.fail)
        self.assertEqual(probeFile(os.path.join(directory, "two"), device), first)

    def test_otherFileSystem(self) -> None:
        """Where the trial would be on another file system nothing is promised."""
        path = self.mktemp()
        self.assertEqual(probeFile(path, -1), Abilities())

    def test_noDirectory(self) -> None:
        """Nor where no file can be made."""
        self.assertEqual(probeFile("/proc/self/stat", os.stat("/proc/self/stat").st_dev), Abilities())

    def test_unknownQueue(self) -> None:
        """A device that the system does not tell about has zero of everything, and no discard."""
        self.assertEqual(queueSetting(os.makedev(0, 0), "rotational"), 0)
        self.assertEqual(probeBlocks(os.makedev(0, 0)), Abilities(punch=False, zero=True))
