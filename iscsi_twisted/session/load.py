# -*- test-case-name: tests.session.test_load -*-
"""What has been read, or is being read, and was not sent yet: the bytes of all sessions together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iscsi_twisted.session.connection import Connection
    from iscsi_twisted.session.session import Session


class Load:
    """
    A bound that is looked at when devices or peers take their time, and by nobody else.

    What is added is exact; what has ended is found when the bound is reached, by counting anew.

    @ivar limit: bytes.
    @ivar used: bytes, or more.
    @ivar waiting: the connections that begin no more commands until there is less.
    @ivar pressed: so much waits for peers to read it that nobody else may send much at a time.
    """

    __slots__ = ("_sessions", "limit", "pressed", "used", "waiting")

    def __init__(self, limit: int, sessions: Iterable[Session]) -> None:
        """@param sessions: all that there are, at any time."""
        self.limit = limit
        self.used = 0
        self.pressed = False
        self.waiting: dict[Connection, None] = {}
        self._sessions = sessions

    def add(self, count: int) -> bool:
        """
        So many bytes more.

        @return: whether the bound is reached.
        """
        self.used += count
        return self.used >= self.limit and self.reached()

    def press(self) -> bool:
        """
        A peer that does not read has more to read.

        @return: whether it may send nothing more until it does; not only SCSI commands bring data.
        """
        if self.used < self.limit or not self.reached():
            return False
        self._narrow(True)
        return True

    def _narrow(self, pressed: bool) -> None:
        if pressed is not self.pressed:
            self.pressed = pressed
            for session in self._sessions:
                if session.connection is not None:
                    session.connection.narrow(pressed)

    def reached(self) -> bool:
        """Count anew; whether the bound is reached."""
        connections = [session.connection for session in self._sessions]
        self.used = sum(each.outstanding() for each in connections if each is not None)
        return self.used >= self.limit

    def wanted(self, connection: Connection) -> bool:
        """Whether others wait for what a connection holds."""
        return any(each is not connection for each in self.waiting)

    def relieve(self) -> None:
        """Something has ended: let those go on that wait, if there is room."""
        if not self.reached():
            self._narrow(False)
            waiting, self.waiting = self.waiting, {}
            for connection in waiting:
                connection.refill()
