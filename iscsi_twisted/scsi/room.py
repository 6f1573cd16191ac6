# -*- test-case-name: tests.scsi.test_room -*-
"""How many tasks a unit has at a time (SAM-5 5.3.1, TASK SET FULL and BUSY)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from iscsi_twisted.interfaces import ITask
from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.cdb import MEDIUM, PUBLIC, SHARED

if TYPE_CHECKING:
    from iscsi_twisted.scsi.unit import LogicalUnit

QUEUE: Final = 128
"""
Tasks of one unit.  Without a bound, whoever aborts what hangs, logs in anew and tries again would fill the
memory of a target whose disk hangs.  Less than the window of one session, whose other units are then still
within reach; more than initiators send to one unit.
"""


class Room:
    """
    Room for a number of tasks, those too that were aborted and whose devices have not ended.

    Tasks that end at once are not counted, so that nothing is done here for them.

    @ivar size: how many there may be.
    @ivar parked: those that wait for the end of an operation or of a fence.
    @ivar full: there are so many, or were when that was last looked at.
    @ivar crowded: the same for the share of those that may only read.
    @ivar sentBack: commands that found no room.
    """

    __slots__ = ("_unit", "crowded", "full", "parked", "sentBack", "size")

    def __init__(self, unit: LogicalUnit, size: int) -> None:
        self._unit = unit
        self.size = size
        self.parked = 0
        self.full = self.crowded = False
        self.sentBack = 0

    @property
    def share(self) -> int:
        """How many tasks there may be of those that may only read: they must not keep out who may write."""
        return max(1, self.size // 2)

    def entered(self) -> None:
        """There is a task more: see whether there is room for another."""
        if not self.full:
            taken = self._taken()
            if taken >= (self.size if self.crowded else self.share):
                self._measured(taken)

    def _measured(self, taken: int) -> None:
        """So much is taken."""
        before = self.full, self.crowded
        self.full, self.crowded = taken >= self.size, taken >= self.share
        if before != (self.full, self.crowded):
            self._unit.reconsider()

    def _taken(self) -> int:
        unit = self._unit
        return len(unit.operations) + len(unit.receiving) + self.parked + len(unit.order.dormant)

    def _readers(self) -> int:
        """What is taken by those that may only read."""
        unit = self._unit
        fences = (*unit.fences, *unit.operations)
        tasks = [operation.task for operation in unit.operations]
        tasks += [waiter[0] for fence in fences for waiter in fence.waiting]
        return sum(unit.onlyReads(task.nexus) for task in (*tasks, *unit.receiving, *unit.order.dormant))

    def refuses(self, task: ITask) -> bool:
        """
        Send a command back that needs the device and finds no room.

        @return: whether the task was ended: with TASK SET FULL, or BUSY if its nexus has no other task.
        """
        unit = self._unit
        self._measured(self._taken())
        if not self.full:
            reader = self.crowded and unit.onlyReads(task.nexus)
            if not reader or self._readers() < self.share:
                return False
        command = unit.table.find(task.cdb)
        if command is None or not command.access & MEDIUM or command.access & (SHARED | PUBLIC):
            return False
        others = any(other.nexus is task.nexus for other in unit.outstanding())
        unit.turnAway(task, codes.TASK_SET_FULL if others else codes.BUSY)
        self.sentBack += 1
        return True
