# -*- test-case-name: tests.storage.test_patience -*-
"""
Members of a mirror that do not answer: nobody waits for them for ever.

What one member has done the others have to do within some seconds.  One that does not is left out, as if it
had failed, and those that waited for it go on.  What it was told to do may still be done, late: so it is not
a member again before all that has really ended, and what was to be written then counts as lacking.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.logger import Logger
from twisted.python.failure import Failure

from iscsi_twisted.errors import DeviceError, ReadError, WriteError
from iscsi_twisted.interfaces import Pending, isPending
from iscsi_twisted.storage.legs import Leg
from iscsi_twisted.storage.pending import Joint, attempt, ready

if TYPE_CHECKING:
    from iscsi_twisted.storage.mirror import Mirror

SECONDS: Final = 25.0
"""
How long a member may keep the others waiting: less than the 30 seconds after which many initiators abort what
they have asked for, and more than the 20 in which the target of a remote member may come back.
"""

LOOKS: Final = 10
"""How often that is looked at in this time."""

READS: Final = 5
"""After this part of it a read is asked of another member too: that costs nothing but a read."""

SHUNNED: Final = 60.0
"""Seconds in which a member that did not answer a read is not read, if another can be."""

SOBER: Final = 3
"""A member that hung is not tried again before so many times that time: each trial may hold up writes."""

_log = Logger(namespace="iscsi_twisted")


class Waiting(Protocol):
    """Something that waits for members."""

    def look(self, now: float, seconds: float) -> None:
        """Do something about a member that is waited for too long."""

    def giveUp(self, leg: Leg, why: str) -> None:
        """Wait for a member no longer."""


class Whole(Joint):
    """
    A change of all members.  Once it has begun it goes on when it is cancelled: if some members did it and
    others not they would no longer hold the same.

    @ivar since: when the first member had done it; None if none has.
    """

    kind: type[DeviceError] = WriteError

    def __init__(self, watch: Watch, legs: Sequence[Leg], results: list[Any], since: float | None) -> None:
        self.since = since
        self._watch, self._legs = watch, legs
        self._late: set[int] = set()
        watch.begin(self)
        super().__init__(results)

    def cancel(self) -> None:
        if self.called:
            super().cancel()

    def _ended(self, index: int, outcome: Any) -> None:
        if index in self._late:
            self._legs[index].hanging -= 1
            return
        if self.since is None and not isinstance(outcome, Failure):
            self.since = self._watch.now()
        if self._missing == 1:
            self._watch.end(self)
        super()._ended(index, outcome)

    def _awaited(self) -> list[tuple[int, Leg]]:
        """Who has not ended."""
        return [
            (index, leg)
            for index, leg in enumerate(self._legs)
            if index not in self._late and isPending(self._results[index])
        ]

    def look(self, now: float, seconds: float) -> None:
        """See L{Waiting}."""
        if self.since is not None and now - self.since >= seconds:
            for index, leg in self._awaited():
                if isPending(self._results[index]) and now - self.since >= seconds + allowance(leg.device):
                    self._watch.overdue(leg)

    def giveUp(self, leg: Leg, why: str) -> None:
        """See L{Waiting}."""
        for index, one in self._awaited():
            if one is leg:
                self._late.add(index)
                leg.hanging += 1
                self._results[index].cancel()
                if self._missing == 1:
                    self._watch.end(self)
                super()._ended(index, Failure(self.kind(f"{leg.name}: {why}")))


class Answers(Whole):
    """
    Members are asked for something.  One that does not answer is still a member.  What one answers that was
    started anew meanwhile, and may have lost something by that, does not count.

    @ivar since: when they were asked.
    """

    kind = ReadError
    since: float

    def __init__(self, watch: Watch, legs: Sequence[Leg], results: list[Any], since: float) -> None:
        self._moments = [leg.moment() for leg in legs]
        super().__init__(watch, legs, results, since)

    def _ended(self, index: int, outcome: Any) -> None:
        leg = self._legs[index]
        if leg.isOpen and not leg.counts(self._moments[index]):
            outcome = Failure(self.kind(f"{leg.name}: it was started anew meanwhile"))
        super()._ended(index, outcome)

    def look(self, now: float, seconds: float) -> None:
        """See L{Waiting}."""
        if now - self.since >= seconds:
            for _, leg in self._awaited():
                if now - self.since >= seconds + allowance(leg.device):
                    self.giveUp(leg, unanswered(seconds))


class Watch:
    """
    Knows who waits for members of a mirror.

    @ivar seconds: how long a member may keep others waiting; 0 for as long as it likes.  It may be set at any
        time.
    """

    def __init__(self, mirror: Mirror, seconds: float) -> None:
        self.seconds = seconds
        self._mirror = mirror
        self._waiting: dict[Waiting, None] = {}
        self._timer: Any = None
        self._told: set[Leg] = set()

    def now(self) -> float:
        """Seconds."""
        return self._mirror.life.now()

    def begin(self, waiting: Waiting) -> None:
        """Something waits from now on."""
        self._waiting[waiting] = None
        if self._timer is None:
            self._start()

    def _start(self) -> None:
        self._timer = self._mirror.life.later((self.seconds or SECONDS) / LOOKS, self._look)

    def stop(self) -> None:
        """The mirror is closed."""
        if self._timer is not None and not self._waiting:
            self._timer.cancel()
            self._timer = None

    def end(self, waiting: Waiting) -> None:
        """It does so no more."""
        del self._waiting[waiting]

    # What is waited for

    def changes(self, legs: Sequence[Leg], results: list[Any], *, alone: bool = False) -> list[Any] | Pending:
        """
        Wait until a change has ended everywhere, well or badly, or too late.

        @param results: what the members have returned, or L{Failure}s.
        @param alone: nobody else does it: the time begins now, not when the first has done it.
        @return: the list of results and L{Failure}s, or a pending result of it.
        """
        if not any(map(isPending, results)):
            return results
        done = alone or any(not isPending(one) and not isinstance(one, Failure) for one in results)
        return Whole(self, legs, results, self.now() if done else None)

    def answers(self, legs: Sequence[Leg], results: list[Any]) -> list[Any] | Pending:
        """The same for questions: who does not answer in time has a failure, and is a member still."""
        return Answers(self, legs, results, self.now()) if any(map(isPending, results)) else results

    async def ask(self, leg: Leg, method: Callable[..., Any], *arguments: Any) -> Any:
        """
        Ask one member.

        @raise DeviceError: if it does not answer in time too.
        """
        (outcome,) = await ready(self.answers([leg], [attempt(method, *arguments)]))
        if isinstance(outcome, Failure):
            outcome.raiseException()
        return outcome

    async def tell(self, leg: Leg, method: Callable[..., Any], *arguments: Any) -> Any:
        """
        Change one member.

        @return: what it answered, or a L{Failure}.
        """
        (outcome,) = await ready(self.changes([leg], [attempt(method, *arguments)], alone=True))
        return outcome

    # Those that do not answer

    def _look(self) -> None:
        self._timer = None
        if not self._waiting:
            self._told.clear()
            return
        self._start()
        if self.seconds > 0:
            now = self.now()
            for waiting in list(self._waiting):
                if waiting in self._waiting:
                    waiting.look(now, self.seconds)

    def overdue(self, leg: Leg) -> None:
        """A member keeps others waiting: it is left out, if they can do without it."""
        why = f"it has not ended within {self.seconds:g} seconds what others have"
        if leg.gets and not self._mirror.failed(leg, Failure(WriteError(why)), SOBER * self.seconds):
            self._waitOn(leg)
            return
        self.release(leg, why)

    def _waitOn(self, leg: Leg) -> None:
        if leg not in self._told:
            self._told.add(leg)
            _log.warn(
                "{mirror}: member {member} does not answer, and is waited for: no other has all that it has",
                event="hanging", mirror=str(self._mirror), member=leg.name,
            )  # fmt: skip

    def release(self, leg: Leg, why: str) -> None:
        """Nobody waits for a member any more; it does not get what is written."""
        for waiting in list(self._waiting):
            if waiting in self._waiting:
                waiting.giveUp(leg, why)

    def abandon(self, leg: Leg) -> None:
        """A member is left out: soon, when all that led to this has ended, nobody waits for it."""
        if self._waiting:
            self._mirror.life.later(0.0, self._abandon, leg)

    def _abandon(self, leg: Leg) -> None:
        if not leg.gets:
            self.release(leg, "it has failed meanwhile")

    def shun(self, leg: Leg) -> None:
        """A member does not answer a read: others are read for a while."""
        told, leg.shunned = leg.shunned, self.now() + SHUNNED
        if not told:
            _log.warn(
                "{mirror}: member {member} does not answer reads; others are read for {seconds} s",
                event="hanging", mirror=str(self._mirror), member=leg.name, seconds=round(SHUNNED),
            )  # fmt: skip
        self._mirror.arrange()


def allowance(device: Any) -> float:
    """
    Seconds that a device may need more than others since it has mirrors in it, which first have to find out
    that a member of theirs hangs.
    """
    inner = max(map(allowance, getattr(device, "members", ())), default=0.0)
    watch = getattr(device, "watch", None)
    return inner + watch.seconds * (1 + 2 / LOOKS) if isinstance(watch, Watch) else inner


def unanswered(seconds: float) -> str:
    """What is wrong with a member that does not answer."""
    return f"it has not answered within {seconds:g} seconds"
