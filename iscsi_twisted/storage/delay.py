# -*- test-case-name: tests.storage.test_delay -*-
"""A device that takes its time."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from iscsi_twisted.errors import LocalError
from iscsi_twisted.interfaces import Buffer, Pending, isPending
from iscsi_twisted.storage.filters import Filter
from iscsi_twisted.storage.pending import deferred

SHAPES: Final[dict[str, Callable[[Random, float, float], float]]] = {
    "fixed": lambda random, seconds, spread: seconds,
    "uniform": lambda random, seconds, spread: random.uniform(seconds - spread, seconds + spread),
    "normal": lambda random, seconds, spread: random.normalvariate(seconds, spread),
    "exponential": lambda random, seconds, spread: random.expovariate(1 / seconds) if seconds else 0.0,
}
"""
How delays are distributed about their mean, by name.  The spread is half of the width of C{uniform}, the
standard deviation of C{normal}, and nothing to the others.
"""


class Delay(Filter):
    """
    Lets every operation begin some time later, as a slow disk would.

    An operation that still waits can be cancelled and is then never made.  All attributes may be set
    at any time; what waits already keeps its time.

    @ivar active: if false nothing waits.
    @ivar seconds: for each operation, or their mean; they wait side by side.
    @ivar spread: seconds; see L{SHAPES}.
    @ivar shape: one of L{SHAPES}.
    """

    def __init__(
        self,
        member: Any,
        seconds: float,
        reactor: IReactorTime,
        *,
        shape: str = "fixed",
        spread: float = 0.0,
        random: Random | None = None,
        active: bool = True,
    ) -> None:
        """
        @param reactor: whose time it is.
        @param random: where chance comes from; by default the same each time.
        """
        super().__init__(member)
        if seconds < 0 or spread < 0:
            raise LocalError(f"an operation cannot be delayed by {seconds} seconds, give or take {spread}")
        if shape not in SHAPES:
            raise LocalError(f"{shape!r} is no shape; take one of {', '.join(SHAPES)}")
        self.active = active
        self.seconds = seconds
        self.spread = spread
        self.shape = shape
        self._reactor = reactor
        self._random = random or Random(0)

    def _later(self, method: Callable[..., Any], *arguments: Any) -> Any:
        if not self.active:
            return method(*arguments)
        seconds = max(0.0, SHAPES[self.shape](self._random, self.seconds, self.spread))
        return deferLater(self._reactor, seconds, begin, method, *arguments)

    def read(self, offset: int, length: int) -> Buffer | Pending:
        if self.active:
            return self._later(self.member.read, offset, length)  # type: ignore[no-any-return]
        return self.member.read(offset, length)

    def write(self, offset: int, data: Buffer) -> Pending | None:
        if self.active:
            return self._later(self.member.write, offset, data)  # type: ignore[no-any-return]
        return self.member.write(offset, data)

    def flush(self) -> Pending | None:
        return self._later(self.member.flush)  # type: ignore[no-any-return]

    def discard(self, offset: int, length: int) -> Pending | None:
        return self._later(self.member.discard, offset, length)  # type: ignore[no-any-return]

    def zero(self, offset: int, length: int, unmap: bool) -> Pending | None:
        return self._later(self.member.zero, offset, length, unmap)  # type: ignore[no-any-return]

    def allocated(self, offset: int, length: int) -> list[tuple[int, bool]] | Pending:
        return self._later(self.member.allocated, offset, length)  # type: ignore[no-any-return]


def begin(method: Callable[..., Any], *arguments: Any) -> Any:
    """Call a device's method as a part of a L{Deferred<twisted.internet.defer.Deferred>}'s chain."""
    result = method(*arguments)
    return deferred(result) if isPending(result) else result
