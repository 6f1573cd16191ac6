# -*- test-case-name: tests.scsi.test_attention -*-
"""Unit attention conditions: what happened to a unit, for each nexus to be told once (SAM-5 5.14)."""

from __future__ import annotations

from typing import Final

from iscsi_twisted.interfaces import INexus
from iscsi_twisted.scsi import codes

PENDING_LIMIT: Final = 8
"""Conditions kept for one nexus: one that never asks must not cost memory for ever."""

REMEMBERED: Final = 1024
"""Initiator ports that have gone, and are known to have been told everything; beyond that the oldest goes."""

_RANKS: Final = {
    codes.POWER_ON: 0,
    codes.POWER_ON_OCCURRED: 1,
    codes.DEVICE_INTERNAL_RESET: 1,
    codes.BUS_RESET_OCCURRED: 2,
    codes.MICROCODE_CHANGED: 2,
    codes.DEVICE_RESET_OCCURRED: 3,
    codes.NEXUS_LOSS_OCCURRED: 4,
}
_ORDINARY: Final = 7
"""Precedence of all that is not a reset (SAM-5 table 48); only a reset makes others pointless."""


class Attentions:
    """
    The pending conditions of one logical unit.

    @ivar known: all nexuses that there are.
    @ivar pending: for each nexus that has any, the codes in the order in which they will be told.
    """

    __slots__ = ("_gone", "known", "pending")

    def __init__(self) -> None:
        self.known: set[INexus] = set()
        self.pending: dict[INexus, list[int]] = {}
        self._gone: dict[tuple[str, bytes, int], None] = {}

    def found(self, nexus: INexus) -> None:
        """
        A nexus came: it does not know yet that the unit was started; or it does, from a session that has
        ended, and nothing has happened since that it would have to look for (SAM-5 6.3.4).  What it had
        written and not flushed is still there then.
        """
        self.known.add(nexus)
        port = _port(nexus)
        self._add(nexus, codes.NEXUS_LOSS_OCCURRED if port in self._gone else codes.POWER_ON)
        self._gone.pop(port, None)

    def lost(self, nexus: INexus, told: bool = True) -> None:
        """
        A nexus went: forget what it was to be told.

        @param told: whether that is all that it had to be told.
        """
        pending = self.pending.pop(nexus, None)
        if nexus not in self.known:
            return
        self.known.discard(nexus)
        if told and pending in (None, [codes.NEXUS_LOSS_OCCURRED]):
            self._gone[_port(nexus)] = None
            if len(self._gone) > REMEMBERED:
                del self._gone[next(iter(self._gone))]

    def establish(self, code: int, nexus: INexus | None, but: INexus | None) -> None:
        """
        Let one nexus, or all but one, be told; those that are not there hear of a power on when they come.
        """
        if nexus is None:
            self.forgetGone()
        for each in self.known if nexus is None else self.known & {nexus}:
            if each is not but:
                self._add(each, code)

    def _add(self, nexus: INexus, code: int) -> None:
        rank = _RANKS.get(code, _ORDINARY)
        queue = self.pending.get(nexus, [])
        if code in queue or (queue and rank < _ORDINARY and _RANKS.get(queue[0], _ORDINARY) <= rank):
            return
        if rank < _ORDINARY:
            queue = []
        elif len(queue) >= PENDING_LIMIT:
            # Whoever is told this looks at everything again.
            queue, code = [], codes.POWER_ON
        self.pending[nexus] = [*queue, code]

    def forgetGone(self) -> None:
        """Something has happened for which those that are away have to look when they come back."""
        self._gone.clear()

    def take(self, nexus: INexus) -> int | None:
        """The next condition that a nexus is to be told, which clears it; None if there is none."""
        queue = self.pending.get(nexus)
        if not queue:
            return None
        code = queue.pop(0)
        if not queue:
            del self.pending[nexus]
        return code

    def clear(self, nexus: INexus, code: int) -> None:
        """Forget one condition, because the nexus learnt of it in another way."""
        queue = self.pending.get(nexus)
        if queue and code in queue:
            queue.remove(code)
            if not queue:
                del self.pending[nexus]


def _port(nexus: INexus) -> tuple[str, bytes, int]:
    """The same when an initiator port comes back through the same group of portals."""
    return nexus.initiatorName, nexus.isid, nexus.portalGroupTag
