# -*- test-case-name: tests.session.test_failures -*-
"""Authentications that failed, by where they came from: whoever guesses has to wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Final, Protocol

from iscsi_twisted.errors import LoginError
from iscsi_twisted.wire import numbers

FREE: Final = 3
"""Failures that cost nothing: people mistype."""

STEP: Final = 0.25
"""Seconds that the next attempt waits after one failure more; each further one doubles them."""

LONGEST: Final = 2.0
"""
Seconds.  Attempts wait one after another, so nobody tests more than 43,000 secrets of 96 bits a day; and
whoever shares an address with such a one still gets in before initiators lose patience.
"""

FORGIVEN: Final = 60.0
"""Seconds without a failure after which all is forgotten."""

COUNTED: Final = 900
"""Failures that are counted at most; a burst of them is remembered for as long as it should have taken."""

ADDRESSES: Final = 1024
"""Addresses that are remembered, some hundred bytes each; one more takes the place of the oldest."""

WAITING: Final = 8
"""Attempts from one address that wait: the last of them for 16 s, and initiators have no more patience."""

WAITING_OF_ONE: Final = 4
"""... of one initiator: half of them, so that there is room for others."""


class Timer(Protocol):
    """What is to happen later, unless it is cancelled."""

    def cancel(self) -> None: ...


Later = Callable[[float, Callable[[], None]], Timer]


class Failures:
    """
    Counts failures, and holds back further attempts from the same place before they are judged.

    A place is an IPv4 address, or 64 bits of an IPv6 one: a single host has all addresses of such a network.
    However many connections it opens, its attempts wait one after another, those of different initiators in
    turn.  Success forgets nothing, or whoever has one account could guess at others for nothing.
    """

    def __init__(self, now: Callable[[], float], later: Later) -> None:
        """
        @param now: seconds on a clock that never goes back.
        @param later: calls a function after so many seconds.
        """
        self._now, self._later = now, later
        self._counts: dict[str, tuple[int, float]] = {}
        self._queues: dict[str, _Queue] = {}

    def failed(self, address: str | None) -> None:
        """An authentication from this address failed."""
        place = _place(address)
        count = min(self._count(place) + 1, COUNTED)
        self._counts.pop(place, None)
        self._counts[place] = count, self._now()
        if len(self._counts) > ADDRESSES:
            del self._counts[next(iter(self._counts))]

    def delay(self, address: str | None) -> float:
        """Seconds that an attempt from this address has to wait, when its turn has come."""
        return self._delay(_place(address)) if self._counts else 0.0

    def admit(self, address: str | None, initiator: str) -> None:
        """
        To be called before anything is done for an attempt.

        @param initiator: who it claims to be.
        @raise LoginError: if it could not even wait.
        """
        if self._queues:
            queue = self._queues.get(_place(address))
            if queue is not None:
                queue.admit(initiator)

    def hold(self, address: str | None, initiator: str, judge: Callable[[], None]) -> Held | None:
        """
        Hold an attempt back if that is due.

        @param judge: called when it may be judged.
        @return: what is held; None if it may be judged at once.
        @raise LoginError: if too many wait already.
        """
        if not self._counts:
            return None
        place = _place(address)
        if not self._delay(place):
            return None
        queue = self._queues.get(place)
        if queue is None:
            queue = self._queues[place] = _Queue(self, place)
        return queue.join(initiator, judge)

    def _delay(self, place: str) -> float:
        beyond = self._count(place) - FREE
        return min(STEP * 2.0 ** min(beyond, 10), LONGEST) if beyond >= 0 else 0.0

    def _count(self, place: str) -> int:
        count, last = self._counts.get(place, (0, 0.0))
        return count if self._now() - last < max(FORGIVEN, count * LONGEST) else 0


class Held:
    """An attempt that waits until it may be judged."""

    __slots__ = ("_queue", "initiator", "judge")

    def __init__(self, queue: _Queue, initiator: str, judge: Callable[[], None]) -> None:
        self._queue, self.initiator, self.judge = queue, initiator, judge

    def cancel(self) -> None:
        """Nobody waits any more; others get the turn."""
        self._queue.leave(self)


class _Queue:
    """The attempts from one place that wait; there is none while nobody does."""

    def __init__(self, failures: Failures, place: str) -> None:
        self._failures, self._place = failures, place
        # Those of one initiator; who had a turn goes to the end.
        self._lines: dict[str, deque[Held]] = {}
        self._count = 0
        self._timer: Timer | None = None

    def admit(self, initiator: str) -> None:
        """@raise LoginError: if there is no room for one more of this initiator."""
        if self._count >= WAITING or len(self._lines.get(initiator, ())) >= WAITING_OF_ONE:
            raise LoginError(
                numbers.SERVICE_UNAVAILABLE, "too many authentications from its address wait, after failures"
            )

    def join(self, initiator: str, judge: Callable[[], None]) -> Held:
        """@raise LoginError: see L{admit}."""
        self.admit(initiator)
        held = Held(self, initiator, judge)
        self._lines.setdefault(initiator, deque()).append(held)
        self._count += 1
        if self._timer is None:
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
            self._end()

    def _wait(self) -> None:
        # One whose failures were forgotten meanwhile is judged in another turn, too.
        self._timer = self._failures._later(self._failures._delay(self._place), self._turn)

    def _turn(self) -> None:
        """Let the next one be judged."""
        initiator, line = next(iter(self._lines.items()))
        del self._lines[initiator]
        held = line.popleft()
        self._count -= 1
        if line:
            self._lines[initiator] = line
        try:
            # While it is judged this timer counts as one, so that whoever comes is behind the others.
            held.judge()
        finally:
            if self._count:
                self._wait()
            else:
                self._end()

    def _end(self) -> None:
        self._timer = None
        self._failures._queues.pop(self._place, None)


def _place(address: str | None) -> str:
    """What is counted together with an address; all peers that have none are."""
    if address is None or ":" not in address:
        return address or ""
    try:
        parsed = IPv6Address(address.partition("%")[0])
    except ValueError:
        return ""
    mapped = parsed.ipv4_mapped
    return parsed.packed[:8].hex() if mapped is None else str(mapped)
