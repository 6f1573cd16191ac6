"""An initiator and a target in memory, driven by a clock."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.initiator import LUN, Initiator, MemoryEndpoint, Session
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.target import TargetFactory
from tests.support.wire import Diary, makeNode, makeTarget

T = TypeVar("T")
NAME = "iqn.2001-04.com.example:initiator"
SIZE = 1 << 20


class InitiatorTests(SynchronousTestCase):
    """
    Tests of an initiator beside a target.

    @ivar clock: when it advances, what was sent arrives.
    @ivar device: what the unit is on.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.device: Any = self.makeDevice()
        self.target = makeTarget(self.device, MemoryDevice(SIZE))
        self.node, self.diary = makeNode(self.target)
        self.factory = TargetFactory(self.node, self.clock)
        self.endpoint = MemoryEndpoint(self.clock, self.factory)
        self.initiator = Initiator(self.clock, NAME)
        self.addCleanup(self.unsurprised)

    def makeDevice(self) -> Any:
        """What LUN 0 is on."""
        return MemoryDevice(SIZE)

    def unsurprised(self) -> None:
        """The target has met nothing that it did not expect."""
        self.assertEqual([entry for entry in self.diary.entries if entry[0] == "surprise"], [])

    def turn(self, turns: int = 60) -> None:
        """Let what was sent arrive, and be answered."""
        for _ in range(turns):
            self.clock.advance(0)

    def now(self, waiting: Coroutine[Any, Any, T] | Deferred[T]) -> T:
        """The result of what needs no time to pass."""
        deferred = waiting if isinstance(waiting, Deferred) else Deferred.fromCoroutine(waiting)
        self.turn()
        return self.successResultOf(deferred)

    def fails(self, kind: type[BaseException], waiting: Coroutine[Any, Any, Any] | Deferred[Any]) -> Any:
        """What it fails with."""
        deferred = waiting if isinstance(waiting, Deferred) else Deferred.fromCoroutine(waiting)
        self.turn()
        return self.failureResultOf(deferred, kind).value

    def session(self, **options: Any) -> Session:
        """A session with the target."""
        return self.now(self.initiator.login(self.endpoint, self.target.name, **options))

    def lun(self, number: int = 0, session: Session | None = None, **options: Any) -> LUN:
        """An open unit."""
        lun = LUN(session or self.session(**options), number)
        self.now(lun.open())
        return lun


__all__ = ["NAME", "SIZE", "Diary", "InitiatorTests"]
