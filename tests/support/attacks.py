"""An initiator and a target that a test has made, in memory, driven by a clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.initiator import LUN, Initiator, MemoryEndpoint, Session
from tests.support.scripted import (
    ScriptedTarget,
)
from tests.support.wire import TARGET


class AttackTestCase(SynchronousTestCase):
    """
    An initiator, and a target that a test makes.

    @ivar clock: when it advances, what was sent arrives.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.initiator = Initiator(self.clock, "iqn.2001-04.com.example:initiator")

    def turn(self, turns: int = 60) -> None:
        """Let what was sent arrive, and be answered."""
        for _ in range(turns):
            self.clock.advance(0)

    def login(self, target: ScriptedTarget, **options: Any) -> Deferred[Session]:
        """A login at a target."""
        self.endpoint = MemoryEndpoint(self.clock, target)
        made = Deferred.fromCoroutine(self.initiator.login(self.endpoint, TARGET, **options))
        self.turn()
        return made

    def session(self, target: ScriptedTarget, **options: Any) -> Session:
        """A session with it."""
        return self.successResultOf(self.login(target, **options))

    def lun(self, target: ScriptedTarget, **options: Any) -> LUN:
        """Its disk, open."""
        lun = LUN(self.session(target, **options))
        self.now(lun.open())
        return lun

    def now(self, waiting: Any) -> Any:
        """The result of what needs no time to pass."""
        deferred = waiting if isinstance(waiting, Deferred) else Deferred.fromCoroutine(waiting)
        self.turn()
        return self.successResultOf(deferred)

    def fails(self, kind: type[BaseException], waiting: Any, words: str = "") -> Any:
        """What it fails with, which says these words."""
        deferred = waiting if isinstance(waiting, Deferred) else Deferred.fromCoroutine(waiting)
        self.turn()
        error = self.failureResultOf(deferred, kind).value
        self.assertIn(words, str(error))
        return error
