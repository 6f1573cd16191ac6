# -*- test-case-name: tests.session.test_vigil -*-
"""What a connection does because time passes: it gives up what has stopped, and asks if the peer lives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from iscsi_twisted.session import notices

if TYPE_CHECKING:
    from iscsi_twisted.session.connection import Connection
    from iscsi_twisted.session.session import Session

LEAP: Final = 10.0
"""
Seconds that one call counts for at most.  If this process did not run for a while, what the peer sent
meanwhile is still to be read.
"""

DEAF: Final = 600.0
"""
Seconds in which a peer that does not read must take something at last.  TCP itself gives up a dead one
after about as long; this is for one that lives and holds megabytes.
"""

PRESSED: Final = 20.0
"""The same where others wait for the memory that it holds."""

PATIENCE: Final = 10
"""While other tasks of a session go on, one whose data do not come has this many times as long."""


class Vigil:
    """
    Watches one connection of a session.

    It looks at what the connection counts anyway: watching costs nothing per PDU.
    """

    __slots__ = (
        "_bytesIn",
        "_bytesOut",
        "_connection",
        "_deaf",
        "_idle",
        "_last",
        "_pinged",
        "_session",
        "_silent",
    )

    def __init__(self, connection: Connection, session: Session) -> None:
        self._connection = connection
        self._session = session
        self._last: float | None = None
        self._bytesIn = self._bytesOut = 0
        self._silent = self._deaf = self._idle = 0.0
        self._pinged = False

    def tick(self, now: float) -> None:
        """Time passes."""
        connection = self._connection
        passed = 0.0 if self._last is None else min(now - self._last, LEAP)
        self._last = now
        if connection.closing:
            return
        heard = connection.bytesIn != self._bytesIn
        taken = heard or connection.bytesOut != self._bytesOut
        if connection.paused:
            self._wait(0.0 if taken else self._deaf + passed)
        else:
            self._deaf = 0.0
            self._listen(heard, passed)
            if not connection.closing:
                self._expectData(passed)
        # What was just sent is no sign of life.
        self._bytesIn, self._bytesOut = connection.bytesIn, connection.bytesOut

    def _wait(self, seconds: float) -> None:
        """The peer has not read for so long."""
        self._deaf = seconds
        connection = self._connection
        most = PRESSED if connection.node.load.wanted(connection) else DEAF
        if seconds >= most:
            connection.abandon(f"the initiator has read nothing for {most:g} seconds")

    def _listen(self, heard: bool, passed: float) -> None:
        """Any byte is a sign of life; after a long silence the peer is asked for one (RFC 7143 11.19)."""
        node = self._connection.node
        if heard:
            self._silent = 0.0
            self._pinged = False
            return
        self._silent += passed
        if self._pinged:
            if self._silent >= node.pingTimeout:
                self._connection.abandon(f"no answer to a ping within {node.pingTimeout:g} seconds")
        elif 0 < node.pingInterval <= self._silent:
            self._silent = 0.0
            self._pinged = True
            notices.ping(self._connection)

    def _expectData(self, passed: float) -> None:
        """Tasks whose Data-Out do not come end, and give back what they had reserved."""
        waits = [
            (task.dataOut.waited(passed), task.dataOut)
            for task in self._session.tasks.values()
            if task.dataOut is not None and task.dataOut.expecting
        ]
        limit = self._connection.node.dataTimeout
        self._idle = self._idle + passed if waits and all(seconds for seconds, _ in waits) else 0.0
        stopped = self._idle >= limit
        for seconds, dataOut in waits:
            if stopped or seconds >= limit * PATIENCE:
                dataOut.expire()
