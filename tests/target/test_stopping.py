# -*- test-case-name: tests.target.test_stopping -*-
"""How the service stops, in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import (
    DeviceError,
    LocalError,
)
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import numbers
from tests.support import pdus
from tests.support.devices import Door, Stubborn
from tests.support.served import MemoryService


class StopTests(SynchronousTestCase):
    """Tests of stopping."""

    def started(self, *devices: Any, **options: Any) -> MemoryService:
        """A service that runs."""
        memory = MemoryService(*(devices or (MemoryDevice(1 << 20),)), **options)
        memory.service.startService()
        return memory

    def test_atOnce(self) -> None:
        """Without connections it stops at once, and leaves no timer."""
        door = Door()
        memory = self.started(door)
        self.successResultOf(memory.service.stopService())
        self.assertEqual((door.calls, memory.listening), (["open", "close"], 0))
        self.assertEqual(memory.reactor.getDelayedCalls(), [])

    def test_neverStarted(self) -> None:
        """Stopping what never started does nothing."""
        memory = MemoryService(Door())
        self.successResultOf(memory.service.stopService())

    def test_logout(self) -> None:
        """Sessions are asked to log out; when they have, devices are closed."""
        door = Door()
        memory = self.started(door)
        line = memory.line()
        line.login()
        stopping = memory.service.stopService()
        (request,) = line.take()
        self.assertEqual((request["opcode"], request["event"]), (numbers.ASYNC_MESSAGE, 1))
        self.assertEqual(request["parameter3"], 2)
        self.assertNotIn("close", door.calls)
        line.say(pdus.logoutRequest())
        line.lose()
        self.successResultOf(stopping)
        self.assertEqual(door.calls[-1], "close")

    def test_deaf(self) -> None:
        """Sessions that do not log out are ended, and cut if they do not take what is left for them."""
        door = Door()
        memory = self.started(door, stopTime=8.0)
        line = memory.line()
        line.login()
        stopping = memory.service.stopService()
        memory.reactor.advance(3.9)
        self.assertFalse(line.transport.disconnecting)
        memory.reactor.advance(0.2)
        self.assertTrue(line.transport.disconnecting)
        self.assertFalse(line.transport.disconnected)
        memory.reactor.advance(2.0)
        self.assertTrue(line.transport.disconnected)
        self.successResultOf(stopping)
        self.assertEqual(door.calls[-1], "close")
        line.lose()

    def test_unfinishedLogin(self) -> None:
        """A connection that has not logged in is not waited for."""
        memory = self.started()
        line = memory.line()
        stopping = memory.service.stopService()
        self.assertTrue(line.transport.disconnecting)
        line.lose()
        self.successResultOf(stopping)

    def test_flushed(self) -> None:
        """A device with a cache that was used is flushed before it is closed."""
        door = Door()
        memory = self.started(door)
        line = memory.line()
        line.login()
        line.say(pdus.scsiCommand(bytes(6), itt=1, cmdSN=1))
        line.lose()
        self.successResultOf(memory.service.stopService())
        self.assertEqual(door.calls, ["open", "flush", "close"])

    def test_failures(self) -> None:
        """A device that cannot be flushed or closed is logged, and keeps no other from being closed."""
        bad, good = Door(flushing=DeviceError("full"), closing=DeviceError("stuck")), Door()
        memory = self.started(bad, good)
        line = memory.line()
        line.login()
        line.say(pdus.scsiCommand(bytes(6), itt=1, cmdSN=1))
        line.lose()
        with capturedLogs() as events:
            self.successResultOf(memory.service.stopService())
        shown = [formatEvent(event) for event in events if event.get("event") == "unclosed"]
        self.assertEqual(shown, ["Door could not be flushed: full", "Door could not be closed: stuck"])
        self.assertEqual(good.calls[-1], "close")

    def test_neverClosed(self) -> None:
        """A device that never closes does not hold the stop up beyond its time."""
        memory = self.started(Door(closing=Stubborn()))
        stopping = memory.service.stopService()
        memory.reactor.advance(4.9)
        self.assertNoResult(stopping)
        with capturedLogs() as events:
            memory.reactor.advance(0.1)
        self.successResultOf(stopping)
        self.assertEqual(
            [formatEvent(event) for event in events],
            ["not all devices could be flushed and closed within 5.0 s"],
        )

    def test_restart(self) -> None:
        """A stopped service can be started again, and serves as before."""
        door = Door()
        memory = self.started(door)
        for _ in range(2):
            line = memory.line()
            self.assertEqual(line.login()["status"], 0)
            line.lose()
            self.successResultOf(memory.service.stopService())
            memory.service.startService()
            self.assertEqual((memory.listening, len(memory.service.factories)), (1, 1))
        self.assertEqual(door.calls, ["open", "close"] * 2 + ["open"])

    def test_tooSoon(self) -> None:
        """It is not started while it is still stopping."""
        closing: Deferred[None] = Deferred()
        memory = self.started(Door(closing=closing))
        stopping = memory.service.stopService()
        self.assertRaises(LocalError, memory.service.startService)
        closing.callback(None)
        self.successResultOf(stopping)

    def test_whileStarting(self) -> None:
        """Stopped while a device is being opened: it is cancelled, the others are closed, nobody listens."""
        door, good = Door(opening=Deferred()), Door()
        memory = MemoryService(door, good)
        ready = memory.service.whenReady()
        memory.service.startService()
        self.successResultOf(memory.service.stopService())
        self.failureResultOf(ready, LocalError)
        self.assertEqual((door.calls, good.calls), (["open"], ["open", "close"]))
        self.assertEqual(memory.reactor.tcpServers, [])
        door.opening = None
        memory.service.startService()
        self.assertEqual(memory.listening, 1)

    def test_stubbornOpening(self) -> None:
        """If opening cannot be cancelled the device is closed once it is open, and it never listens."""
        opening = Stubborn()
        door = Door(opening=opening)
        memory = MemoryService(door)
        memory.service.startService()
        stopping = memory.service.stopService()
        memory.reactor.pump([1.0] * 6)
        self.successResultOf(stopping)
        self.assertRaises(LocalError, memory.service.startService)
        opening.callback(None)
        self.assertEqual((door.calls, memory.reactor.tcpServers), (["open", "close"], []))
        door.opening = None
        memory.service.startService()
        self.assertEqual(memory.listening, 1)
