# -*- test-case-name: tests.scsi.test_unit -*-
"""What every logical unit does, whatever it stores: dispatch, unit attentions, errors, aborts."""

from __future__ import annotations

from collections.abc import Callable, Collection
from time import perf_counter
from typing import Any, ClassVar, TypeAlias

import attrs
from zope.interface import implementer

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import Buffer, ILogicalUnit, INexus, ITask, Pending
from iscsi_twisted.scsi import codes, sense
from iscsi_twisted.scsi.cdb import LOOKS, Command
from iscsi_twisted.scsi.contingent import Allegiance
from iscsi_twisted.scsi.guard import Guard
from iscsi_twisted.scsi.identity import Identity
from iscsi_twisted.scsi.luns import ALONE
from iscsi_twisted.scsi.operation import Exclusive, Ongoing, Operation
from iscsi_twisted.scsi.order import Order
from iscsi_twisted.scsi.registrations import Port, isOneOf, portOf
from iscsi_twisted.scsi.room import QUEUE, Room
from iscsi_twisted.scsi.table import CommandTable
from iscsi_twisted.scsi.work import NOBODY, Later, Work, atOnce

Report: TypeAlias = Callable[[BaseException, ITask | None], None]
"""Called with what nobody expected, and the task that met it."""

QUEUE_GOES_ON, ALL_ABORTED, _, NEXUS_ABORTED = range(4)
"""Values of QERR; SPC-4 table 360."""
_NOT_SIMPLE = 6
"""The bits of a task attribute that are zeros for untagged and SIMPLE."""


@attrs.frozen
class UnitStatus:
    """
    A logical unit's counters at one moment.

    @ivar errors: commands that ended with CHECK CONDITION.
    @ivar inFlight: device operations that have not ended, those of aborted tasks too.
    @ivar sentBack: commands that ended with TASK SET FULL or BUSY.
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
    sentBack: int


def reply(task: ITask, data: bytes, allocation: int) -> None:
    """End a task with parameter data, cut to the allocation length (SPC-4 4.2.5.6)."""
    task.complete(data if len(data) <= allocation else data[:allocation])


@implementer(ILogicalUnit)
class LogicalUnit(Guard):
    """
    A device server and its state.

    @cvar table: the commands.
    @cvar peripheral: peripheral qualifier and device type, the first byte of INQUIRY data.
    @cvar versions: version descriptors of INQUIRY data: SAM-5, iSCSI, SPC-4, SBC-3, in no certain version.
    @cvar copyable: it may be an end of an EXTENDED COPY.
    @cvar pages: the VPD pages: page code to a function of unit and task.
    @cvar normalACA: whether commands may ask for auto contingent allegiance.
    @ivar identity: who it says that it is.
    @ivar inventory: the units of its target; set by whoever makes that.
    @ivar removable: whether the medium can be taken out.
    @ivar tellsAborted: whether a task that another nexus aborts ends with TASK ABORTED.
    @ivar queueError: QERR: what becomes of other tasks after a CHECK CONDITION (SPC-4 7.5.8).
    @ivar descriptorSense: whether sense data have descriptor format.
    @ivar operations: what devices work on, and tasks that wait for long work.
    @ivar works: long work that is under way.
    @ivar later: how it lets others have their turn.
    @ivar receiving: tasks whose Data-Out has not come yet.
    @ivar fences: what overlapping I/O waits for: operations of aborted tasks that still run and may yet
        change something, and ranges that a task has to itself.
    @ivar order: the tasks that may not begin yet.
    @ivar allegiance: auto contingent allegiance.
    @ivar waitedReads: reads that the device did not answer at once.
    @ivar readErrors: commands that failed because the medium could not be read; C{writeErrors}, written.
    @ivar otherErrors: commands that a device has failed for another reason.
    @ivar room: how many tasks there may be at a time.
    """

    table: ClassVar[CommandTable]
    peripheral: ClassVar[int] = 0x00
    versions: ClassVar[tuple[int, ...]] = (0x00A0, 0x0960, 0x0460, 0x04C0)
    pages: ClassVar[dict[int, Callable[[Any, ITask], bytes]]] = {}
    normalACA: ClassVar[bool] = True
    copyable: ClassVar[bool] = False
    blockSize = 1
    removable = False
    descriptorSense = False
    tellsAborted = False
    queueError = QUEUE_GOES_ON

    def __init__(
        self,
        identity: Identity,
        report: Report,
        *,
        queue: int = QUEUE,
        clock: Callable[[], float] = perf_counter,
        later: Later = atOnce,
    ) -> None:
        super().__init__()
        self.identity = identity
        self.inventory = ALONE
        self.operations: set[Ongoing] = set()
        self.works: set[Work] = set()
        self.later = later
        self.receiving: set[ITask] = set()
        self.fences: list[Ongoing | Exclusive] = []
        self.order = Order(self)
        self.room = Room(self, queue)
        self.allegiance = Allegiance(self)
        self.clock = clock
        self._report = report
        self._handlers = self.table.handlers
        self.commands = self.errors = self.reads = self.writes = self.readBytes = self.writtenBytes = 0
        self.readSeconds = self.writeSeconds = self.latencyMax = 0.0
        self.waitedReads = self.readErrors = self.writeErrors = self.otherErrors = 0

    # ILogicalUnit

    def execute(self, task: ITask) -> None:
        """Begin a command, or let it wait for its turn."""
        self.commands += 1
        if self._unusual or task.flags & _NOT_SIMPLE:
            if not task.flags & _NOT_SIMPLE and self.passes(task.nexus):
                self._handlers[task.cdb[0]](self, task)
            elif not (self.room.crowded and self.room.refuses(task)):
                self.order.enter(task)
        else:
            self._handlers[task.cdb[0]](self, task)

    def begin(self, task: ITask) -> None:
        """Begin a command whose turn it is, after a look at what is unusual."""
        if not self._refuses(task):
            self._handlers[task.cdb[0]](self, task)

    def failed(self, task: ITask, error: BaseException) -> None:
        """End a task with the status and sense for an exception."""
        command = self.table.find(task.cdb)
        # A flush that fails has lost what was written.
        writing = command is not None and not command.access & LOOKS
        condition = sense.conditionOf(error, writing, self.blockSize)
        if condition is None:
            # The CancelledError of an aborted task is what was asked for.
            if not (task.aborted and type(error).__name__ == "CancelledError"):
                self._report(error, task)
            condition = CheckCondition(codes.HARDWARE_ERROR, codes.INTERNAL_TARGET_FAILURE)
        self.receiving.discard(task)
        if isinstance(task, Work):
            if not task.aborted:
                task.broke(condition)
        elif not task.aborted:
            self.errors += 1
            self.tally(command, condition)
            task.fail(codes.CHECK_CONDITION, sense.encode(condition, self.descriptorSense))
            if self.queueError:
                self._abortOthers(task)
            if self.normalACA:
                self.allegiance.failed(task)
        if self.fences:
            self.release(task)
        if self.order.active:
            self.order.advance()

    def tally(self, command: Command | None, condition: CheckCondition) -> None:
        """Count an error of a device, for those who ask for its history."""
        if condition.key == codes.MEDIUM_ERROR and command is not None:
            if command.access & LOOKS:
                self.readErrors += 1
            else:
                self.writeErrors += 1
        elif condition.key in (codes.HARDWARE_ERROR, codes.ABORTED_COMMAND):
            self.otherErrors += 1

    def abort(self, task: ITask) -> None:
        """Give up what a device does for a task; fence it off while it does not stop."""
        self.receiving.discard(task)
        operation: Ongoing | None = task.operation
        if operation is None:
            for waited in (*self.fences, *self.operations):
                waited.forget(task)
        else:
            operation.cancel()
            if operation.changes and not operation.done:
                self.fences.append(operation)
            elif not operation.done:
                operation.resume()
        self.release(task)
        if self.order.active:
            self.order.forget(task)

    def _abortOthers(self, task: ITask) -> None:
        """
        A task ended with CHECK CONDITION: abort what QERR says (SPC-4 7.5.8); but who may only read aborts
        nothing of those who may write.
        """
        ownAlone = self.queueError == NEXUS_ABORTED or self.onlyReads(task.nexus)
        for other in self.outstanding() - {task}:
            own = other.nexus is task.nexus
            if not own and ownAlone:
                continue
            other.abort(not own and self.tellsAborted)
            if not own and not self.tellsAborted:
                self.attention(codes.COMMANDS_CLEARED, other.nexus)

    def outstanding(self) -> set[ITask]:
        """The tasks that have not ended."""
        parked = {waiter[0] for fence in (*self.fences, *self.operations) for waiter in fence.waiting}
        working = {operation.task for operation in self.operations}
        begun = self.receiving | parked | working
        return {
            task for task in begun.union(self.order.dormant) if not task.aborted and task.nexus is not NOBODY
        }

    def stopCopies(self, why: CheckCondition, ports: Collection[Port] | None = None) -> None:
        """
        Stop copies from or to this unit: what they have read must not be written any more.

        @param why: what those are told that wait for their ends.
        @param ports: only copies that came through these ports.
        """
        for work in [each for each in self.works if each.carries]:
            sender = work.sender
            if ports is None or (sender is not None and isOneOf(portOf(sender), ports)):
                work.stop(why)

    def reset(self, code: int, but: INexus | None = None) -> None:
        """Logical unit reset (SAM-5 6.3.3): other units' copies from here, or to here, are given up."""
        self.stopCopies(CheckCondition(codes.ABORTED_COMMAND, codes.NO_ADDITIONAL_SENSE))
        super().reset(code, but)

    def abortNexuses(self, ports: set[Port], but: ITask) -> None:
        """Abort all tasks that came from these ports, and what other units write here for them."""
        super().abortNexuses(ports, but)
        self.stopCopies(CheckCondition(codes.ABORTED_COMMAND, codes.NO_ADDITIONAL_SENSE), ports)

    def busy(self) -> bool:
        """
        Whether some task has begun and not ended; those that were aborted do not count, nor those whose data
        are missing and that may only read.
        """
        return bool(
            any(not self.onlyReads(task.nexus) for task in self.receiving)
            or any(not each.task.aborted and each.task.nexus is not NOBODY for each in self.operations)
            or any(fence.waiting for fence in self.fences)
        )

    def isSent(self, task: ITask) -> bool:
        """Whether an initiator has sent it: long work is a task, too, that nobody sent."""
        return task.nexus is not NOBODY

    def clearACA(self, nexus: INexus) -> None:
        """CLEAR ACA of the faulted nexus: its ACA task is aborted, and all others go on (SAM-5 7.4)."""
        if self.allegiance.nexus is nexus:
            for task in self.outstanding():
                if task.attribute == codes.ACA:
                    task.abort()
            self.allegiance.clear()

    def occupied(self) -> bool:
        """Whether the device is at work for any task, or soon will be: one that was aborted counts too."""
        return bool(self.receiving or self.operations or self.fences or self.works)

    def hold(self, idle: Callable[[], None]) -> None:
        """
        Hold commands back that have not begun; past a bound they end with TASK SET FULL.

        @param idle: called, perhaps at once, when nothing is at work: the device may then be exchanged.
        """
        self.order.hold(idle)

    def resume(self) -> None:
        """Go on with the commands that were held back."""
        self.order.resume()

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

    # Data that take their time

    def receive(self, task: ITask, length: int, then: Callable[..., None], *arguments: Any) -> None:
        """Fetch Data-Out, and go on with C{then(task, data, *arguments)}."""
        if task.receive(length, self._received, then, arguments):
            self.receiving.add(task)
            self.room.entered()

    def _received(
        self, task: ITask, data: Buffer, then: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        if not self.arrived(task, data, then, *arguments):
            then(task, data, *arguments)

    def arrived(self, task: ITask, data: Buffer, then: Callable[..., None], *arguments: Any) -> bool:
        """
        Data-Out has come, while some task was waiting for its own.

        @return: whether it was this one that waited; C{then(task, data, *arguments)} has been called.
        """
        if task not in self.receiving:
            return False
        if self.allegiance.nexus is not None and self.allegiance.parks(
            task, self.arrived, task, data, then, *arguments
        ):
            return True
        self.receiving.discard(task)
        then(task, data, *arguments)
        if self.order.active:
            self.order.advance()
        return True

    # Devices that take their time

    def pend(
        self,
        task: ITask,
        pending: Pending,
        offset: int,
        length: int,
        changes: bool,
        then: Callable[..., None],
        *arguments: Any,
    ) -> None:
        """
        Go on with C{then(result, *arguments)} when a device has answered, unless the task was aborted.

        @param offset: the first byte that the operation touches.
        @param length: how many bytes it touches.
        @param changes: whether it may change them.
        """
        Operation(self, task, pending, offset, offset + length, changes, then, arguments).begin()

    def held(
        self, task: ITask, offset: int, length: int, resume: Callable[..., None], *arguments: Any
    ) -> bool:
        """
        Let I/O wait for a fence that it overlaps.

        @return: whether it waits; C{resume(*arguments)} is then called once that has ended.
        """
        for fence in self.fences:
            if fence.offset < offset + length and offset < fence.end and fence.task is not task:
                fence.park(task, resume, arguments)
                return True
        return False

    def fenced(self, task: ITask, offset: int, length: int) -> bool:
        """Whether I/O would have to wait for a fence that it overlaps."""
        return any(
            fence.offset < offset + length and offset < fence.end and fence.task is not task
            for fence in self.fences
        )

    def exclude(
        self, task: ITask, offset: int, length: int, then: Callable[..., None], *arguments: Any
    ) -> None:
        """
        Give a task a range to itself, then go on with C{then(*arguments)}.

        What came before and overlaps is waited for; what comes later and overlaps waits until the task
        ends (L{release}).
        """
        if self.held(task, offset, length, self.exclude, task, offset, length, then, *arguments):
            return
        fence = Exclusive(self, task, offset, offset + length, then, arguments)
        self.fences.append(fence)
        fence.begin()

    def release(self, task: ITask) -> None:
        """A task has ended, or was aborted: it has no range to itself any more."""
        for fence in [each for each in self.fences if isinstance(each, Exclusive) and each.task is task]:
            fence.release()

    def snapshot(self) -> UnitStatus:
        """The counters as they are now."""
        return UnitStatus(
            commands=self.commands,
            errors=self.errors,
            reads=self.reads,
            writes=self.writes,
            readBytes=self.readBytes,
            writtenBytes=self.writtenBytes,
            inFlight=len(self.operations),
            latencySum=self.readSeconds + self.writeSeconds,
            latencyMax=self.latencyMax,
            sentBack=self.room.sentBack,
        )
