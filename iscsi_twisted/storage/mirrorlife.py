# -*- test-case-name: tests.storage.test_mirrorlife -*-
"""
The life of a mirror beside its operations: what it does in the background from its start to its end, and what
is kept of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from iscsi_twisted.errors import DeviceError, LocalError
from iscsi_twisted.interfaces import Pending
from iscsi_twisted.storage.fingerprint import stampOf
from iscsi_twisted.storage.legs import FAILED, IN_SYNC, MISSING, RESYNCING, Leg, MemberStatus
from iscsi_twisted.storage.mirrormembers import LONGEST, Roster
from iscsi_twisted.storage.mirrorstart import Start
from iscsi_twisted.storage.pending import answered, attempt, ended, ready
from iscsi_twisted.storage.progress import Progress
from iscsi_twisted.storage.record import MemberRecord, Record
from iscsi_twisted.storage.regions import Regions
from iscsi_twisted.storage.resync import Resync
from iscsi_twisted.storage.rota import Rota
from iscsi_twisted.storage.scrub import Findings, Scrub
from iscsi_twisted.storage.sweep import Sweep
from iscsi_twisted.storage.witnesses import Witnesses

if TYPE_CHECKING:
    from iscsi_twisted.storage.mirror import Mirror

TICK: Final = 5.0
"""Seconds between two looks at what there is to do."""

AGE: Final = 3
"""Ticks after which marks of regions in which nothing was written are taken back."""

AGAIN: Final = 30.0
"""Seconds after which what could not be copied is tried again."""

_log = Logger(namespace="iscsi_twisted")


@attrs.frozen
class MirrorStatus:
    """
    How a mirror is.

    @ivar unverified: bytes of which nobody knows whether members agree, in whole regions.
    @ivar activity: C{resync}, C{compare}, C{scrub} or nothing.
    @ivar percent: of that.
    @ivar rate: of that, bytes a second.
    @ivar left: seconds until that has ended; None if nobody can tell.
    @ivar scrubbed: when all members were compared last, in seconds since 1970; None if they never were.
    @ivar due: when they will be the next time; None if nobody wants that.
    """

    members: tuple[MemberStatus, ...]
    unverified: int
    activity: str
    percent: float
    rate: float
    left: float | None
    scrubbed: float | None = None
    due: float | None = None

    @property
    def degraded(self) -> bool:
        """Whether a member is not in sync."""
        return any(member.state != IN_SYNC for member in self.members)


class Life:
    """
    @ivar name: of the mirror's record.
    @ivar trusted: the member that is the truth at the next start.
    @ivar old: members that were known and are not here, and where they are behind.
    @ivar rota: when the members are compared again.
    @ivar epoch: grows with each look for regions in which nothing is written.
    @ivar generation: of the newest record that is known.
    @ivar flushed: the epoch in which the last flush began that all members did.
    """

    def __init__(self, mirror: Mirror, reactor: Any, scrubbing: float | None = None) -> None:
        """@param scrubbing: seconds after which members are compared again and again; None for never."""
        self._mirror = mirror
        self.rota = Rota(mirror, scrubbing)
        self._reactor = reactor
        self.name = ""
        self.trusted: Leg | None = None
        self.old: list[MemberRecord] = []
        self.epoch = self.flushed = 0
        self.generation = 0
        self._ticks = 0
        self._timer: Any = None
        self._working: Deferred[None] | None = None
        self._again = 0.0
        self._pauses: list[Deferred[None]] = []
        self._stopping = True
        self._progress: Progress | None = None
        self._compared, self._compareAt, self._vain = False, 0.0, 0
        self._trying: list[Deferred[Any]] = []
        self.roster = Roster(mirror, self)
        self.witnesses = Witnesses(mirror, self)
        self._sweep = Sweep(mirror, self)

    @property
    def stopping(self) -> bool:
        """It is closed, or about to be."""
        return self._stopping

    def now(self) -> float:
        """Seconds."""
        return float(self._reactor.seconds())

    def adopt(self, reactor: Any) -> None:
        """Take a reactor if there is none."""
        if self._reactor is None:
            self._reactor = reactor

    def later(self, seconds: float, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call something after so many seconds."""
        return self._reactor.callLater(seconds, function, *arguments)

    # Starting

    def open(self) -> Pending | None:
        """See L{Mirror.open}."""
        return answered(self._open())  # type: ignore[no-any-return]

    async def _open(self) -> None:
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        await Start(self._mirror, self).run()
        self._begin()

    def _begin(self) -> None:
        self._stopping = self._compared = False
        self._compareAt, self._vain = 0.0, 0
        self._timer = self._reactor.callLater(TICK, self._tick)
        for leg in self._mirror.legs:
            if not leg.isOpen:
                self.roster.postpone(leg)
        self.wake()

    # Ending

    def close(self) -> Pending | None:
        """See L{Mirror.close}."""
        return answered(self._close())  # type: ignore[no-any-return]

    async def _close(self) -> None:
        mirror = self._mirror
        if self._stopping:
            return
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for pause in list(self._pauses):
            pause.cancel()
        await self._rest()
        idle = mirror.lock.idle()
        if idle is not None:
            await idle
        problem = None
        if not mirror.readOnly:
            problem = await self._leaveClean()
        # Something may have happened to a member meanwhile; once they are closed nothing is looked into.
        await self._rest()
        legs = [leg for leg in mirror.legs if leg.isOpen]
        closed = await self._shut(legs)
        self.leave()
        mirror.watch.stop()
        problem = problem or closed
        if problem is not None:
            problem.raiseException()

    async def _rest(self) -> None:
        """Wait until nothing is done in the background any more."""
        while running := [one for one in (self._working, *self._trying) if one is not None]:
            await ended(running[0])

    async def _shut(self, legs: list[Leg]) -> Failure | None:
        """
        Close members.  Those that hang are told to, and nobody waits for them.

        @return: the first failure of one that gets what is written, if there is any.
        """
        watch = self._mirror.watch
        closing = watch.answers(legs, [attempt(leg.device.close) for leg in legs])
        for leg in legs:
            leg.isOpen = False
            if leg.hanging:
                watch.release(leg, "it hangs, and is left as it is")
        outcomes = await ready(closing)
        problem = None
        for leg, outcome in zip(legs, outcomes, strict=True):
            if isinstance(outcome, Failure) and problem is None and leg.gets:
                problem = outcome
        return problem

    async def _leaveClean(self) -> Failure | None:
        """Flush, and record that nothing is under way."""
        mirror = self._mirror
        quiet = mirror.intent.marked()
        try:
            await ready(mirror.flush())
            for leg in mirror.legs:
                if leg.gets:
                    leg.unflushed.clear()
            await self.stampAll()
            self.unmark(quiet)
            saved = mirror.intent.save()
            if saved is not None:
                await saved
            await self.witnesses.tell()
        except (DeviceError, OSError):
            return Failure()
        return None

    # The record

    def record(self) -> Record:
        """What there is to know, now."""
        mirror = self._mirror
        serving = [self] if mirror.store is None else [self, *mirror.store.serving.values()]
        self.generation = max(life.generation for life in serving) + 1
        members = [
            MemberRecord(
                leg.fingerprint,
                leg.name,
                leg.gets,
                leg.lacking(),
                leg.stamp if leg.gets else leg.left,
            )
            for leg in mirror.legs
            if leg.fingerprint is not None
        ]
        members += [attrs.evolve(member, behind=member.behind.copy()) for member in self.old]
        return Record(
            self.name, self.generation, mirror.size, mirror.shift, mirror.intent.marked(),
            mirror.unverified.copy(), tuple(members), self.rota.rounds,
            mirror.void.copy(),
        )  # fmt: skip

    def forget(self, fingerprints: set[str | None]) -> None:
        """These belong to another mirror now."""
        self.old = [member for member in self.old if member.fingerprint not in fingerprints]
        self._mirror.keepRecord()

    def leave(self) -> None:
        """The record is used no more, and neither are the members."""
        for leg in self._mirror.legs:
            leg.isLeft = True
        store = self._mirror.store
        if store is not None and store.serving.get(self.name) is self:
            del store.serving[self.name]

    async def stampAll(self, everybody: bool = False) -> None:
        """Ask members how new they are: those that get what is written, or all that are open."""
        legs = [leg for leg in self._mirror.legs if (leg.isOpen if everybody else leg.gets)]
        asked = [attempt(stampOf, leg.device) for leg in legs]
        outcomes = await ready(self._mirror.watch.answers(legs, asked))
        for leg, outcome in zip(legs, outcomes, strict=True):
            leg.stamp = () if isinstance(outcome, Failure) else tuple(outcome)

    def spoils(self) -> int:
        """Grows whenever a member has come to lack something."""
        return sum(leg.spoilt for leg in self._mirror.legs)

    # What is done from time to time

    def _tick(self) -> None:
        self._timer = self._reactor.callLater(TICK, self._tick)
        self._ticks += 1
        if self._ticks % AGE == 0:
            self._sweep.begin()
        now = self.now()
        for leg in self._mirror.legs:
            if leg.shunned and leg.shunned <= now:
                leg.shunned = 0.0
                self._mirror.arrange()
            if leg.state in (FAILED, MISSING) and leg.due <= now and not leg.hanging:
                leg.due = float("inf")
                self.go(self.roster.retry(leg))
        self.look()
        if self._working is None and self.rota.isDue:
            self._working = Deferred.fromCoroutine(self._scrub())
            self._working.addBoth(self._worked)

    def go(self, coroutine: Any) -> None:
        """Let something go on that the end has to wait for."""
        running: Deferred[Any] = Deferred.fromCoroutine(coroutine)
        self._trying.append(running)

        def ended(outcome: Any) -> None:
            self._trying.remove(running)
            if isinstance(outcome, Failure) and not outcome.check(CancelledError):
                self.tellFailure(outcome)

        running.addBoth(ended)

    def unmark(self, regions: Regions) -> None:
        """Take marks back; who is not here lacks what was written there."""
        for leg in self._mirror.legs:
            if not leg.gets:
                leg.behind.update(regions)
        for member in self.old:
            member.behind.update(regions)
        self._mirror.intent.clear(regions)

    # Copying and comparing

    def compareAgain(self) -> None:
        """Something was written where members differ, or may: soon they may be equal there."""
        if self._compared:
            self._compared, self._compareAt = False, self.now() + AGAIN

    def wake(self) -> None:
        """There is something new to copy."""
        self._again = 0.0
        self.look()

    def look(self) -> None:
        """There may be something to copy or to compare."""
        if self._working is None and not self._stopping and self._needed() is not None:
            self._working = Deferred.fromCoroutine(self._work())
            self._working.addBoth(self._worked)

    def _needed(self) -> Resync | Scrub | None:
        """What is to be done next."""
        mirror = self._mirror
        if mirror.unverified and not self._compared and self.now() >= self._compareAt:
            return Scrub(mirror, doubtful=True)
        if mirror.readOnly or self.now() < self._again:
            return None
        return Resync(mirror) if any(leg.state == RESYNCING for leg in mirror.legs) else None

    async def _work(self) -> None:
        # Whoever woke this up has first to end what it does.
        await self.pause(0)
        work = self._needed()
        if isinstance(work, Scrub):
            self._compared = True
            await self._compare(work)
        elif work is not None:
            self._again = float("inf")
            try:
                self._progress = work.progress
                await work.run()
            finally:
                # What comes meanwhile to those that lack something has set it to zero.
                self._again = min(self._again, self.now() + AGAIN)

    async def _compare(self, work: Scrub) -> Findings:
        self._progress = work.progress
        findings = await work.run()
        self.rota.finished(work)
        mirror = self._mirror
        if not mirror.readOnly:
            await self.stampAll()
            mirror.keepRecord()
        pause = self._compareLater(work)
        if mirror.unverified:
            how = f"a member gave no answer, and is asked again in {pause:.0f} s; or " if pause else ""
            _log.warn(
                "{mirror}: {bytes} bytes are still in doubt; {how}say which member holds the truth",
                event="mirror", mirror=str(mirror), bytes=len(mirror.unverified) << mirror.shift, how=how,
            )  # fmt: skip
        return findings

    def _compareLater(self, work: Scrub) -> float:
        """
        Compare again what could not be compared, each time twice as late.

        @return: seconds until then; 0 if all was.
        """
        if not (work.inVain and self._mirror.unverified):
            self._vain = 0
            return 0.0
        pause: float = min(LONGEST, AGAIN * 2**self._vain)
        self._vain = min(self._vain + 1, 20)
        self._compared, self._compareAt = False, self.now() + pause
        return pause

    def _worked(self, outcome: Any) -> None:
        self._working = self._progress = None
        if isinstance(outcome, Failure) and not outcome.check(CancelledError):
            self.tellFailure(outcome)
        self.look()

    def scrub(self, repair: Any) -> Deferred[Findings]:
        """See L{Mirror.scrub}."""
        if self._stopping or self._working is not None:
            raise LocalError(f"{self._mirror}: is not open, or copied or compared already")
        leg = repair if repair in (None, "majority") else self._mirror.leg(repair)
        answer: Deferred[Findings] = Deferred.fromCoroutine(self._compare(Scrub(self._mirror, leg)))
        finished: Deferred[None] = Deferred()
        self._working = finished

        def ended(outcome: Any) -> Any:
            self._worked(None)
            finished.callback(None)
            return outcome

        return answer.addBoth(ended)

    async def _scrub(self) -> None:
        """Compare the members since it is time to; copying goes before that."""
        rota = self.rota
        work = Scrub(self._mirror, gives=True, start=rota.rounds.place, reached=rota.reached)
        try:
            await self._compare(work)
        except CancelledError:
            raise
        except Exception:
            rota.postpone()
            raise

    def pause(self, seconds: float) -> Deferred[None]:
        """
        Let others go on.

        @return: fires after so long; fails with C{CancelledError} if the mirror is closed.
        """
        if self._stopping:
            raise CancelledError
        pause: Deferred[None] = deferLater(self._reactor, seconds)
        self._pauses.append(pause)

        def ended(outcome: Any) -> Any:
            self._pauses.remove(pause)
            return outcome

        return pause.addBoth(ended)

    # Telling

    def status(self) -> MirrorStatus:
        """See L{Mirror.status}."""
        mirror = self._mirror
        step, progress = 1 << mirror.shift, self._progress
        return MirrorStatus(
            tuple(leg.status(step) for leg in mirror.legs),
            len(mirror.unverified) * step,
            progress.activity if progress is not None else "",
            progress.percent if progress is not None else 100.0,
            progress.rate if progress is not None else 0.0,
            progress.left if progress is not None else 0.0,
            self.rota.rounds.ended or None,
            self.rota.due,
        )

    def tellRepair(self, leg: Leg, offset: int, end: int) -> None:
        """A place was written anew."""
        _log.warn(
            "{mirror}: bytes {offset} to {end} of {member} are written anew, as another has them",
            event="repair", mirror=str(self._mirror), member=leg.name, offset=offset, end=end,
        )  # fmt: skip

    def tellError(self, error: object) -> None:
        """Something in the background could not be done."""
        _log.warn("{mirror}: {error}", event="mirror", mirror=str(self._mirror), error=str(error))

    def tellFailure(self, failure: Failure) -> None:
        """Something in the background went wrong."""
        if failure.check(DeviceError, OSError):
            self.tellError(failure.value)
        else:
            _log.failure("{mirror}: unexpected failure", failure, event="surprise", mirror=str(self._mirror))
