# -*- test-case-name: tests.config.test_model -*-
"""The values of a configuration."""

from __future__ import annotations

import attrs
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.config.model import Configuration, Device, Extent, Storage, Target, Where
from iscsi_twisted.config.netmasks import Netmask

MB = 1 << 20


def extent(number: int, length: int | None) -> Extent:
    """An extent of a file of its own."""
    return Extent(f"extent{number}", f"/{number}", 0, length, where=Where("F", number))


def device(number: int, level: int, chunk: int | None, *members: Storage) -> Device:
    """A device of these members."""
    return Device(f"device{number}", level, chunk, members, where=Where("F", 100 + number))


class SizeTests(SynchronousTestCase):
    """How large devices are."""

    def test_concatenation(self) -> None:
        """A concatenation is as large as its members together, if all of them are known."""
        self.assertEqual(device(0, 0, None, extent(0, MB), extent(1, 2 * MB)).size, 3 * MB)
        self.assertIs(device(0, 0, None, extent(0, MB), extent(1, None)).size, None)

    def test_mirror(self) -> None:
        """A mirror is as large as any of its members that is known."""
        self.assertEqual(device(0, 1, None, extent(0, None), extent(1, MB)).size, MB)
        self.assertIs(device(0, 1, None, extent(0, None), extent(1, None)).size, None)

    def test_stripe(self) -> None:
        """A stripe has only whole chunks of its members."""
        self.assertEqual(device(0, 0, 65536, extent(0, MB + 512), extent(1, MB + 512)).size, 2 * MB)
        self.assertIs(device(0, 0, 65536, extent(0, None), extent(1, None)).size, None)

    def test_depth(self) -> None:
        """Depth counts the levels of devices."""
        inner = device(0, 0, None, extent(0, MB))
        self.assertEqual((extent(0, MB).depth, inner.depth), (0, 1))
        self.assertEqual(device(1, 1, None, extent(1, MB), inner).depth, 2)

    def test_raid(self) -> None:
        """The level can be shown as it is written."""
        shown = [device(0, level, chunk).raid for level, chunk in [(0, None), (0, 65536), (1, None)]]
        self.assertEqual(shown, ["RAID0", "RAID0:65536", "RAID1"])


class SizeFaultTests(SynchronousTestCase):
    """Sizes that are known only when extents are open."""

    def setUp(self) -> None:
        """A mirror of a stripe and an extent; only one of the lengths is known."""
        self.unknown = [extent(0, None), extent(1, None)]
        stripe = device(0, 0, 65536, *self.unknown)
        mirror = device(1, 1, None, extent(2, 2 * MB), stripe)
        target = Target("target0", None, False, (mirror,), Netmask("any"))
        self.configuration = Configuration(
            (*self.unknown, extent(2, 2 * MB)), (stripe, mirror), (target,), "F"
        )

    def check(self, *lengths: int) -> list[str]:
        """The faults if the files turn out to have these lengths."""
        found = {extent.name: length for extent, length in zip(self.unknown, lengths, strict=True)}
        return [str(error) for error in self.configuration.sizeFaults(lambda extent: found[extent.name])]

    def test_fitting(self) -> None:
        """Members of one size are in order, what is left of a last chunk aside."""
        self.assertEqual(self.check(MB, MB), [])
        self.assertEqual(self.check(MB + 512, MB + 512), [])

    def test_member(self) -> None:
        """Members of a stripe that differ are a fault of its line."""
        self.assertEqual(
            self.check(MB, MB + 512),
            [
                "F:100: the members of RAID0:65536 device0 have to be of one size, but extent0 has 1048576"
                " bytes and extent1 1049088"
            ],
        )

    def test_deep(self) -> None:
        """A mirror is compared with what its members come to, however deep they are."""
        self.assertEqual(
            self.check(2 * MB, 2 * MB),
            [
                "F:101: the members of RAID1 device1 have to be of one size, but extent2 has 2097152 bytes"
                " and device0 4194304"
            ],
        )

    def test_small(self) -> None:
        """A member less than a chunk is a fault, and so is what follows from it."""
        self.assertEqual(
            self.check(512, 512)[0],
            "F:100: the members of device0 have 512 bytes, less than a chunk of 65536",
        )


class ValueTests(SynchronousTestCase):
    """What holds for all of the model."""

    def test_frozen(self) -> None:
        """Nothing of a configuration can be changed."""
        self.assertRaises(attrs.exceptions.FrozenInstanceError, setattr, extent(0, MB), "path", "/x")

    def test_equality(self) -> None:
        """Definitions that say the same are equal, wherever they stand."""
        here = Extent("extent0", "/a", 0, MB, where=Where("F", 1), given="a")
        there = Extent("extent0", "/a", 0, MB, where=Where("G", 2))
        self.assertEqual({here, there}, {here})
        self.assertEqual((here.given, there.given), ("a", "/a"))
        self.assertNotEqual(device(0, 0, None, here), device(0, 0, None, extent(1, MB)))

    def test_targetName(self) -> None:
        """A target without an IQN is named after the base."""
        target = Target("target0", None, True, (), Netmask("any"))
        self.assertEqual(target.targetName("iqn.2001-04.com.example"), "iqn.2001-04.com.example:target0")
        self.assertEqual(attrs.evolve(target, iqn="iqn.x").targetName("iqn.y"), "iqn.x")

    def test_nowhere(self) -> None:
        """A fault of a definition that stands in no file is just the message."""
        self.assertEqual(str(Extent("extent0", "/a", 0, MB).where.error("broken")), "broken")
