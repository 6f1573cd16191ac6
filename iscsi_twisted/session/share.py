# -*- test-case-name: tests.session.test_neighbours,tests.session.test_turns,tests.session.test_load -*-
"""What devices read for one session: no unit's part of that stops the commands of other units."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from iscsi_twisted.interfaces import ILogicalUnit
from iscsi_twisted.wire import numbers

if TYPE_CHECKING:
    from iscsi_twisted.session.connection import Connection
    from iscsi_twisted.session.task import Task

READING: Final = 32 << 20
"""
Bytes that one unit whose device takes its time may be reading for one session: two of the longest reads.
All that they bring is queued whether the peer reads or not; further commands for that unit wait.
"""

READING_ALL: Final = 4 * READING
"""The same for all units of a session together: three may hang, and the others are served as ever."""


class Share:
    """
    The part that one session has of what devices read.  It is looked at when they take their time.

    @ivar full: the units that have enough to read; None among them stands for all.
    """

    __slots__ = ("_begun", "full")

    def __init__(self) -> None:
        self.full: frozenset[ILogicalUnit | None] = frozenset()
        self._begun = 0

    def pends(self, connection: Connection, count: int) -> None:
        """A device takes its time to read so many bytes."""
        self._begun += count
        if self._begun >= READING:
            full = self._weigh(connection)
            if full:
                # What has room again is found when the turn ends.
                self.full |= full
                connection.held = True
        if connection.node.load.add(count):
            self.full |= {None}
            connection.held = True

    def holds(self, connection: Connection, task: Task) -> bool:
        """Whether a task has to wait, asked while the connection is C{held}."""
        if not self.full or None in self.full or connection.stopped:
            return True
        assert connection.session is not None
        unit = task.unit
        if unit in self.full:
            return True
        for other in connection.session.waiting:
            if other.unit is unit:
                return other is not task
        return False

    def begin(self, connection: Connection, waiting: deque[Task]) -> None:
        """Begin the commands for those units that have not enough to read."""
        for task in tuple(waiting):
            # What was begun may have aborted others.
            if task in waiting and not self.holds(connection, task):
                waiting.remove(task)
                task.start()

    def refill(self, connection: Connection) -> None:
        """Begin commands that there is room for now."""
        before, self.full = self.full, self._weigh(connection)
        if self.full != before:
            connection.proceed()

    def bar(self, connection: Connection) -> None:
        """Nobody may begin any command for now."""
        self.full = self._weigh(connection)
        connection.held = True

    def _weigh(self, connection: Connection) -> frozenset[ILogicalUnit | None]:
        """Find the units that have enough to read."""
        coming: dict[ILogicalUnit, int] = {}
        for task in _reads(connection):
            coming[task.unit] = coming.get(task.unit, 0) + task.expected
        left = READING_ALL - sum(coming.values())
        # When so many more have begun, one more unit may have enough, or all.
        most = max((count for count in coming.values() if count < READING), default=0)
        self._begun = max(most, READING - left)
        full: set[ILogicalUnit | None] = {unit for unit, count in coming.items() if count >= READING}
        load = connection.node.load
        if load.barred or (load.used >= load.limit and (coming or connection.backlog)):
            # All together have enough; a session that has nothing may begin one command if there is room.
            load.waiting[connection] = None
            full.add(None)
        return frozenset(full if left > 0 else full | {None})


def outstanding(connection: Connection) -> int:
    """How many bytes devices read for a connection, or wait for its peer to take them."""
    return connection.backlog + sum(task.expected for task in _reads(connection))


def _reads(connection: Connection) -> Iterable[Task]:
    """The reads that devices take their time for."""
    tasks = connection.session.tasks.values() if connection.session is not None else ()
    return (task for task in tasks if task.operation is not None and task.flags & numbers.READ)
