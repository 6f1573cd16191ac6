"""PERSISTENT RESERVE IN and OUT, and what a persistent reservation keeps whom from."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from iscsi_twisted.interfaces import IReservationStore, TargetPort
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.cdb import Command
from iscsi_twisted.scsi.persistent import LIST, MOVE_LIST
from iscsi_twisted.scsi.registrations import FOR_REGISTRANTS, MOST, READABLE, TYPES, Port, portOf
from iscsi_twisted.scsi.transportid import parseTransportID, transportID
from tests.scsi.cases import BLOCK, DiskTests
from tests.support.tasks import Nexus, Task, run

ALWAYS = {
    "INQUIRY", "LOG SENSE", "READ CAPACITY (10)", "READ CAPACITY (16)", "RELEASE (10)", "RELEASE (6)",
    "REPORT LUNS", "REPORT SUPPORTED OPERATION CODES", "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
    "REPORT IDENTIFYING INFORMATION", "REPORT TIMESTAMP", "REPORT TARGET PORT GROUPS",
    "REQUEST SENSE", "TEST UNIT READY", "START STOP UNIT", "PREVENT ALLOW MEDIUM REMOVAL",
}  # fmt: skip
"""What SPC-4 table 68 and SBC-3 table 12 allow to everybody, or what has a say of its own."""

READING = {
    "READ (6)", "READ (10)", "READ (12)", "READ (16)", "VERIFY (10)", "VERIFY (12)", "VERIFY (16)",
    "PRE-FETCH (10)", "PRE-FETCH (16)", "GET LBA STATUS",
    "READ DEFECT DATA (10)", "READ DEFECT DATA (12)",
}  # fmt: skip
"""What a write exclusive reservation allows to others."""


DAMAGED = (
    b"x",
    b"{}",
    b"[]",
    b'{"keys": [1], "type": 1, "holder": 0}',
    b'{"keys": [], "type": 1, "holder": 0}',
    b'{"keys": [], "type": 2, "holder": null}',
    b'{"keys": [["a", "00", 1, 18446744073709551616]], "type": 0, "holder": null}',
    b'{"keys": [["a", "00", 1, 0]], "type": 0, "holder": null}',
)


@implementer(IReservationStore)
class Store:
    """
    Keeps everything that it is given.

    @ivar waiting: what the next call of C{save} returns.
    """

    def __init__(self) -> None:
        self.states: list[bytes] = []
        self.waiting: Deferred[None] | None = None

    def load(self) -> bytes:
        """The last one."""
        return self.states[-1] if self.states else b""

    def save(self, state: bytes) -> Any:
        """One more."""
        self.states.append(state)
        return self.waiting


class PersistentTests(DiskTests):
    """A unit and three nexuses."""

    def setUp(self) -> None:
        super().setUp()
        self.other, self.third = (Nexus(isid=b"\x80\0\0\0\0" + bytes((number,))) for number in (2, 3))
        for nexus in (self.other, self.third):
            self.unit.nexusFound(nexus)
            self.unit.takeAttention(nexus)

    def out(
        self, command: Command, key: int = 0, new: int = 0, kind: int = 0, flags: int = 0, **how: Any
    ) -> Task:
        """One PERSISTENT RESERVE OUT."""
        data = LIST.pack(key, new, flags)
        return self.command(command, data, length=len(data), type=kind, **how)

    def ok(self, command: Command, *values: int, **how: Any) -> None:
        """One that ends well."""
        task = self.out(command, *values, **how)
        self.assertEqual(task.status, codes.GOOD, task.sense.hex())

    def conflict(self, command: Command, *values: int, **how: Any) -> None:
        """One that ends with RESERVATION CONFLICT."""
        self.assertEqual(self.out(command, *values, **how).status, codes.RESERVATION_CONFLICT)

    def register(self, *pairs: tuple[Nexus, int]) -> None:
        """Register keys."""
        for nexus, key in pairs:
            self.ok(cdb.PR_REGISTER, 0, key, nexus=nexus)

    def told(self, nexus: Nexus) -> int | None:
        """The unit attention that a nexus is told next."""
        return self.unit.takeAttention(nexus)

    def test_readKeys(self) -> None:
        """Generation and keys; of all that there are however few are asked for."""
        self.register((self.nexus, 7), (self.other, 9))
        data = self.good(cdb.READ_KEYS, allocation=255)
        self.assertEqual(data.hex(), "000000020000001000000000000000070000000000000009")
        self.assertEqual(self.good(cdb.READ_KEYS, allocation=8), data[:8])

    def test_readReservation(self) -> None:
        """Nothing, the holder's key, or key zero where all hold it."""
        self.register((self.nexus, 7))
        self.assertEqual(self.good(cdb.READ_RESERVATION, allocation=255).hex(), "0000000100000000")
        self.ok(cdb.PR_RESERVE, 7, 0, 5)
        data = self.good(cdb.READ_RESERVATION, allocation=255)
        self.assertEqual(data[8:].hex(), "00000000000000070000000000050000")
        self.ok(cdb.PR_RELEASE, 7, 0, 5)
        self.ok(cdb.PR_RESERVE, 7, 0, 8)
        self.assertEqual(self.good(cdb.READ_RESERVATION, allocation=255)[8:16], bytes(8))

    def test_capabilities(self) -> None:
        """All types; nothing that is refused is claimed."""
        self.assertEqual(self.good(cdb.REPORT_CAPABILITIES, allocation=255).hex(), "00089c80ea010000")

    def test_fullStatus(self) -> None:
        """Every registration with its port, and who holds."""
        self.register((self.nexus, 7), (self.other, 9))
        self.ok(cdb.PR_RESERVE, 9, 0, 1, nexus=self.other)
        data = self.good(cdb.READ_FULL_STATUS, allocation=4096)
        self.assertEqual(int.from_bytes(data[4:8], "big"), len(data) - 8)
        length = 24 + int.from_bytes(data[28:32], "big")
        first, second = data[8 : 8 + length], data[8 + length :]
        self.assertEqual((first[7], first[12], first[13]), (7, 0, 0))
        self.assertEqual((second[7], second[12], second[13], second[19]), (9, 1, 1, 1))
        self.assertEqual(parseTransportID(second[24:]), (self.other.initiatorName, self.other.isid))

    def test_wrongKey(self) -> None:
        """Without the right key there is nothing but a conflict."""
        for command in (cdb.PR_RESERVE, cdb.PR_RELEASE, cdb.PR_CLEAR, cdb.PR_PREEMPT):
            self.conflict(command, 0, 0, 1)
        self.conflict(cdb.PR_REGISTER, 5, 6)
        self.register((self.nexus, 7))
        for command in (cdb.PR_REGISTER, cdb.PR_RESERVE, cdb.PR_RELEASE, cdb.PR_CLEAR, cdb.PR_PREEMPT):
            self.conflict(command, 8, 7, 1)

    def test_malformed(self) -> None:
        """Wrong lengths, scopes, types and flags are refused, and change nothing."""
        for length in (0, 23, 25, 4096):
            task = self.command(cdb.PR_REGISTER, bytes(max(length, 24)), length=length)
            self.assertSense(task, codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)
        task = self.command(cdb.PR_REGISTER, bytes(10), length=24)
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)
        self.register((self.nexus, 7))
        for kind in (0, 2, 4, 9, 15, 0x15, 0xF1):
            self.assertEqual(self.out(cdb.PR_RESERVE, 7, 0, kind).code, codes.INVALID_FIELD_IN_CDB)
        task = self.out(cdb.PR_REGISTER, 7, 8, flags=0x01)
        self.assertEqual(task.code, codes.INVALID_FIELD_IN_PARAMETER_LIST)
        for opcode in (b"\x5e\x04", b"\x5f\x08", b"\x5f\x1f"):
            self.assertEqual(run(self.unit, Task(opcode, self.nexus)).code, codes.INVALID_FIELD_IN_CDB)
        self.assertEqual(self.unit.registrations.keys, {portOf(self.nexus): 7})

    def refused(self, command: Command, nexus: Nexus) -> bool:
        """Whether a command meets the reservation."""
        return run(self.unit, Task(command.encode(), nexus)).status == codes.RESERVATION_CONFLICT

    def test_table(self) -> None:
        """For every type and command: what holders, registrants and others may do (SPC-4 table 68)."""
        mine = {"RELEASE (6)", "RELEASE (10)", "RESERVE (6)", "RESERVE (10)"}
        for kind in sorted(TYPES):
            self.setUp()
            self.register((self.nexus, 7), (self.other, 9))
            self.ok(cdb.PR_RESERVE, 7, 0, kind)
            for command in self.unit.table:
                if command.name.startswith("PERSISTENT") or command.name in mine:
                    continue
                self.assertFalse(self.refused(command, self.nexus), command.name)
                allowed = command.name in ALWAYS or (command.name in READING and kind in READABLE)
                if command.name == "START STOP UNIT":
                    allowed = False  # as it is asked here, to stop
                self.assertEqual(self.refused(command, self.third), not allowed, (kind, command.name))
                registered = allowed or kind in FOR_REGISTRANTS
                self.assertEqual(self.refused(command, self.other), not registered, (kind, command.name))

    def test_ordinary(self) -> None:
        """While all that are here may do everything, commands go the short way; a stranger ends that."""
        self.unit.nexusLost(self.third)
        self.register((self.nexus, 7), (self.other, 9))
        self.ok(cdb.PR_RESERVE, 7, 0, 5)
        self.assertFalse(self.unit._unusual)
        self.unit.nexusFound(self.third)
        self.unit.takeAttention(self.third)
        self.assertTrue(self.unit._unusual)
        passing = [self.unit.passes(nexus) for nexus in (self.nexus, self.other, self.third, Nexus())]
        self.assertEqual(passing, [True, True, False, False])
        self.assertTrue(self.refused(cdb.WRITE_10, self.third))
        self.unit.nexusLost(self.third)
        self.assertFalse(self.unit._unusual)

    def test_lasts(self) -> None:
        """A registration outlives its session and a reset; a new session of the same ports has it."""
        self.register((self.nexus, 7))
        self.ok(cdb.PR_RESERVE, 7, 0, 3)
        self.unit.nexusLost(self.nexus)
        self.unit.reset(codes.DEVICE_RESET_OCCURRED)
        self.told(self.other)
        self.assertTrue(self.refused(cdb.READ_10, self.other))
        again = Nexus()
        self.unit.nexusFound(again)
        self.told(again)
        self.assertFalse(self.refused(cdb.READ_10, again))
        self.ok(cdb.PR_RELEASE, 7, 0, 3, nexus=again)
        self.assertFalse(self.refused(cdb.READ_10, self.other))

    def test_attentions(self) -> None:
        """Those who lose something are told."""
        self.register((self.nexus, 7), (self.other, 9), (self.third, 11))
        self.ok(cdb.PR_RESERVE, 7, 0, 5)
        self.ok(cdb.PR_PREEMPT, 9, 7, 6, nexus=self.other)
        self.assertEqual(self.told(self.nexus), codes.REGISTRATIONS_PREEMPTED)
        self.assertEqual(self.told(self.third), codes.RESERVATIONS_RELEASED)
        self.ok(cdb.PR_CLEAR, 9, nexus=self.other)
        self.assertEqual([self.told(each) for each in (self.nexus, self.other)], [None, None])
        self.assertEqual(self.told(self.third), codes.RESERVATIONS_PREEMPTED)

    def test_attentionsAway(self) -> None:
        """Who was away when it lost something hears of a power on, to look at everything; others do not."""
        self.register((self.nexus, 7), (self.other, 9))
        for preempted in (False, True):
            self.unit.nexusLost(self.other)
            if preempted:
                self.ok(cdb.PR_PREEMPT, 7, 9, 5)
            self.unit.nexusFound(self.other)
            told = codes.POWER_ON if preempted else codes.NEXUS_LOSS_OCCURRED
            self.assertEqual(self.told(self.other), told)

    def test_wrongRelease(self) -> None:
        """A release that names another type is refused as such."""
        self.register((self.nexus, 7))
        self.ok(cdb.PR_RESERVE, 7, 0, 1)
        self.assertSense(self.out(cdb.PR_RELEASE, 7, 0, 3), codes.ILLEGAL_REQUEST, codes.INVALID_RELEASE)
        self.assertTrue(self.unit.registrations.type)

    def test_preemptNothing(self) -> None:
        """A holder's reservation is not preempted with key zero."""
        self.register((self.nexus, 7), (self.other, 9))
        self.ok(cdb.PR_RESERVE, 7, 0, 1)
        task = self.out(cdb.PR_PREEMPT, 9, 0, 1, nexus=self.other)
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.INVALID_FIELD_IN_PARAMETER_LIST)

    def test_abort(self) -> None:
        """PREEMPT AND ABORT aborts what the others have under way, and nothing else."""
        self.register((self.nexus, 7), (self.other, 9))
        self.ok(cdb.PR_RESERVE, 7, 0, 5)
        theirs = Task(cdb.WRITE_10.encode(length=1), self.nexus, bytes(BLOCK), late=True)
        mine = Task(cdb.WRITE_10.encode(length=1), self.other, bytes(BLOCK), late=True)
        for task in (theirs, mine):
            run(self.unit, task)
        self.ok(cdb.PR_PREEMPT_AND_ABORT, 9, 7, 5, nexus=self.other)
        self.assertEqual((theirs.aborted, mine.aborted), (True, False))
        mine.arrive(self.unit)
        self.assertEqual(mine.status, codes.GOOD)

    def test_oldWay(self) -> None:
        """RESERVE and RELEASE are closed where there are registrations, and the other way round."""
        self.register((self.nexus, 7))
        for command in (cdb.RESERVE_6, cdb.RESERVE_10, cdb.RELEASE_6, cdb.RELEASE_10):
            self.assertEqual(self.command(command).status, codes.RESERVATION_CONFLICT)
        self.ok(cdb.PR_REGISTER, 7, 0)
        self.good(cdb.RESERVE_6)
        for nexus in (self.nexus, self.other):
            self.conflict(cdb.PR_REGISTER, 0, 7, nexus=nexus)

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

    def test_fencing(self) -> None:
        """fence_scsi: unfence two nodes, fence one off, look at it, and let it in again."""
        for nexus, key in ((self.nexus, 1), (self.other, 2)):
            self.ok(cdb.PR_REGISTER_IGNORING, 0, key, nexus=nexus)
            keys = self.good(cdb.READ_KEYS, allocation=255, nexus=nexus)
            self.assertIn(key.to_bytes(8, "big"), keys[8:])
        self.ok(cdb.PR_RESERVE, 1, 0, 5)
        self.conflict(cdb.PR_RESERVE, 2, 0, 5, nexus=self.other)
        self.assertFalse(self.refused(cdb.WRITE_10, self.other))
        self.ok(cdb.PR_PREEMPT_AND_ABORT, 1, 2, 5)
        self.assertEqual(self.told(self.other), codes.REGISTRATIONS_PREEMPTED)
        self.assertTrue(self.refused(cdb.WRITE_10, self.other))
        self.assertFalse(self.refused(cdb.READ_10, self.other))
        self.assertEqual(self.good(cdb.READ_KEYS, allocation=255)[8:], (1).to_bytes(8, "big"))
        self.ok(cdb.PR_REGISTER_IGNORING, 0, 2, nexus=self.other)
        self.assertFalse(self.refused(cdb.WRITE_10, self.other))
        # The node that holds it is fenced off in its turn; the reservation goes to who did it.
        self.ok(cdb.PR_PREEMPT_AND_ABORT, 2, 1, 5, nexus=self.other)
        self.assertEqual(self.unit.registrations.holder, portOf(self.other))
        self.assertTrue(self.refused(cdb.WRITE_10, self.nexus))

    def test_kept(self) -> None:
        """With APTPL the state is kept before the command ends, and comes back; without, nothing is."""
        store = Store()
        self.unit.keep(store)
        self.assertEqual(self.good(cdb.REPORT_CAPABILITIES, allocation=8).hex(), "00089d80ea010000")
        self.ok(cdb.PR_REGISTER, 0, 7)
        self.assertEqual(store.states, [])
        store.waiting = Deferred()
        task = self.out(cdb.PR_REGISTER, 7, 8, flags=0x01)
        self.assertIsNone(task.status)
        store.waiting.callback(None)
        self.assertEqual(task.status, codes.GOOD)
        store.waiting = None
        self.ok(cdb.PR_RESERVE, 8, 0, 5)
        self.assertEqual(self.good(cdb.REPORT_CAPABILITIES, allocation=8).hex(), "00089d81ea010000")
        again = self.makeUnit(self.device)
        again.keep(store)
        state = again.registrations
        port = portOf(self.nexus)
        self.assertEqual((state.keys, state.type, state.holder, state.kept), ({port: 8}, 5, port, True))
        self.ok(cdb.PR_REGISTER, 8, 9)
        self.assertEqual(store.states[-1], b"")
        count = len(store.states)
        self.ok(cdb.PR_CLEAR, 9)
        self.assertEqual(len(store.states), count)

    def test_notKept(self) -> None:
        """A state that cannot be kept is an error of the command."""
        store = Store()
        self.unit.keep(store)
        store.waiting = Deferred()
        task = self.out(cdb.PR_REGISTER, 0, 7, flags=0x01)
        store.waiting.errback(OSError(5, "broken"))
        self.assertEqual(task.status, codes.CHECK_CONDITION)
        self.assertEqual(self.unit.registrations.keys, {portOf(self.nexus): 7})

    def test_keptLater(self) -> None:
        """What could not be kept is not said to be, and is kept as soon as it can be."""
        store = Store()
        self.unit.keep(store)
        waiting = store.waiting = Deferred()
        self.out(cdb.PR_REGISTER, 0, 7, flags=0x01)
        self.assertEqual(self.good(cdb.REPORT_CAPABILITIES, allocation=8)[3], 0x80)
        waiting.errback(OSError(5, "broken"))
        self.assertEqual(self.good(cdb.REPORT_CAPABILITIES, allocation=8)[3], 0x80)
        waiting = store.waiting = Deferred()
        self.unit.watch()
        self.unit.watch()
        self.assertEqual(len(store.states), 2)
        waiting.errback(OSError(5, "broken"))
        store.waiting = None
        self.unit.watch()
        self.assertEqual(self.good(cdb.REPORT_CAPABILITIES, allocation=8)[3], 0x81)
        again = self.makeUnit(self.device)
        again.keep(store)
        self.assertEqual(again.registrations.keys, {portOf(self.nexus): 7})
        self.unit.watch()
        self.assertEqual((len(store.states), self.surprises), (3, []))

    def test_notForgotten(self) -> None:
        """A state that could not be taken out of the store is taken out the next time."""
        store = Store()
        self.unit.keep(store)
        self.ok(cdb.PR_REGISTER, 0, 7, flags=0x01)
        store.waiting = Deferred()
        task = self.out(cdb.PR_REGISTER, 7, 8)
        store.waiting.errback(OSError(5, "broken"))
        self.assertEqual(task.status, codes.CHECK_CONDITION)
        store.waiting = None
        self.ok(cdb.PR_REGISTER, 8, 9)
        self.assertEqual(store.states[1:], [b"", b""])

    def test_damaged(self) -> None:
        """A state that is none is refused as a whole."""
        for state in DAMAGED:
            store = Store()
            store.states.append(state)
            unit = self.makeUnit(self.device)
            self.assertRaises(ValueError, unit.keep, store)
            self.assertEqual((unit.registrations.keys, unit.registrations.type), ({}, 0))

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

    def test_full(self) -> None:
        """Where there is no room, the command says so."""
        state = self.unit.registrations
        state.keys.update({Port("x", number.to_bytes(6, "big"), 1): 1 for number in range(MOST)})
        task = self.out(cdb.PR_REGISTER, 0, 7)
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.INSUFFICIENT_REGISTRATIONS)

    def test_nothingLost(self) -> None:
        """Only what was lost is replaced."""
        self.register((self.nexus, 7))
        task = self.out(cdb.PR_REPLACE_LOST, 0, 8, 1)
        self.assertInvalidField(task, 1, 4)

    def lose(self) -> Store:
        """The unit's store turns out to be damaged."""
        store = Store()
        store.states.append(b"x")
        self.assertRaises(ValueError, self.unit.keep, store)
        return store

    def test_lost(self) -> None:
        """Until it is replaced, what a reservation may forbid is refused, and reservations are not told."""
        self.lose()
        for command in self.unit.table:
            if command.name in ALWAYS or command.name.startswith("PERSISTENT"):
                continue
            task = self.command(command)
            self.assertSense(task, codes.HARDWARE_ERROR, codes.RESERVATIONS_LOST)
        for command in (cdb.READ_KEYS, cdb.READ_RESERVATION, cdb.READ_FULL_STATUS):
            task = self.command(command, allocation=255)
            self.assertSense(task, codes.HARDWARE_ERROR, codes.RESERVATIONS_LOST)
        for command in (cdb.PR_REGISTER, cdb.PR_REGISTER_IGNORING, cdb.PR_CLEAR):
            task = self.out(command, 0, 7)
            self.assertSense(task, codes.HARDWARE_ERROR, codes.RESERVATIONS_LOST)
        for command in (cdb.TEST_UNIT_READY, cdb.INQUIRY, cdb.REPORT_CAPABILITIES):
            self.good(command)

    def test_replaced(self) -> None:
        """Who replaces it is registered, holds the reservation, and others are kept out."""
        store = self.lose()
        for key, new, kind, flags in ((1, 7, 5, 0), (0, 0, 5, 0), (0, 7, 5, 8), (0, 7, 2, 0)):
            self.assertEqual(self.out(cdb.PR_REPLACE_LOST, key, new, kind, flags).key, codes.ILLEGAL_REQUEST)
        self.ok(cdb.PR_REPLACE_LOST, 0, 7, 5, 1)
        state = self.unit.registrations
        self.assertEqual((state.keys, state.type, state.lost), ({portOf(self.nexus): 7}, 5, False))
        self.assertEqual(store.states[-1], state.dump())
        self.assertFalse(self.refused(cdb.WRITE_10, self.nexus))
        self.assertTrue(self.refused(cdb.WRITE_10, self.other))

    def test_replacedUnkept(self) -> None:
        """What is replaced without APTPL leaves nothing in the store."""
        store = self.lose()
        self.ok(cdb.PR_REPLACE_LOST, 0, 7, 5)
        self.assertEqual(store.states[-1], b"")

    def test_compatible(self) -> None:
        """RESERVE and RELEASE look as if they were open to whom the reservation lets in (CRH, 5.13.3)."""
        self.register((self.nexus, 7), (self.other, 9))
        for kind in sorted(TYPES):
            self.ok(cdb.PR_RESERVE, 7, 0, kind)
            for command in (cdb.RESERVE_6, cdb.RESERVE_10, cdb.RELEASE_6, cdb.RELEASE_10):
                self.good(command)
                allowed = codes.GOOD if kind in FOR_REGISTRANTS else codes.RESERVATION_CONFLICT
                self.assertEqual(self.command(command, nexus=self.other).status, allowed)
                self.assertEqual(self.command(command, nexus=self.third).status, codes.RESERVATION_CONFLICT)
            self.assertEqual((self.unit.holder, self.unit.registrations.type), (None, kind))
            self.ok(cdb.PR_RELEASE, 7, 0, kind)
            self.told(self.other)

    def test_twoPaths(self) -> None:
        """A failover cluster with two paths: each path of each node registers, and a reset breaks nothing."""
        far = Nexus(portalGroupTag=2)
        self.unit.nexusFound(far)
        self.told(far)
        for nexus in (self.nexus, far):
            self.ok(cdb.PR_REGISTER_IGNORING, 0, 0xA, nexus=nexus)
        self.ok(cdb.PR_RESERVE, 0xA, 0, 5)
        self.ok(cdb.PR_REGISTER_IGNORING, 0, 0xB, nexus=self.other)
        self.assertEqual(
            [self.refused(cdb.WRITE_10, each) for each in (self.nexus, far, self.other)], [False] * 3
        )
        self.unit.reset(codes.DEVICE_RESET_OCCURRED)
        for nexus in (self.nexus, far, self.other, self.third):
            self.told(nexus)
        self.ok(cdb.PR_PREEMPT, 0xB, 0xA, 5, nexus=self.other)
        self.assertEqual(
            [self.told(nexus) for nexus in (self.nexus, far)], [codes.REGISTRATIONS_PREEMPTED] * 2
        )
        self.assertEqual([self.refused(cdb.WRITE_10, each) for each in (self.nexus, far)], [True] * 2)

    def test_hypervisor(self) -> None:
        """VMFS: a host reserves to lock, another breaks the lock of one that died; or compares and writes."""
        self.good(cdb.RESERVE_6)
        self.good(cdb.READ_10, length=1)
        self.good(cdb.WRITE_10, bytes(BLOCK), length=1)
        for command in (cdb.READ_10, cdb.WRITE_10, cdb.RESERVE_6):
            self.assertEqual(self.command(command, nexus=self.other).status, codes.RESERVATION_CONFLICT)
        self.good(cdb.RELEASE_6, nexus=self.other)
        self.unit.reset(codes.DEVICE_RESET_OCCURRED)
        self.assertEqual(
            [self.told(each) for each in (self.nexus, self.other)], [codes.DEVICE_RESET_OCCURRED] * 2
        )
        self.good(cdb.RESERVE_6, nexus=self.other)
        self.assertEqual(self.command(cdb.WRITE_10, nexus=self.nexus).status, codes.RESERVATION_CONFLICT)
        self.good(cdb.RELEASE_6, nexus=self.other)
        lock = b"\1" * BLOCK
        self.good(cdb.COMPARE_AND_WRITE, bytes(BLOCK) + lock, length=1)
        late = self.command(cdb.COMPARE_AND_WRITE, bytes(BLOCK) + lock, length=1, nexus=self.other)
        self.assertSense(late, codes.MISCOMPARE, codes.MISCOMPARE_DURING_VERIFY)
