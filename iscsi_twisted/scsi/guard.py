# -*- test-case-name: tests.scsi.test_unit,tests.scsi.test_persistent,tests.scsi.test_paths -*-
"""
What may keep a command from a unit: unit attentions, reservations, access states, a medium that is not ready.

The ordinary case is one test: C{_unusual}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Final

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import INexus, IReservationStore, ITask
from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.attention import Attentions
from iscsi_twisted.scsi.cdb import EXEMPT, LOOKS, MEDIUM, PUBLIC, SHARED, Command
from iscsi_twisted.scsi.paths import BY_ITSELF, EXPLICIT, NONE, REFUSALS, SYMMETRIC
from iscsi_twisted.scsi.registrations import READABLE, Port, Registrations, Told, isOneOf, portOf

if TYPE_CHECKING:
    from iscsi_twisted.scsi.closure import Closure
    from iscsi_twisted.scsi.contingent import Allegiance
    from iscsi_twisted.scsi.order import Order
    from iscsi_twisted.scsi.room import Room
    from iscsi_twisted.scsi.table import CommandTable

_RESETS: Final = 0x29
"""Additional sense code of power on, resets and nexus loss."""


CLEARED, _, KEPT, KEPT_AND_MORE = range(4)
"""
Values of UA_INTLCK_CTRL: a unit attention condition is cleared when it was told; or only by REQUEST SENSE;
and then one is established for each of the statuses that turn a command away.
"""
_PREVIOUS: Final[Mapping[int, int]] = {
    codes.BUSY: codes.PREVIOUS_BUSY,
    codes.TASK_SET_FULL: codes.PREVIOUS_FULL,
    codes.RESERVATION_CONFLICT: codes.PREVIOUS_CONFLICT,
}


class Guard:
    """
    The part of a logical unit that knows who may do what.

    @ivar paths: how the unit is reached.
    @ivar notReady: why commands that need the medium are refused, or 0 if they are not.
    @ivar closure: why the unit answers few commands for now, or None.
    @ivar belated: for a nexus the error of a command that was answered before it was carried out.
    @ivar holder: the nexus that has reserved the unit, or None.
    @ivar registrations: persistent reservations.
    @ivar store: keeps them through a loss of power, or None.
    @ivar stored: something is in it.
    @ivar unkept: what is in it may not be what there is; C{retrying}, it is being kept again.
    @ivar wantsReadOnly: nobody may write, whatever the device can do.
    @ivar interlock: UA_INTLCK_CTRL: whether a unit attention stays until REQUEST SENSE (SPC-4 7.5.8).
    """

    table: ClassVar[CommandTable]
    order: Order
    room: Room
    allegiance: Allegiance
    interlock = CLEARED
    wantsReadOnly = False

    def __init__(self) -> None:
        self.paths = SYMMETRIC
        self.notReady = 0
        self.closure: Closure | None = None
        self.belated: dict[INexus, CheckCondition] = {}
        self.holder: INexus | None = None
        self.registrations = Registrations()
        self.store: IReservationStore | None = None
        self.stored = self.unkept = self.retrying = False
        self._attentions = Attentions()
        self._unusual = False
        self._strange = False
        self._troubled: set[INexus] = set()

    def outstanding(self) -> set[ITask]:
        """The tasks that have not ended."""
        raise NotImplementedError

    def nexusFound(self, nexus: INexus) -> None:
        """A session began: it is told of the power on, or that it had ended (SAM-5 6.3.1, 6.3.4)."""
        self._attentions.found(nexus)
        self.reconsider()

    def nexusLost(self, nexus: INexus) -> None:
        """A session ended (SAM-5 6.3.4)."""
        self._attentions.lost(nexus, told=self.belated.pop(nexus, None) is None)
        if self.holder is nexus:
            self.holder = None
        if self.allegiance.nexus is nexus:
            self.allegiance.clear()
        self.reconsider()

    def anyNexus(self) -> INexus | None:
        """One of the nexuses that there are, the same as long as it is there; None if there is none."""
        return min(self._attentions.known, key=lambda each: (each.initiatorName, each.isid), default=None)

    def attention(self, code: int, nexus: INexus | None = None, but: INexus | None = None) -> None:
        """Establish a unit attention condition for one known nexus, or for all but one."""
        self._attentions.establish(code, nexus, but)
        self.reconsider()

    def reset(self, code: int, but: INexus | None = None) -> None:
        """Logical unit reset (SAM-5 6.3.3)."""
        self.holder = None
        self.allegiance.clear()
        self.attention(code, but=but)

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

    def reconsider(self) -> None:
        """Find out which commands must go the long way."""
        self._strange = bool(
            self.notReady
            or self.closure is not None
            or self.order.active
            or self.room.full
            or self.allegiance.nexus is not None
            or self.registrations.lost
        )
        known = self._attentions.known
        troubled: set[INexus] = set()
        if self.holder is not None:
            troubled |= known - {self.holder}
        if self.registrations.type:
            troubled.update(filter(self._restricted, known))
        if self.paths.uneven:
            troubled.update(filter(self._closed, known))
        if self.room.crowded:
            troubled.update(filter(self.onlyReads, known))
        self._troubled = troubled
        # A reservation costs nothing while all that are here may do everything, and then little.
        self._unusual = bool(self._strange or troubled or self._attentions.pending or self.belated)

    def _closed(self, nexus: INexus) -> bool:
        """Whether a nexus comes through a port where not everything is answered."""
        return self.paths.state(nexus.portalGroupTag) in REFUSALS

    def passes(self, nexus: INexus) -> bool:
        """Whether a unit that is not as usual is so for this nexus, which has to be known."""
        return not (
            self._strange
            or nexus in self._troubled
            or nexus in self._attentions.pending
            or nexus in self.belated
            or nexus not in self._attentions.known
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

    def setAccess(self, states: Mapping[int, int], by: INexus | None = None, cause: int = BY_ITSELF) -> bool:
        """
        Let target port groups have these access states; all nexuses but the one that asked are told.

        @return: whether that changed anything.
        @raise LocalError: for groups or states that there are not.
        """
        changed = self.paths.change(states, cause)
        if changed:
            self.attention(codes.ACCESS_CHANGED, but=by)
        return changed

    def accessFailed(self) -> None:
        """Access states could not be changed as they should be: all nexuses are told (SPC-4 5.15.2.7)."""
        self.attention(codes.ACCESS_NOT_CHANGED)

    def tellPorts(self, told: Told) -> None:
        """Establish unit attention conditions for those of these ports that are here."""
        if told:
            self._attentions.forgetGone()
        for nexus in self._attentions.known:
            code = self.registrations.codeFor(told, portOf(nexus))
            if code is not None:
                self._attentions.establish(code, nexus, None)
        self.reconsider()

    def abortNexuses(self, ports: set[Port], but: ITask) -> None:
        """Abort all tasks that came from these ports (SPC-4 5.13.11.2.5)."""
        for other in self.outstanding() - {but}:
            if isOneOf(portOf(other.nexus), ports):
                other.abort()
        faulted = self.allegiance.nexus
        if faulted is not None and isOneOf(portOf(faulted), ports):
            self.allegiance.clear()

    def _allowed(self, access: int) -> bool:
        """Whether a command may be done beside a persistent reservation of another (SPC-4 5.13.1.3)."""
        if access & (PUBLIC | SHARED):
            return True
        return bool(access & LOOKS) and self.registrations.type in READABLE

    def pendingCondition(self) -> CheckCondition | None:
        """What REQUEST SENSE tells if there is no unit attention condition, or None (SPC-4 6.39)."""
        if self.closure is not None:
            return self.closure.condition()
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
        usual = self.closure is None and nexus not in self.belated and not self.notReady
        if usual and not (queue or reserved or fenced or lost or closed):
            return False
        command = self.table.find(task.cdb)
        # What nobody knows is refused as that.
        access = SHARED if command is None else command.access
        if access & EXEMPT:
            return False
        reserved = (reserved and not access & SHARED) or (fenced and not self._allowed(access))
        if queue and not (reserved and queue[0] >> 8 != _RESETS):
            code = queue[0]
            if self.interlock == CLEARED:
                self.takeAttention(nexus)
            raise CheckCondition(codes.UNIT_ATTENTION, code)
        if reserved:
            self.turnAway(task, codes.RESERVATION_CONFLICT)
            return True
        if lost and not access & (SHARED | PUBLIC):
            raise CheckCondition(codes.HARDWARE_ERROR, codes.RESERVATIONS_LOST)
        if closed:
            raise CheckCondition(codes.NOT_READY, closed)
        belated = self.takeBelated(nexus)
        if belated is not None:
            raise belated
        if self.closure is not None and self.closure.refuses(command, task.cdb):
            raise self.closure.condition()
        if self.notReady and access & MEDIUM:
            raise CheckCondition(codes.NOT_READY, self.notReady)
        return False

    def belate(self, nexus: INexus, condition: CheckCondition) -> None:
        """
        An error of a command that has been answered: its nexus is told with a later one (SPC-4 4.5.5).

        Of several the first is told.
        """
        condition.deferred = True
        if nexus in self._attentions.known:
            self.belated.setdefault(nexus, condition)
            self.reconsider()

    def takeBelated(self, nexus: INexus) -> CheckCondition | None:
        """The error of an earlier command that a nexus has not been told of yet; it has been then."""
        condition = self.belated.pop(nexus, None)
        if condition is not None:
            self.reconsider()
        return condition

    def turnAway(self, task: ITask, status: int) -> None:
        """End a command with a status that says that it may be tried again."""
        task.fail(status)
        if self.interlock == KEPT_AND_MORE and status in _PREVIOUS:
            self.attention(_PREVIOUS[status], task.nexus)

    def denial(self, nexus: INexus, command: Command) -> tuple[int, CheckCondition | None] | None:
        """
        What keeps a nexus from a command, unit attentions apart.

        @return: the status, and the condition if that is CHECK CONDITION; None if nothing does.
        """
        access = command.access
        reserved = self.holder is not None and self.holder is not nexus and not access & SHARED
        if reserved or (self._restricted(nexus) and not self._allowed(access)):
            return codes.RESERVATION_CONFLICT, None
        cdb = command.encode()
        closed = self.paths.refusal(nexus.portalGroupTag, cdb) if self.paths.uneven else 0
        condition = None
        if self.registrations.lost and not access & (SHARED | PUBLIC):
            condition = CheckCondition(codes.HARDWARE_ERROR, codes.RESERVATIONS_LOST)
        elif closed:
            condition = CheckCondition(codes.NOT_READY, closed)
        elif self.closure is not None and self.closure.refuses(command, cdb):
            condition = self.closure.condition()
        elif self.notReady and access & MEDIUM:
            condition = CheckCondition(codes.NOT_READY, self.notReady)
        return None if condition is None else (codes.CHECK_CONDITION, condition)

    def onlyReads(self, nexus: INexus) -> bool:
        """
        Whether a nexus may only read where others may write: it must not get in their way.

        Where nobody may write all are equal.
        """
        return nexus.readOnly and not self.wantsReadOnly

    def reservedAgainst(self, nexus: INexus) -> bool:
        """Whether another nexus has reserved the unit."""
        return (self.holder is not None and self.holder is not nexus) or self._restricted(nexus)

    def reserve(self, nexus: INexus | None) -> None:
        """Reserve the unit for a nexus, or for nobody."""
        self.holder = nexus
        self.reconsider()
