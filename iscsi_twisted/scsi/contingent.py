# -*- test-case-name: tests.scsi.test_contingent -*-
"""
Auto contingent allegiance (ACA; SAM-5 5.9): after an error of a command with NACA everything else waits.

The nexus that met the error is the faulted one.  It alone may send commands, with the task attribute ACA and
one at a time, until it clears the condition; all nexuses share one task set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from iscsi_twisted.interfaces import INexus, ITask
from iscsi_twisted.scsi.cdb import CDB_SIZES, PR_PREEMPT_AND_ABORT
from iscsi_twisted.scsi.codes import ACA, ACA_ACTIVE, BUSY, NACA

if TYPE_CHECKING:
    from iscsi_twisted.scsi.unit import LogicalUnit


def wantsACA(task: ITask) -> bool:
    """Whether an error of a command is to establish the condition: NACA in its CONTROL byte (SAM-5 5.2)."""
    size = CDB_SIZES.get(task.cdb[0] >> 5)
    return size is not None and bool(task.cdb[size - 1] & NACA)


def _preempts(task: ITask) -> bool:
    return (
        task.cdb[0] == PR_PREEMPT_AND_ABORT.opcode
        and task.cdb[1] & 0x1F == PR_PREEMPT_AND_ABORT.serviceAction
    )


class Allegiance:
    """
    The condition of one unit.

    @ivar nexus: the faulted nexus; None while there is no such condition.
    """

    __slots__ = ("_parked", "_unit", "nexus")

    def __init__(self, unit: LogicalUnit) -> None:
        self._unit = unit
        self._parked: list[tuple[ITask, Callable[..., object], tuple[Any, ...]]] = []
        self.nexus: INexus | None = None

    def admits(self, task: ITask) -> bool:
        """
        Whether a command may begin while the condition lasts (SAM-5 5.9.3); it is ended if not.
        """
        own = task.nexus is self.nexus
        if own and task.attribute == ACA:
            if not any(other.attribute == ACA for other in self._unit.outstanding()):
                return True
        elif not own and _preempts(task):
            return True
        self._unit.turnAway(task, ACA_ACTIVE if own or wantsACA(task) else BUSY)
        return False

    def failed(self, task: ITask) -> None:
        """
        A command has ended with CHECK CONDITION.

        Who may only read must not stop those who may write.
        """
        wanted = wantsACA(task)
        if self.nexus is None:
            if wanted and not self._unit.onlyReads(task.nexus):
                self.nexus = task.nexus
                self._unit.reconsider()
        elif task.attribute == ACA and not wanted:
            self.clear()

    def blocks(self, task: ITask) -> bool:
        """Whether a command that had begun before must not go on."""
        return task.attribute != ACA and not _preempts(task) and self._unit.isSent(task)

    def parks(self, task: ITask, function: Callable[..., object], *arguments: Any) -> bool:
        """Keep what a command would go on with until the condition is cleared, if it is blocked."""
        if not self.blocks(task):
            return False
        self._parked.append((task, function, arguments))
        return True

    def clear(self) -> None:
        """The condition is over: all go on."""
        if self.nexus is None:
            return
        self.nexus = None
        parked, self._parked = self._parked, []
        for task, function, arguments in parked:
            try:
                function(*arguments)
            except Exception as error:
                self._unit.failed(task, error)
        self._unit.order.advance()
