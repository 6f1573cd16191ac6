# -*- test-case-name: tests.initiator.test_session,tests.initiator.test_request -*-
"""Connections of a session, one after another: where to, how soon again, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.failure import Failure

from iscsi_twisted.errors import LocalError, RemoteError
from iscsi_twisted.initiator.protocol import InitiatorFactory
from iscsi_twisted.session.answers import ConnectionEnded, Redirected
from iscsi_twisted.session.client import ClientConnection

FIRST_DELAY: Final = 0.1
LAST_DELAY: Final = 30.0
"""Seconds between attempts to connect again: doubled after each, up to the last."""

PAUSE: Final = 1.0
"""Seconds between connections to a target that ends each of them soon after the login."""

REDIRECTS: Final = 4
"""Login redirections that are followed before one login."""

LOGIN_TIME: Final = 15.0
"""Seconds in which a connection has to be made, and a login to be complete."""


class Dialler:
    """
    Connects to one target.

    @ivar endpoint: where it is.
    @ivar elsewhere: gives the endpoint for the C{host:port} of a redirection; None follows none.
    @ivar delay: seconds before the next attempt.
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        elsewhere: Callable[[str], IStreamClientEndpoint] | None,
        make: Callable[..., ClientConnection],
        failed: Callable[[BaseException], None],
        patience: float,
    ) -> None:
        """
        @param make: makes the core of a connection, given what sends and what closes.
        @param failed: called with why there is no connection.
        @param patience: seconds without one after which no other is tried.
        """
        self.endpoint, self.elsewhere = endpoint, elsewhere
        self._reactor, self._make, self._fail, self._patience = reactor, make, failed, patience
        self._next: IStreamClientEndpoint | None = None
        self._redirects = 0
        self.delay = self._before = FIRST_DELAY
        self._since = self._deadline = 0.0
        self._retry: Any = None
        self._dialling: Deferred[Any] | None = None
        self._watch: Any = None
        self._stopped = False

    def dial(self) -> None:
        """Connect, and log in."""
        self._retry = None
        endpoint, self._next = self._next or self.endpoint, None
        dialling: Deferred[Any] = maybeDeferred(endpoint.connect, InitiatorFactory(self._make))
        self._dialling = dialling
        dialling.addTimeout(LOGIN_TIME, self._reactor)
        dialling.addCallbacks(self._dialled, self._failed)

    def _dialled(self, protocol: Any) -> None:
        core: ClientConnection = protocol.core
        if self._stopped:
            core.end(ConnectionEnded("the session was abandoned"))
        elif not core.full and core.error is None:
            late = ConnectionEnded(f"the login was not complete within {LOGIN_TIME:g} seconds")
            self._watch = self._reactor.callLater(LOGIN_TIME, core.end, late)

    def _failed(self, failure: Failure) -> None:
        self._fail(failure.value or ConnectionEnded("no connection"))

    def arrived(self) -> None:
        """A login is complete."""
        self._since = self._reactor.seconds()
        self._before, self.delay = self.delay, FIRST_DELAY
        self._deadline = 0.0
        self._redirects = 0
        self.settled()

    def settled(self) -> None:
        """Nobody waits for a login any more."""
        watch, self._watch = self._watch, None
        if watch is not None and watch.active():
            watch.cancel()

    def follow(self, error: Redirected) -> bool:
        """
        Connect where a target sends us (RFC 7143 11.13.5).

        @return: whether that can be done.
        """
        if self._stopped or self.elsewhere is None or self._redirects >= REDIRECTS:
            return False
        try:
            there = self.elsewhere(error.address.partition(",")[0])
        except LocalError:
            return False
        self._redirects += 1
        self._next = there
        if error.forever:
            self.endpoint = there
        self.dial()
        return True

    def again(self, error: BaseException) -> float | None:
        """
        Connect again after a connection, or an attempt to make one, has ended.

        @return: the seconds after which that is done; None if it has been tried for too long.
        """
        self._redirects = 0
        now = self._reactor.seconds()
        if now - self._since < LAST_DELAY:
            # What goes wrong after each login is not to happen more and more often: least of all nonsense.
            least = self._before if isinstance(error, RemoteError) else min(self._before, PAUSE)
            self.delay = max(self.delay, least)
        self._deadline = self._deadline or now + self._patience
        delay = self.delay
        if self._stopped or now + delay > self._deadline:
            return None
        self._retry = self._reactor.callLater(delay, self.dial)
        self.delay = min(2 * delay, LAST_DELAY)
        return delay

    def stop(self) -> None:
        """Try no more."""
        self._stopped = True
        retry, self._retry = self._retry, None
        if retry is not None:
            retry.cancel()
        if self._dialling is not None:
            self._dialling.cancel()
