"""
A machine with a mirror, its disks, its record, a clock and users who ask for things: whatever happens to any
of them, no byte that was acknowledged and flushed is lost while one good member exists, and members are equal
in the end.

L{MirrorMachine} has what all models of mirrors do; those add rules of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from iscsi_twisted.errors import DeviceError, LocalError
from iscsi_twisted.interfaces import isPending
from iscsi_twisted.storage import Mirror
from iscsi_twisted.storage.legs import IN_SYNC, Leg
from iscsi_twisted.storage.record import Record
from tests.support.cells import Cells, Request
from tests.support.platters import SECTOR, MemoryStore, Platter, PlatterDisk

CELLS = 32
SIZE = CELLS * SECTOR

SEEDS = st.integers(0, 1 << 16)
FIRST = st.integers(0, 7) | st.integers(0, CELLS - 1)
COUNTS = st.sampled_from([1, 1, 2, 2, 3, 4, 9])
WHICH = st.integers(0, 7)
"""Which disk, modulo their number."""


class MirrorMachine(RuleBasedStateMachine):
    """
    @cvar anyOrder: the disks may have another order after a crash.
    @cvar patience: of the mirror; 0 since time goes by here while operations wait, and nobody hangs.
    @ivar disks: those that are used now.
    @ivar broken: platters that are away, or fail altogether.
    @ivar truth: platters that are known to hold everything, when there is no record any more.
    """

    disksOf = 2
    memberSize = SIZE
    anyOrder = True
    patience = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.store = MemoryStore(waits=True)
        self.cells = Cells(CELLS, SECTOR)
        self.disks = self.fresh([Platter(self.memberSize) for _ in range(self.disksOf)])
        self.broken: set[Platter] = set()
        self.truth: set[Platter] = set()
        self.faults: list[str] = []
        self.began = False

    @invariant()
    def sound(self) -> None:
        """What was found out in callbacks, where an exception would go nowhere."""
        assert not self.faults, self.faults[0]

    # Its life

    @initialize()
    def begin(self) -> None:
        """All members are new and empty."""
        self.began = True
        self.assemble()
        assert self.start()
        self.calm()

    def fresh(self, platters: list[Platter]) -> list[PlatterDisk]:
        """Devices for disks."""
        return [PlatterDisk(platter, platter.name, waits=True) for platter in platters]

    def make(self) -> Any:
        """The device under test."""
        return Mirror(self.disks, reactor=self.clock, store=self.store, patience=self.patience)

    def assemble(self) -> None:
        """Make the device under test of the disks."""
        self.disks = self.fresh([disk.platter for disk in self.disks])
        for disk in self.disks:
            disk.broken = disk.platter in self.broken
        self.mirror = self.make()
        for mirror in self.mirrors():
            mirror.life.tellFailure = self.surprised

    def start(self) -> bool:
        """Open the mirror; whether that went well."""
        outcome = self.awaited(self.mirror.open, lambda: None)
        if not isinstance(outcome, Failure):
            return True
        outcome.trap(DeviceError)
        return False

    def again(self) -> None:
        """
        Whoever served was killed, or the power comes back.  Without those members that are away, if that is
        possible.
        """
        for call in list(self.clock.getDelayedCalls()):
            call.cancel()
        if all(disk.platter in self.broken for disk in self.disks):
            self.broken.clear()
        self.assemble()
        if not self.start():
            for disk in self.disks:
                disk.leave()
            self.broken.clear()
            self.assemble()
            assert self.start(), "it does not start even with all members"
        self.sound()

    def awaited(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """What a method returns in the end, while everything happens that it waits for."""
        outcome: list[Any] = []
        try:
            result = method(*arguments)
        except DeviceError:
            return Failure()
        if not isPending(result):
            return result
        result.addBoth(outcome.append)
        for _ in range(1000):
            if outcome:
                return outcome[0]
            self.fireAll()
            self.clock.advance(0.01)
        raise AssertionError(f"{method} never ends: {self.mirror.status()} {self.pending()}")

    def surprised(self, failure: Failure) -> None:
        """Something in the background failed."""
        if not failure.check(DeviceError, OSError):
            self.faults.append(failure.getTraceback())

    def mirrors(self) -> list[Mirror]:
        """All mirrors that there are, one in another too."""
        return [self.mirror]

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
        self.heal()
        for count in range(4000):
            if count % 500 == 499:
                self.nudge()
            self.fireAll()
            self.clock.advance(0.01 if self.pending() or self.store.pending else 1.0)
            if self.pending() or self.store.pending or any(one.life._working for one in self.mirrors()):
                continue
            if self.mirror.unverified:
                self.decide()
            elif self.settled():
                for disk in self.disks:
                    disk.doomed = False
                return
        told = [mirror.status() for mirror in self.mirrors()]
        raise AssertionError(f"it never ends: {told} {self.pending()}")

    def settled(self) -> bool:
        """Whether all members are in sync that can be, and nothing is in doubt."""
        return not any(one.unverified for one in self.mirrors()) and all(
            leg.state == IN_SYNC or self.down(leg) for one in self.mirrors() for leg in one.legs
        )

    def nudge(self) -> None:
        """Do what somebody has to do who looks after the mirror."""

    def decide(self) -> None:
        """Members have been compared and differ: say which is right, or bring that back."""
        right = [leg for leg in self.mirror.legs if leg.device.platter in self.truth]
        assert right, "nobody knows what is true"
        for leg in right:
            if leg.gets:
                self.mirror.trust(leg)
                return
        self.mend()

    def heal(self) -> None:
        """Nothing is wrong any more beside the disks."""

    def down(self, leg: Leg) -> bool:
        """Whether a member cannot come back now."""
        return leg.device.broken  # type: ignore[attr-defined,no-any-return]

    def contents(self) -> list[bytes]:
        """What each member holds."""
        return [bytes(disk.view) for disk in self.disks if disk.platter not in self.broken]

    # What initiators do

    def ask(self, request: Request, method: Any, *arguments: Any, then: Any = None) -> None:
        """Ask the mirror for something."""

        def ended(outcome: Any) -> None:
            if self.mirror is mirror and self.mirror.unverified and request.kind == "read":
                request.excused = True
            try:
                self.cells.answered(request, outcome)
            except AssertionError as error:
                self.faults.append(str(error))
            if then is not None and self.mirror is mirror and not isinstance(outcome, Failure):
                then()

        mirror = self.mirror
        request.misses = PlatterDisk.misses
        try:
            result = method(*arguments)
        except DeviceError:
            ended(Failure())
            return
        if isPending(result):
            request.result = result
            result.addBoth(ended)
        else:
            ended(result)

    def excused(self) -> bool:
        """Whether whatever is asked now may fail."""
        return False

    def doubt(self) -> bool:
        """Whether what is read now may fail."""
        return self.excused() or bool(self.mirror.unverified)

    @rule(first=FIRST, count=COUNTS, kind=st.sampled_from("wwwdz"))
    def write(self, first: int, count: int, kind: str) -> None:
        """Begin a write, a discard or a zeroing; both of the latter leave zeros."""
        cells = range(first, min(first + count, CELLS))
        offset, length = first * SECTOR, len(cells) * SECTOR
        request = self.cells.write(cells, kind != "w", self.excused())
        if kind == "w":
            self.ask(request, self.mirror.write, offset, self.cells.content(request))
        elif kind == "d":
            self.ask(request, self.mirror.discard, offset, length)
        else:
            self.ask(request, self.mirror.zero, offset, length, True)

    @rule(first=FIRST, count=st.integers(1, 12))
    def read(self, first: int, count: int) -> None:
        """Begin a read."""
        cells = range(first, min(first + count, CELLS))
        request = self.cells.read(cells, self.doubt())
        self.ask(request, self.mirror.read, first * SECTOR, len(cells) * SECTOR)

    @rule(first=FIRST, count=COUNTS)
    def swap(self, first: int, count: int) -> None:
        """Begin a read, and write there when its answer comes, before anybody else does anything."""
        cells = range(first, min(first + count, CELLS))
        request = self.cells.read(cells, self.doubt())
        self.ask(
            request, self.mirror.read, first * SECTOR, len(cells) * SECTOR,
            then=lambda: self.write(first, count, "w"),
        )  # fmt: skip

    @rule()
    def flush(self) -> None:
        """Begin a flush."""
        self.ask(self.cells.flush(self.excused()), self.mirror.flush)

    @rule(first=FIRST, count=COUNTS)
    def commit(self, first: int, count: int) -> None:
        """A write, and a flush when that was acknowledged; everything happens that they need."""
        self.write(first, count, "w")
        self.finish()
        self.flush()
        self.finish()

    def finish(self) -> None:
        """Let everything happen that waits until all have their answers, if that takes no time."""
        for _ in range(20):
            if not self.cells.requests:
                break
            self.fireAll()

    @precondition(lambda self: any(request.result is not None for request in self.cells.requests))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Whoever asked for something wants it no more."""
        waiting = [request for request in self.cells.requests if request.result is not None]
        data.draw(st.sampled_from(waiting)).result.cancel()

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
        self.clock.advance(min(seconds, 5.0))
        for _ in range(round(seconds) // 5 - 1):
            self.clock.advance(5.0)

    @rule()
    def rest(self) -> None:
        """Everything happens that can."""
        self.calm()

    @rule(seconds=st.sampled_from([15, 30, 45]))
    def idle(self, seconds: int) -> None:
        """Time goes by, and what waits has time enough."""
        for _ in range(seconds // 5):
            self.clock.advance(5.0)
            self.finish()
            self.fireAll()
            self.fireAll()

    def leg(self, disk: PlatterDisk) -> Leg | None:
        """The member that a disk is."""
        return next((leg for leg in self.mirror.legs if leg.device is disk), None)

    def complete(self, disk: PlatterDisk) -> bool:
        """Whether a disk has everything, and goes on having it."""
        leg = self.leg(disk)
        return (
            leg is not None
            and leg.state == IN_SYNC
            and not (leg.suspect or leg.behind)
            and not (disk.broken or disk.faults or disk.doomed or disk.unreadable)
            and not self.mirror.unverified
        )

    def dispensable(self, disk: PlatterDisk) -> bool:
        """Whether another one has everything."""
        return any(self.complete(other) for other in self.disks if other is not disk)

    def disk(self, which: int) -> PlatterDisk:
        """One of the disks."""
        return self.disks[which % len(self.disks)]

    @rule(which=WHICH)
    def fail(self, which: int) -> None:
        """A member fails altogether."""
        disk = self.disk(which)
        if not self.dispensable(disk):
            return
        self.broken.add(disk.platter)
        disk.broken = True
        for request in self.cells.requests:
            # What it has tried elsewhere, before that was well again, it need not try twice.
            request.excused |= request.kind == "read" and request.misses < PlatterDisk.misses

    @rule(which=WHICH)
    def fault(self, which: int) -> None:
        """A member fails once: it tears its next write, or does not flush."""
        disk = self.disk(which)
        if self.dispensable(disk):
            disk.faults = 1

    @rule(which=WHICH, cell=FIRST, count=st.integers(1, 3))
    def wear(self, which: int, cell: int, count: int) -> None:
        """A place of a member can no longer be read until it is written."""
        disk = self.disk(which)
        if self.dispensable(disk):
            last = self.memberSize // SECTOR - 1
            disk.unreadable.update(min(cell + step, last) for step in range(count))

    @precondition(lambda self: self.broken)
    @rule()
    def mend(self) -> None:
        """All members are well again."""
        self.broken.clear()
        for disk in self.disks:
            disk.broken = False

    @rule(repair=st.sampled_from([None, "majority"]))
    def scrub(self, repair: str | None) -> None:
        """Members are compared; those that are in sync never differ."""
        if self.mirror.unverified:
            return

        def ended(outcome: Any) -> None:
            if not isinstance(outcome, Failure) and outcome.count:
                self.faults.append(f"members differ: {outcome}")
            elif isinstance(outcome, Failure) and not outcome.check(CancelledError, DeviceError):
                self.faults.append(outcome.getTraceback())

        with suppress(LocalError):
            self.mirror.scrub(repair).addBoth(ended)

    # What happens to the machine

    @rule(seed=SEEDS, power=st.booleans(), away=WHICH)
    def crash(self, seed: int, power: bool, away: int) -> None:
        """
        The power is lost, or whoever serves is killed; now and then a member is away afterwards.
        """
        self.lose(seed, power, away)
        self.again()

    def lose(self, seed: int, power: bool, away: int) -> None:
        """The power is lost, or whoever serves is killed."""
        if away < len(self.disks):
            # Those that are left do not start if they lack anything.
            self.broken.add(self.disks[away].platter)
        random = Random(seed)
        open_ = self.marked() or any(leg.behind for one in self.mirrors() for leg in one.legs)
        alone = away < len(self.disks) or (open_ and not self.even())
        for disk in self.disks:
            if alone:
                # Who is left alone, with all that it may have been told, has to be readable.
                disk.unreadable.clear()
            disk.crash(random, power)
        self.store.crash(random)
        if self.anyOrder:
            random.shuffle(self.disks)
        if power:
            self.cells.lost()
        else:
            self.cells.killed()

    def marked(self) -> bool:
        """Whether writes may be under way, for all that any mirror or record knows."""
        known = [one.intent.marked() for one in self.mirrors() if hasattr(one, "intent")]
        for data in [*self.store.kept.values(), *(data for _, data, _ in self.store.pending)]:
            with suppress(ValueError):
                known.append(Record.decode(data).marked)
        return any(known)

    def even(self) -> bool:
        """Whether all members are there, and are known to lack nothing."""
        if self.broken or self.store.pending:
            return False
        try:
            records = [Record.decode(data) for data in self.store.kept.values()]
        except ValueError:
            return False
        return all(
            each.present and not each.behind and not record.unverified
            for record in records
            for each in record.members
        )

    @rule(seed=SEEDS)
    def restart(self, seed: int) -> None:
        """The mirror is closed, then the power is lost, and the mirror is opened again."""
        self.stop()
        self.lose(seed, True, len(self.disks))
        self.again()

    def stop(self) -> None:
        """Close the mirror when nobody asks for anything."""
        self.heal()
        for _ in range(1000):
            if not self.cells.requests:
                break
            self.fireAll()
            self.clock.advance(0.1)
        assert not self.cells.requests, f"these never end: {self.cells.requests}"
        for disk in self.disks:
            disk.faults = 0
        outcome = self.awaited(self.mirror.close)
        assert outcome is None, outcome
        self.cells.closed()

    def teardown(self) -> None:
        """With all members well again, all are equal and hold what they may."""
        if not self.began or self.faults:
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
            self.cells.holds(cell, bytes(first[cell * SECTOR :][:SECTOR]))
        self.sound()
