# -*- test-case-name: tests.storage.test_ranges -*-
"""
A lock on ranges of a device, so that whatever changes the same bytes of several copies does so one after
another.

Whoever comes first has the range first; ranges that do not overlap never wait for one another.  A range that
nobody else wants costs a look at an empty list, and no Deferred.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from iscsi_twisted.interfaces import Pending, isPending


class Hold:
    """
    A range that somebody has, or waits for.

    @ivar offset: the first byte.
    @ivar end: the byte after the last.
    @ivar followers: those that came later and wait for this one.
    """

    __slots__ = ("end", "followers", "offset")

    def __init__(self, offset: int, end: int) -> None:
        self.offset = offset
        self.end = end
        self.followers: list[Turn] = []


class RangeLock:
    """
    Lets one after another have a range.

    @ivar holds: who has a range or waits for one, in the order in which they came.
    """

    __slots__ = ("_idle", "holds")

    def __init__(self) -> None:
        self.holds: list[Hold] = []
        self._idle: list[Deferred[None]] = []

    def run(self, offset: int, end: int, function: Callable[..., Any], *arguments: Any) -> Any:
        """
        Call a function when all who came before for any of these bytes have ended; they are its own until its
        result is there.

        @return: its result, or a pending result of it, which can be cancelled.  While it waits nothing
            happens then; later the function's own result is cancelled.
        """
        if self.overlapping(offset, end):
            return Turn(self, offset, end, function, arguments)
        hold = Hold(offset, end)
        self.holds.append(hold)
        try:
            result = function(*arguments)
        except BaseException:
            self.release(hold)
            raise
        if isPending(result):
            result.addBoth(lambda outcome: self._ended(outcome, hold))
        else:
            self.release(hold)
        return result

    def keep(self, offset: int, end: int, result: Pending) -> None:
        """A range that nobody has is in use until this result is there."""
        hold = Hold(offset, end)
        self.holds.append(hold)
        result.addBoth(lambda outcome: self._ended(outcome, hold))

    def overlapping(self, offset: int, end: int) -> list[Hold]:
        """Who has, or waits for, some of these bytes."""
        return [hold for hold in self.holds if hold.offset < end and offset < hold.end]

    def idle(self) -> Deferred[None] | None:
        """Wait until nobody has or wants anything."""
        if not self.holds:
            return None
        waiting: Deferred[None] = Deferred()
        self._idle.append(waiting)
        return waiting

    def _ended(self, outcome: Any, hold: Hold) -> Any:
        self.release(hold)
        return outcome

    def release(self, hold: Hold) -> None:
        """The range is free for those that wait for it."""
        self.holds.remove(hold)
        for turn in hold.followers:
            turn.proceed()
        if not self.holds and self._idle:
            idle, self._idle = self._idle, []
            for waiting in idle:
                waiting.callback(None)


class Turn(Deferred[Any]):
    """A function that waits for a range, and its result."""

    def __init__(
        self,
        lock: RangeLock,
        offset: int,
        end: int,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
    ) -> None:
        super().__init__()
        self._lock, self._function, self._arguments = lock, function, arguments
        self._running: Pending | None = None
        earlier = lock.overlapping(offset, end)
        self._before = len(earlier)
        for hold in earlier:
            hold.followers.append(self)
        self._hold: Hold | None = Hold(offset, end)
        lock.holds.append(self._hold)

    def proceed(self) -> None:
        """One that was before this has ended."""
        self._before -= 1
        if self._before or self._hold is None:
            return
        try:
            result = self._function(*self._arguments)
        except Exception:
            self._leave()
            self.errback()
            return
        if isPending(result):
            self._running = result
            result.addBoth(self._finish)
        else:
            self._finish(result)

    def _finish(self, outcome: Any) -> None:
        self._running = None
        self._leave()
        self.callback(outcome)

    def _leave(self) -> None:
        hold, self._hold = self._hold, None
        if hold is not None:
            self._lock.release(hold)

    def cancel(self) -> None:
        if self.called:
            super().cancel()
        elif self._running is not None:
            self._running.cancel()
        elif self._before:
            self._leave()
            self.errback(CancelledError())
