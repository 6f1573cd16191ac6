# -*- test-case-name: tests.storage.test_threads -*-
"""
The threads of one device.

Each device has its own, so that one whose calls hang for seconds takes no thread from another.  They are
started when one is needed and end when none was needed for a while: ten thousand extents that answer
from the page cache have no thread at all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.python.threadpool import ThreadPool

LIMIT: Final = 8
"""Threads of one device.  Enough to keep a disk's own queue busy; each costs some 50 KiB once it ran."""

IDLE: Final = 10.0
"""Seconds after which threads that nobody needed end."""


class ThreadReactor(Protocol):
    """What is needed of a reactor."""

    def callFromThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> Any: ...

    def callLater(self, delay: float, callable: Callable[..., object], *args: Any, **kwargs: Any) -> Any: ...


class Pool(Protocol):
    """What is needed of a thread pool."""

    def callInThreadWithCallback(
        self, onResult: Callable[[bool, Any], object] | None, func: Callable[..., Any], *args: Any, **kw: Any
    ) -> Any: ...


class Operation(Deferred[Any]):
    """
    One call in a thread.

    Cancelling it drops a call that no thread has begun.  One that has begun cannot be stopped: then its
    result arrives when it has ended, since until then it may still change the medium.

    @ivar elapsed: seconds that the call took.
    """

    def __init__(
        self, clock: Callable[[], float], function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> None:
        super().__init__()
        self.elapsed = 0.0
        self._clock = clock
        self._function = function
        self._arguments = arguments
        # Who takes this, the thread or cancel(), decides.  list.pop is atomic.
        self._ticket = [True]

    def _claimed(self) -> bool:
        try:
            return self._ticket.pop()
        except IndexError:
            return False

    def perform(self) -> Any:
        """Make the call; runs in a thread."""
        if not self._claimed():
            return None
        began = self._clock()
        try:
            return self._function(*self._arguments)
        finally:
            self.elapsed = self._clock() - began

    def cancel(self) -> None:
        if self.called or self._claimed():
            super().cancel()


class Threads:
    """
    Runs calls in a device's threads.  To be used from the reactor's thread only.

    @ivar running: calls that have not ended yet.
    @ivar count: calls that were ever made.
    """

    def __init__(self, reactor: ThreadReactor, clock: Callable[[], float], pool: Pool | None = None) -> None:
        """
        @param pool: a pool of the application's, which starts and stops it; None for one of its own.
        """
        self.running = 0
        self.count = 0
        self._reactor = reactor
        self._clock = clock
        self._given = pool
        self._own: ThreadPool | None = None
        self._timer: Any = None
        self._waiting: list[Deferred[None]] = []

    def run(self, function: Callable[..., Any], *arguments: Any) -> Operation:
        """Call C{function} in a thread."""
        operation = Operation(self._clock, function, arguments)
        self.running += 1
        self.count += 1
        pool = self._given or self._own or self._start()
        pool.callInThreadWithCallback(
            partial(self._reactor.callFromThread, self._ended, operation), operation.perform
        )
        return operation

    def _start(self) -> ThreadPool:
        pool = self._own = ThreadPool(0, LIMIT, "iscsi-storage")
        # A call that hangs must not keep the process from ending.
        pool.threadFactory = partial(Thread, daemon=True)  # type: ignore[assignment]
        pool.start()
        self._timer = self._reactor.callLater(IDLE, self._rest, self.count)
        return pool

    def _rest(self, count: int) -> None:
        """End the threads if nobody needed one since the last look."""
        self._timer = None
        if self.running or count != self.count:
            self._timer = self._reactor.callLater(IDLE, self._rest, self.count)
        else:
            self.stop()

    def _ended(self, operation: Operation, success: bool, result: Any) -> None:
        self.running -= 1
        if not operation.called:
            if success:
                operation.callback(result)
            else:
                operation.errback(result)
        self._rested()

    def hold(self) -> None:
        """A thread of another device uses this one: it is not idle until L{release}."""
        self.running += 1

    def release(self) -> None:
        """It does so no more."""
        self.running -= 1
        self._rested()

    def _rested(self) -> None:
        if not self.running:
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                waiter.callback(None)

    def idle(self) -> Deferred[None] | None:
        """Wait until no call is running."""
        if not self.running:
            return None
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        return waiter

    def stop(self) -> None:
        """End the threads, which must be idle: that takes no time then."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._own is not None:
            self._own.stop()
            self._own = None
