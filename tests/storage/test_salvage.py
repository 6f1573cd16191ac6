# -*- test-case-name: tests.storage.test_salvage -*-
"""Tests for L{iscsi_twisted.storage.salvage}, and for what members cannot read after a crash."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import NotReady, ReadError
from iscsi_twisted.interfaces import isPending
from iscsi_twisted.storage import Mirror, salvage, scrub
from iscsi_twisted.storage.legs import IN_SYNC, RESYNCING
from iscsi_twisted.storage.salvage import Salvage, mayBeSplit
from tests.support.mirrors import again, disks, knownMirror, opened, settled
from tests.support.platters import SECTOR, MemoryStore, PlatterDisk

REGION = 1 << 18
SIZE = 4 * REGION
BLOCK = 4096


def sectors(offset: int, length: int) -> set[int]:
    """The sectors of a platter that hold these bytes."""
    return set(range(offset // SECTOR, (offset + length) // SECTOR))


class SalvageTests(SynchronousTestCase):
    """Mirrors whose members cannot read everything."""

    def setUp(self) -> None:
        self.clock, self.store = Clock(), MemoryStore()
        self.disks = disks(2, SIZE)
        self.content = bytearray(os.urandom(SIZE))
        for disk in self.disks:
            disk.view[:] = self.content
        self.device = opened(knownMirror(self.disks, self.clock, self.store))

    def crashed(self, place: int, *contents: bytes) -> None:
        """Whoever served was killed when members had got different parts of a write."""
        self.device.write(place, bytes(self.content[place : place + 1]))
        for disk, content in zip(self.disks, contents, strict=True):
            disk.view[place : place + len(content)] = content
            disk.platter.durable[:] = disk.view
            disk.broken = True
        for call in list(self.clock.getDelayedCalls()):
            call.cancel()
        self.disks = again(self.disks)

    def start(self) -> Mirror:
        """The mirror of these disks, as after a restart."""
        self.device = opened(Mirror(self.disks, reactor=self.clock, store=self.store))
        return self.device

    def equal(self) -> None:
        """All members hold the same, and can be read."""
        settled(self.device, self.clock)
        self.assertEqual(self.disks[0].view, self.disks[1].view)
        self.assertEqual([disk.unreadable for disk in self.disks], [set(), set()])
        self.assertEqual([list(leg.rival) for leg in self.device.legs], [[], []])

    def test_parts(self) -> None:
        """What no member can read as a whole is put together, and written anew where it could not be read."""
        self.disks[0].unreadable.update(sectors(BLOCK, 512))
        self.disks[1].unreadable.update(sectors(3 * BLOCK, 512))
        found = self.device.read(0, 4 * BLOCK)
        if not isinstance(found, bytes):
            found = self.successResultOf(found)  # type: ignore[arg-type]
        self.assertEqual(found, self.content[: 4 * BLOCK])
        self.assertEqual(self.disks[0].unreadable, set())

    def test_lost(self) -> None:
        """What nobody can read is an error at the right place, and the rest can be read."""
        for disk in self.disks:
            disk.unreadable.update(sectors(3 * BLOCK + 512, 512))
        error = self.assertRaises(ReadError, self.device.read, 0, 4 * BLOCK)
        self.assertEqual(error.offset, 3 * BLOCK + 512)
        self.assertIn("no member can read it: disk0 cannot read", str(error))
        self.assertEqual(self.device.read(0, 3 * BLOCK), self.content[: 3 * BLOCK])

    def test_found(self) -> None:
        """What is left is in order, and what is lost in as few ranges as there are."""
        for disk in self.disks:
            disk.unreadable.update(sectors(BLOCK, 1024), sectors(2 * BLOCK, 512))
        self.disks[1].unreadable.update(sectors(3 * BLOCK, 512))
        found = Salvage(self.device, self.device.legs[1])
        Deferred.fromCoroutine(found.run(0, 4 * BLOCK))
        self.assertEqual(found.lost, [(BLOCK, BLOCK + 1024), (2 * BLOCK, 2 * BLOCK + 512)])
        left = {offset + place for offset, data in found.parts for place in range(len(data))}
        lost = {place for start, stop in found.lost for place in range(start, stop)}
        self.assertEqual((len(left) + len(lost), left | lost), (4 * BLOCK, set(range(4 * BLOCK))))
        self.assertEqual(found.parts, sorted(found.parts))
        ((leg, offset, data),) = found.missed
        self.assertIs(leg, self.device.legs[1])
        self.assertTrue(offset <= 3 * BLOCK < offset + len(data))
        self.assertEqual(data, self.content[offset : offset + len(data)])

    def test_mayBeSplit(self) -> None:
        """Only a medium that has bad places is asked for parts, and only if it answers at all."""
        (leg, other) = self.device.legs
        self.assertEqual(
            [mayBeSplit(leg, error) for error in (ReadError(""), OSError(5, ""), NotReady(""), None)],
            [True, True, False, False],
        )
        leg.hanging = 1
        self.assertFalse(mayBeSplit(leg, ReadError("")))
        for disk in self.disks:
            disk.broken = True
        found = Salvage(self.device, other)
        before = PlatterDisk.misses
        Deferred.fromCoroutine(found.run(0, REGION))
        self.assertEqual((PlatterDisk.misses - before, found.lost), (2, [(0, REGION)]))
        self.assertIn("disk1 is broken", str(found.error))

    def test_aborted(self) -> None:
        """Nothing more is asked for when a read is aborted meanwhile."""
        for disk in self.disks:
            disk.unreadable.update(sectors(0, REGION))
            disk.waits = True
        reading: Any = self.device.read(0, REGION)
        for _ in range(4):
            (operation,) = [one for disk in self.disks for one in disk.operations]
            operation.fire()
        reading.cancel()
        self.failureResultOf(reading, CancelledError)
        (operation,) = [one for disk in self.disks for one in disk.operations]
        operation.fire()
        self.assertEqual([disk.operations for disk in self.disks], [[], []])
        self.assertEqual(self.device.errors, 0)

    def test_closed(self) -> None:
        """A mirror that is closed does not try all parts before, neither of a resync nor of a comparison."""
        for resyncing in (True, False):
            if resyncing:
                self.crashed(REGION, b"new" * 1000, b"old" * 1000)
                self.start()
            for disk in self.disks:
                disk.unreadable.update(sectors(0, SIZE))
                disk.waits = True
            scrub = None if resyncing else self.device.scrub()
            for _ in range(3):
                self.clock.advance(0)
                for disk in self.disks:
                    for operation in list(disk.operations):
                        operation.fire()
            self.assertNotEqual(self.device.status().activity, "")
            before, closing = PlatterDisk.misses, self.device.close()
            for disk in self.disks:
                disk.waits = False
                for operation in list(disk.operations):
                    operation.fire()
            self.assertLess(PlatterDisk.misses - before, 5, resyncing)
            if isPending(closing):
                self.successResultOf(closing)  # type: ignore[arg-type]
            if scrub is not None:
                self.failureResultOf(scrub, CancelledError)
            for disk in self.disks:
                disk.unreadable.clear()
            self.device = opened(Mirror(again(self.disks), reactor=self.clock, store=self.store))
            self.disks = self.device.members  # type: ignore[assignment]
            settled(self.device, self.clock)

    def test_other(self) -> None:
        """What the chosen member cannot read after a crash is taken from another, and written anew."""
        self.crashed(REGION, b"new" * 1000, b"old" * 1000)
        self.disks[0].unreadable.update(sectors(REGION + 1024, 512))
        self.start()
        self.assertEqual([leg.state for leg in self.device.legs], [IN_SYNC, RESYNCING])
        self.equal()
        whole = (b"new" * 1000)[:1024] + (b"old" * 1000)[1024:1536] + (b"new" * 1000)[1536:]
        self.assertEqual(bytes(self.disks[0].view[REGION:][:3000]), whole)
        self.assertEqual(self.device.status().members[0].repaired, 1)

    def test_readFirst(self) -> None:
        """What was read before it was copied stays so, whoever fails after that."""
        self.crashed(REGION, b"new" * 1000, b"old" * 1000)
        self.disks[0].unreadable.update(sectors(REGION + 1024, 512))
        self.start()
        seen: Any = self.device.read(REGION, 512)
        self.assertEqual(seen, (b"new" * 1000)[:512])
        self.disks[0].unreadable.update(sectors(REGION, 512))
        seen: Any = self.device.read(REGION, 2048)
        whole = (b"new" * 1000)[:1024] + (b"old" * 1000)[1024:1536] + (b"new" * 1000)[1536:2048]
        self.assertEqual(seen, whole)
        self.assertEqual(self.disks[0].unreadable, set())
        self.equal()

    def test_removed(self) -> None:
        """Who reads such a place while a member is removed leaves the others as good as the chosen one."""
        self.disks += disks(1, SIZE)
        self.successResultOf(self.device.add(self.disks[2]))
        settled(self.device, self.clock)
        self.crashed(REGION, b"new" * 1000, b"old" * 1000, b"odd" * 1000)
        self.start()
        for disk in self.disks:
            disk.waits = True
        reading: Any = self.device.read(REGION, 512)
        self.disks[0].operations[0].fire()
        removing = self.device.remove(self.disks[1])
        self.disks[1].operations[0].fire()
        for operation in self.disks[2].operations:
            operation.fire()
        seen = (b"new" * 1000)[:512]
        self.assertEqual(self.successResultOf(reading), seen)
        self.assertEqual(self.disks[2].view[REGION:][:512], seen)
        self.successResultOf(removing)

    def test_again(self) -> None:
        """A crash after the chosen member was written does not make anybody doubt it."""
        self.crashed(REGION, b"new" * 1000, b"old" * 1000)
        self.disks[0].unreadable.update(sectors(REGION + 1024, 512))
        self.start()
        seen = self.device.read(REGION, 2048)
        self.assertEqual(self.disks[0].unreadable, set())
        for disk in self.disks:
            disk.platter.durable[:] = disk.view
        for call in list(self.clock.getDelayedCalls()):
            call.cancel()
        self.store.serving.clear()
        self.disks = again(self.disks)
        self.start()
        self.assertEqual(self.device.status().unverified, 0)
        self.assertEqual(self.device.read(REGION, 2048), seen)
        self.equal()

    def test_stale(self) -> None:
        """A member that lacks more than what was under way is not asked."""
        self.disks[1].broken = True
        self.device.write(REGION, b"x" * BLOCK)
        self.crashed(REGION, b"new" * 1000, b"old" * 1000)
        self.disks[0].unreadable.update(sectors(REGION + 1024, 512))
        self.start()
        error = self.assertRaises(ReadError, self.device.read, REGION + 1024, 512)
        self.assertEqual(error.offset, REGION + 1024)

    def test_nobody(self) -> None:
        """Where nobody can read a sector the rest is copied, and that is told and tried again."""
        self.crashed(REGION, b"new" * 1000, b"old" * 1000)
        for disk in self.disks:
            disk.unreadable.update(sectors(REGION + 1024, 512))
        with capturedLogs() as events:
            self.start()
            self.clock.pump([0.1] * 50)
        told = [event for event in events if event.get("event") == "resync" and "end" in event]
        self.assertEqual(
            {(event["offset"], event["end"]) for event in told}, {(REGION + 1024, REGION + 1536)}
        )
        self.assertEqual(list(self.device.legs[1].behind), [1])
        place = slice(REGION + 1536, REGION + 3000)
        self.assertEqual(self.disks[0].view[place], self.disks[1].view[place])
        error = self.assertRaises(ReadError, self.device.read, REGION, BLOCK)
        self.device.write(REGION + 1024, bytes(512))
        self.equal()
        self.assertIsNotNone(error.offset)

    def test_bounded(self) -> None:
        """A member that can read nothing is not asked without end."""
        self.patch(salvage, "TRIES", 20)
        for disk in self.disks:
            disk.unreadable.update(sectors(0, REGION))
        before = PlatterDisk.misses
        self.assertRaises(ReadError, self.device.read, 0, REGION)
        self.assertLess(PlatterDisk.misses - before, 20 + 2 * 10)

    def test_chosenStays(self) -> None:
        """A chosen member that cannot be written is not given up: no other has all that it has."""
        self.crashed(REGION, b"new" * 1000, b"old" * 1000)
        self.disks[0].unreadable.update(sectors(REGION + 1024, 512))
        self.start()
        self.disks[0].faults = 1
        self.clock.pump([0.1] * 20)
        self.assertEqual([leg.state for leg in self.device.legs], [IN_SYNC, RESYNCING])
        self.equal()

    def scrubbed(self) -> Any:
        """What a comparison finds."""
        scrub = self.device.scrub()
        self.clock.pump([0.01] * 60)
        return self.successResultOf(scrub)

    def test_scrub(self) -> None:
        """A comparison takes each sector from a member that can read it, and tells those that nobody can."""
        self.disks[0].unreadable.update(sectors(BLOCK, 512))
        self.disks[1].unreadable.update(sectors(3 * BLOCK, 512))
        findings = self.scrubbed()
        self.assertEqual((findings.unreadable, findings.lost, findings.count), (1, 0, 0))
        self.equal()
        self.assertEqual(self.disks[0].view, self.content)
        for disk in self.disks:
            disk.unreadable.update(sectors(REGION + BLOCK, 5 * 512))
        with capturedLogs() as events:
            self.assertEqual(self.scrubbed().lost, 5 * 512)
        told = [event for event in events if event.get("event") == "unreadable"]
        self.assertEqual(
            [(event["offset"], event["end"]) for event in told], [(REGION + BLOCK, REGION + BLOCK + 5 * 512)]
        )

    def test_scrubTold(self) -> None:
        """Places that nobody can read are told one by one, but not without end; all are counted."""
        self.patch(scrub, "TOLD", 2)
        for disk in self.disks:
            for place, length in ((BLOCK, 1024), (3 * BLOCK, 512), (5 * BLOCK, 512)):
                disk.unreadable.update(sectors(place, length))
        with capturedLogs() as events:
            self.assertEqual(self.scrubbed().lost, 2048)
        told = [(each["offset"], each["end"]) for each in events if each.get("event") == "unreadable"]
        self.assertEqual(told, [(BLOCK, BLOCK + 1024), (3 * BLOCK, 3 * BLOCK + 512)])

    def test_scrubFar(self) -> None:
        """Each piece may take so many tries, however many pieces have bad places."""
        self.patch(scrub, "TRIES", 40)
        for place in range(0, SIZE, REGION):
            self.disks[0].unreadable.update(sectors(place + BLOCK, 512))
            self.disks[1].unreadable.update(sectors(place + 3 * BLOCK, 512))
        self.assertEqual(self.scrubbed().lost, 0)
        self.equal()

    def test_compare(self) -> None:
        """
        Where nothing is known of members, but they agree in all that can be compared, the rest is taken from
        who can read it.
        """
        self.device.close()
        self.store.kept.clear()
        self.disks[0].unreadable.update(sectors(BLOCK, 512))
        self.disks[1].unreadable.update(sectors(3 * REGION, 512))
        self.start()
        self.equal()
        self.assertEqual(self.disks[1].view, self.content)

    def test_compareLost(self) -> None:
        """What nobody can read is told once in a comparison of what is in doubt, and stays so alone."""
        self.device.close()
        self.store.kept.clear()
        self.disks[0].unreadable.update(sectors(BLOCK, 512))
        for disk in self.disks:
            disk.unreadable.update(sectors(3 * BLOCK, 512))
        with capturedLogs() as events:
            self.start()
            self.clock.pump([0.1] * 50)
        told = [(each["offset"], each["end"]) for each in events if each.get("event") == "unreadable"]
        self.assertEqual(told, [(3 * BLOCK, 3 * BLOCK + 512)])
        self.assertEqual(self.device.status().unverified, REGION)
        self.assertEqual(self.disks[0].unreadable, sectors(3 * BLOCK, 512))

    def test_compareDiffers(self) -> None:
        """Where members differ somewhere nobody knows who is right in the rest either."""
        self.device.close()
        self.store.kept.clear()
        self.disks[0].unreadable.update(sectors(BLOCK, 512))
        self.disks[1].view[3 * REGION] ^= 1
        self.start()
        self.clock.pump([0.1] * 50)
        self.assertEqual(self.device.status().unverified, 2 * REGION)
        self.assertEqual(self.disks[0].unreadable, sectors(BLOCK, 512))
        self.assertEqual(self.device.read(0, BLOCK), self.content[:BLOCK])
        self.assertRaises(ReadError, self.device.read, BLOCK, BLOCK)
