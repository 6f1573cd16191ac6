# -*- test-case-name: tests.storage.test_pending -*-
"""
The one place in this room that tests whether a result is still to come.

Devices made of devices are written with these four functions: what all members answered at once is
answered at once, without a Deferred; cancelling what they return cancels the members.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from iscsi_twisted.interfaces import Pending, isPending

T = TypeVar("T")


class Joint(Deferred[list[Any]]):
    """
    Several results in one: fires with their list when all have ended.  It never fails; what failed is
    in the list as a L{Failure}.

    Cancelling it cancels those that are still pending.  It fires when they have really ended, since
    until then they may still change the medium.
    """

    def __init__(self, results: Sequence[Any]) -> None:
        super().__init__()
        self._results = list(results)
        self._pending: list[Pending] = list(filter(isPending, results))
        self._missing = len(self._pending)
        for index, result in enumerate(results):
            if isPending(result):
                result.addBoth(partial(self._ended, index))

    def _ended(self, index: int, outcome: Any) -> None:
        self._results[index] = outcome
        self._missing -= 1
        if not self._missing:
            self.callback(self._results)

    def cancel(self) -> None:
        if self.called:
            super().cancel()
            return
        for result in self._pending:
            result.cancel()


def whenDone(result: Any, then: Callable[[Any], T]) -> T | Pending:
    """
    Go on with a result, now or when it is there.

    @return: what C{then} returned, or a pending result of it.
    """
    if not isPending(result):
        return then(result)
    result.addCallbacks(then)
    return result


def ifLater(result: T, failed: Callable[..., Any], *arguments: Any) -> T:
    """
    Do something about the failure of a result that is still to come; what is raised at once the caller sees.

    @param failed: called with the arguments and the L{Failure}, as an errback is.
    """
    if isPending(result):
        result.addCallbacks(_same, partial(failed, *arguments))
    return result


def attempt(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function; an exception comes back as a L{Failure}, so that the next member has its turn too."""
    try:
        return function(*arguments)
    except Exception:
        return Failure()


def settle(results: list[Any]) -> list[Any] | Pending:
    """
    Wait for all of these to end, well or badly.

    @return: the list of results and L{Failure}s, or a pending result of it.
    """
    if any(map(isPending, results)):
        return Joint(results)
    return results


def gather(results: list[Any]) -> list[Any] | Pending:
    """
    Wait for all of these, which may hold failures from L{attempt}.

    @return: the list of results, or a pending result of it.
    @raise Exception: the first failure in the order of the list, when all have ended.
    """
    for result in results:
        if result is not None and (isPending(result) or isinstance(result, Failure)):
            return whenDone(settle(results), _unwrap)
    return results


def _unwrap(outcomes: list[Any]) -> list[Any]:
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            outcome.raiseException()
    return outcomes


def nothing(_: Any) -> None:
    """What a write returns, whatever its members returned."""


def _same(result: T) -> T:
    return result


def deferred(result: Pending) -> Deferred[Any]:
    """A L{Deferred} of any pending result, for code that must await it."""
    if isinstance(result, Deferred):
        return result
    answer: Deferred[Any] = Waiting(result)
    result.addCallbacks(answer.callback, answer.errback)
    return answer


class Waiting(Deferred[Any]):
    """The L{Deferred} of something that only resembles one; to cancel it asks that thing alone."""

    def __init__(self, source: Pending) -> None:
        super().__init__()
        self._source = source

    def cancel(self) -> None:
        if self.called:
            super().cancel()
        else:
            self._source.cancel()


def call(method: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    """Call a device's method; whatever it does becomes a L{Deferred}."""
    return maybeDeferred(method, *arguments).addCallback(_awaited)


def _awaited(result: Any) -> Any:
    return deferred(result) if isPending(result) else result


async def ready(result: Any) -> Any:
    """Await a result if it is pending."""
    return await deferred(result) if isPending(result) else result


def answered(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """
    Run a coroutine.

    @return: what it returned, if it never had to wait; else a pending result.
    """
    answer = Deferred.fromCoroutine(coroutine)
    outcome: list[Any] = []
    answer.addBoth(outcome.append)
    if not outcome:
        return answer.addCallback(lambda _: _unwrap(outcome)[0])
    return _unwrap(outcome)[0]


async def ended(running: Deferred[Any]) -> None:
    """Wait until something has ended, well or badly, without taking its result."""
    waiting: Deferred[None] = Deferred()

    def over(outcome: Any) -> Any:
        waiting.callback(None)
        return outcome

    running.addBoth(over)
    await waiting
