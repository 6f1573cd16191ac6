# -*- test-case-name: tests.initiator.test_session,tests.initiator.test_request -*-
"""A command that somebody waits for, over all the connections that it needs, and for so long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from twisted.internet.defer import Deferred, TimeoutError

from iscsi_twisted.errors import ISCSIError
from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.session.answers import Aborted
from iscsi_twisted.session.client import ClientConnection
from iscsi_twisted.session.command import Command
from iscsi_twisted.wire import numbers

if TYPE_CHECKING:
    from iscsi_twisted.initiator.session import Session

AGAIN: Final = 8
"""
How often a command is sent again for what the target did: a unit that tells of one unit attention after the
other never stops, and neither does a target that answers the command with nonsense each time.
"""

CUTS: Final = 30
"""
How often it is sent again because the connection was lost: what makes a target fail makes it fail each time.
"""

WHOLE_TARGET: Final = (numbers.TARGET_WARM_RESET, numbers.TARGET_COLD_RESET)
ENDING: Final = (numbers.ABORT_TASK_SET, numbers.CLEAR_TASK_SET, numbers.LOGICAL_UNIT_RESET, *WHOLE_TARGET)
"""Task management functions that end commands, and those of them that end all (RFC 7143 11.5.1)."""


class Request(Command):
    """
    A command that somebody waits for.

    A subclass may make something else of its outcome (L{convert}), and may have it sent again (L{refused}).

    @cvar replay: whether it may be sent again if the connection is lost before it was answered.
    @ivar session: which sends it.
    @ivar deferred: whom to tell; None when that is done, or nobody waits any more.
    @ivar again: how often it was sent again over this connection, for what the target answered.
    @ivar busy: how often it was sent again because the unit had no room for it.
    @ivar cuts: how often a connection has ended before it was answered; C{spoilt} of them for what the
        target did wrong.
    """

    __slots__ = ("again", "busy", "cuts", "deferred", "session", "spoilt", "timed")

    replay: ClassVar[bool] = False

    def begin(self, session: Session) -> Deferred[Any]:
        """Somebody waits for it from now on; fires with what it makes of its outcome."""
        self.session = session
        self.again = self.busy = self.spoilt = self.cuts = 0
        self.timed: dict[Request, float] | None = None
        self.deferred: Deferred[Any] | None = Deferred(self.cancelled)
        return self.deferred

    def convert(self, status: int, sense: Buffer, residual: int) -> Any:
        """What is told of its outcome; may raise what it fails with."""
        return self.outcome(status, sense, residual)

    def refused(self, error: Exception) -> Exception | float:
        """
        What becomes of it after L{convert} has raised something.

        @return: what it fails with, or the seconds after which it is sent again, which may be 0.
        """
        return error

    # What the connection calls

    def ended(self, status: int, sense: Buffer, residual: int) -> None:
        """The target has answered it."""
        deferred = self.deferred
        if deferred is None:
            return
        try:
            value = self.convert(status, sense, residual)
        except Exception as error:
            self._refused(error)
            return
        # Nothing is to be kept alive by going round in a circle.
        self.deferred = None
        if self.timed is not None:
            self._untime()
        deferred.callback(value)

    def _refused(self, error: Exception) -> None:
        told = self.refused(error)
        if isinstance(told, Exception):
            self.fail(told)
        else:
            self.restart()
            self.session.later(self, told)

    def failed(self, error: ISCSIError) -> None:
        """The target has refused it."""
        self.fail(error)

    def lost(self, error: ISCSIError) -> None:
        """The connection has ended first."""
        if self.deferred is not None:
            self.session.unanswered(self, error)

    # What the session calls

    def fail(self, error: BaseException) -> None:
        """Tell whoever waits that it has failed."""
        deferred = self._leave()
        if deferred is not None:
            deferred.errback(error)

    def cancelled(self, _: Deferred[Any]) -> None:
        """Nobody waits any more: the Deferred fails by itself."""
        self._leave()
        self.session.abort(self)

    def expire(self, seconds: float) -> None:
        """The time is over."""
        deferred = self._leave()
        if deferred is not None:
            self.session.abort(self)
            deferred.errback(TimeoutError(f"not answered within {seconds:g} seconds"))

    def _leave(self) -> Deferred[Any] | None:
        deferred, self.deferred = self.deferred, None
        if self.timed is not None:
            self._untime()
        return deferred

    def _untime(self) -> None:
        timed, self.timed = self.timed, None
        if timed is not None:
            timed.pop(self, None)


class Replayed(Request):
    """One that may be carried out twice."""

    __slots__ = ()

    replay = True


class Timeouts:
    """
    Ends requests that take too long, with one call of the reactor for all that have the same limit.

    Their deadlines come in the order in which they were made, so the first is the only one to wait for.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._requests: dict[float, dict[Request, float]] = {}
        self._calls: dict[float, Any] = {}

    def add(self, request: Request, seconds: float) -> None:
        """From now on there are so many seconds."""
        requests = self._requests.get(seconds)
        if requests is None:
            requests = self._requests[seconds] = {}
            self._calls[seconds] = self._reactor.callLater(seconds, self._due, seconds)
        requests[request] = self._reactor.seconds() + seconds
        request.timed = requests

    def _due(self, seconds: float) -> None:
        requests = self._requests[seconds]
        # Whoever is told may end the session, and with it all this.
        del self._calls[seconds]
        now = self._reactor.seconds()
        while requests:
            request, deadline = next(iter(requests.items()))
            if deadline > now:
                self._calls[seconds] = self._reactor.callLater(deadline - now, self._due, seconds)
                return
            request.expire(seconds)
        self._requests.pop(seconds, None)

    def stop(self) -> None:
        """Nobody waits any more."""
        for call in self._calls.values():
            call.cancel()
        self._calls.clear()
        self._requests.clear()


def ends(response: int, connection: ClientConnection, commands: list[Command]) -> int:
    """A task management function was answered; those of these commands that it has ended are told."""
    if response == numbers.FUNCTION_COMPLETE:
        for command in commands:
            if connection.commands.get(command.itt) is command:
                connection.drop(command)
                command.failed(Aborted("a task management function has ended the command"))
    return response
