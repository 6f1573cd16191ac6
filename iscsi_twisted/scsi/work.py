# -*- test-case-name: tests.scsi.test_work -*-
"""
Long work of a unit, done piece by piece beside I/O.

It is begun by a command, but need not end with it: the command may have been answered at once (IMMED), or
be aborted while the work has to go on.  To the unit's devices it is a task of its own, that nobody sent.
Between two pieces others have their turn; how that is done comes in from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from zope.interface import implementer

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import Buffer, INexus, ITask, isPending
from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.operation import Ongoing, Step

if TYPE_CHECKING:
    from iscsi_twisted.scsi.unit import LogicalUnit

Later: TypeAlias = Callable[[Callable[[], None]], object]
"""Calls something in a later turn, when others have had theirs."""

WHOLE: Final = 1 << 16
"""What a progress indication is a part of (SPC-4 4.5.2.4.4)."""


def atOnce(function: Callable[[], None]) -> None:
    """The L{Later} of who has nobody to give a turn to."""
    function()


@implementer(INexus)
class Nobody:
    """The nexus of what no initiator has sent."""

    initiatorName = targetName = ""
    isid = b""
    portalGroupTag = 0
    readOnly = False
    luns = None


NOBODY: Final = Nobody()


@implementer(ITask)
class Work:
    """
    Work that is done piece by piece.

    @ivar unit: whose it is.
    @ivar at: the unit that its step concerns, if it concerns several.
    @ivar cdb: the command that began it.
    @ivar done: bytes of the pieces that are done.
    @ivar total: bytes that there are to do.
    @ivar condition: why it failed, or None.
    @ivar aborted: it was stopped.
    @ivar lasting: whether it goes on if the task that waits for it is aborted.
    @ivar carries: it writes what it has read, perhaps long ago.
    @ivar ended: it goes on no more.
    """

    nexus: INexus = NOBODY
    lun = 0
    flags = attribute = 1
    expected = 0

    def __init__(
        self,
        unit: LogicalUnit,
        cdb: bytes,
        total: int,
        then: Callable[[Work], None],
        *,
        asker: ITask | None = None,
        lasting: bool = False,
    ) -> None:
        """
        @param then: called when it has ended, well, badly, or because it was stopped.
        @param asker: the task whose status waits for its end.
        """
        self.unit = self.at = unit
        self.cdb = cdb
        self.total = total
        self.done = 0
        self.condition: CheckCondition | None = None
        self.aborted = self.ended = self.carries = False
        self.operation: Any = None
        self._then = then
        self.lasting = lasting
        self._steps: Iterator[Step] = iter(())
        self._due = self._looping = False
        self._asked = None if asker is None else Asked(unit, asker, self)
        self._units = {unit}
        unit.works.add(self)

    @property
    def sender(self) -> INexus | None:
        """The nexus of the task that waits for it, if one does."""
        return None if self._asked is None else self._asked.task.nexus

    @property
    def progress(self) -> int:
        """How far it is, in parts of L{WHOLE}; never all of it."""
        return min(WHOLE - 1, self.done * WHOLE // self.total) if self.total else 0

    def concerns(self, unit: LogicalUnit) -> None:
        """It concerns another unit as well: it stops when the device of that goes."""
        self._units.add(unit)
        unit.works.add(self)

    def begin(self, steps: Iterator[Step]) -> None:
        """Take the first step."""
        self._steps = steps
        self.proceed()

    def proceed(self, result: Any = None) -> None:
        """Take the next step."""
        self._due = True
        if self._looping:
            return
        self._looping = True
        try:
            while self._due and not self.ended:
                self._due = False
                self._next()
        finally:
            self._looping = False

    def _next(self) -> None:
        try:
            step = next(self._steps, None)
            if step is None:
                self.end()
            else:
                self._perform(*step)
        except Exception as error:
            self.at.failed(self, error)

    def _perform(self, offset: int, length: int, writing: bool, call: Callable[[], Any]) -> None:
        unit = self.at
        if unit.fences and unit.held(self, offset, length, self._perform, offset, length, writing, call):
            return
        result = call()
        if isPending(result):
            unit.pend(self, result, offset, length, writing, self._performed, length)
        else:
            self.done += length
            if length:
                self.unit.later(self.proceed)
            else:
                self.proceed()

    def _performed(self, result: Any, length: int) -> None:
        self.done += length
        self.proceed()

    def stop(self, why: CheckCondition | None = None) -> None:
        """
        Give it up after the piece that is being done.

        @param why: what the task that waits for it is told.
        """
        if self.ended or self.aborted:
            return
        self.aborted = True
        self.condition = why
        idle = self.operation is None
        self.at.abort(self)
        if idle:
            self.end()

    def answer(self) -> None:
        """End the task that waits for it, well; the work goes on."""
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.finish(None)

    def forsaken(self) -> bool:
        """
        The task that waited for it was aborted.

        @return: whether it goes on.
        """
        if self.lasting:
            self._asked = None
        else:
            self.stop()
        return self.lasting

    def end(self) -> None:
        """All is done that will be."""
        if self.ended:
            return
        self.ended = True
        for unit in self._units:
            unit.works.discard(self)
        # What its steps have taken they give back now.
        self._steps = iter(())
        self._then(self)
        self.unit.release(self)
        if self._asked is not None:
            self._asked.finish(self.condition)
        for unit in self._units:
            if unit.order.active:
                unit.order.advance()

    def broke(self, condition: CheckCondition) -> None:
        """A step has failed."""
        self.condition = condition
        self.end()

    # ITask

    def complete(self, data: Buffer = b"") -> None:
        """Nobody is told."""

    def fail(self, status: int, sense: bytes = b"") -> None:
        """The last operation of stopped work has ended."""
        self.end()

    def receive(self, length: int, then: Callable[..., None], *arguments: Any) -> bool:
        """Nobody sends anything."""
        return False

    def abort(self, tell: bool = False) -> None:
        """It is no task of any nexus."""


class Asked(Ongoing):
    """A task that waits for the end of work."""

    __slots__ = ("_work",)

    def __init__(self, unit: LogicalUnit, task: ITask, work: Work) -> None:
        super().__init__(unit, task, 0, 0)
        self._work = work
        task.operation = self
        unit.operations.add(self)

    def cancel(self) -> None:
        """The task was aborted; its place is free when the work has ended, or goes on without it."""
        if self._work.forsaken():
            self.finish(None)

    def finish(self, condition: CheckCondition | None) -> None:
        """End the task."""
        unit, task = self._unit, self.task
        self.done = True
        unit.operations.discard(self)
        task.operation = None
        if task.aborted:
            task.fail(codes.TASK_ABORTED)
        elif condition is not None:
            unit.failed(task, condition)
        elif self._work.aborted:
            unit.failed(task, CheckCondition(codes.NOT_READY, codes.NOT_READY_CAUSE_NOT_REPORTABLE))
        else:
            task.complete()
        if unit.order.active:
            unit.order.advance()
