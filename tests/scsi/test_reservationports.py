"""Persistent reservations of other ports: moved there, and registered for them."""

from __future__ import annotations

from typing import Any

from iscsi_twisted.interfaces import TargetPort
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.persistent import LIST, MOVE_LIST
from iscsi_twisted.scsi.registrations import Port, portOf
from iscsi_twisted.scsi.transportid import transportID
from tests.scsi.cases import BLOCK
from tests.scsi.persisting import PersistentCases
from tests.support.tasks import Nexus, Task, run


class PortTests(PersistentCases):
    """Registrations of several ports."""

    def move(self, key: int, new: int, to: bytes, flags: int = 0, tag: int = 1, **how: Any) -> Task:
        """REGISTER AND MOVE."""
        data = MOVE_LIST.pack(key, new, flags, tag, len(to)) + to
        return self.command(cdb.PR_REGISTER_AND_MOVE, data, length=len(data), type=1, **how)

    def test_move(self) -> None:
        """The holder gives its reservation to another port."""
        self.register((self.nexus, 7))
        self.ok(cdb.PR_RESERVE, 7, 0, 3)
        to = transportID(portOf(self.other))
        self.assertEqual(self.move(7, 0, to).code, codes.INVALID_FIELD_IN_PARAMETER_LIST)
        self.assertEqual(self.move(8, 9, to).status, codes.RESERVATION_CONFLICT)
        own = transportID(portOf(self.nexus))
        for wrong in (own, b"", bytes(24), to[:-4], b"\x06" + to[1:]):
            self.assertIn(self.move(7, 9, wrong).code, (
                codes.INVALID_FIELD_IN_PARAMETER_LIST, codes.PARAMETER_LIST_LENGTH_ERROR,
            ))  # fmt: skip
        self.assertEqual(self.move(7, 9, to, 0x02).status, codes.GOOD)
        self.assertEqual(self.unit.registrations.keys, {portOf(self.other): 9})
        self.assertTrue(self.refused(cdb.READ_10, self.nexus))
        self.assertFalse(self.refused(cdb.READ_10, self.other))

    def test_failover(self) -> None:
        """A node takes the disk over from one that is gone, as failover clusters do."""
        self.ok(cdb.PR_REGISTER_IGNORING, 0, 0xA)
        self.ok(cdb.PR_RESERVE, 0xA, 0, 5)
        self.ok(cdb.PR_REGISTER_IGNORING, 0, 0xB, nexus=self.other)
        self.conflict(cdb.PR_RESERVE, 0xB, 0, 5, nexus=self.other)
        self.good(cdb.READ_RESERVATION, allocation=24, nexus=self.other)
        self.unit.nexusLost(self.nexus)
        self.ok(cdb.PR_PREEMPT_AND_ABORT, 0xB, 0xA, 5, nexus=self.other)
        self.assertEqual(self.unit.registrations.keys, {portOf(self.other): 0xB})
        self.assertFalse(self.refused(cdb.WRITE_10, self.other))

    def specify(self, ids: bytes, key: int = 0, new: int = 7, flags: int = 0x08, **how: Any) -> Task:
        """REGISTER with a list of TransportIDs."""
        data = LIST.pack(key, new, flags) + len(ids).to_bytes(4, "big") + ids
        return self.command(how.pop("command", cdb.PR_REGISTER), data, length=len(data), **how)

    def test_specified(self) -> None:
        """SPEC_I_PT: who registers for the first time does it for other initiator ports too."""
        named = Port("iqn.2001-04.com.example:else", b"", 1)
        ids = b"".join(map(transportID, (portOf(self.other), portOf(self.nexus), named)))
        self.assertEqual(self.specify(ids).status, codes.GOOD)
        ports = (portOf(self.nexus), portOf(self.other), named)
        self.assertEqual(self.unit.registrations.keys, dict.fromkeys(ports, 7))
        self.assertEqual(self.unit.registrations.generation, 1)
        data = self.good(cdb.READ_FULL_STATUS, allocation=4096)
        self.assertTrue(data.endswith(transportID(named)))

    def test_specifiedRefused(self) -> None:
        """Nobody registers where one of them has, or to change a key, or with what is no list (table 66)."""
        ids = transportID(portOf(self.other))
        self.register((self.third, 5))
        self.assertEqual(self.specify(ids, 9).status, codes.RESERVATION_CONFLICT)
        for task in (
            self.specify(ids, 0, 0),
            self.specify(ids, 5, 6, nexus=self.third),
            self.specify(transportID(portOf(self.third))),
            self.specify(transportID(portOf(self.third)._replace(isid=b""))),
            self.specify(ids + bytes(24)),
            self.specify(ids[:-4]),
            self.specify(ids, command=cdb.PR_REGISTER_IGNORING),
            self.specify(b"", command=cdb.PR_RESERVE, type=1),
        ):
            self.assertEqual(task.status, codes.CHECK_CONDITION)
            self.assertIn(task.code, (
                codes.INVALID_FIELD_IN_PARAMETER_LIST, codes.PARAMETER_LIST_LENGTH_ERROR,
            ))  # fmt: skip
        for data in (LIST.pack(0, 7, 8), LIST.pack(0, 7, 8) + b"\0\0\0\1", LIST.pack(0, 7, 0) + bytes(4)):
            task = self.command(cdb.PR_REGISTER, data, length=len(data))
            self.assertSense(task, codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)
        self.assertEqual(set(self.unit.registrations.keys), {portOf(self.third)})

    def reach(self, *tags: int) -> None:
        """The target is reached at these ports."""
        self.unit.inventory.ports = tuple(TargetPort(self.nexus.targetName, tag) for tag in tags)

    def test_allTargetPorts(self) -> None:
        """ALL_TG_PT: what is registered, changed and removed is so at every target port."""
        self.reach(1, 2, 5)
        self.ok(cdb.PR_REGISTER, 0, 7, flags=0x04)
        ports = [portOf(self.nexus)._replace(tag=tag) for tag in (1, 2, 5)]
        self.assertEqual(self.unit.registrations.keys, dict.fromkeys(ports, 7))
        far = Nexus(portalGroupTag=2)
        self.ok(cdb.PR_REGISTER, 7, 8, nexus=far)
        self.conflict(cdb.PR_REGISTER, 7, 9, flags=0x04)
        self.ok(cdb.PR_REGISTER_IGNORING, 0, 9, flags=0x04)
        self.assertEqual(set(self.unit.registrations.keys.values()), {9})
        self.ok(cdb.PR_RESERVE, 9, 0, 5, nexus=far)
        self.ok(cdb.PR_REGISTER, 9, 0, flags=0x04)
        self.assertEqual((self.unit.registrations.keys, self.unit.registrations.type), ({}, 0))

    def test_specifiedEverywhere(self) -> None:
        """SPEC_I_PT and ALL_TG_PT: those initiator ports at every target port."""
        self.reach(1, 2)
        self.assertEqual(self.specify(transportID(portOf(self.other)), flags=0x0C).status, codes.GOOD)
        both = (portOf(self.nexus), portOf(self.other))
        wanted = {port._replace(tag=tag) for port in both for tag in (1, 2)}
        self.assertEqual(set(self.unit.registrations.keys), wanted)

    def test_moveByName(self) -> None:
        """The holder gives its reservation to all ports of an initiator."""
        self.register((self.nexus, 7))
        self.ok(cdb.PR_RESERVE, 7, 0, 3)
        one, two = (Nexus("iqn.2001-04.com.example:else", bytes((0x80, 0, 0, 0, 0, each))) for each in (1, 2))
        for nexus in (one, two):
            self.unit.nexusFound(nexus)
            self.unit.takeAttention(nexus)
        to = transportID(portOf(one)._replace(isid=b""))
        self.assertEqual(self.move(7, 9, to, 0x02).status, codes.GOOD)
        self.assertEqual(
            [self.refused(cdb.READ_10, nexus) for nexus in (self.nexus, one, two)], [True, False, False]
        )
        self.register((self.nexus, 1))
        task = Task(cdb.WRITE_10.encode(length=1), two, bytes(BLOCK), late=True)
        run(self.unit, task)
        self.ok(cdb.PR_PREEMPT_AND_ABORT, 1, 9, 3)
        self.assertTrue(task.aborted)
        self.assertEqual([self.told(nexus) for nexus in (one, two)], [codes.REGISTRATIONS_PREEMPTED] * 2)
