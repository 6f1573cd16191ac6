# -*- test-case-name: tests.storage.test_resync -*-
"""How far a long copy or comparison is, and how it gives way to the initiators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

if TYPE_CHECKING:
    from iscsi_twisted.storage.mirror import Mirror

BUSY: Final = 3.0
"""While initiators are at work, so many times as long as a piece took nothing is done."""

LONGEST: Final = 0.25
"""Seconds of such a pause: a slow disk must not bring the copying to a halt."""

TOLD: Final = 10.0
"""Seconds from one line of the log to the next."""

_log = Logger(namespace="iscsi_twisted")


class Progress:
    """
    @ivar activity: C{resync}, C{compare} or C{scrub}.
    @ivar total: bytes.
    @ivar done: bytes.
    """

    def __init__(self, activity: str, total: int, mirror: Mirror) -> None:
        self.activity = activity
        self.total = total
        self.done = 0
        self._mirror = mirror
        self._began = self._last = self._told = mirror.life.now()
        self._seen = mirror.reads + mirror.writes

    def add(self, count: int) -> None:
        """So many bytes more are done."""
        self.done += count

    async def advance(self, count: int) -> None:
        """
        So many bytes more are done; give way.

        @raise CancelledError: if the mirror is closed meanwhile.
        """
        self.add(count)
        mirror = self._mirror
        now = mirror.life.now()
        if now - self._told >= TOLD:
            self._told = now
            self._tell()
        requests = mirror.reads + mirror.writes
        pause = 0.0
        if requests != self._seen:
            pause = min(LONGEST, BUSY * (now - self._last))
        self._seen = requests
        await mirror.life.pause(pause)
        self._last = mirror.life.now()

    @property
    def percent(self) -> float:
        """How much is done."""
        return min(100.0, 100.0 * self.done / self.total) if self.total else 100.0

    @property
    def rate(self) -> float:
        """Bytes a second since it began."""
        elapsed = self._mirror.life.now() - self._began
        return self.done / elapsed if elapsed > 0 else 0.0

    @property
    def left(self) -> float | None:
        """Seconds that it will take from now on; None if nobody can tell."""
        rate = self.rate
        return max(0, self.total - self.done) / rate if rate else None

    def _tell(self) -> None:
        left = self.left
        _log.info(
            "{mirror}: {event} {percent:.0f} % done, {megabytes:.0f} MB/s, {left} left",
            event=self.activity, mirror=str(self._mirror), percent=self.percent, megabytes=self.rate / 1e6,
            left="?" if left is None else f"{left:.0f} s",
        )  # fmt: skip
