# -*- test-case-name: tests.storage.test_resync -*-
"""Tests for L{iscsi_twisted.storage.resync} and L{iscsi_twisted.storage.progress}."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import OutOfSpace
from iscsi_twisted.interfaces import Capabilities
from iscsi_twisted.storage import Mirror, progress, resync
from iscsi_twisted.storage.legs import FAILED, IN_SYNC, RESYNCING
from iscsi_twisted.storage.record import Record
from tests.support.mirrors import again, disks, knownMirror, opened, settled
from tests.support.platters import MemoryStore, Platter, PlatterDisk
from tests.support.turns import turn

REGION = 1 << 18
SIZE = 8 * REGION


class HoledDisk(PlatterDisk):
    """A disk that knows in which regions it has anything."""

    def capabilities(self) -> Capabilities:
        return super().capabilities()._replace(allocated=True)

    def allocated(self, offset: int, length: int) -> list[tuple[int, bool]]:
        return [
            (min(REGION, offset + length - start), any(self.view[start : start + REGION]))
            for start in range(offset, offset + length, REGION)
        ]


class ResyncTests(SynchronousTestCase):
    """Copying what members lack."""

    def setUp(self) -> None:
        self.patch(resync, "STRETCH", 1)
        self.clock, self.store = Clock(), MemoryStore()
        self.disks = disks(2, SIZE)
        self.device = opened(knownMirror(self.disks, self.clock, self.store))

    def copied(self, disk: PlatterDisk) -> list[int]:
        """The regions that were copied to a disk."""
        return sorted({offset // REGION for name, offset, length in disk.history if name == "write"})

    def reopen(self, *new: PlatterDisk) -> Mirror:
        """The mirror of these, or of the same disks, once more, as after a restart."""
        self.disks = list(new) or again(self.disks)
        self.device = opened(Mirror(self.disks, reactor=self.clock, store=self.store))
        return self.device

    def slowly(self) -> None:
        """Let each piece take a tenth of a second."""
        pause = self.device.life.pause
        self.device.life.pause = lambda seconds: pause(max(0.1, seconds))  # type: ignore[method-assign]

    def test_removedBeforeFlush(self) -> None:
        """A member that is removed while another one is flushed is not asked to flush any more."""
        new = [PlatterDisk(Platter(SIZE), name) for name in ("one", "two")]
        for disk in new:
            self.successResultOf(self.device.add(disk))
        self.device.write(0, b"x" * 512)
        new[0].waits = True
        while not any(operation.name == "flush" for operation in new[0].operations):
            while new[0].operations and new[0].operations[0].name != "flush":
                new[0].operations[0].fire()
            self.clock.advance(0.1)
        new[1].history.clear()
        self.successResultOf(self.device.remove("two"))
        new[0].waits = False
        new[0].operations[0].fire()
        self.clock.pump([0.1] * 10)
        self.assertEqual(new[1].history, [])
        self.assertEqual(self.device.legs[2].state, IN_SYNC)

    def crashed(self, waiting: int = 0) -> None:
        """What was written is there, and the process is gone."""
        for disk in self.disks:
            disk.platter.durable[:] = disk.view
            disk.broken = True
        for call in list(self.clock.getDelayedCalls()):
            call.cancel()

    def test_crash(self) -> None:
        """After a crash only regions are copied in which writes were under way."""
        self.device.write(3 * REGION, b"x" * 100)
        self.disks[1].view[3 * REGION : 3 * REGION + 50] = b"y" * 50
        self.crashed()
        self.reopen()
        self.assertEqual([leg.state for leg in self.device.legs], [IN_SYNC, RESYNCING])
        self.assertEqual(bytes(self.device.read(3 * REGION, 100)), b"x" * 100)
        settled(self.device, self.clock)
        self.assertEqual((self.copied(self.disks[1]), self.copied(self.disks[0])), ([3], []))
        self.assertEqual(self.disks[0].view, self.disks[1].view)

    def test_return(self) -> None:
        """A member that returns gets what was written while it was away, and nothing else."""
        self.disks[0].broken = True
        self.device.write(2 * REGION, b"x" * 100)
        self.device.write(5 * REGION - 50, b"y" * 100)
        self.assertEqual(self.device.legs[0].state, FAILED)
        self.clock.pump([5] * 20)
        self.assertEqual(self.device.legs[0].state, FAILED)
        self.assertFalse(self.device.intent.marked())
        self.disks[0].history.clear()
        self.disks[0].broken = False
        settled(self.device, self.clock)
        self.assertEqual(self.copied(self.disks[0]), [2, 4, 5])
        self.assertEqual(self.disks[0].view, self.disks[1].view)

    def test_resumed(self) -> None:
        """After a restart the copying goes on where it was."""
        self.patch(resync, "CHECKPOINT", 0.0)
        new = PlatterDisk(Platter(SIZE), "new")
        self.disks[0].view[:] = os.urandom(SIZE)
        self.crashed()
        self.reopen(again(self.disks)[0], new)
        self.slowly()
        for _ in range(100):
            if len(self.copied(new)) >= 5:
                break
            self.clock.advance(0.1)
        self.crashed()
        before, (old, new) = self.copied(new), again(self.disks)
        self.reopen(old, new)
        settled(self.device, self.clock)
        self.assertEqual((before, self.copied(new)), ([0, 1, 2, 3, 4], [4, 5, 6, 7]))
        self.assertEqual(new.view, old.view)

    def test_neverStale(self) -> None:
        """While members are copied to, what they lack is read elsewhere, and what they have is theirs too."""
        new = PlatterDisk(Platter(SIZE), "new")
        self.disks[0].view[:] = data = os.urandom(SIZE)
        self.crashed()
        self.reopen(again(self.disks)[0], new)
        self.slowly()
        for _ in range(200):
            for offset in range(0, SIZE, REGION):
                self.assertEqual(self.device.read(offset, 512), data[offset : offset + 512])
            self.clock.advance(0.05)
        self.assertEqual((self.device.legs[1].state, new.view), (IN_SYNC, data))

    def test_written(self) -> None:
        """What is written meanwhile is in all members in the end."""
        new = PlatterDisk(Platter(SIZE), "new")
        self.crashed()
        self.reopen(again(self.disks)[0], new)
        self.slowly()
        for offset in range(0, SIZE, REGION // 2):
            self.device.write(offset, os.urandom(700))
            self.clock.advance(0.05)
        settled(self.device, self.clock)
        self.assertEqual(self.disks[0].view, new.view)

    def test_holes(self) -> None:
        """Where the source has nothing nothing is copied, but zeros are made."""
        self.holes()

    def test_punched(self) -> None:
        """So it is where only giving storage back leaves zeros."""
        self.holes(zero=False)

    def test_zeroed(self) -> None:
        """And where storage stays."""
        self.holes(discard=False, discardZeroes=False)

    def test_filledMeanwhile(self) -> None:
        """What is written where the source had nothing a moment ago is not made zeros."""
        full, empty = HoledDisk(Platter(SIZE), "full"), HoledDisk(Platter(SIZE), "empty")
        knownMirror([full, HoledDisk(Platter(SIZE), "lost")], self.clock, self.store)
        empty.view[:] = b"?" * SIZE
        allocated, written = full.allocated, []

        def ask(offset: int, length: int) -> list[tuple[int, bool]]:
            answer = allocated(offset, length)
            if not written:
                written.append(self.device.write(offset, b"n" * 512))
            return answer

        full.allocated = ask  # type: ignore[method-assign]
        self.device = opened(Mirror([full, empty], reactor=self.clock, store=self.store, trusted=full))
        settled(self.device, self.clock)
        self.assertEqual((written, bytes(full.view[:512])), ([None], b"n" * 512))
        self.assertTrue(full.view == empty.view, "a member holds zeros instead")

    def holes(self, **abilities: bool) -> None:
        """Copy to a member that can do this."""
        full, empty = HoledDisk(Platter(SIZE), "full"), HoledDisk(Platter(SIZE), "empty")
        able = empty.capabilities()._replace(**abilities)
        empty.capabilities = lambda: able  # type: ignore[method-assign]
        knownMirror([full, HoledDisk(Platter(SIZE), "lost")], self.clock, self.store)
        full.view[REGION : REGION + 10] = b"z" * 10
        empty.view[:] = b"?" * SIZE
        zeros: list[tuple[int, int]] = []

        def zero(offset: int, length: int, unmap: bool) -> Any:
            self.assertTrue(unmap)
            zeros.append((offset, length))
            return PlatterDisk.zero(empty, offset, length, unmap)

        empty.zero = zero  # type: ignore[method-assign]
        self.device = opened(Mirror([full, empty], reactor=self.clock, store=self.store, trusted=full))
        settled(self.device, self.clock)
        self.assertEqual(full.view, empty.view)
        self.assertNotIn((REGION, REGION), zeros)
        self.assertEqual(sum(length for _, length in zeros), SIZE - REGION)

    def test_targetFails(self) -> None:
        """A member that fails what is copied to it is left out, and gets it when it is back."""
        self.disks[0].broken = True
        self.device.write(0, b"x" * 100)
        self.disks[0].broken = False
        self.disks[0].faults = 1
        self.clock.pump([5, 0.1, 0.1])
        self.assertEqual(self.device.legs[0].state, FAILED)
        (data,) = self.store.kept.values()
        self.assertEqual([member.present for member in Record.decode(data).members], [False, True])
        settled(self.device, self.clock)
        self.assertEqual(self.disks[0].view, self.disks[1].view)

    def test_neededFails(self) -> None:
        """One that fails and cannot be left out, since it has what others lack, gets it in the next pass."""
        self.device.write(0, os.urandom(SIZE))
        wanted = bytes(self.disks[0].view)
        for disk, region in zip(self.disks, (2, 5), strict=True):
            disk.view[region * REGION : (region + 1) * REGION] = bytes(REGION)
            self.device.spoil(self.device.leg(disk), region, region)
        self.disks[0].faults = 1
        self.device.settleStates()
        self.clock.pump([0.1] * 20)
        self.assertEqual([leg.state for leg in self.device.legs], [RESYNCING, IN_SYNC])
        self.assertEqual([list(leg.behind) for leg in self.device.legs], [[2], []])
        settled(self.device, self.clock)
        self.assertEqual([bytes(disk.view) == wanted for disk in self.disks], [True, True])

    def test_noRoom(self) -> None:
        """One that has no room for it stays, and gets it later."""
        self.disks[0].broken = True
        self.device.write(0, b"x" * 100)
        self.disks[0].broken = False

        def full(offset: int, data: bytes) -> None:
            raise OutOfSpace("full")

        self.disks[0].write = full  # type: ignore[method-assign]
        with capturedLogs() as events:
            self.clock.pump([5, 0.1, 0.1])
        self.assertEqual(self.device.legs[0].state, RESYNCING)
        self.assertTrue(any("could not be copied: full" in str(formatEvent(event)) for event in events))
        del self.disks[0].write
        settled(self.device, self.clock)
        self.assertEqual(self.disks[0].view, self.disks[1].view)

    def test_noRoomSomewhere(self) -> None:
        """If there is no room for a part of it the rest is copied, and that part is left for later."""
        self.patch(resync, "STRETCH", 64)
        new = PlatterDisk(Platter(SIZE), "new")
        self.disks[0].view[:] = os.urandom(SIZE)
        self.crashed()
        real, tries = new.write, []

        def full(offset: int, data: bytes) -> Any:
            if offset <= 5 * REGION < offset + len(data):
                tries.append(self.clock.seconds())
                raise OutOfSpace("full")
            return real(offset, data)

        new.write = full  # type: ignore[method-assign]
        self.reopen(again(self.disks)[0], new)
        self.clock.pump([0.1] * 50)
        self.assertEqual(len(tries), 1)
        self.assertEqual(
            (self.device.legs[1].state, list(self.device.legs[1].behind)), (RESYNCING, [4, 5, 6, 7])
        )
        new.write = real  # type: ignore[method-assign]
        settled(self.device, self.clock)
        self.assertEqual(self.disks[0].view, new.view)

    def lost(self, *names: str) -> list[PlatterDisk]:
        """The mirror of the first disk and of new ones, which lack all that is random in it."""
        self.patch(resync, "STRETCH", 64)
        self.patch(resync, "PIECE", REGION // 32)
        self.disks[0].view[:] = os.urandom(SIZE)
        self.crashed()
        new = [PlatterDisk(Platter(SIZE), name) for name in names]
        old = again(self.disks)[0]
        self.disks = [old, *new]
        self.device = Mirror(self.disks, reactor=self.clock, store=self.store)
        return new

    def refuse(self, disk: PlatterDisk) -> list[int]:
        """Have a disk without room; where it is written."""
        places: list[int] = []

        def full(offset: int, data: bytes) -> None:
            places.append(offset)
            raise OutOfSpace("full")

        disk.write = full  # type: ignore[method-assign,assignment]
        return places

    def test_noRoomAnywhere(self) -> None:
        """One that never has room is neither tried nor told of for each piece."""
        (new,) = self.lost("new")
        places = self.refuse(new)
        with capturedLogs() as events:
            opened(self.device)
            self.clock.pump([0.1] * 50)
        self.assertEqual(self.device.legs[1].state, RESYNCING)
        self.assertLess(len(places), resync.REFUSALS + resync.AT_ONCE)
        self.assertEqual(sum(name == "read" for name, _, _ in self.disks[0].history), len(places))
        told = [event for event in events if "could not be copied: full" in str(formatEvent(event))]
        self.assertEqual(len(told), resync.COMPLAINTS)
        del new.write
        settled(self.device, self.clock)
        self.assertEqual(self.disks[0].view, new.view)

    def test_noRoomNow(self) -> None:
        """One that has room again between has not refused so many in a row, and gets all for which it has."""
        self.patch(resync, "REFUSALS", 2)
        self.patch(resync, "AT_ONCE", 1)
        (new,) = self.lost("new")
        self.patch(resync, "PIECE", REGION)
        real = new.write

        def full(offset: int, data: bytes) -> Any:
            if offset // REGION % 2:
                raise OutOfSpace("full")
            return real(offset, data)

        new.write = full  # type: ignore[method-assign,assignment]
        opened(self.device)
        self.clock.pump([0.1] * 50)
        self.assertEqual(list(self.device.legs[1].behind), [1, 3, 5, 7])

    def test_noRoomTurns(self) -> None:
        """That a member has no room is found out region by region, and others have their turns."""
        self.patch(resync, "REFUSALS", 1)
        (new,) = self.lost("new")
        self.patch(resync, "STRETCH", 1)
        self.refuse(new)
        opened(self.device)
        turn(self.clock, 8)
        self.assertEqual(self.device.status().activity, "resync")
        turn(self.clock, 8)
        self.assertEqual(self.device.status().activity, "")

    def test_noRoomElsewhere(self) -> None:
        """One that has no room keeps no other from becoming a good one."""
        full, new = self.lost("full", "new")
        self.refuse(full)
        opened(self.device)
        self.clock.pump([0.1] * 50)
        self.assertEqual([leg.state for leg in self.device.legs], [IN_SYNC, RESYNCING, IN_SYNC])
        self.assertEqual(self.disks[0].view, new.view)
        del full.write
        settled(self.device, self.clock)
        self.assertEqual(full.view, new.view)

    def test_sourceFails(self) -> None:
        """What the source cannot read is left for later, and told; the rest is copied."""
        new = PlatterDisk(Platter(SIZE), "new")
        self.disks[0].view[:] = os.urandom(SIZE)
        self.crashed()
        old = again(self.disks)[0]
        old.unreadable = {3 * REGION // 64}
        self.reopen(old, new)
        self.clock.pump([0.1] * 200)
        self.assertEqual(list(self.device.legs[1].behind), [3])
        self.assertEqual(self.device.legs[1].state, RESYNCING)
        old.unreadable.clear()
        settled(self.device, self.clock)
        self.assertEqual(old.view, new.view)

    def test_different(self) -> None:
        """Each member gets what it lacks, and not what only another one lacks."""
        self.patch(resync, "STRETCH", 64)
        self.patch(resync, "PIECE", REGION)
        third = PlatterDisk(Platter(SIZE), "third")
        self.successResultOf(self.device.add(third))
        settled(self.device, self.clock)
        away = [self.disks[1], third]
        for disk, region in zip(away, (2, 5), strict=True):
            disk.history.clear()
            leg = self.device.leg(disk)
            self.device.spoil(leg, region, region + 1)
        self.device.settleStates()
        settled(self.device, self.clock)
        self.assertEqual([self.copied(disk) for disk in away], [[2, 3], [5, 6]])

    def test_nothingToCopy(self) -> None:
        """Where nobody knows what to copy it is found out region by region, and others have their turns."""
        self.crashed()
        self.store.kept.clear()
        self.disks = again(self.disks)
        self.disks[1].view[:] = os.urandom(SIZE)
        self.reopen(*self.disks)
        self.clock.pump([0.1] * 20)
        self.assertEqual(self.device.status().unverified, SIZE)
        self.successResultOf(self.device.add(PlatterDisk(Platter(SIZE), "new")))
        turn(self.clock, 6)
        self.assertEqual(self.device.status().activity, "resync")
        turn(self.clock, 6)
        self.assertEqual(self.device.status().activity, "")
        self.device.trust(self.disks[0])
        settled(self.device, self.clock)

    def test_otherSource(self) -> None:
        """What one member cannot read is copied from another that has it."""
        third, new = PlatterDisk(Platter(SIZE), "third"), PlatterDisk(Platter(SIZE), "new")
        self.successResultOf(self.device.add(third))
        settled(self.device, self.clock)
        self.disks[0].unreadable = set(range(SIZE // 64))
        self.successResultOf(self.device.add(new))
        settled(self.device, self.clock)
        self.assertEqual(new.view, third.view)

    def test_progress(self) -> None:
        """How far it is, is in the status and in the log."""
        self.patch(progress, "TOLD", 0.0)
        new = PlatterDisk(Platter(SIZE), "new")
        self.crashed()
        with capturedLogs() as events:
            self.reopen(again(self.disks)[0], new)
            self.slowly()
            self.clock.pump([0.1] * 4)
            status = self.device.status()
            settled(self.device, self.clock)
        self.assertEqual((status.activity, status.degraded), ("resync", True))
        self.assertTrue(0 < status.percent < 100, status)
        self.assertTrue(status.rate > 0 and status.left is not None and status.left > 0, status)
        told = [event for event in events if event.get("event") == "resync"]
        self.assertIn("% done", formatEvent(told[0]))
        self.assertEqual((self.device.status().activity, self.device.status().degraded), ("", False))

    def test_givesWay(self) -> None:
        """While initiators are at work it rests for most of the time."""
        new = PlatterDisk(Platter(SIZE), "new")
        self.crashed()
        self.reopen(again(self.disks)[0], new)
        began = self.clock.seconds()
        real = new.write

        def slow(offset: int, data: bytes) -> Any:
            self.clock.rightNow += 0.01
            self.device.read(0, 512)
            return real(offset, data)

        new.write = slow  # type: ignore[method-assign]
        for _ in range(2000):
            if new.history[-1:] == [("flush", 0, 0)]:
                break
            self.clock.advance(0.001)
        self.assertGreater(self.clock.seconds() - began, 3 * 8 * 0.01)

    def test_closed(self) -> None:
        """Closing ends it, and keeps what was copied."""
        new = PlatterDisk(Platter(SIZE), "new")
        self.crashed()
        self.reopen(again(self.disks)[0], new)
        self.slowly()
        self.clock.pump([0.1] * 4)
        self.assertIsNone(self.device.close())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        copied = self.copied(new)
        self.reopen()
        settled(self.device, self.clock)
        self.assertLess(len(self.copied(self.disks[1])), 8)
        # What was being copied is copied again.
        self.assertLessEqual(len(copied) + len(self.copied(self.disks[1])), 9)
