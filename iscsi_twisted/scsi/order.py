# -*- test-case-name: tests.scsi.test_order -*-
"""
Task attributes: which task may begin when (SAM-5 chapter 8).

SIMPLE tasks begin as they come, so a unit whose initiators send nothing else keeps no queue.  An
ORDERED task begins when all that came before it have ended, and what comes after it begins when it
has ended; a HEAD OF QUEUE task never waits.  While a unit is held none of them begins.  Whoever may only
read, where others may write, has SIMPLE tasks alone: it must not stop the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import ITask
from iscsi_twisted.scsi.codes import (
    BUSY,
    HEAD_OF_QUEUE,
    ILLEGAL_REQUEST,
    INVALID_MESSAGE,
    ORDERED,
    TASK_SET_FULL,
)

if TYPE_CHECKING:
    from iscsi_twisted.scsi.unit import LogicalUnit

HELD: Final = 256
"""
Commands that wait while a unit is held, those too that need no device and so are not counted otherwise.  It
takes as long as what is at work takes; whoever is told TASK SET FULL tries again.
"""


class Order:
    """
    The tasks of a unit that may not begin yet.

    @ivar active: something waits, or an ORDERED task is at work; only then does anything need a look.
    @ivar dormant: those that wait, in order.
    @ivar held: none may begin.
    """

    __slots__ = ("_advancing", "_barrier", "_idle", "_unit", "active", "dormant", "held")

    def __init__(self, unit: LogicalUnit) -> None:
        self._unit = unit
        self._barrier = False
        self._advancing = False
        self._idle: Callable[[], None] | None = None
        self.active = False
        self.held = False
        # A queue that is empty is small in a list; there are thousands of units, and few tasks in each.
        self.dormant: list[ITask] = []

    def enter(self, task: ITask) -> None:
        """
        Begin a task, or let it wait for its turn.

        @raise CheckCondition: for a task attribute that there is not; ACA too, where there is no such
            condition (SAM-5 8.6.5).
        """
        attribute = task.attribute
        if self._unit.allegiance.nexus is not None:
            if self._unit.allegiance.admits(task):
                # Who may send while all others wait is not to wait for them.
                self._unit.turnAway(task, BUSY) if self.held else self._unit.begin(task)
            return
        if attribute > HEAD_OF_QUEUE:
            raise CheckCondition(ILLEGAL_REQUEST, INVALID_MESSAGE)
        if self.held:
            self._holdBack(task)
        elif attribute != HEAD_OF_QUEUE and (
            self.dormant or self._barrier or (self._isOrdered(task) and self._unit.busy())
        ):
            self.dormant.append(task)
            self._unit.room.entered()
            self._reconsider()
        else:
            self._begin(task)

    def _holdBack(self, task: ITask) -> None:
        if len(self.dormant) >= HELD:
            self._unit.turnAway(task, TASK_SET_FULL)
        else:
            self.dormant.append(task)
            self._unit.room.entered()

    def hold(self, idle: Callable[[], None]) -> None:
        """
        Let no task begin.

        @param idle: called, perhaps at once, when none is at work.
        """
        self.held = True
        self._idle = idle
        self.advance()

    def resume(self) -> None:
        """Let those begin that were held back."""
        self.held = False
        self._idle = None
        self.advance()

    def _begin(self, task: ITask) -> None:
        self._unit.begin(task)
        if self._isOrdered(task) and self._unit.busy():
            self._barrier = True
            self._reconsider()

    def advance(self) -> None:
        """Something has ended: let those begin whose turn it is."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._ready():
                task = self.dormant.pop(0)
                try:
                    self._begin(task)
                except Exception as error:
                    self._unit.failed(task, error)
        finally:
            self._advancing = False
            self._reconsider()
        idle = self._idle
        if idle is not None and not self._unit.occupied():
            self._idle = None
            idle()

    def _ready(self) -> bool:
        """Whether the first that waits may begin."""
        if self._barrier:
            if self._unit.busy():
                return False
            self._barrier = False
        if self.held or not self.dormant or self._unit.allegiance.nexus is not None:
            return False
        return not self._isOrdered(self.dormant[0]) or not self._unit.busy()

    def _isOrdered(self, task: ITask) -> bool:
        """Whether others wait for a task.  For one that may only read those that may write do not."""
        return task.attribute == ORDERED and not self._unit.onlyReads(task.nexus)

    def forget(self, task: ITask) -> None:
        """A task was aborted, which may wait here."""
        if task in self.dormant:
            self.dormant.remove(task)
        self.advance()

    def _reconsider(self) -> None:
        self.active = bool(self._barrier or self.dormant or self.held)
        self._unit.reconsider()
