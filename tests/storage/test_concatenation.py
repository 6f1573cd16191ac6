# -*- test-case-name: tests.storage.test_concatenation -*-
"""Tests for L{iscsi_twisted.storage.concatenation}."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import DeviceError, ReadError, WriteError
from iscsi_twisted.interfaces import Capabilities
from iscsi_twisted.storage import Concatenation, MemoryDevice
from tests.support.devicecontract import SIZE, DeviceContract
from tests.support.devices import FakeDevice


class SynchronousContract(DeviceContract, SynchronousTestCase):
    """Members of different sizes that answer at once."""

    def makeDevice(self) -> Any:
        return Concatenation([MemoryDevice(10000), MemoryDevice(1), MemoryDevice(SIZE - 10001)])


class PendingContract(DeviceContract, SynchronousTestCase):
    """Members that answer later, one that does not, and one that is a concatenation itself."""

    def makeDevice(self) -> Any:
        self.fakes = [FakeDevice(4096), FakeDevice(30000)]
        return Concatenation(
            [self.fakes[0], MemoryDevice(512), Concatenation([self.fakes[1], MemoryDevice(SIZE - 34608)])]
        )

    def settle(self) -> None:
        while any(fake.operations for fake in self.fakes):
            for fake in self.fakes:
                fake.fire()


class ConcatenationTests(SynchronousTestCase):
    """L{Concatenation}."""

    def setUp(self) -> None:
        self.members = [FakeDevice(100), FakeDevice(50), FakeDevice(200)]
        self.device = Concatenation(self.members)
        self.assertIsNone(self.device.open(lambda: None))

    def begun(self) -> list[list[tuple[str, tuple[Any, ...]]]]:
        """What was asked of each member."""
        return [member.history for member in self.members]

    def test_size(self) -> None:
        """It is as large as all members together."""
        self.assertEqual(self.device.size, 350)

    def test_straight(self) -> None:
        """What lies within one member is its own result: no copy, no second Deferred."""
        result: Any = self.device.read(100, 50)
        self.assertIs(result, self.members[1].operations[0])
        self.assertEqual(self.begun(), [[], [("read", (0, 50))], []])
        for member in self.members:
            member.synchronous = True
        data = bytes(self.device.read(150, 200))
        self.assertEqual(data, bytes(200))

    def test_split(self) -> None:
        """A read that spans members runs on them side by side and is joined."""
        for index, member in enumerate(self.members):
            member.contents[:] = bytes([65 + index]) * member.size
        result: Any = self.device.read(98, 54)
        self.assertEqual(self.begun(), [[("read", (98, 2))], [("read", (0, 50))], [("read", (0, 2))]])
        for member in reversed(self.members):
            member.fire()
        self.assertEqual(self.successResultOf(result), b"AA" + b"B" * 50 + b"CC")

    def test_splitWrite(self) -> None:
        """A write that spans members is done when all parts are."""
        result: Any = self.device.write(99, b"abbbc"[:2] + b"x" * 48 + b"yz")
        self.assertEqual(
            self.begun(),
            [[("write", (99, b"a"))], [("write", (0, b"b" + b"x" * 48 + b"y"))], [("write", (0, b"z"))]],
        )
        self.members[0].fire()
        self.members[2].fire()
        self.assertNoResult(result)
        self.members[1].fire()
        self.assertIsNone(self.successResultOf(result))

    def test_noCopy(self) -> None:
        """The parts of a write are views of what was given."""
        parts: list[Any] = []
        for member in self.members:
            member.write = lambda offset, data: parts.append(data)  # type: ignore[method-assign]
        device = Concatenation(self.members)
        device.open(lambda: None)
        whole = b"x" * 4
        device.write(98, whole)
        self.assertEqual([part.obj is whole for part in parts], [True, True])

    def test_offsetNow(self) -> None:
        """The offset in a member's error is that of the whole device, at once."""
        self.members[1].error = ReadError("bad", 7)
        self.assertEqual(self.assertRaises(ReadError, self.device.read, 100, 50).offset, 107)

    def test_offsetLater(self) -> None:
        """So it is later."""
        result: Any = self.device.write(149, b"xy")
        self.members[1].operations[0].fire()
        self.members[2].operations[0].fail(WriteError("bad", 0))
        self.assertEqual(self.failureResultOf(result, WriteError).value.offset, 150)

    def test_offsetUnknown(self) -> None:
        """An error without offset, or of another kind, passes as it is."""
        first: Any = self.device.read(100, 1)
        self.members[1].operations[0].fail(ReadError("bad"))
        self.assertIsNone(self.failureResultOf(first, ReadError).value.offset)
        second: Any = self.device.read(100, 1)
        self.members[1].operations[0].fail(OSError("bad"))
        self.failureResultOf(second, OSError)

    def test_system(self) -> None:
        """An input/output error of the system is one of the medium, at the first byte that it may mean."""
        self.members[1].error = OSError(errno.EIO, "bad")
        self.assertEqual(self.assertRaises(ReadError, self.device.read, 103, 5).offset, 103)
        self.assertEqual(self.assertRaises(WriteError, self.device.write, 104, b"x").offset, 104)
        self.assertEqual(self.assertRaises(WriteError, self.device.discard, 105, 5).offset, 105)
        self.members[1].error = None
        for first, member, wanted in ((3, 0, 3), (103, 1, 103)):
            result: Any = self.device.read(first, 5)
            self.members[member].operations[0].fail(OSError(errno.EIO, "bad"))
            self.assertEqual(self.failureResultOf(result, ReadError).value.offset, wanted)
        result = self.device.write(90, bytes(100))
        self.members[2].operations[0].fail(OSError(errno.EIO, "bad"))
        self.members[1].operations[0].fail(OSError(errno.EIO, "bad"))
        self.members[0].operations[0].fire()
        self.assertEqual(self.failureResultOf(result, WriteError).value.offset, 100)
        result = self.device.read(90, 20)
        self.members[0].operations[0].fire()
        self.members[1].operations[0].fail(OSError(errno.EIO, "bad"))
        self.assertEqual(self.failureResultOf(result, ReadError).value.offset, 100)
        for error, wanted in ((OSError(errno.EIO, "bad"), 104), (WriteError("bad", 5), 105)):
            result = self.device.write(104, b"xx")
            self.members[1].operations[0].fail(error)
            self.assertEqual(self.failureResultOf(result, WriteError).value.offset, wanted)
        full = self.device.write(160, b"x")
        self.members[2].operations[0].fail(OSError(errno.ENOSPC, "full"))
        self.failureResultOf(full, OSError)

    def test_offsetOfPart(self) -> None:
        """In what spans members an error without offset is where its part begins; the lowest is told."""
        result: Any = self.device.read(90, 100)
        self.members[2].operations[0].fail(ReadError("bad", 3))
        self.members[1].operations[0].fail(ReadError("bad"))
        self.members[0].fire()
        self.assertEqual(self.failureResultOf(result, ReadError).value.offset, 100)
        result = self.device.write(90, bytes(100))
        self.members[2].operations[0].fail(WriteError("bad"))
        self.members[1].operations[0].fire()
        self.members[0].operations[0].fire()
        self.assertEqual(self.failureResultOf(result, WriteError).value.offset, 150)

    def test_offsetNested(self) -> None:
        """Through several layers the offset grows by each."""
        inner = Concatenation([FakeDevice(10), self.members[0]])
        outer = Concatenation([FakeDevice(1000), inner])
        outer.open(lambda: None)
        self.members[0].error = ReadError("bad", 3)
        self.assertEqual(self.assertRaises(ReadError, outer.read, 1010, 5).offset, 1013)

    def test_cancel(self) -> None:
        """Cancelling a split operation cancels its parts."""
        result: Any = self.device.read(0, 350)
        operations = [member.operations[0] for member in self.members]
        result.cancel()
        self.assertEqual([operation.cancelled for operation in operations], [1, 1, 1])
        self.assertNoResult(result)
        for member in self.members:
            member.fire()
        self.assertEqual(self.successResultOf(result), bytes(350))

    def test_cancelObeyed(self) -> None:
        """If the members obey it ends as cancelled."""
        for member in self.members:
            member.obeysCancel = True
        result: Any = self.device.read(0, 350)
        result.cancel()
        self.failureResultOf(result, CancelledError)

    def test_flush(self) -> None:
        """A flush goes to every member, and an error of one is told when all have ended."""
        result: Any = self.device.flush()
        self.members[0].operations[0].fail(WriteError("bad"))
        self.members[1].fire()
        self.assertNoResult(result)
        self.members[2].fire()
        self.failureResultOf(result, WriteError)

    def test_empty(self) -> None:
        """A member of no bytes is asked for none."""
        members = [FakeDevice(100, synchronous=True), FakeDevice(0), FakeDevice(100, synchronous=True)]
        device = Concatenation(members)
        device.open(lambda: None)
        self.assertIsNone(device.write(90, b"x" * 20))
        self.assertEqual(bytes(device.read(90, 20)), b"x" * 20)
        self.assertEqual(members[1].history, [])

    def test_spread(self) -> None:
        """Discards, zeroing and allocation go to the members whose bytes they are."""
        calls: list[Any] = [
            self.device.discard(90, 20),
            self.device.zero(140, 20, True),
            self.device.allocated(0, 350),
        ]
        self.assertEqual(
            self.begun(),
            [
                [("discard", (90, 10)), ("allocated", (0, 100))],
                [("discard", (0, 10)), ("zero", (40, 10, True)), ("allocated", (0, 50))],
                [("zero", (0, 10, True)), ("allocated", (0, 200))],
            ],
        )
        for member in self.members:
            member.fire()
        results = [self.successResultOf(call) for call in calls]
        self.assertEqual(results, [None, None, [(100, True), (50, True), (200, True)]])

    def test_capabilities(self) -> None:
        """It promises what all members keep, and what one alone may spoil."""
        good = Capabilities(discard=True, zero=True, allocated=True, discardZeroes=True)
        poor = Capabilities(volatileCache=True, rotational=True, readOnly=True, retains=True)
        both = Concatenation([FakeDevice(1, capabilities=good), FakeDevice(1, capabilities=poor)])
        self.assertEqual(
            both.capabilities(),
            Capabilities(
                readOnly=True, volatileCache=True, discard=True, allocated=True, rotational=True, retains=True
            ),
        )
        self.assertEqual(Concatenation([FakeDevice(1, capabilities=good)] * 2).capabilities(), good)
        able = Capabilities(space=True)
        for second in (able, Capabilities()):
            both = Concatenation([FakeDevice(1, capabilities=able), FakeDevice(1, capabilities=second)])
            self.assertEqual(both.capabilities().space, second.space)

    def test_blockSize(self) -> None:
        """Blocks are whole blocks of every member."""
        device = Concatenation([FakeDevice(4096, 512), FakeDevice(8192, 4096)])
        device.open(lambda: None)
        self.assertEqual(device.blockSize, 4096)

    def test_crookedBlocks(self) -> None:
        """A boundary within a block is refused, and all members are closed again."""
        members = [FakeDevice(512, 512), FakeDevice(8192, 4096)]
        error = self.assertRaises(DeviceError, Concatenation(members).open, lambda: None)
        self.assertIn("512 bytes are no multiple of the block size, 4096", str(error))
        self.assertEqual([member.closings for member in members], [1, 1])
