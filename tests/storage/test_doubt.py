# -*- test-case-name: tests.storage.test_doubt -*-
"""
Tests of mirrors of which nobody knows which member is right: what one of them may hold alone is not lost.
"""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import DeviceError, LocalError, NotReady, WriteError
from iscsi_twisted.storage import Mirror
from iscsi_twisted.storage.legs import FAILED, IN_SYNC, RESYNCING
from iscsi_twisted.storage.patience import SECONDS
from tests.support.mirrors import again, disks, knownMirror, opened, settled
from tests.support.platters import SECTOR, MemoryStore, PlatterDisk

REGION = 1 << 18
SIZE = 4 * REGION

OTHER = 2 * REGION + 7 * SECTOR
"""In the half of 512 bytes that a torn write does not change."""


class DoubtTests(SynchronousTestCase):
    """
    The record was lost; the first disk has something that the second one lacks.
    """

    def setUp(self) -> None:
        self.clock, self.store = Clock(), MemoryStore()
        self.disks = disks(2, SIZE)
        knownMirror(self.disks, self.clock, self.store)
        self.put(self.disks[0], 0, b"truth")
        self.store.kept.clear()
        self.mirror = self.start()
        self.assertEqual(self.mirror.status().unverified, SIZE)

    def put(self, disk: PlatterDisk, offset: int, data: bytes) -> None:
        """Let a disk hold something."""
        disk.platter.durable[offset : offset + len(data)] = data

    def start(self, *broken: int, store: MemoryStore | None = None, **options: Any) -> Mirror:
        """A mirror of the disks, some of which may be broken."""
        self.disks = again(self.disks)
        for index in broken:
            self.disks[index].broken = True
        trusted = options.pop("trusted", None)
        return opened(
            Mirror(
                self.disks,
                reactor=self.clock,
                store=store or self.store,
                trusted=None if trusted is None else self.disks[trusted],
            )
        )

    def compared(self) -> None:
        """Let the members be compared; they differ in the first region."""
        self.clock.pump([0.5] * 20)
        self.assertEqual(self.mirror.status().unverified, REGION)

    def states(self) -> list[str]:
        """What each member is."""
        return [leg.state for leg in self.mirror.legs]

    def truth(self) -> None:
        """Somebody says that the first member is right; then it is what is read."""
        self.mirror.trust(self.disks[0])
        settled(self.mirror, self.clock)
        self.assertEqual(bytes(self.mirror.read(0, 5)), b"truth")

    def test_writeFails(self) -> None:
        """A member that may be right is not left out if it fails a write where there is doubt; that fails."""
        self.compared()
        self.disks[0].faults = 1
        self.assertRaises(DeviceError, self.mirror.write, SECTOR, b"x" * SECTOR)
        self.assertEqual(self.states(), [IN_SYNC, IN_SYNC])
        self.assertIsNone(self.mirror.write(SECTOR, b"y" * SECTOR))
        self.clock.pump([5.0] * 20)
        self.truth()
        self.assertEqual(bytes(self.mirror.read(SECTOR, SECTOR)), b"y" * SECTOR)

    def test_otherFails(self) -> None:
        """Nor is any other that may be."""
        self.compared()
        self.disks[1].faults = 1
        self.assertRaises(DeviceError, self.mirror.write, SECTOR, b"x" * SECTOR)
        self.assertEqual(self.states(), [IN_SYNC, IN_SYNC])
        self.assertEqual(self.mirror.status().unverified, REGION)
        self.truth()

    def test_allFail(self) -> None:
        """If none could write it, all is as much in doubt as before."""
        self.compared()
        for disk in self.disks:
            disk.faults = 1
        self.assertRaises(DeviceError, self.mirror.write, SECTOR, b"x" * SECTOR)
        self.assertEqual(self.mirror.status().unverified, REGION)
        self.truth()

    def test_elsewhere(self) -> None:
        """
        Where there is no doubt what one could write is acknowledged; the other gets it, and is not left out.
        """
        self.compared()
        self.disks[0].faults = 1
        self.assertIsNone(self.mirror.write(REGION, b"x" * SECTOR))
        self.clock.pump([5.0] * 20)
        self.assertEqual(self.states(), [IN_SYNC, IN_SYNC])
        self.assertEqual(bytes(self.disks[0].view[REGION : REGION + SECTOR]), b"x" * SECTOR)
        self.truth()

    def test_flushFails(self) -> None:
        """A flush that one that may be right has failed is none."""
        self.compared()
        self.assertIsNone(self.mirror.write(SECTOR, b"x" * SECTOR))
        self.disks[0].faults = 1
        self.assertRaises(DeviceError, self.mirror.flush)
        self.assertEqual(self.states(), [IN_SYNC, IN_SYNC])
        self.assertIsNone(self.mirror.flush())
        self.truth()

    def test_flushFailsElsewhere(self) -> None:
        """If nothing was written where there is doubt the others have all that a flush is about."""
        self.compared()
        self.assertIsNone(self.mirror.write(REGION, b"x" * SECTOR))
        self.disks[0].faults = 1
        self.assertIsNone(self.mirror.flush())
        self.assertEqual(self.states(), [RESYNCING, IN_SYNC])
        self.assertTrue(self.mirror.legs[0].behind.flags[1])
        self.clock.pump([5.0] * 20)
        self.assertEqual(self.states(), [IN_SYNC, IN_SYNC])
        self.truth()

    def test_flushFailsEverywhere(self) -> None:
        """Unless they fail it too."""
        self.compared()
        self.assertIsNone(self.mirror.write(REGION, b"x" * SECTOR))
        for disk in self.disks:
            disk.faults = 1
        self.assertRaises(DeviceError, self.mirror.flush)

    def test_hangs(self) -> None:
        """One that does not answer is waited for."""
        self.compared()
        self.disks[0].waits = True
        writing: Any = self.mirror.write(SECTOR, b"x" * SECTOR)
        self.clock.pump([0.5] * round(SECONDS * 6))
        self.assertNoResult(writing)
        self.assertEqual(self.states(), [IN_SYNC, IN_SYNC])
        while self.disks[0].operations:
            self.disks[0].operations[0].fire()
        self.assertIsNone(self.successResultOf(writing))
        self.disks[0].waits = False
        self.truth()

    def test_comparing(self) -> None:
        """A region in which a write fails on one member while it is compared stays in doubt."""
        self.assertIsNone(self.mirror.close())
        self.put(self.disks[1], 0, b"truth")
        self.mirror = self.start(store=MemoryStore())
        for disk in self.disks:
            disk.waits = True
        self.clock.advance(0)
        reads = [disk.operations[0] for disk in self.disks]
        self.assertEqual(len(reads), 2)
        for disk in self.disks:
            disk.waits, disk.faults = False, disk is self.disks[0]
        writing: Any = self.mirror.write(SECTOR, b"x" * SECTOR)
        for read in reads:
            read.fire()
        self.failureResultOf(writing, DeviceError)
        self.clock.pump([0.5] * 20)
        self.assertNotEqual(*(bytes(disk.view[SECTOR : 2 * SECTOR]) for disk in self.disks))
        self.assertTrue(self.mirror.unverified.flags[0])

    def test_outage(self) -> None:
        """
        One that cannot be read at all while members are compared may hold what no other does, and is believed
        or not when it can be compared.
        """
        self.disks[0].broken = True
        self.clock.pump([0.5] * 20)
        self.assertEqual((self.states(), self.mirror.status().unverified), ([IN_SYNC, IN_SYNC], SIZE))
        self.disks[0].broken = False
        self.clock.pump([5.0] * 20)
        self.assertEqual(self.mirror.status().unverified, REGION)
        self.truth()

    def test_outageBetween(self) -> None:
        """The same if others could be compared before: what is not there is no place that cannot be read."""
        self.later()
        self.step(2 * REGION)
        self.disks[0].broken = True
        self.clock.pump([0.5] * 20)
        self.assertEqual((self.states(), self.mirror.status().unverified), ([IN_SYNC, IN_SYNC], 2 * REGION))
        self.disks[0].broken = False
        self.clock.pump([5.0] * 20)
        self.assertEqual(self.mirror.status().unverified, REGION)
        self.mirror.trust(self.disks[0])
        settled(self.mirror, self.clock)
        self.assertEqual(bytes(self.mirror.read(OTHER, 5)), b"other")

    def test_unreadable(self) -> None:
        """If nothing at all of one can be read nobody knows whether it agrees."""
        self.disks[0].unreadable.update(range(SIZE // SECTOR))
        self.clock.pump([0.5] * 400)
        self.assertEqual(self.mirror.status().unverified, SIZE)

    def test_neitherReadNorWritten(self) -> None:
        """What one can neither read nor write is not known to be lost there."""
        self.later()
        self.disks[0].unreadable.add(OTHER // SECTOR)
        self.disks[0].faults = 1
        self.clock.pump([0.5] * 20)
        self.assertEqual((self.states(), self.mirror.status().unverified), ([IN_SYNC, IN_SYNC], REGION))
        self.disks[0].unreadable.clear()
        self.mirror.trust(self.disks[0])
        settled(self.mirror, self.clock)
        self.assertEqual(bytes(self.mirror.read(OTHER, 5)), b"other")

    def later(self) -> None:
        """The record is lost again; they differ in the third region, of which the first has what is right."""
        self.assertIsNone(self.mirror.close())
        self.put(self.disks[1], 0, b"truth")
        self.put(self.disks[0], OTHER, b"other")
        self.mirror = self.start(store=MemoryStore())

    def step(self, unverified: int) -> None:
        """Let time go by until no more than so much is in doubt."""
        for disk in self.disks:
            disk.waits = True
        for _ in range(100):
            if self.mirror.status().unverified <= unverified:
                break
            self.clock.advance(0.01)
            for disk in self.disks:
                if disk.operations:
                    disk.operations[0].fire()
        for disk in self.disks:
            disk.waits = False
            while disk.operations:
                disk.operations[0].fire()

    def test_removed(self) -> None:
        """It can be removed only when the doubt is over."""
        self.compared()
        self.assertRaises(LocalError, self.mirror.remove, self.disks[1])
        self.truth()
        self.assertIsNone(self.successResultOf(self.mirror.remove(self.disks[1])))

    def test_decided(self) -> None:
        """When somebody has said which is right the others may fail."""
        self.compared()
        self.mirror.trust(self.disks[0])
        self.disks[1].faults = 1
        self.assertIsNone(self.mirror.write(SECTOR, b"x" * SECTOR))
        self.assertEqual(self.states(), [IN_SYNC, FAILED])

    def test_alone(self) -> None:
        """As long as there is doubt there is no start without one that may be right."""
        self.compared()
        self.assertIsNone(self.mirror.close())
        for absent in (0, 1):
            error = self.assertRaises(NotReady, self.start, absent)
            for part in ("nobody knows which member is right", f"disk{absent}", "--force-member"):
                self.assertIn(part, str(error))
        self.mirror = self.start()
        self.assertEqual(self.mirror.status().unverified, REGION)
        self.truth()
        self.assertIsNone(self.mirror.close())
        self.start(1)

    def test_aloneBelieved(self) -> None:
        """Somebody may say so."""
        self.compared()
        self.assertIsNone(self.mirror.close())
        self.mirror = self.start(1, trusted=0)
        self.assertEqual(bytes(self.mirror.read(0, 5)), b"truth")

    def test_exchanged(self) -> None:
        """Nor with a new disk in its place."""
        self.compared()
        self.assertIsNone(self.mirror.close())
        self.disks[0] = disks(1, SIZE)[0]
        self.assertRaises(NotReady, self.start)


class OldTests(SynchronousTestCase):
    """The record comes from a backup, of which members know that it is old."""

    def setUp(self) -> None:
        self.clock, self.store = Clock(), MemoryStore()
        self.disks = disks(2, SIZE)
        knownMirror(self.disks, self.clock, self.store)
        self.backup = dict(self.store.kept)
        self.mirror = opened(Mirror(again(self.disks), reactor=self.clock, store=self.store))
        self.disks = self.mirror.members
        self.assertIsNone(self.mirror.write(0, b"x" * SECTOR))
        self.clock.pump([5.0] * 3)
        # Whoever served is killed; the power stays.
        for disk in self.disks:
            self.assertNotIn(b"x", disk.crash(Random(0), False).durable)
        self.store.serving.clear()
        self.store.kept = self.backup
        self.clock = Clock()
        self.disks = again(self.disks)
        self.mirror = Mirror(self.disks, reactor=self.clock, store=self.store)

    def test_durable(self) -> None:
        """What members are found to agree on they do after a power cut."""
        opened(self.mirror)
        self.assertEqual(self.mirror.status().unverified, SIZE)
        settled(self.mirror, self.clock)
        for disk in self.disks:
            self.assertIn(b"x", disk.platter.durable)

    def test_notDurable(self) -> None:
        """If that cannot be made sure it does not start."""
        self.disks[0].faults = 1
        self.assertRaises(WriteError, opened, self.mirror)
