# -*- test-case-name: tests.storage.test_void -*-
"""Tests for L{iscsi_twisted.storage.void}."""

from __future__ import annotations

import os
from collections.abc import Callable

import attrs
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import NotReady
from iscsi_twisted.storage import Mirror
from iscsi_twisted.storage.legs import IN_SYNC, MISSING, RESYNCING
from iscsi_twisted.storage.record import MemberRecord, Record
from tests.support.mirrors import again, disks, opened, settled
from tests.support.platters import MemoryStore

REGION = 1 << 18
SIZE = 4 * REGION


class VoidTests(SynchronousTestCase):
    """Mirrors of mirrors, of which one has lost something in all of its own members."""

    def setUp(self) -> None:
        self.clock, self.store = Clock(), MemoryStore()
        self.disks = disks(4, SIZE)
        self.content = os.urandom(SIZE)
        for disk in self.disks:
            disk.platter.durable[:] = self.content
        opened(self.make())
        self.calm()
        self.assertIsNone(self.device.close())

    def make(self) -> Mirror:
        """The mirror of two mirrors."""
        self.disks = again(self.disks)
        self.inner = [
            Mirror(self.disks[:2], reactor=self.clock, store=self.store),
            Mirror(self.disks[2:], reactor=self.clock, store=self.store),
        ]
        self.device = Mirror(self.inner, reactor=self.clock, store=self.store)
        return self.device

    def calm(self) -> None:
        """All of them are in sync."""
        settled(self.device, self.clock)
        for inner in self.inner:
            settled(inner, self.clock)

    def lose(self, change: Callable[[MemberRecord], MemberRecord], region: int = 1) -> None:
        """The first member has lost a region: change what is known of its own members."""
        name = self.inner[0].life.name
        record = Record.decode(self.store.kept[name])
        members = tuple(map(change, record.members))
        for disk in self.disks[:2]:
            place = slice(region * REGION, (region + 1) * REGION)
            for view in (disk.view, disk.platter.durable):
                view[place] = os.urandom(REGION)
        self.store.kept[name] = attrs.evolve(record, members=members).encode()

    def behind(self, member: MemberRecord, region: int = 1) -> MemberRecord:
        """A member lacks a region."""
        regions = member.behind.copy()
        regions.add(region, region)
        return attrs.evolve(member, behind=regions)

    def test_comesBack(self) -> None:
        """It starts, gets what it lacks from the other, and nobody reads that from it before."""
        self.lose(self.behind)
        opened(self.make())
        self.assertEqual([leg.state for leg in self.device.legs], [RESYNCING, IN_SYNC])
        self.assertEqual(list(self.device.legs[0].behind), [1])
        for offset in range(0, SIZE, REGION // 2):
            self.assertEqual(self.device.read(offset, 512), self.content[offset : offset + 512])
        self.calm()
        for disk in self.disks:
            self.assertEqual(disk.view, self.content)
        self.assertFalse(self.device.legs[0].void)
        self.assertIsNone(self.device.close())
        opened(self.make())
        self.assertEqual([leg.state for leg in self.device.legs], [IN_SYNC] * 2)

    def test_kept(self) -> None:
        """Until it has everything it says after each start what it lacks, whatever the other has kept."""
        self.lose(self.behind)
        before = dict(self.store.kept)
        opened(self.make())
        for call in self.clock.getDelayedCalls():
            call.cancel()
        self.store.serving.clear()
        outer = self.device.life.name
        self.store.kept[outer] = before[outer]
        opened(self.make())
        self.assertEqual([leg.state for leg in self.device.legs], [RESYNCING, IN_SYNC])
        self.assertEqual(list(self.device.legs[0].behind), [1])
        self.calm()
        self.assertEqual(self.disks[0].view, self.content)

    def test_alone(self) -> None:
        """Alone it does not start, before and after it has been a member, until it has everything."""
        self.lose(self.behind)
        self.make()
        self.assertRaises(NotReady, self.inner[0].open, lambda: None)
        opened(self.make())
        for call in self.clock.getDelayedCalls():
            call.cancel()
        self.store.serving.clear()
        self.make()
        error = self.assertRaises(NotReady, self.inner[0].open, lambda: None)
        self.assertIn("--force-member", str(error))
        opened(self.make())
        self.calm()
        self.assertIsNone(self.device.close())
        self.make()
        opened(self.inner[0])
        self.assertEqual(self.inner[0].read(REGION, 512), self.content[REGION:][:512])

    def test_away(self) -> None:
        """It waits for a member of its own that is away and has what the others lack."""
        first = self.disks[0].platter.name
        self.lose(lambda member: self.behind(member) if member.fingerprint != first else member)
        self.make()
        self.disks[0].broken = True
        opened(self.device)
        self.assertEqual([leg.state for leg in self.device.legs], [MISSING, IN_SYNC])
        self.assertIn("lacks what was written last", self.device.legs[0].reason)
        self.disks[0].broken = False
        self.calm()

    def test_neither(self) -> None:
        """If the other has not got it either the mirror does not start."""
        self.lose(self.behind)
        name = self.device.life.name
        record = Record.decode(self.store.kept[name])
        second = f"mirror {self.inner[1].life.name}"
        members = tuple(
            self.behind(member) if member.fingerprint == second else member for member in record.members
        )
        self.store.kept[name] = attrs.evolve(record, members=members).encode()
        self.assertRaises(NotReady, self.make().open, lambda: None)

    def test_unknown(self) -> None:
        """Where nobody knows which member is right one that lacks something is not compared with others."""
        self.lose(self.behind)
        del self.store.kept[self.device.life.name]
        error = self.assertRaises(NotReady, self.make().open, lambda: None)
        self.assertIn("none of the members of ", str(error))

    def test_notTrusted(self) -> None:
        """Such a member cannot be taken for the truth."""
        self.lose(self.behind)
        self.make().trustAtStart(self.inner[0])
        error = self.assertRaises(NotReady, self.device.open, lambda: None)
        self.assertIn("none of its own members has all of it", str(error))
