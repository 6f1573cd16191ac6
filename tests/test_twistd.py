# -*- test-case-name: tests.test_twistd -*-
"""The real C{twistd iscsi}, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support import rawclient
from tests.support.processes import Python, portIn, read, twistd
from tests.support.rawclient import RawClient
from tests.support.wire import write10

T = TypeVar("T")
LOCAL = "tcp:0:interface=127.0.0.1"
BASE = "iqn.1994-04.org.netbsd.iscsi-target"
FILES = ("--pidfile", "t.pid", "--logfile", "t.log")


class TwistdTestCase(TestCase):
    """Runs twistd in a directory of its own."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.directory = self.mktemp()
        os.mkdir(self.directory)

    def twistd(self, *arguments: str) -> Python:
        """A process."""
        process = twistd(*arguments, directory=self.directory)
        self.addCleanup(process.stop)
        return process

    def write(self, name: str, text: str) -> None:
        """Make a file."""
        with open(os.path.join(self.directory, name), "w") as file:
            file.write(text)

    def talk(self, line: str, conversation: Callable[[RawClient], T]) -> Deferred[T]:
        """A client in a thread, connected to where the log says that it listens."""

        def run() -> T:
            with RawClient(("127.0.0.1", portIn(line))) as client:
                return conversation(client)

        return deferToThread(run)


class ForegroundTests(TwistdTestCase):
    """Tests of C{twistd -n iscsi}."""

    async def check(self, name: str) -> None:
        """Serve, be stopped by a signal while a session is open, and end as that signal ends."""
        process = self.twistd("-n", "--pidfile=", "iscsi", "--disk", "d:1MB", "-l", LOCAL, "--state", "state")
        line = await process.line("listening on")
        ready: Deferred[None] = Deferred()

        def session(client: RawClient) -> int:
            client.login(f"{BASE}:target0")
            client.command(bytes(6))
            assert client.command(write10(0, 1), write=b"x" * 512).status == 0
            self.reactor.callFromThread(ready.callback, None)
            event = client.recvPDU()
            client.logout()
            return event.opcode

        talking = self.talk(line, session)
        await ready
        process.process.signalProcess(name)
        self.assertEqual(await talking, rawclient.ASYNC)
        reason = await process.exited
        self.assertEqual(reason.signal, getattr(signal, f"SIG{name}"))
        self.assertIn(f"< Normal logout from {rawclient.INITIATOR} on 127.0.0.1", process.output)
        self.assertNotIn("Traceback", process.output)
        self.assertTrue(read(self.directory, "d").startswith("x" * 512 + "\0"))

    def test_terminate(self) -> Deferred[None]:
        """SIGTERM: sessions are asked to log out, data are flushed, and the status is the signal's own."""
        return Deferred.fromCoroutine(self.check("TERM"))

    def test_interrupt(self) -> Deferred[None]:
        """So does SIGINT."""
        return Deferred.fromCoroutine(self.check("INT"))

    async def test_faults(self) -> None:
        """What cannot be opened is one line each on the standard error, the status 1, and nothing served."""
        self.write("F", "extent0 no/a 0 1M\nextent1 no/b 0 1M\ntarget0 extent0 any\ntarget1 extent1 any\n")
        process = self.twistd(
            "-n", "--pidfile=", "--logfile", "t.log", "iscsi", "-f", "F", "-l", LOCAL, "--state", "s"
        )
        reason = await process.exited
        await process.ended
        self.assertEqual(reason.exitCode, 1)
        self.assertEqual([line.split(": ")[0] for line in process.errors.splitlines()], ["F:1", "F:2"])
        self.assertNotIn("listening", read(self.directory, "t.log"))

    async def test_unreachable(self) -> None:
        """A target whose storage turns out not to be there ends the process, which leaves no pid file."""
        self.write(
            "targets", "extent0 iscsi://127.0.0.1:1/iqn.2001-04.com.example:x/0 0 size\ntarget0 extent0 any\n"
        )
        process = self.twistd(
            "-n", "--pidfile=t.pid", "iscsi", "-f", "targets", "-l", LOCAL, "--state", "state"
        )
        reason = await process.exited
        await process.ended
        self.assertEqual(reason.exitCode, 1)
        self.assertIn("nothing is served: targets:1: extent0: iscsi://127.0.0.1:1/", process.output)
        self.assertNotIn("t.pid", os.listdir(self.directory))

    async def test_busy(self) -> None:
        """So is a port that is taken, though others are free."""
        first = self.twistd("-n", "--pidfile=", "iscsi", "--disk", "a:1MB", "-l", LOCAL, "--state", "s")
        taken = f"tcp:{portIn(await first.line('listening on'))}:interface=127.0.0.1"
        second = self.twistd(
            "-n", "--pidfile=", "--logfile", "t.log", "iscsi", "--disk", "b:1MB", "-l", LOCAL, "-l", taken,
            "--state", "s",
        )  # fmt: skip
        reason = await second.exited
        await second.ended
        self.assertEqual(reason.exitCode, 1)
        self.assertEqual(second.errors, f"cannot listen on {taken}: Address already in use\n")


class DaemonTests(TwistdTestCase):
    """Tests of C{twistd iscsi}, which becomes a daemon."""

    def kill(self) -> None:
        """End a daemon that a failed test has left."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int(read(self.directory, "t.pid")), signal.SIGKILL)

    async def test_daemon(self) -> None:
        """It serves paths relative to where it was started, lets the terminal go, and stops on SIGTERM."""
        self.write("F", "extent0 disk 0 1MB\ntarget0 extent0 any\n")
        os.mkdir(os.path.join(self.directory, "run"))
        process = self.twistd("--rundir", "run", *FILES, "iscsi", "-f", "F", "-l", LOCAL, "--state", "state")
        self.addCleanup(self.kill)
        reason = await process.exited
        self.assertEqual((reason.exitCode, process.output), (0, ""))
        await process.silenced
        (line,) = (line for line in read(self.directory, "t.log").splitlines() if "listening on" in line)

        def write(client: RawClient) -> int:
            client.login(f"{BASE}:target0")
            client.command(bytes(6))
            status = client.command(write10(1, 1), write=b"y" * 512).status
            client.logout()
            return status

        self.assertEqual(await self.talk(line, write), 0)
        self.assertEqual(read(self.directory, "disk")[:1024], "\0" * 512 + "y" * 512)
        self.assertEqual(os.listdir(os.path.join(self.directory, "state")), ["installation"])
        self.assertFalse(process.ended.called)
        os.kill(int(read(self.directory, "t.pid")), signal.SIGTERM)
        await process.ended
        self.assertEqual(sorted(os.listdir(self.directory)), ["F", "disk", "run", "state", "t.log"])
        self.assertEqual(os.listdir(os.path.join(self.directory, "run")), [])
        self.assertNotIn("Traceback", read(self.directory, "t.log"))

    async def test_faults(self) -> None:
        """The daemon's faults still reach the terminal in full; the status is 1, and no pid file stays."""
        directory = "no" * 60
        self.write("F", f"extent0 {directory}/a 0 1M\nextent1 no/b 0 1M\ntarget0 extent0 extent1 any\n")
        process = self.twistd(*FILES, "iscsi", "-f", "F", "-l", LOCAL, "--state", "s")
        self.addCleanup(self.kill)
        reason = await process.exited
        await process.ended
        self.assertEqual(reason.exitCode, 1)
        lines = process.errors.splitlines()
        self.assertTrue(lines[0].startswith("F:1: extent0: ") and directory in lines[0], lines)
        self.assertTrue(lines[1].startswith("F:2: extent1: "), lines)
        self.assertNotIn("Traceback", process.errors)
        self.assertNotIn("t.pid", os.listdir(self.directory))
