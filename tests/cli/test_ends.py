"""Files as ends of copies."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.cli import ends
from iscsi_twisted.cli.ends import FileEnd
from iscsi_twisted.errors import LocalError

PAGE = 1 << 16


class FileTests(SynchronousTestCase):
    """L{FileEnd}."""

    def setUp(self) -> None:
        self.path = self.mktemp()

    def now(self, waiting: Coroutine[Any, Any, Any]) -> Any:
        """The result."""
        return self.successResultOf(Deferred.fromCoroutine(waiting))

    def end(self, reading: bool) -> FileEnd:
        """The file."""
        end = FileEnd(self.path, reading)
        self.addCleanup(end.close)
        return end

    def test_stored(self) -> None:
        """What the file system has no storage for is told, as seen from where it is asked for."""
        with open(self.path, "wb") as file:
            file.seek(4 * PAGE)
            file.write(b"x" * PAGE)
            file.truncate(8 * PAGE)
        self.assertEqual(self.now(self.end(True).stored(PAGE, 6 * PAGE)), [(3 * PAGE, 4 * PAGE)])

    def test_readsToEnd(self) -> None:
        """At the end of the file there are fewer bytes."""
        with open(self.path, "wb") as file:
            file.write(b"abc")
        buffer = bytearray(8)
        self.assertEqual(self.now(self.end(True).read(1, memoryview(buffer))), 2)
        self.assertEqual(buffer, b"bc" + bytes(6))

    def test_kept(self) -> None:
        """What is kept stays, and holes are only where nothing is kept."""
        with open(self.path, "wb") as file:
            file.write(b"x" * 4 * PAGE)
        end = self.end(False)
        self.now(end.prepare(8 * PAGE, PAGE))
        self.assertFalse(self.now(end.zero(0, PAGE)))
        self.assertTrue(self.now(end.zero(PAGE, PAGE)))
        self.now(end.write(3 * PAGE, memoryview(b"y" * PAGE)))
        self.now(end.finish(5 * PAGE))
        self.now(end.flush())
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), b"x" * PAGE + bytes(2 * PAGE) + b"y" * PAGE + bytes(PAGE))

    def eager(self) -> tuple[FileEnd, list[Deferred[None]]]:
        """A file that does not wait for its end, written; what its thread has to do."""
        calls: list[Deferred[None]] = []

        def threads(function: Any, *arguments: Any) -> Deferred[None]:
            calls.append(Deferred())
            return calls[-1]

        self.patch(ends, "EAGER", PAGE)
        end = FileEnd(self.path, False, threads)
        self.addCleanup(end.close)
        end.eager = True
        for place in range(3):
            self.now(end.write(place * PAGE, memoryview(bytes(PAGE))))
        self.assertEqual(len(calls), 1)
        return end, calls

    def test_eager(self) -> None:
        """The disk begins early, with one thing at a time, and in the end all is waited for."""
        end, calls = self.eager()
        flushing = Deferred.fromCoroutine(end.flush())
        calls[0].callback(None)
        self.assertNoResult(flushing)
        calls[1].callback(None)
        self.successResultOf(flushing)

    def test_failsEarly(self) -> None:
        """What the disk could not write early is not forgotten at the end."""
        end, calls = self.eager()
        calls[0].errback(OSError("worn out"))
        self.failureResultOf(Deferred.fromCoroutine(end.flush()), OSError)

    def test_named(self) -> None:
        """What the system refuses is told with the name of the file."""
        open(self.path, "w").close()
        end = self.end(True)
        for waiting in (end.write(0, memoryview(b"x")), end.prepare(PAGE, 0)):
            why = self.failureResultOf(Deferred.fromCoroutine(waiting), OSError)
            self.assertEqual(why.value.filename, self.path)

    def test_neither(self) -> None:
        """What is neither file nor disk is refused."""
        os.mkfifo(self.path)
        self.assertIn("neither a file nor", str(self.assertRaises(LocalError, FileEnd, self.path, False)))

    def test_identity(self) -> None:
        """A file that is read is not the same once it was changed; one that is written is."""
        with open(self.path, "wb") as file:
            file.write(b"abc")
        one, other = self.end(True), self.end(False)
        before = one.identity(True), other.identity(False)
        os.utime(self.path, ns=(1, 1))
        self.assertNotEqual(one.identity(True), before[0])
        self.assertEqual(other.identity(False), before[1])
