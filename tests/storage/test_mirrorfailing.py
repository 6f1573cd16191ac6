# -*- test-case-name: tests.storage.test_mirrorfailing -*-
"""How a mirror judges what its members fail, and what it remembers of that."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import OutOfSpace, WriteError
from iscsi_twisted.storage import Mirror
from iscsi_twisted.storage.legs import FAILED, IN_SYNC, RESYNCING
from tests.support.devices import FakeDevice
from tests.support.mirrors import disks, knownMirror, opened, settled
from tests.support.platters import MemoryStore

REGION = 1 << 18
SIZE = 4 * REGION


class KnownDevice(FakeDevice):
    """A device that can be told from others."""

    def fingerprint(self) -> str:
        return f"device {id(self)}"


class ReasonTests(SynchronousTestCase):
    """Members that fail for different reasons."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.members = [KnownDevice(SIZE, synchronous=True) for _ in range(2)]
        self.device = opened(Mirror(self.members, reactor=self.clock))
        settled(self.device, self.clock)
        for member in self.members:
            member.synchronous = False

    def states(self) -> list[str]:
        """Those of all members."""
        return [leg.state for leg in self.device.legs]

    def test_notAllFull(self) -> None:
        """If one lacks space and the other is broken, the broken one is left out."""
        result: Any = self.device.write(0, b"x")
        self.members[0].operations[0].fail(OutOfSpace("full"))
        self.members[1].operations[0].fail(WriteError("broken"))
        self.failureResultOf(result, OutOfSpace)
        self.assertEqual(self.states(), [IN_SYNC, FAILED])

    def test_leftOutMeanwhile(self) -> None:
        """Who is no member any more when a write ends does not say why it fails."""
        result: Any = self.device.write(0, b"x")
        flushing: Any = self.device.flush()
        self.members[0].operations[1].fail(WriteError("broken"))
        self.members[1].operations[1].fire()
        self.assertEqual(self.states(), [FAILED, IN_SYNC])
        self.clock.advance(0)
        self.members[1].operations[0].fail(OutOfSpace("full"))
        self.failureResultOf(result, OutOfSpace)
        self.assertIsNone(self.successResultOf(flushing))
        self.assertEqual(self.states(), [FAILED, IN_SYNC])


class MemoryTests(SynchronousTestCase):
    """What is remembered of regions."""

    def setUp(self) -> None:
        self.clock, self.store = Clock(), MemoryStore()
        self.disks = disks(3, SIZE)
        content = os.urandom(SIZE)
        for disk in self.disks:
            disk.view[:] = content
        self.device = knownMirror(self.disks, self.clock, self.store)

    def test_writtenWhileCleared(self) -> None:
        """A region that is written while its mark is about to be taken back keeps it."""
        opened(self.device)
        self.device.write(0, b"x" * 512)
        flush, flushing = self.disks[0].flush, Deferred[None]()
        self.patch(self.disks[0], "flush", lambda: flushing)
        self.clock.pump([5] * 6)
        self.assertIsNone(self.device.write(0, b"y" * 512))
        self.patch(self.disks[0], "flush", flush)
        flushing.callback(None)
        self.assertEqual(list(self.device.intent.marked()), [0])
        self.clock.pump([5] * 9)
        self.assertEqual(list(self.device.intent.marked()), [])

    def test_noRival(self) -> None:
        """What a member has that has failed is as good as what others have no more."""
        opened(self.device)
        leg = self.device.legs[1]
        leg.behind.add(2, 2)
        leg.rival.add(2, 2)
        self.disks[1].faults = 1
        self.device.write(0, b"x" * 512)
        self.assertEqual(leg.state, FAILED)
        self.assertFalse(leg.rival)
        self.device.write(2 * REGION, b"y" * 512)
        settled(self.device, self.clock)
        self.assertTrue(self.disks[0].view == self.disks[1].view, "a member lacks something")

    def test_notRestored(self) -> None:
        """A member that has lost what no other has is not told that this is written again."""
        told: list[str] = []
        for disk in self.disks:
            disk.restored = lambda title=disk.title: told.append(title)  # type: ignore[attr-defined]
        opened(self.device)
        for disk in self.disks[1:]:
            disk.broken = True
        self.device.write(0, b"x" * 512)
        self.assertEqual([leg.state for leg in self.device.legs], [IN_SYNC, FAILED, FAILED])
        self.disks[0].restarts += 1
        self.device.memberChanged(self.device.legs[0])
        self.assertEqual(told, [])
        for disk in self.disks:
            disk.broken = False
        settled(self.device, self.clock)
        self.disks[0].restarts += 1
        self.device.memberChanged(self.device.legs[0])
        self.assertEqual((told, self.device.legs[0].state), (["disk0"], RESYNCING))
