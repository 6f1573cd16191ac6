# -*- test-case-name: tests.initiator.test_lun,tests.initiator.test_request,tests.initiator.test_asked -*-
"""Commands to a unit: what becomes of their outcomes, and what the unit may still lose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from iscsi_twisted.errors import CheckCondition, DeviceError, ISCSIError, ReadError, WriteError
from iscsi_twisted.initiator.request import AGAIN, Request
from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.client import Busy, Completed, RecoveredError, TaskSetFull, UnitAttention, failure
from iscsi_twisted.session.command import Outcome

if TYPE_CHECKING:
    from iscsi_twisted.initiator.lun import LUN

FIRST_PAUSE: Final = 0.02
LAST_PAUSE: Final = 1.0
"""Seconds before a command that a unit had no room for is sent again: doubled each time, up to the last."""

TRIES: Final = 35
"""How often that is done: for half a minute."""


class Residual(ISCSIError):
    """
    A command ended well, but did not transfer what it should.

    @ivar outcome: all that is known.
    """

    def __init__(self, outcome: Outcome) -> None:
        count = outcome.residual
        told = f"{count} bytes less" if count > 0 else f"{-count} bytes more" if count else "nothing of it"
        super().__init__(
            f"the transfer was not what was expected: {outcome.received} bytes came, and the target tells of"
            f" {told}"
        )
        self.outcome = outcome


class Asked(Request):
    """
    A command to a unit, which is sent again after unit attentions, and when the unit had no room for it.

    @cvar otherwise: what a check condition becomes that is nothing special; None for what it is.
    @ivar lun: the unit.
    """

    __slots__ = ("lun",)

    otherwise: ClassVar[type[DeviceError] | None] = None
    lun: LUN

    def convert(self, status: int, sense: Buffer, residual: int) -> Any:
        """The outcome, if it has succeeded."""
        if status not in (codes.GOOD, codes.CONDITION_MET):
            raise failure(status, sense)
        return self.outcome(status, sense, residual)

    def refused(self, error: Exception) -> Exception | float:
        """As a block device tells it; unless it is to be sent again."""
        if isinstance(error, CheckCondition) and self.again < AGAIN:
            # Neither says anything of this command, which was not carried out (SPC-4 4.5.7, SAM-5 5.14).
            if error.deferred:
                self.again += 1
                self.lun.belated(error)
                return 0.0
            if isinstance(error, UnitAttention):
                self.again += 1
                self.lun.attended(error)
                return 0.0
        if isinstance(error, TaskSetFull | Busy) and self.busy < TRIES:
            self.busy += 1
            return min(FIRST_PAUSE * (1 << self.busy - 1), LAST_PAUSE)
        return error if self.otherwise is None else self.lun.translated(error, self.otherwise)


class AskedAgain(Asked):
    """One that may be carried out twice."""

    __slots__ = ()

    replay = True


class Reading(AskedAgain):
    """One that reads from the medium."""

    __slots__ = ()

    otherwise = ReadError

    def convert(self, status: int, sense: Buffer, residual: int) -> Buffer:
        """All that was to be read."""
        if status:
            _check(status, sense)
        if self.received != self.expected:
            raise Residual(self.outcome(status, sense, residual))
        return self.whole()


class Flushed(AskedAgain):
    """One that changes the medium, and has made that durable when it ends."""

    __slots__ = ()

    otherwise = WriteError

    def convert(self, status: int, sense: Buffer, residual: int) -> None:
        """Nothing, if it has succeeded, with all its data."""
        if status:
            _check(status, sense)
        if residual or self.due:
            raise Residual(self.outcome(status, sense, residual or self.due))


class Writing(Flushed):
    """One that changes the medium, maybe in a cache only."""

    __slots__ = ()

    def convert(self, status: int, sense: Buffer, residual: int) -> None:
        """Nothing, if it has succeeded, with all its data."""
        if status or residual or self.due:
            super().convert(status, sense, residual)
        self.lun.volatile.written += 1


class Flushing(Flushed):
    """
    One that makes durable what was written before.

    @ivar covers: how much that is.
    @ivar losses: how often something was lost before.
    """

    __slots__ = ("covers", "losses")

    covers: int
    losses: int

    def convert(self, status: int, sense: Buffer, residual: int) -> None:
        """Nothing, if it has succeeded, and all that it was for was still there."""
        super().convert(status, sense, residual)
        self.lun.volatile.flushed(self.covers, self.losses)


class Volatile:
    """
    What a unit has acknowledged and may still lose.

    A unit that was started anew does not tell what it had in its cache (SAM-5 6.3.1): if it had said GOOD to
    writes, and they were not flushed, the next flush has to fail.  As that of a file does it fails once;
    flushes that were under way fail with it.

    @ivar written: writes that were acknowledged.
    @ivar losses: how often some of them may have been lost.
    """

    __slots__ = ("_durable", "_told", "_why", "losses", "written")

    def __init__(self) -> None:
        self.written = self.losses = 0
        self._durable = self._told = 0
        self._why: WriteError | None = None

    @property
    def dirty(self) -> bool:
        """Whether there is something to lose."""
        return self.written > self._durable

    def lost(self, why: WriteError) -> None:
        """All that was not flushed may be gone."""
        self.losses += 1
        self._durable = self.written
        self._why = why

    @property
    def doubtful(self) -> bool:
        """Whether something may be lost of which nobody was told."""
        return self._told != self.losses

    def restored(self) -> None:
        """Somebody knows what was lost, and writes it again: nobody has to be told."""
        self._told = self.losses
        self._why = None

    def flushed(self, covers: int, losses: int) -> None:
        """
        A flush has ended well.

        @raise WriteError: if what it was for may be gone.
        """
        why = self._why
        if why is not None and (losses != self.losses or self.doubtful):
            self._told = self.losses
            raise WriteError(str(why)) from why.__cause__
        self._durable = max(self._durable, covers)


def _check(status: int, sense: Buffer) -> None:
    """@raise ISCSIError: for what has not succeeded; with a recovered error it has (SPC-4 table 52)."""
    error = failure(status, sense)
    if not isinstance(error, RecoveredError | Completed) or error.deferred:
        raise error
