# -*- test-case-name: tests.storage.test_mirrorlife -*-
"""
The life of a mirror beside its operations: how it starts and ends, what it does in the background, and how
members come and go.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from iscsi_twisted.errors import DeviceError, LocalError
from iscsi_twisted.interfaces import Pending
from iscsi_twisted.storage.fingerprint import fingerprintOf, stamps
from iscsi_twisted.storage.intent import Intent
from iscsi_twisted.storage.legs import FAILED, IN_SYNC, MISSING, RESYNCING, Leg, MemberStatus
from iscsi_twisted.storage.mirrormembers import Roster, permitCreation
from iscsi_twisted.storage.muster import choose, muster
from iscsi_twisted.storage.pending import answered, attempt, ready, settle
from iscsi_twisted.storage.progress import Progress
from iscsi_twisted.storage.record import MemberRecord, MirrorStore, Record, regionCount
from iscsi_twisted.storage.regions import Regions, regionShift
from iscsi_twisted.storage.resync import Resync
from iscsi_twisted.storage.samples import resembles
from iscsi_twisted.storage.scrub import Findings, Scrub

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
    """

    members: tuple[MemberStatus, ...]
    unverified: int
    activity: str
    percent: float
    rate: float
    left: float | None

    @property
    def degraded(self) -> bool:
        """Whether a member is not in sync."""
        return any(member.state != IN_SYNC for member in self.members)


class Life:
    """
    @ivar name: of the mirror's record.
    @ivar trusted: the member that is the truth at the next start.
    @ivar old: members that were known and are not here, and where they are behind.
    @ivar epoch: grows with each look for regions in which nothing is written.
    @ivar flushed: the epoch in which the last flush began that all members did.
    """

    def __init__(self, mirror: Mirror, reactor: Any) -> None:
        self._mirror = mirror
        self._reactor = reactor
        self.name = ""
        self.trusted: Leg | None = None
        self.old: list[MemberRecord] = []
        self.epoch = self.flushed = 0
        self._generation = 0
        self._ticks = 0
        self._timer: Any = None
        self._working: Deferred[None] | None = None
        self._again = 0.0
        self._pauses: list[Deferred[None]] = []
        self._stopping = True
        self._progress: Progress | None = None
        self._compared = False
        self._trying: list[Deferred[Any]] = []
        self.roster = Roster(mirror, self)

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

    # Starting

    def open(self) -> Pending | None:
        """See L{Mirror.open}."""
        return answered(self._open())  # type: ignore[no-any-return]

    async def _open(self) -> None:
        mirror = self._mirror
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        mirror.legs = [Leg(device) for device in mirror.members]
        if self.trusted is not None:
            self.trusted = mirror.leg(self.trusted.device)
        records = list(self._records(mirror.store))
        try:
            failure = await self._openLegs(records)
            if failure is not None and not any(leg.isOpen for leg in mirror.legs):
                failure.raiseException()
            await self._assemble(records, failure)
        except BaseException:
            await ready(settle([attempt(leg.device.close) for leg in mirror.legs if leg.isOpen]))
            raise
        self._begin()

    def _records(self, store: MirrorStore | None) -> Iterator[Record]:
        """The records that can be read."""
        if store is None:
            return
        try:
            found = list(store.records())
        except OSError as error:
            raise DeviceError(f"records of mirrors cannot be read: {error}") from error
        for name, data in found:
            try:
                record = Record.decode(data)
            except (ValueError, KeyError, TypeError) as error:
                _log.error(
                    "record {name} of a mirror cannot be used: {error}", event="mirror", name=name,
                    error=str(error),
                )  # fmt: skip
                continue
            self._generation = max(self._generation, record.generation)
            yield record

    async def _openLegs(self, records: list[Record]) -> Failure | None:
        """
        Open the members.  One that a record knows by its name is not made anew if its file is gone: what is
        mounted there may be missing.

        @return: the first failure, if there is any.
        """
        legs = self._mirror.legs
        known = {member.title for record in records for member in record.members}
        for leg in legs:
            permitCreation(leg.device, leg.name not in known)
        try:
            outcomes = await ready(
                settle([attempt(leg.device.open, partial(self._mirror.memberChanged, leg)) for leg in legs])
            )
        finally:
            for leg in legs:
                permitCreation(leg.device, True)
        failures = []
        for leg, outcome in zip(legs, outcomes, strict=True):
            leg.isOpen = not isinstance(outcome, Failure)
            if not leg.isOpen:
                leg.reason = outcome.getErrorMessage()
                if leg.name in known:
                    leg.reason += " (it has been a member, so it is not made anew)"
                failures.append(outcome)
        for failure in failures:
            if not failure.check(DeviceError, OSError):
                failure.raiseException()
        return failures[0] if failures else None

    async def _assemble(self, records: list[Record], failure: Failure | None) -> None:
        """Find out what each member is worth."""
        mirror = self._mirror
        mirror.opened()
        mirror.shift = regionShift(mirror.size)
        count = regionCount(mirror.size, mirror.shift)
        for leg in mirror.legs:
            leg.unflushed = Regions(count)
            if leg.isOpen:
                leg.abilities = leg.device.capabilities()
                leg.fingerprint = fingerprintOf(leg.device)
        record = choose(records, mirror.legs, mirror.size, mirror.shift)
        if record is None and failure is not None and self.trusted is None:
            failure.raiseException()
        if record is not None:
            await self.stampAll(everybody=True)
        verdict = muster(mirror.legs, record, count, self.trusted)
        self.trusted = None
        mirror.unverified = verdict.unverified
        self.old = list(verdict.old)
        self.name = record.name if record is not None else os.urandom(8).hex()
        store = None if mirror.readOnly else mirror.store
        mirror.intent = Intent(store, self.name, count, self.record)
        warnings = [*verdict.warnings]
        if record is not None:
            warnings += await self._suspicions(count)
        for warning in warnings:
            _log.warn("{mirror}: {what}", event="mirror", mirror=str(mirror), what=warning)
        for leg in mirror.legs:
            if leg.isOpen:
                leg.happens("behind" if leg.behind else "current", mirror)
            else:
                leg.happens("absent", mirror, leg.reason)
        mirror.arrange()
        saved = mirror.intent.save()
        if saved is not None:
            await saved

    async def _suspicions(self, count: int) -> list[str]:
        """Look at members that do not know whether they were changed; what is to be told."""
        mirror, told = self._mirror, []
        legs = sorted((leg for leg in mirror.legs if leg.isOpen), key=lambda leg: not leg.stamp)
        for leg in legs[1:]:
            source = legs[0]
            if leg.stamp or await resembles(mirror, leg, source):
                continue
            if source.stamp:
                leg.behind.add(0, count - 1)
                told.append(f"{leg.name} does not hold what it held, and everything is copied to it")
            else:
                mirror.unverified.add(0, count - 1)
                told.append(f"{leg.name} and {source.name} do not hold the same, and are compared")
        return told

    def _begin(self) -> None:
        self._stopping = self._compared = False
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
        for running in (self._working, *self._trying):
            if running is not None:
                await _ended(running)
        idle = mirror.lock.idle()
        if idle is not None:
            await idle
        legs = [leg for leg in mirror.legs if leg.isOpen]
        problem = None
        if not mirror.readOnly:
            problem = await self._leaveClean()
        results = await ready(settle([attempt(leg.device.close) for leg in legs]))
        for leg, result in zip(legs, results, strict=True):
            leg.isOpen = False
            if isinstance(result, Failure) and problem is None and leg.gets:
                problem = result
        if problem is not None:
            problem.raiseException()

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
            self._unmark(quiet)
            saved = mirror.intent.save()
            if saved is not None:
                await saved
        except (DeviceError, OSError):
            return Failure()
        return None

    # The record

    def record(self) -> Record:
        """What there is to know, now."""
        mirror = self._mirror
        self._generation += 1
        members = [
            MemberRecord(
                leg.fingerprint,
                leg.name,
                leg.gets,
                _all(leg.behind, leg.unflushed),
                leg.stamp if leg.gets else (),
            )
            for leg in mirror.legs
            if leg.fingerprint is not None
        ]
        members += [attrs.evolve(member, behind=member.behind.copy()) for member in self.old]
        return Record(
            self.name, self._generation, mirror.size, mirror.shift, mirror.intent.marked(),
            mirror.unverified.copy(), tuple(members),
        )  # fmt: skip

    async def stampAll(self, everybody: bool = False) -> None:
        """Ask members how new they are: those that get what is written, or all that are open."""
        legs = [leg for leg in self._mirror.legs if (leg.isOpen if everybody else leg.gets)]
        outcomes = await ready(stamps([leg.device for leg in legs]))
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
            self.go(self._sweep())
        now = self.now()
        for leg in self._mirror.legs:
            if leg.state in (FAILED, MISSING) and leg.due <= now:
                leg.due = float("inf")
                self.go(self.roster.retry(leg))
        self.look()

    def go(self, coroutine: Any) -> None:
        """Let something go on that the end has to wait for."""
        running: Deferred[Any] = Deferred.fromCoroutine(coroutine)
        self._trying.append(running)

        def ended(outcome: Any) -> None:
            self._trying.remove(running)
            if isinstance(outcome, Failure) and not outcome.check(CancelledError):
                self.tellFailure(outcome)

        running.addBoth(ended)

    async def _sweep(self) -> None:
        """Take back marks where nothing was written for a while, once all that is durable."""
        mirror = self._mirror
        covered = self.flushed >= self.epoch
        busy = mirror.lock.holds
        regions = mirror.intent.age()
        self.epoch += 1
        for hold in busy:
            first, last = mirror.regions(hold.offset, hold.end)
            regions = [region for region in regions if not first <= region <= last]
        if not regions:
            return
        if not covered:
            await ready(mirror.flush())
        await self.stampAll()
        quiet = mirror.intent.quiet(regions)
        if quiet:
            self._unmark(quiet)
            saved = mirror.intent.save()
            if saved is not None:
                await saved

    def _unmark(self, regions: Regions) -> None:
        """Take marks back; who is not here lacks what was written there."""
        for leg in self._mirror.legs:
            if not leg.gets:
                leg.behind.update(regions)
        for member in self.old:
            member.behind.update(regions)
        self._mirror.intent.clear(regions)

    # Copying and comparing

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
        if mirror.unverified and not self._compared:
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
        mirror = self._mirror
        if not mirror.readOnly:
            await self.stampAll()
            mirror.keepRecord()
        if mirror.unverified:
            _log.warn(
                "{mirror}: {bytes} bytes are still in doubt; say which member holds the truth",
                event="mirror", mirror=str(mirror), bytes=len(mirror.unverified) << mirror.shift,
            )  # fmt: skip
        return findings

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
        )

    def tellRepair(self, leg: Leg, offset: int, end: int) -> None:
        """A place was written anew."""
        _log.warn(
            "{mirror}: bytes {offset} to {end} of {member} are written anew, as another has them",
            event="repair", mirror=str(self._mirror), member=leg.name, offset=offset, end=end,
        )  # fmt: skip

    def tellFailure(self, failure: Failure) -> None:
        """Something in the background went wrong."""
        if failure.check(DeviceError, OSError):
            _log.warn(
                "{mirror}: {error}", event="mirror", mirror=str(self._mirror), error=failure.getErrorMessage()
            )
        else:
            _log.failure("{mirror}: unexpected failure", failure, event="surprise", mirror=str(self._mirror))


async def _ended(running: Deferred[Any]) -> None:
    """Wait until something has ended, well or badly, without taking its result."""
    waiting: Deferred[None] = Deferred()

    def ended(outcome: Any) -> Any:
        waiting.callback(None)
        return outcome

    running.addBoth(ended)
    await waiting


def _all(behind: Regions, unflushed: Regions) -> Regions:
    both = behind.copy()
    both.update(unflushed)
    return both
