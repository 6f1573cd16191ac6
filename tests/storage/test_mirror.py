# -*- test-case-name: tests.storage.test_mirror -*-
"""Tests for L{iscsi_twisted.storage.mirror}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import DeviceError, NotReady, ReadError, WriteError
from iscsi_twisted.interfaces import Capabilities
from iscsi_twisted.storage import MemoryDevice, Mirror
from tests.support.devicecontract import SIZE, DeviceContract
from tests.support.devices import FakeDevice


class SynchronousContract(DeviceContract, SynchronousTestCase):
    """Members that answer at once."""

    def makeDevice(self) -> Any:
        return Mirror([MemoryDevice(SIZE), MemoryDevice(SIZE), MemoryDevice(SIZE)])


class PendingContract(DeviceContract, SynchronousTestCase):
    """A member that answers later beside one that does not."""

    def makeDevice(self) -> Any:
        self.fake = FakeDevice(SIZE)
        return Mirror([self.fake, MemoryDevice(SIZE)])

    def settle(self) -> None:
        self.fake.fire()


class MirrorTests(SynchronousTestCase):
    """L{Mirror}."""

    def setUp(self) -> None:
        self.members = [FakeDevice(100), FakeDevice(100)]
        self.device = Mirror(self.members)
        self.assertIsNone(self.device.open(lambda: None))

    def test_sizes(self) -> None:
        """Members of different sizes are refused; both sizes are named, and all are closed again."""
        members = [FakeDevice(100), FakeDevice(100), FakeDevice(101)]
        error = self.assertRaises(DeviceError, Mirror(members).open, lambda: None)
        self.assertIn("100 bytes", str(error))
        self.assertTrue(str(error).endswith("101"), str(error))
        self.assertEqual([member.closings for member in members], [1, 1, 1])

    def test_sameEverywhere(self) -> None:
        """Whatever changes the device changes all members alike."""
        calls: list[Any] = [
            self.device.write(10, b"abcdef"),
            self.device.zero(11, 1, False),
            self.device.discard(13, 2),
            self.device.flush(),
        ]
        for member in self.members:
            member.fire()
        self.assertEqual([self.successResultOf(call) for call in calls], [None] * 4)
        self.assertEqual(self.members[0].history, self.members[1].history)
        self.assertEqual([name for name, _ in self.members[0].history], ["write", "zero", "discard", "flush"])
        for member in self.members:
            self.assertEqual(bytes(member.contents[9:17]), b"\0a\0c\0\0f\0")

    def test_writeWaits(self) -> None:
        """A write is done when it is done everywhere."""
        result: Any = self.device.write(0, b"x")
        self.members[0].fire()
        self.assertNoResult(result)
        self.members[1].fire()
        self.assertIsNone(self.successResultOf(result))

    def test_writeFails(self) -> None:
        """A write that fails on one member fails, when the others have ended."""
        result: Any = self.device.write(0, b"x")
        self.members[0].operations[0].fail(WriteError("bad", 0))
        self.assertNoResult(result)
        self.members[1].fire()
        self.failureResultOf(result, WriteError)

    def test_writeFailsAtOnce(self) -> None:
        """The other members are written even if the first refuses at once."""
        self.members[0].error = WriteError("bad")
        self.members[1].synchronous = True
        self.assertRaises(WriteError, self.device.write, 0, b"x")
        self.assertEqual(self.members[1].contents[:1], b"x")

    def test_readFirst(self) -> None:
        """Only the first member is read while it is good; its result is handed on as it is."""
        result: Any = self.device.read(0, 10)
        self.assertIs(result, self.members[0].operations[0])
        self.members[0].fire()
        self.assertEqual(self.successResultOf(result), bytes(10))
        self.assertEqual(self.members[1].history, [])

    def test_readNext(self) -> None:
        """If it fails, at once or later, the next one is read."""
        self.members[1].contents[:] = b"2" * 100
        result: Any = self.device.read(0, 3)
        self.members[0].operations[0].fail(ReadError("bad", 0))
        self.members[1].fire()
        self.assertEqual(self.successResultOf(result), b"222")
        self.members[0].error = OSError("bad")
        self.members[1].synchronous = True
        self.assertEqual(self.device.read(5, 2), b"22")

    def test_readNone(self) -> None:
        """If all fail the first member's error is told."""
        self.members[0].error = ReadError("first", 5)
        self.members[1].error = NotReady("second")
        error = self.assertRaises(ReadError, self.device.read, 0, 10)
        self.assertEqual((str(error), error.offset), ("first", 5))
        self.members[1].error = None
        result: Any = self.device.read(0, 10)
        self.members[1].operations[0].fail(NotReady("second"))
        self.failureResultOf(result, ReadError)

    def test_readCancelled(self) -> None:
        """A read that was cancelled is not tried elsewhere."""
        self.members[0].obeysCancel = True
        result: Any = self.device.read(0, 10)
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual(self.members[1].history, [])

    def test_cancelSecond(self) -> None:
        """When the next member is being read, cancelling reaches that one."""
        self.members[1].obeysCancel = True
        result: Any = self.device.read(0, 10)
        self.members[0].operations[0].fail(ReadError("bad", 0))
        result.cancel()
        self.failureResultOf(result, CancelledError)

    def test_cancelWrite(self) -> None:
        """Cancelling a write cancels it everywhere."""
        result: Any = self.device.write(0, b"x")
        operations = [member.operations[0] for member in self.members]
        result.cancel()
        self.assertEqual([operation.cancelled for operation in operations], [1, 1])
        for member in self.members:
            member.fire()
        self.assertIsNone(self.successResultOf(result))

    def test_discardDiffers(self) -> None:
        """A discard that might leave different bytes in the members is not passed on, nor promised."""
        members = [FakeDevice(100), FakeDevice(100, capabilities=Capabilities(discard=True))]
        device = Mirror(members)
        device.open(lambda: None)
        self.assertFalse(device.capabilities().discard)
        self.assertIsNone(device.discard(0, 100))
        self.assertEqual([member.history for member in members], [[], []])

    def test_capabilities(self) -> None:
        """It promises what all members keep, and what one alone may spoil."""
        good = Capabilities(discard=True, zero=True, allocated=True, discardZeroes=True)
        poor = Capabilities(volatileCache=True, rotational=True, readOnly=True, retains=True)
        both = Mirror([FakeDevice(1, capabilities=good), FakeDevice(1, capabilities=poor)])
        self.assertEqual(both.capabilities(), poor)
        self.assertEqual(Mirror([FakeDevice(1, capabilities=good)] * 2).capabilities(), good)

    def test_nested(self) -> None:
        """Mirrors of mirrors write every member and compare sizes however deep."""
        members = [FakeDevice(100, synchronous=True) for _ in range(4)]
        device = Mirror([Mirror(members[:2]), Mirror(members[2:])])
        device.open(lambda: None)
        device.write(50, b"deep")
        self.assertEqual([bytes(member.contents[50:54]) for member in members], [b"deep"] * 4)
        members[3].size = 99
        self.assertRaises(DeviceError, Mirror([Mirror(members[:2]), Mirror(members[2:])]).open, lambda: None)
