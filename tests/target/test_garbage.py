# -*- test-case-name: tests.target.test_garbage -*-
"""When garbage is looked for, and when not."""

from __future__ import annotations

import gc

from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.target.command import CommandService
from iscsi_twisted.target.garbage import AWHILE, settle, spared, sparedAwhile
from tests.support.wire import TARGET


class Watched(MemoryDevice):
    """Notes whether garbage is looked for while it is opened."""

    collecting: bool | None = None

    def open(self, changed: object) -> None:
        self.collecting = gc.isenabled()
        super().open(changed)  # type: ignore[arg-type]


class GarbageTests(SynchronousTestCase):
    """Tests of L{spared}, L{settle}, and of the service that uses them."""

    def setUp(self) -> None:
        self.addCleanup(gc.unfreeze)
        self.addCleanup(gc.enable)

    def test_sparedAwhile(self) -> None:
        """While something goes on that waits for others nobody looks, unless that takes too long."""
        clock = Clock()
        with sparedAwhile(clock), sparedAwhile(clock):
            self.assertFalse(gc.isenabled())
            clock.advance(AWHILE - 1)
            self.assertFalse(gc.isenabled())
        self.assertEqual((gc.isenabled(), clock.getDelayedCalls()), (True, []))
        with sparedAwhile(clock):
            clock.advance(AWHILE)
            self.assertTrue(gc.isenabled())
        self.assertTrue(gc.isenabled())

    def test_spared(self) -> None:
        """Nobody looks for garbage for a while, whatever happens; then as before."""
        with spared(), spared():
            self.assertFalse(gc.isenabled())
        self.assertTrue(gc.isenabled())
        with self.assertRaises(ZeroDivisionError), spared():
            raise ZeroDivisionError
        self.assertTrue(gc.isenabled())
        gc.disable()
        with spared():
            pass
        self.assertFalse(gc.isenabled())

    def test_settle(self) -> None:
        """What is there is not looked at any more."""
        before = gc.get_freeze_count()
        settle()
        self.assertGreater(gc.get_freeze_count(), before)

    def serve(self, alone: bool) -> Watched:
        """Start a service."""
        device = Watched(1 << 20)
        service = CommandService(MemoryReactorClock(), ["tcp:3260:interface=127.0.0.1"], alone=alone)
        service.addTarget(TARGET, [device])
        service.startService()
        return device

    def test_service(self) -> None:
        """A start is spared, and what it has made is settled if the process is there for nothing else."""
        gc.unfreeze()
        self.assertEqual((self.serve(False).collecting, gc.get_freeze_count()), (False, 0))
        self.serve(True)
        self.assertGreater(gc.get_freeze_count(), 0)
        self.assertTrue(gc.isenabled())
