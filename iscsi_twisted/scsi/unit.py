# -*- test-case-name: tests.scsi.test_unit -*-
"""What every logical unit does, whatever it stores: dispatch, unit attentions, errors, aborts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, ClassVar, TypeAlias

import attrs
from zope.interface import implementer

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import Buffer, ILogicalUnit, INexus, IReservationStore, ITask, Pending
from iscsi_twisted.scsi import codes, sense
from iscsi_twisted.scsi.attention import Attentions
from iscsi_twisted.scsi.cdb import EXEMPT, MEDIUM, PUBLIC, READS, SHARED, Command
from iscsi_twisted.scsi.identity import Identity
from iscsi_twisted.scsi.luns import ALONE
from iscsi_twisted.scsi.operation import Exclusive, Operation
from iscsi_twisted.scsi.order import Order
from iscsi_twisted.scsi.paths import BY_ITSELF, EXPLICIT, NONE, REFUSALS, SYMMETRIC
from iscsi_twisted.scsi.registrations import READABLE, Port, Registrations, Told, portOf
from iscsi_twisted.scsi.table import CommandTable
from iscsi_twisted.scsi.work import NOBODY, Asked, Later, Work, atOnce

Report: TypeAlias = Callable[[BaseException, ITask | None], None]
"""Called with what nobody expected, and the task that met it."""

_LOOKS = READS & ~MEDIUM
QUEUE_GOES_ON, ALL_ABORTED, _, NEXUS_ABORTED = range(4)
"""Values of QERR; SPC-4 table 360."""
_NOT_SIMPLE = 6
"""The bits of a task attribute that are zeros for untagged and SIMPLE."""
_RESETS = 0x29
"""Additional sense code of power on, resets and nexus loss."""


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


def reply(task: ITask, data: bytes, allocation: int) -> None:
    """End a task with parameter data, cut to the allocation length (SPC-4 4.2.5.6)."""
    task.complete(data if len(data) <= allocation else data[:allocation])


@implementer(ILogicalUnit)
class LogicalUnit:
    """
    A device server and its state.

    @cvar table: the commands.
    @cvar peripheral: peripheral qualifier and device type, the first byte of INQUIRY data.
    @cvar versions: version descriptors of INQUIRY data: SAM-5, iSCSI, SPC-4, SBC-3, in no certain version.
    @cvar pages: the VPD pages: page code to a function of unit and task.
    @ivar identity: who it says that it is.
    @ivar inventory: the units of its target; set by whoever makes that.
    @ivar paths: how it is reached.
    @ivar notReady: why commands that need the medium are refused, or 0 if they are not.
    @ivar removable: whether the medium can be taken out.
    @ivar tellsAborted: whether a task that another nexus aborts ends with TASK ABORTED.
    @ivar queueError: QERR: what becomes of other tasks after a CHECK CONDITION (SPC-4 7.5.8).
    @ivar descriptorSense: whether sense data have descriptor format.
    @ivar holder: the nexus that has reserved the unit, or None.
    @ivar registrations: persistent reservations.
    @ivar store: keeps them through a loss of power, or None.
    @ivar stored: something is in it.
    @ivar operations: what devices work on, and tasks that wait for long work.
    @ivar works: long work that is under way.
    @ivar later: how it lets others have their turn.
    @ivar receiving: tasks whose Data-Out has not come yet.
    @ivar fences: what overlapping I/O waits for: operations of aborted tasks that still run and may yet
        change something, and ranges that a task has to itself.
    @ivar order: the tasks that may not begin yet.
    @ivar waitedReads: reads that the device did not answer at once.
    @ivar readErrors: commands that failed because the medium could not be read; C{writeErrors}, written.
    @ivar otherErrors: commands that a device has failed for another reason.
    """

    table: ClassVar[CommandTable]
    peripheral: ClassVar[int] = 0x00
    versions: ClassVar[tuple[int, ...]] = (0x00A0, 0x0960, 0x0460, 0x04C0)
    pages: ClassVar[dict[int, Callable[[Any, ITask], bytes]]] = {}
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
        clock: Callable[[], float] = perf_counter,
        later: Later = atOnce,
    ) -> None:
        self.identity = identity
        self.inventory = ALONE
        self.paths = SYMMETRIC
        self.notReady = 0
        self.holder: INexus | None = None
        self.registrations = Registrations()
        self.store: IReservationStore | None = None
        self.stored = False
        self.operations: set[Operation | Asked] = set()
        self.works: set[Work] = set()
        self.later = later
        self.receiving: set[ITask] = set()
        self.fences: list[Operation | Exclusive] = []
        self.order = Order(self)
        self.clock = clock
        self._report = report
        self._attentions = Attentions()
        self._handlers = self.table.handlers
        self._unusual = False
        self.commands = self.errors = self.reads = self.writes = self.readBytes = self.writtenBytes = 0
        self.readSeconds = self.writeSeconds = self.latencyMax = 0.0
        self.waitedReads = self.readErrors = self.writeErrors = self.otherErrors = 0

    # ILogicalUnit

    def execute(self, task: ITask) -> None:
        """Begin a command, or let it wait for its turn."""
        self.commands += 1
        if self._unusual or task.flags & _NOT_SIMPLE:
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
        writing = command is not None and not command.access & _LOOKS
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
        if self.fences:
            self.release(task)
        if self.order.active:
            self.order.advance()

    def tally(self, command: Command | None, condition: CheckCondition) -> None:
        """Count an error of a device, for those who ask for its history."""
        if condition.key == codes.MEDIUM_ERROR and command is not None:
            if command.access & _LOOKS:
                self.readErrors += 1
            else:
                self.writeErrors += 1
        elif condition.key in (codes.HARDWARE_ERROR, codes.ABORTED_COMMAND):
            self.otherErrors += 1

    def abort(self, task: ITask) -> None:
        """Give up what a device does for a task; fence it off while it does not stop."""
        self.receiving.discard(task)
        operation: Operation | Asked | None = task.operation
        if operation is None:
            for waited in (*self.fences, *self.operations):
                waited.forget(task)
        else:
            operation.cancel()
            if isinstance(operation, Operation) and operation.changes and not operation.done:
                self.fences.append(operation)
            elif not operation.done:
                operation.resume()
        self.release(task)
        if self.order.active:
            self.order.forget(task)

    def _abortOthers(self, task: ITask) -> None:
        """A task ended with CHECK CONDITION: abort what QERR says (SPC-4 7.5.8)."""
        for other in self._outstanding() - {task}:
            own = other.nexus is task.nexus
            if not own and self.queueError == NEXUS_ABORTED:
                continue
            other.abort(not own and self.tellsAborted)
            if not own and not self.tellsAborted:
                self.attention(codes.COMMANDS_CLEARED, other.nexus)

    def _outstanding(self) -> set[ITask]:
        """The tasks that have not ended."""
        parked = {waiter[0] for fence in (*self.fences, *self.operations) for waiter in fence.waiting}
        working = {operation.task for operation in self.operations}
        begun = self.receiving | parked | working
        return {
            task for task in begun.union(self.order.dormant) if not task.aborted and task.nexus is not NOBODY
        }

    def nexusFound(self, nexus: INexus) -> None:
        """A session began: it is told of the power on (SAM-5 6.3.1)."""
        self._attentions.found(nexus)
        self.reconsider()

    def nexusLost(self, nexus: INexus) -> None:
        """A session ended (SAM-5 6.3.4)."""
        self._attentions.lost(nexus)
        if self.holder is nexus:
            self.holder = None
        self.reconsider()

    def attention(self, code: int, nexus: INexus | None = None, but: INexus | None = None) -> None:
        """Establish a unit attention condition for one known nexus, or for all but one."""
        self._attentions.establish(code, nexus, but)
        self.reconsider()

    def reset(self, code: int, but: INexus | None = None) -> None:
        """Logical unit reset (SAM-5 6.3.3)."""
        self.holder = None
        self.attention(code, but=but)

    # What is unusual

    def reconsider(self) -> None:
        """Find out whether commands must go the long way."""
        self._unusual = bool(
            self._attentions.pending
            or self.notReady
            or self.holder is not None
            or self.order.active
            or self.registrations.lost
            or (
                self.paths.uneven
                and any(
                    self.paths.state(nexus.portalGroupTag) in REFUSALS for nexus in self._attentions.known()
                )
            )
            # A reservation costs nothing while all that are here may do everything.
            or any(map(self._restricted, self._attentions.known() if self.registrations.type else ()))
        )

    def keep(self, store: IReservationStore) -> None:
        """
        Take over the persistent reservations that a store has kept, and keep them there.

        @raise ValueError: if what it has is damaged.  Whoever may be kept out is, until an initiator replaces
            what was lost (SPC-4 5.13.11.3).
        """
        self.store = store
        try:
            self.registrations.restore(store.load())
        except ValueError:
            self.registrations.lost = True
            raise
        finally:
            self.stored = self.registrations.kept or self.registrations.lost
            self.reconsider()

    def _restricted(self, nexus: INexus) -> bool:
        """Whether a persistent reservation keeps a nexus from anything."""
        return bool(self.registrations.type) and self.registrations.restricts(portOf(nexus))

    @property
    def asymmetric(self) -> bool:
        """Whether it tells of access states."""
        return self.paths.tpgs != NONE

    @property
    def explicit(self) -> bool:
        """Whether initiators may change access states."""
        return bool(self.paths.tpgs & EXPLICIT)

    def setAccess(self, states: Mapping[int, int], by: INexus | None = None, cause: int = BY_ITSELF) -> None:
        """
        Let target port groups have these access states; all nexuses but the one that asked are told.

        @raise LocalError: for groups or states that there are not.
        """
        if self.paths.change(states, cause):
            self.attention(codes.ACCESS_CHANGED, but=by)

    def accessFailed(self) -> None:
        """Access states could not be changed as they should be: all nexuses are told (SPC-4 5.15.2.7)."""
        self.attention(codes.ACCESS_NOT_CHANGED)

    def tellPorts(self, told: Told) -> None:
        """Establish unit attention conditions for those of these ports that are here."""
        for nexus in self._attentions.known():
            code = self.registrations.codeFor(told, portOf(nexus))
            if code is not None:
                self._attentions.establish(code, nexus, None)
        self.reconsider()

    def abortNexuses(self, ports: set[Port], but: ITask) -> None:
        """Abort all tasks that came from these ports (SPC-4 5.13.11.2.5)."""
        for other in self._outstanding() - {but}:
            port = portOf(other.nexus)
            if port in ports or port.anyISID() in ports:
                other.abort()

    def _allowed(self, access: int) -> bool:
        """Whether a command may be done beside a persistent reservation of another (SPC-4 5.13.1.3)."""
        if access & (PUBLIC | SHARED):
            return True
        return bool(access & _LOOKS) and self.registrations.type in READABLE

    def pendingCondition(self) -> CheckCondition | None:
        """What REQUEST SENSE tells if there is no unit attention condition, or None (SPC-4 6.39)."""
        return CheckCondition(codes.NOT_READY, self.notReady) if self.notReady else None

    def _refuses(self, task: ITask) -> bool:
        """
        Refuse a command because of the state of the unit or the nexus.

        What comes first is what SAM-5 5.3.3 says: resets, reservations, all else.

        @return: True if the task was ended.
        @raise CheckCondition: a unit attention, or NOT READY.
        """
        nexus = task.nexus
        queue = self._attentions.pending.get(nexus)
        reserved = self.holder is not None and self.holder is not nexus
        fenced = self._restricted(nexus)
        lost = self.registrations.lost
        closed = self.paths.uneven and self.paths.refusal(nexus.portalGroupTag, task.cdb)
        if not (queue or reserved or fenced or lost or closed or self.notReady):
            return False
        command = self.table.find(task.cdb)
        # What nobody knows is refused as that.
        access = SHARED if command is None else command.access
        if access & EXEMPT:
            return False
        reserved = (reserved and not access & SHARED) or (fenced and not self._allowed(access))
        if queue and not (reserved and queue[0] >> 8 != _RESETS):
            code = self.takeAttention(nexus)
            assert code is not None
            raise CheckCondition(codes.UNIT_ATTENTION, code)
        if reserved:
            task.fail(codes.RESERVATION_CONFLICT)
            return True
        if lost and not access & (SHARED | PUBLIC):
            raise CheckCondition(codes.HARDWARE_ERROR, codes.RESERVATIONS_LOST)
        if closed:
            raise CheckCondition(codes.NOT_READY, closed)
        if self.notReady and access & MEDIUM:
            raise CheckCondition(codes.NOT_READY, self.notReady)
        return False

    def reservedAgainst(self, nexus: INexus) -> bool:
        """Whether another nexus has reserved the unit."""
        return (self.holder is not None and self.holder is not nexus) or self._restricted(nexus)

    def reserve(self, nexus: INexus | None) -> None:
        """Reserve the unit for a nexus, or for nobody."""
        self.holder = nexus
        self.reconsider()

    def busy(self) -> bool:
        """Whether some task has begun and not ended; those that were aborted do not count."""
        return bool(
            self.receiving
            or any(not each.task.aborted and each.task.nexus is not NOBODY for each in self.operations)
            or any(fence.waiting for fence in self.fences)
        )

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

    # Data that take their time

    def receive(self, task: ITask, length: int, then: Callable[..., None], *arguments: Any) -> None:
        """Fetch Data-Out, and go on with C{then(task, data, *arguments)}."""
        if task.receive(length, self._received, then, arguments):
            self.receiving.add(task)

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
                fence.waiting.append((task, resume, arguments))
                return True
        return False

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
        )
