# -*- test-case-name: tests.storage.test_device -*-
"""Tests for L{iscsi_twisted.storage.device}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from iscsi_twisted.errors import LocalError
from iscsi_twisted.interfaces import Buffer, Capabilities, IBlockDevice
from iscsi_twisted.storage import BlockDevice, asDevice
from iscsi_twisted.storage.device import ZEROS, Wired
from tests.support.devicecontract import SIZE, DeviceContract
from tests.support.devices import FakeDevice


class Plain:
    """A user's device: plain functions, no base class."""

    def __init__(self, size: int = SIZE) -> None:
        self.size = size
        self.memory = bytearray(size)

    def read(self, offset: int, length: int) -> Buffer:
        return bytes(self.memory[offset : offset + length])

    def write(self, offset: int, data: Buffer) -> None:
        self.memory[offset : offset + len(data)] = data


class Later(Plain):
    """The same with Deferreds that the test fires."""

    def __init__(self, size: int = SIZE) -> None:
        super().__init__(size)
        self.waiting: list[tuple[Deferred[Any], Any, tuple[Any, ...]]] = []

    def _later(self, function: Any, *arguments: Any) -> Any:
        result: Deferred[Any] = Deferred()
        self.waiting.append((result, function, arguments))
        return result

    def read(self, offset: int, length: int) -> Any:
        return self._later(super().read, offset, length)

    def write(self, offset: int, data: Buffer) -> Any:
        return self._later(super().write, offset, data)

    def fire(self) -> None:
        while self.waiting:
            result, function, arguments = self.waiting.pop(0)
            if not result.called:
                result.callback(function(*arguments))


class Awaited:
    """The same with C{async def}."""

    def __init__(self, size: int = SIZE) -> None:
        self.size = size
        self.later = Later(size)

    async def read(self, offset: int, length: int) -> Buffer:
        return await self.later.read(offset, length)  # type: ignore[no-any-return]

    async def write(self, offset: int, data: Buffer) -> None:
        await self.later.write(offset, data)


class AwaitedSubclass(BlockDevice):
    """C{async def} in a subclass."""

    size = SIZE

    def __init__(self) -> None:
        self.later = Later()

    async def read(self, offset: int, length: int) -> Buffer:  # type: ignore[override]
        return await self.later.read(offset, length)  # type: ignore[no-any-return]

    async def write(self, offset: int, data: Buffer) -> None:  # type: ignore[override]
        await self.later.write(offset, data)


class PlainContract(DeviceContract, SynchronousTestCase):
    """A user's device with plain functions."""

    checksRange = False

    def makeDevice(self) -> Any:
        return asDevice(Plain())


class LaterContract(DeviceContract, SynchronousTestCase):
    """A user's device with Deferreds."""

    checksRange = False

    def makeDevice(self) -> Any:
        self.later = Later()
        return asDevice(self.later)

    def settle(self) -> None:
        self.later.fire()


class AwaitedContract(LaterContract):
    """A user's device with C{async def}."""

    def makeDevice(self) -> Any:
        device = Awaited()
        self.later = device.later
        return asDevice(device)


class AwaitedSubclassContract(LaterContract):
    """A subclass of L{BlockDevice} with C{async def}."""

    def makeDevice(self) -> Any:
        device = AwaitedSubclass()
        self.later = device.later
        return device


class FakeContract(DeviceContract, SynchronousTestCase):
    """The device that other tests use."""

    def makeDevice(self) -> Any:
        self.fake = FakeDevice(SIZE)
        return self.fake

    def settle(self) -> None:
        self.fake.fire()


class AsDeviceTests(SynchronousTestCase):
    """L{asDevice}."""

    def test_complete(self) -> None:
        """A complete device with plain methods is returned as it is, and so is a wired one."""
        device = FakeDevice()
        self.assertIs(asDevice(device), device)
        wired = asDevice(Plain())
        self.assertIs(asDevice(wired), wired)

    def test_subclass(self) -> None:
        """A subclass of BlockDevice is returned as it is; its async methods answer with Deferreds."""
        device = AwaitedSubclass()
        self.assertIs(asDevice(device), device)
        self.assertIsInstance(device.read(0, 1), Deferred)

    def test_sameMethods(self) -> None:
        """Plain methods are not wrapped: a call costs what it cost before."""
        plain = Plain()
        wired: Any = asDevice(plain)
        self.assertEqual(wired.__dict__["read"], plain.read)

    def test_lacks(self) -> None:
        """An object that is no device is refused, with all that it lacks."""
        error = self.assertRaises(LocalError, asDevice, object())
        self.assertIn("lacks size and read and write", str(error))

    def test_notCallable(self) -> None:
        """So is one whose method is none."""
        plain: Any = Plain()
        plain.flush = True
        self.assertIn("lacks flush", str(self.assertRaises(LocalError, asDevice, plain)))

    def test_lateCapabilities(self) -> None:
        """Capabilities cannot be awaited: refused when the device is wired, or its class made."""

        class Wrong(Plain):
            async def capabilities(self) -> Capabilities:
                return Capabilities()

        self.assertIn("Wrong.capabilities", str(self.assertRaises(LocalError, asDevice, Wrong())))
        with self.assertRaises(LocalError):
            type("Wrong", (BlockDevice,), {"capabilities": Wrong.capabilities})

    def test_incompleteProvider(self) -> None:
        """A provider of the interface that lacks methods gets them."""

        @implementer(IBlockDevice)
        class Claims(Plain):
            pass

        self.assertEqual(asDevice(Claims()).allocated(0, 9), [(9, True)])

    def test_sizeFollows(self) -> None:
        """Size and block size are the user's, also when they change."""
        plain: Any = Plain(10)
        wired = asDevice(plain)
        plain.size, plain.blockSize = 1024, 512
        self.assertEqual((wired.size, wired.blockSize), (1024, 512))

    def test_name(self) -> None:
        """It goes by the user's object's name."""
        plain = Plain()
        self.assertEqual(str(asDevice(plain)), str(plain))

    def test_capabilities(self) -> None:
        """What the object has methods for it can do; without a flush there is no cache."""

        class Rich(Plain):
            def flush(self) -> None:
                pass

            async def discard(self, offset: int, length: int) -> None:
                pass

        self.assertEqual(asDevice(Plain()).capabilities(), Capabilities())
        self.assertEqual(asDevice(Rich()).capabilities(), Capabilities(volatileCache=True, discard=True))

    def test_asyncOpen(self) -> None:
        """An async open is awaited like all else."""

        class Opens(Plain):
            async def open(self, changed: Any) -> None:
                await succeed(None)
                self.opened = True

        device = Opens()
        result: Any = asDevice(device).open(lambda: None)
        self.assertIsNone(self.successResultOf(result))
        self.assertTrue(device.opened)


class BlockDeviceTests(SynchronousTestCase):
    """The defaults of L{BlockDevice}."""

    def test_nothing(self) -> None:
        """A class without read and write says so."""
        device = BlockDevice()
        self.assertRaises(NotImplementedError, device.read, 0, 0)
        self.assertRaises(NotImplementedError, device.write, 0, b"")

    def test_capabilities(self) -> None:
        """Capabilities are those of the methods that a subclass overrides."""

        class Zeroes(BlockDevice):
            def zero(self, offset: int, length: int, unmap: bool) -> None:
                pass

        self.assertEqual(Zeroes().capabilities(), Capabilities(zero=True))

    def test_zeroPieces(self) -> None:
        """Zeros are written in bounded pieces, one after the other."""
        fake = FakeDevice(3 << 20)
        pieces: list[tuple[int, int]] = []

        class Zeroed(BlockDevice):
            size = fake.size

            def write(self, offset: int, data: Buffer) -> Any:
                pieces.append((offset, len(data)))
                return fake.write(offset, data)

        result: Any = Zeroed().zero(100, (2 << 20) + 7, False)
        self.assertEqual(len(fake.operations), 1)
        fake.fire()
        self.assertIsNone(self.successResultOf(result))
        piece = len(ZEROS)
        self.assertEqual(pieces, [(100, piece), (100 + piece, piece), (100 + 2 * piece, 7)])

    def test_zeroAtOnce(self) -> None:
        """If the writes answer at once, so does zeroing."""
        device: Any = Wired(Plain(3 << 20))
        device.write(0, b"x" * (3 << 20))
        self.assertIsNone(device.zero(1, (3 << 20) - 2, True))
        self.assertEqual(bytes(device.wrapped.memory), b"x" + bytes((3 << 20) - 2) + b"x")

    def test_zeroFails(self) -> None:
        """A failing piece ends it."""
        fake = FakeDevice(3 << 20)
        device: Any = Wired(Plain(3 << 20))
        device.write = fake.write
        result = device.zero(0, 3 << 20, True)
        fake.operations[0].fail(OSError("broken"))
        self.failureResultOf(result, OSError)
        self.assertEqual(fake.operations, [])
