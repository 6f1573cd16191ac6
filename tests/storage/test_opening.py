# -*- test-case-name: tests.storage.test_opening -*-
"""Tests for L{iscsi_twisted.storage.opening}."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import DeviceError, InUse, NotReady, OutOfSpace, WriteProtected
from iscsi_twisted.storage import opening
from iscsi_twisted.storage.opening import Opening
from iscsi_twisted.storage.openrange import OpenRange

_HOLDER = """
import sys
from iscsi_twisted.storage.opening import Opening
path, start, length = sys.argv[1:]
opened = Opening(path, int(start), int(length), readOnly=False, create=True, durable=False).open()
print("open", flush=True)
sys.stdin.read()
"""


class OpeningCase(SynchronousTestCase):
    """What the tests have in common."""

    def setUp(self) -> None:
        self.path = self.mktemp()

    def open(
        self,
        start: int = 0,
        length: int | None = None,
        *,
        path: str | None = None,
        readOnly: bool = False,
        create: bool = True,
        durable: bool = False,
    ) -> OpenRange:
        """Open a range, closed when the test ends."""
        path = self.path if path is None else path
        attempt = Opening(path, start, length, readOnly=readOnly, create=create, durable=durable)
        opened = attempt.open()
        self.addCleanup(lambda: opened.fd < 0 or opened.close())
        return opened

    def fails(self, kind: type[DeviceError], *words: str, **how: Any) -> None:
        """Opening fails with one line that begins with the path as given and has these words."""
        error = self.assertRaises(kind, lambda: self.open(**how))
        text = str(error)
        self.assertIs(type(error), kind)
        self.assertTrue(text.startswith(f"{how.get('path', self.path)}: "), text)
        self.assertNotIn("\n", text)
        for word in words:
            self.assertIn(word, text)

    def make(self, content: bytes = b"x" * 10000) -> os.stat_result:
        """Make the file, long ago."""
        with open(self.path, "wb") as file:
            file.write(content)
        os.utime(self.path, ns=(10**18, 10**18))
        return os.stat(self.path)


class RehearsalTests(OpeningCase):
    """Tests of L{Opening.rehearse}."""

    def rehearse(self, start: int = 0, length: int | None = 20000, **how: Any) -> None:
        """As if the extent were opened."""
        settings = {"readOnly": False, "create": True, "durable": False} | how
        Opening(self.path, start, length, **settings).rehearse()

    def test_nothing(self) -> None:
        """It makes nothing, locks nothing and changes nothing."""
        self.rehearse()
        self.assertFalse(os.path.exists(self.path))
        before = self.make()
        held = self.open()
        self.rehearse()
        held.close()
        self.assertEqual(os.stat(self.path).st_size, before.st_size)

    def test_told(self) -> None:
        """What would keep the extent from being opened is told in the same words."""
        for how in ({"create": False}, {"length": None}, {"readOnly": True}):
            self.assertRaises(NotReady, self.rehearse, **how)
        self.make()
        for how in ({"readOnly": True}, {"start": 20000, "length": None}):
            self.assertRaises(DeviceError, self.rehearse, **how)


class CreationTests(OpeningCase):
    """Files that are made and grown."""

    def test_created(self) -> None:
        """A missing file is made, of the right size, sparse, with the mode that the umask leaves."""
        mask = os.umask(0o027)
        self.addCleanup(os.umask, mask)
        opened = self.open(1 << 20, 100 << 20)
        status = os.stat(self.path)
        self.assertEqual((status.st_size, status.st_mode & 0o777), (101 << 20, 0o640))
        self.assertLess(status.st_blocks * 512, 65536)
        self.assertEqual((opened.start, opened.size, opened.locked), (1 << 20, 100 << 20, True))

    def test_untouched(self) -> None:
        """Opening storage that exists changes not one byte of it, nor its times."""
        content = os.urandom(10000)
        before = self.make(content)
        for start, length in ((0, None), (0, 10000), (100, 50)):
            self.open(start, length).close()
            with open(self.path, "rb") as file:
                self.assertEqual(file.read(), content)
        after = os.stat(self.path)
        self.assertEqual((after.st_mtime_ns, after.st_ctime_ns), (before.st_mtime_ns, before.st_ctime_ns))

    def test_grown(self) -> None:
        """A file that is too short is made longer, never rewritten."""
        self.make(b"abc")
        self.open(0, 1 << 20)
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), b"abc" + bytes((1 << 20) - 3))

    def test_neverShrunk(self) -> None:
        """A file that is longer stays so."""
        self.make()
        self.open(0, 100)
        self.assertEqual(os.stat(self.path).st_size, 10000)

    def test_grownMeanwhile(self) -> None:
        """A file that another process made longer between the look and the deed is not cut."""
        self.make(b"abc")
        real = opening.lockRange

        def lockAndGrow(*arguments: Any, **more: Any) -> bool:
            os.truncate(self.path, 1 << 20)
            return real(*arguments, **more)

        self.patch(opening, "lockRange", lockAndGrow)
        self.open(0, 100)
        self.assertEqual(os.stat(self.path).st_size, 1 << 20)

    def test_toTheEnd(self) -> None:
        """Without a length the range goes to the end of the file."""
        self.make()
        self.assertEqual(self.open(100).size, 9900)

    def test_nothingLeft(self) -> None:
        """A start at or behind the end leaves nothing, and the figures are told."""
        self.make()
        self.fails(DeviceError, "10000", "20000", start=20000)
        self.fails(DeviceError, start=10000)

    def test_linkFollowed(self) -> None:
        """A symbolic link to a file is that file."""
        self.make()
        os.symlink(os.path.basename(self.path), self.path + "link")
        self.assertEqual(self.open(path=self.path + "link").size, 10000)

    def test_linkDangling(self) -> None:
        """A symbolic link to nothing is told, and nothing is made."""
        os.symlink("nowhere", self.path)
        self.fails(NotReady, "symbolic link", length=100)
        self.assertFalse(os.path.exists(self.path))

    def test_appears(self) -> None:
        """A file that appears at the moment of its creation is opened as it is."""
        real = os.open

        def race(path: Any, flags: int, mode: int = 0o777) -> int:
            if flags & os.O_CREAT:
                self.patch(opening.os, "open", real)
                self.make(b"theirs")
            return real(path, flags, mode)

        self.patch(opening.os, "open", race)
        self.open(0, 6)
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), b"theirs")

    def test_removedAgain(self) -> None:
        """A file that was made here goes away again when a later step fails."""
        self.failGrowing(errno.ENOSPC)
        self.fails(OutOfSpace, "cannot grow to 100 bytes", length=100)
        self.assertFalse(os.path.exists(self.path))

    def test_notRemoved(self) -> None:
        """One that was there stays."""
        self.make(b"abc")
        self.failGrowing(errno.EFBIG)
        self.fails(DeviceError, "cannot grow to 100 bytes", length=100)
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), b"abc")

    def test_notRemovedInUse(self) -> None:
        """One that was made here stays if somebody uses it already."""

        def growAfterOthers(fd: int, length: int) -> None:
            patch.restore()
            os.ftruncate(fd, 2000)
            self.open(1000, 10)
            raise OSError(errno.ENOSPC, "full")

        patch = self.patch(opening.os, "ftruncate", growAfterOthers)
        self.fails(OutOfSpace, length=100)
        self.assertTrue(os.path.exists(self.path))

    def failGrowing(self, number: int) -> None:
        """Let C{ftruncate} fail."""

        def fail(fd: int, length: int) -> None:
            raise OSError(number, os.strerror(number))

        self.patch(opening.os, "ftruncate", fail)

    def test_tooLargeReally(self) -> None:
        """A size that the file system cannot hold is an error with the size, and leaves no file."""
        self.fails(DeviceError, str(1 << 62), length=1 << 62)
        self.assertFalse(os.path.exists(self.path))

    def test_beyondAll(self) -> None:
        """So is one that no file can have."""
        self.fails(DeviceError, "beyond", start=1 << 62, length=1 << 62)

    def test_closedOnExec(self) -> None:
        """Other programs do not inherit the file."""
        self.assertFalse(os.get_inheritable(self.open(0, 100).fd))

    def test_durable(self) -> None:
        """Without a write cache the file is opened so that each write waits for the medium."""
        import fcntl

        for durable in (False, True):
            flags = fcntl.fcntl(self.open(0, 100, durable=durable).fd, fcntl.F_GETFL)
            self.assertEqual(bool(flags & os.O_DSYNC), durable)
            self.doCleanups()


class ReadOnlyTests(OpeningCase):
    """Ranges that are only read."""

    def test_neverCreated(self) -> None:
        """A missing file is an error and stays missing."""
        self.fails(NotReady, "does not exist", "read-only", readOnly=True, length=100)
        self.assertFalse(os.path.exists(self.path))

    def test_neverGrown(self) -> None:
        """A file that is too short is an error with the figures, and stays as it is."""
        self.make()
        self.fails(
            DeviceError, "12000", "10000", "lengthen the file", readOnly=True, start=2000, length=10000
        )
        self.assertEqual(os.stat(self.path).st_size, 10000)

    def test_cannotWrite(self) -> None:
        """The descriptor cannot write."""
        self.make()
        with self.assertRaises(OSError):
            os.write(self.open(readOnly=True).fd, b"x")


class RefusalTests(OpeningCase):
    """What is no extent."""

    def test_kinds(self) -> None:
        """Directories, sockets, FIFOs and character devices are refused by name, without waiting."""
        os.mkdir(self.path)
        self.fails(DeviceError, "is a directory", "regular file or a block device", length=1)
        fifo = self.mktemp()
        os.mkfifo(fifo)
        self.fails(DeviceError, "is a FIFO", path=fifo, readOnly=True)
        self.fails(DeviceError, "is a character device", path="/dev/null", length=1)
        name = self.mktemp()
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(name)
            self.fails(DeviceError, "is a socket", path=name, length=1)

    def test_noDirectory(self) -> None:
        """A missing directory is told by name, and not made."""
        path = os.path.join(self.path, "deeper", "disk")
        self.fails(NotReady, f"the directory {self.path}/deeper does not exist", path=path, length=100)
        self.assertFalse(os.path.exists(self.path))

    def test_fileAsDirectory(self) -> None:
        """A file cannot hold others."""
        self.make()
        self.fails(NotReady, "not a directory", path=self.path + "/disk", length=100)

    def test_notToBeCreated(self) -> None:
        """A missing file that shall not be created is an error."""
        self.fails(NotReady, "does not exist", create=False, length=100)

    def test_noEnd(self) -> None:
        """A missing file has no end to go to."""
        self.fails(NotReady, "give a length")
        self.assertFalse(os.path.exists(self.path))

    def test_badName(self) -> None:
        """A name that cannot be one is told."""
        self.fails(DeviceError, path="x" * 5000, length=1)
        self.fails(DeviceError, path="nul\0byte", length=1)

    def test_refusedBySystem(self) -> None:
        """What the system refuses is said in words that tell what to do."""
        self.make()
        for number, kind, words in (
            (errno.EACCES, DeviceError, "no permission to open it for reading and writing"),
            (errno.EROFS, WriteProtected, "serve it read-only"),
            (errno.ENXIO, NotReady, "no medium"),
            (errno.EMFILE, DeviceError, os.strerror(errno.EMFILE)),
        ):

            def refuse(*arguments: Any, number: int = number) -> int:
                raise OSError(number, os.strerror(number))

            patch = self.patch(opening.os, "open", refuse)
            self.fails(kind, words)
            patch.restore()

    def test_creationRefused(self) -> None:
        """So is what it refuses to create."""

        def refuse(path: Any, flags: int, mode: int = 0) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(opening.os, "open", refuse)
        self.fails(OutOfSpace, "cannot be created", length=100)

    def test_creationForbidden(self) -> None:
        """Where a file cannot be created or looked for it is the directory whose mode has to change."""

        def refuse(path: Any, flags: int, mode: int = 0) -> int:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        directory = os.path.dirname(self.path) or "."
        self.patch(opening.os, "open", refuse)
        self.fails(DeviceError, f"no permission to create it; change the mode of {directory}", length=100)
        self.patch(opening.os, "access", lambda path, mode: False)
        self.fails(DeviceError, f"no permission to look into {directory}", length=100)

    def test_leavesNothingOpen(self) -> None:
        """No descriptor is left behind by a refusal."""
        self.make()
        before = sorted(os.listdir("/proc/self/fd"))
        self.fails(DeviceError, readOnly=True, length=20000)
        self.fails(DeviceError, start=20000)
        self.assertEqual(sorted(os.listdir("/proc/self/fd")), before)


class LockTests(OpeningCase):
    """Who else uses the file."""

    def test_sideBySide(self) -> None:
        """Two ranges of one file can be open together, each with its own bytes."""
        first, second = self.open(0, 1000), self.open(1000, 1000)
        first.write(0, b"a" * 1000)
        second.write(0, b"b" * 1000)
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), b"a" * 1000 + b"b" * 1000)

    def test_overlap(self) -> None:
        """An overlap is refused with both ranges, and possible once the first is closed."""
        first = self.open(0, 1000)
        self.fails(
            InUse, "bytes 999 to 1998", "0 to 999", "another extent or process", start=999, length=1000
        )
        first.close()
        self.open(999, 1000)

    def test_overlapLeavesSize(self) -> None:
        """A range that is refused has not grown the file."""
        self.open(0, 1000)
        self.fails(InUse, start=999, length=1000)
        self.assertEqual(os.stat(self.path).st_size, 1000)

    def test_readers(self) -> None:
        """Readers of the same bytes go together; a writer does not join them, nor they a writer."""
        self.make()
        readers = [self.open(readOnly=True), self.open(readOnly=True)]
        self.fails(InUse)
        for reader in readers:
            reader.close()
        self.open()
        self.fails(InUse, readOnly=True)

    def test_otherProcess(self) -> None:
        """Another process that serves the same bytes keeps them, until it ends."""
        command = [sys.executable, "-c", _HOLDER, self.path, "0", "1000"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            self.assertEqual(process.stdout.readline(), b"open\n")
            self.fails(InUse, start=500, length=10)
            self.open(1000, 1000).close()
        self.open(500, 10)

    def test_vanished(self) -> None:
        """If the other one has gone when it is looked for, the refusal still says which bytes."""
        self.open(0, 1000)
        self.patch(opening, "holder", lambda *arguments: None)
        self.fails(InUse, "bytes 0 to 9 are in use", length=10)

    def test_longLock(self) -> None:
        """A lock to the end of the file, and a known process, are told as that."""
        self.open(0, 1000)
        self.patch(opening, "holder", lambda *arguments: (100, 0, 4711))
        self.fails(InUse, "process 4711 uses bytes 100 to the end", length=10)

    def test_unlocked(self) -> None:
        """Where the file system has no locks the range says so."""
        self.patch(opening, "lockRange", lambda *arguments, **more: False)
        self.assertFalse(self.open(0, 1000).locked)

    def test_cannotLock(self) -> None:
        """A lock that fails otherwise is an error."""

        def fail(*arguments: Any, **more: Any) -> bool:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(opening, "lockRange", fail)
        self.fails(DeviceError, "cannot be locked", length=10)
