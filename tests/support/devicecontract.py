"""
What every block device must do, as tests to mix into a test case.
"""

from __future__ import annotations

from typing import Any, ClassVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError
from zope.interface.verify import verifyObject

from iscsi_twisted.errors import LocalError, WriteProtected
from iscsi_twisted.interfaces import Capabilities, IBlockDevice, isPending

SIZE = 96 * 1024
"""Bytes of the devices under test: some pages, and not a power of two."""

OUTSIDE = ((-1, 1), (-4096, 4096), (SIZE, 1), (SIZE - 1, 2), (0, SIZE + 1), (SIZE + 1, 0), (1, -1))
"""Offsets and lengths that a device of C{SIZE} bytes does not have."""


def ranges() -> st.SearchStrategy[tuple[int, int]]:
    """Offset and length, short and long, aligned and not."""
    offsets = st.one_of(
        st.integers(0, SIZE - 1), st.integers(0, SIZE // 4096 - 1).map(lambda page: page * 4096)
    )
    lengths = st.one_of(
        st.integers(0, 600), st.integers(0, SIZE), st.integers(0, 8).map(lambda page: page * 4096)
    )
    return st.tuples(offsets, lengths).map(lambda pair: (pair[0], min(pair[1], SIZE - pair[0])))


def steps() -> st.SearchStrategy[tuple[Any, ...]]:
    """One operation on a device."""
    return st.one_of(
        st.tuples(st.just("write"), ranges(), st.integers(1, 255)),
        st.tuples(st.sampled_from(["read", "discard", "allocated"]), ranges()),
        st.tuples(st.just("zero"), ranges(), st.booleans()),
        st.tuples(st.just("flush")),
    )


modelSettings = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
)


class ReadContract:
    """
    What holds for every device, read-only ones too.

    @cvar checksRange: C{read} and C{write} raise L{LocalError} outside of the device; those of a user
        need not, since the caller has checked.
    """

    checksRange: ClassVar[bool] = True

    def makeDevice(self) -> Any:
        """A new device of C{SIZE} bytes that is not open."""
        raise NotImplementedError

    def initial(self) -> bytes:
        """What a new device holds."""
        return bytes(SIZE)

    def settle(self) -> None:
        """Let everything happen that is pending."""

    def outcome(self: Any, result: Any) -> Any:
        """The result, waited for."""
        if isPending(result):
            self.settle()
            return self.successResultOf(result)
        return result

    def cancelled(self: Any, pending: Any) -> Any:
        """Cancel a pending result: how it ends, which it does once."""
        pending.cancel()
        self.settle()
        endings: list[Any] = []
        pending.addBoth(endings.append)
        (ending,) = endings
        return ending

    def assertFails(self: Any, kind: type[BaseException], method: Any, *arguments: Any) -> Any:
        """The method raises C{kind}, at once or later."""
        try:
            result = method(*arguments)
        except kind as error:
            return error
        self.assertTrue(isPending(result), f"{method.__name__}{arguments} succeeded")
        self.settle()
        return self.failureResultOf(result, kind).value

    def opened(self: Any) -> Any:
        """A new device that is open; closed when the test ends."""
        device = self.makeDevice()
        self.assertIsNone(self.outcome(device.open(lambda: None)))
        self.addCleanup(lambda: self.outcome(device.close()))
        return device

    def test_interface(self: Any) -> None:
        """The device provides the whole interface."""
        verifyObject(IBlockDevice, self.makeDevice())

    def test_size(self: Any) -> None:
        """An open device has its size, in whole blocks."""
        device = self.opened()
        self.assertEqual(device.size, SIZE)
        self.assertGreaterEqual(device.blockSize, 1)
        self.assertEqual(SIZE % device.blockSize, 0)

    def test_capabilities(self: Any) -> None:
        """Capabilities are told at once, and discarding zeros implies discarding."""
        capabilities = self.opened().capabilities()
        self.assertIsInstance(capabilities, Capabilities)
        self.assertTrue(capabilities.discard or not capabilities.discardZeroes)
        self.assertFalse(capabilities.readOnly and (capabilities.discard or capabilities.zero))

    def test_readAll(self: Any) -> None:
        """A device can be read in one piece."""
        self.assertEqual(self.outcome(self.opened().read(0, SIZE)), self.initial())

    def test_readParts(self: Any) -> None:
        """Any part can be read, down to the last byte and to none at all."""
        device, whole = self.opened(), self.initial()
        for offset, length in (
            (0, 1),
            (511, 2),
            (4095, 4098),
            (SIZE - 1, 1),
            (SIZE // 2, SIZE // 2),
            (SIZE, 0),
            (7, 0),
        ):
            self.assertEqual(self.outcome(device.read(offset, length)), whole[offset : offset + length])

    def test_readOutside(self: Any) -> None:
        """Reading what the device does not have is a bug of the caller, and told so."""
        if self.checksRange:
            device = self.opened()
            for offset, length in OUTSIDE:
                self.assertFails(LocalError, device.read, offset, length)

    def test_allocatedOutside(self: Any) -> None:
        """So is asking for the allocation of it."""
        device = self.opened()
        for offset, length in OUTSIDE:
            self.assertFails(LocalError, device.allocated, offset, length)

    def assertAllocated(self: Any, device: Any, offset: int, length: int) -> None:
        """The runs add up, none is empty, and holes read as zeros."""
        runs = self.outcome(device.allocated(offset, length))
        self.assertEqual(sum(count for count, _ in runs), length)
        self.assertTrue(all(count > 0 for count, _ in runs))
        for count, hasStorage in runs:
            if not hasStorage:
                self.assertEqual(self.outcome(device.read(offset, count)), bytes(count))
            offset += count

    def test_allocated(self: Any) -> None:
        """The allocation of any range adds up to its length."""
        device = self.opened()
        for offset, length in ((0, SIZE), (5, 5000), (SIZE - 1, 1), (9, 0)):
            self.assertAllocated(device, offset, length)

    def test_cancelRead(self: Any) -> None:
        """A pending read may be cancelled; it then ends in either way, and the device goes on."""
        device = self.opened()
        result = device.read(0, 4096)
        if isPending(result):
            ending = self.cancelled(result)
            if ending != self.initial()[:4096]:
                ending.trap(CancelledError)
        self.assertEqual(self.outcome(device.read(0, 4096)), self.initial()[:4096])


class ProtectedContract(ReadContract):
    """What holds for a device that cannot be written."""

    def test_protected(self: Any) -> None:
        """Whatever would change it is refused, and it says so beforehand."""
        device = self.opened()
        self.assertTrue(device.capabilities().readOnly)
        self.assertFails(WriteProtected, device.write, 0, b"x" * 512)
        self.assertFails(WriteProtected, device.discard, 0, 512)
        self.assertFails(WriteProtected, device.zero, 0, 512, True)
        self.assertFails(WriteProtected, device.zero, 0, 512, False)
        self.assertIsNone(self.outcome(device.flush()))
        self.assertEqual(self.outcome(device.read(0, SIZE)), self.initial())


class DeviceContract(ReadContract):
    """What holds for a device that can be written."""

    def test_writable(self: Any) -> None:
        """It does not claim to be read-only."""
        self.assertFalse(self.opened().capabilities().readOnly)

    def test_writeKinds(self: Any) -> None:
        """Any kind of buffer can be written, and completes with None."""
        device = self.opened()
        for index, kind in enumerate((bytes, bytearray, memoryview)):
            data = bytes([65 + index]) * 5000
            self.assertIsNone(self.outcome(device.write(index * 5000, kind(data))))
            self.assertEqual(self.outcome(device.read(index * 5000, 5000)), data)

    def test_writeOutside(self: Any) -> None:
        """Writing what the device does not have is a bug of the caller, told so, and changes nothing."""
        if self.checksRange:
            device = self.opened()
            for offset, length in OUTSIDE:
                if length >= 0:
                    self.assertFails(LocalError, device.write, offset, b"x" * length)
            self.assertEqual(self.outcome(device.read(0, SIZE)), self.initial())

    def test_alterOutside(self: Any) -> None:
        """So are discarding and zeroing it."""
        device = self.opened()
        for offset, length in OUTSIDE:
            self.assertFails(LocalError, device.discard, offset, length)
            self.assertFails(LocalError, device.zero, offset, length, False)
            self.assertFails(LocalError, device.zero, offset, length, True)
        self.assertEqual(self.outcome(device.read(0, SIZE)), self.initial())

    def test_buffersStay(self: Any) -> None:
        """What was read stays as it was, whatever is written later."""
        device = self.opened()
        self.outcome(device.write(0, b"a" * SIZE))
        before = [
            self.outcome(device.read(offset, length)) for offset, length in ((0, 4096), (100, 9), (0, SIZE))
        ]
        self.outcome(device.write(0, b"b" * SIZE))
        self.outcome(device.zero(0, SIZE, True))
        self.outcome(device.discard(0, SIZE))
        self.assertEqual(before, [b"a" * 4096, b"a" * 9, b"a" * SIZE])

    def test_zero(self: Any) -> None:
        """Zeroed bytes read as zeros, their neighbours as before."""
        for unmap in (False, True):
            device = self.opened()
            self.outcome(device.write(0, b"z" * SIZE))
            self.assertIsNone(self.outcome(device.zero(1000, 50000, unmap)))
            self.assertEqual(
                self.outcome(device.read(0, SIZE)), b"z" * 1000 + bytes(50000) + b"z" * (SIZE - 51000)
            )

    def test_discard(self: Any) -> None:
        """Discarded bytes read as something stable, as zeros if so promised; their neighbours as before."""
        device = self.opened()
        self.outcome(device.write(0, b"d" * SIZE))
        self.assertIsNone(self.outcome(device.discard(4096, 65536)))
        whole = bytes(self.outcome(device.read(0, SIZE)))
        self.assertEqual(whole[:4096] + whole[69632:], b"d" * (SIZE - 65536))
        self.assertEqual(self.outcome(device.read(0, SIZE)), whole)
        if device.capabilities().discardZeroes:
            self.assertEqual(whole[4096:69632], bytes(65536))

    def test_flush(self: Any) -> None:
        """A flush completes with None, with or without writes before it."""
        device = self.opened()
        self.assertIsNone(self.outcome(device.flush()))
        self.outcome(device.write(0, b"f" * 512))
        self.assertIsNone(self.outcome(device.flush()))

    def test_cancelWrite(self: Any) -> None:
        """A cancelled write has happened or not, when it has ended; and the device goes on."""
        device = self.opened()
        result = device.write(0, b"c" * 4096)
        if isPending(result):
            ending = self.cancelled(result)
            if ending is not None:
                ending.trap(CancelledError)
        first = bytes(self.outcome(device.read(0, 4096)))
        self.assertIn(first, (b"c" * 4096, self.initial()[:4096]))
        self.outcome(device.write(0, b"e" * 4096))
        self.assertEqual(self.outcome(device.read(0, 4096)), b"e" * 4096)

    @modelSettings
    @given(st.lists(steps(), min_size=1, max_size=12))
    def test_model(self: Any, operations: list[tuple[Any, ...]]) -> None:
        """Whatever is done in whatever order, the device holds what a plain array of bytes would."""
        device = self.makeDevice()
        self.outcome(device.open(lambda: None))
        try:
            self.runModel(device, bytearray(self.initial()), operations)
        finally:
            self.outcome(device.close())

    def runModel(self: Any, device: Any, model: bytearray, operations: list[tuple[Any, ...]]) -> None:
        """Do the same to a device and to an array."""
        discardZeroes = device.capabilities().discardZeroes
        for name, *details in operations:
            if name == "flush":
                self.assertIsNone(self.outcome(device.flush()))
                continue
            offset, length = details[0]
            end = offset + length
            if name == "read":
                self.assertEqual(self.outcome(device.read(offset, length)), model[offset:end])
            elif name == "allocated":
                self.assertAllocated(device, offset, length)
            elif name == "write":
                data = bytes([details[1]]) * length
                self.outcome(device.write(offset, data))
                model[offset:end] = data
            elif name == "zero":
                self.outcome(device.zero(offset, length, details[1]))
                model[offset:end] = bytes(length)
            else:
                self.outcome(device.discard(offset, length))
                model[offset:end] = (
                    bytes(length) if discardZeroes else self.outcome(device.read(offset, length))
                )
        self.assertEqual(self.outcome(device.read(0, SIZE)), model)
