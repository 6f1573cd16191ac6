"""Machines with mirrors of several kinds, each with the misfortunes of its own; see L{MirrorMachine}."""

from __future__ import annotations

import errno
from contextlib import suppress
from random import Random
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from iscsi_twisted.storage import (
    Concatenation,
    Mirror,
    Stripe,
    intent,
    regions,
    resync,
    salvage,
    samples,
    scrub,
)
from iscsi_twisted.storage.legs import IN_SYNC, Leg
from iscsi_twisted.storage.record import Record
from tests.support.mirrormachine import COUNTS, FIRST, SEEDS, SIZE, WHICH, MirrorMachine
from tests.support.platters import SECTOR, MemoryStore, Platter, PlatterDisk

MOST = 4
"""Disks of a mirror whose members come and go."""


class ComposedMachine(MirrorMachine):
    """Members that are made of others: a stripe of two disks and a concatenation of two."""

    disksOf = 4
    memberSize = SIZE // 2
    anyOrder = False

    def make(self) -> Any:
        first, second, third, fourth = self.disks
        members = [Stripe([first, second], SECTOR * 2), Concatenation([third, fourth])]
        return Mirror(members, reactor=self.clock, store=self.store, patience=self.patience)

    def group(self, disk: PlatterDisk) -> list[PlatterDisk]:
        """The disks of the member that one belongs to."""
        return self.disks[:2] if disk in self.disks[:2] else self.disks[2:]

    def leg(self, disk: PlatterDisk) -> Leg:
        return self.mirror.legs[0 if disk in self.disks[:2] else 1]

    def complete(self, disk: PlatterDisk) -> bool:
        return all(super(ComposedMachine, self).complete(each) for each in self.group(disk))

    def dispensable(self, disk: PlatterDisk) -> bool:
        return any(self.complete(other) for other in self.disks if other not in self.group(disk))

    def down(self, leg: Leg) -> bool:
        return any(disk.broken for disk in leg.device.members)  # type: ignore[attr-defined]

    def contents(self) -> list[bytes]:
        chunks = SIZE // SECTOR // 4
        step = SECTOR * 2
        first, second, third, fourth = (disk.view for disk in self.disks)
        striped = b"".join(
            half[row * step : (row + 1) * step] for row in range(chunks) for half in (first, second)
        )
        return [striped, bytes(third + fourth)]


class NestedMachine(MirrorMachine):
    """A mirror of two mirrors."""

    disksOf = 4
    anyOrder = False

    def make(self) -> Any:
        first, second, third, fourth = self.disks
        members = [
            Mirror([first, second], reactor=self.clock, store=self.store, patience=self.patience),
            Mirror([third, fourth], reactor=self.clock, store=self.store, patience=self.patience),
        ]
        return Mirror(members, reactor=self.clock, store=self.store, patience=self.patience)

    def mirrors(self) -> list[Mirror]:
        return [self.mirror, *self.mirror.members]

    def nudge(self) -> None:
        """What a member lacks, and its other half cannot read, the other member has."""
        self.scrub(None)

    def outer(self, disk: PlatterDisk) -> Leg:
        """The member of the outer mirror that a disk belongs to."""
        return self.mirror.legs[0 if disk in self.disks[:2] else 1]

    def leg(self, disk: PlatterDisk) -> Leg | None:
        legs: list[Leg] = self.outer(disk).device.legs  # type: ignore[attr-defined]
        return next((leg for leg in legs if leg.device is disk), None)

    def complete(self, disk: PlatterDisk) -> bool:
        outer = self.outer(disk)
        return (
            outer.state == IN_SYNC
            and not outer.behind
            and not outer.device.unverified  # type: ignore[attr-defined]
            and super().complete(disk)
        )

    def settled(self) -> bool:
        """
        One that cannot be a member now, since a disk of its own is away that it needs, is as it is.
        """
        for outer in self.mirror.legs:
            inner: Any = outer.device
            away = any(disk.broken for disk in inner.members)
            if outer.state != IN_SYNC and not away:
                return False
            if outer.gets and (
                inner.unverified or not all(leg.state == IN_SYNC or self.down(leg) for leg in inner.legs)
            ):
                return False
        return True

    def contents(self) -> list[bytes]:
        """A member that could not come back holds whatever it held."""
        return [
            bytes(disk.view)
            for disk in self.disks
            if disk.platter not in self.broken and self.outer(disk).state == IN_SYNC
        ]


class RosterMachine(MirrorMachine):
    """
    Members are added, removed and replaced, also while the mirror does not serve; some come back later.

    @ivar spare: platters that have been members.
    @ivar leaving: disks that are no members any more.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spare: list[Platter] = []
        self.leaving: list[PlatterDisk] = []

    def complete(self, disk: PlatterDisk) -> bool:
        """One that leaves soon is nobody to rely on: what its successor cannot read later is lost."""
        leg = self.leg(disk)
        return leg is not None and leg.successor is None and super().complete(disk)

    def sort(self) -> None:
        """Find out who is a member now."""
        members: list[Any] = [leg.device for leg in self.mirror.legs]
        for disk in self.disks:
            if disk not in members:
                self.leaving.append(disk)
                self.spare.append(disk.platter)
        self.disks = members

    def pending(self) -> list[Any]:
        self.sort()
        return super().pending() + [one for disk in self.leaving for one in disk.operations]

    def another(self, old: bool) -> PlatterDisk:
        """A new disk, or one that was a member."""
        platter = self.spare.pop(0) if old and self.spare else Platter(SIZE)
        self.leaving = [disk for disk in self.leaving if disk.platter is not platter]
        platter.unreadable.clear()
        (disk,) = self.fresh([platter])
        return disk

    def ready(self, old: bool) -> bool:
        """Whether a member can come: an old one only when nothing goes on there any more."""
        self.sort()
        return len(self.disks) < MOST and not (old and any(disk.operations for disk in self.leaving))

    @rule(old=st.booleans())
    def add(self, old: bool) -> None:
        """One more member."""
        if self.ready(old):
            self.takes(self.mirror.add(self.another(old)))

    @rule(which=WHICH, old=st.booleans())
    def replace(self, which: int, old: bool) -> None:
        """Another takes a member's place."""
        if self.ready(old):
            disk = self.disk(which)
            if self.dispensable(disk):
                self.takes(self.mirror.replace(disk, self.another(old)))

    def takes(self, result: Any) -> None:
        """Look at the result of a change of members."""
        result.addErrback(lambda failure: self.faults.append(failure.getTraceback()))
        self.sort()

    @rule(which=WHICH)
    def remove(self, which: int) -> None:
        """Do without a member."""
        self.sort()
        disk = self.disk(which)
        if len(self.disks) > 2 and self.dispensable(disk):
            self.takes(self.mirror.remove(disk))

    def lose(self, seed: int, power: bool, away: int) -> None:
        self.sort()
        for disk in self.leaving:
            disk.crash(Random(seed), power)
        self.leaving.clear()
        super().lose(seed, power, away)

    @precondition(lambda self: self.spare)
    @rule(seed=SEEDS, which=WHICH, clean=st.booleans())
    def edit(self, seed: int, which: int, clean: bool) -> None:
        """A member is exchanged for one that was, and the order is another, while nobody serves."""
        if not self.dispensable(self.disk(which)):
            return
        if clean:
            self.stop()
        elif self.store.pending:
            # Who has everything is not recorded yet, and nobody would be believed without the others.
            return
        self.sort()
        disk = self.disk(which)
        for other in self.disks:
            other.unreadable.clear()
        self.lose(seed, True, MOST)
        random = Random(seed)
        platter = self.spare.pop(0)
        platter.unreadable.clear()
        self.spare.append(disk.platter)
        platters = [other.platter for other in self.disks if other is not disk] + [platter]
        random.shuffle(platters)
        self.disks = self.fresh(platters)
        self.again()


class FullStore(MemoryStore):
    """What is to be saved fails too if there is an error by then."""

    def fire(self) -> None:
        if self.error is None:
            super().fire()
        else:
            self.pending.pop(0)[2].errback(self.error)


class RecordMachine(MirrorMachine):
    """
    Records cannot be kept for a while, are lost, damaged, or come from a backup; somebody has to say then who
    is right.

    @ivar believed: the platter that the next start is to believe.
    """

    def __init__(self) -> None:
        super().__init__()
        self.store = FullStore(waits=True)
        self.believed: Platter | None = None
        self.backups: list[dict[str, bytes]] = []

    def make(self) -> Any:
        trusted = next((disk for disk in self.disks if disk.platter is self.believed), None)
        return Mirror(self.disks, reactor=self.clock, store=self.store, trusted=trusted, patience=0)

    def excused(self) -> bool:
        # As long as there is doubt nobody is left out, and what one cannot do is told.
        faulty = any(disk.faults or disk.doomed or disk.broken for disk in self.disks)
        return self.store.error is not None or (bool(self.mirror.unverified) and faulty)

    @rule(number=st.sampled_from([errno.ENOSPC, errno.EIO]))
    def clog(self, number: int) -> None:
        """No record can be kept."""
        self.store.error = OSError(number, "no record can be kept")
        self.cells.excuse()

    @rule()
    def heal(self) -> None:
        """It can."""
        self.store.error = None

    @rule()
    def backup(self) -> None:
        """A backup is made of the records."""
        self.backups.append(dict(self.store.kept))

    @precondition(lambda self: self.mirror.unverified)
    @rule(which=WHICH, first=FIRST, count=COUNTS, seconds=st.sampled_from([15, 30, 45]))
    def outage(self, which: int, first: int, count: int, seconds: int) -> None:
        """A member that may be right gives no answer for a while; nothing is wrong with the others."""
        disk = self.disk(which)
        if any(other.unreadable or other.faults or other.broken for other in self.disks):
            return
        disk.broken = True
        self.cells.excuse()
        self.write(first, count, "w")
        self.idle(seconds)
        self.cells.excuse()
        disk.broken = False

    def lose(self, seed: int, power: bool, away: int) -> None:
        self.heal()
        super().lose(seed, power, away)

    def knowing(self) -> set[Platter]:
        """The platters of which it is known that they hold everything."""
        good = {
            disk.platter
            for disk in self.disks
            if not (disk.broken or disk.doomed or disk.faults or disk.unreadable)
        }
        if self.mirror.unverified:
            # Who was away meanwhile lacks what was written.
            legs = [leg for leg in self.mirror.legs if leg.gets and not leg.behind]
            return {leg.device.platter for leg in legs} & self.truth & good  # type: ignore[attr-defined]
        return {disk.platter for disk in self.disks if self.complete(disk)} & good

    def outdated(self) -> list[dict[str, bytes]]:
        """The backups of which a member knows that they are old."""
        numbers = [number for disk in self.disks for number in disk.platter.witnesses.values()]
        witness = max(numbers, default=0)

        def newest(backup: dict[str, bytes]) -> int:
            found = [0]
            for data in backup.values():
                with suppress(ValueError):
                    found.append(Record.decode(data).generation)
            return max(found)

        return [backup for backup in self.backups if newest(backup) < witness]

    @rule(seed=SEEDS, power=st.booleans(), how=st.sampled_from(["lost", "damaged", "believed", "old"]))
    def forget(self, seed: int, power: bool, how: str) -> None:
        """The machine goes down, and what was known of the members is gone."""
        truth = self.knowing()
        if not truth or (how == "old" and not self.outdated()):
            return
        self.truth = truth
        self.broken.clear()
        self.lose(seed, power, self.disksOf)
        if how == "believed":
            self.believed = next(disk.platter for disk in self.disks if disk.platter in truth)
        elif how == "old":
            self.store.kept = self.outdated()[seed % len(self.outdated())]
        else:
            left = self.store.kept if how == "damaged" else {}
            self.store.kept = {name: data[: seed % (len(data) or 1)] for name, data in left.items()}
        self.again()
        self.believed = None


class RemoteMachine(MirrorMachine):
    """One of the members is somewhere else: it is started anew now and then, and tells that."""

    bounced, alone = 0, False
    """The newest record that does not tell that it has lost something; nobody else is there then."""

    def lose(self, seed: int, power: bool, away: int) -> None:
        alone = away < len(self.disks) and self.disks[away].platter is not self.far
        super().lose(seed, power, away)
        newest = max(Record.decode(data).generation for data in self.store.kept.values())
        self.alone, self.bounced = alone and self.bounced >= newest, 0

    def again(self) -> None:
        super().again()
        if self.alone and self.broken:
            # Nobody but itself is there, which does not know that what was not flushed is lost there.
            self.cells.lost()

    def fresh(self, platters: list[Platter]) -> list[PlatterDisk]:
        disks = super().fresh(platters)
        self.far = getattr(self, "far", platters[0])
        for disk in disks:
            disk.stamped = disk.platter is not self.far
        return disks

    @rule(seed=SEEDS, replays=st.booleans())
    def bounce(self, seed: int, replays: bool) -> None:
        """What a member stands on is started anew; it may write again by itself what was lost."""
        disk = next(disk for disk in self.disks if disk.platter is self.far)
        if self.dispensable(disk) and not disk.broken:
            disk.replays = replays
            if not replays:
                self.bounced = self.mirror.life.generation
            disk.bounce(Random(seed))


class ScrubMachine(MirrorMachine):
    """Three members; some rot, and are made equal again."""

    disksOf = 3

    @rule(
        which=WHICH, cell=FIRST, seed=SEEDS, how=st.sampled_from(["majority", "named", "told"]),
        writes=st.lists(st.tuples(FIRST, st.integers(1, 4)), max_size=3),
    )  # fmt: skip
    def rot(self, which: int, cell: int, seed: int, how: str, writes: list[tuple[int, int]]) -> None:
        """A member holds something else than it should, until it is compared with others."""
        self.mend()
        for disk in self.disks:
            disk.faults = 0
            disk.unreadable.clear()
        self.calm()
        victim = self.disk(which)
        number = self.cells.rot(cell)
        rotten = number.to_bytes(8, "big") * (SECTOR // 8)
        for place in (victim.view, victim.platter.durable):
            place[cell * SECTOR : (cell + 1) * SECTOR] = rotten
        right = self.disk(which + 1)
        if how == "told":
            findings = self.awaited(self.mirror.scrub)
            assert (findings.count, findings.mismatches[0].repaired) == (1, False), findings
        outcome: list[Any] = []
        self.mirror.scrub(right if how == "named" else "majority").addBoth(outcome.append)
        for first, count in writes:
            self.write(first, count, "w")
        random = Random(seed)
        while not outcome:
            waiting = self.pending()
            if waiting:
                random.choice(waiting).fire()
            else:
                self.fireAll()
                self.clock.advance(0.01)
        assert outcome[0].count <= 1, outcome
        self.calm()
        # What was written over it, and not flushed, a loss of power would take back.
        assert self.awaited(self.mirror.flush) is None
        self.cells.cured(cell, number)
        assert len(set(self.contents())) == 1, "members differ after they were made equal"


def small() -> list[tuple[Any, str, Any]]:
    """What has to be smaller, for devices that are."""
    return [
        (regions, "SMALLEST", SECTOR * 4),
        (resync, "PIECE", SECTOR),
        (resync, "STRETCH", 3),
        (scrub, "PIECE", SECTOR),
        (scrub, "STRETCH", 3),
        (scrub, "SECTOR", SECTOR),
        (salvage, "GRAIN", SECTOR),
        (samples, "LENGTH", SECTOR),
        (intent, "AHEAD", 2),
    ]


def run(machine: Any, examples: int, steps: int, *, seed: int | None = None) -> None:
    """
    Run a machine.

    @param seed: of what it does; None to do the same each time, and to look for the shortest way to what is
        wrong, which may take long.
    @raise AssertionError: if something is wrong.
    """
    phases = [Phase.generate, Phase.shrink] if seed is None else [Phase.generate]
    run_state_machine_as_test(
        machine if seed is None else seeded(seed)(type(machine.__name__, (machine,), {})),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=seed is None,
            database=None,
            report_multiple_bugs=False,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )
