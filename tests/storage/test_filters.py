# -*- test-case-name: tests.storage.test_filters -*-
"""Tests for L{iscsi_twisted.storage.filters}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import LocalError, ReadError
from iscsi_twisted.interfaces import Capabilities
from iscsi_twisted.storage import Delay, MemoryDevice, ReadOnly
from iscsi_twisted.storage.filters import Filter
from tests.support.devicecontract import SIZE, DeviceContract, ProtectedContract
from tests.support.devices import FakeDevice


class FilterContract(DeviceContract, SynchronousTestCase):
    """A filter that changes nothing."""

    def makeDevice(self) -> Any:
        return Filter(MemoryDevice(SIZE))


class ReadOnlyContract(ProtectedContract, SynchronousTestCase):
    """A device behind L{ReadOnly}."""

    def initial(self) -> bytes:
        return bytes(range(256)) * (SIZE // 256)

    def makeDevice(self) -> Any:
        device = FakeDevice(SIZE, synchronous=True)
        device.contents[:] = self.initial()
        return ReadOnly(device)


class DelayContract(DeviceContract, SynchronousTestCase):
    """A device behind L{Delay}."""

    def makeDevice(self) -> Any:
        self.clock = Clock()
        return Delay(MemoryDevice(SIZE), 0.1, self.clock)

    def settle(self) -> None:
        while self.clock.getDelayedCalls():
            self.clock.advance(0.1)


class FilterTests(SynchronousTestCase):
    """What L{Filter} passes on."""

    def test_life(self) -> None:
        """Opening, closing, size, blocks and capabilities are the other device's."""
        capabilities = Capabilities(rotational=True, allocated=True)
        member = FakeDevice(8192, 4096, capabilities)
        filter_ = Filter(member)
        filter_.open(self.fail)
        self.assertEqual(member.changed, self.fail)
        self.assertEqual(
            (filter_.size, filter_.blockSize, filter_.capabilities()), (8192, 4096, capabilities)
        )
        filter_.close()
        self.assertEqual(member.closings, 1)
        self.assertEqual(str(filter_), "Filter(FakeDevice)")

    def test_readOnlyCapabilities(self) -> None:
        """Behind ReadOnly nothing can be discarded or zeroed, but holes are told."""
        member = FakeDevice(capabilities=Capabilities(True, True, True, True, True, True, True))
        self.assertEqual(
            ReadOnly(member).capabilities(),
            Capabilities(readOnly=True, volatileCache=True, allocated=True, rotational=True),
        )


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
