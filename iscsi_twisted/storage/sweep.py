# -*- test-case-name: tests.storage.test_sweep -*-
"""
Taking back the marks of regions of a mirror in which nothing was written for a while, once that is durable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from iscsi_twisted.storage.pending import ready

if TYPE_CHECKING:
    from iscsi_twisted.storage.mirror import Mirror
    from iscsi_twisted.storage.mirrorlife import Life


class Sweep:
    """The sweeps of a mirror, one after the other."""

    def __init__(self, mirror: Mirror, life: Life) -> None:
        self._mirror, self._life = mirror, life
        self._running = False

    def begin(self) -> None:
        """
        Look around, unless the last time has not ended: a look makes quiet what was written since then, and
        its mark would be taken back though no flush came behind it.
        """
        if not self._running:
            self._running = True
            self._life.go(self._run())

    async def _run(self) -> None:
        try:
            await self._sweep()
        finally:
            self._running = False

    async def _sweep(self) -> None:
        mirror, life = self._mirror, self._life
        life.witnesses.tellNow()
        covered = life.flushed >= life.epoch
        busy = mirror.lock.holds
        regions = mirror.intent.age()
        life.epoch += 1
        for hold in busy:
            first, last = mirror.regions(hold.offset, hold.end)
            regions = [region for region in regions if not first <= region <= last]
        if not regions:
            return
        if not covered:
            await ready(mirror.flush())
        await life.stampAll()
        quiet = mirror.intent.quiet(regions)
        if quiet:
            life.unmark(quiet)
            saved = mirror.intent.save()
            if saved is not None:
                await saved
