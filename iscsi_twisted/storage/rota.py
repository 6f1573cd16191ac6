# -*- test-case-name: tests.storage.test_rota -*-
"""
When the members of a mirror are compared again: that outlives restarts, or a mirror that is started each day
would never be compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from iscsi_twisted.errors import DeviceError
from iscsi_twisted.storage.legs import IN_SYNC
from iscsi_twisted.storage.pending import ready
from iscsi_twisted.storage.record import Rounds

if TYPE_CHECKING:
    from iscsi_twisted.storage.mirror import Mirror
    from iscsi_twisted.storage.scrub import Scrub

CHECKPOINT: Final = 60.0
"""Seconds of comparing that a crash may undo."""


class Rota:
    """
    @ivar every: seconds after which the members are compared; None for never.
    @ivar rounds: what is kept of it.
    """

    def __init__(self, mirror: Mirror, every: float | None) -> None:
        self._mirror, self.every = mirror, every
        self.rounds = Rounds()
        self._kept = 0.0

    def start(self, known: Rounds | None) -> None:
        """
        The mirror starts.

        @param known: what was kept; None if nothing was.
        """
        now = self._mirror.life.now()
        known = known or Rounds(now)
        # Somebody may have set the clock back.
        self.rounds = Rounds(min(known.since or now, now), min(known.ended, now), known.place)

    @property
    def due(self) -> float | None:
        """When the members are compared, in seconds since 1970; None for never."""
        if self.every is None:
            return None
        return self._mirror.life.now() if self.rounds.place else self.rounds.since + self.every

    @property
    def isDue(self) -> bool:
        """Whether it is time, and there is anything to be compared with."""
        due = self.due
        if sum(leg.state == IN_SYNC for leg in self._mirror.legs) < 2:
            return False
        return due is not None and due <= self._mirror.life.now()

    async def reached(self, region: int) -> None:
        """A comparison that may be ended and go on later has come so far."""
        self.rounds = Rounds(self.rounds.since, self.rounds.ended, region)
        now = self._mirror.life.now()
        if now - self._kept < CHECKPOINT:
            return
        self._kept = now
        try:
            await ready(self._mirror.intent.save())
        except DeviceError as error:
            self._mirror.life.tellError(error)

    def postpone(self) -> None:
        """It could not be done: the next one is tried when its time comes."""
        self.rounds = Rounds(self._mirror.life.now(), self.rounds.ended, 0)

    def finished(self, work: Scrub) -> None:
        """
        A comparison has come to its end: of all that there is, unless it was about what is in doubt; of all
        members, unless one was not there.
        """
        if work.whole:
            ended = self._mirror.life.now() if work.complete else self.rounds.ended
            self.rounds = Rounds(work.began, ended, 0)
