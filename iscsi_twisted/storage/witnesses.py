# -*- test-case-name: tests.storage.test_witnesses -*-
"""
Members of a mirror keep the number of the newest record that they know: so one that comes from a backup is
not believed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.python.failure import Failure

from iscsi_twisted.storage.fingerprint import keepWitness, witnessKey, witnessOf
from iscsi_twisted.storage.pending import attempt, ready

if TYPE_CHECKING:
    from iscsi_twisted.storage.mirror import Mirror
    from iscsi_twisted.storage.mirrorlife import Life


class Witnesses:
    """The members, as far as they know of records."""

    def __init__(self, mirror: Mirror, life: Life) -> None:
        self._mirror, self._life = mirror, life
        self._telling = self._due = False

    async def ask(self) -> None:
        """Ask all members that are open of which records they know."""
        legs = [leg for leg in self._mirror.legs if leg.isOpen and leg.fingerprint is not None]
        asked = [attempt(witnessOf, leg.device, witnessKey(leg.fingerprint)) for leg in legs]
        outcomes = await ready(self._mirror.watch.answers(legs, asked))
        for leg, outcome in zip(legs, outcomes, strict=True):
            leg.witness = 0 if isinstance(outcome, Failure) else outcome
            self._life.generation = max(self._life.generation, leg.witness)

    async def tell(self) -> None:
        """
        Tell members of the newest record that is durable, if they do not know it: with an older one, from a
        backup, they are not to be believed then.
        """
        mirror = self._mirror
        kept = mirror.intent.kept
        # One that hangs is told when it answers again: each try would leave one more thing to wait for.
        legs = [
            leg
            for leg in mirror.legs
            if leg.gets and leg.fingerprint is not None and leg.witness < kept and not leg.hanging
        ]
        told = [attempt(keepWitness, leg.device, witnessKey(leg.fingerprint), kept) for leg in legs]
        outcomes = await ready(mirror.watch.answers(legs, told))
        for leg, outcome in zip(legs, outcomes, strict=True):
            if not isinstance(outcome, Failure):
                leg.witness = kept

    def tellNow(self) -> None:
        """Tell them, and wait for nobody: older records must not be believed any more."""
        self._due = True
        if not self._telling and not self._life.stopping:
            self._telling = True
            self._life.go(self._tellAll())

    async def _tellAll(self) -> None:
        try:
            while self._due:
                self._due = False
                await self.tell()
        finally:
            self._telling = False
