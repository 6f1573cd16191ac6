# -*- test-case-name: tests.target.test_assembly -*-
"""From a configuration to plans, devices and units."""

from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.config.options import UnitOptions
from iscsi_twisted.config.targets import parse
from iscsi_twisted.errors import ConfigurationError, ConfigurationErrors, DeviceError
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.optical import OpticalUnit
from iscsi_twisted.scsi.room import QUEUE
from iscsi_twisted.session.names import complaint
from iscsi_twisted.session.node import Node
from iscsi_twisted.storage import MemoryDevice, Mirror, Stripe
from iscsi_twisted.target.assembly import Disk, Plan, makeUnit, plans
from iscsi_twisted.target.identity import Installation
from iscsi_twisted.target.placed import takeFaults
from tests.support.wire import Anybody, Diary

BASE = "iqn.2001-04.com.example"
INSTALLATION = Installation(bytes(range(16)))


def ignore(error: BaseException, task: object) -> None:
    """Nobody is told."""


class PlanTests(SynchronousTestCase):
    """Tests of L{plans}."""

    def plans(self, text: str, blockSize: int = 512) -> list[Plan]:
        """What a targets file in a directory of its own wants."""
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        configuration = parse(text, "F", complaint, BASE, directory=self.directory)
        return plans(configuration, base=BASE, blockSize=blockSize, reactor=Clock())

    def test_targets(self) -> None:
        """A target line becomes a plan: name, policy, mode, alias, and a disk for each storage."""
        first, second = self.plans(
            "extent0 a 0 1M\nextent1 b 0 1M\nextent2 c 0 1M\n"
            "target0 ro extent0 extent1 10.4.0.0/16 alias=one\n"
            "target1=iqn.1999-01.org.example:x extent2 any\n"
        )
        self.assertEqual((first.name, first.alias, first.readOnly), (f"{BASE}:target0", "one", True))
        self.assertEqual([disk.readOnly for disk in first.disks], [True, True])
        self.assertEqual([first.policy.admits(each) for each in ("10.4.1.5", "10.5.0.1")], [True, False])
        self.assertEqual((second.name, second.readOnly), ("iqn.1999-01.org.example:x", False))

    def test_nothingOpened(self) -> None:
        """Planning creates no file."""
        self.plans("extent0 a 0 1M\ntarget0 extent0 any\n")
        self.assertEqual(os.listdir(self.directory), [])

    def test_faults(self) -> None:
        """What cannot be served is told with its line, all of it at once and in order."""
        text = (
            "extent0 a 0 1M physical=1K\nextent1 b 0 1M physical=2K\n"
            "target0 extent0 any\ntarget1 extent1 any\n"
        )
        error = self.assertRaises(ConfigurationErrors, self.plans, text, 4096)
        self.assertEqual(
            str(error).split("\n"),
            [
                "F:1: physical=1024 is less than the block size; a multiple of 4096 is wanted",
                "F:2: physical=2048 is less than the block size; a multiple of 4096 is wanted",
            ],
        )

    def test_noBlock(self) -> None:
        """What has not one block is refused, if its size is known."""
        text = (
            "extent0 a 0 512 block=4K\nextent1 b 0 4K block=4K\ndevice0 MEMORY size=1K block=2K\n"
            "extent2 c 0 size block=4K\ntarget0 extent0 extent1 device0 extent2 any\n"
        )
        error = self.assertRaises(ConfigurationErrors, self.plans, text)
        hint = "; make it larger, or its blocks smaller (block=)"
        self.assertEqual(
            str(error).split("\n"),
            [
                "F:1: extent0 has 512 bytes, and not one block of 4096" + hint,
                "F:3: device0 has 1024 bytes, and not one block of 2048" + hint,
            ],
        )

    def test_sectors(self) -> None:
        """Logical blocks are no smaller than what is encrypted together, however deep that is."""
        text = "extent0 a 0 1M\ndevice0 CRYPT extent0 key=k sector=4K\ndevice1 DELAY device0 seconds=0{}\n"
        text += "target0 device1 any\n"
        error = self.assertRaises(ConfigurationErrors, self.plans, text.format(""), 512)
        self.assertEqual(
            str(error),
            "F:3: blocks of 512 bytes are smaller than sectors of 4096; write block=4K, or sector=512 on the"
            " line of the CRYPT",
        )
        self.plans(text.format(" block=8K"), 512)

    def test_stripe(self) -> None:
        """RAID0 with a chunk becomes a stripe that has one."""
        (plan,) = self.plans(
            "extent0 a 0 1M\nextent1 b 0 1M\ndevice0 RAID0:64K extent0 extent1\ntarget0 device0 any\n"
        )
        device = plan.disks[0].device
        assert isinstance(device, Stripe)
        self.assertEqual((device.chunk, len(device.members)), (65536, 2))

    def test_mirror(self) -> None:
        """A mirror has the patience that its line gives it, or the usual one."""
        text = "extent0 a 0 1M\nextent1 b 0 1M\ndevice0 RAID1 extent0 extent1 {}\ntarget0 device0 any\n"
        for option, seconds in (("", 25), ("patience=3", 3), ("patience=0", 0)):
            device = self.plans(text.format(option))[0].disks[0].device
            assert isinstance(device, Mirror)
            self.assertEqual((device.patience, device.life.rota.every), (seconds, None))
        device = self.plans(text.format("scrub=0.5"))[0].disks[0].device
        assert isinstance(device, Mirror)
        self.assertEqual(device.life.rota.every, 43200)

    def test_placed(self) -> None:
        """What is wrong with devices when they are opened names their lines, deep ones too, and only once."""
        (plan,) = self.plans(
            "extent0 none/a 0 1M\nextent1 b 0 1M\nextent2 c 0 size\nextent3 none/d 0 1M\n"
            "device0 RAID1 extent0 extent1\ndevice1 RAID0 device0 extent2 extent3\ntarget0 device1 any\n"
        )
        with open(os.path.join(self.directory, "c"), "wb") as file:
            file.truncate(1 << 20)
        device = plan.disks[0].device
        self.assertRaises(DeviceError, device.open, lambda: None)
        lines = [str(fault).split(" ")[:2] for fault in takeFaults(device)]
        self.assertEqual(lines, [["F:1:", "extent0:"], ["F:4:", "extent3:"]])
        self.assertEqual(takeFaults(device), [])

    def test_titles(self) -> None:
        """A device of a line is called what the line calls it; an extent, by its file."""
        (plan,) = self.plans(
            "extent0 a 0 1M\nextent1 b 0 1M\nextent2 c 0 1M\ndevice0 RAID1 extent0 extent1\n"
            "device1 RAID0 device0 extent2\ntarget0 device1 any\n"
        )
        device = plan.disks[0].device
        self.assertEqual((str(device), str(device.members[0])), ("device1", "device0"))  # type: ignore[attr-defined]
        self.assertEqual(str(device.members[1]), os.path.join(self.directory, "c"))  # type: ignore[attr-defined]

    def test_unequal(self) -> None:
        """Mirror members that turn out to be of different sizes are a fault of the mirror's line."""
        (plan,) = self.plans(
            "extent0 a 0 1M\nextent1 b 0 size\ndevice0 RAID1 extent0 extent1\ntarget0 device0 any\n"
        )
        with open(os.path.join(self.directory, "b"), "wb") as file:
            file.truncate(1 << 19)
        self.assertRaises(DeviceError, plan.disks[0].device.open, lambda: None)
        (fault,) = takeFaults(plan.disks[0].device)
        self.assertTrue(str(fault).startswith("F:3: device0: "), fault)

    def test_noFaults(self) -> None:
        """A device of an application's own has none that could be taken."""
        self.assertEqual(takeFaults(MemoryDevice(512)), [])

    def test_blockSize(self) -> None:
        """The block size of a line comes before that of the command line."""
        text = "extent0 a 0 1M block=4K\nextent1 b 0 1M\ntarget0 extent0 extent1 any"
        (plan,) = self.plans(text, 1024)
        self.assertEqual([disk.blockSize for disk in plan.disks], [4096, 1024])
        (plan,) = self.plans("extent0 a 0 1M type=cdrom\ntarget0 rw extent0 any", 512)
        self.assertEqual([(disk.blockSize, disk.readOnly) for disk in plan.disks], [(2048, True)])
        faults = self.assertRaises(
            ConfigurationErrors,
            self.plans,
            "extent0 a 0 1M block=4K physical=512\ntarget0 extent0 any",
        )
        self.assertIn("a multiple of 4096 is wanted", str(faults))


class UnitTests(SynchronousTestCase):
    """Tests of L{makeUnit}."""

    def unit(
        self, lun: int = 0, target: str = f"{BASE}:t", blockSize: int = 512, **options: object
    ) -> DiskUnit:
        """The unit for a disk with these options."""
        disk = Disk(MemoryDevice(1 << 20), UnitOptions(**options), blockSize)  # type: ignore[arg-type]
        return makeUnit(Plan(target, (disk,) * (lun + 1), Anybody()), lun, INSTALLATION, ignore)

    def test_identity(self) -> None:
        """Two units, of one target or of two, have different serials and NAA ids; one always the same."""
        units = [self.unit(), self.unit(1), self.unit(target=f"{BASE}:u")]
        self.assertEqual(len({unit.identity.serial for unit in units}), 3)
        self.assertEqual(len({unit.identity.naa for unit in units}), 3)
        self.assertEqual(self.unit().identity, units[0].identity)

    def test_installations(self) -> None:
        """Two installations with the same configuration have no name of a unit in common."""
        plan = Plan(f"{BASE}:t", (Disk(MemoryDevice(512)),), Anybody())
        here, there = (
            makeUnit(plan, 0, Installation(bytes([number]) * 16), ignore).identity for number in (1, 2)
        )
        for name in ("serial", "naa", "deviceName"):
            self.assertNotEqual(getattr(here, name), getattr(there, name), name)
        self.assertEqual(here.deviceName, f"naa.{here.naa.hex()}")

    def test_options(self) -> None:
        """Options take the place of what would be derived."""
        unit = self.unit(
            serial="S1", naa=bytes(range(0x30, 0x38)), vendor="ACME", product="Disk", revision="9"
        )
        identity = unit.identity
        self.assertEqual(
            (identity.serial, identity.naa, identity.vendor, identity.product, identity.revision),
            ("S1", bytes(range(0x30, 0x38)), "ACME", "Disk", "9"),
        )

    def test_cdrom(self) -> None:
        """An optical unit is read-only, has blocks of its own, and a name that says what it is."""
        unit = self.unit(type="cdrom", blockSize=512)
        self.assertIsInstance(unit, OpticalUnit)
        self.assertEqual(
            (unit.blockSize, unit.readOnly, unit.identity.product), (2048, True, "iSCSI DVD-ROM")
        )

    def test_medium(self) -> None:
        """What the medium is comes from the options, or from the device."""
        self.assertEqual((self.unit().removable, self.unit().rotation), (False, None))
        unit = self.unit(removable=True, rotation=7200)
        self.assertEqual((unit.removable, unit.rotation), (True, 7200))

    def test_queue(self) -> None:
        """How many commands a unit has comes from its options, or is less than the window of a session."""
        self.assertEqual((self.unit(queue=5).room.size, self.unit().room.size), (5, QUEUE))
        self.assertLess(QUEUE, Node(Diary()).depth)

    def test_physical(self) -> None:
        """A physical block that is smaller than a logical one is a fault."""
        self.assertEqual(self.unit(physical=8192).physicalBlockSize, 8192)
        self.assertRaises(ConfigurationError, self.unit, blockSize=8192, physical=4096)

    def test_readOnly(self) -> None:
        """A unit is read-only if its disk or its target is."""
        for disk, target in ((True, False), (False, True)):
            plan = Plan(f"{BASE}:t", (Disk(MemoryDevice(512), readOnly=disk),), Anybody(), readOnly=target)
            unit = makeUnit(plan, 0, INSTALLATION, ignore)
            unit.device.open(unit.changed)
            unit.opened()
            self.assertTrue(unit.readOnly)
