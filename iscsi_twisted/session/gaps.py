# -*- test-case-name: tests.session.test_client -*-
"""Numbers of responses that a target leaves out around aborts, though none should (RFC 7143 4.2.2.2)."""

from __future__ import annotations

from typing import Final

from iscsi_twisted.errors import RemoteError
from iscsi_twisted.wire.serial import MASK, distance

MISSING: Final = 1024
"""Numbers that are remembered: more than a target has room for commands."""


class Gaps:
    """
    The numbers that are missing.

    One target counts the statuses of aborted tasks and does not send them, another sends them out of order.

    @ivar allowed: how many more may be left out.
    """

    def __init__(self) -> None:
        self.allowed = 0
        self._missing: dict[int, None] = {}

    def skip(self, due: int, statSN: int) -> bool:
        """
        Another StatSN came than the one that is due.

        @return: whether it is ahead, rather than one that was missing.
        @raise RemoteError: if it is neither.
        """
        if statSN in self._missing:
            del self._missing[statSN]
            self.allowed += 1
            return False
        skipped = distance(due, statSN)
        if not 0 < skipped <= self.allowed:
            raise RemoteError(f"StatSN {statSN} where {due} is due")
        self.allowed -= skipped
        self._missing.update((due + each & MASK, None) for each in range(skipped))
        while len(self._missing) > MISSING:
            del self._missing[next(iter(self._missing))]
        return True
