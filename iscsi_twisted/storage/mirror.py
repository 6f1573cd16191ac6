# -*- test-case-name: tests.storage.test_mirror -*-
"""Devices that hold the same (the FAQ's RAID1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import lcm
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from iscsi_twisted.errors import DeviceError, LocalError, OutOfSpace, WriteProtected
from iscsi_twisted.interfaces import Buffer, Capabilities, Pending, Space, isPending
from iscsi_twisted.storage.device import checkRange, outOfRange
from iscsi_twisted.storage.fingerprint import fingerprintOf, restartsOf, restored
from iscsi_twisted.storage.legs import IN_SYNC, RESYNCING, Leg
from iscsi_twisted.storage.members import jointSpace
from iscsi_twisted.storage.mirrorlife import Life, MirrorStatus
from iscsi_twisted.storage.mirrorread import MirrorReading
from iscsi_twisted.storage.patience import SECONDS, Watch
from iscsi_twisted.storage.pending import attempt, whenDone
from iscsi_twisted.storage.record import MirrorStore
from iscsi_twisted.storage.scrub import Findings
from iscsi_twisted.storage.void import Inner


class Mirror(Inner, MirrorReading):
    """
    Every member holds everything: all are written, and one that has what is wanted is read.

    A member that fails a write or a flush is left out, and the others go on; it comes back by itself when it
    can, and gets what it lacks.  A place that cannot be read is read from another member, and written anew.

    @ivar store: keeps the record of the members.
    @ivar able: what it could do when anybody was told last.
    @ivar writes: those that began, and so on.
    """

    def __init__(
        self,
        members: Iterable[Any],
        *,
        reactor: Any = None,
        store: MirrorStore | None = None,
        trusted: Any = None,
        patience: float = SECONDS,
        scrubbing: float | None = None,
    ) -> None:
        """
        @param reactor: whose time it is; by default the process's own.
        @param store: keeps the record of the members.  Without one nobody knows at the start whether they
            agree, and they are compared each time.
        @param trusted: the member that holds the truth at the next start, whatever the record says.
        @param patience: seconds that a member may keep the others waiting before it counts as failed; 0 for
            as long as it likes.
        @param scrubbing: seconds after which the members are compared again and again; None for never.
        @raise LocalError: if that is no member, or no such time.
        """
        super().__init__(members)
        self.store = store
        self.watch = Watch(self, SECONDS)
        self.patience = patience
        self.able = Capabilities()
        self.writes = self.flushes = self.discards = self.zeroes = 0
        self.life = Life(self, reactor, scrubbing)
        self._changed: Callable[[], None] = _ignore
        self._discards = False
        self._writers: list[Callable[..., Any]] = []
        self._quick = False
        self._marks = bytearray()
        self._nones: list[None] = []
        self._unrecorded = 0
        self._recordFault: BaseException | None = None
        self._acknowledging: list[Deferred[None]] = []
        if trusted is not None:
            self.trustAtStart(trusted)

    # Its life

    def open(self, changed: Callable[[], None]) -> Pending | None:
        """
        Open the members, and find out what each is worth.

        @raise DeviceError: if their sizes differ, if none can be opened, or if nobody can say who holds the
            truth.
        """
        self._changed = changed
        return self.life.open()

    def close(self) -> Pending | None:
        """Make all durable, keep the record, and close all members; the first failure is told then."""
        return self.life.close()

    def memberChanged(self, leg: Leg) -> None:
        """A member has changed, or what it stands on was started anew."""
        restarts = restartsOf(leg.device)
        if restarts != leg.restarts:
            leg.restarts = restarts
            if self.life.roster.restarted(leg):
                restored(leg.device)
        self._changed()

    def tellChange(self) -> None:
        """The mirror itself has changed."""
        self._changed()

    def adopt(self, store: MirrorStore | None, reactor: Any) -> None:
        """
        Take a store and a reactor where none was given; for whoever serves mirrors that others have made.
        """
        if self.store is None:
            self.store = store
        self.life.adopt(reactor)

    def trustAtStart(self, member: Any) -> None:
        """
        Let the next start take one member for the truth, and overwrite the others with it.

        @raise LocalError: if that is no member.
        """
        self.life.trusted = self.leg(member)

    @property
    def patience(self) -> float:
        """Seconds that a member may keep the others waiting; 0 for as long as it likes."""
        return self.watch.seconds

    @patience.setter
    def patience(self, seconds: float) -> None:
        if not 0 <= seconds < float("inf"):
            raise LocalError(f"nobody can wait for {seconds} seconds; 0 means as long as it takes")
        self.watch.seconds = seconds

    def leg(self, member: Any) -> Leg:
        """
        A member's leg.

        @param member: the device, its name, or the leg itself.
        @raise LocalError: if there is no such member.
        """
        for leg in self.legs:
            if member is leg or member is leg.device or member is getattr(leg.device, "wrapped", leg):
                return leg
            if member in (leg.name, str(leg.device), getattr(leg.device, "title", None)):
                return leg
        raise LocalError(f"{member} is no member of {self}")

    def status(self) -> MirrorStatus:
        """A snapshot of the members and of what goes on."""
        return self.life.status()

    def scrub(self, repair: Any = None) -> Deferred[Findings]:
        """
        Compare the members everywhere, beside whatever else goes on.

        @param repair: None to tell of differences only; C{"majority"} to let those win that agree, if they
            are more than half; else the member that is right.
        @return: fires with L{iscsi_twisted.storage.scrub.Findings}.
        @raise LocalError: if it is compared already.
        """
        return self.life.scrub(repair)

    def add(self, member: Any) -> Deferred[None]:
        """
        Take one more member, to which all is copied.

        @return: fires when it is open and the copying begins; fails if it does not fit.
        """
        return self.life.roster.add(member)

    def remove(self, member: Any) -> Deferred[None]:
        """
        Do without a member from now on.

        @raise LocalError: if the others do not have everything.
        """
        return self.life.roster.remove(member)

    def replace(self, old: Any, new: Any) -> Deferred[None]:
        """
        Let another device take the place of a member, which serves until the other has everything.

        @return: fires when the new one is open and the copying begins.
        """
        return self.life.roster.replace(old, new)

    def trust(self, member: Any) -> None:
        """Where nobody knows whether members agree this one is right; the others get a copy of it."""
        self.life.roster.trust(member)

    def fingerprint(self) -> str | None:
        """It is known by its record, whatever members it has now."""
        return f"mirror {self.life.name}" if self.store is not None else None

    def stamp(self) -> tuple[int, ...]:
        """It looks after its members itself."""
        return ()

    def witness(self, key: str) -> int:
        """The same."""
        return 0

    def keepWitness(self, key: str, number: int) -> None:
        """The same."""

    def opened(self) -> None:
        """@raise DeviceError: if the sizes of the members that are open differ, or two are one device."""
        legs = [leg for leg in self.legs if leg.isOpen]
        first = legs[0].device
        known: dict[str | None, Leg] = {}
        for leg in legs:
            same = known.setdefault(fingerprintOf(leg.device), leg)
            if same is not leg and fingerprintOf(leg.device) is not None:
                raise DeviceError(
                    f"{leg.name} is the same device as {same.name}, and no copy of it; a mirror needs others"
                )
        for leg in legs[1:]:
            if leg.device.size != first.size:
                raise DeviceError(
                    f"the members of a mirror must be of equal size: {first} has {first.size} bytes, "
                    f"{leg.device} has {leg.device.size}"
                )
        self.size = first.size
        self.blockSize = lcm(*(leg.device.blockSize for leg in legs))
        self.able = self.capabilities()

    def capabilities(self) -> Capabilities:
        """What all members can; discards only where all leave zeros, or the members would differ."""
        legs = [leg for leg in self.legs if leg.isOpen] or self.legs
        each = [leg.device.capabilities() for leg in legs]
        self._discards = all(one.discard and one.discardZeroes for one in each)
        self.readOnly = any(one.readOnly for one in each)
        return Capabilities(
            readOnly=self.readOnly,
            volatileCache=any(one.volatileCache for one in each),
            discard=self._discards,
            zero=all(one.zero for one in each),
            allocated=all(one.allocated for one in each),
            discardZeroes=self._discards,
            rotational=any(one.rotational for one in each),
            retains=any(one.retains for one in each),
            space=all(one.space for one in each),
        )

    def space(self) -> Space | Pending | None:
        """What the members that are there have and can have, each for itself."""
        return jointSpace((leg.device for leg in self.legs if leg.gets), copies=True)

    def arrange(self) -> None:
        """States have changed: who is read and written, and whether anything is out of the ordinary."""
        legs = [leg for leg in self.legs if leg.gets]
        doubt = bool(self.unverified)
        rivals = any(leg.rival for leg in legs)
        self.members = [leg.device for leg in self.legs]
        current = [] if doubt or rivals else [leg for leg in legs if leg.state == IN_SYNC and not leg.suspect]
        self._readers = [leg for leg in current if not leg.shunned] or current
        self._writers = [leg.device.write for leg in legs]
        self._nones = [None] * len(legs)
        self._marks = self.intent.marks
        self._quick = not (doubt or self._unrecorded or self._recordFault)

    # Changing

    def write(self, offset: int, data: Buffer) -> Pending | None:
        length = len(data)
        end = offset + length
        if not 0 <= offset <= end <= self.size:
            raise outOfRange(self.size, offset, length)
        self.writes += 1
        region = offset >> self.shift
        if self._quick and not self.lock.holds and end - 1 >> self.shift == region and self._marks[region]:
            self._marks[region] = 2
            outcomes = [attempt(write, offset, data) for write in self._writers]
            if outcomes == self._nones:
                return None
            legs = [leg for leg in self.legs if leg.gets]
            ended = self.watch.changes(legs, outcomes)
            result = whenDone(ended, lambda done: self._judge(legs, done, offset, end))
            if isPending(result):
                self.lock.keep(offset, end, result)
            return result
        if not length:
            return None
        return self._change("write", offset, end, offset, data)

    def discard(self, offset: int, length: int) -> Pending | None:
        checkRange(self.size, offset, length)
        if not self._discards or not length:
            return None
        self.discards += 1
        return self._change("discard", offset, offset + length, offset, length)

    def zero(self, offset: int, length: int, unmap: bool) -> Pending | None:
        checkRange(self.size, offset, length)
        if not length:
            return None
        self.zeroes += 1
        return self._change("zero", offset, offset + length, offset, length, unmap)

    def _change(self, operation: str, offset: int, end: int, *arguments: Any) -> Pending | None:
        if self.readOnly:
            raise WriteProtected(f"{self}: is read-only, since a member is")
        result: Pending | None = self.lock.run(
            offset, end, self._changeMarked, operation, offset, end, arguments
        )
        return result

    def _changeMarked(self, operation: str, offset: int, end: int, arguments: tuple[Any, ...]) -> Any:
        """Mark the range, then change it; it is this operation's own."""
        marking = self.intent.mark(*self.regions(offset, end))
        if marking is None:
            return self._alter(None, operation, offset, end, arguments)
        return marking.addCallback(self._alter, operation, offset, end, arguments)

    def _alter(self, _: object, operation: str, offset: int, end: int, arguments: tuple[Any, ...]) -> Any:
        legs = [leg for leg in self.legs if leg.gets]
        results = [attempt(getattr(leg.device, operation), *arguments) for leg in legs]
        ended = self.watch.changes(legs, results)
        return whenDone(ended, lambda outcomes: self._judge(legs, outcomes, offset, end))

    def _judge(self, legs: list[Leg], outcomes: list[Any], offset: int, end: int) -> Any:
        """All members have ended: who goes on, and what is told."""
        failures = {leg: one for leg, one in zip(legs, outcomes, strict=True) if isinstance(one, Failure)}
        first, last = self.regions(offset, end)
        if not failures:
            # It may have been under way while others were flushed.
            self._marks[first : last + 1] = b"\2" * (last + 1 - first)
            if self.unverified and self.unverified.has(first, last):
                self._agreeing(offset, end)
            return self.acknowledge()
        lost = False
        for region in range(first, last + 1):
            having = [leg for leg in legs if not leg.lacks(region, region)]
            good = [leg for leg in having if leg not in failures]
            if self.unverified.flags[region] and len(good) < len(having):
                # Each of them may hold there what no other does, and comes to lack nothing by that.
                lost = True
                for leg in failures:
                    leg.spoilt += 1
                continue
            lost = lost or not good
            for leg in legs:
                # Where nobody did it the first one's is what counts, whatever it is.
                if leg in failures if good else leg is not (having or legs)[0]:
                    self.spoil(leg, region, region)
        # What is told is what those say that are members still.
        told = [failure for leg, failure in failures.items() if leg.gets] or list(failures.values())
        full = lost and all(failure.check(OutOfSpace) for failure in told)
        for leg, failure in reversed(failures.items()):
            if not full:
                self.failed(leg, failure)
        self.settleStates()
        self.keepRecord()
        if not lost:
            return self.acknowledge()
        self.errors += 1
        return self.acknowledge(told[0].raiseException)

    def _agreeing(self, offset: int, end: int) -> None:
        """What was written to all members is the same in all: whole regions are no longer in doubt."""
        step = 1 << self.shift
        first = -(-offset // step)
        last = (end >> self.shift) - 1 if end < self.size else self.regions(offset, end)[1]
        if last >= first:
            self.certain(first, last)
        if self.unverified.has(*self.regions(offset, end)):
            self.life.compareAgain()

    def certain(self, first: int, last: int) -> None:
        """Those that are here agree in these regions.  Who is not here was not asked, and lacks them."""
        self.unverified.remove(first, last)
        for leg in self.legs:
            if not leg.gets:
                leg.behind.add(first, last)
        for member in self.life.old:
            member.behind.add(first, last)
        self.arrange()

    def spoil(self, leg: Leg, first: int, last: int) -> None:
        """A member lacks something in these regions from now on."""
        leg.behind.add(first, last)
        leg.rival.remove(first, last)
        leg.spoilt += 1

    def failed(self, leg: Leg, failure: Failure, pause: float = 0.0) -> bool:
        """
        A member could not change something: it is left out, if the others have everything.

        @param pause: seconds before it is tried again, at least.
        @return: whether it is.
        """
        if not leg.gets or not self.life.roster.dispensable(leg):
            return False
        # What it had in a cache may be gone too.
        leg.behind.update(self.intent.marked())
        leg.behind.update(leg.unflushed)
        leg.unflushed.clear()
        leg.rival.clear()
        leg.spoilt += 1
        leg.happens("failed", self, failure.getErrorMessage())
        self.life.roster.postpone(leg, pause)
        self.watch.abandon(leg)
        self.arrange()
        return True

    def settleStates(self) -> None:
        """A member that lacks something is being resynced."""
        for leg in self.legs:
            if leg.state == IN_SYNC and leg.behind:
                leg.happens("behind", self, "a write failed there")
        self.arrange()
        if any(leg.state == RESYNCING for leg in self.legs):
            self.life.look()

    def notWritten(self, leg: Leg, first: int, last: int, failure: Failure) -> None:
        """A member could not write something to these regions."""
        self.spoil(leg, first, last)
        self.failed(leg, failure)
        self.settleStates()
        self.keepRecord()

    # What has happened has to be durable before anybody is told

    def keepRecord(self) -> None:
        """Keep the record now; until then nothing is acknowledged."""
        self._recordFault = None
        try:
            saving = self.intent.save()
        except DeviceError as error:
            self._recordFault = error
            saving = None
        if saving is not None:
            self._unrecorded += 1
            saving.addBoth(self._kept)
        elif self._recordFault is None:
            self.life.witnesses.tellNow()
        self.arrange()

    def _kept(self, outcome: Any) -> None:
        self._unrecorded -= 1
        self._recordFault = outcome.value if isinstance(outcome, Failure) else None
        if not self._unrecorded:
            self.arrange()
            waiting, self._acknowledging = self._acknowledging, []
            for one in waiting:
                one.callback(None)
            if self._recordFault is None:
                self.life.witnesses.tellNow()

    def acknowledge(self, then: Callable[[], Any] = lambda: None) -> Any:
        """
        Go on when all that has happened to members is recorded: after a crash the wrong member would be
        believed.

        @raise DeviceError: if it cannot be recorded.
        """
        if self._recordFault is not None and not self._unrecorded:
            self.keepRecord()
        if not self._unrecorded:
            return self._confirmed(None, then)
        waiting: Deferred[Any] = Deferred()
        self._acknowledging.append(waiting)
        return waiting.addCallback(self._confirmed, then)

    def _confirmed(self, _: object, then: Callable[[], Any]) -> Any:
        if self._recordFault is not None:
            raise self._recordFault
        return then()

    # Flushing

    def flush(self) -> Pending | None:
        self.flushes += 1
        legs = [leg for leg in self.legs if leg.gets]
        epoch = self.life.epoch
        results = [attempt(leg.device.flush) for leg in legs]
        ended = self.watch.changes(legs, results)
        return whenDone(ended, lambda outcomes: self._judgeFlush(legs, outcomes, epoch))

    def _judgeFlush(self, legs: list[Leg], outcomes: list[Any], epoch: int) -> Any:
        failures = {leg: one for leg, one in zip(legs, outcomes, strict=True) if isinstance(one, Failure)}
        if not failures:
            self.life.flushed = max(self.life.flushed, epoch)
            return self.acknowledge()
        told = None
        for leg, failure in reversed(failures.items()):
            if not self.failed(leg, failure) and leg.gets and not self.life.roster.spared(leg):
                told = failure
        self.settleStates()
        self.keepRecord()
        if told is None:
            return self.acknowledge()
        self.errors += 1
        return self.acknowledge(told.raiseException)


def _ignore() -> None:
    """Before anybody wants to know of changes."""
