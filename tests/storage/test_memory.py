# -*- test-case-name: tests.storage.test_memory -*-
"""Tests for L{iscsi_twisted.storage.memory}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import LocalError, NotReady, OutOfSpace
from iscsi_twisted.storage import MemoryDevice
from tests.support.devicecontract import SIZE, DeviceContract


class MemoryContract(DeviceContract, SynchronousTestCase):
    """A device in memory."""

    def makeDevice(self) -> MemoryDevice:
        return MemoryDevice(SIZE, 512)


class MemoryTests(SynchronousTestCase):
    """L{MemoryDevice}."""

    def test_notOpen(self) -> None:
        """Before and after it is open there is nothing to read, write or zero."""
        device = MemoryDevice(4096)
        for _ in range(2):
            self.assertRaises(NotReady, device.read, 0, 1)
            self.assertRaises(NotReady, device.write, 0, b"x")
            self.assertRaises(NotReady, device.zero, 0, 1, True)
            device.open(lambda: None)
            device.write(0, b"x")
            device.close()
            device.close()

    def test_large(self) -> None:
        """Memory is taken only where something is written."""
        device = MemoryDevice(1 << 33)
        device.open(lambda: None)
        self.addCleanup(device.close)
        device.write((1 << 33) - 3, b"end")
        self.assertEqual(device.read((1 << 33) - 5, 5), b"\0\0end")

    def test_tooLarge(self) -> None:
        """More than the system has is an error that says how much was wanted."""
        device = MemoryDevice(1 << 62)
        self.assertIn(str(1 << 62), str(self.assertRaises(OutOfSpace, device.open, lambda: None)))

    def test_nonsense(self) -> None:
        """Sizes must be whole blocks, and some."""
        for size, blockSize in ((0, 1), (-1, 1), (1000, 512), (512, 0)):
            self.assertRaises(LocalError, MemoryDevice, size, blockSize)
