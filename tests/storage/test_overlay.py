# -*- test-case-name: tests.storage.test_overlay -*-
"""Tests for L{iscsi_twisted.storage.overlay}."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import DeviceError, LocalError, ReadError, WriteError, WriteProtected
from iscsi_twisted.interfaces import Capabilities, Space
from iscsi_twisted.storage import MemoryDevice, Overlay, OverlayFile
from iscsi_twisted.storage.overlayfile import GRANULE, HEADER, mapLength
from tests.support.devicecontract import SIZE, DeviceContract, ProtectedContract, modelSettings
from tests.support.devices import FakeDevice
from tests.support.extents import ExtentCase
from tests.support.threads import StepReactor

PLACES = st.tuples(st.integers(0, 3 * GRANULE), st.integers(1, 2 * GRANULE))
"""Offset and length of writes on five granules."""

GOLDEN = bytes(range(256)) * (SIZE // 256)


def golden(**how: Any) -> FakeDevice:
    """A base with content."""
    device = FakeDevice(SIZE, **how)
    device.contents[:] = GOLDEN
    return device


class Golden:
    """What the contracts have in common."""

    def initial(self) -> bytes:
        """What the base holds."""
        return GOLDEN


class MemoryContract(Golden, DeviceContract, SynchronousTestCase):
    """An overlay in memory; base and memory answer at once."""

    def makeDevice(self) -> Any:
        return Overlay(golden(synchronous=True))


class PendingContract(Golden, DeviceContract, SynchronousTestCase):
    """Base and store answer later."""

    def makeDevice(self) -> Any:
        self.fakes = [golden()]

        def store(size: int) -> FakeDevice:
            self.fakes.append(FakeDevice(size))
            return self.fakes[-1]

        return Overlay(self.fakes[0], store)

    def settle(self) -> None:
        while any(fake.operations for fake in self.fakes):
            for fake in self.fakes:
                fake.fire()


class FileContract(Golden, DeviceContract, ExtentCase):
    """A file over a file."""

    writeCache = True

    def makeDevice(self) -> Any:
        self.path = self.mktemp()
        with open(self.path, "wb") as file:
            file.write(GOLDEN)
        base = self.makeExtent(start=0, length=None, readOnly=True)
        return Overlay(base, self.store)

    def store(self, size: int) -> OverlayFile:
        """The file beside it."""
        return OverlayFile(
            self.path + ".overlay", 0, size, reactor=StepReactor(), threadPool=self.pool,
            writeCache=self.writeCache,
        )  # fmt: skip

    def settle(self) -> None:
        self.pool.run()


class DurableContract(FileContract):
    """The same without a write cache."""

    writeCache = False


class ReadOnlyContract(Golden, ProtectedContract, SynchronousTestCase):
    """An overlay that is served read-only."""

    def makeDevice(self) -> Any:
        return Overlay(golden(synchronous=True), readOnly=True)


class OverlayTests(SynchronousTestCase):
    """L{Overlay}."""

    def setUp(self) -> None:
        self.base = golden(synchronous=True)
        self.store = self.keeping(SIZE)

    def keeping(self, size: int, **how: Any) -> FakeDevice:
        """A store that outlives overlays, with a write cache."""
        able = Capabilities(volatileCache=True, discard=True, zero=True)
        how.setdefault("synchronous", True)
        return FakeDevice(HEADER + mapLength(size) + size, capabilities=able, **how)

    def opened(self, store: FakeDevice | None = None) -> Overlay:
        """An overlay that is open."""
        device = Overlay(self.base, lambda size: store or self.store)
        self.assertIsNone(device.open(lambda: None))
        return device

    def test_baseStays(self) -> None:
        """Nothing is ever written to the base."""
        device = self.opened()
        device.write(5, b"x" * 5000)
        device.discard(0, SIZE)
        device.flush()
        self.assertEqual(self.base.contents, GOLDEN)
        self.assertEqual({name for name, _ in self.base.history}, {"read"})

    def test_space(self) -> None:
        """How much storage there is is told by what keeps the changes."""
        device = self.opened()
        device.store.space = lambda: Space(1, 2)
        self.assertEqual(device.space(), (1, 2))

    def test_retains(self) -> None:
        """It says that what was overwritten is not gone: the base has it."""
        self.assertTrue(self.opened().capabilities().retains)

    def test_restart(self) -> None:
        """What was flushed is there when another overlay continues with the store."""
        device = self.opened()
        device.write(5000, b"abc")
        device.flush()
        again = self.opened()
        self.assertEqual(again.read(4999, 5), GOLDEN[4999:5000] + b"abc" + GOLDEN[5003:5004])
        self.assertEqual(again.changes(), GRANULE)

    def test_close(self) -> None:
        """Closing makes the map durable too, and closes both."""
        device = self.opened()
        device.write(5000, b"abc")
        device.close()
        self.assertEqual((self.base.closings, self.store.closings), (1, 1))
        self.assertEqual(self.opened().read(5000, 3), b"abc")

    def test_order(self) -> None:
        """The map is written after what it names is durable, and made durable itself."""
        device = self.opened()
        del self.store.history[:]
        device.write(0, b"x" * GRANULE)
        device.flush()
        device.flush()
        names = [(name, arguments[0] if arguments else None) for name, arguments in self.store.history]
        start = HEADER + mapLength(SIZE)
        self.assertEqual(
            names, [("write", start), ("flush", None), ("write", HEADER), ("flush", None), ("flush", None)]
        )

    def test_inPlace(self) -> None:
        """A granule that is in the store already is written where it is, and the base is not read."""
        device = self.opened()
        device.write(0, b"x" * GRANULE)
        self.base.history.clear()
        device.write(100, b"yy")
        self.assertEqual(self.store.history[-1], ("write", (HEADER + mapLength(SIZE) + 100, b"yy")))
        self.assertEqual(self.base.history, [])

    def test_saveFails(self) -> None:
        """If the map could not be written the flush fails, and the next one writes it."""
        device = self.opened()
        device.write(0, b"x" * GRANULE)
        self.store.error = WriteError("bad")
        self.assertRaises(WriteError, device.flush)
        self.store.error = None
        self.assertIsNone(device.flush())
        self.assertEqual(self.opened().read(0, 1), b"x")

    def test_sideBySide(self) -> None:
        """Two parts of one new granule that are written at the same time are both there."""
        store = self.keeping(SIZE)
        device = self.opened(store)
        store.synchronous = False
        results: list[Any] = [device.write(10, b"a"), device.write(20, b"b"), device.write(GRANULE, b"c")]
        self.assertEqual(len(store.operations), 2)
        store.fire()
        for result in results:
            self.assertIsNone(self.successResultOf(result))
        store.synchronous = True
        found = bytes(device.read(0, GRANULE))  # type: ignore[arg-type]
        self.assertEqual(found[:22], GOLDEN[:10] + b"a" + GOLDEN[11:20] + b"b" + GOLDEN[21:22])

    def test_flushWaits(self) -> None:
        """A flush is done when the map is durable, also if another flush is writing it."""
        store = self.keeping(SIZE)
        device = self.opened(store)
        device.write(0, b"x" * GRANULE)
        store.synchronous = False
        first: Any = device.flush()
        second: Any = device.flush()
        store.operations[0].fire()
        self.assertNoResult(second)
        store.fire()
        self.successResultOf(first)
        self.successResultOf(second)

    def test_failedFill(self) -> None:
        """A granule whose write failed is the base's still; the error's offset lies in the data."""
        device = self.opened()
        for place, expected in ((7, 7), (2, 5), (9, 8)):
            self.store.error = WriteError("bad", HEADER + mapLength(SIZE) + place)
            self.assertEqual(self.assertRaises(WriteError, device.write, 5, b"abcd").offset, expected)
        self.store.error = None
        self.assertEqual(device.read(0, 1), GOLDEN[:1])
        self.assertIsNone(device.write(0, b"x"))

    def test_baseFails(self) -> None:
        """An error of the base names the byte."""
        device = self.opened()
        device.write(0, b"x" * GRANULE)
        self.base.error = ReadError("bad", GRANULE + 9)
        self.assertEqual(self.assertRaises(ReadError, device.read, 0, 3 * GRANULE).offset, GRANULE + 9)
        self.assertRaises(ReadError, device.write, GRANULE, b"x")

    def test_revert(self) -> None:
        """Reverted, it is the base again, after a restart too."""
        device = self.opened()
        device.write(0, b"x" * 9000)
        device.flush()
        self.assertIsNone(device.revert())
        self.assertEqual((device.read(0, SIZE), device.changes()), (GOLDEN, 0))
        self.assertEqual(self.opened().read(0, SIZE), GOLDEN)

    def test_commit(self) -> None:
        """Committed, what was written is in the base, and forgotten here."""
        device = self.opened()
        device.write(100, b"x" * 9000)
        device.zero(50000, 20000, True)
        whole = device.read(0, SIZE)
        self.assertIsNone(device.commit(self.base))
        self.assertEqual((self.base.contents, device.changes()), (whole, 0))
        self.assertEqual(device.read(0, SIZE), whole)

    def test_commitFails(self) -> None:
        """A commit that fails loses nothing."""
        device = self.opened()
        device.write(100, b"x" * 9000)
        target = golden(synchronous=True)
        target.error = WriteError("bad")
        self.assertRaises(WriteError, device.commit, target)
        self.assertEqual(device.read(100, 9000), b"x" * 9000)
        self.assertRaises(DeviceError, device.commit, MemoryDevice(GRANULE))

    def test_busy(self) -> None:
        """It is neither committed nor reverted while somebody writes, nor when it is read-only."""
        store = self.keeping(SIZE)
        device = self.opened(store)
        store.synchronous = False
        device.write(0, b"x")
        self.assertRaises(LocalError, device.revert)
        self.assertRaises(LocalError, device.commit, self.base)
        store.fire()
        readOnly = Overlay(self.base, readOnly=True)
        readOnly.open(lambda: None)
        self.assertRaises(WriteProtected, readOnly.revert)
        self.assertRaises(WriteProtected, readOnly.commit, self.base)

    def test_otherBase(self) -> None:
        """A store that belongs to a base of another size, or is something else, is refused and untouched."""
        self.opened().close()
        other = Overlay(FakeDevice(SIZE + 512, synchronous=True), lambda size: self.store)
        self.assertIn("lies over a base of", str(self.assertRaises(DeviceError, other.open, lambda: None)))
        self.store.contents[:4] = b"disk"
        before = bytes(self.store.contents)
        self.assertIn("is no overlay", str(self.assertRaises(DeviceError, self.opened)))
        self.assertEqual(self.store.contents, before)
        self.assertEqual(self.store.closings, self.store.openings)

    def stamped(self, *stamps: int) -> None:
        """Let the base tell when it was changed last."""
        self.base.stamp = lambda: stamps  # type: ignore[method-assign,assignment]

    def refused(self) -> str:
        """Why the store is."""
        return str(self.assertRaises(DeviceError, self.opened))

    def test_changedBase(self) -> None:
        """So is one over a base that was changed since, unless that is taken as it is, once."""
        self.stamped(5)
        self.opened().close()
        self.stamped(6)
        before = bytes(self.store.contents)
        for _ in range(2):
            self.assertIn("before that was changed", self.refused())
        self.assertEqual(self.store.contents, before)
        adopting = Overlay(self.base, lambda size: self.store, adopt=True)
        adopting.open(lambda: None)
        adopting.close()
        self.opened().close()
        self.stamped(5)
        self.refused()
        self.stamped(5, 6)
        self.refused()

    def test_untoldBase(self) -> None:
        """A base that does not tell is taken, and so is an overlay that does not know, which does then."""
        self.opened().close()
        self.stamped(5)
        self.opened().close()
        self.stamped()
        self.opened().close()
        self.stamped(6)
        self.opened().close()
        self.stamped(5)
        self.refused()

    def test_watched(self) -> None:
        """A base that is changed while an overlay lies over it is told of, once for each change."""
        self.stamped(5)
        device = self.opened()
        told = []
        for stamp in (5, 6, 6, 7):
            self.stamped(stamp)
            with capturedLogs() as events:
                device.examine()
            told.append([event["event"] for event in events])
        self.assertEqual(told, [[], ["baseChanged"], [], ["baseChanged"]])
        self.stamped()
        silent = Overlay(self.base)
        silent.examine()
        silent.open(lambda: None)
        self.stamped(5)
        silent.examine()

    def killed(self, after: int) -> None:
        """Let the store fail for ever after so many writes, flushes and discards."""
        real, left = FakeDevice.perform, [after]

        def perform(device: FakeDevice, name: str, *arguments: Any) -> Any:
            if device is self.store and name in ("write", "flush", "zero", "discard"):
                left[0] -= 1
                if left[0] < 0:
                    raise WriteError("killed")
            return real(device, name, *arguments)

        patch = self.patch(FakeDevice, "perform", perform)
        self.addCleanup(patch.restore)
        self.restore = patch.restore

    def test_revertedWholly(self) -> None:
        """A process that is killed while it reverts leaves all changes, or none."""
        found = set()
        for after in range(12):
            self.store = self.keeping(SIZE)
            device = self.opened()
            device.write(0, b"x" * 9000)
            device.write(50000, b"y" * 9000)
            device.flush()
            whole = bytes(device.read(0, SIZE))  # type: ignore[arg-type]
            self.killed(after)
            with contextlib.suppress(WriteError):
                device.revert()
            self.restore()
            again = bytes(self.opened().read(0, SIZE))  # type: ignore[arg-type]
            self.assertIn(again, (whole, GOLDEN))
            found.add(again)
            protected = Overlay(self.base, lambda size: self.store, readOnly=True)
            protected.open(lambda: None)
            self.assertEqual(protected.read(0, SIZE), again)
        self.assertEqual(found, {whole, GOLDEN})

    def test_forgottenReadOnly(self) -> None:
        """What is being forgotten is not shown by one that may not write."""
        device = self.opened()
        device.write(0, b"x" * 9000)
        device.flush()
        self.killed(2)
        self.assertRaises(WriteError, device.revert)
        self.restore()
        before = bytes(self.store.contents)
        protected = Overlay(self.base, lambda size: self.store, readOnly=True)
        protected.open(lambda: None)
        self.assertEqual(protected.read(0, SIZE), GOLDEN)
        self.assertEqual(self.store.contents, before)

    def test_committedWholly(self) -> None:
        """A process that is killed while it commits to the base can do so again, over what that is now."""
        for after in range(14):
            self.base, self.store = golden(synchronous=True), self.keeping(SIZE)
            self.stamped(5)
            device = self.opened()
            device.write(0, b"x" * 9000)
            device.write(50000, b"y" * 9000)
            whole = bytes(device.read(0, SIZE))  # type: ignore[arg-type]
            real = self.base.write

            def write(offset: int, data: Any, real: Any = real) -> Any:
                self.stamped(7, offset)
                return real(offset, data)

            self.base.write = write  # type: ignore[method-assign]
            self.killed(after)
            with contextlib.suppress(WriteError):
                device.commit(self.base)
            self.restore()
            if bytes(self.base.contents) != GOLDEN:
                again = self.opened()
                self.assertEqual(again.read(0, SIZE), whole)
                self.assertIsNone(again.commit(self.base))
                self.assertEqual(self.base.contents, whole)
                self.opened().close()
        self.stamped(8)
        self.refused()

    def test_large(self) -> None:
        """In memory an overlay may lie over far more than the machine has."""
        base = FakeDevice(synchronous=True)
        base.size = 1 << 40
        device = Overlay(base)
        device.open(lambda: None)
        device.write((1 << 40) - 4096, b"x" * 4096)
        self.assertEqual((device.read((1 << 40) - 1, 1), device.changes()), (b"x", GRANULE))
        device.close()

    def test_blocks(self) -> None:
        """Blocks that do not divide a granule are refused."""
        base = FakeDevice(3 * 8192, 8192, synchronous=True)
        self.assertRaises(DeviceError, Overlay(base).open, lambda: None)
        self.assertEqual(base.closings, 1)

    @modelSettings
    @given(
        st.lists(st.tuples(st.integers(0, 3 * GRANULE), st.integers(1, 2 * GRANULE)), max_size=8), st.data()
    )
    def test_crash(self, writes: list[tuple[int, int]], data: Any) -> None:
        """
        After a crash that loses any of the unflushed writes to the store, each granule is one that was
        written whole or the base's, and what had been flushed is there.
        """
        size = 5 * GRANULE
        base = FakeDevice(size, synchronous=True)
        base.contents[:] = b"\xff" * size
        store = Volatile(self.keeping(size))
        device = Overlay(base, lambda _: store)
        device.open(lambda: None)
        states = [bytes(base.contents)]
        flushed = 0
        for number, (offset, length) in enumerate(writes):
            device.write(offset, bytes([number + 1]) * length)
            states.append(bytes(device.read(0, size)))  # type: ignore[arg-type]
            if data.draw(st.booleans()):
                device.flush()
                flushed = len(states) - 1
        store.crash(data.draw(st.lists(st.booleans(), min_size=40, max_size=40)))
        again = Overlay(base, lambda _: store)
        again.open(lambda: None)
        found = bytes(again.read(0, size))  # type: ignore[arg-type]
        legal = [{state[index] for state in states[flushed:]} for index in range(size)]
        self.assertTrue(all(byte in may for byte, may in zip(found, legal, strict=True)))


class Volatile(FakeDevice):
    """A store whose unflushed writes are lost in a crash, some of them."""

    def __init__(self, template: FakeDevice) -> None:
        super().__init__(template.size, capabilities=template.capabilities(), synchronous=True)
        self.safe = bytearray(self.contents)
        self.unsafe: list[tuple[int, bytes]] = []

    def perform(self, name: str, *arguments: Any) -> Any:
        if name == "write":
            self.unsafe.append(arguments)  # type: ignore[arg-type]
        if name == "flush":
            self.safe, self.unsafe = bytearray(self.contents), []
        return super().perform(name, *arguments)

    def crash(self, kept: list[bool]) -> None:
        """Lose all that is not durable but the writes for which a flag is set."""
        self.contents = self.safe
        for (offset, data), keep in zip(self.unsafe, kept, strict=False):
            if keep:
                self.contents[offset : offset + len(data)] = data
