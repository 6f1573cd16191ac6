# -*- test-case-name: tests.target.test_command -*-
"""The service as the command line runs it."""

from __future__ import annotations

import os
import resource
import signal
import sys
from io import StringIO
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import DeviceError
from iscsi_twisted.session.portals import Portal
from iscsi_twisted.storage import BlockDevice, MemoryDevice, Mirror, ReadOnly
from iscsi_twisted.target import Listener, VectorEndpoint
from iscsi_twisted.target.change import Wanted
from iscsi_twisted.target.command import SHOWN, CommandService, StartFailed, raiseDescriptorLimit

NAME = "iqn.2001-04.com.example"


class Disk(BlockDevice):
    """A device whose opening ends as the test wants."""

    def __init__(self, outcome: Any) -> None:
        self.size = 1024
        self.outcome = outcome

    def __str__(self) -> str:
        return "a disk"

    def open(self, changed: Any) -> Any:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class KeptStringIO(StringIO):
    """Text that can still be had after it was closed."""

    text = ""

    def close(self) -> None:
        self.text = self.getvalue()
        super().close()


class Threads(MemoryReactorClock):
    """A reactor that takes calls from elsewhere."""

    def callFromThread(self, function: Any, *arguments: Any) -> None:
        self.callLater(0, function, *arguments)


class CommandTests(SynchronousTestCase):
    """Tests of L{CommandService}."""

    def test_hangup(self) -> None:
        """SIGHUP ends the process neither while it starts nor while it stops; it is obeyed when it can be."""
        before = signal.signal(signal.SIGHUP, lambda number, frame: self.fail("it was not taken"))
        self.addCleanup(signal.signal, signal.SIGHUP, before)
        opening: Deferred[None] = Deferred()
        read: list[Wanted] = []

        def again() -> Wanted:
            read.append(Wanted(tuple(service._serving.plans.values())))
            return read[-1]

        reactor = Threads()
        service = CommandService(reactor, ["tcp:3260:interface=127.0.0.1"], hangup=True, read=again)
        service.addTarget(f"{NAME}:t0", [Disk(opening)])
        service.privilegedStartService()
        os.kill(os.getpid(), signal.SIGHUP)
        reactor.advance(0)
        service.startService()
        self.assertEqual(read, [])
        opening.callback(None)
        self.assertEqual(len(read), 1)
        closing: Deferred[None] = Deferred()
        ((place,)) = service._serving.places.values()
        place.mount.device.close = lambda: closing
        stopping = service.stopService()
        os.kill(os.getpid(), signal.SIGHUP)
        reactor.advance(0)
        self.assertNoResult(stopping)
        closing.callback(None)
        self.successResultOf(stopping)
        self.assertEqual(len(read), 1)
        self.assertNotEqual(signal.getsignal(signal.SIGHUP), service._hangup._came)  # type: ignore[union-attr]

    def service(self, *devices: Any, **options: Any) -> CommandService:
        """A service with a target for each device."""
        service = CommandService(MemoryReactorClock(), ["tcp:3260:interface=127.0.0.1"], **options)
        for number, device in enumerate(devices):
            service.addTarget(f"{NAME}:t{number}", [device])
        return service

    def start(self, service: CommandService) -> list[str]:
        """What a start writes to the log."""
        with capturedLogs() as events:
            service.privilegedStartService()
        return [formatEvent(event) for event in events if event["log_namespace"].startswith("iscsi")]

    def test_unlocked(self) -> None:
        """Files that cannot be locked are named, however deep in a device: others may be using them."""
        members = [MemoryDevice(1024) for _ in range(3)]
        members[1].unlocked, members[2].unlocked = True, False  # type: ignore[attr-defined]
        (line,) = (
            line
            for line in self.start(self.service(Mirror([members[0], ReadOnly(Mirror(members[1:]))])))
            if "lock" in line
        )
        self.assertEqual(
            line, f"{members[1]}: its file system has no locks, so nothing keeps others from using it as well"
        )

    def test_announced(self) -> None:
        """It says what it serves, and where."""
        self.assertEqual(
            self.start(self.service(Disk(None), MemoryDevice(512))),
            [
                f"serving {NAME}:t0 LUN 0: 1024 bytes, a disk",
                f"serving {NAME}:t1 LUN 0: 512 bytes, MemoryDevice",
                f"no authentication: whom netmasks admit at 0.0.0.0:3260 may use {NAME}:t0, {NAME}:t1",
                "listening on 0.0.0.0:3260",
            ],
        )

    def test_open(self) -> None:
        """It warns of targets that everybody may use who reaches a portal of theirs that asks for nothing."""
        reactor = MemoryReactorClock()
        endpoint = VectorEndpoint(reactor, 3261)
        service = CommandService(reactor, [Listener(endpoint, Portal(2, guarded=True)), Listener(endpoint)])
        service.addTarget(f"{NAME}:safe", [MemoryDevice(512)], portals=[2])
        service.addTarget(f"{NAME}:open", [MemoryDevice(512)], portals=[1, 2])
        (line,) = (line for line in self.start(service) if line.startswith("no authentication"))
        self.assertEqual(line, f"no authentication: whom netmasks admit at 0.0.0.0:3261 may use {NAME}:open")

    def test_unprivileged(self) -> None:
        """Where nobody gives privileges faults are told in the same way, and what is served too, once."""
        self.patch(sys, "__stderr__", StringIO())
        failing = self.service(Disk(DeviceError("one")))
        self.assertRaises(StartFailed, failing.startService)
        self.assertEqual(sys.__stderr__.getvalue(), "one\n")  # type: ignore[union-attr]
        service = self.service(MemoryDevice(512))
        lines = self.start(service)
        with capturedLogs() as events:
            service.startService()
        self.assertEqual((len(lines), events), (3, []))

    def test_many(self) -> None:
        """Of many targets only some are named, and how many there are."""
        lines = self.start(self.service(*(MemoryDevice(512) for _ in range(SHOWN + 5))))
        self.assertEqual(len(lines), SHOWN + 3)
        self.assertEqual(lines[-3], f"serving {SHOWN + 5} targets in all")

    def test_failedLate(self) -> None:
        """
        A start that fails after it seemed to go well is told of on the terminal, and ends the process; one
        that was given up does not.
        """
        for outcome, ends, text in ((DeviceError("gone"), 1, "gone\n"), (None, 0, "")):
            opening: Deferred[None] = Deferred()
            ended: list[int] = []
            terminal = KeptStringIO()
            service = self.service(Disk(opening), end=lambda ended=ended: ended.append(1), terminal=terminal)
            service.privilegedStartService()
            if outcome is not None:
                opening.errback(outcome)
            else:
                service.stopService()
                opening.callback(None)
            self.assertEqual((len(ended), terminal.text, terminal.closed), (ends, text, True))

    def test_newcomer(self) -> None:
        """A newcomer is told what the example is, and commands to try it."""
        lines = self.start(self.service(MemoryDevice(512), newcomer=True))
        self.assertIn("iscsi-target0", lines[-3])
        self.assertEqual(lines[-2], "Try it: iscsi-ls -s iscsi://0.0.0.0:3260/")
        self.assertTrue(lines[-1].endswith(f"iscsi://0.0.0.0:3260/{NAME}:t0/0"), lines[-1])

    def test_later(self) -> None:
        """A device that takes its time is announced when it is open."""
        opening: Deferred[None] = Deferred()
        service = self.service(Disk(opening))
        self.assertEqual(self.start(service), [])
        with capturedLogs() as events:
            opening.callback(None)
        self.assertEqual(formatEvent(events[0]), f"serving {NAME}:t0 LUN 0: 1024 bytes, a disk")

    def test_refused(self) -> None:
        """Faults are told on the standard error, which twistd may have replaced, and logged; then it ends."""
        error, replaced = StringIO(), StringIO()
        self.patch(sys, "__stderr__", error)
        self.patch(sys, "stderr", replaced)
        service = self.service(Disk(DeviceError("one")), Disk(DeviceError("two")))
        with capturedLogs() as events:
            failed = self.assertRaises(StartFailed, service.privilegedStartService)
        self.assertEqual((error.getvalue(), replaced.getvalue()), ("one\ntwo\n", ""))
        self.assertEqual(
            [event["line"] for event in events if event.get("event") == "failed"], ["one", "two"]
        )
        self.assertEqual((failed.code, str(failed)), (1, "one\ntwo"))
        self.assertIsInstance(failed, SystemExit)
        self.assertIsInstance(failed, Exception)

    def test_terminal(self) -> None:
        """A terminal that was kept for it gets the faults instead, and is closed, come what may."""
        terminal = KeptStringIO()
        service = self.service(Disk(DeviceError("one")), terminal=terminal)
        self.assertRaises(StartFailed, service.privilegedStartService)
        self.assertEqual(terminal.text, "one\n")
        terminal = KeptStringIO()
        self.start(self.service(Disk(None), terminal=terminal))
        self.assertEqual((terminal.closed, terminal.text), (True, ""))

    def test_descriptors(self) -> None:
        """The soft limit of descriptors becomes the hard one."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        raiseDescriptorLimit()
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (hard, hard))
