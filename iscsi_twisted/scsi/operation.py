# -*- test-case-name: tests.scsi.test_operation -*-
"""
What a unit keeps for a task while a device works on it.

Neither is made when a device answers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from iscsi_twisted.interfaces import ITask, Pending, isPending
from iscsi_twisted.scsi import codes

if TYPE_CHECKING:
    from iscsi_twisted.scsi.unit import LogicalUnit

Step: TypeAlias = tuple[int, int, bool, Callable[[], Any]]
"""Part of a command: its first byte, how many, whether they change, and what to call for it."""


Waiter: TypeAlias = tuple[ITask, Callable[..., None], tuple[Any, ...]]
"""A task that waits, and how it goes on."""


class Fence:
    """
    A range that others may have to wait for.

    @ivar task: whose it is.
    @ivar offset: its first byte.
    @ivar end: the byte after its last.
    @ivar waiting: what overlaps it and waits for its end.
    """

    __slots__ = ("_unit", "end", "offset", "task", "waiting")

    def __init__(self, unit: LogicalUnit, task: ITask, offset: int, end: int) -> None:
        self._unit = unit
        self.task = task
        self.offset = offset
        self.end = end
        self.waiting: list[Waiter] = []

    def park(self, task: ITask, resume: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """Let a task wait for this end; then it goes on with C{resume(*arguments)}."""
        self.waiting.append((task, resume, arguments))
        self._unit.room.parked += 1
        self._unit.room.entered()

    def forget(self, task: ITask) -> None:
        """A task that may have waited for this end does so no more."""
        left = [each for each in self.waiting if each[0] is not task]
        self._unit.room.parked -= len(self.waiting) - len(left)
        self.waiting = left

    def resume(self) -> None:
        """Let those go on that waited for this end; they may find another fence."""
        waiting, self.waiting = self.waiting, []
        self._unit.room.parked -= len(waiting)
        for task, resume, arguments in waiting:
            if not task.aborted:
                try:
                    resume(*arguments)
                except Exception as error:
                    self._unit.failed(task, error)


class Ongoing(Fence):
    """
    What is under way for a task.

    @ivar changes: it may change its range.
    @ivar done: it has ended.
    """

    __slots__ = ("changes", "done")

    def __init__(self, unit: LogicalUnit, task: ITask, offset: int, end: int, changes: bool = False) -> None:
        super().__init__(unit, task, offset, end)
        self.changes = changes
        self.done = False

    def cancel(self) -> None:
        """Give up, if that is possible."""


class Operation(Ongoing):
    """One device operation that is under way.  It may outlive its task."""

    __slots__ = ("_arguments", "_pending", "_then")

    def __init__(
        self,
        unit: LogicalUnit,
        task: ITask,
        pending: Pending,
        offset: int,
        end: int,
        changes: bool,
        then: Callable[..., None],
        arguments: tuple[Any, ...],
    ) -> None:
        super().__init__(unit, task, offset, end, changes)
        self._pending = pending
        self._then = then
        self._arguments = arguments

    def begin(self) -> None:
        """Wait for the device; it may be ready already."""
        self.task.operation = self
        self._unit.operations.add(self)
        self._unit.room.entered()
        self._pending.addCallbacks(self._succeeded, self._failed)

    def cancel(self) -> None:
        """Ask the device to give up."""
        self._pending.cancel()

    def _succeeded(self, result: Any) -> None:
        allegiance = self._unit.allegiance
        if allegiance.nexus is not None and allegiance.parks(self.task, self._succeeded, result):
            return
        self._end()
        if not self.task.aborted:
            try:
                self._then(result, *self._arguments)
            except Exception as error:
                self._unit.failed(self.task, error)
        self._ended()

    def _failed(self, failure: Any) -> None:
        allegiance = self._unit.allegiance
        if allegiance.nexus is not None and allegiance.parks(self.task, self._failed, failure):
            return
        self._end()
        self._unit.failed(self.task, failure.value)
        self._ended()

    def _end(self) -> None:
        self.done = True
        self._unit.operations.discard(self)
        self.task.operation = None
        if self.task.aborted:
            # It sends nothing, but its place is free now.
            self.task.fail(codes.TASK_ABORTED)

    def _ended(self) -> None:
        """Those that waited for this come after what its own task had to do."""
        unit = self._unit
        if self in unit.fences:
            unit.fences.remove(self)
        if self.waiting:
            self.resume()
        if unit.order.active:
            unit.order.advance()


class Exclusive(Fence):
    """
    A range that a task has to itself until it ends: what it reads there is still so when it writes.

    Only what overlaps waits.
    """

    __slots__ = ("_arguments", "_then")

    def __init__(
        self,
        unit: LogicalUnit,
        task: ITask,
        offset: int,
        end: int,
        then: Callable[..., None],
        arguments: tuple[Any, ...],
    ) -> None:
        super().__init__(unit, task, offset, end)
        self._then = then
        self._arguments = arguments

    def begin(self) -> None:
        """Go on when nothing that came before is at work in this range."""
        for operation in self._unit.operations:
            if (
                operation.offset < self.end
                and self.offset < operation.end
                and (operation.changes or not operation.task.aborted)
            ):
                operation.park(self.task, self.begin, ())
                return
        self._then(*self._arguments)

    def release(self) -> None:
        """Let the others have it."""
        self._unit.fences.remove(self)
        self.resume()


class Sequence:
    """
    Device operations of one task, one after the other; then C{then(result of the last, *arguments)}.

    Steps that are answered at once run in a loop and not in one another, so there may be many.
    """

    __slots__ = ("_arguments", "_due", "_looping", "_result", "_steps", "_task", "_then", "_unit")

    def __init__(
        self,
        unit: LogicalUnit,
        task: ITask,
        steps: Iterator[Step],
        then: Callable[..., None],
        *arguments: Any,
    ) -> None:
        self._unit = unit
        self._task = task
        self._steps = steps
        self._then = then
        self._arguments = arguments
        self._result: Any = None
        self._due = False
        self._looping = False

    def proceed(self, result: Any = None) -> None:
        """Begin, or go on after a step has ended with C{result}."""
        self._result = result
        self._due = True
        if self._looping:
            return
        self._looping = True
        try:
            while self._due:
                self._due = False
                self._next()
        finally:
            self._looping = False

    def _next(self) -> None:
        step = next(self._steps, None)
        if step is None:
            self._then(self._result, *self._arguments)
        else:
            self._perform(*step)

    def _perform(self, offset: int, length: int, writing: bool, call: Callable[[], Any]) -> None:
        unit, task = self._unit, self._task
        arguments = offset, length, writing, call
        if unit.fences and unit.held(task, offset, length, self._perform, *arguments):
            return
        result = call()
        if isPending(result):
            unit.pend(task, result, offset, length, writing, self.proceed)
        else:
            self.proceed(result)
