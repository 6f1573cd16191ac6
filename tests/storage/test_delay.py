# -*- test-case-name: tests.storage.test_delay -*-
"""Tests for L{iscsi_twisted.storage.delay}."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import LocalError, ReadError
from iscsi_twisted.storage import Delay, MemoryDevice
from tests.support.devicecontract import SIZE, DeviceContract
from tests.support.devices import FakeDevice


class DelayContract(DeviceContract, SynchronousTestCase):
    """A device behind L{Delay}."""

    def makeDevice(self) -> Any:
        self.clock = Clock()
        return Delay(MemoryDevice(SIZE), 0.1, self.clock)

    def settle(self) -> None:
        while self.clock.getDelayedCalls():
            self.clock.advance(0.1)


class DelayOffContract(DeviceContract, SynchronousTestCase):
    """A L{Delay} that is switched off."""

    def makeDevice(self) -> Any:
        return Delay(MemoryDevice(SIZE), 0.1, Clock(), active=False)


class DelayTests(SynchronousTestCase):
    """L{Delay}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.member = FakeDevice(100)
        self.device = Delay(self.member, 2.5, self.clock)

    def test_waits(self) -> None:
        """Each operation begins after the delay; they wait side by side."""
        calls: list[Any] = [
            self.device.read(0, 1),
            self.device.write(0, b"x"),
            self.device.flush(),
            self.device.discard(0, 1),
            self.device.zero(0, 1, True),
            self.device.allocated(0, 1),
        ]
        self.clock.advance(2.4)
        self.assertEqual(self.member.history, [])
        self.clock.advance(0.2)
        names = [name for name, _ in self.member.history]
        self.assertEqual(names, ["read", "write", "flush", "discard", "zero", "allocated"])
        self.member.fire()
        results = [self.successResultOf(call) for call in calls]
        self.assertEqual(results, [b"\0", None, None, None, None, [(1, True)]])

    def test_cancelWaiting(self) -> None:
        """An operation that is cancelled while it waits never begins, and leaves no timer."""
        result: Any = self.device.write(0, b"x")
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.member.history, [])

    def test_cancelBegun(self) -> None:
        """When it has begun the other device decides."""
        for obeys in (False, True):
            self.member.obeysCancel = obeys
            result: Any = self.device.read(0, 1)
            self.clock.advance(2.5)
            operation = self.member.operations[0]
            result.cancel()
            self.assertEqual(operation.cancelled, 1)
            if obeys:
                self.failureResultOf(result, CancelledError)
            else:
                self.assertNoResult(result)
                operation.fire()
                self.assertEqual(self.successResultOf(result), b"\0")

    def test_error(self) -> None:
        """An error arrives after the delay too."""
        self.member.error = ReadError("bad", 0)
        result: Any = self.device.read(0, 1)
        self.assertNoResult(result)
        self.clock.advance(2.5)
        self.failureResultOf(result, ReadError)

    def test_negative(self) -> None:
        """Time does not run backwards."""
        self.assertRaises(LocalError, Delay, self.member, -1.0, self.clock)

    def test_switch(self) -> None:
        """While it is switched off operations are the device's own; what waits goes on waiting."""
        waiting: Any = self.device.read(0, 1)
        self.device.active = False
        self.assertIs(self.device.read(0, 1), self.member.operations[0])
        self.assertIs(self.device.flush(), self.member.operations[1])
        self.assertNoResult(waiting)
        self.device.active = True
        self.device.seconds = 1.0
        self.device.write(0, b"x")
        self.clock.advance(1.0)
        self.assertEqual([name for name, _ in self.member.history], ["read", "flush", "write"])

    def delays(self, shape: str, spread: float = 0.0, seed: int = 1) -> list[float]:
        """When a thousand operations of a mean of 1 s begin."""
        clock = Clock()
        device = Delay(self.member, 1.0, clock, shape=shape, spread=spread, random=Random(seed))
        for _ in range(1000):
            device.flush()
        return sorted(call.getTime() for call in clock.getDelayedCalls())

    def test_shapes(self) -> None:
        """Delays are distributed as was asked, about their mean and never below zero."""
        uniform, normal = self.delays("uniform", 0.5), self.delays("normal", 0.5)
        exponential = self.delays("exponential")
        self.assertTrue(0.5 <= uniform[0] < 0.55 and 1.45 < uniform[-1] <= 1.5)
        self.assertTrue(normal[0] == 0.0 and 1.9 < normal[-1] < 4)
        self.assertTrue(exponential[-1] > 4)
        for times in (uniform, normal, exponential):
            self.assertTrue(0.9 < sum(times) / 1000 < 1.1)
        self.assertEqual(set(self.delays("fixed", 0.5)), {1.0})

    def test_repeats(self) -> None:
        """The same seed gives the same delays, another one others."""
        self.assertEqual(self.delays("normal", 0.5), self.delays("normal", 0.5))
        self.assertNotEqual(self.delays("normal", 0.5), self.delays("normal", 0.5, seed=2))

    def test_noShape(self) -> None:
        """A shape that is not known is an error, and so is a negative spread."""
        self.assertRaises(LocalError, Delay, self.member, 1.0, self.clock, shape="round")
        self.assertRaises(LocalError, Delay, self.member, 1.0, self.clock, spread=-1.0)
