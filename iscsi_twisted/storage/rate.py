# -*- test-case-name: tests.storage.test_rate -*-
"""A device that does no more than so much a second."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from iscsi_twisted.errors import LocalError
from iscsi_twisted.interfaces import Buffer, Pending
from iscsi_twisted.storage.delay import begin
from iscsi_twisted.storage.filters import Filter

_CLOSE: Final = 1e-6
"""Seconds that do not count: sums of fractions never come out even."""


class Bucket:
    """
    Tokens that come at a steady rate.  Who takes more than there are leaves a debt for those behind.

    @ivar rate: tokens a second; 0 for no limit.
    """

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        # When the bucket, had it no bound, would be full again.
        self._due = now

    def wait(self, now: float, burst: float) -> float:
        """How many seconds until the next operation may begin, where so many seconds' worth is saved up."""
        return max(0.0, self._due - burst - now) if self.rate else 0.0

    def take(self, tokens: int, now: float) -> None:
        """Take tokens."""
        if self.rate:
            self._due = max(self._due, now) + tokens / self.rate


class _Turn(Deferred[Any]):
    """
    An operation that waits, or was begun later.

    @ivar cost: bytes that it moves.
    """

    def __init__(self, rate: Rate, cost: int, method: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.cost = cost
        self._rate = rate
        self._method = method
        self._arguments = arguments
        self._begun: Deferred[Any] | None = None

    def begin(self) -> None:
        """Its turn has come.  Whoever waits for the result may have said so long ago."""
        self._begun = maybeDeferred(begin, self._method, *self._arguments)
        self._begun.addCallbacks(self.callback, self.errback)

    def cancel(self) -> None:
        if self.called:
            super().cancel()
        elif self._begun is not None:
            self._begun.cancel()
        else:
            self._rate.forget(self)
            self.errback(CancelledError())


class Rate(Filter):
    """
    Lets operations begin, in their order, as fast as limits allow and no faster.

    What was saved up while it was idle may be used at once.  An operation that is larger than that begins
    when nothing is owed, and those behind it wait for what it took.  Reads and writes cost their bytes and
    one operation; flushes, discards and zeroing one operation; looking for holes nothing.
    An operation that still waits can be cancelled and is then never made.
    """

    def __init__(
        self,
        member: Any,
        reactor: IReactorTime,
        *,
        iops: float = 0,
        bandwidth: float = 0,
        burst: float = 0.1,
        active: bool = True,
    ) -> None:
        """
        @param reactor: whose time it is.
        @param iops: operations a second; 0 for any number.
        @param bandwidth: bytes a second; 0 for any number.
        @param burst: seconds: what these would have brought is saved up.
        """
        super().__init__(member)
        self._reactor = reactor
        self._waiting: deque[_Turn] = deque()
        self._timer: IDelayedCall | None = None
        self._active = active
        self.limit(iops=iops, bandwidth=bandwidth, burst=burst)

    def limit(self, *, iops: float = 0, bandwidth: float = 0, burst: float = 0.1) -> None:
        """
        Set other limits, which hold from now on, for what waits too.

        @raise LocalError: if one is negative.
        """
        if min(iops, bandwidth, burst) < 0:
            raise LocalError("limits of a rate are numbers of 0 or more")
        now = self._reactor.seconds()
        self._operations, self._bytes = Bucket(iops, now), Bucket(bandwidth, now)
        self._burst = burst
        self._proceed()

    @property
    def active(self) -> bool:
        """Whether limits hold; when that ends, all that waits begins."""
        return self._active

    @active.setter
    def active(self, active: bool) -> None:
        self._active = active
        self._proceed()

    @property
    def waiting(self) -> int:
        """How many operations wait for their turn."""
        return len(self._waiting)

    def _wait(self) -> float:
        now = self._reactor.seconds()
        wait = max(self._operations.wait(now, self._burst), self._bytes.wait(now, self._burst))
        return wait if self._active and wait > _CLOSE else 0.0

    def _take(self, cost: int) -> None:
        now = self._reactor.seconds()
        self._operations.take(1, now)
        self._bytes.take(cost, now)

    def _inTurn(self, cost: int, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call a method when its turn comes, at once if that is now."""
        if not self._active and not self._waiting:
            return method(*arguments)
        if not self._waiting and not self._wait():
            self._take(cost)
            return method(*arguments)
        turn = _Turn(self, cost, method, arguments)
        self._waiting.append(turn)
        self._proceed()
        return turn

    def forget(self, turn: _Turn) -> None:
        """Drop an operation that waits."""
        self._waiting.remove(turn)
        self._proceed()

    def _proceed(self) -> None:
        """Begin whatever may begin, and come again for the rest."""
        if self._timer is not None:
            if self._timer.active():
                self._timer.cancel()
            self._timer = None
        while self._waiting:
            wait = self._wait()
            if wait:
                self._timer = self._reactor.callLater(wait, self._proceed)
                return
            turn = self._waiting.popleft()
            self._take(turn.cost)
            turn.begin()
            if self._timer is not None:
                # Whoever was told has begun something, and so arranged for the rest.
                return

    def read(self, offset: int, length: int) -> Buffer | Pending:
        if self._active:
            return self._inTurn(length, self.member.read, offset, length)  # type: ignore[no-any-return]
        return self.member.read(offset, length)

    def write(self, offset: int, data: Buffer) -> Pending | None:
        if self._active:
            return self._inTurn(len(data), self.member.write, offset, data)  # type: ignore[no-any-return]
        return self.member.write(offset, data)

    def flush(self) -> Pending | None:
        return self._inTurn(0, self.member.flush)  # type: ignore[no-any-return]

    def discard(self, offset: int, length: int) -> Pending | None:
        return self._inTurn(0, self.member.discard, offset, length)  # type: ignore[no-any-return]

    def zero(self, offset: int, length: int, unmap: bool) -> Pending | None:
        return self._inTurn(0, self.member.zero, offset, length, unmap)  # type: ignore[no-any-return]
