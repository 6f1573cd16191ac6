"""
A model of L{iscsi_twisted.storage.Mirror}: whatever happens to members, to the power and to the record, no
byte that was acknowledged and flushed is lost while one good member exists, and members are equal in the end.
"""

from __future__ import annotations

import gc
from random import Random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import DeviceError
from iscsi_twisted.interfaces import isPending
from iscsi_twisted.storage import Concatenation, Mirror, Stripe, regions, resync, scrub
from iscsi_twisted.storage.legs import IN_SYNC
from tests.support.platters import SECTOR, MemoryStore, Platter, PlatterDisk

CELLS = 32
SIZE = CELLS * SECTOR


class Request:
    """
    Something that was asked of the mirror.

    @ivar number: writes are counted; each fills its cells with its own number.
    @ivar cells: those that it is about.
    @ivar allowed: for a read, what each cell may hold.
    """

    def __init__(self, kind: str, number: int, cells: range) -> None:
        self.kind, self.number, self.cells = kind, number, cells
        self.allowed: dict[int, set[int]] = {}
        self.floor: dict[int, int] = {}
        self.ended = False


class MirrorMachine(RuleBasedStateMachine):
    """
    Does things to a mirror and to a list of what each cell may hold.

    @cvar patience: of the mirror; 0 since time goes by here while operations wait, and nobody hangs.
    """

    disksOf = 2
    patience = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.store = MemoryStore(waits=True)
        self.platters = [Platter(self.memberSize()) for _ in range(self.disksOf)]
        self.broken: set[int] = set()
        self.number = 0
        self.live: list[set[int]] = [{0} for _ in range(CELLS)]
        self.durable: list[set[int]] = [{0} for _ in range(CELLS)]
        self.acknowledged = [0] * CELLS
        self.requests: list[Request] = []
        self.faults: list[str] = []

    @invariant()
    def sound(self) -> None:
        """What was found out in callbacks, where an exception would go nowhere."""
        assert not self.faults, self.faults[0]

    def memberSize(self) -> int:
        """Bytes of a platter."""
        return SIZE

    # Its life

    @initialize()
    def begin(self) -> None:
        """All members are new and empty."""
        self.start()
        self.calm()

    def make(self) -> Any:
        """The device under test."""
        return Mirror(self.disks, reactor=self.clock, store=self.store, patience=self.patience)

    def start(self) -> bool:
        """Open the mirror; whether that went well."""
        self.disks = [
            PlatterDisk(platter, f"disk{index}", waits=True) for index, platter in enumerate(self.platters)
        ]
        for index in self.broken:
            self.disks[index].broken = True
        self.mirror = self.make()
        self.mirror.life.tellFailure = self.surprised
        outcome: list[Any] = []
        opening = self.mirror.open(lambda: None)
        if isPending(opening):
            opening.addBoth(outcome.append)
            while not outcome:
                self.fireAll()
        if outcome and isinstance(outcome[0], Failure):
            outcome[0].trap(DeviceError)
            self.opened = False
            return False
        self.opened = True
        return True

    def surprised(self, failure: Failure) -> None:
        """Something in the background failed."""
        if not failure.check(DeviceError, OSError):
            self.faults.append(failure.getTraceback())

    def pending(self) -> list[Any]:
        """All operations that wait."""
        return [operation for disk in self.disks for operation in disk.operations]

    def fireAll(self) -> None:
        """Let everything happen that waits now."""
        for operation in self.pending():
            if operation in operation.disk.operations:
                operation.fire()
        if self.store.pending:
            self.store.fire()

    def calm(self) -> None:
        """Let time go by until nothing waits and nothing is copied."""
        for _ in range(4000):
            self.fireAll()
            self.clock.advance(0.01 if self.pending() or self.store.pending else 1.0)
            busy = self.pending() or self.store.pending or self.mirror.life._working
            if not busy and all(leg.state == IN_SYNC or self.down(leg) for leg in self.mirror.legs):
                for disk in self.disks:
                    disk.doomed = False
                return
        raise AssertionError(f"it never ends: {self.mirror.status()} {self.pending()}")

    def down(self, leg: Any) -> bool:
        """Whether a member cannot come back now."""
        return bool(leg.device.broken)

    def contents(self) -> list[bytes]:
        """What each member holds."""
        return [bytes(disk.view) for disk in self.disks]

    # What initiators do

    @precondition(lambda self: self.opened)
    @rule(first=st.integers(0, CELLS - 1), count=st.integers(1, 9), erase=st.sampled_from("wwwdz"))
    def write(self, first: int, count: int, erase: str) -> None:
        """
        Begin a write, a discard or a zeroing; both of the latter leave zeros, which count as a number too.
        """
        cells = range(first, min(first + count, CELLS))
        self.number += 1
        request = Request("write", self.number, cells)
        for cell in cells:
            self.live[cell].add(self.number)
            self.durable[cell].add(self.number)
        for other in self.requests:
            for cell in set(other.cells) & set(cells):
                other.allowed.setdefault(cell, set()).add(self.number)
        offset, length = first * SECTOR, len(cells) * SECTOR
        if erase == "w":
            self.ask(request, self.mirror.write, offset, self.number.to_bytes(8, "big") * (length // 8))
            return
        self.erased.add(self.number)
        if erase == "d":
            self.ask(request, self.mirror.discard, offset, length)
        else:
            self.ask(request, self.mirror.zero, offset, length, True)

    @property
    def erased(self) -> set[int]:
        """The numbers of writes that left zeros."""
        return self.__dict__.setdefault("_erased", {0})

    @precondition(lambda self: self.opened)
    @rule(first=st.integers(0, CELLS - 1), count=st.integers(1, 12))
    def read(self, first: int, count: int) -> None:
        """Begin a read."""
        cells = range(first, min(first + count, CELLS))
        request = Request("read", 0, cells)
        request.allowed = {cell: set(self.live[cell]) for cell in cells}
        self.ask(request, self.mirror.read, first * SECTOR, len(cells) * SECTOR)

    @precondition(lambda self: self.opened)
    @rule()
    def flush(self) -> None:
        """Begin a flush."""
        request = Request("flush", 0, range(0))
        request.floor = dict(enumerate(self.acknowledged))
        self.ask(request, self.mirror.flush)

    def ask(self, request: Request, method: Any, *arguments: Any) -> None:
        """Ask the mirror for something."""
        self.requests.append(request)
        try:
            result = method(*arguments)
        except DeviceError:
            self.ended(Failure(), request)
            return
        if isPending(result):
            result.addBoth(self.ended, request)
        else:
            self.ended(result, request)

    def ended(self, outcome: Any, request: Request) -> None:
        """The mirror has answered."""
        try:
            self.judge(outcome, request)
        except AssertionError as error:
            self.faults.append(str(error))

    def judge(self, outcome: Any, request: Request) -> None:
        """Whether the answer is right."""
        if request not in self.requests:
            return  # the power was lost meanwhile
        self.requests.remove(request)
        if isinstance(outcome, Failure):
            raise AssertionError(f"{request.kind} of {request.cells} failed: {outcome.getTraceback()}")
        if request.kind == "write":
            for cell in request.cells:
                self.live[cell] = {number for number in self.live[cell] if number >= request.number}
                self.acknowledged[cell] = max(self.acknowledged[cell], request.number)
        elif request.kind == "flush":
            for cell, floor in request.floor.items():
                self.durable[cell] = {number for number in self.durable[cell] if number >= floor}
        else:
            self.check(request, bytes(outcome))

    def check(self, request: Request, data: bytes) -> None:
        """What was read is what may be there."""
        for index, cell in enumerate(request.cells):
            found = data[index * SECTOR :][:SECTOR]
            self.matches(cell, found, request.allowed[cell])

    def matches(self, cell: int, found: bytes, allowed: set[int]) -> None:
        """What a cell holds is one of those that it may hold; if nothing goes on there it stays so."""
        number = int.from_bytes(found[:8], "big")
        assert found == found[:8] * (SECTOR // 8), f"cell {cell} is torn: {found.hex()}"
        fits = {one for one in allowed if (one in self.erased if not number else one == number)}
        assert fits, f"cell {cell} holds {number}, allowed are {sorted(allowed)}"
        writing = any(cell in other.cells for other in self.requests if other.kind == "write")
        if not writing and allowed == self.live[cell]:
            self.live[cell] = fits

    # What disks do

    @precondition(lambda self: self.pending())
    @rule(data=st.data(), count=st.integers(1, 4))
    def fire(self, data: st.DataObject, count: int) -> None:
        """Let some operations of members happen, in any order."""
        for _ in range(count):
            waiting = self.pending()
            if waiting:
                data.draw(st.sampled_from(waiting)).fire()

    @precondition(lambda self: self.store.pending)
    @rule()
    def keep(self) -> None:
        """Let the record be kept."""
        self.store.fire()

    @rule(seconds=st.sampled_from([0.0, 0.1, 5.0, 16.0, 40.0]))
    def wait(self, seconds: float) -> None:
        """Time goes by."""
        self.clock.advance(seconds)

    @precondition(lambda self: self.opened)
    @rule()
    def rest(self) -> None:
        """Everything happens that can."""
        self.calm()

    def good(self, index: int) -> bool:
        """Whether a member beside this one has everything, and goes on having it."""
        return self.opened and any(
            other != index
            and other not in self.broken
            and not self.disks[other].faults
            and not self.disks[other].doomed
            and self.mirror.leg(self.disks[other]).state == IN_SYNC
            for other in range(self.disksOf)
        )

    @rule(index=st.integers(0, 3))
    def fail(self, index: int) -> None:
        """A member fails altogether."""
        if index < self.disksOf and self.good(index):
            self.broken.add(index)
            self.disks[index].broken = True

    @rule(index=st.integers(0, 3))
    def fault(self, index: int) -> None:
        """A member fails once: it tears its next write, or does not flush."""
        if index < self.disksOf and self.good(index):
            self.disks[index].faults = 1

    @precondition(lambda self: self.broken)
    @rule()
    def mend(self) -> None:
        """All members are well again."""
        for index in self.broken:
            self.disks[index].broken = False
        self.broken.clear()

    # What happens to the machine

    def lose(self, random: Random) -> None:
        """The power is lost."""
        self.requests.clear()
        for disk in self.disks:
            disk.crash(random)
        self.store.crash(random)
        for call in list(self.clock.getDelayedCalls()):
            call.cancel()
        self.live = [set(cell) for cell in self.durable]
        self.acknowledged = [0] * CELLS

    @rule(seed=st.integers(0, 1 << 16))
    def crash(self, seed: int) -> None:
        """The power is lost, and comes back; without those members that were broken, if that is possible."""
        self.lose(Random(seed))
        if not self.start():
            self.broken.clear()
            assert self.start(), "it does not start even with all members"

    @precondition(lambda self: self.opened)
    @rule()
    def restart(self) -> None:
        """The mirror is closed and opened again."""
        while self.requests:
            self.fireAll()
            self.clock.advance(0.1)
        for disk in self.disks:
            disk.faults = 0
        closing = self.mirror.close()
        outcome: list[Any] = []
        if isPending(closing):
            closing.addBoth(outcome.append)
            for _ in range(1000):
                self.fireAll()
                self.clock.advance(0.01)
        else:
            outcome.append(closing)
        assert outcome == [None], outcome
        for disk in self.disks:
            disk.platter.durable[:] = disk.view
        if not self.start():
            self.broken.clear()
            assert self.start(), "it does not start even with all members"

    def teardown(self) -> None:
        """With all members well again, all are equal and hold what they may."""
        if not hasattr(self, "mirror") or self.faults:
            return
        self.mend()
        for disk in self.disks:
            disk.faults = 0
        for _ in range(3):
            self.clock.advance(400)
            self.calm()
        first, *others = self.contents()
        for other in others:
            assert other == first, "members differ in the end"
        for cell in range(CELLS):
            self.matches(cell, bytes(first[cell * SECTOR :][:SECTOR]), set(self.live[cell]))
        self.sound()


class ComposedMachine(MirrorMachine):
    """Members that are made of others: a stripe of two disks and a concatenation of two."""

    disksOf = 4

    def memberSize(self) -> int:
        return SIZE // 2

    def make(self) -> Any:
        first, second, third, fourth = self.disks
        members = [Stripe([first, second], SECTOR * 2), Concatenation([third, fourth])]
        return Mirror(members, reactor=self.clock, store=self.store, patience=self.patience)

    def good(self, index: int) -> bool:
        """Whether the member that this disk does not belong to has everything, and goes on having it."""
        others = (2, 3) if index < 2 else (0, 1)
        disks = [self.disks[other] for other in others]
        return (
            self.opened
            and not self.broken.intersection(others)
            and not any(disk.faults or disk.doomed for disk in disks)
            and self.mirror.legs[1 if index < 2 else 0].state == IN_SYNC
        )

    def down(self, leg: Any) -> bool:
        return any(disk.broken for disk in leg.device.members)

    def contents(self) -> list[bytes]:
        chunks = SIZE // SECTOR // 4
        step = SECTOR * 2
        first, second, third, fourth = (disk.view for disk in self.disks)
        striped = b"".join(
            half[row * step : (row + 1) * step] for row in range(chunks) for half in (first, second)
        )
        return [striped, bytes(third + fourth)]


class ThreeMachine(MirrorMachine):
    """The same with three members."""

    disksOf = 3


class ModelTests(SynchronousTestCase):
    """The machines, with regions and pieces that fit their size."""

    def setUp(self) -> None:
        self.patch(regions, "SMALLEST", SECTOR * 2)
        self.patch(resync, "PIECE", SECTOR)
        self.patch(resync, "STRETCH", 3)
        self.patch(scrub, "PIECE", SECTOR)
        self.patch(scrub, "STRETCH", 3)

    def run_(self, machine: Any, examples: int = 60, steps: int = 50) -> None:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            ),
        )
        # What was under way when the power was lost is never heard of again.
        gc.collect()
        self.flushLoggedErrors()

    def test_two(self) -> None:
        """Two members."""
        self.run_(MirrorMachine)

    def test_three(self) -> None:
        """Three members."""
        self.run_(ThreeMachine)

    def test_composed(self) -> None:
        """Members that are a stripe and a concatenation."""
        self.run_(ComposedMachine, 40)
