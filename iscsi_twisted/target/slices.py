# -*- test-case-name: tests.target.test_slices -*-
"""Long work in slices, so that others are served between two of them."""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from iscsi_twisted.config.steps import Steps

T = TypeVar("T")

SLICE: Final = 0.002
"""Seconds that a slice takes; whoever has I/O to do waits that much longer for it, once per turn."""


class Slices(Generic[T]):
    """
    Does work step by step, for a while in each turn of the reactor; the first slice at once.

    @ivar done: fires with what comes of it, or fails as it does.  Cancelling it gives the work up.
    """

    def __init__(self, reactor: Any, steps: Steps[T]) -> None:
        self._reactor, self._steps = reactor, steps
        self._call: Any = None
        self.done: Deferred[T] = Deferred(self._giveUp)
        self._slice()

    def _slice(self) -> None:
        self._call = None
        end = self._reactor.seconds() + SLICE
        try:
            while not self.done.called:
                next(self._steps)
                if self._reactor.seconds() >= end:
                    self._call = self._reactor.callLater(0, self._slice)
                    return
        except StopIteration as last:
            self._fire(self.done.callback, last.value)
        except Exception:
            self._fire(self.done.errback, Failure())

    def _fire(self, fire: Any, outcome: Any) -> None:
        # One of the steps may have had the work given up.
        if not self.done.called:
            fire(outcome)

    def _giveUp(self, _: Deferred[T]) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None
            self._steps.close()


def inSlices(reactor: Any, steps: Steps[T]) -> Deferred[T]:
    """Do work in slices; see L{Slices.done}."""
    return Slices(reactor, steps).done
