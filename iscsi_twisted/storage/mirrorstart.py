# -*- test-case-name: tests.storage.test_mirrorlife -*-
"""How a mirror starts: who is there, what each is worth, and what has to be told of that."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from twisted.logger import Logger
from twisted.python.failure import Failure

from iscsi_twisted.errors import DeviceError, NotReady
from iscsi_twisted.storage.fingerprint import fingerprintOf
from iscsi_twisted.storage.intent import Intent
from iscsi_twisted.storage.legs import Leg
from iscsi_twisted.storage.mirrormembers import permitCreation
from iscsi_twisted.storage.muster import choose, muster, wanted
from iscsi_twisted.storage.pending import attempt, ready, settle
from iscsi_twisted.storage.record import MirrorStore, regionCount
from iscsi_twisted.storage.records import Records
from iscsi_twisted.storage.regions import Regions, regionShift
from iscsi_twisted.storage.samples import resembles
from iscsi_twisted.storage.void import look, permitting

if TYPE_CHECKING:
    from iscsi_twisted.storage.mirror import Mirror
    from iscsi_twisted.storage.mirrorlife import Life

_log = Logger(namespace="iscsi_twisted")


class Start:
    """One start of a mirror."""

    def __init__(self, mirror: Mirror, life: Life) -> None:
        self._mirror, self._life = mirror, life

    async def run(self) -> None:
        """
        Open the members, and find out what each is worth; if that is impossible all are closed again.

        @raise DeviceError: why it is impossible.
        """
        mirror = self._mirror
        mirror.legs = [Leg(device) for device in mirror.members]
        if self._life.trusted is not None:
            self._life.trusted = mirror.leg(self._life.trusted.device)
        records = self._records(mirror.store)
        try:
            failure = await self._openLegs(records)
            if failure is not None and not any(leg.isOpen for leg in mirror.legs):
                failure.raiseException()
            await self._assemble(records, failure)
        except BaseException:
            self._life.leave()
            await ready(settle([attempt(leg.device.close) for leg in mirror.legs if leg.isOpen]))
            mirror.watch.stop()
            raise

    def _records(self, store: MirrorStore | None) -> Records:
        """
        What is known of mirrors.

        @raise DeviceError: if that cannot be read.
        """
        if store is None:
            return Records()
        try:
            records = store.records()
        except OSError as error:
            raise DeviceError(f"records of mirrors cannot be read: {error}") from error
        self._life.generation = max(self._life.generation, records.generation)
        return records

    async def _openLegs(self, records: Records) -> Failure | None:
        """
        Open the members.  One that a record knows by its name is not made anew if its file is gone: what is
        mounted there may be missing.

        @return: the first failure, if there is any.
        """
        legs = self._mirror.legs
        known = {leg for leg in legs if records.knows(leg.name)}
        for leg in legs:
            permitCreation(leg.device, leg not in known)
        try:
            with permitting(legs):
                opening = [attempt(self._life.roster.open, leg) for leg in legs]
                outcomes = await ready(self._mirror.watch.changes(legs, opening))
        finally:
            for leg in legs:
                permitCreation(leg.device, True)
        failures = []
        for leg, outcome in zip(legs, outcomes, strict=True):
            if isinstance(outcome, Failure):
                leg.reason = outcome.getErrorMessage()
                if leg in known:
                    leg.reason += " (it has been a member, so it is not made anew)"
                failures.append(outcome)
        for failure in failures:
            if not failure.check(DeviceError, OSError):
                failure.raiseException()
        return failures[0] if failures else None

    async def _assemble(self, records: Records, failure: Failure | None) -> None:
        """Find out what each member is worth."""
        mirror = self._mirror
        mirror.opened()
        mirror.shift = regionShift(mirror.size)
        count = regionCount(mirror.size, mirror.shift)
        self._meet(count)
        prints = {leg.fingerprint for leg in mirror.legs if leg.isOpen}
        record = choose(records.of(prints), mirror.legs, mirror.size, mirror.shift)
        alone = record is None and self._life.trusted is None
        if failure is not None and alone:
            failure.raiseException()
        if record is None or record.marked:
            failure = await self._flushAll() or failure
        if failure is not None and (alone or not any(leg.isOpen for leg in mirror.legs)):
            failure.raiseException()
        await self._life.witnesses.ask()
        if record is not None:
            await self._life.stampAll(everybody=True)
        permit = mirror.permitsVoid
        trusted, self._life.trusted = self._life.trusted, None
        verdict = muster(mirror.legs, record, count, trusted, permitVoid=permit)
        mirror.unverified, mirror.void = verdict.unverified, Regions(count)
        mirror.void.update(verdict.void)
        self._life.old = list(verdict.old)
        self._life.rota.start(record.rounds if record is not None else None)
        self._life.name = record.name if record is not None else os.urandom(8).hex()
        if mirror.store is not None:
            self._share(mirror.store)
        store = None if mirror.readOnly else mirror.store
        mirror.intent = Intent(store, self._life.name, count, self._life.record)
        warnings = [*verdict.warnings]
        if record is not None:
            changed, told = await self._suspicions(count, trusted)
            warnings += told
            if changed:
                # They are not the ones to keep what was under way either.
                verdict = muster(mirror.legs, record, count, None, changed, permitVoid=permit)
                mirror.void.update(verdict.void)
            absent = wanted(record.members, prints, mirror.unverified)
            if absent:
                raise NotReady(absent)
        if mirror.unverified and record is not None and not record.marked:
            # What is found to be the same in all must not differ any more after a power cut.
            failure = await self._flushAll()
            if failure is not None:
                failure.raiseException()
        if mirror.void:
            warnings.append(
                "none of its members has all of it; it gets the rest as a member of another mirror"
            )
        for warning in warnings:
            _log.warn("{mirror}: {what}", event="mirror", mirror=str(mirror), what=warning)
        self._enter()
        mirror.arrange()
        saved = mirror.intent.save()
        if saved is not None:
            await saved

    def _meet(self, count: int) -> None:
        """See who is here, and what each can do."""
        mirror = self._mirror
        for leg in mirror.legs:
            leg.unflushed = Regions(count)
            if leg.isOpen:
                leg.abilities = leg.device.capabilities()
                leg.fingerprint = fingerprintOf(leg.device)
                look(leg, mirror.size, mirror.shift, count)

    def _enter(self) -> None:
        """Give each member its first state."""
        mirror = self._mirror
        for leg in mirror.legs:
            if leg.isOpen:
                leg.happens("behind" if leg.behind else "current", mirror)
            else:
                leg.happens("absent", mirror, leg.reason)
        for leg in mirror.legs:
            leg.rival.subtract(mirror.unverified)
            if mirror.readOnly:
                leg.rival.clear()

    def _share(self, store: MirrorStore) -> None:
        """
        A mirror may be split in two: the one that comes second has another record from then on, and each
        forgets the members of the other.
        """
        life = self._life
        other = store.serving.get(life.name)
        if other is not None and other is not life:
            life.name, life.old = os.urandom(8).hex(), []
            other.forget({leg.fingerprint for leg in self._mirror.legs if leg.isOpen})
        store.serving[life.name] = life

    async def _flushAll(self) -> Failure | None:
        """
        Whoever served was killed, maybe: make durable what it has written, or a power cut could still change
        what is found out about the members now.

        @return: the failure of one that cannot; it counts as not there.
        """
        legs = [leg for leg in self._mirror.legs if leg.isOpen and leg.abilities.volatileCache]
        flushing = [attempt(leg.device.flush) for leg in legs]
        outcomes = await ready(self._mirror.watch.changes(legs, flushing))
        first = None
        for leg, outcome in zip(legs, outcomes, strict=True):
            if isinstance(outcome, Failure):
                first = first or outcome
                leg.reason = outcome.getErrorMessage()
                await self._life.roster.shut(leg)
        return first

    async def _suspicions(self, count: int, trusted: Leg | None) -> tuple[list[Leg], list[str]]:
        """
        Look at members that do not know whether they were changed.

        @param trusted: who is right, if somebody says so.
        @return: those that were, and what is to be told.
        """
        mirror, told, changed = self._mirror, [], []
        legs = [leg for leg in mirror.legs if leg.isOpen]
        legs.sort(key=lambda leg: (leg is not trusted, not leg.stamp))
        for leg in legs[1:]:
            source = legs[0]
            if leg.stamp or await resembles(mirror, leg, source):
                continue
            if source.stamp or source is trusted:
                changed.append(leg)
                told.append(f"{leg.name} does not hold what it held, and everything is copied to it")
            else:
                mirror.unverified.add(0, count - 1)
                told.append(f"{leg.name} and {source.name} do not hold the same, and are compared")
        return changed, told
