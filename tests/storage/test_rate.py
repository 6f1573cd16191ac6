# -*- test-case-name: tests.storage.test_rate -*-
"""Tests for L{iscsi_twisted.storage.rate}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import LocalError
from iscsi_twisted.storage import MemoryDevice, Rate
from tests.support.devicecontract import SIZE, DeviceContract
from tests.support.devices import FakeDevice


class RateContract(DeviceContract, SynchronousTestCase):
    """A device behind L{Rate}."""

    def makeDevice(self) -> Any:
        self.clock = Clock()
        return Rate(MemoryDevice(SIZE), self.clock, iops=100, bandwidth=1 << 20, burst=0.02)

    def settle(self) -> None:
        while self.clock.getDelayedCalls():
            self.clock.advance(0.1)


class RateOffContract(DeviceContract, SynchronousTestCase):
    """A L{Rate} that is switched off."""

    def makeDevice(self) -> Any:
        return Rate(MemoryDevice(SIZE), Clock(), iops=1, active=False)


class RateTests(SynchronousTestCase):
    """L{Rate}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.member = FakeDevice(1 << 20, synchronous=True)

    def rate(self, **limits: Any) -> Rate:
        """A device with limits."""
        return Rate(self.member, self.clock, **limits)

    def begun(self) -> int:
        """How many operations have reached the device."""
        return len(self.member.history)

    def test_operations(self) -> None:
        """So many operations a second begin, after those that were saved up, in their order."""
        device = self.rate(iops=8, burst=0.375)
        for offset in range(20):
            device.write(offset, b"x")
        self.assertEqual((self.begun(), device.waiting), (4, 16))
        for more in range(1, 11):
            self.clock.advance(0.125)
            self.assertEqual(self.begun(), 4 + more)
        self.clock.pump([0.125] * 6)
        self.assertEqual([arguments[0] for _, arguments in self.member.history], list(range(20)))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_toldBefore(self) -> None:
        """Who asked for the result while it waited gets that of the member, or its error."""
        device, outcomes = self.rate(iops=1, burst=0), []
        device.write(0, b"abc")
        reading: Any = device.read(0, 3)
        reading.addBoth(outcomes.append)
        failing: Any = device.read(1 << 20, 1)
        failing.addErrback(lambda failure: outcomes.append(failure.type))
        self.clock.pump([1, 1])
        self.assertEqual(outcomes, [b"abc", LocalError])

    def test_cancelObeyed(self) -> None:
        """What has begun is cancelled in the member."""
        self.member.obeysCancel = True
        device = self.rate(iops=1, burst=0)
        device.write(0, b"abc")
        self.member.synchronous = False
        reading: Any = device.read(0, 3)
        self.clock.advance(1)
        reading.cancel()
        self.failureResultOf(reading, CancelledError)
        self.assertEqual(self.member.operations, [])

    def test_bytes(self) -> None:
        """So many bytes a second are read and written; a large operation makes those behind it wait."""
        device = self.rate(bandwidth=1000, burst=0)
        self.assertEqual(device.read(0, 3000), bytes(3000))
        result: Any = device.write(0, b"x")
        self.clock.advance(2.9)
        self.assertNoResult(result)
        self.clock.advance(0.1)
        self.assertIsNone(self.successResultOf(result))

    def test_both(self) -> None:
        """The tighter of two limits decides."""
        device = self.rate(iops=1000, bandwidth=100, burst=0)
        device.read(0, 100)
        flush: Any = device.flush()
        self.clock.advance(0.5)
        self.assertNoResult(flush)
        self.clock.advance(0.5)
        self.assertIsNone(self.successResultOf(flush))

    def test_all(self) -> None:
        """Whatever works on the medium is one operation; looking for holes is none."""
        device = self.rate(iops=8, burst=0)
        device.read(0, 1)
        results: list[Any] = [device.flush(), device.discard(0, 1), device.zero(0, 1, True)]
        self.assertEqual(device.allocated(0, 1), [(1, True)])
        for number, result in enumerate(results):
            self.assertEqual(device.waiting, 3 - number)
            self.clock.advance(0.125)
            self.successResultOf(result)

    def test_savedUp(self) -> None:
        """However long it was idle, no more is saved up than the burst."""
        device = self.rate(iops=10, burst=0.2)
        self.clock.advance(1000)
        for _ in range(10):
            device.flush()
        self.assertEqual(self.begun(), 3)

    def test_switch(self) -> None:
        """When it is switched off all that waits begins, and all else at once."""
        device = self.rate(iops=1, burst=0)
        for _ in range(5):
            device.flush()
        self.assertEqual(self.begun(), 1)
        self.assertTrue(device.active)
        device.active = False
        self.assertEqual(self.begun(), 5)
        self.assertEqual(device.read(0, 1), b"\0")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_change(self) -> None:
        """Other limits hold for what waits too."""
        device = self.rate(iops=0.001, burst=0)
        for _ in range(5):
            device.flush()
        device.limit(iops=8, burst=0)
        self.clock.pump([0.125] * 4)
        self.assertEqual((self.begun(), device.waiting), (5, 0))
        device.limit()
        device.flush()
        device.flush()
        self.assertEqual(self.begun(), 7)

    def test_cancel(self) -> None:
        """What is cancelled while it waits is never made, and costs nothing."""
        device = self.rate(iops=1, burst=0)
        device.flush()
        dropped: Any = device.write(0, b"x")
        kept: Any = device.read(0, 1)
        dropped.cancel()
        self.failureResultOf(dropped, CancelledError)
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(kept), b"\0")
        self.assertEqual([name for name, _ in self.member.history], ["flush", "read"])
        kept.cancel()

    def test_cancelAll(self) -> None:
        """When all that waited was cancelled nothing is left to be done; what has ended is not cancelled."""
        device = self.rate(iops=1, burst=0)
        done: Any = device.flush()
        result: Any = device.flush()
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual((done, device.waiting, self.clock.getDelayedCalls()), (None, 0, []))
        late: Any = device.flush()
        self.clock.advance(1)
        late.cancel()
        self.assertIsNone(self.successResultOf(late))

    def test_noLimits(self) -> None:
        """By default there are none, and what is set later has a tenth of a second saved up."""
        device = self.rate()
        for _ in range(1000):
            self.assertEqual(device.read(0, 1), b"\0")
        device.limit(iops=100)
        self.clock.advance(60)
        waiting = [device.read(0, 1) for _ in range(20)]
        self.assertEqual(sum(isinstance(each, bytes) for each in waiting), 11)
        device.active = False

    def test_cancelBegun(self) -> None:
        """When it has begun the device decides."""
        self.member.synchronous = False
        device = self.rate(iops=1, burst=0)
        device.flush()
        result: Any = device.read(0, 1)
        self.clock.advance(1)
        result.cancel()
        self.assertEqual(self.member.operations[1].cancelled, 1)
        self.member.fire()
        self.assertEqual(self.successResultOf(result), b"\0")

    def test_again(self) -> None:
        """Who asks for more when something ends waits behind those who asked before."""
        device = self.rate(iops=1, burst=0)
        device.flush()
        first: Any = device.read(1, 1)
        again: list[Any] = []
        first.addCallback(lambda _: again.append(device.read(3, 1)))
        device.read(2, 1)
        self.clock.pump([1.0] * 3)
        self.assertEqual([arguments for _, arguments in self.member.history], [(), (1, 1), (2, 1), (3, 1)])

    def test_negative(self) -> None:
        """A limit is not negative."""
        for limit in ("iops", "bandwidth", "burst"):
            self.assertRaises(LocalError, self.rate, **{limit: -1})
