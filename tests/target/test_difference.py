# -*- test-case-name: tests.target.test_difference -*-
"""What has to be done to serve something else."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.config.steps import whole
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.target.assembly import Disk, Plan
from iscsi_twisted.target.building import Address, Place
from iscsi_twisted.target.difference import Difference, compare, postponed
from iscsi_twisted.target.kinds import Kind

ANY: Any = None


def disk(text: str) -> Disk:
    """A device by its definition: C{NAME:FILE,FILE}."""
    name, _, files = text.partition(":")
    return Disk(MemoryDevice(512), kind=Kind(name, name, frozenset(filter(None, files.split(",")))))


class DifferenceTests(SynchronousTestCase):
    """Tests of L{compare} and L{postponed}; there are two targets with two LUNs each."""

    def setUp(self) -> None:
        self.places: dict[Address, Place] = {}
        for target, lun, definition in (("t", 0, "a:A"), ("t", 1, "b:B"), ("u", 0, "c:C"), ("u", 1, "d:D")):
            self.places[target, lun] = Place(disk(definition), ANY, ANY)
        self.names = {id(place): f"{target}{lun}" for (target, lun), place in self.places.items()}

    def compare(self, **targets: str) -> Difference:
        """What leads to these targets, each given as its disks."""
        plans = [Plan(name, tuple(map(disk, disks.split())), ANY) for name, disks in targets.items()]
        return whole(compare(self.places, plans))

    def told(self, difference: Difference) -> dict[str, str]:
        """For each LUN: the one whose device it has, or + for a new one; and those that have to let go."""
        return {
            "{}{}".format(*step.address): " ".join(
                [
                    self.names[id(step.source)] if step.source else "+",
                    *(self.names[id(n)] for n in step.needs),
                ]
            )
            for step in difference.steps
        }

    def test_same(self) -> None:
        """Nothing is to be done."""
        difference = self.compare(t="a:A b:B", u="c:C d:D")
        self.assertTrue(all(step.stays and not step.held for step in difference.steps))
        self.assertEqual(difference.leaving, {})

    def test_moved(self) -> None:
        """Devices are handed over, in one target and to others."""
        difference = self.compare(t="b:B a:A", v="c:C")
        self.assertEqual(self.told(difference), {"t0": "t1", "t1": "t0", "v0": "u0"})
        self.assertEqual(list(difference.leaving), [("u", 0), ("u", 1)])

    def test_exchanged(self) -> None:
        """A device waits for those that use its files, not for those that stay or change hands."""
        difference = self.compare(t="e:A,B b:B", u="f:F d:D")
        self.assertEqual(self.told(difference), {"t0": "+ t0", "t1": "t1", "u0": "+", "u1": "u1"})

    def test_postponed(self) -> None:
        """What waits for a busy LUN keeps its own device, and so on."""
        difference = self.compare(t="b:B e:E", u="a:A d:D", v="c:C")
        self.assertEqual(self.told(difference), {"t0": "t1", "t1": "+", "u0": "t0", "u1": "u1", "v0": "u0"})
        names = self.told(difference)
        for busy, wanted in (("t0", "t0 u0"), ("t1", "t0 t1 u0"), ("u0", "u0 v0"), ("u1", "")):
            places = [place for place in self.places.values() if self.names[id(place)] == busy]
            late = {"{}{}".format(*step.address) for step in postponed(difference.steps, places)}
            self.assertLessEqual(set(wanted.split()), late, busy)
            self.assertLessEqual(late, set(names), busy)
        self.assertEqual(postponed(difference.steps, []), set())

    def test_twins(self) -> None:
        """Of two devices that are the same each goes on once."""
        self.places["t", 1] = Place(disk("a:A"), ANY, ANY)
        self.names[id(self.places["t", 1])] = "t1"
        told = self.told(self.compare(v="a:A a:A a:A"))
        self.assertEqual(sorted(told.values()), ["+", "t0", "t1"])
