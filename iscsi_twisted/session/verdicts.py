# -*- test-case-name: tests.session.test_verdicts -*-
"""Attempts to authenticate wait for their turn, by where they come from, and for those who judge them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from iscsi_twisted.errors import LoginError
from iscsi_twisted.interfaces import Pending
from iscsi_twisted.session.failures import Failures, placeOf
from iscsi_twisted.wire import numbers

ASKED: Final = 8
"""
Questions to a store of secrets that is slow, for one address at a time: a lookup of 100 ms lets 80 log in a
second, and no address has the store, or what it asks in turn, to itself.
"""

WAITING: Final = 64
"""Attempts from one address that wait for such a store: if it takes a second the last waits for 8."""

WAITING_OF_ONE: Final = 32
"""... of one initiator: half of them, so that there is room for others."""

HELD: Final = 8
"""Attempts that wait after failures: the last of them for 16 s, and initiators have no more patience."""

HELD_OF_ONE: Final = 4
"""... of one initiator."""

GONE: Final = 1024
"""Questions of logins that have ended, some KB each; one more, and the oldest is given up."""


class Timer(Protocol):
    """What is to happen later, unless it is cancelled."""

    def cancel(self) -> None: ...


Later = Callable[[float, Callable[[], None]], Timer]


class Verdicts:
    """
    Holds attempts back before they are judged: after failures, and while enough of the same place are judged.

    However many connections a place opens, its attempts wait one after another, those of different initiators
    in turn.  An attempt whose connection ends waits no more; but a store that was asked works on, so such a
    question counts until it is answered, or until a login could have taken no longer.

    @ivar failures: those that there were.
    """

    def __init__(self, now: Callable[[], float], later: Later, patience: float) -> None:
        """
        @param now: seconds on a clock that never goes back.
        @param later: calls a function after so many seconds.
        @param patience: seconds that a login may take.
        """
        self.failures = Failures(now)
        self._now, self._later, self._patience = now, later, patience
        self._queues: dict[str, _Queue] = {}
        self._gone: dict[Asked, None] = {}

    def admit(self, address: str | None, initiator: str) -> None:
        """
        To be called before anything is done for an attempt.

        @param initiator: who it claims to be.
        @raise LoginError: if it could not even wait.
        """
        if self._queues:
            queue = self._queues.get(placeOf(address))
            if queue is not None:
                queue.admit(initiator)

    def hold(self, address: str | None, initiator: str, judge: Callable[[], None]) -> Held | None:
        """
        Hold an attempt back if that is due.

        @param judge: called when it may be judged.
        @return: what is held; None if it may be judged at once.
        @raise LoginError: if too many wait already.
        """
        place = placeOf(address)
        queue = self._queues.get(place)
        if not self.failures.delay(place) and (queue is None or queue.free):
            return None
        return (queue or self._queue(place)).join(initiator, judge)

    def ask(
        self,
        address: str | None,
        pending: Pending,
        then: Callable[[Any], object],
        failed: Callable[[Any], object],
    ) -> Asked | None:
        """
        Wait for what judges an attempt.

        @param pending: its result.
        @param then: called with the result, unless what this returns is cancelled.
        @param failed: called with the failure, likewise.
        @return: None if there was a result already.
        """
        place = placeOf(address)
        asked = Asked(self._queues.get(place) or self._queue(place), pending, self._now(), then, failed)
        pending.addCallbacks(asked.answered, asked.failed)
        return None if asked.over else asked

    def tick(self) -> None:
        """Time passes; called every few seconds.  Give up questions of logins that have ended long ago."""
        last = self._now() - self._patience
        for asked in [each for each in self._gone if each.began <= last]:
            asked.giveUp()

    def end(self) -> None:
        """Give up all questions of logins that have ended."""
        for asked in list(self._gone):
            asked.giveUp()

    def _queue(self, place: str) -> _Queue:
        queue = self._queues[place] = _Queue(self, place)
        return queue

    def _left(self, asked: Asked) -> None:
        """A login has ended whose question has no answer."""
        self._gone[asked] = None
        if len(self._gone) > GONE:
            next(iter(self._gone)).giveUp()


class Held:
    """An attempt that waits until it may be judged."""

    __slots__ = ("_queue", "initiator", "judge")

    def __init__(self, queue: _Queue, initiator: str, judge: Callable[[], None]) -> None:
        self._queue, self.initiator, self.judge = queue, initiator, judge

    def cancel(self) -> None:
        """Nobody waits any more; others get the turn."""
        self._queue.leave(self)


class Asked:
    """
    An attempt that is being judged.

    @ivar began: when, by the clock of L{Verdicts}.
    @ivar over: whether there was an answer, or nobody waits for one any more.
    """

    def __init__(
        self,
        queue: _Queue,
        pending: Pending,
        began: float,
        then: Callable[[Any], object],
        failed: Callable[[Any], object],
    ) -> None:
        self.began = began
        self.over = False
        self._queue = queue
        self._pending: Pending | None = pending
        self._then: Callable[[Any], object] | None = then
        self._failed: Callable[[Any], object] | None = failed
        queue.asked += 1

    def cancel(self) -> None:
        """The login has ended; the store may still work, which nobody can tell, so this counts on."""
        if not self.over:
            self._then = self._failed = None
            self._queue.verdicts._left(self)

    def giveUp(self) -> None:
        """Wait for the store no longer."""
        if self._pending is not None:
            self._pending.cancel()
        # That should have brought an error.
        self._finish()

    def answered(self, result: Any) -> None:
        """There is a verdict."""
        then = self._then
        self._finish(then, result)

    def failed(self, why: Any) -> None:
        """There is none, or a bad one."""
        failed = self._failed
        self._finish(failed, why)

    def _finish(self, tell: Callable[[Any], object] | None = None, what: object = None) -> None:
        if self.over:
            return
        self.over = True
        self._then = self._failed = self._pending = None
        self._queue.verdicts._gone.pop(self, None)
        try:
            if tell is not None:
                tell(what)
        finally:
            # Only now is known what those that wait have to wait for.
            self._queue.answered()


class _Queue:
    """
    The attempts from one place that wait; there is none while nobody does, and the store is not asked.

    @ivar asked: how many are being judged.
    """

    def __init__(self, verdicts: Verdicts, place: str) -> None:
        self.verdicts, self._place = verdicts, place
        self.asked = 0
        # Those of one initiator; who had a turn goes to the end.
        self._lines: dict[str, deque[Held]] = {}
        self._count = 0
        self._timer: Timer | None = None
        self._since = 0.0
        self._judging = False

    @property
    def free(self) -> bool:
        """Whether nobody waits, and one more may be judged."""
        return not self._judging and not self._count and self.asked < ASKED

    def admit(self, initiator: str) -> None:
        """@raise LoginError: if there is no room for one more of this initiator."""
        late = self.verdicts.failures.delay(self._place) > 0
        most, ofOne = (HELD, HELD_OF_ONE) if late else (WAITING, WAITING_OF_ONE)
        if self._count >= most or len(self._lines.get(initiator, ())) >= ofOne:
            why = ", after failures" if late else " for the store of secrets"
            raise LoginError(
                numbers.SERVICE_UNAVAILABLE, f"too many authentications from its address wait{why}"
            )

    def join(self, initiator: str, judge: Callable[[], None]) -> Held:
        """@raise LoginError: see L{admit}."""
        self.admit(initiator)
        held = Held(self, initiator, judge)
        self._lines.setdefault(initiator, deque()).append(held)
        self._count += 1
        self._wait()
        return held

    def leave(self, held: Held) -> None:
        """One that may have had its turn waits no more."""
        line = self._lines.get(held.initiator)
        if line is None or held not in line:
            return
        line.remove(held)
        if not line:
            del self._lines[held.initiator]
        self._count -= 1
        if not self._count and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._endIfEmpty()

    def answered(self) -> None:
        """One more may be judged."""
        self.asked -= 1
        self._wait()

    def _wait(self) -> None:
        """Let the next one, if there is one, be judged in a later turn, if it may."""
        if self._timer is not None or self._judging:
            return
        if self._count and self.asked < ASKED:
            # One whose failures were forgotten meanwhile is judged in another turn, too.
            self._since = self.verdicts._now()
            self._sleep(self.verdicts.failures.delay(self._place))
        self._endIfEmpty()

    def _sleep(self, delay: float) -> None:
        self._timer = self.verdicts._later(delay, self._turn)

    def _turn(self) -> None:
        """Let the next one be judged; whoever comes meanwhile is behind the others."""
        self._timer = None
        left = self._since + self.verdicts.failures.delay(self._place) - self.verdicts._now()
        if left > 0:
            # Others have failed meanwhile.
            self._sleep(left)
            return
        initiator, line = next(iter(self._lines.items()))
        del self._lines[initiator]
        held = line.popleft()
        self._count -= 1
        if line:
            self._lines[initiator] = line
        self._judging = True
        try:
            held.judge()
        finally:
            self._judging = False
            self._wait()

    def _endIfEmpty(self) -> None:
        if not self._count and not self.asked and not self._judging:
            self.verdicts._queues.pop(self._place, None)
