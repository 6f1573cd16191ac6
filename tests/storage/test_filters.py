# -*- test-case-name: tests.storage.test_filters -*-
"""Tests for L{iscsi_twisted.storage.filters}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import DeviceError, LocalError, ReadError
from iscsi_twisted.interfaces import Capabilities, Space
from iscsi_twisted.storage import MemoryDevice, ReadOnly, Slice
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
        member.space = lambda: Space(1, 2)
        self.assertEqual(filter_.space(), (1, 2))
        filter_.close()
        self.assertEqual(member.closings, 1)
        self.assertEqual(str(filter_), "Filter(FakeDevice)")

    def test_everything(self) -> None:
        """What the other device answers later is answered later, and so is what it knows of itself."""
        member = FakeDevice(8192)
        filter_ = Filter(member)
        self.assertEqual(filter_.members, (member,))
        for name, arguments in (
            ("read", (0, 1)), ("write", (0, b"x")), ("flush", ()), ("discard", (0, 1)),
            ("zero", (0, 1, True)), ("allocated", (0, 1)),
        ):  # fmt: skip
            result = getattr(filter_, name)(*arguments)
            self.assertNoResult(result)
            member.fire()
            self.successResultOf(result)
        knows: Any = member
        answers = {name: object() for name in ("fingerprint", "stamp", "witness", "keepWitness", "rekey")}
        for name, answer in answers.items():
            setattr(knows, name, lambda *given, answer=answer: (answer, given))
        self.assertEqual(filter_.fingerprint(), (answers["fingerprint"], ()))
        self.assertEqual(filter_.stamp(), (answers["stamp"], ()))
        self.assertEqual(filter_.witness("key"), (answers["witness"], ("key",)))
        self.assertEqual(filter_.keepWitness("key", 7), (answers["keepWitness"], ("key", 7)))
        self.assertEqual(filter_.rekey(), (answers["rekey"], ()))

    def test_readOnlyRange(self) -> None:
        """Behind ReadOnly what is outside of the device is told as that."""
        device = ReadOnly(FakeDevice(8192))
        for method, arguments in (
            (device.write, (8192, b"x")),
            (device.discard, (8000, 193)),
            (device.zero, (8192, 1, True)),
        ):
            self.assertRaises(LocalError, method, *arguments)

    def test_readOnlyCapabilities(self) -> None:
        """Behind ReadOnly nothing can be discarded or zeroed, but holes are told."""
        member = FakeDevice(capabilities=Capabilities(True, True, True, True, True, True, True))
        self.assertEqual(
            ReadOnly(member).capabilities(),
            Capabilities(readOnly=True, volatileCache=True, allocated=True, rotational=True),
        )


class SliceContract(DeviceContract, SynchronousTestCase):
    """A part from the middle of a device."""

    def makeDevice(self) -> Any:
        return Slice(MemoryDevice(SIZE * 3), 5000, SIZE)


class SliceTests(SynchronousTestCase):
    """L{Slice}."""

    def setUp(self) -> None:
        self.member = FakeDevice(1000, synchronous=True)

    def test_place(self) -> None:
        """What is written to a slice stands that much further on in the device."""
        device = Slice(self.member, 100, 50)
        device.open(lambda: None)
        device.write(3, b"abc")
        self.assertEqual(self.member.contents[100:110], b"\0\0\0abc\0\0\0\0")

    def test_space(self) -> None:
        """How much storage a part has nobody knows."""
        self.member = FakeDevice(1000, capabilities=Capabilities(space=True))
        device = Slice(self.member, 100, 50)
        device.open(lambda: None)
        self.assertEqual((device.capabilities().space, device.space()), (False, None))

    def test_fingerprint(self) -> None:
        """It is a part of a device that is known, and not known if that is not."""
        device = Slice(self.member, 100, 50)
        device.open(lambda: None)
        self.member.fingerprint = lambda: "disk"  # type: ignore[method-assign]
        self.assertEqual(device.fingerprint(), "disk, of these 100 to 150")
        self.member.fingerprint = lambda: None  # type: ignore[method-assign]
        self.assertIs(device.fingerprint(), None)

    def test_opensLater(self) -> None:
        """A part of a device that opens later is there when that is open."""
        opening: Deferred[None] = Deferred()
        self.member.open = lambda changed: opening  # type: ignore[method-assign]
        for length in (None, 50):
            device = Slice(self.member, 100, length)
            self.assertEqual(device.size, length or 0)
            result: Any = device.open(lambda: None)
            self.assertNoResult(result)
        opening.callback(None)
        self.successResultOf(result)
        self.assertEqual(device.size, 50)

    def test_smallest(self) -> None:
        """One byte is a part, and so is the whole device."""
        for start, length in ((999, 1), (999, None), (0, 1000), (0, None)):
            device = Slice(FakeDevice(1000), start, length)
            self.assertIsNone(device.open(lambda: None))
            self.assertEqual(device.size, 1000 - start)

    def test_misfitNames(self) -> None:
        """What is told names the part that is wanted."""
        for length, said in ((None, "slice from byte 1000"), (11, "slice from byte 1000 to byte 1011")):
            result: Any = Slice(FakeDevice(1000), 1000, length).open(lambda: None)
            self.assertTrue(str(self.failureResultOf(result, DeviceError).value).endswith(said))

    def test_toTheEnd(self) -> None:
        """Without a length it goes to the end."""
        device = Slice(self.member, 100)
        device.open(lambda: None)
        self.assertEqual(device.size, 900)

    def test_misfit(self) -> None:
        """A part that the device does not have, or that cuts blocks, is told; the device is closed again."""
        for start, length, block in ((1000, None, 1), (990, 11, 1), (10, 100, 50), (100, 60, 50)):
            member = FakeDevice(1000, block)
            result: Any = Slice(member, start, length).open(lambda: None)
            self.failureResultOf(result, DeviceError)
            self.assertEqual(member.closings, 1)

    def test_offset(self) -> None:
        """The offset in an error is that of the slice, at once and later."""
        device = Slice(self.member, 100, 50)
        device.open(lambda: None)
        self.member.error = ReadError("bad", 107)
        self.assertEqual(self.assertRaises(ReadError, device.read, 0, 10).offset, 7)
        self.member.error, self.member.synchronous = None, False
        result: Any = device.read(0, 10)
        self.member.operations[0].fail(ReadError("bad", 108))
        self.assertEqual(self.failureResultOf(result, ReadError).value.offset, 8)

    def test_nonsense(self) -> None:
        """No device has such parts."""
        self.assertRaises(LocalError, Slice, self.member, -1)
        self.assertRaises(LocalError, Slice, self.member, 0, 0)
