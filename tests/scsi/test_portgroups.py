"""Tests for L{iscsi_twisted.scsi.portgroups}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from iscsi_twisted.scsi import cdb, codes, paths
from iscsi_twisted.scsi.paths import Paths
from tests.scsi.cases import DiskTests
from tests.support.tasks import Nexus, Task


class PortGroupTests(DiskTests):
    """A disk at three ports."""

    def setUp(self) -> None:
        super().setUp()
        self.unit.paths = Paths((1, 2, 300), {2: paths.NON_OPTIMIZED, 300: paths.STANDBY}, {1})
        self.far = Nexus(portalGroupTag=2)
        self.unit.nexusFound(self.far)
        self.unit.takeAttention(self.far)

    def test_report(self) -> None:
        """Each group with its state, what states there are, what changed it, and its port (table 295)."""
        groups = "80cf0001000000010000000101cf0002000000010000000202cf012c000000010000012c"
        data = self.good(cdb.REPORT_TARGET_PORT_GROUPS, allocation=4096)
        self.assertEqual(data.hex(), "00000024" + groups)
        extended = self.good(cdb.REPORT_TARGET_PORT_GROUPS, action=0x20, allocation=4096)
        self.assertEqual(extended.hex(), "00000028" + "10000000" + groups)
        task = self.command(cdb.REPORT_TARGET_PORT_GROUPS, action=0x40, allocation=4096)
        self.assertInvalidField(task, 1, 7)

    def set(self, *states: tuple[int, int], nexus: Nexus | None = None) -> Task:
        """SET TARGET PORT GROUPS to pairs of group and state."""
        data = bytes(4) + b"".join(bytes((state, 0)) + group.to_bytes(2, "big") for group, state in states)
        return self.command(cdb.SET_TARGET_PORT_GROUPS, data, length=len(data), nexus=nexus)

    def states(self) -> list[int]:
        """What the groups have."""
        return [self.unit.paths.state(group) for group in self.unit.paths.groups]

    def test_set(self) -> None:
        """An initiator changes states; the others are told, and everybody sees what did it (table 298)."""
        self.assertEqual(self.set((1, paths.STANDBY), (2, paths.OPTIMIZED)).status, codes.GOOD)
        self.assertEqual(self.states(), [paths.STANDBY, paths.OPTIMIZED, paths.STANDBY])
        self.assertIsNone(self.unit.takeAttention(self.nexus))
        self.assertEqual(self.unit.takeAttention(self.far), codes.ACCESS_CHANGED)
        self.assertSense(self.command(cdb.TEST_UNIT_READY), codes.NOT_READY, codes.IN_STANDBY)
        self.good(cdb.TEST_UNIT_READY, nexus=self.far)
        self.unit.setAccess({300: paths.TRANSITIONING})
        self.unit.takeAttention(self.nexus)
        data = self.good(cdb.REPORT_TARGET_PORT_GROUPS, allocation=4096)
        self.assertEqual(
            [(data[place], data[place + 5]) for place in (4, 16, 28)], [(0x82, 1), (0, 1), (15, 2)]
        )

    def test_nothing(self) -> None:
        """No list, or a list without groups, changes nothing (SPC-4 6.45)."""
        self.good(cdb.SET_TARGET_PORT_GROUPS)
        self.assertEqual(self.set().status, codes.GOOD)
        self.assertEqual(self.set((2, paths.NON_OPTIMIZED)).status, codes.GOOD)
        self.assertIsNone(self.unit.takeAttention(self.far))

    def test_refused(self) -> None:
        """What is not there, cannot be asked for, or contradicts itself is refused as a whole."""
        for states, byte, bit in (
            ([(1, paths.STANDBY), (9, paths.OPTIMIZED)], 10, None),
            ([(1, paths.TRANSITIONING)], 4, 3),
            ([(1, 0x4)], 4, 3),
            ([(1, paths.STANDBY), (1, paths.OPTIMIZED)], 10, None),
        ):
            task = self.set(*states)
            self.assertSense(
                task, codes.ILLEGAL_REQUEST, codes.INVALID_FIELD_IN_PARAMETER_LIST, (False, byte, bit)
            )
        for length in (3, 7, 4 + 4 * 1025):
            task = self.command(cdb.SET_TARGET_PORT_GROUPS, bytes(length), length=length)
            self.assertSense(task, codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)
        task = self.command(cdb.SET_TARGET_PORT_GROUPS, bytes(4), length=8)
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)
        self.assertEqual(self.states(), [0, 1, 2])

    def test_reader(self) -> None:
        """Who may not write cannot take a path from others."""
        self.nexus.readOnly = True
        self.assertSense(self.set((2, paths.OFFLINE)), codes.DATA_PROTECT, codes.WRITE_PROTECTED)
        self.assertEqual(self.states(), [0, 1, 2])

    def test_modes(self) -> None:
        """The commands are there where INQUIRY says so, and else are no such service actions."""
        for tpgs, report, change in ((0, False, False), (1, True, False), (2, True, True), (3, True, True)):
            self.unit.paths = Paths((1, 2), tpgs=tpgs)
            for command, there in (
                (cdb.REPORT_TARGET_PORT_GROUPS, report),
                (cdb.SET_TARGET_PORT_GROUPS, change),
            ):
                data = self.good(
                    cdb.REPORT_OPCODES,
                    options=3,
                    requested=command.opcode,
                    requestedAction=0x0A,
                    allocation=20,
                )
                self.assertEqual(data[1] & 7, 3 if there else 1)
                task = self.command(command)
                if there:
                    self.assertEqual(task.status, codes.GOOD)
                else:
                    self.assertInvalidField(task, 1, 4)

    @given(st.binary(max_size=40))
    def test_any(self, data: bytes) -> None:
        """Whatever comes ends as it should."""
        task = self.command(cdb.SET_TARGET_PORT_GROUPS, data, length=len(data))
        self.assertEqual((task.endings, self.surprises), (1, []))
