# -*- test-case-name: tests.initiator.test_session -*-
"""Signs of life of a target: it is asked for one when it has been silent for long."""

from __future__ import annotations

from typing import Any, Final

from iscsi_twisted.errors import ISCSIError
from iscsi_twisted.session import asking
from iscsi_twisted.session.answers import ConnectionEnded, NoRoom
from iscsi_twisted.session.client import ClientConnection

STALLS: Final = 10
"""
Periods after which a ping is sent, and another time given up that was not answered, whatever else has come: a
target that sends a data segment byte by byte is as good as gone.
"""


class Pulse:
    """Ends a connection whose target does not answer."""

    def __init__(self, reactor: Any, seconds: float) -> None:
        """@param seconds: of silence after which the target is asked, and the same again; 0 for never."""
        self._reactor, self._seconds = reactor, seconds
        self._connection: ClientConnection | None = None
        self._call: Any = None
        self._bytesIn = -1
        self._pinged = self._unasked = 0
        self._cmdSN, self._stuck = -1, False

    def begin(self, connection: ClientConnection) -> None:
        """Listen to a connection."""
        self._connection = connection
        self._bytesIn, self._pinged, self._unasked = -1, 0, 0
        self._cmdSN, self._stuck = -1, False
        if self._seconds:
            self._listen()

    def stop(self) -> None:
        """Listen no more."""
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()

    def _listen(self) -> None:
        self._call = self._reactor.callLater(self._seconds, self._listened)

    def _listened(self) -> None:
        connection = self._connection
        assert connection is not None
        self._look(connection)
        silent = connection.bytesIn == self._bytesIn
        if self._pinged and (silent or self._pinged >= STALLS):
            waited = self._pinged * self._seconds
            connection.end(ConnectionEnded(f"no answer to a ping within {waited:g} seconds"))
            return
        if self._pinged:
            # Its answer may be behind much else.
            self._pinged += 1
        elif silent or self._stuck or self._unasked >= STALLS:
            self._pinged, self._unasked = 1, 0
            asking.ping(connection, self._answered)
        else:
            self._unasked += 1
        self._bytesIn = connection.bytesIn
        self._listen()

    def _look(self, connection: ClientConnection) -> None:
        """Whether commands wait, and since the last look none was sent and none is under way."""
        waits = connection.waiting and not connection.commands
        self._stuck = bool(waits and connection.cmdSN == self._cmdSN)
        self._cmdSN = connection.cmdSN

    def _answered(self, result: Any) -> None:
        self._pinged = 0
        connection = self._connection
        if not self._stuck or connection is None or isinstance(result, ISCSIError):
            return
        self._look(connection)
        if self._stuck:
            # Some targets make their window smaller with each command that is aborted, until none is left.
            connection.end(
                NoRoom(f"the target has taken no command for {self._seconds:g} seconds, with none to do")
            )
