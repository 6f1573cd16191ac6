# -*- test-case-name: tests.storage.test_stripe -*-
"""Tests for L{iscsi_twisted.storage.stripe}."""

from __future__ import annotations

import errno
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import DeviceError, LocalError, ReadError, WriteError
from iscsi_twisted.storage import Concatenation, MemoryDevice, Stripe
from tests.support.devicecontract import SIZE, DeviceContract, modelSettings
from tests.support.devices import FakeDevice

CHUNK = 100


class StripeContract(DeviceContract, SynchronousTestCase):
    """A stripe over three members."""

    def makeDevice(self) -> Any:
        return Stripe([MemoryDevice(SIZE // 3) for _ in range(3)], 4096)


class PendingStripeContract(DeviceContract, SynchronousTestCase):
    """A stripe whose members answer later, in any order."""

    def makeDevice(self) -> Any:
        self.members = [FakeDevice(SIZE // 2 + 5) for _ in range(2)]
        return Stripe(self.members, 1024)

    def settle(self) -> None:
        random = Random(5)
        while waiting := [operation for member in self.members for operation in member.operations]:
            random.choice(waiting).fire()


class StripeTests(SynchronousTestCase):
    """Where things go."""

    def setUp(self) -> None:
        self.members = [FakeDevice(1050) for _ in range(3)]
        self.device = Stripe(self.members, CHUNK)
        self.device.open(lambda: None)

    def histories(self) -> list[Any]:
        """What was begun on each member, since the last question."""
        histories = [list(member.history) for member in self.members]
        for member in self.members:
            del member.history[:]
        return histories

    def test_size(self) -> None:
        """Only whole chunks count."""
        self.assertEqual(self.device.size, 3000)

    def test_within(self) -> None:
        """What lies within a chunk is one operation, and the member's own result."""
        result = self.device.read(410, 50)
        self.assertIs(result, self.members[1].operations[0])
        self.assertEqual(self.histories(), [[], [("read", (110, 50))], []])

    def test_spans(self) -> None:
        """What spans chunks is one operation for each member, and all run at once."""
        result: Any = self.device.write(250, bytes(range(200)) + bytes(range(200)))
        written = self.histories()
        data = bytes(range(200)) * 2
        self.assertEqual(
            written,
            [
                [("write", (100, data[50:150] + data[350:400]))],
                [("write", (100, data[150:250]))],
                [("write", (50, data[:50] + data[250:350]))],
            ],
        )
        for member in reversed(self.members):
            self.assertNoResult(result)
            member.fire()
        self.successResultOf(result)
        reading: Any = self.device.read(250, 400)
        for member in reversed(self.members):
            member.fire()
        self.assertEqual(self.successResultOf(reading), data)

    def test_errorOffset(self) -> None:
        """A member's error tells the byte of the stripe, at once and later, within a chunk and beyond."""
        for offset, length in ((410, 50), (0, 3000)):
            result: Any = self.device.read(offset, length)
            self.members[1].operations[0].fail(ReadError("bad", 120))
            for member in self.members:
                member.fire()
            self.assertEqual(self.failureResultOf(result, ReadError).value.offset, 420)
        self.members[1].error = ReadError("bad", 120)
        self.assertEqual(self.assertRaises(ReadError, self.device.read, 410, 50).offset, 420)

    def test_system(self) -> None:
        """An input/output error of the system is one of the medium, at the first byte that it may mean."""
        self.members[1].error = OSError(errno.EIO, "bad")
        self.assertEqual(self.assertRaises(ReadError, self.device.read, 410, 50).offset, 410)
        writing: Any = self.device.write(390, bytes(30))
        self.members[0].operations[0].fire()
        self.assertEqual(self.failureResultOf(writing, WriteError).value.offset, 400)
        self.members[1].error = None
        result: Any = self.device.read(410, 5)
        self.members[1].operations[0].fail(OSError(errno.EIO, "bad"))
        self.assertEqual(self.failureResultOf(result, ReadError).value.offset, 410)

    def test_lowestError(self) -> None:
        """Of several errors the one with the lowest address is told."""
        result: Any = self.device.write(0, bytes(900))
        self.members[0].operations[0].fail(WriteError("bad", 250))
        self.members[1].operations[0].fail(WriteError("bad", 150))
        self.members[2].operations[0].fail(WriteError("bad", 199))
        self.assertEqual(self.failureResultOf(result, WriteError).value.offset, 450)

    def test_unplacedError(self) -> None:
        """A member that does not say where it failed did so at the beginning of its part."""
        result: Any = self.device.read(250, 400)
        self.members[1].operations[0].fail(ReadError("bad"))
        for member in self.members:
            member.fire()
        self.assertEqual(self.failureResultOf(result, ReadError).value.offset, 400)

    def test_othersGoOn(self) -> None:
        """A member that fails spoils what it has, and nothing else."""
        self.members[1].error = ReadError("dead", 0)
        for member in (self.members[0], self.members[2]):
            member.synchronous = True
        self.assertEqual(self.device.read(0, 100), bytes(100))
        self.assertEqual(self.device.read(200, 200), bytes(200))
        self.assertRaises(ReadError, self.device.read, 0, 101)

    def test_flush(self) -> None:
        """All members are flushed, and one failure is told."""
        result: Any = self.device.flush()
        self.assertEqual([len(member.operations) for member in self.members], [1, 1, 1])
        self.members[0].operations[0].fail(WriteError("bad"))
        self.members[1].fire()
        self.assertNoResult(result)
        self.members[2].fire()
        self.assertIsNone(self.failureResultOf(result, WriteError).value.offset)

    def test_unequal(self) -> None:
        """Members of several sizes are refused, and closed again."""
        members = [FakeDevice(1000), FakeDevice(1001)]
        error = self.assertRaises(DeviceError, Stripe(members, CHUNK).open, lambda: None)
        self.assertIn("have to be of one size", str(error))
        self.assertEqual([member.closings for member in members], [1, 1])

    def test_unfit(self) -> None:
        """So are chunks of no whole blocks, and members less than a chunk."""
        crooked = Stripe([FakeDevice(1024, 512)] * 2, 100)
        self.assertIn(
            "no multiple of the block size", str(self.assertRaises(DeviceError, crooked.open, lambda: None))
        )
        short = Stripe([FakeDevice(50)] * 2, 100)
        self.assertIn("less than a chunk", str(self.assertRaises(DeviceError, short.open, lambda: None)))
        self.assertRaises(LocalError, Stripe, [FakeDevice(50)], 0)

    def test_rows(self) -> None:
        """Allocation is told by rows; a terabyte without data is one run."""
        members = [MemoryDevice(1 << 20) for _ in range(2)]
        for member in members:
            member.allocated = lambda offset, length: [(length, False)]  # type: ignore[method-assign]
        device = Stripe(members, 4096)
        device.open(lambda: None)
        self.addCleanup(device.close)
        self.assertEqual(device.allocated(5, 1 << 20), [(1 << 20, False)])
        members[1].allocated = lambda offset, length: [(8192, False), (1, True), (length - 8193, False)]  # type: ignore[method-assign]
        self.assertEqual(
            device.allocated(0, 1 << 20), [(16384, False), (8192, True), ((1 << 20) - 24576, False)]
        )
        self.assertEqual(device.allocated(4096, 4096)[0], (8192, False))

    @modelSettings
    @given(st.integers(1, 5), st.integers(1, 7), st.data())
    def test_mapping(self, count: int, chunk: int, data: st.DataObject) -> None:
        """Any chunk lies where turns put it, next to a stripe in a concatenation too."""
        members = [FakeDevice(chunk * 4, synchronous=True) for _ in range(count)]
        device = Concatenation([FakeDevice(3, synchronous=True), Stripe(members, chunk)])
        device.open(lambda: None)
        model = bytearray(device.size)
        for _ in range(data.draw(st.integers(1, 6))):
            offset = data.draw(st.integers(0, device.size))
            text = data.draw(st.binary(max_size=device.size - offset))
            device.write(offset, text)
            model[offset : offset + len(text)] = text
        self.assertEqual(bytes(device.read(0, device.size)), bytes(model))  # type: ignore[arg-type]
        turns = [model[3 + start : 3 + start + chunk] for start in range(0, device.size - 3, chunk)]
        for index, member in enumerate(members):
            self.assertEqual(member.contents, b"".join(turns[index::count]))
