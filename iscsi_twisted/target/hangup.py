# -*- test-case-name: tests.target.test_hangup -*-
"""SIGHUP: the wish that files be read anew."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from twisted.internet.defer import Deferred

PAUSE: Final = 1.0
"""Seconds of rest at most: somebody waits for what he has changed."""


class Hangup:
    """
    Calls something at SIGHUP, while it is installed; the reactor itself does not care for that signal.

    Of signals that come while one is obeyed only one more is, afterwards; and not before others have had as
    much time as that one has taken, up to L{PAUSE}: to read thousands of lines takes a part of a second.
    """

    def __init__(self, reactor: Any, obey: Callable[[], Deferred[Any]]) -> None:
        """@param obey: called in the reactor's thread."""
        self._reactor, self._obey = reactor, obey
        self._before: Any = None
        self._pause: Any = None
        self._installed = self._obeying = self._again = False

    def install(self) -> None:
        """Begin; where there are no signals (another thread than the main one) nothing happens."""
        if not self._installed:
            with suppress(ValueError):
                self._before = signal.signal(signal.SIGHUP, self._came)
                self._installed = True

    def remove(self) -> None:
        """Let the signal be what it was before."""
        if self._installed:
            signal.signal(signal.SIGHUP, signal.SIG_DFL if self._before is None else self._before)
            self._installed = False
        if self._pause is not None:
            self._pause.cancel()
            self._rested()

    def _came(self, number: int, frame: object) -> None:
        # The reactor may be in the middle of anything.
        self._reactor.callFromThread(self._due)

    def _due(self) -> None:
        self._again = self._obeying
        if self._installed and not self._obeying:
            self._obeying = True
            self._obey().addBoth(self._done, self._reactor.seconds())

    def _done(self, _: object, began: float) -> None:
        # What is wrong has been logged.
        taken = self._reactor.seconds() - began
        self._pause = self._reactor.callLater(min(taken, PAUSE), self._rested)

    def _rested(self) -> None:
        self._pause = None
        self._obeying = False
        if self._again:
            self._due()
