# -*- test-case-name: tests.session.test_load -*-
"""What has been read, or is being read, and was not sent yet: the bytes of all sessions together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from iscsi_twisted.session.share import outstanding

if TYPE_CHECKING:
    from iscsi_twisted.session.connection import Connection
    from iscsi_twisted.session.session import Session


class Load:
    """
    A bound that is looked at when devices or peers take their time, and by nobody else.

    What is added is exact; what has ended is found when the bound is reached, by counting anew.

    @ivar limit: bytes.
    @ivar used: bytes, or more.
    @ivar unread: bytes that wait for peers to take them; exactly.
    @ivar waiting: the connections that begin no more commands until there is less.
    @ivar pressed: so much waits for peers to read it that nobody else may send much at a time.
    @ivar barred: half as much again, so that nobody may begin any command.
    """

    __slots__ = ("_most", "_sessions", "barred", "limit", "pressed", "unread", "used", "waiting")

    def __init__(self, limit: int, sessions: Iterable[Session]) -> None:
        """@param sessions: all that there are, at any time."""
        self.limit = limit
        self.used = self.unread = 0
        self.pressed = self.barred = False
        self._most = limit + limit // 2
        self.waiting: dict[Connection, None] = {}
        self._sessions = sessions

    def add(self, count: int) -> bool:
        """
        So many bytes more.

        @return: whether the bound is reached.
        """
        self.used += count
        return self.used >= self.limit and self.reached()

    def queue(self, count: int) -> bool:
        """
        A peer that does not read has so many bytes more to read.

        @return: whether it may send nothing more until it does; not only SCSI commands bring data.
        """
        self.used += count
        self.unread += count
        if self.unread < self.limit:
            return False
        self._narrow(True)
        if self.unread >= self._most and not self.barred:
            self.barred = True
            for connection in self._connections():
                connection.share.bar(connection)
        return True

    def taken(self, count: int) -> None:
        """So many bytes do not wait any more."""
        self.unread -= count
        if self.pressed and self.unread < self.limit:
            self._narrow(False)
            # Not sooner, or it would be so again with the next command or two.
            self.barred = False
            for connection in self._connections():
                if not self.barred:
                    self.waiting.pop(connection, None)
                    connection.share.refill(connection)

    def _connections(self) -> list[Connection]:
        return [session.connection for session in self._sessions if session.connection is not None]

    def _narrow(self, pressed: bool) -> None:
        if pressed is not self.pressed:
            self.pressed = pressed
            for connection in self._connections():
                connection.narrow(pressed)

    def reached(self) -> bool:
        """Count anew; whether the bound is reached."""
        self.used = sum(outstanding(each) for each in self._connections())
        return self.used >= self.limit

    def wanted(self, connection: Connection) -> bool:
        """Whether others wait for what a connection holds."""
        return any(each is not connection for each in self.waiting)

    def relieve(self) -> None:
        """Something has ended: let those go on that wait, if there is room."""
        if not self.reached():
            waiting, self.waiting = self.waiting, {}
            for connection in waiting:
                connection.share.refill(connection)
