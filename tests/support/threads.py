"""
Threads without threads: a pool and a reactor that work when the test says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure


class StepReactor(Clock):
    """A clock to which 'threads' hand their results."""

    def callFromThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        callable(*args, **kwargs)


class StepPool:
    """
    A thread pool whose calls wait until the test makes them.

    @ivar waiting: the calls that no thread has begun.
    """

    def __init__(self) -> None:
        self.waiting: list[tuple[Any, Callable[..., Any], tuple[Any, ...]]] = []

    def callInThreadWithCallback(
        self, onResult: Any, func: Callable[..., Any], *args: Any, **kw: Any
    ) -> None:
        self.waiting.append((onResult, func, args))

    def step(self) -> None:
        """Make the oldest call."""
        onResult, function, arguments = self.waiting.pop(0)
        try:
            result = function(*arguments)
        except BaseException:
            onResult(False, Failure())
        else:
            onResult(True, result)

    def run(self) -> None:
        """Make all calls, and those that they lead to."""
        while self.waiting:
            self.step()


class Ticks:
    """
    A clock for measuring: every look at it takes C{cost} seconds, so that is what an operation seems to take.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.cost = 0.0

    def __call__(self) -> float:
        self.now += self.cost
        return self.now
