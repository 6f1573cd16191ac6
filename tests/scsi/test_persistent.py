"""PERSISTENT RESERVE IN and OUT, and what a persistent reservation keeps whom from."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from zope.interface import implementer

from iscsi_twisted.interfaces import IReservationStore
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.cdb import Command
from iscsi_twisted.scsi.persistent import LIST, MOVE_LIST, parseTransportID, transportID
from iscsi_twisted.scsi.registrations import FOR_REGISTRANTS, READABLE, TYPES, Port, portOf
from tests.scsi.cases import BLOCK, DiskTests
from tests.support.tasks import Nexus, Task, run

ALWAYS = {
    "INQUIRY", "LOG SENSE", "READ CAPACITY (10)", "READ CAPACITY (16)", "RELEASE (10)", "RELEASE (6)",
    "REPORT LUNS", "REPORT SUPPORTED OPERATION CODES", "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
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
        self.assertEqual(self.good(cdb.REPORT_CAPABILITIES, allocation=255).hex(), "00080080ea010000")

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
        for flags in (0x08, 0x04, 0x01):
            task = self.out(cdb.PR_REGISTER, 7, 8, flags=flags)
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
        for wrong in (own, b"", bytes(24), to[:-4], b"\x05" + to[1:]):
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
        """A node that is fenced off cannot write any more, as fence agents expect."""
        self.register((self.nexus, 1), (self.other, 2))
        self.ok(cdb.PR_RESERVE, 1, 0, 5)
        self.assertFalse(self.refused(cdb.WRITE_10, self.other))
        self.ok(cdb.PR_PREEMPT_AND_ABORT, 1, 2, 5)
        self.assertEqual(self.told(self.other), codes.REGISTRATIONS_PREEMPTED)
        self.assertTrue(self.refused(cdb.WRITE_10, self.other))
        self.assertFalse(self.refused(cdb.READ_10, self.other))

    def test_kept(self) -> None:
        """With APTPL the state is kept before the command ends, and comes back; without, nothing is."""
        store = Store()
        self.unit.keep(store)
        self.assertEqual(self.good(cdb.REPORT_CAPABILITIES, allocation=8).hex(), "00080180ea010000")
        self.ok(cdb.PR_REGISTER, 0, 7)
        self.assertEqual(store.states, [])
        store.waiting = Deferred()
        task = self.out(cdb.PR_REGISTER, 7, 8, flags=0x01)
        self.assertIsNone(task.status)
        store.waiting.callback(None)
        self.assertEqual(task.status, codes.GOOD)
        store.waiting = None
        self.ok(cdb.PR_RESERVE, 8, 0, 5)
        self.assertEqual(self.good(cdb.REPORT_CAPABILITIES, allocation=8).hex(), "00080181ea010000")
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

    @given(st.binary(max_size=60))
    def test_anyTransportID(self, data: bytes) -> None:
        """Whatever comes as a TransportID is one or is none."""
        found = parseTransportID(data)
        self.assertTrue(found is None or len(found[1]) == 6)

    def test_transportID(self) -> None:
        """Names of every length come back."""
        for length in range(1, 40):
            port = Port("n" * length, bytes(range(6)), 1)
            text = transportID(port)
            self.assertEqual((len(text) % 4, parseTransportID(text)), (0, (port[0], port[1])))
