"""
Persistent reservations against a model that was written from the standard alone (SPC-4 5.13): any sequence of
service actions from several nexuses has the statuses, the state and the unit attentions that the model says.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.cdb import Command
from iscsi_twisted.scsi.persistent import LIST, MOVE_LIST
from iscsi_twisted.scsi.registrations import portOf
from iscsi_twisted.scsi.transportid import transportID
from tests.scsi.cases import BLOCK, BLOCKS, DiskTests
from tests.scsi.devices import MemoryDisk
from tests.support.tasks import Nexus, Task, run

WRITE_EXCLUSIVE, EXCLUSIVE, WRITE_REGISTRANTS, REGISTRANTS, WRITE_ALL, ALL = 1, 3, 5, 6, 7, 8

GOOD, CONFLICT = "good", "conflict"
BAD_LIST, BAD_RELEASE = codes.INVALID_FIELD_IN_PARAMETER_LIST, codes.INVALID_RELEASE

Outcome = str | int


class Model:
    """
    What the standard says.

    @ivar keys: by number of the nexus; no entry, no registration.
    @ivar holders: who holds the reservation.
    @ivar told: the unit attention that each is to be told.
    """

    def __init__(self) -> None:
        self.keys: dict[int, int] = {}
        self.kind = 0
        self.holder: int | None = None
        self.generation = 0
        self.told: dict[int, int] = {}

    @property
    def holders(self) -> set[int]:
        """5.13.10: all registrants of an all registrants reservation, or the one that reserved."""
        if self.kind in (WRITE_ALL, ALL):
            return set(self.keys)
        return {self.holder} if self.kind and self.holder is not None else set()

    def free(self) -> None:
        """There is no reservation."""
        self.kind, self.holder = 0, None

    def tell(self, code: int, whom: set[int]) -> None:
        """These are told something."""
        self.told.update(dict.fromkeys(whom, code))

    def forget(self, nexus: int) -> None:
        """5.13.11.2.2: a registration goes, and the reservation if its last holder goes."""
        held, kind = nexus in self.holders, self.kind
        del self.keys[nexus]
        if held and not (kind in (WRITE_ALL, ALL) and self.keys):
            self.free()
            if kind not in (WRITE_EXCLUSIVE, EXCLUSIVE):
                self.tell(codes.RESERVATIONS_RELEASED, set(self.keys))

    def register(self, nexus: int, key: int, new: int, ignoring: bool) -> Outcome:
        """5.13.7, tables 66 and 67."""
        if not ignoring and self.keys.get(nexus, 0) != key:
            return CONFLICT
        self.generation += 1
        if new:
            self.keys[nexus] = new
        elif nexus in self.keys:
            self.forget(nexus)
        return GOOD

    def known(self, nexus: int, key: int) -> bool:
        """Whether a nexus is registered with that key."""
        return nexus in self.keys and self.keys[nexus] == key

    def reserve(self, nexus: int, key: int, kind: int) -> Outcome:
        """5.13.9."""
        if not self.known(nexus, key):
            return CONFLICT
        if self.kind:
            return GOOD if nexus in self.holders and kind == self.kind else CONFLICT
        self.kind, self.holder = kind, nexus
        return GOOD

    def release(self, nexus: int, key: int, kind: int) -> Outcome:
        """5.13.11.2.1."""
        if not self.known(nexus, key):
            return CONFLICT
        if nexus not in self.holders:
            return GOOD
        if kind != self.kind:
            return BAD_RELEASE
        if kind not in (WRITE_EXCLUSIVE, EXCLUSIVE):
            self.tell(codes.RESERVATIONS_RELEASED, set(self.keys) - {nexus})
        self.free()
        return GOOD

    def clear(self, nexus: int, key: int) -> Outcome:
        """5.13.11.2.6."""
        if not self.known(nexus, key):
            return CONFLICT
        self.generation += 1
        self.tell(codes.RESERVATIONS_PREEMPTED, set(self.keys) - {nexus})
        self.keys.clear()
        self.free()
        return GOOD

    def preempt(self, nexus: int, key: int, victim: int, kind: int) -> tuple[Outcome, set[int]]:
        """5.13.11.2.3 and 5.13.11.2.4; with those whose registrations it takes, but for who asks."""
        if not self.known(nexus, key):
            return CONFLICT, set()
        every = self.kind in (WRITE_ALL, ALL)
        if not victim and self.kind and not every:
            return BAD_LIST, set()
        if every and not victim:
            gone = set(self.keys) - {nexus}
            takes = True
        else:
            gone = {each for each, one in self.keys.items() if one == victim}
            takes = not every and self.holder is not None and self.keys[self.holder] == victim
            if not gone:
                return CONFLICT, set()
        self.generation += 1
        before = self.kind
        if takes:
            for each in gone - {nexus}:
                del self.keys[each]
            self.kind, self.holder = kind, nexus
            if kind != before:
                self.tell(codes.RESERVATIONS_RELEASED, set(self.keys) - {nexus})
        else:
            for each in gone:
                self.forget(each)
        self.tell(codes.REGISTRATIONS_PREEMPTED, gone - {nexus})
        self.told.pop(nexus, None)
        return GOOD, gone - {nexus}

    def move(self, nexus: int, key: int, to: int, new: int, unregister: bool) -> Outcome:
        """5.13.8."""
        if not key or not self.known(nexus, key):
            return CONFLICT
        if not new or to == nexus:
            return BAD_LIST
        if self.kind in (WRITE_ALL, ALL) or nexus not in self.holders:
            return CONFLICT
        self.generation += 1
        self.keys[to] = new
        self.holder = to
        if unregister:
            del self.keys[nexus]
        return GOOD

    def allows(self, nexus: int, writing: bool) -> bool:
        """5.13.1.3, table 68: reads and writes."""
        if not self.kind or nexus in self.holders:
            return True
        if self.kind not in (WRITE_EXCLUSIVE, EXCLUSIVE) and nexus in self.keys:
            return True
        return not writing and self.kind in (WRITE_EXCLUSIVE, WRITE_REGISTRANTS, WRITE_ALL)


NEXUS = st.integers(0, 2)
KEY = st.integers(0, 3)
KIND = st.sampled_from((WRITE_EXCLUSIVE, EXCLUSIVE, WRITE_REGISTRANTS, REGISTRANTS, WRITE_ALL, ALL))


class Reservations(RuleBasedStateMachine):
    """The model beside a unit."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = DiskTests("surprise")
        self.bench.setUp()
        self.unit = self.bench.makeUnit(MemoryDisk(BLOCKS * BLOCK))
        self.nexuses = [Nexus(isid=b"\x80\0\0\0\0" + bytes((number,))) for number in (1, 2, 3)]
        for nexus in self.nexuses:
            self.unit.nexusFound(nexus)
            self.unit.takeAttention(nexus)
        self.model = Model()

    def send(self, command: Command, nexus: int, data: bytes, expected: Outcome, kind: int = 0) -> None:
        """A command ends as the model says."""
        task = Task(command.encode(length=len(data), type=kind), self.nexuses[nexus], data)
        run(self.unit, task)
        found: Any = {codes.GOOD: GOOD, codes.RESERVATION_CONFLICT: CONFLICT}.get(task.status or 0)
        found = task.code if found is None else found
        assert found == expected, f"{command.name}: {found}, not {expected}"

    def key(self, nexus: int, key: int) -> int:
        """A key that may be right: 3 stands for the one that is there."""
        return self.model.keys.get(nexus, 0) if key == 3 else key

    @rule(nexus=NEXUS, key=KEY, new=KEY, ignoring=st.booleans())
    def register(self, nexus: int, key: int, new: int, ignoring: bool) -> None:
        """REGISTER, or REGISTER AND IGNORE EXISTING KEY."""
        key = self.key(nexus, key)
        command = cdb.PR_REGISTER_IGNORING if ignoring else cdb.PR_REGISTER
        expected = self.model.register(nexus, key, new, ignoring)
        self.send(command, nexus, LIST.pack(key, new, 0), expected)

    @rule(nexus=NEXUS, key=KEY, kind=KIND)
    def reserve(self, nexus: int, key: int, kind: int) -> None:
        """RESERVE."""
        key = self.key(nexus, key)
        expected = self.model.reserve(nexus, key, kind)
        self.send(cdb.PR_RESERVE, nexus, LIST.pack(key, 0, 0), expected, kind)

    @rule(nexus=NEXUS, key=KEY, kind=st.one_of(KIND, st.none()))
    def release(self, nexus: int, key: int, kind: int | None) -> None:
        """RELEASE, mostly of the type that there is."""
        key, kind = self.key(nexus, key), kind or self.model.kind or ALL
        expected = self.model.release(nexus, key, kind)
        self.send(cdb.PR_RELEASE, nexus, LIST.pack(key, 0, 0), expected, kind)

    @rule(nexus=NEXUS, key=KEY)
    def clear(self, nexus: int, key: int) -> None:
        """CLEAR."""
        key = self.key(nexus, key)
        self.send(cdb.PR_CLEAR, nexus, LIST.pack(key, 0, 0), self.model.clear(nexus, key))

    @rule(nexus=NEXUS, key=KEY, victim=KEY, kind=KIND, aborting=st.booleans())
    def preempt(self, nexus: int, key: int, victim: int, kind: int, aborting: bool) -> None:
        """PREEMPT, or PREEMPT AND ABORT while all that may write do."""
        key = self.key(nexus, key)
        writes = {}
        for number, each in enumerate(self.nexuses):
            if self.model.allows(number, True):
                writes[number] = Task(cdb.WRITE_10.encode(length=1), each, bytes(BLOCK), late=True)
                run(self.unit, writes[number])
        expected, gone = self.model.preempt(nexus, key, victim, kind)
        command = cdb.PR_PREEMPT_AND_ABORT if aborting else cdb.PR_PREEMPT
        self.send(command, nexus, LIST.pack(key, victim, 0), expected, kind)
        aborted = {number for number, task in writes.items() if task.aborted}
        assert aborted == (gone & writes.keys() if aborting else set()), f"{aborted} were aborted"
        for task in writes.values():
            if not task.aborted:
                task.arrive(self.unit)
                assert task.status == codes.GOOD

    @rule(nexus=NEXUS, key=KEY, to=NEXUS, new=KEY, unregister=st.booleans())
    def move(self, nexus: int, key: int, to: int, new: int, unregister: bool) -> None:
        """REGISTER AND MOVE."""
        key, named = self.key(nexus, key), transportID(portOf(self.nexuses[to]))
        data = MOVE_LIST.pack(key, new, 2 if unregister else 0, 1, len(named)) + named
        self.send(cdb.PR_REGISTER_AND_MOVE, nexus, data, self.model.move(nexus, key, to, new, unregister))

    @rule(nexus=NEXUS)
    def again(self, nexus: int) -> None:
        """A session ends, and another one of the same ports begins: what it had registered is its own."""
        old = self.nexuses[nexus]
        self.unit.nexusLost(old)
        self.nexuses[nexus] = Nexus(isid=old.isid)
        self.unit.nexusFound(self.nexuses[nexus])
        self.unit.takeAttention(self.nexuses[nexus])

    def told(self) -> None:
        """All are told what the model says, and nothing else."""
        for number, nexus in enumerate(self.nexuses):
            wanted = self.model.told.pop(number, None)
            assert self.unit.takeAttention(nexus) == wanted, f"nexus {number} is not told {wanted}"
            assert self.unit.takeAttention(nexus) is None

    @invariant()
    def same(self) -> None:
        """What can be asked is what the model says; so is what may be read and written."""
        self.told()
        for number, nexus in enumerate(self.nexuses):
            read = run(self.unit, Task(cdb.READ_10.encode(length=1), nexus))
            write = run(self.unit, Task(cdb.WRITE_10.encode(length=1), nexus, bytes(BLOCK)))
            allowed = [task.status == codes.GOOD for task in (read, write)]
            assert allowed == [self.model.allows(number, each) for each in (False, True)], number
        model = self.model
        keys = self.bench.good(cdb.READ_KEYS, unit=self.unit, nexus=self.nexuses[0], allocation=255)
        assert int.from_bytes(keys[:4], "big") == model.generation
        found = sorted(int.from_bytes(keys[place : place + 8], "big") for place in range(8, len(keys), 8))
        assert found == sorted(model.keys.values())
        held = self.bench.good(cdb.READ_RESERVATION, unit=self.unit, nexus=self.nexuses[0], allocation=255)
        assert held[21:22] == (bytes((model.kind,)) if model.kind else b"")
        if model.kind:
            key = 0 if model.kind in (WRITE_ALL, ALL) else model.keys[min(model.holders)]
            assert int.from_bytes(held[8:16], "big") == key

    def teardown(self) -> None:
        """Nobody was surprised."""
        assert self.bench.surprises == []


class ModelTests(SynchronousTestCase):
    """The unit does what the model does."""

    def test_model(self) -> None:
        """Any sequence of service actions."""
        from hypothesis.stateful import run_state_machine_as_test

        run_state_machine_as_test(
            Reservations, settings=settings(max_examples=60, stateful_step_count=30, deadline=None)
        )
