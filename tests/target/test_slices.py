# -*- test-case-name: tests.target.test_slices -*-
"""Work in slices, in a reactor whose time passes with each step."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.config.steps import Steps
from iscsi_twisted.target.slices import SLICE, Slices, inSlices
from tests.support.turns import turn


class SlicesTests(SynchronousTestCase):
    """Tests of L{Slices}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.done: list[int] = []
        self.closed = False

    def work(self, steps: int = 5, seconds: float = SLICE / 1.5, fails: bool = False) -> Steps[str]:
        """Steps that take so long each."""
        try:
            for number in range(steps):
                self.done.append(number)
                self.clock.rightNow += seconds
                yield
            if fails:
                raise ZeroDivisionError
            return "result"
        finally:
            self.closed = True

    def test_short(self) -> None:
        """What is done within a slice is done at once."""
        self.assertEqual(self.successResultOf(inSlices(self.clock, self.work(seconds=0))), "result")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_long(self) -> None:
        """What takes longer goes on in later turns, and others have theirs between."""
        done = inSlices(self.clock, self.work())
        turns: list[int] = []
        while not done.called:
            turns.append(len(self.done))
            turn(self.clock)
        self.assertEqual((turns, self.successResultOf(done)), ([2, 4], "result"))

    def test_fails(self) -> None:
        """A step that fails, in whatever slice, is a failure of the whole."""
        done = inSlices(self.clock, self.work(fails=True))
        turn(self.clock, 2)
        self.failureResultOf(done, ZeroDivisionError)

    def test_givenUp(self) -> None:
        """Work that is given up between two slices goes no further, and lets go of what it has."""
        done = inSlices(self.clock, self.work())
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertEqual((self.done, self.closed, self.clock.getDelayedCalls()), ([0, 1], True, []))

    def test_givesItselfUp(self) -> None:
        """A step may have the work given up; it is the last one."""

        def work() -> Steps[None]:
            yield
            slices.done.cancel()
            yield
            self.done.append(1)

        def outer() -> Steps[None]:
            self.clock.rightNow += SLICE
            yield
            yield from work()

        slices = Slices(self.clock, outer())
        turn(self.clock)
        self.failureResultOf(slices.done, CancelledError)
        self.assertEqual((self.done, self.clock.getDelayedCalls()), ([], []))
