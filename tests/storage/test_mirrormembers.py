# -*- test-case-name: tests.storage.test_mirrormembers -*-
"""Tests for L{iscsi_twisted.storage.mirrormembers}."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import DeviceError, LocalError, NotReady
from iscsi_twisted.storage import Mirror, resync
from iscsi_twisted.storage.legs import FAILED, IN_SYNC, MISSING, REPLACED, RESYNCING
from iscsi_twisted.storage.record import Record
from tests.support.mirrors import again, disks, knownMirror, opened, settled
from tests.support.platters import MemoryStore, Platter, PlatterDisk

SIZE = 1 << 20


def refusals(events: Sequence[Any]) -> list[str]:
    """Why members were not taken back."""
    return [event["reason"] for event in events if event.get("event") == "refused"]


class MemberTests(SynchronousTestCase):
    """Members that come and go."""

    def setUp(self) -> None:
        self.patch(resync, "STRETCH", 1)
        self.clock, self.store = Clock(), MemoryStore()
        self.disks = disks(2, SIZE)
        content = os.urandom(SIZE)
        for disk in self.disks:
            disk.view[:] = content
            disk.platter.durable[:] = content
        self.device = opened(knownMirror(self.disks, self.clock, self.store))
        self.new = PlatterDisk(Platter(SIZE), "new")

    def states(self) -> list[str]:
        """Those of all members."""
        return [member.state for member in self.device.status().members]

    def test_add(self) -> None:
        """A new member gets everything, and belongs to the mirror from then on."""
        self.successResultOf(self.device.add(self.new))
        self.assertEqual(self.states(), [IN_SYNC, IN_SYNC, RESYNCING])
        settled(self.device, self.clock)
        self.assertEqual(self.new.view, self.disks[0].view)
        self.assertIsNone(self.device.close())
        self.device = opened(
            Mirror([again([self.new])[0], *self.disks], reactor=self.clock, store=self.store)
        )
        self.assertEqual(self.states(), [IN_SYNC] * 3)

    def test_unfit(self) -> None:
        """What does not fit is not taken, and closed."""
        for wrong in (PlatterDisk(Platter(SIZE * 2), "large"), PlatterDisk(Platter(SIZE), "gone")):
            wrong.broken = wrong.title == "gone"
            self.failureResultOf(self.device.add(wrong), DeviceError)
            self.assertFalse(wrong._open)
        self.assertEqual(self.states(), [IN_SYNC] * 2)
        self.assertIsNone(self.device.close())
        self.failureResultOf(self.device.add(self.new), LocalError)

    def test_blocks(self) -> None:
        """A member with blocks, as a remote one, may be away at the start, and comes back; or be added."""
        self.assertIsNone(self.device.close())
        for disk in self.disks[1], self.new:
            disk.blockSize = 512
        self.disks[1].broken = True
        self.device = opened(Mirror(self.disks, reactor=self.clock, store=self.store))
        self.assertEqual((self.states(), self.device.blockSize), ([IN_SYNC, MISSING], 1))
        self.assertIsNone(self.device.write(0, b"x" * 512))
        self.disks[1].broken = False
        settled(self.device, self.clock)
        self.assertEqual(self.disks[1].view, self.disks[0].view)
        self.assertEqual(self.device.blockSize, 512)
        self.successResultOf(self.device.add(self.new))
        large = PlatterDisk(Platter(SIZE), "large")
        large.blockSize = 4096
        failure = self.failureResultOf(self.device.add(large), DeviceError)
        self.assertIn("it has blocks of 4096 bytes, and the mirror of 512", str(failure.value))

    def test_sameDevice(self) -> None:
        """What is a member already is not taken once more: both would be one copy."""
        twin = PlatterDisk(self.disks[0].platter, "twin")
        failure = self.failureResultOf(self.device.add(twin), DeviceError)
        self.assertIn("it is the same device as disk0", str(failure.value))
        self.assertFalse(twin._open)
        self.failureResultOf(self.device.replace("disk1", twin), DeviceError)
        self.assertEqual(self.states(), [IN_SYNC] * 2)

    def test_sameAtStart(self) -> None:
        """Nor does a mirror start whose members are one device, under two names."""
        twins = [PlatterDisk(self.new.platter, title) for title in ("twin0", "twin1")]
        error = self.assertRaises(DeviceError, Mirror(twins, reactor=self.clock).open, lambda: None)
        self.assertIn("twin1 is the same device as twin0, and no copy of it", str(error))
        self.assertEqual([twin._open for twin in twins], [False, False])

    def test_changedMeanwhile(self) -> None:
        """One that has failed and was changed before it returns gets everything, also over a restart."""
        for restart in (False, True):
            victim = self.device.legs[1].device
            victim.broken = True
            self.device.write(0, b"x")
            self.clock.advance(5.0)
            self.assertEqual(self.states(), [IN_SYNC, FAILED])
            if restart:
                self.assertIsNone(self.device.close())
            victim.view[SIZE - 1 :] = b"y"
            victim.platter.version += 1
            victim.broken = False
            if restart:
                victim.platter.durable[:] = victim.view
                self.disks = again(self.disks)
                self.device = opened(Mirror(self.disks, reactor=self.clock, store=self.store))
            settled(self.device, self.clock)
            self.assertEqual(self.disks[1].view, self.disks[0].view)

    def test_notChanged(self) -> None:
        """One that was not changed meanwhile gets what it lacks."""
        self.disks[1].broken = True
        self.device.write(0, b"x")
        self.clock.advance(5.0)
        self.disks[1].broken = False
        self.disks[1].history.clear()
        settled(self.device, self.clock)
        written = sum(length for name, _, length in self.disks[1].history if name == "write")
        self.assertEqual(written, 1 << 18)

    def test_split(self) -> None:
        """The halves of a mirror that is split have records of their own, however they are opened."""
        self.assertIsNone(self.device.close())
        first, second = again(self.disks)
        halves = [
            Mirror([one, PlatterDisk(Platter(SIZE), "copy")], reactor=self.clock, store=self.store)
            for one in (first, second)
        ]
        for half in halves:
            opened(half)
        self.assertNotEqual(halves[0].life.name, halves[1].life.name)
        for number, half in enumerate(halves):
            half.write(0, b"%d" % number)
            self.assertIsNone(half.close())
        for number in (1, 0):
            members = again([leg.device for leg in halves[number].legs])
            half = opened(Mirror(members, reactor=self.clock, store=self.store))
            self.assertEqual([leg.state for leg in half.legs], [IN_SYNC, RESYNCING])
            self.assertEqual(bytes(half.read(0, 1)), b"%d" % number)
            self.assertEqual(half.life.name, halves[number].life.name)
            settled(half, self.clock)
            self.assertIsNone(half.close())
        self.assertEqual(self.store.serving, {})

    def test_remove(self) -> None:
        """A member that goes is closed; the last one cannot go."""
        leg = self.device.legs[0]
        self.successResultOf(self.device.remove("disk0"))
        self.assertEqual((self.states(), leg.state, self.disks[0]._open), ([IN_SYNC], REPLACED, False))
        self.assertEqual(self.device.members, [self.disks[1]])
        self.assertRaises(LocalError, self.device.remove, self.disks[1])
        self.device.write(0, b"x" * 100)
        self.assertIsNone(self.device.close())
        self.device = opened(Mirror(again(self.disks), reactor=self.clock, store=self.store))
        self.assertEqual(self.states(), [RESYNCING, IN_SYNC])

    def test_replace(self) -> None:
        """The old member serves until the new one has everything."""
        self.successResultOf(self.device.replace("disk0", self.new))
        self.assertEqual(self.states(), [IN_SYNC, IN_SYNC, RESYNCING])
        self.device.write(0, b"x" * 100)
        settled(self.device, self.clock)
        self.assertEqual(self.device.members, [self.disks[1], self.new])
        self.assertEqual(self.new.view, self.disks[1].view)
        self.assertFalse(self.disks[0]._open)

    def test_replaceFailed(self) -> None:
        """One that has failed goes at once."""
        self.disks[0].broken = True
        self.device.write(0, b"x" * 100)
        self.successResultOf(self.device.replace("disk0", self.new))
        self.assertEqual(self.states(), [IN_SYNC, RESYNCING])
        settled(self.device, self.clock)

    def test_replaceReturning(self) -> None:
        """One that is looked at, as it has come back, is none any more."""
        disk = self.disks[0]
        disk.broken = True
        self.device.write(0, b"x" * 100)
        disk.broken, disk.stamped, disk.waits = False, False, True
        for _ in range(4):
            self.clock.advance(5.0)
        self.assertTrue(disk.operations)
        replacing = self.device.replace("disk0", self.new)
        while disk.operations:
            disk.operations[0].fire()
        self.successResultOf(replacing)
        self.assertEqual(self.states(), [IN_SYNC, RESYNCING])
        settled(self.device, self.clock)
        self.assertEqual(len(self.flushLoggedErrors()), 0)

    def test_removedBeforeRead(self) -> None:
        """Nor is it read when what it is to be compared with is there."""
        disk, other = self.disks
        disk.broken = True
        self.device.write(0, b"x" * 100)
        disk.broken, disk.stamped, other.waits = False, False, True
        for _ in range(4):
            self.clock.advance(5.0)
        self.assertEqual([operation.name for operation in other.operations], ["read"])
        removing = self.device.remove("disk0")
        disk.history.clear()
        while other.operations:
            other.operations[0].fire()
        self.successResultOf(removing)
        self.assertEqual((self.states(), disk.history), ([IN_SYNC], []))

    def test_addKnown(self) -> None:
        """Nothing is left of what was known of a new member when it was one before."""
        old, store = disks(2, SIZE), MemoryStore()
        knownMirror(old, self.clock, store)
        first, second = again(old)
        mirror = opened(Mirror([first, self.new], reactor=self.clock, store=store))
        self.successResultOf(mirror.add(second))
        prints = [member.fingerprint for member in mirror.life.record().members]
        self.assertEqual(sorted(prints), sorted(set(prints)))
        self.assertEqual(len(prints), 3)

    def test_failedAgain(self) -> None:
        """A member that does not come back is tried less and less often."""
        self.disks[0].broken = True
        self.device.write(0, b"x" * 100)
        self.assertEqual(self.states(), [FAILED, IN_SYNC])
        tries: list[float] = []

        def refuse(changed: object) -> None:
            tries.append(self.clock.seconds())
            raise NotReady("gone")

        self.disks[0].open = refuse  # type: ignore[method-assign]
        self.clock.pump([1] * 2000)
        gaps = [after - before for before, after in pairwise(tries)]
        self.assertEqual(gaps, sorted(gaps))
        self.assertEqual((gaps[0], gaps[-1]), (10, 300))
        self.assertEqual(self.device.status().members[0].reason, "gone")

    def opening(self) -> Deferred[None]:
        """The first member has failed, and is being opened: what that waits for."""
        waiting: Deferred[None] = Deferred()
        self.disks[0].faults = 1
        self.device.write(0, b"x" * 100)
        self.patch(self.disks[0], "open", lambda changed: waiting)
        self.clock.pump([1] * 5)
        self.assertEqual((self.states(), self.disks[0]._open), ([FAILED, IN_SYNC], False))
        return waiting

    def test_removedMeanwhile(self) -> None:
        """One that is open when it was removed is closed."""
        waiting = self.opening()
        self.successResultOf(self.device.remove("disk0"))
        self.disks[0]._open = True
        waiting.callback(None)
        self.assertEqual((self.states(), self.disks[0]._open), ([IN_SYNC], False))

    def test_closedMeanwhile(self) -> None:
        """So is one that is open when the mirror is being closed."""
        waiting = self.opening()
        closing: Any = self.device.close()
        self.disks[0]._open = True
        waiting.callback(None)
        self.successResultOf(closing)
        self.assertEqual((self.states(), self.disks[0]._open), ([FAILED, IN_SYNC], False))

    def test_notMade(self) -> None:
        """Nothing is made for a member that is tried again, or what is made of it later would be missing."""
        permitted: list[bool] = []
        self.disks[0].permitCreation = permitted.append  # type: ignore[attr-defined]
        open_ = self.disks[0].open
        self.patch(self.disks[0], "open", lambda changed: permitted.append(None) or open_(changed))
        self.disks[0].faults = 1
        self.device.write(0, b"x" * 100)
        settled(self.device, self.clock)
        self.assertEqual(permitted, [False, None, True])

    def test_left(self) -> None:
        """How new one is that has failed is recorded when it is closed, if it says so."""
        for silent in (False, True):
            self.disks[0].faults = 1
            self.device.write(0, b"x" * 100)
            if silent:
                self.patch(self.disks[0], "stamp", self.refuse)
            self.disks[0].broken = True
            self.clock.pump([1] * 5)
            (data,) = self.store.kept.values()
            stamps = {each.fingerprint: each.stamp for each in Record.decode(data).members}
            version = self.disks[0].platter.version
            self.assertEqual(stamps[self.disks[0].fingerprint()], () if silent else (version,))
            self.disks[0].broken = False
            settled(self.device, self.clock)
            self.assertEqual(self.disks[0].view, self.disks[1].view)

    def refuse(self) -> None:
        """Say nothing."""
        raise NotReady("gone")

    def test_otherReturns(self) -> None:
        """If another device is there under its name, that is a new member."""
        self.disks[0].broken = True
        self.device.write(0, b"x" * 100)
        self.disks[0].platter = self.new.platter
        self.disks[0].view[:] = bytes(SIZE)
        self.disks[0].broken = False
        settled(self.device, self.clock)
        self.assertEqual(self.disks[0].view, self.disks[1].view)

    def test_wrongReturns(self) -> None:
        """If it has another size now it stays out."""
        self.disks[0].broken = True
        self.device.write(0, b"x" * 100)
        self.disks[0].broken = False
        self.disks[0].size = 512
        with capturedLogs() as events:
            self.clock.pump([5] * 30)
        self.assertEqual(self.states(), [FAILED, IN_SYNC])
        self.assertIn("512 bytes", self.device.status().members[0].reason)
        self.assertEqual(refusals(events), ["it has 512 bytes, and the mirror 1048576"])
        self.disks[0].blockSize, self.disks[0].size = 4096, SIZE
        with capturedLogs() as events:
            self.clock.pump([5] * 120)
        self.assertEqual(refusals(events), ["it has blocks of 4096 bytes, and the mirror of 512"])
        self.disks[0].blockSize = 1
        settled(self.device, self.clock, 900)

    def test_largeBlocks(self) -> None:
        """One that has larger blocks than is asked for, and was away at the start, is refused loudly."""
        self.assertIsNone(self.device.close())
        self.disks[0].blockSize, self.disks[0].broken = 4096, True
        self.device = opened(Mirror(self.disks, reactor=self.clock, store=self.store))
        self.disks[0].broken = False
        with capturedLogs() as events:
            self.clock.pump([5] * 30)
        self.assertEqual(self.states(), [MISSING, IN_SYNC])
        self.assertEqual(refusals(events), ["it has blocks of 4096 bytes, and the mirror of 512"])
        (event,) = [event for event in events if event.get("event") == "refused"]
        self.assertEqual((event["log_level"], event["member"]), (LogLevel.error, "disk0"))
        self.assertFalse(self.disks[0]._open)

    def test_missing(self) -> None:
        """A member that is missing at the start comes back with what it had, if nobody has changed it."""
        for changed in (False, True):
            self.assertIsNone(self.device.close())
            self.disks = again(self.disks)
            for disk in self.disks:
                disk.view[:] = self.disks[1].view
            self.disks[0].broken = True
            self.device = opened(Mirror(self.disks, reactor=self.clock, store=self.store))
            self.assertEqual(self.states(), [MISSING, IN_SYNC])
            self.device.write(0, b"x" * 100)
            self.disks[0].platter.version += changed
            self.disks[0].broken = False
            settled(self.device, self.clock)
            copied = {offset >> 18 for name, offset, _ in self.disks[0].history if name == "write"}
            self.assertEqual(copied, {0, 1, 2, 3} if changed else {0})
            self.assertEqual(self.disks[0].view, self.disks[1].view)

    def test_missingSinceCrash(self) -> None:
        """
        Of one that is missing after a crash nobody knows how new it was: it is looked at when it comes back.
        """
        for changed in (False, True):
            self.device.write(0, b"x" * 100)
            for disk in self.disks:
                disk.crash(Random(0), power=False)
            for call in list(self.clock.getDelayedCalls()):
                call.cancel()
            self.store.serving.clear()
            self.disks = again(self.disks)
            self.disks[0].broken = True
            self.device = opened(Mirror(self.disks, reactor=self.clock, store=self.store))
            self.assertEqual(self.states(), [MISSING, IN_SYNC])
            if changed:
                self.disks[0].view[:] = bytes(SIZE)
                self.disks[0].platter.version += 1
            self.disks[0].broken = False
            settled(self.device, self.clock)
            self.assertEqual(self.disks[0].view, self.disks[1].view)
            copied = {offset >> 18 for name, offset, _ in self.disks[0].history if name == "write"}
            self.assertEqual(copied, {0, 1, 2, 3} if changed else {0})
