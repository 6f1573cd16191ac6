# -*- test-case-name: tests.storage.test_mirrormembers -*-
"""Members of a mirror that come and go while it serves."""

from __future__ import annotations

from functools import partial
from math import lcm
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from iscsi_twisted.errors import DeviceError, LocalError
from iscsi_twisted.interfaces import isPending
from iscsi_twisted.storage.device import asDevice
from iscsi_twisted.storage.fingerprint import fingerprintOf, replays, stampOf
from iscsi_twisted.storage.legs import IN_SYNC, Leg
from iscsi_twisted.storage.pending import attempt, call, ready, settle
from iscsi_twisted.storage.regions import Regions
from iscsi_twisted.storage.samples import resembles
from iscsi_twisted.storage.void import filled, look, permitting

if TYPE_CHECKING:
    from iscsi_twisted.storage.mirror import Mirror
    from iscsi_twisted.storage.mirrorlife import Life

SOONEST: Final = 5.0
LONGEST: Final = 300.0
"""Seconds after which a member that is not there is tried again: at first, and at most."""

UNIT_BLOCK: Final = 512
"""Whoever uses a mirror asks for multiples of so many bytes, even if it could have any: all units do."""

_log = Logger(namespace="iscsi_twisted")


class Roster:
    """Who belongs to a mirror."""

    def __init__(self, mirror: Mirror, life: Life) -> None:
        self._mirror, self._life = mirror, life

    def postpone(self, leg: Leg, pause: float = 0.0) -> None:
        """
        A member that is not there is tried again later, each time twice as late.

        @param pause: seconds before that, at least.
        """
        while SOONEST * 2**leg.attempts < min(pause, LONGEST):
            leg.attempts += 1
        leg.due = self._life.now() + min(LONGEST, SOONEST * 2**leg.attempts)
        leg.attempts = min(leg.attempts + 1, 20)

    async def retry(self, leg: Leg) -> None:
        """Try to have a member back."""
        mirror = self._mirror
        if leg.isOpen:
            await self._part(leg)
        if leg.hanging:
            # What it was told to do comes to an end first, or it would be done to what is newer.
            self.postpone(leg)
            return
        permitCreation(leg.device, False)
        try:
            with permitting([leg]):
                outcome = await mirror.watch.tell(leg, self.open, leg)
        finally:
            permitCreation(leg.device, True)
        if isinstance(outcome, Failure):
            leg.reason = outcome.getErrorMessage()
            self.postpone(leg)
            return
        if self._life.stopping or leg not in mirror.legs:
            await self.shut(leg)
            return
        wrong = self._misfit(leg)
        if wrong:
            self._refuse(leg, wrong)
            await self.shut(leg)
            self.postpone(leg)
            return
        await self._returned(leg)

    async def _part(self, leg: Leg) -> None:
        """Close a member that has failed, and remember how new it is: others may change it from now on."""
        asking = self._mirror.watch.answers([leg], [attempt(stampOf, leg.device)])
        (outcome,) = await ready(asking)
        leg.left = () if isinstance(outcome, Failure) or leg.hanging else tuple(outcome)
        await self.shut(leg)
        self._mirror.keepRecord()

    def open(self, leg: Leg) -> Any:
        """Open a member; it is open when that has ended, even if nobody waits for it by then."""

        def opened(outcome: Any) -> Any:
            leg.isOpen = not isinstance(outcome, Failure) and not leg.isLeft
            if leg.isLeft and not isinstance(outcome, Failure):
                self._life.go(self._abandon(leg))
            return outcome

        opening = leg.device.open(partial(self._mirror.memberChanged, leg))
        if not isPending(opening):
            return opened(opening)
        opening.addBoth(opened)
        return opening

    async def _abandon(self, leg: Leg) -> None:
        """Close a member that is open too late."""
        await call(leg.device.close)

    async def shut(self, leg: Leg) -> None:
        """Close a member, whatever it says to that; one that hangs is told to, and nobody waits for it."""
        if not leg.isOpen:
            return
        leg.isOpen = False
        watch = self._mirror.watch
        closing = watch.answers([leg], [attempt(leg.device.close)])
        if leg.hanging:
            watch.release(leg, "it hangs, and is left as it is")
        await ready(closing)

    def _refuse(self, leg: Leg, why: str) -> None:
        """A member that is there again cannot be one; that is told once, however often it is tried."""
        if leg.reason != why:
            _log.error(
                "{mirror}: member {member} is there again, and is not taken back: {reason}", event="refused",
                mirror=str(self._mirror), member=leg.name, reason=why,
            )  # fmt: skip
        leg.reason = why

    def _misfit(self, leg: Leg, old: Leg | None = None) -> str:
        """
        Why a device cannot be a member; empty if it can.

        @param old: the member whose place it takes, which it may well be under another name.
        """
        mirror, device = self._mirror, leg.device
        if device.size != mirror.size:
            return f"it has {device.size} bytes, and the mirror {mirror.size}"
        block = lcm(mirror.blockSize, UNIT_BLOCK)
        if block % device.blockSize:
            return f"it has blocks of {device.blockSize} bytes, and the mirror of {block}"
        if device.capabilities().readOnly and not mirror.readOnly:
            return "it cannot be written"
        same = fingerprintOf(device)
        for other in mirror.legs:
            if other not in (leg, old) and other.gets and same is not None and other.fingerprint == same:
                return f"it is the same device as {other.name}"
        return ""

    async def _returned(self, leg: Leg) -> None:
        """
        A member is open again: it lacks what was written meanwhile, or everything if it is another device.
        """
        mirror, why = self._mirror, "it is there again"
        leg.abilities = leg.device.capabilities()
        mirror.blockSize = lcm(mirror.blockSize, leg.device.blockSize)
        fingerprint = fingerprintOf(leg.device)
        (outcome,) = await ready(mirror.watch.answers([leg], [attempt(stampOf, leg.device)]))
        stamp = () if isinstance(outcome, Failure) else tuple(outcome)
        left, leg.left = leg.left, ()
        known = next((one for one in self._life.old if one.fingerprint == fingerprint), None)
        if fingerprint is None or fingerprint != leg.fingerprint:
            leg.behind = Regions(len(mirror.unverified.flags), full=True)
            if known is not None and (not known.stamp or known.stamp == stamp):
                leg.behind = known.behind.copy()
        elif left and stamp and left != stamp:
            leg.behind.add(0, len(leg.behind.flags) - 1)
            why = "it was changed meanwhile"
        if known is not None:
            self._life.old.remove(known)
        leg.fingerprint = fingerprint
        look(leg, mirror.size, mirror.shift, len(mirror.unverified.flags))
        leg.behind.update(leg.void)
        leg.behind.update(mirror.intent.marked())
        # Before it is believed to be what it was, that has to be known from its stamp, or looked at.
        vouched = stamp and (left or (known is not None and known.stamp))
        if not vouched and not await self._plausible(leg):
            leg.behind.add(0, len(leg.behind.flags) - 1)
        if leg not in mirror.legs:
            # Another has taken its place meanwhile.
            return
        leg.behind.update(mirror.intent.marked())
        leg.spoilt += 1
        leg.happens("behind", mirror, why)
        self._joined(leg)

    async def _plausible(self, leg: Leg, *, everywhere: bool = False) -> bool:
        """Whether a member that does not know whether it was changed seems to hold what it held."""
        source = next((one for one in self._mirror.legs if one.state == IN_SYNC and one is not leg), None)
        return source is not None and await resembles(self._mirror, leg, source, everywhere=everywhere)

    def restarted(self, leg: Leg) -> bool:
        """
        What a member stands on was started anew: what was written and not flushed may be lost there, and more
        if it stands on something else now.

        What it does not write again itself it gets.

        @return: whether that is seen to; otherwise no other member has it.
        """
        mirror = self._mirror
        if not leg.gets or mirror.readOnly:
            return True
        if not self.dispensable(leg):
            return False
        leg.suspect = True
        replaying = replays(leg.device)
        if not replaying:
            leg.behind.update(mirror.intent.marked())
            leg.behind.update(leg.unflushed)
            leg.rival.clear()
            leg.spoilt += 1
        mirror.settleStates()
        mirror.keepRecord()
        self._life.go(self._suspect(leg, replaying))
        return True

    async def _suspect(self, leg: Leg, replaying: bool) -> None:
        try:
            plausible = await self._plausible(leg, everywhere=replaying)
        finally:
            leg.suspect = False
            self._mirror.arrange()
        if plausible or not leg.gets:
            return
        leg.behind.add(0, len(leg.behind.flags) - 1)
        leg.spoilt += 1
        self._mirror.settleStates()
        self._mirror.keepRecord()

    def _joined(self, leg: Leg) -> None:
        mirror = self._mirror
        able = mirror.capabilities()
        mirror.arrange()
        mirror.keepRecord()
        if able != mirror.able:
            mirror.able = able
            mirror.tellChange()
        self._life.wake()

    def inSync(self, leg: Leg) -> None:
        """A member has everything: whoever waited for that may go."""
        mirror = self._mirror
        filled(leg)
        for old in [one for one in mirror.legs if one.successor is leg]:
            self._life.go(self._drop(old))
        if all(one.state == IN_SYNC for one in mirror.legs):
            self._life.old.clear()

    async def _drop(self, leg: Leg) -> None:
        """Do without a member."""
        mirror = self._mirror
        mirror.legs.remove(leg)
        leg.isLeft = True
        leg.happens("dropped", mirror)
        mirror.arrange()
        mirror.keepRecord()
        idle = mirror.lock.idle()
        if idle is not None:
            await idle
        await self.shut(leg)

    def dispensable(self, leg: Leg) -> bool:
        """Whether all that a member has other members have too, as far as that is known."""
        return not (self._doubted(leg) or self._alone(leg))

    def _doubted(self, leg: Leg) -> Regions:
        """The regions of which a member may have what nobody else has."""
        doubted = self._mirror.unverified.copy()
        doubted.subtract(leg.behind)
        return doubted

    def _alone(self, leg: Leg) -> bool:
        """Whether there is something that no other member has."""
        missing = Regions(len(leg.behind.flags), full=True)
        for other in self._mirror.legs:
            if other is not leg and other.gets and not other.suspect:
                missing.intersect(other.behind)
        return bool(missing)

    def spared(self, leg: Leg) -> bool:
        """
        A member that may be right where there is doubt has failed a flush: if nothing was written there it
        merely lacks what was written elsewhere.

        @return: whether that is so.
        """
        written, doubted = self._mirror.intent.marked(), self._doubted(leg)
        doubted.intersect(written)
        if doubted or self._alone(leg):
            return False
        leg.behind.update(written)
        leg.behind.update(leg.unflushed)
        leg.unflushed.clear()
        leg.rival.clear()
        leg.spoilt += 1
        return True

    def add(self, device: Any) -> Deferred[None]:
        """See L{Mirror.add}."""
        return Deferred.fromCoroutine(self._add(Leg(asDevice(device))))

    async def _add(self, leg: Leg, old: Leg | None = None) -> None:
        mirror = self._mirror
        if self._life.stopping or mirror.readOnly:
            raise LocalError(f"{mirror}: is not open for writing, and takes no member")
        await call(leg.device.open, partial(mirror.memberChanged, leg))
        wrong = self._misfit(leg, old)
        if wrong or self._life.stopping:
            await ready(settle([attempt(leg.device.close)]))
            raise DeviceError(f"{leg.name} cannot be a member of {mirror}: {wrong or 'it is closed'}")
        leg.isOpen = True
        leg.abilities = leg.device.capabilities()
        mirror.blockSize = lcm(mirror.blockSize, leg.device.blockSize)
        leg.fingerprint = fingerprintOf(leg.device)
        count = len(mirror.unverified.flags)
        leg.behind, leg.rival, leg.unflushed = Regions(count, full=True), Regions(count), Regions(count)
        # What was known of it before must not count any more.
        self._life.old = [one for one in self._life.old if one.fingerprint != leg.fingerprint]
        mirror.legs.append(leg)
        leg.happens("behind", mirror, "it is a new member")
        self._joined(leg)

    def remove(self, member: Any) -> Deferred[None]:
        """See L{Mirror.remove}."""
        leg = self._mirror.leg(member)
        if leg.gets and not self.dispensable(leg):
            raise LocalError(f"{leg.name} has what no other member of {self._mirror} has")
        return Deferred.fromCoroutine(self._drop(leg))

    def replace(self, old: Any, new: Any) -> Deferred[None]:
        """See L{Mirror.replace}."""
        return Deferred.fromCoroutine(self._replace(self._mirror.leg(old), Leg(asDevice(new))))

    async def _replace(self, old: Leg, new: Leg) -> None:
        await self._add(new, old)
        if old.gets:
            old.successor = new
        elif old in self._mirror.legs:
            await self._drop(old)

    def trust(self, member: Any) -> None:
        """See L{Mirror.trust}."""
        mirror = self._mirror
        truth = mirror.leg(member)
        if not truth.gets:
            raise LocalError(f"{truth.name} is {truth.state}")
        doubt = mirror.unverified.copy()
        truth.behind.subtract(doubt)
        truth.behind.update(truth.void)
        for leg in mirror.legs:
            if leg is not truth:
                leg.behind.update(doubt)
                leg.spoilt += 1
        for member in self._life.old:
            member.behind.update(doubt)
        mirror.unverified.clear()
        mirror.settleStates()
        mirror.keepRecord()
        self._life.wake()


def permitCreation(device: Any, permitted: bool) -> None:
    """Whether opening a device may make files of it, or of what it is made of, that are missing."""
    permit = getattr(device, "permitCreation", None)
    if permit is not None:
        permit(permitted)
    for member in getattr(device, "members", ()):
        permitCreation(member, permitted)
