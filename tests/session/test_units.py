"""Units that come and go while a target serves: C{addUnit} and C{removeUnit} of its L{Target}."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import LocalError
from iscsi_twisted.interfaces import Grant
from iscsi_twisted.scsi.luns import Inventory
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import numbers
from tests.support import pdus
from tests.support.devices import FakeDevice
from tests.support.wire import TEST_UNIT_READY, Anybody, Line, makeNode, makeTarget, makeUnit, read10

LUN1, LUN2 = (bytes((0, lun)) + bytes(6) for lun in (1, 2))
REPORT_LUNS = bytes.fromhex("a00000000000000010000000")


class Masking(Anybody):
    """Lets one initiator see LUN 0 alone."""

    def decide(self, asker: Any) -> Grant:
        return Grant(luns=frozenset((0,)) if asker.initiatorName.endswith("masked") else None)


class UnitsTests(SynchronousTestCase):
    """Two sessions that see all of a target with two units, and one that sees only LUN 0."""

    def setUp(self) -> None:
        self.device = FakeDevice()
        self.target = makeTarget(MemoryDevice(4096), self.device, policy=Masking())
        self.node, _ = makeNode(self.target)
        self.lines = [Line(self.node) for _ in range(3)]
        for line, name in zip(self.lines, ("one", "two", "masked"), strict=True):
            line.login(InitiatorName=f"iqn.2001-04.com.example:{name}")

    def add(self, lun: int) -> Any:
        """Add a unit."""
        unit = makeUnit(MemoryDevice(4096), lun)
        unit.inventory = Inventory(self.target.units)  # type: ignore[arg-type]
        self.target.addUnit(lun, unit)
        return unit

    def sense(self, line: Line, lun: bytes = bytes(8)) -> str:
        """What TEST UNIT READY says: sense key and additional sense, or nothing."""
        (answer,) = line.command(TEST_UNIT_READY, lun=lun)
        data = answer["data"]
        return f"{data[4] & 15:x}/{data[14:16].hex()}" if answer["status"] else ""

    def luns(self, line: Line) -> list[int]:
        """What REPORT LUNS lists."""
        data = line.command(REPORT_LUNS, read=4096)[0]["data"]
        return [data[place + 1] for place in range(8, len(data), 8)]

    def test_added(self) -> None:
        """A unit that comes is there for all sessions, and the others tell of it once."""
        self.assertEqual([self.sense(line, LUN2) for line in self.lines], ["5/2500"] * 3)
        self.add(2)
        one, two, masked = self.lines
        for line in (one, two):
            self.assertEqual([self.sense(line), self.sense(line)], ["6/3f0e", ""])
            self.assertEqual([self.sense(line, LUN2), self.sense(line, LUN2)], ["6/2900", ""])
        self.assertEqual([self.sense(masked), self.sense(masked, LUN2)], ["", "5/2500"])
        self.assertEqual([self.luns(line) for line in self.lines], [[0, 1, 2], [0, 1, 2], [0]])

    def test_listed(self) -> None:
        """Who asks for the list before it was told needs not be told, by any unit."""
        self.add(2)
        self.assertEqual(self.luns(self.lines[0]), [0, 1, 2])
        self.assertEqual([self.sense(self.lines[0]), self.sense(self.lines[0], LUN1)], ["", ""])
        self.assertEqual(self.sense(self.lines[1], LUN1), "6/3f0e")

    def test_removed(self) -> None:
        """A unit that goes is gone for all, also for those who used it; its tasks end with TASK ABORTED."""
        one = self.lines[0]
        one.command(read10(0, 1), read=512, lun=LUN1)
        unit: Any = self.target.removeUnit(1)
        (answer,) = one.take()
        self.assertEqual((answer["itt"], answer["status"]), (one.itt, 0x40))
        self.assertEqual([self.sense(line, LUN1) for line in self.lines], ["5/2500"] * 3)
        self.assertEqual([self.sense(line) for line in self.lines], ["6/3f0e", "6/3f0e", ""])
        self.device.fire()
        self.assertEqual((one.take(), unit.operations), ([], set()))
        self.assertEqual([self.luns(line) for line in self.lines], [[0]] * 3)

    def test_exchanged(self) -> None:
        """Another unit may take the number."""
        self.sense(self.lines[0], LUN1)
        self.target.removeUnit(1)
        unit = self.add(1)
        self.assertEqual([self.sense(self.lines[0], LUN1), self.sense(self.lines[0], LUN1)], ["6/2900", ""])
        self.lines[0].command(read10(0, 1), read=512, lun=LUN1)
        self.assertEqual(unit.snapshot().reads, 1)

    def test_wellKnown(self) -> None:
        """The well known unit is there for all, tells of changes too, and is reset with the target."""
        field = bytes.fromhex("c101000000000000")
        self.assertEqual([self.sense(line, field) for line in self.lines], ["6/2900"] * 3)
        self.add(2)
        self.assertEqual([self.sense(line, field) for line in self.lines], ["6/3f0e", "6/3f0e", ""])
        self.lines[0].say(pdus.taskManagement(numbers.TARGET_WARM_RESET, itt=0x55))
        self.assertEqual(self.sense(self.lines[1], field), "6/2903")
        (answer,) = self.lines[2].command(bytes.fromhex("a00001000000000010000000"), lun=field, read=4096)
        self.assertEqual(answer["data"][8:].hex(), "c101000000000000")

    def test_refused(self) -> None:
        """A number is taken once, and what is not there cannot go."""
        self.assertRaises(LocalError, self.target.addUnit, 1, makeUnit(MemoryDevice(4096)))
        self.assertRaises(LocalError, self.target.removeUnit, 2)

    def test_discovery(self) -> None:
        """A session's end after all that is as any other."""
        self.add(2)
        self.target.removeUnit(0)
        for line in self.lines:
            line.core.lost("closed")
        self.assertEqual(self.target.sessions, {})
