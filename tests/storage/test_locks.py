# -*- test-case-name: tests.storage.test_locks -*-
"""Tests for L{iscsi_twisted.storage.locks}."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.storage.locks import growing, holder, lockRange

_LOCKER = """
import sys
from iscsi_twisted.storage.locks import lockRange
path, start, length, shared = sys.argv[1:]
with open(path, "r+b") as file:
    try:
        print(lockRange(file.fileno(), int(start), int(length), shared=shared == "shared"))
    except BlockingIOError:
        print("taken")
"""

_POSIX_LOCKER = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("locked", flush=True)
    sys.stdin.read()
"""


class LockTests(SynchronousTestCase):
    """Locks on ranges of a file."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        with open(self.path, "wb") as file:
            file.truncate(8192)
        self.first, self.second = self.opened(), self.opened()

    def opened(self) -> int:
        """A descriptor of the file, closed when the test ends."""
        fd = os.open(self.path, os.O_RDWR)
        self.addCleanup(os.close, fd)
        return fd

    def elsewhere(self, start: int, length: int, kind: str = "alone") -> str:
        """What another process gets when it locks the range."""
        command = [sys.executable, "-c", _LOCKER, self.path, str(start), str(length), kind]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def test_sideBySide(self) -> None:
        """Ranges that only touch can both be locked."""
        self.assertTrue(lockRange(self.first, 0, 4096, shared=False))
        self.assertTrue(lockRange(self.second, 4096, 4096, shared=False))
        self.assertEqual(self.elsewhere(8192, 1), "True")

    def test_overlapHere(self) -> None:
        """An overlap is refused in the same process."""
        lockRange(self.first, 0, 4096, shared=False)
        with self.assertRaises(BlockingIOError):
            lockRange(self.second, 4095, 1, shared=False)

    def test_overlapElsewhere(self) -> None:
        """An overlap is refused in another process, and no longer once the first has closed the file."""
        fd = os.open(self.path, os.O_RDWR)
        try:
            lockRange(fd, 0, 4096, shared=False)
            self.assertEqual(self.elsewhere(4095, 2), "taken")
            self.assertEqual(self.elsewhere(0, 1, "shared"), "taken")
        finally:
            os.close(fd)
        self.assertEqual(self.elsewhere(4095, 2), "True")

    def test_otherDescriptor(self) -> None:
        """Closing another descriptor of the same file does not drop the lock."""
        lockRange(self.first, 0, 4096, shared=False)
        os.close(os.open(self.path, os.O_RDWR))
        self.assertEqual(self.elsewhere(0, 1), "taken")

    def test_shared(self) -> None:
        """Readers go together, but not with a writer."""
        lockRange(self.first, 0, 4096, shared=True)
        lockRange(self.second, 0, 4096, shared=True)
        self.assertEqual(self.elsewhere(0, 4096, "shared"), "True")
        self.assertEqual(self.elsewhere(0, 4096), "taken")

    def test_holder(self) -> None:
        """One can ask which range stands in the way."""
        self.assertIsNone(holder(self.second, 0, 8192))
        lockRange(self.first, 1024, 512, shared=False)
        self.assertEqual(holder(self.second, 0, 8192), (1024, 512, -1))

    def test_holderProcess(self) -> None:
        """A lock of the POSIX kind tells the process."""
        with subprocess.Popen(
            [sys.executable, "-c", _POSIX_LOCKER, self.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            self.assertEqual(holder(self.first, 0, 1), (0, 0, process.pid))

    def test_unsupported(self) -> None:
        """A file system without such locks is told by False."""

        def refused(*arguments: object) -> None:
            raise OSError(errno.ENOLCK, "no locks")

        self.patch(fcntl, "fcntl", refused)
        self.assertFalse(lockRange(self.first, 0, 1, shared=False))
        with growing(self.first):
            pass
        self.assertIsNone(holder(self.first, 0, 1))

    def test_otherError(self) -> None:
        """Any other error is raised."""
        with self.assertRaises(OSError):
            lockRange(1 << 20, 0, 1, shared=False)
        with self.assertRaises(OSError), growing(1 << 20):
            self.fail("the lock was not taken")

    def test_growing(self) -> None:
        """Whoever grows the file is alone with that, and ranges are not in the way."""
        lockRange(self.first, 0, 8192, shared=False)
        with growing(self.second):
            self.assertEqual(self.elsewhere((1 << 63) - 1, 1), "taken")
        self.assertEqual(self.elsewhere((1 << 63) - 1, 1), "True")
