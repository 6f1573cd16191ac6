# -*- test-case-name: tests.storage.test_faults -*-
"""Tests for L{iscsi_twisted.storage.faults}."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import LocalError, ReadError, WriteError
from iscsi_twisted.storage import Fault, Faults, MemoryDevice
from tests.support.devicecontract import SIZE, DeviceContract
from tests.support.devices import FakeDevice


class FaultsContract(DeviceContract, SynchronousTestCase):
    """A device behind L{Faults} that never hit."""

    def makeDevice(self) -> Any:
        return Faults(MemoryDevice(SIZE), [Fault("error", probability=0.0)], Clock())


class FaultsOffContract(DeviceContract, SynchronousTestCase):
    """A L{Faults} that is switched off."""

    def makeDevice(self) -> Any:
        return Faults(MemoryDevice(SIZE), [Fault("error")], Clock(), active=False)


class HangContract(DeviceContract, SynchronousTestCase):
    """A device where everything hangs for a while."""

    def makeDevice(self) -> Any:
        self.clock = Clock()
        return Faults(MemoryDevice(SIZE), [Fault("hang", seconds=1.0)], self.clock)

    def settle(self) -> None:
        while self.clock.getDelayedCalls():
            self.clock.advance(1)


class FaultsTests(SynchronousTestCase):
    """L{Faults}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.member = FakeDevice(1 << 20, synchronous=True)

    def device(self, *faults: Fault, seed: int = 1) -> Faults:
        """A device with faults."""
        return Faults(self.member, faults, self.clock, random=Random(seed))

    def test_errors(self) -> None:
        """Operations fail as a medium would let them, and nothing is done."""
        device = self.device(Fault("error"))
        self.assertEqual(self.assertRaises(ReadError, device.read, 8, 4).offset, 8)
        self.assertEqual(self.assertRaises(WriteError, device.write, 8, b"x").offset, 8)
        self.assertEqual(self.assertRaises(WriteError, device.discard, 8, 4).offset, 8)
        self.assertEqual(self.assertRaises(WriteError, device.zero, 8, 4, True).offset, 8)
        self.assertIs(self.assertRaises(WriteError, device.flush).offset, None)
        self.assertEqual(self.member.history, [])

    def test_outside(self) -> None:
        """What is outside of the device is refused and not counted, also where nothing would be done."""
        fault = Fault("lost")
        device = self.device(fault)
        for method, arguments in (
            (device.write, (1 << 20, b"x")),
            (device.discard, (1 << 20, 1)),
            (device.zero, (0, (1 << 20) + 1, False)),
        ):
            self.assertRaises(LocalError, method, *arguments)
        self.assertEqual((fault.seen, fault.hits), (0, 0))

    def test_anyBit(self) -> None:
        """Corruption turns any one bit over, and no more; of nothing it leaves nothing."""
        device = self.device(Fault("corrupt", ["read"]))
        found = {int.from_bytes(bytes(device.read(0, 2)), "big") for _ in range(400)}  # type: ignore[arg-type]
        self.assertEqual(found, {1 << bit for bit in range(16)})
        self.assertEqual(device.read(0, 0), b"")

    def test_tornSectors(self) -> None:
        """A torn write leaves any number of its first sectors, and never all."""
        found = set()
        for seed in range(60):
            self.member = FakeDevice(1 << 20, synchronous=True)
            device = self.device(Fault("torn"), seed=seed)
            error: Any = self.assertRaises(WriteError, device.write, 4096, b"x" * 2048)
            kept = bytes(self.member.contents[4096:8192]).count(b"x")
            self.assertEqual(
                (error.offset, self.member.contents[4096 : 4096 + kept]), (4096 + kept, b"x" * kept)
            )
            found.add(kept)
        self.assertEqual(found, {0, 512, 1024, 1536})

    def test_certain(self) -> None:
        """What is certain takes no chance, so that it changes nothing for what comes after it."""
        patterns = []
        for faults in ([], [Fault("error", ["flush"])]):
            device = self.device(*faults, Fault("error", ["read"], probability=0.5))
            hits = []
            for _ in range(40):
                for method, arguments in ((device.flush, ()), (device.read, (0, 1))):
                    try:
                        method(*arguments)
                    except (ReadError, WriteError) as error:
                        hits.append(isinstance(error, ReadError))
                    else:
                        hits.append(False)
            patterns.append(hits)
        self.assertEqual(patterns[0], patterns[1])

    def test_on(self) -> None:
        """A fault hits only the operations that it is on."""
        device = self.device(Fault("error", ["write"]))
        device.read(0, 1)
        device.flush()
        self.assertRaises(WriteError, device.write, 0, b"x")

    def test_range(self) -> None:
        """A fault with a range hits what touches that, and names its first bad byte."""
        device = self.device(Fault("error", ["read"], start=4096, length=512))
        device.read(0, 4096)
        device.read(4608, 100)
        self.assertEqual(self.assertRaises(ReadError, device.read, 0, 8192).offset, 4096)
        self.assertEqual(self.assertRaises(ReadError, device.read, 4600, 100).offset, 4600)

    def hits(self, device: Faults, count: int = 100) -> list[int]:
        """Which of so many reads fail."""
        found = []
        for number in range(1, count + 1):
            try:
                device.read(0, 1)
            except ReadError:
                found.append(number)
        return found

    def test_counts(self) -> None:
        """A fault hits the n-th operation, or each n-th, and no more often than it may."""
        self.assertEqual(self.hits(self.device(Fault("error", nth=7))), [7])
        self.assertEqual(self.hits(self.device(Fault("error", every=30))), [30, 60, 90])
        self.assertEqual(self.hits(self.device(Fault("error", every=10, times=2))), [10, 20])
        self.assertEqual(self.hits(self.device(Fault("error", times=3))), [1, 2, 3])

    def test_probability(self) -> None:
        """A fault hits by chance, the same operations with the same seed."""
        found = self.hits(self.device(Fault("error", probability=0.2)), 1000)
        self.assertTrue(150 < len(found) < 250, len(found))
        self.assertEqual(self.hits(self.device(Fault("error", probability=0.2)), 1000), found)
        self.assertNotEqual(self.hits(self.device(Fault("error", probability=0.2), seed=2), 1000), found)

    def test_switch(self) -> None:
        """Faults are switched one by one, all together, added and taken away while it serves."""
        fault = Fault("error")
        device = self.device(fault)
        self.assertEqual(self.hits(device, 2), [1, 2])
        fault.active = False
        self.assertEqual(self.hits(device, 2), [])
        fault.active, device.active = True, False
        self.assertEqual(self.hits(device, 2), [])
        device.flush()
        device.active = True
        device.faults.remove(fault)
        self.assertEqual(self.hits(device, 2), [])
        self.assertEqual((fault.seen, fault.hits), (2, 2))

    def test_lost(self) -> None:
        """What is lost succeeds and is not done."""
        device = self.device(Fault("lost"))
        results: list[Any] = [device.write(0, b"x"), device.flush(), device.discard(0, 1)]
        self.assertEqual([*results, device.zero(0, 1, False)], [None] * 4)
        self.assertEqual(self.member.history, [])

    def test_torn(self) -> None:
        """Of a torn write some whole sectors arrive, the first ones; it fails where it was torn."""
        found = set()
        for seed in range(40):
            self.member.contents[:] = bytes(len(self.member.contents))
            device = self.device(Fault("torn"), seed=seed)
            error = self.assertRaises(WriteError, device.write, 1024, b"x" * 2048)
            assert error.offset is not None
            kept = error.offset - 1024
            self.assertEqual(self.member.contents[1024:3072], b"x" * kept + bytes(2048 - kept))
            found.add(kept)
        self.assertEqual(found, {0, 512, 1024, 1536})

    def test_tornLater(self) -> None:
        """So it is when the device answers later."""
        self.member.synchronous = False
        device = self.device(Fault("torn"), seed=3)
        result: Any = device.write(0, b"x" * (1 << 16))
        self.assertNoResult(result)
        self.member.fire()
        self.assertGreater(self.failureResultOf(result, WriteError).value.offset, 0)

    def test_corrupt(self) -> None:
        """One bit of what is read or written is another one, and nothing tells so."""
        device = self.device(Fault("corrupt", ["read"]))
        data = int.from_bytes(bytes(device.read(0, 4096)), "big")  # type: ignore[arg-type]
        self.assertEqual(data.bit_count(), 1)
        device = self.device(Fault("corrupt", ["write"]))
        given = bytes(4096)
        self.assertIsNone(device.write(0, given))
        self.assertEqual(given, bytes(4096))
        self.assertEqual(int.from_bytes(self.member.contents, "big").bit_count(), 1)
        self.assertIsNone(device.write(0, b""))

    def test_hang(self) -> None:
        """What hangs is done when it is released, and not before."""
        device = self.device(Fault("hang"))
        results: list[Any] = [device.write(0, b"x"), device.read(0, 1)]
        self.clock.advance(1e6)
        self.assertEqual((device.hanging, self.member.history), (2, []))
        device.release()
        self.assertEqual([self.successResultOf(result) for result in results], [None, b"x"])
        self.assertEqual(device.hanging, 0)

    def test_hangFor(self) -> None:
        """Or after its time; then it may still fail."""
        device = self.device(Fault("hang", seconds=2.0))
        result: Any = device.read(0, 1)
        self.member.error = ReadError("bad", 0)
        self.clock.advance(2.0)
        self.failureResultOf(result, ReadError)

    def test_hangCancelled(self) -> None:
        """What is cancelled while it hangs is never done, and leaves no timer."""
        device = self.device(Fault("hang", seconds=2.0))
        result: Any = device.write(0, b"x")
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual((self.clock.getDelayedCalls(), device.hanging), ([], 0))
        self.member.synchronous = False
        later: Any = device.read(0, 1)
        device.release()
        later.cancel()
        self.assertEqual(self.member.operations[0].cancelled, 1)
        self.member.fire()
        self.successResultOf(later)

    def test_close(self) -> None:
        """Nothing hangs when it has been closed."""
        device = self.device(Fault("hang"))
        result: Any = device.flush()
        device.close()
        self.assertIsNone(self.successResultOf(result))
        self.assertEqual(self.member.closings, 1)

    def test_first(self) -> None:
        """The first fault that hits decides."""
        device = self.device(Fault("lost", ["write"], times=1), Fault("error"))
        self.assertIsNone(device.write(0, b"x"))
        self.assertRaises(WriteError, device.write, 0, b"x")

    def test_nonsense(self) -> None:
        """A kind that there is not, or that an operation cannot have, is an error."""
        for kind, on in (("bad", None), ("torn", ["read"]), ("lost", ["read", "write"]), ("error", [])):
            self.assertRaises(LocalError, Fault, kind, on)
        self.assertRaises(LocalError, Fault, "error", ["eject"])
