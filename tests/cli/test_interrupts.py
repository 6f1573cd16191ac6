"""Commands that are interrupted, at every moment of their lives, beside a target in memory."""

from __future__ import annotations

import io
import os
import signal
import sys

from twisted.internet.defer import Deferred

from iscsi_twisted.cli.commands import Tool
from iscsi_twisted.cli.options import parser
from iscsi_twisted.storage import MemoryDevice
from tests.support.initiator import InitiatorTests
from tests.support.manual import commands

HOST = "iscsi://192.0.2.1"
MOMENTS = 200
"""Steps after which a command that does not end has been interrupted often enough."""


class InterruptTests(InitiatorTests):
    """Ctrl-C, and what the target sees of it."""

    def setUp(self) -> None:
        super().setUp()
        self.url = f"{HOST}/{self.target.name}/0"
        self.path = self.mktemp()
        with open(self.path, "wb") as file:
            file.write(os.urandom(4 << 20))
        self.said = io.StringIO()
        self.patch(sys, "stderr", self.said)

    def makeDevice(self) -> MemoryDevice:
        """Of several pieces."""
        return MemoryDevice(4 << 20)

    def step(self) -> None:
        """One call that is due, where a turn of the clock makes all, those that follow from it too."""
        due = self.clock.calls
        if due and due[0].getTime() <= self.clock.seconds():
            call = due.pop(0)
            call.called = 1
            call.func(*call.args, **call.kw)

    def interrupted(self, steps: int, arguments: tuple[str, ...]) -> bool:
        """Run a command, and interrupt it after so many steps; whether it had not ended by then."""
        with open(self.path, "r+") as source, open(os.devnull, "w") as sink:
            self.patch(sys, "stdin", source)
            self.patch(sys, "stdout", sink)
            return self.during(steps, arguments)

    def during(self, steps: int, arguments: tuple[str, ...]) -> bool:
        """The same, with standard input and output."""
        del self.diary.entries[:]
        tool = Tool(self.clock, parser().parse_args(arguments), lambda line: None, self.endpoint)
        result = Deferred.fromCoroutine(tool.running.run(tool.run()))
        for _ in range(steps):
            self.step()
        ended = bool(result.called)
        if not ended:
            tool.running.interrupt(signal.SIGINT)
            self.turn()
            self.assertEqual(self.failureResultOf(result, SystemExit).value.code, 128 + signal.SIGINT)
            self.assertTrue(self.said.getvalue().endswith("interrupted by SIGINT\n"))
        events = [entry[0] for entry in self.diary.entries]
        self.assertEqual(events.count("loggedIn"), events.count("loggedOut"), events)
        self.assertNotIn("lost", events)
        self.assertEqual(self.node.sessions, set())
        return not ended

    def test_logsOut(self) -> None:
        """Whenever it is interrupted, each command logs out of what it has logged in to."""
        other = self.url[:-1] + "1"
        lines = {
            "ls": (HOST,), "inq": (self.url,), "capacity": (self.url,), "ping": (self.url,),
            "reset": (self.url,), "read": (self.url,), "write": (self.url,),
            "copy": ("--verify", self.path, self.url), "bench": ("--count", "100", self.url, other),
        }  # fmt: skip
        self.assertEqual(set(lines), set(commands(parser())))
        for command, arguments in lines.items():
            steps = 0
            while steps < MOMENTS and self.interrupted(steps, (command, *arguments)):
                steps += 1
            self.assertGreater(steps, 5, command)
