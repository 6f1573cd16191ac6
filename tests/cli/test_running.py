"""Commands that end by themselves, and those that are interrupted."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from iscsi_twisted.cli.running import Running, sayAloud, unbroken
from iscsi_twisted.errors import LocalError
from tests.support.processes import Python, portIn, twistd

HARNESS = ("-c", "from iscsi_twisted.cli.harness import main; main()")
MAIN = ("-c", "from iscsi_twisted.cli.tool import main; main()")
NAME = "iqn.1994-04.org.netbsd.iscsi-target:target0"


class RunningTests(SynchronousTestCase):
    """L{Running}."""

    def setUp(self) -> None:
        self.said = io.StringIO()
        self.patch(sys, "stderr", self.said)

    async def fail(self, error: Exception) -> None:  # type: ignore[override]
        """Fail."""
        raise error

    async def wait(self, what: Deferred[None]) -> None:
        """Wait for something."""
        try:
            await what
        finally:
            print("logged out", file=sys.stderr)

    def ends(self, waiting: Deferred[None]) -> int:
        """The status that it ends with."""
        status = self.failureResultOf(waiting, SystemExit).value.code
        assert isinstance(status, int)
        return status

    def test_fails(self) -> None:
        """Every failure is one line, of text or JSON, and status 1."""
        for error in (LocalError("no such thing"), ValueError("no such thing")):
            running = Deferred.fromCoroutine(Running("it").run(self.fail(error)))
            self.assertEqual(self.ends(running), 1)
        self.assertEqual(self.said.getvalue(), "it: no such thing\n" * 2)
        self.said.truncate(0)
        self.said.seek(0)
        self.ends(Deferred.fromCoroutine(Running("it", True).run(self.fail(LocalError("why")))))
        self.assertEqual(json.loads(self.said.getvalue()), {"error": "why"})

    def test_system(self) -> None:
        """What the system says is told with what it is about, and without its number."""
        for error in (
            OSError(28, "No space left on device", "disk"),
            OSError(32, "Broken pipe"),
            OSError("x"),
        ):
            self.ends(Deferred.fromCoroutine(Running("it").run(self.fail(error))))
        self.assertEqual(self.said.getvalue(), "it: disk: No space left on device\nit: Broken pipe\nit: x\n")

    def test_aloud(self) -> None:
        """An answer that nobody could read is a failure, which names what was written to."""
        with open("/dev/full", "w") as full:
            self.patch(sys, "stdout", full)
            self.assertEqual(self.assertRaises(OSError, sayAloud, "text").filename, "standard output")
            self.assertRaises(OSError, full.close)
        self.patch(sys, "stdout", None)
        self.assertRaises(LocalError, sayAloud, "text")

    def test_closed(self) -> None:
        """Where there is no standard error, standard output does not get what it would have got."""
        said = io.StringIO()
        self.patch(sys, "stderr", None)
        self.patch(sys, "stdout", said)
        self.assertEqual(self.ends(Deferred.fromCoroutine(Running("it").run(self.fail(LocalError("x"))))), 1)
        self.assertEqual(said.getvalue(), "")

    def test_interrupted(self) -> None:
        """A signal cancels what is waited for; what has to be done at the end is done."""
        running = Running("it")
        waiting = Deferred.fromCoroutine(running.run(self.wait(Deferred())))
        running.interrupt(signal.SIGTERM)
        self.assertEqual(self.ends(waiting), 128 + 15)
        self.assertEqual(self.said.getvalue(), "logged out\nit: interrupted by SIGTERM\n")


class UnbrokenTests(SynchronousTestCase):
    """L{unbroken}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.kept: list[str] = []
        self.logging: Deferred[str] = Deferred()
        self.waiting = Deferred.fromCoroutine(unbroken(self.clock, self.login(), self.kept.append))

    async def login(self) -> str:
        """Something that takes a while."""
        return await self.logging

    def test_ends(self) -> None:
        """By itself."""
        self.logging.callback("session")
        self.assertEqual((self.successResultOf(self.waiting), self.kept), ("session", ["session"]))

    def test_fails(self) -> None:
        """Its error is told."""
        self.logging.errback(LocalError("no"))
        self.failureResultOf(self.waiting, LocalError)

    def test_interrupted(self) -> None:
        """It ends first, and what it gave is not lost."""
        self.waiting.cancel()
        self.assertNoResult(self.waiting)
        self.logging.callback("session")
        self.failureResultOf(self.waiting, CancelledError)
        self.assertEqual(self.kept, ["session"])

    def test_tooLong(self) -> None:
        """Nobody waits for ever."""
        self.waiting.cancel()
        self.clock.advance(3.0)
        self.failureResultOf(self.waiting, CancelledError)
        self.assertEqual(self.kept, [])


class InterruptTests(TestCase):
    """The command as a process beside a target that is one."""

    timeout = 60

    async def interrupted(self, number: int, *arguments: str) -> tuple[int, str]:
        """
        Interrupt the tool once it has logged in, beside a new target.

        @return: its status, and the target's log.
        """
        target, port = await self.serve()
        url = f"iscsi://127.0.0.1:{port}/{NAME}/0"
        tool = self.command(*MAIN, *(word.replace("URL", url) for word in arguments))
        await target.line("> Normal login")
        tool.process.signalProcess(number)
        why = await tool.exited
        await target.line("logout from")
        self.assertEqual(why.signal, None)
        self.assertIn("interrupted by", tool.output)
        return why.exitCode, target.output

    async def serve(self) -> tuple[Python, int]:
        """A new target, and its port."""
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        target = twistd(
            "-n", "-l", "-", "iscsi", "--disk", "disk:16MB", "--state", "state",
            "-l", "tcp:0:interface=127.0.0.1", directory=self.directory,
        )  # fmt: skip
        self.addCleanup(target.stop)
        return target, portIn(await target.line("listening on"))

    def command(self, *arguments: str) -> Python:
        """A command."""
        made = Python(*arguments, directory=self.directory)
        self.addCleanup(made.stop)
        return made

    async def test_harness(self) -> None:
        """The harness puts back what it has overwritten, and logs out."""
        target, port = await self.serve()
        disk = Path(self.directory, "disk")
        content = os.urandom(16 << 20)
        disk.write_bytes(content)
        where = ("-h", "127.0.0.1", "-p", str(port), "--auths", os.devnull)
        harness = self.command(*HARNESS, "-n", "1000000", *where)
        await harness.line("integrity of")
        harness.process.signalProcess(signal.SIGINT)
        why = await harness.exited
        self.assertEqual(why.exitCode, 130)
        self.assertIn("what was on the disk is there again\ninterrupted by SIGINT\n", harness.output)
        await target.line("< Normal logout")
        self.assertEqual(disk.read_bytes(), content)

    async def test_interrupt(self) -> None:
        """Ctrl-C logs out, whatever the command is at."""
        for arguments in (
            ("ping", "-c", "100000000", "URL"),
            ("write", "URL"),
            ("bench", "--seconds", "600", "URL"),
        ):
            status, log = await self.interrupted(signal.SIGINT, *arguments)
            self.assertEqual(status, 130)
            self.assertIn("< Normal logout from", log)
            self.assertNotIn("lost", log)

    async def test_terminate(self) -> None:
        """So does the signal that asks to end."""
        status, log = await self.interrupted(signal.SIGTERM, "write", "URL")
        self.assertEqual(status, 143)
        self.assertIn("< Normal logout from", log)
