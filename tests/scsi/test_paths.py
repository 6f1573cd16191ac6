"""Tests for L{iscsi_twisted.scsi.paths}: which command is answered in which access state."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import LocalError
from iscsi_twisted.scsi import cdb, codes, paths
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.paths import SYMMETRIC, Paths
from tests.scsi.cases import DiskTests
from tests.support.tasks import Nexus, Task, run

ALWAYS = {"INQUIRY", "REPORT LUNS", "REQUEST SENSE"}
BUFFERS = {"WRITE BUFFER", "READ BUFFER (10)", "READ BUFFER (16)", "READ BUFFER"}
REPORT, SET = {"REPORT TARGET PORT GROUPS"}, {"SET TARGET PORT GROUPS"}
LOOKING = {
    "LOG SELECT", "LOG SENSE", "MODE SELECT (6)", "MODE SELECT (10)", "MODE SENSE (6)", "MODE SENSE (10)",
    "RECEIVE DIAGNOSTIC RESULTS", "SEND DIAGNOSTIC", "READ CAPACITY (10)", "READ CAPACITY (16)",
}  # fmt: skip
RESERVATIONS = {each.name for each in DiskUnit.table if each.opcode in (0x5E, 0x5F)}

STATES = [
    # SPC-4 section, state, what is answered, additional sense code of all else
    ("5.15.2.4.2", paths.OPTIMIZED, None, 0),
    ("5.15.2.4.3", paths.NON_OPTIMIZED, None, 0),
    ("5.15.2.4.4", paths.STANDBY, ALWAYS | REPORT | SET | BUFFERS | LOOKING | RESERVATIONS, 0x040B),
    ("5.15.2.4.5", paths.UNAVAILABLE, ALWAYS | REPORT | SET | BUFFERS, 0x040C),
    ("5.15.2.4.6", paths.OFFLINE, ALWAYS, 0x0412),
    ("5.15.2.5", paths.TRANSITIONING, ALWAYS | REPORT | BUFFERS, 0x040A),
]


class StateTests(DiskTests):
    """A disk at two ports, of which the second one has any state."""

    def setUp(self) -> None:
        super().setUp()
        self.unit.paths = Paths((1, 2))
        self.far = Nexus(portalGroupTag=2)
        self.unit.nexusFound(self.far)
        self.unit.takeAttention(self.far)

    def enter(self, state: int) -> None:
        """The second port has this state, and everybody knows."""
        self.unit.setAccess({2: state})
        for nexus in (self.nexus, self.far):
            self.unit.takeAttention(nexus)

    def refusedIn(self, command: cdb.Command, nexus: Nexus) -> int:
        """The additional sense code of NOT READY; 0 for any other end."""
        task = run(self.unit, Task(command.encode(), nexus))
        return task.code if task.status == codes.CHECK_CONDITION and task.key == codes.NOT_READY else 0

    def test_states(self) -> None:
        """In each state the commands are answered that the standard lists, and no others."""
        for section, state, answered, code in STATES:
            self.enter(state)
            for command in DiskUnit.table:
                wanted = 0 if answered is None or command.name in answered else code
                self.assertEqual(
                    self.refusedIn(command, self.far), wanted, f"{section} {state:#x} {command.name}"
                )
                self.assertEqual(self.refusedIn(command, self.nexus), 0, f"{section} {command.name}")
                for nexus in (self.nexus, self.far):
                    self.unit.reserve(None)
                    self.unit.load(self.nexus)
                    while self.unit.takeAttention(nexus):
                        pass

    def test_ordinary(self) -> None:
        """Only where a nexus comes through such a group do commands go the long way."""
        self.enter(paths.NON_OPTIMIZED)
        self.assertFalse(self.unit._unusual)
        self.enter(paths.STANDBY)
        self.assertTrue(self.unit._unusual and self.unit.passes(self.nexus))
        self.assertFalse(self.unit.passes(self.far))
        self.unit.nexusLost(self.far)
        self.assertFalse(self.unit._unusual)
        self.unit.nexusFound(self.far)
        self.unit.takeAttention(self.far)
        self.assertTrue(self.unit._unusual)
        self.enter(paths.OPTIMIZED)
        self.assertFalse(self.unit._unusual)

    def test_told(self) -> None:
        """All are told of a change, once, and of none that is none; and of one that failed."""
        self.unit.setAccess({2: paths.STANDBY})
        self.unit.setAccess({2: paths.STANDBY})
        for nexus in (self.nexus, self.far):
            task = self.command(cdb.TEST_UNIT_READY, nexus=nexus)
            self.assertSense(task, codes.UNIT_ATTENTION, codes.ACCESS_CHANGED)
        self.good(cdb.TEST_UNIT_READY)
        self.unit.accessFailed()
        task = self.command(cdb.TEST_UNIT_READY)
        self.assertSense(task, codes.UNIT_ATTENTION, codes.ACCESS_NOT_CHANGED)

    def test_reservation(self) -> None:
        """A reservation of another nexus is told before the state of the path (SAM-5 5.3.3)."""
        self.enter(paths.STANDBY)
        self.good(cdb.RESERVE_6)
        task = self.command(cdb.READ_10, length=1, nexus=self.far)
        self.assertEqual(task.status, codes.RESERVATION_CONFLICT)

    def test_inquiry(self) -> None:
        """INQUIRY says who changes states (TPGS, SPC-4 table 144)."""
        for tpgs in (paths.NONE, paths.IMPLICIT, paths.EXPLICIT, paths.BOTH):
            self.unit.paths = Paths((1, 2), tpgs=tpgs)
            self.assertEqual(self.good(cdb.INQUIRY, allocation=96)[5] & 0x30, tpgs << 4)


class PathsTests(SynchronousTestCase):
    """The states themselves."""

    def test_refused(self) -> None:
        """Groups and states that there are not are refused, and change nothing."""
        some = Paths((1, 2), {1: paths.STANDBY})
        for states in ({1: paths.OPTIMIZED, 3: paths.OPTIMIZED}, {1: 0x4}, {1: 0x10}):
            self.assertRaises(LocalError, some.change, states, paths.BY_ITSELF)
        self.assertEqual(some.states, {1: paths.STANDBY})
        self.assertRaises(LocalError, Paths, (1,), {}, (2,))
        self.assertRaises(LocalError, SYMMETRIC.change, {1: paths.STANDBY}, paths.BY_ITSELF)
