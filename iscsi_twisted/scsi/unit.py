# -*- test-case-name: tests.scsi.test_unit -*-
"""What every logical unit does, whatever it stores: dispatch, unit attentions, errors, aborts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, ClassVar, TypeAlias

import attrs
from zope.interface import implementer

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import ILogicalUnit, INexus, ITask, Pending
from iscsi_twisted.scsi import codes, sense
from iscsi_twisted.scsi.attention import Attentions
from iscsi_twisted.scsi.cdb import EXEMPT, MEDIUM, READS
from iscsi_twisted.scsi.identity import Identity
from iscsi_twisted.scsi.operation import Operation
from iscsi_twisted.scsi.table import CommandTable

Report: TypeAlias = Callable[[BaseException, ITask | None], None]
"""Called with what nobody expected, and the task that met it."""

_LOOKS = READS & ~MEDIUM


@attrs.frozen
class UnitStatus:
    """
    A logical unit's counters at one moment.

    @ivar errors: commands that ended with CHECK CONDITION.
    @ivar inFlight: device operations that have not ended, those of aborted tasks too.
    @ivar latencySum: seconds that reads and writes spent in the device, added up.
    @ivar latencyMax: seconds of the slowest.
    """

    commands: int
    errors: int
    reads: int
    writes: int
    readBytes: int
    writtenBytes: int
    inFlight: int
    latencySum: float
    latencyMax: float


def noUnits(nexus: INexus) -> Sequence[int]:
    """The inventory of a unit that belongs to no target yet."""
    return ()


def reply(task: ITask, data: bytes, allocation: int) -> None:
    """End a task with parameter data, cut to the allocation length (SPC-4 4.2.5.6)."""
    task.complete(data if len(data) <= allocation else data[:allocation])


@implementer(ILogicalUnit)
class LogicalUnit:
    """
    A device server and its state.

    @cvar table: the commands.
    @cvar peripheral: peripheral qualifier and device type, the first byte of INQUIRY data.
    @cvar pages: the VPD pages: page code to a function of unit and task.
    @ivar identity: who it says that it is.
    @ivar inventory: which LUNs a nexus may see; set by the target.
    @ivar notReady: why commands that need the medium are refused, or 0 if they are not.
    @ivar descriptorSense: whether sense data have descriptor format.
    @ivar fences: operations of aborted tasks that still run and may yet change something.
    """

    table: ClassVar[CommandTable]
    peripheral: ClassVar[int] = 0x00
    pages: ClassVar[dict[int, Callable[[Any, ITask], bytes]]] = {}
    blockSize = 1
    descriptorSense = False

    def __init__(
        self, identity: Identity, report: Report, *, clock: Callable[[], float] = perf_counter
    ) -> None:
        self.identity = identity
        self.inventory: Callable[[INexus], Sequence[int]] = noUnits
        self.notReady = 0
        self.fences: list[Operation] = []
        self.clock = clock
        self._report = report
        self._attentions = Attentions()
        self._handlers = self.table.handlers
        self._unusual = False
        self.commands = self.errors = self.reads = self.writes = self.readBytes = self.writtenBytes = 0
        self.inFlight = 0
        self.latencySum = self.latencyMax = 0.0

    # ILogicalUnit

    def execute(self, task: ITask) -> None:
        """Begin a command.  (All task attributes are treated as SIMPLE.)"""
        self.commands += 1
        if self._unusual:
            self._checkUnusual(task)
        self._handlers[task.cdb[0]](self, task)

    def failed(self, task: ITask, error: BaseException) -> None:
        """End a task with the status and sense for an exception."""
        command = self.table.find(task.cdb)
        # A flush that fails has lost what was written.
        writing = command is not None and not command.access & _LOOKS
        condition = sense.conditionOf(error, writing, self.blockSize)
        if condition is None:
            # The CancelledError of an aborted task is what was asked for.
            if not (task.aborted and type(error).__name__ == "CancelledError"):
                self._report(error, task)
            condition = CheckCondition(codes.HARDWARE_ERROR, codes.INTERNAL_TARGET_FAILURE)
        if not task.aborted:
            self.errors += 1
            task.fail(codes.CHECK_CONDITION, sense.encode(condition, self.descriptorSense))

    def abort(self, task: ITask) -> None:
        """Give up what a device does for a task; fence it off while it does not stop."""
        operation: Operation | None = task.operation
        if operation is None:
            for fence in self.fences:
                fence.forget(task)
            return
        operation.cancel()
        if not operation.done and operation.end > operation.offset:
            self.fences.append(operation)

    def nexusFound(self, nexus: INexus) -> None:
        """A session began: it is told of the power on (SAM-5 6.3.1)."""
        self._attentions.found(nexus)
        self.reconsider()

    def nexusLost(self, nexus: INexus) -> None:
        """A session ended (SAM-5 6.3.4)."""
        self._attentions.lost(nexus)
        self.reconsider()

    def attention(self, code: int, nexus: INexus | None = None, but: INexus | None = None) -> None:
        """Establish a unit attention condition for one known nexus, or for all but one."""
        self._attentions.establish(code, nexus, but)
        self.reconsider()

    def reset(self, code: int, but: INexus | None = None) -> None:
        """Logical unit reset (SAM-5 6.3.3)."""
        self.attention(code, but=but)

    # What is unusual

    def reconsider(self) -> None:
        """Find out whether commands must go the long way."""
        self._unusual = bool(self._attentions.pending or self.notReady)

    def _checkUnusual(self, task: ITask) -> None:
        """Refuse a command because of the state of the unit or the nexus."""
        if not (self.notReady or task.nexus in self._attentions.pending):
            return
        command = self.table.find(task.cdb)
        access = 0 if command is None else command.access
        if access & EXEMPT:
            return
        code = self.takeAttention(task.nexus)
        if code is not None:
            raise CheckCondition(codes.UNIT_ATTENTION, code)
        if self.notReady and access & MEDIUM:
            raise CheckCondition(codes.NOT_READY, self.notReady)

    def takeAttention(self, nexus: INexus) -> int | None:
        """The next unit attention condition of a nexus, which clears it."""
        code = self._attentions.take(nexus)
        if code is not None:
            self.reconsider()
        return code

    def clearAttention(self, nexus: INexus, code: int) -> None:
        """Forget a unit attention condition of a nexus."""
        self._attentions.clear(nexus, code)
        self.reconsider()

    def invalidField(self, task: ITask, field: str, bit: int | None = None) -> CheckCondition:
        """INVALID FIELD IN CDB, pointing at a field of the command's declaration."""
        return self.refusal(task, codes.INVALID_FIELD_IN_CDB, field, bit)

    def refusal(
        self, task: ITask, code: int, field: str, bit: int | None = None, information: int | None = None
    ) -> CheckCondition:
        """ILLEGAL REQUEST, pointing at a field of the command's declaration."""
        command = self.table.find(task.cdb)
        place = None if command is None else command.layout.offsets[field]
        return CheckCondition(codes.ILLEGAL_REQUEST, code, field=place, bit=bit, information=information)

    # Devices that take their time

    def pend(
        self,
        task: ITask,
        pending: Pending,
        offset: int,
        length: int,
        then: Callable[..., None],
        *arguments: Any,
    ) -> None:
        """
        Go on with C{then(result, *arguments)} when a device has answered, unless the task was aborted.

        @param offset: the first byte that the operation may change.
        @param length: how many bytes it may change.
        """
        Operation(self, task, pending, offset, offset + length, then, arguments).begin()

    def held(
        self, task: ITask, offset: int, length: int, resume: Callable[..., None], *arguments: Any
    ) -> bool:
        """
        Let I/O wait for a fence that it overlaps.

        @return: whether it waits; C{resume(*arguments)} is then called once that operation has ended.
        """
        for operation in self.fences:
            if operation.offset < offset + length and offset < operation.end:
                operation.waiting.append((task, resume, arguments))
                return True
        return False

    def snapshot(self) -> UnitStatus:
        """The counters as they are now."""
        return UnitStatus(
            commands=self.commands,
            errors=self.errors,
            reads=self.reads,
            writes=self.writes,
            readBytes=self.readBytes,
            writtenBytes=self.writtenBytes,
            inFlight=self.inFlight,
            latencySum=self.latencySum,
            latencyMax=self.latencyMax,
        )
