# -*- test-case-name: tests.target.test_placed -*-
"""Filters of a targets file become devices."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from iscsi_twisted.config.targets import parse
from iscsi_twisted.errors import ConfigurationError, DeviceError, WriteProtected
from iscsi_twisted.interfaces import isPending
from iscsi_twisted.storage import Crypt, Delay, Faults, MemoryDevice, Overlay, Rate, ReadOnly, Slice
from iscsi_twisted.storage.pending import call
from iscsi_twisted.target.assembly import Disk, plans
from iscsi_twisted.target.placed import rehearse, takeFaults

MB = 1 << 20


class PlacedTests(SynchronousTestCase):
    """Tests of devices that come from lines."""

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.clock = Clock()

    def disks(self, text: str) -> list[Disk]:
        """What the units of all targets of a file are made of."""
        configuration = parse(text, "F", lambda name: None, directory=self.directory)
        made = plans(configuration, base="iqn.2001-04.com.example", blockSize=512, reactor=self.clock)
        return [disk for plan in made for disk in plan.disks]

    def device(self, line: str) -> Any:
        """The device of a line over an extent."""
        return self.disks(f"extent0 a 0 1M\ndevice0 {line}\ntarget0 device0 any")[0].device

    def test_kinds(self) -> None:
        """Each kind of line becomes its device, with what the line says, and is called what it defines."""
        delay = self.device("DELAY extent0 seconds=0.5 spread=0.25 shape=uniform active=no")
        self.assertIsInstance(delay, Delay)
        self.assertEqual(
            (delay.seconds, delay.spread, delay.shape, delay.active), (0.5, 0.25, "uniform", False)
        )
        rate = self.device("RATE extent0 iops=10 active=no")
        self.assertIsInstance(rate, Rate)
        self.assertFalse(rate.active)
        faults = self.device("FAULTS extent0 kind=hang on=read,flush start=1K length=2K nth=3 seconds=4")
        self.assertIsInstance(faults, Faults)
        (fault,) = faults.faults
        self.assertEqual(
            (fault.kind, fault.on, fault.start, fault.length, fault.nth, fault.seconds),
            ("hang", {"read", "flush"}, 1024, 2048, 3, 4.0),
        )
        piece = self.device("SLICE extent0 start=4K length=8K")
        self.assertIsInstance(piece, Slice)
        self.assertEqual((piece.start, piece.size), (4096, 8192))
        self.assertIsInstance(self.device("READONLY extent0"), ReadOnly)
        self.assertIsInstance(self.device("OVERLAY extent0"), Overlay)
        crypt = self.device("CRYPT extent0 key=k sector=4K block=4K")
        self.assertIsInstance(crypt, Crypt)
        for device in (delay, rate, faults, piece, crypt):
            self.assertEqual(str(device), "device0")
        (disk,) = self.disks("device0 MEMORY size=1M\ntarget0 device0 any")
        self.assertIsInstance(disk.device, MemoryDevice)
        self.assertEqual((disk.device.size, str(disk.device)), (MB, "device0"))

    def test_key(self) -> None:
        """What is wrong with a key names the line, at the start and when a new file is looked at before."""
        device = self.device("CRYPT extent0 key=k")
        self.assertRaises(DeviceError, device.rehearse)
        (fault,) = takeFaults(device)
        self.assertIn("F:2: device0: the key", str(fault))
        self.assertRaises(DeviceError, device.open, lambda: None)
        (fault,) = takeFaults(device)
        self.assertIn("does not exist; without it nothing can be read", str(fault))
        self.make("k", bytes(range(64)))
        os.chmod(os.path.join(self.directory, "k"), 0o600)
        device.rehearse()
        self.assertEqual(bytes(self.opened(device).read(0, 512)), bytes(512))
        device.close()

    def opened(self, device: Any) -> Any:
        """A device that was opened at once; closed when the test ends."""
        result = device.open(lambda: None)
        self.assertFalse(isPending(result), result)
        return device

    def make(self, name: str, content: bytes) -> None:
        """A file in the directory."""
        with open(os.path.join(self.directory, name), "wb") as file:
            file.write(content)

    def test_readOnly(self) -> None:
        """Behind READONLY a file is opened for reading only, so it is never made."""
        device = self.device("READONLY extent0")
        self.assertRaises(DeviceError, device.open, lambda: None)
        self.assertEqual(os.listdir(self.directory), [])
        self.make("a", bytes(MB))
        device = self.opened(self.device("READONLY extent0"))
        self.assertRaises(WriteProtected, device.write, 0, b"x")

    def fault(self, device: Any) -> list[str]:
        """What is wrong with a device, when it is opened."""
        failed: Any = call(device.open, lambda: None)
        self.failureResultOf(failed, DeviceError)
        return [str(fault) for fault in takeFaults(device)]

    def test_misfit(self) -> None:
        """What is wrong with a filter when it is opened names its line; what is wrong below, that line."""
        text = "extent0 a 0 size\ndevice0 SLICE extent0 start=1M length=1M\ntarget0 device0 any"
        self.make("a", bytes(MB))
        (line,) = self.fault(self.disks(text)[0].device)
        self.assertIn("F:2: device0: ", line)
        self.assertIn("has 1048576 bytes, too few for a slice", line)
        os.unlink(os.path.join(self.directory, "a"))
        faults = self.fault(self.disks(text)[0].device)
        self.assertEqual([line[:13] for line in faults], ["F:1: extent0:"])

    def test_foreignFile(self) -> None:
        """The file of an overlay that is something else is a fault of the overlay's line."""
        self.make("a", bytes(MB))
        self.make("o", b"precious")
        device = self.disks("extent0 a 0 size\ndevice0 OVERLAY extent0 file=o\ntarget0 device0 any")[0].device
        error = self.assertRaises(DeviceError, device.open, lambda: None)
        self.assertIn("is no overlay", str(error))
        (fault,) = takeFaults(device)
        self.assertIsInstance(fault, ConfigurationError)
        self.assertTrue(str(fault).startswith("F:2: device0: "), fault)
        with open(os.path.join(self.directory, "o"), "rb") as file:
            self.assertEqual(file.read(), b"precious")

    def test_rehearsed(self) -> None:
        """What would keep devices from being opened is found without that; a mirror needs one member."""
        lines = "extent0 a 0 1M\nextent1 none/b 0 1M\nextent2 none/c 0 1M\n"
        for line, wanted in (
            ("device0 READONLY extent0", 1),
            ("device0 OVERLAY extent0", 1),
            ("device0 SLICE extent1 start=0 length=512", 1),
            ("device0 RAID0 extent0 extent1", 1),
            ("device0 RAID1 extent0 extent1", 0),
            ("device0 RAID1 extent1 extent2", 2),
        ):
            (disk,) = self.disks(f"{lines}{line}\ntarget0 device0 any")
            rehearse(disk.device)
            faults = takeFaults(disk.device)
            self.assertEqual(len(faults), wanted, (line, faults))
            self.assertEqual((os.listdir(self.directory), takeFaults(disk.device)), ([], []))


class GoldenTests(TestCase):
    """Overlays over one extent, with the real reactor for the threads that ask how new it is."""

    async def test_golden(self) -> None:
        """They share its file and see only their own changes."""
        from twisted.internet import reactor

        image, kept = os.path.abspath(self.mktemp()), os.path.abspath(self.mktemp())
        with open(image, "wb") as file:
            file.write(b"g" * MB)
        text = (
            f"extent0 {image} 0 size\ndevice0 OVERLAY extent0 file={kept}\ndevice1 OVERLAY extent0\n"
            "target0 device0 any\ntarget1 device1 any"
        )
        configuration = parse(text, "F", lambda name: None)
        made = plans(configuration, base="iqn.2001-04.com.example", blockSize=512, reactor=reactor)
        first, second = (disk.device for plan in made for disk in plan.disks)
        for device in (first, second):
            await call(device.open, lambda: None)
        await call(second.write, 0, b"x" * 4096)
        seen = [bytes(await call(device.read, 0, 4)) for device in (first, second)]
        self.assertEqual(seen, [b"gggg", b"xxxx"])
        for device in (first, second):
            await call(device.close)
        self.assertTrue(os.path.exists(kept))
        with open(image, "rb") as file:
            self.assertEqual(file.read(), b"g" * MB)
