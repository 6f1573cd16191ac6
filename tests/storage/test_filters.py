# -*- test-case-name: tests.storage.test_filters -*-
"""Tests for L{iscsi_twisted.storage.filters}."""

from __future__ import annotations

from typing import Any

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
