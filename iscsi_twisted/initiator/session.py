# -*- test-case-name: tests.initiator.test_session -*-
"""A session with a target: commands as Deferreds, over one connection after another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from iscsi_twisted.errors import ISCSIError, LocalError, RemoteError
from iscsi_twisted.initiator.dialling import Dialler
from iscsi_twisted.initiator.identity import AnotherUnit, Name, recognise
from iscsi_twisted.initiator.pulse import Pulse
from iscsi_twisted.initiator.request import (
    AGAIN,
    CUTS,
    ENDING,
    WHOLE_TARGET,
    Replayed,
    Request,
    Timeouts,
    ends,
)
from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.session import asking
from iscsi_twisted.session.answers import ConnectionEnded, Event, LogoutRefused, NoRoom, Redirected
from iscsi_twisted.session.client import ClientConnection
from iscsi_twisted.session.command import SIMPLE
from iscsi_twisted.session.request import Authentication, Wish
from iscsi_twisted.wire import numbers

ABORT_TIME: Final = 10.0
"""Seconds in which a target has to answer an abort, or a logout; else the connection is given up."""

TEXT_TIME: Final = 60.0
"""Seconds in which a text request has to be answered, however many parts the answer has."""

_log = Logger()


class Session:
    """
    A session with one target.

    While it is connected, commands go to the connection at once.  When the connection is lost, and the
    session was made to last, it logs in again, and sends again what may be sent again; other commands
    fail with L{ConnectionEnded}.

    @ivar connection: the current one, or None between two.
    @ivar told: called with each L{Event} that the target sends; may be replaced.
    @ivar lasting: whether it connects again when the connection is lost.
    @ivar known: who units are that have to be the same then, by their numbers.
    @ivar logins: how often it has logged in.
    @ivar events: how many L{Event}s have come.
    @ivar error: why it is over; None while it is not.
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        wish: Wish,
        authenticate: Callable[[], Authentication | None],
        *,
        elsewhere: Callable[[str], IStreamClientEndpoint] | None = None,
        lasting: bool = False,
        patience: float = 120.0,
        ping: float = 30.0,
    ) -> None:
        """
        @param authenticate: gives what speaks for the initiator in one login.
        @param elsewhere: gives the endpoint for the C{host:port} of a redirection; None follows none.
        @param lasting: whether to connect again when the connection is lost.
        @param patience: seconds without a connection after which everything that waits fails.
        @param ping: seconds of silence after which the target is asked for a sign of life, and the same again
            for its answer; 0 for never.
        """
        self.reactor = reactor
        self.wish = wish
        self.connection: ClientConnection | None = None
        self.logins = self.events = 0
        self.dialler = Dialler(reactor, endpoint, elsewhere, self._make, self.lost, patience)
        self.known: dict[bytes, Name] = {}
        self._pulse = Pulse(reactor, ping)
        self._authenticate = authenticate
        self.lasting = lasting
        self._kept: dict[Request, None] = {}
        self._later: dict[Request, Any] = {}
        self._timeouts = Timeouts(reactor)
        self._closing = False
        self._ready: list[Deferred[None]] = []
        self.error: BaseException | None = None
        self.told: Callable[[Event], Any] = self._log

    # Connections

    def connect(self) -> Deferred[None]:
        """
        Log in.

        @return: fires when the session is there; fails with
            L{LoginRefused<iscsi_twisted.session.answers.LoginRefused>}, with what the endpoint fails with, or
            with C{TimeoutError}.
        """
        waiting: Deferred[None] = Deferred(lambda _: self.abandon())
        self._ready.append(waiting)
        self.dialler.dial()
        return waiting

    def _make(self, send: Callable[[list[Buffer]], None], close: Callable[[], None]) -> ClientConnection:
        return ClientConnection(Link(self), self.wish, self._authenticate(), send=send, close=close)

    def loggedIn(self, connection: ClientConnection) -> None:
        """The full feature phase has begun; before anything else is done, units are asked who they are."""
        if self.logins and self.known and not self._closing:
            recognise(connection, self.known, partial(self._recognised, connection))
        else:
            self._enter(connection)

    def _recognised(self, connection: ClientConnection, wrong: AnotherUnit | None) -> None:
        if wrong is None:
            self._enter(connection)
        else:
            connection.end(wrong)

    def _enter(self, connection: ClientConnection) -> None:
        self.dialler.arrived()
        if self._closing:
            # Whoever wanted it has gone meanwhile; the target is told.
            self.leave(connection)
            return
        self.connection = connection
        self.logins += 1
        self._pulse.begin(connection)
        kept, self._kept = self._kept, {}
        for request in kept:
            self.send(request)
        ready, self._ready = self._ready, []
        for waiting in ready:
            waiting.callback(None)

    def lost(self, error: BaseException) -> None:
        """The connection is over, or there was none: try again, or tell everybody."""
        self.connection = None
        self._pulse.stop()
        self.dialler.settled()
        if isinstance(error, Redirected) and self.dialler.follow(error):
            return
        lasts = self.lasting and self.logins and not self._closing and not isinstance(error, AnotherUnit)
        delay = self.dialler.again(error) if lasts else None
        if delay is None:
            self._giveUp(error)
            return
        _log.info(
            "connection to {target} lost: {error}; trying again in {delay:.1f} s",
            target=self.wish.targetName, error=error, delay=delay,
        )  # fmt: skip

    def _giveUp(self, error: BaseException) -> None:
        self.error = error
        ready, self._ready = self._ready, []
        kept = [*self._kept, *self._later]
        self._kept.clear()
        for call in self._later.values():
            call.cancel()
        self._later.clear()
        for waiting in ready:
            if not waiting.called:
                waiting.errback(error)
        for request in kept:
            request.fail(error)
        self._timeouts.stop()

    def _log(self, event: Event) -> None:
        # A target may send millions of them.
        if not self.events & self.events - 1:
            _log.info(
                "{target} tells of event {code}, its message number {count}",
                target=self.wish.targetName, code=event.code, count=self.events,
            )  # fmt: skip

    # Commands

    def execute(
        self,
        lunField: bytes,
        cdb: bytes,
        *,
        expected: int = 0,
        data: Buffer = b"",
        into: bytearray | memoryview | None = None,
        attribute: int = SIMPLE,
        replay: bool = False,
        timeout: float | None = None,
    ) -> Deferred[Any]:
        """
        Send a command.

        @param lunField: the logical unit number as eight bytes (L{iscsi_twisted.scsi.lun.encodeLUN}).
        @param expected: bytes of Data-In that there is room for.
        @param data: Data-Out; they must not change until this fires.
        @param into: where the Data-In go.
        @param replay: whether it may be sent again if the connection is lost before it was answered.
        @param timeout: seconds after which it is aborted, and this fails with C{TimeoutError}.
        @return: its L{Outcome<iscsi_twisted.session.command.Outcome>}, whatever its status; cancelling this
            aborts the task.
        @raise LocalError: as L{Command} does.
        """
        kind = Replayed if replay else Request
        return self.start(kind(lunField, cdb, expected, data, into, attribute), timeout)

    def start(self, request: Request, timeout: float | None = None) -> Deferred[Any]:
        """Send a request, as L{execute} does; fires with what it makes of its outcome."""
        if self.error is not None or self._closing:
            return fail(ConnectionEnded(f"the session is over: {self.error or 'logged out'}"))
        deferred = request.begin(self)
        if timeout is not None:
            self._timeouts.add(request, timeout)
        connection = self.connection
        if connection is not None and connection.full:
            connection.execute(request)
        else:
            self.send(request)
        return deferred

    def send(self, request: Request) -> None:
        """Send a request that somebody waits for, now or over the next connection."""
        connection = self.connection
        if connection is not None and connection.full:
            connection.execute(request)
        elif self.lasting and self.error is None and not self._closing:
            self._kept[request] = None
        else:
            request.fail(LocalError("the session is not connected"))

    def later(self, request: Request, seconds: float) -> None:
        """Send a request that somebody waits for after so many seconds."""
        if seconds:
            self._later[request] = self.reactor.callLater(seconds, self._sendLate, request)
        else:
            self.send(request)

    def _sendLate(self, request: Request) -> None:
        del self._later[request]
        self.send(request)

    def unanswered(self, request: Request, error: ISCSIError) -> None:
        """
        The end of a connection has met a request: it is sent over the next one, if that may be.

        What the target did wrong may have been its answer to this request.
        """
        sent = request.itt >= 0
        if sent or isinstance(error, NoRoom):
            request.cuts += 1
            request.spoilt += isinstance(error, RemoteError)
        enough = request.spoilt > AGAIN or request.cuts > CUTS
        if (sent and not request.replay) or enough or not self.lasting or self._closing:
            request.fail(error)
        else:
            request.restart()
            request.again = 0
            self._kept[request] = None

    def abort(self, request: Request) -> None:
        """Abort the task of a request for which nobody waits any more."""
        self._kept.pop(request, None)
        call = self._later.pop(request, None)
        if call is not None:
            call.cancel()
            return
        connection = self.connection
        if connection is None:
            return
        if request.itt < 0:
            connection.forget(request)
            return
        connection.release(request)
        if not connection.full:
            return
        answer: Deferred[int] = Deferred()
        asking.manage(connection, numbers.ABORT_TASK, request.lunField, request, _fire(answer))
        answer.addTimeout(ABORT_TIME, self.reactor)
        answer.addCallbacks(
            lambda response: self._aborted(connection, request, response),
            lambda why: self._deaf(connection, why),
        )

    def _aborted(self, connection: ClientConnection, command: Request, response: int) -> None:
        if response == numbers.FUNCTION_COMPLETE:
            connection.drop(command)

    def _deaf(self, connection: ClientConnection, why: Failure) -> None:
        if why.check(TimeoutError, CancelledError):
            connection.end(ConnectionEnded(f"an abort was not answered within {ABORT_TIME:g} seconds"))

    # Other requests

    def manage(self, function: int, lunField: bytes = bytes(8)) -> Deferred[int]:
        """
        Run a task management function other than ABORT TASK, for which a command's Deferred is cancelled.

        Commands that it has ended fail with L{Aborted}.

        @param function: as in RFC 7143 11.5.1.
        @return: the response code (RFC 7143 11.6.1).
        """
        connection = self.connection
        concerned = [
            command
            for command in (connection.commands.values() if connection is not None else ())
            if function in WHOLE_TARGET or command.lunField == lunField
        ]
        asked = self._ask(lambda connection, done: asking.manage(connection, function, lunField, None, done))
        if connection is not None and function in ENDING:
            asked.addCallback(ends, connection, concerned)
        return asked

    def ping(self, data: bytes = b"", timeout: float | None = None) -> Deferred[bytes]:
        """
        Ask for a sign of life.

        @param timeout: seconds after which this fails with C{TimeoutError}.
        @return: fires with the same data.
        @raise LocalError: for more data than the target takes.
        """
        answer = self._ask(lambda connection, done: asking.ping(connection, done, data))
        if timeout is not None:
            answer.addTimeout(timeout, self.reactor, partial(_unanswered, "ping"))
        return answer

    def nop(self, data: bytes = b"") -> None:
        """
        Send a NOP-Out that the target does not answer (RFC 7143 11.18).

        @raise LocalError: if there is no connection, or for more data than the target takes.
        """
        if self.connection is None:
            raise LocalError("the session is not connected")
        asking.nop(self.connection, data)

    def text(
        self, pairs: list[tuple[str, str]], timeout: float = TEXT_TIME
    ) -> Deferred[list[tuple[str, str]]]:
        """
        A Text Request; fires with the pairs of its answer.

        @param timeout: seconds after which this fails with C{TimeoutError}.
        """
        answer = self._ask(lambda connection, done: asking.ask(connection, pairs, done))
        return answer.addTimeout(timeout, self.reactor, partial(_unanswered, "text request"))

    def _ask(self, request: Callable[[ClientConnection, Callable[[Any], Any]], None]) -> Deferred[Any]:
        if self.connection is None or not self.connection.full:
            return fail(LocalError("the session is not connected"))
        answer: Deferred[Any] = Deferred()
        request(self.connection, _fire(answer))
        return answer

    def logout(self) -> Deferred[None]:
        """
        Close the session.

        @return: fires when it is closed, by the target or for want of an answer; fails, then too, with
            L{LogoutRefused} if the target says that something went wrong.
        """
        if self.connection is None or not self.connection.full:
            self.abandon()
            closed: Deferred[None] = Deferred()
            closed.callback(None)
            return closed
        self._closing = True
        return self._logout(self.connection)

    def leave(self, connection: ClientConnection) -> None:
        """Log out on a connection, and end it; a session that lasts goes on over the next one."""
        self._logout(connection).addErrback(lambda why: None)

    def _logout(self, connection: ClientConnection) -> Deferred[None]:
        # Nothing may be sent any more, no ping either (RFC 7143 11.14).
        self._pulse.stop()
        answer: Deferred[Any] = Deferred()
        asking.logout(connection, _fire(answer))
        answer.addTimeout(ABORT_TIME, self.reactor)
        return answer.addBoth(_ended, connection)

    def abandon(self) -> None:
        """End the session without a word; whatever waits fails."""
        self._closing = True
        error = ConnectionEnded("the session was abandoned")
        self.dialler.stop()
        if self.connection is not None:
            self.connection.end(error)
        elif self.error is None:
            self._giveUp(error)


class Link:
    """Tells a session what happens to one of its connections."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.connection: ClientConnection | None = None

    def loggedIn(self, connection: ClientConnection) -> None:
        """The full feature phase has begun."""
        self._session.loggedIn(connection)

    def told(self, event: Event) -> None:
        """
        An asynchronous message came; a request to log out is obeyed, and to one for a negotiation we have
        nothing to say (RFC 7143 11.9.1).
        """
        session = self._session
        session.events += 1
        session.told(event)
        connection = session.connection
        if connection is None or not connection.full:
            return
        # Once is enough, however often a target says so: its messages must not fill our memory.
        if event.code == numbers.EVENT_LOGOUT_REQUEST:
            session.leave(connection)
        elif event.code == numbers.EVENT_NEGOTIATION and not connection.texts:
            asking.ask(connection, [], lambda result: None)

    def ended(self, error: ISCSIError) -> None:
        """The connection is over."""
        self._session.lost(error)


def _ended(result: Any, connection: ClientConnection) -> Failure | None:
    """Whatever has become of a logout, the connection is over; what the target said of it is told."""
    connection.end(ConnectionEnded("logged out"))
    return result if isinstance(result, Failure) and result.check(LogoutRefused) else None


def _unanswered(what: str, result: Any, timeout: float) -> Any:
    """An answer, or that there was none in time."""
    if isinstance(result, Failure) and result.check(CancelledError):
        raise TimeoutError(f"the {what} was not answered within {timeout:g} seconds")
    return result


def _fire(deferred: Deferred[Any]) -> Callable[[Any], None]:
    """What gives a result, or an exception, to a Deferred that may have been given up."""

    def fire(result: Any) -> None:
        if not deferred.called:
            if isinstance(result, BaseException):
                deferred.errback(result)
            else:
                deferred.callback(result)

    return fire
