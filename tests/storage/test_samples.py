# -*- test-case-name: tests.storage.test_samples -*-
"""Tests for L{iscsi_twisted.storage.samples}, and what mirrors do about what it finds."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.storage import Mirror
from iscsi_twisted.storage.fingerprint import replays
from iscsi_twisted.storage.legs import IN_SYNC, RESYNCING
from tests.support.mirrors import disks, knownMirror, opened, settled
from tests.support.platters import MemoryStore, PlatterDisk

SIZE = 4 << 18


class Remote(PlatterDisk):
    """
    A disk that does not know whether it was changed.

    @ivar restarts: how often what it stands on was started anew.
    """

    restarts = 0
    replays = False

    def stamp(self) -> tuple[int, ...]:
        return ()


class SampleTests(SynchronousTestCase):
    """Members that may stand on something else than they say."""

    def setUp(self) -> None:
        self.clock, self.store = Clock(), MemoryStore()
        (self.here,) = disks(1, SIZE)
        self.there = Remote(disks(1, SIZE)[0].platter, "there")
        self.content = os.urandom(SIZE)
        for disk in (self.here, self.there):
            disk.view[:] = self.content
        self.device = knownMirror([self.here, self.there], self.clock, self.store)

    def start(self) -> list[str]:
        """Start the mirror; what is told."""
        with capturedLogs() as events:
            opened(self.device)
        return [str(formatEvent(event)) for event in events if event.get("event") == "mirror"]

    def states(self) -> list[str]:
        """Those of all members."""
        return [leg.state for leg in self.device.legs]

    def test_same(self) -> None:
        """One that holds what it held is in sync."""
        self.assertEqual((self.start(), self.states()), ([], [IN_SYNC] * 2))

    def test_empty(self) -> None:
        """One that is empty now gets everything."""
        self.there.view[:] = bytes(SIZE)
        (line,) = self.start()
        self.assertIn("there does not hold what it held", line)
        self.assertEqual(self.states(), [IN_SYNC, RESYNCING])
        self.assertEqual(self.device.read(0, 512), self.content[:512])
        settled(self.device, self.clock)
        self.assertEqual(self.there.view, self.content)

    def test_unreadable(self) -> None:
        """So does one that cannot be read; a place alone that cannot tells nothing."""
        self.there.unreadable = {0}
        self.assertEqual(self.start(), [])
        self.assertIsNone(self.device.close())
        self.there.unreadable = set(range(SIZE // 64))
        self.assertEqual(len(self.start()), 1)

    def test_nobodyKnows(self) -> None:
        """If no member knows they are compared."""
        other = Remote(self.here.platter, "other")
        other.view[:] = self.content
        mirror = self.device = knownMirror([other, self.there], self.clock, self.store)
        self.there.view[:] = bytes(SIZE)
        (line,) = self.start()
        self.assertIn("do not hold the same", line)
        self.assertTrue(mirror.unverified)

    def test_returns(self) -> None:
        """The same when one comes back while the mirror serves."""
        for empty in (False, True):
            opened(self.device)
            self.there.broken = True
            self.device.write(0, b"x" * 512)
            self.there.broken = False
            if empty:
                self.there.view[:] = bytes(SIZE)
            settled(self.device, self.clock)
            self.assertEqual(self.there.view, self.here.view)
            self.assertIsNone(self.device.close())

    def test_restarted(self) -> None:
        """One that tells of a new start gets what was not flushed, and everything if it is empty now."""
        for empty in (False, True):
            opened(self.device)
            self.device.write(0, b"x" * 512)
            self.there.view[:512] = self.content[:512]
            if empty:
                self.there.view[:] = bytes(SIZE)
            self.there.restarts += 1
            self.device.memberChanged(self.device.leg("there"))
            self.assertEqual(self.states(), [IN_SYNC, RESYNCING])
            self.assertEqual(self.device.read(0, 512), b"x" * 512)
            settled(self.device, self.clock)
            self.assertEqual(self.there.view, self.here.view)
            self.assertIsNone(self.device.close())

    def test_replays(self) -> None:
        """One that writes again by itself what it had not flushed gets nothing, unless it is empty now."""
        self.there.replays = True
        opened(self.device)
        self.device.write(0, b"x" * 512)
        self.there.history.clear()
        self.there.restarts += 1
        self.device.memberChanged(self.device.leg("there"))
        self.clock.pump([0.1] * 9)
        self.assertEqual(self.states(), [IN_SYNC] * 2)
        self.assertEqual([name for name, _, _ in self.there.history if name == "write"], [])
        for length in (SIZE, 512):
            # Also where something was written a moment ago, and flushed.
            self.there.view[:length] = bytes(length)
            self.there.restarts += 1
            self.device.memberChanged(self.device.leg("there"))
            self.assertEqual(self.states(), [IN_SYNC, RESYNCING])
            settled(self.device, self.clock)
            self.assertEqual(self.there.view, self.here.view)

    def test_replaying(self) -> None:
        """All have to do so that a member stands on."""
        self.assertTrue(replays(self.here) is False and replays(self.device) is False)
        self.there.replays = self.here.replays = True
        self.assertTrue(replays(self.there) and replays(self.device))

    def test_readMeanwhile(self) -> None:
        """
        What was being read there then is read elsewhere, and nothing is read there before it is known to be
        good.
        """
        opened(self.device)
        self.there.waits = True
        self.device._turn = 0
        reading: Any = self.device.read(512, 512)
        self.assertEqual(len(self.there.operations), 1)
        self.there.view[:] = bytes(SIZE)
        self.there.restarts += 1
        self.device.memberChanged(self.device.leg("there"))
        self.there.operations[0].fire()
        self.assertEqual(self.successResultOf(reading), self.content[512:1024])
        for offset in range(0, SIZE, 4096):
            self.assertEqual(self.device.read(offset, 512), self.content[offset : offset + 512])
        self.there.waits = False
        while self.there.operations:
            self.there.operations[0].fire()
        settled(self.device, self.clock)
        self.assertEqual(self.there.view, self.content)

    def test_replayedMeanwhile(self) -> None:
        """So it is while nobody knows yet whether one that writes again by itself holds what it held."""
        self.there.replays = True
        opened(self.device)
        self.there.waits = True
        self.device._turn = 0
        reading: Any = self.device.read(512, 512)
        self.there.view[:] = bytes(SIZE)
        self.there.restarts += 1
        self.device.memberChanged(self.device.leg("there"))
        self.assertTrue(self.device.leg("there").suspect)
        self.device.leg("there").late = False
        for offset in range(0, SIZE, 4096):
            self.assertEqual(self.device.read(offset, 512), self.content[offset : offset + 512])
        self.there.operations[0].fire()
        self.assertEqual(self.successResultOf(reading), self.content[512:1024])
        self.there.waits = False
        while self.there.operations:
            self.there.operations[0].fire()
        settled(self.device, self.clock)
        self.assertTrue(self.there.view == self.content, "it does not get what it has lost")

    def test_closing(self) -> None:
        """That a member tells of a new start while it is closed is no failure to close it."""
        opened(self.device)
        waiting: Deferred[None] = Deferred()
        self.patch(self.there, "close", lambda: waiting)
        closing: Any = self.device.close()
        self.there.restarts += 1
        self.device.memberChanged(self.device.leg("there"))
        waiting.callback(None)
        self.assertIsNone(self.successResultOf(closing))

    def restart(self) -> None:
        """What a member stands on is started anew, and it is known at once what that means."""
        self.there.waits = False
        self.there.restarts += 1
        self.device.memberChanged(self.device.leg("there"))
        self.there.waits = True

    def test_readLate(self) -> None:
        """Nor does an answer count that comes when it is known already that something is lost there."""
        opened(self.device)
        self.there.waits = True
        self.device._turn = 0
        reading: Any = self.device.read(512, 512)
        self.there.view[:] = bytes(SIZE)
        self.restart()
        self.assertFalse(self.device.leg("there").suspect)
        self.there.operations[0].fire()
        self.assertEqual(self.successResultOf(reading), self.content[512:1024])
        self.assertEqual([leg.busy for leg in self.device.legs], [0, 0])
        self.there.waits = False
        settled(self.device, self.clock)

    def test_readAgain(self) -> None:
        """Where nothing is lost the answer counts; and if nobody else can read it, it is read there again."""
        for again in (False, True):
            self.there.replays = not again
            opened(self.device)
            self.there.waits = True
            self.device._turn = 0
            reading: Any = self.device.read(512, 512)
            self.here.unreadable = {8}
            self.restart()
            if again:
                # It comes to lack what others do not, and that is no reason either to do without it.
                self.device.spoil(self.device.leg("there"), 1, 1)
            self.there.operations[0].fire()
            if again:
                self.assertNoResult(reading)
                (operation,) = self.there.operations
                operation.fire()
            self.assertEqual(self.successResultOf(reading), self.content[512:1024])
            self.here.unreadable, self.there.waits = set(), False
            while self.there.operations:
                self.there.operations[0].fire()
            settled(self.device, self.clock)
            self.assertIsNone(self.device.close())

    def test_sourceRestarted(self) -> None:
        """A third member never gets what one says that has just lost it."""
        (third,) = disks(1, SIZE)
        self.device = knownMirror([self.there, self.here], self.clock, self.store)
        opened(self.device)
        self.there.waits = True
        self.successResultOf(self.device.add(third))
        self.clock.advance(0)
        self.assertEqual({one.name for one in self.there.operations}, {"read"})
        self.there.view[:] = bytes(SIZE)
        self.restart()
        self.there.waits = False
        while self.there.operations:
            self.there.operations[0].fire()
        settled(self.device, self.clock)
        self.assertTrue(third.view == self.there.view == self.content, "a member got what was lost")

    def test_changed(self) -> None:
        """Other changes are only passed on."""
        told: list[int] = []
        mirror = Mirror([self.here, self.there], reactor=self.clock)
        mirror.open(lambda: told.append(1))
        mirror.memberChanged(mirror.legs[0])
        self.assertEqual(told, [1])
