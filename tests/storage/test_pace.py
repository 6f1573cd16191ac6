# -*- test-case-name: tests.storage.test_pace -*-
"""Tests for L{iscsi_twisted.storage.pace}."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.storage.pace import (
    LONG,
    LONGEST,
    QUICK,
    REST,
    SHORTEST,
    TRUST,
    Never,
    Pace,
    Trust,
    waitedForProcessor,
)


class PaceTests(SynchronousTestCase):
    """L{Pace}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.waited = 0.0
        self.pace = Pace(self.clock.seconds, lambda: self.waited)

    def test_begins(self) -> None:
        """A new extent works inline."""
        self.assertTrue(self.pace.inline)

    def test_pause(self) -> None:
        """One pause that a busy machine makes changes nothing, however many come far apart."""
        for count in range(0, 100_000, 100):
            self.pace.late(4e-3, 4096, count)
        self.assertTrue(self.pace.inline)

    def test_oneInTwenty(self) -> None:
        """But a device that waits at every twentieth operation goes to threads."""
        for count in range(0, 200, 20):
            self.pace.late(8e-3, 4096, count)
        self.assertFalse(self.pace.inline)

    def test_slowSteadily(self) -> None:
        """So does one of which every operation takes a millisecond, within a few of them."""
        for count in range(8):
            self.pace.late(1e-3, 4096, count)
        self.assertFalse(self.pace.inline)

    def test_long(self) -> None:
        """So does one after a single long wait."""
        self.pace.late(0.1, 4096, 5)
        self.assertFalse(self.pace.inline)

    def test_excused(self) -> None:
        """A wait for the processor says nothing against the device, however long; the next wait does."""
        for count in range(3):
            self.waited += 0.09
            self.pace.late(0.1, 4096, count)
            self.assertTrue(self.pace.inline)
        self.pace.late(0.1, 4096, 5)
        self.assertFalse(self.pace.inline)

    def test_waitedForProcessor(self) -> None:
        """The system's count of such waits never goes back."""
        first = waitedForProcessor()
        self.assertGreaterEqual(first, 0.0)
        self.assertGreaterEqual(waitedForProcessor(), first)

    def test_large(self) -> None:
        """A large operation may take the time that copying takes."""
        for count in range(100):
            self.pace.late(5e-3, 16 << 20, count)
        self.assertTrue(self.pace.inline)

    def test_rest(self) -> None:
        """After a long wait threads work for a multiple of it, then inline is tried."""
        self.pace.late(0.1, 4096, 0)
        self.clock.advance(0.1 * REST - 0.01)
        self.assertFalse(self.pace.mayTry(10))
        self.clock.advance(0.02)
        self.assertTrue(self.pace.mayTry(10))
        self.assertTrue(self.pace.inline)

    def test_tryOnce(self) -> None:
        """While inline there is nothing to try."""
        self.assertFalse(self.pace.mayTry(0))

    def test_tryFails(self) -> None:
        """A late operation right after the return suffices to go back to threads."""
        self.pace.late(0.1, 4096, 0)
        self.clock.advance(LONGEST)
        self.assertTrue(self.pace.mayTry(1000))
        self.pace.late(1e-3, 4096, 1001)
        self.assertFalse(self.pace.inline)

    def test_slowThreads(self) -> None:
        """While operations take long in their threads inline is not tried."""
        self.pace.late(0.1, 4096, 0)
        self.clock.advance(1.0)
        self.pace.threaded(LONG * 10)
        self.clock.advance(LONG * 10 * REST - 0.01)
        self.assertFalse(self.pace.mayTry(0))
        self.pace.threaded(LONG / 2)
        self.clock.advance(0.02)
        self.assertTrue(self.pace.mayTry(0))

    def test_bounds(self) -> None:
        """A rest is neither too short to matter nor too long to end."""
        for elapsed, rest in ((1e-3, SHORTEST), (3600.0, LONGEST)):
            pace = Pace(self.clock.seconds, lambda: self.waited)
            for count in range(20):
                pace.late(elapsed, 0, count)
            self.clock.advance(rest - 0.001)
            self.assertFalse(pace.mayTry(0))
            self.clock.advance(0.002)
            self.assertTrue(pace.mayTry(0))


class TrustTests(SynchronousTestCase):
    """L{Trust}."""

    waited = 0.0

    def trusted(self) -> Trust:
        """Trust that has been earned."""
        trust = Trust(lambda: self.waited)
        for _ in range(TRUST):
            trust.hit()
        return trust

    def test_earned(self) -> None:
        """Plain reads begin after so many reads that found their data cached."""
        trust = Trust(lambda: self.waited)
        for _ in range(TRUST):
            self.assertFalse(trust.inline)
            trust.hit()
        self.assertTrue(trust.inline)

    def test_inARow(self) -> None:
        """One that did not makes the count begin anew."""
        trust = Trust(lambda: self.waited)
        for _ in range(TRUST - 1):
            trust.hit()
        trust.missed()
        trust.hit()
        self.assertFalse(trust.inline)

    def test_lost(self) -> None:
        """One late read ends it."""
        trust = self.trusted()
        trust.late(QUICK * 3, 4096, 0)
        self.assertFalse(trust.inline)

    def test_excused(self) -> None:
        """Late for want of a processor does not; late again does."""
        trust = self.trusted()
        self.waited = QUICK * 3
        trust.late(QUICK * 3, 4096, 0)
        self.assertTrue(trust.inline)
        trust.late(QUICK * 3, 4096, 1)
        self.assertFalse(trust.inline)

    def test_large(self) -> None:
        """A large read that took no longer than copying does not."""
        trust = self.trusted()
        trust.late(QUICK * 3, 1 << 20, 0)
        self.assertTrue(trust.inline)


class NeverTests(SynchronousTestCase):
    """L{Never}."""

    def test_never(self) -> None:
        """It is never time to work inline."""
        never = Never()
        never.threaded(0.0)
        never.late(0.0, 0, 0)
        self.assertFalse(never.inline or never.mayTry(0))
