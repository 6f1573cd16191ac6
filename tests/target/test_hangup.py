# -*- test-case-name: tests.target.test_hangup -*-
"""What SIGHUP does, and when it does nothing of ours."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.target.hangup import PAUSE, Hangup


class Reactor(Clock):
    """Keeps what is to be called in its thread."""

    def __init__(self) -> None:
        super().__init__()
        self.signals: list[Callable[[], Any]] = []

    def callFromThread(self, function: Callable[[], Any]) -> None:
        self.signals.append(function)

    def turn(self) -> None:
        """Call it."""
        calls, self.signals = self.signals, []
        for each in calls:
            each()


class HangupTests(SynchronousTestCase):
    """Tests of L{Hangup}."""

    def setUp(self) -> None:
        self.others: list[int] = []
        before = signal.signal(signal.SIGHUP, lambda number, frame: self.others.append(number))
        self.addCleanup(signal.signal, signal.SIGHUP, before)
        self.reactor = Reactor()
        self.obeyed: list[Deferred[None]] = []
        self.hangup = Hangup(self.reactor, self.obey)

    def obey(self) -> Deferred[None]:
        """One more time."""
        self.obeyed.append(Deferred())
        return self.obeyed[-1]

    def signal(self) -> None:
        """What C{kill -HUP} does."""
        os.kill(os.getpid(), signal.SIGHUP)

    def test_obeyed(self) -> None:
        """The signal is obeyed in the reactor's thread, while it is installed; then it is what it was."""
        self.signal()
        self.hangup.install()
        self.hangup.install()
        self.signal()
        self.assertEqual(self.obeyed, [])
        self.reactor.turn()
        self.assertEqual(len(self.obeyed), 1)
        self.hangup.remove()
        self.hangup.remove()
        self.signal()
        self.assertEqual((self.others, self.reactor.signals), ([signal.SIGHUP] * 2, []))

    def test_many(self) -> None:
        """What comes while one is obeyed is obeyed once, afterwards, whether or not the first has failed."""
        self.hangup.install()
        for _ in range(3):
            self.signal()
            self.reactor.turn()
        self.assertEqual(len(self.obeyed), 1)
        self.obeyed[0].errback(ZeroDivisionError())
        self.reactor.advance(0)
        self.assertEqual(len(self.obeyed), 2)
        self.obeyed[1].callback(None)
        self.reactor.advance(0)
        self.assertEqual(len(self.obeyed), 2)
        self.hangup.remove()

    def test_pause(self) -> None:
        """Others have as much time as the last one has taken, but nobody waits for long."""
        self.hangup.install()
        for taken, pause in ((0.25, 0.25), (7.0, PAUSE)):
            self.obeyed.clear()
            self.signal()
            self.reactor.turn()
            self.signal()
            self.reactor.turn()
            self.reactor.advance(taken)
            self.obeyed[0].callback(None)
            self.reactor.advance(pause - 0.125)
            self.assertEqual(len(self.obeyed), 1)
            self.reactor.advance(0.125)
            self.assertEqual(len(self.obeyed), 2)
            self.obeyed[1].callback(None)
            self.reactor.advance(0)
        self.signal()
        self.reactor.turn()
        self.reactor.advance(0.5)
        self.obeyed[2].callback(None)
        self.hangup.remove()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_late(self) -> None:
        """A signal that comes when all is over does nothing."""
        self.hangup.install()
        self.signal()
        self.hangup.remove()
        self.reactor.turn()
        self.assertEqual(self.obeyed, [])
