# -*- test-case-name: tests.storage.test_mirror -*-
"""Tests for L{iscsi_twisted.storage.mirror}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import (
    DeviceError,
    LocalError,
    NotReady,
    OutOfSpace,
    ReadError,
    WriteError,
    WriteProtected,
)
from iscsi_twisted.interfaces import Capabilities
from iscsi_twisted.storage import MemoryDevice, Mirror, ReadOnly
from iscsi_twisted.storage.legs import FAILED, IN_SYNC, RESYNCING
from tests.support.devicecontract import SIZE, DeviceContract
from tests.support.devices import FakeDevice
from tests.support.mirrors import again, disks, knownMirror, opened, settled
from tests.support.platters import MemoryStore


class KnownDevice(FakeDevice):
    """A device that can be told from others."""

    def fingerprint(self) -> str:
        return f"device {id(self)}"


def pair(count: int = 2, size: int = 100) -> tuple[Clock, list[KnownDevice], Mirror]:
    """A clock, members that wait for the test, and their mirror, which is open and in sync."""
    clock = Clock()
    members = [KnownDevice(size, synchronous=True) for _ in range(count)]
    mirror = opened(knownMirror(members, clock))
    # The first write to a region waits for its mark; that is tested elsewhere.
    mirror.write(0, bytes(size))
    for member in members:
        member.synchronous = False
        member.history.clear()
    return clock, members, mirror


class SynchronousContract(DeviceContract, SynchronousTestCase):
    """Members that answer at once."""

    def makeDevice(self) -> Any:
        return knownMirror(disks(3, SIZE), Clock())


class DoubtfulContract(DeviceContract, SynchronousTestCase):
    """Members of which nobody knows yet whether they agree."""

    def makeDevice(self) -> Any:
        return Mirror([MemoryDevice(SIZE), MemoryDevice(SIZE)], reactor=Clock())


class PendingContract(DeviceContract, SynchronousTestCase):
    """A member that answers later beside one that does not."""

    def setUp(self) -> None:
        self.fakes: list[FakeDevice] = []

    def makeDevice(self) -> Any:
        self.fakes.append(FakeDevice(SIZE))
        return Mirror([self.fakes[-1], MemoryDevice(SIZE)], reactor=Clock())

    def settle(self) -> None:
        for fake in self.fakes:
            fake.fire()


class ChangingTests(SynchronousTestCase):
    """Writes, discards, zeroing and flushes."""

    def setUp(self) -> None:
        self.clock, self.members, self.device = pair()

    def test_sizes(self) -> None:
        """Members of different sizes are refused; both sizes are named, and all are closed again."""
        members = [FakeDevice(100), FakeDevice(100), FakeDevice(101)]
        error = self.assertRaises(DeviceError, Mirror(members, reactor=Clock()).open, lambda: None)
        self.assertIn("100 bytes", str(error))
        self.assertTrue(str(error).endswith("101"), str(error))
        self.assertEqual([member.closings for member in members], [1, 1, 1])

    def test_sameEverywhere(self) -> None:
        """Whatever changes the device changes all members alike, and in one order."""
        calls: list[Any] = [
            self.device.write(10, b"abcdef"),
            self.device.zero(11, 1, False),
            self.device.discard(13, 2),
            self.device.flush(),
        ]
        for _ in calls:
            for member in self.members:
                member.fire()
        self.assertEqual([self.successResultOf(call) for call in calls], [None] * 4)
        self.assertEqual(self.members[0].history, self.members[1].history)
        for member in self.members:
            self.assertEqual(bytes(member.contents[9:17]), b"\0a\0c\0\0f\0")

    def test_writeWaits(self) -> None:
        """A write is done when it is done everywhere."""
        result: Any = self.device.write(0, b"x")
        self.members[0].fire()
        self.assertNoResult(result)
        self.members[1].fire()
        self.assertIsNone(self.successResultOf(result))

    def test_overlapping(self) -> None:
        """Writes that overlap reach the members one after another; others do not wait."""
        first: Any = self.device.write(0, b"aaaa")
        self.device.write(2, b"bbbb")
        self.device.write(50, b"cccc")
        self.assertEqual([what for _, what in self.members[0].history], [(0, b"aaaa"), (50, b"cccc")])
        self.members[0].fire()
        self.assertEqual(len(self.members[0].history), 2)
        self.members[1].fire()
        self.successResultOf(first)
        self.assertEqual(self.members[0].history[-1], ("write", (2, b"bbbb")))

    def test_writeFails(self) -> None:
        """A member that fails a write is left out, without an error for anybody."""
        result: Any = self.device.write(0, b"x")
        self.members[0].operations[0].fail(WriteError("bad", 0))
        self.assertNoResult(result)
        self.members[1].fire()
        self.assertIsNone(self.successResultOf(result))
        self.assertEqual([leg.state for leg in self.device.legs], [FAILED, IN_SYNC])
        self.assertEqual(self.device.status().members[0].reason, "bad")
        self.device.write(5, b"y")
        self.assertEqual((self.members[0].operations, len(self.members[1].operations)), ([], 1))

    def test_writeFailsAtOnce(self) -> None:
        """The same if it refuses at once."""
        self.members[0].error = WriteError("bad")
        self.members[1].synchronous = True
        self.assertIsNone(self.device.write(0, b"x"))
        self.assertEqual(self.members[1].contents[:1], b"x")
        self.assertEqual(self.device.legs[0].state, FAILED)

    def test_lastFails(self) -> None:
        """With no good member left a write fails; the last one is not given up."""
        self.members[0].error = WriteError("bad")
        self.members[1].error = WriteError("worse", 0)
        self.assertRaises(WriteError, self.device.write, 0, b"x")
        self.assertEqual([leg.state for leg in self.device.legs], [IN_SYNC, FAILED])
        self.assertRaises(WriteError, self.device.write, 0, b"x")
        self.members[0].error = None
        self.members[0].synchronous = True
        self.assertIsNone(self.device.write(0, b"x"))

    def test_full(self) -> None:
        """
        If all members lack space no member is left out, and the error is told; they are made equal again.
        """
        for member in self.members:
            member.error = OutOfSpace("full")
        self.assertRaises(OutOfSpace, self.device.write, 0, b"x")
        self.assertEqual([leg.state for leg in self.device.legs], [IN_SYNC, RESYNCING])
        for member in self.members:
            member.error = None
            member.synchronous = True
        self.members[0].contents[0:1] = b"p"  # a part of the write was done there
        self.assertEqual(self.device.read(0, 1), b"p")
        settled(self.device, self.clock)
        self.assertEqual(self.members[0].contents, self.members[1].contents)

    def test_oneFull(self) -> None:
        """If one alone lacks space it is left out."""
        self.members[0].error = OutOfSpace("full")
        self.members[1].synchronous = True
        self.assertIsNone(self.device.write(0, b"x"))
        self.assertEqual([leg.state for leg in self.device.legs], [FAILED, IN_SYNC])

    def test_flushFails(self) -> None:
        """A member that fails a flush is left out; all that was written lately counts as lost there."""
        self.members[0].error = WriteError("bad")
        self.members[1].synchronous = True
        self.assertIsNone(self.device.flush())
        self.assertEqual(self.device.legs[0].state, FAILED)
        self.assertTrue(self.device.legs[0].behind)

    def test_noFlush(self) -> None:
        """A flush that no member did fails."""
        for member in self.members:
            member.error = WriteError("bad")
        self.assertRaises(WriteError, self.device.flush)

    def test_cancelWrite(self) -> None:
        """A write that has begun goes on when it is cancelled: members must not come to differ."""
        result: Any = self.device.write(0, b"x")
        operations = [member.operations[0] for member in self.members]
        result.cancel()
        self.assertEqual([operation.cancelled for operation in operations], [0, 0])
        for member in self.members:
            member.fire()
        self.assertIsNone(self.successResultOf(result))

    def test_cancelWaiting(self) -> None:
        """A write that waits for another can be cancelled, and is not made then."""
        self.device.write(0, b"x")
        result: Any = self.device.write(0, b"y")
        result.cancel()
        self.failureResultOf(result, CancelledError)
        for member in self.members:
            member.fire()
            self.assertEqual(member.history, [("write", (0, b"x"))])
        self.assertIsNone(self.device.lock.idle())

    def test_discardDiffers(self) -> None:
        """A discard that might leave different bytes in the members is not passed on, nor promised."""
        members = [FakeDevice(100), FakeDevice(100, capabilities=Capabilities(discard=True))]
        device = opened(Mirror(members, reactor=Clock()))
        self.assertFalse(device.capabilities().discard)
        self.assertIsNone(device.discard(0, 100))
        self.assertEqual([member.history for member in members], [[], []])

    def test_capabilities(self) -> None:
        """It promises what all members keep, and what one alone may spoil."""
        good = Capabilities(discard=True, zero=True, allocated=True, discardZeroes=True)
        poor = Capabilities(volatileCache=True, rotational=True, readOnly=True, retains=True)
        both = Mirror([FakeDevice(1, capabilities=good), FakeDevice(1, capabilities=poor)])
        self.assertEqual(both.capabilities(), poor)
        self.assertEqual(Mirror([FakeDevice(1, capabilities=good)] * 2).capabilities(), good)

    def test_protected(self) -> None:
        """A mirror with a member that cannot be written cannot be written, and loses no member by that."""
        device = Mirror([MemoryDevice(512), ReadOnly(MemoryDevice(512))], reactor=Clock())
        opened(device)
        self.assertTrue(device.capabilities().readOnly)
        self.assertRaises(WriteProtected, device.write, 0, b"x")
        self.assertRaises(WriteProtected, device.zero, 0, 512, True)
        self.assertEqual([leg.state for leg in device.legs], [IN_SYNC] * 2)

    def test_nested(self) -> None:
        """Mirrors of mirrors write every member and compare sizes however deep."""
        members = [FakeDevice(100, synchronous=True) for _ in range(4)]
        clock = Clock()
        device = opened(
            Mirror([Mirror(members[:2], reactor=clock), Mirror(members[2:], reactor=clock)], reactor=clock)
        )
        device.write(50, b"deep")
        self.assertEqual([bytes(member.contents[50:54]) for member in members], [b"deep"] * 4)
        members[3].size = 99
        wrong = Mirror(
            [Mirror(members[:2], reactor=clock), Mirror(members[2:], reactor=clock)], reactor=clock
        )
        self.assertRaises(DeviceError, wrong.open, lambda: None)


class ReadingTests(SynchronousTestCase):
    """Who is read, and what happens if that fails."""

    def setUp(self) -> None:
        self.clock, self.members, self.device = pair()
        for number, member in enumerate(self.members):
            member.contents[:] = bytes([65 + number]) * 100

    def test_spread(self) -> None:
        """Reads here and there go to all members in turns."""
        for member in self.members:
            member.synchronous = True
        found = [self.device.read(offset, 1) for offset in (90, 10, 70, 30)]
        self.assertEqual(sorted(found), [b"A", b"A", b"B", b"B"])

    def test_stream(self) -> None:
        """Reads one behind the other go to one member."""
        for member in self.members:
            member.synchronous = True
        self.assertEqual(len({bytes(self.device.read(offset, 10)) for offset in range(0, 100, 10)}), 1)

    def test_quick(self) -> None:
        """A member that answers at once is read rather than one that makes everybody wait."""
        self.members[0].synchronous = True
        found: list[Any] = [self.device.read(offset, 1) for offset in (90, 10, 70, 30, 50)]
        self.assertGreaterEqual(found.count(b"A"), 4)

    def test_busy(self) -> None:
        """Where all make wait, the one that does less is read."""
        for offset in (90, 10, 70, 30, 50, 20):
            self.device.read(offset, 1)
        self.assertEqual([len(member.operations) for member in self.members], [3, 3])

    def test_readOnce(self) -> None:
        """One member is read."""
        result: Any = self.device.read(0, 10)
        (operation,) = [one for member in self.members for one in member.operations]
        operation.fire()
        self.assertEqual(len(self.successResultOf(result)), 10)
        self.assertEqual([member.operations for member in self.members], [[], []])

    def fail(self, error: Exception) -> tuple[Any, int]:
        """Begin a read of which the first member that is asked fails; the result, and the other's number."""
        result: Any = self.device.read(0, 3)
        bad = 0 if self.members[0].operations else 1
        self.members[bad].operations[0].fail(error)
        return result, 1 - bad

    def test_readNext(self) -> None:
        """If it fails another one is read, and what it has is written where it could not be read."""
        result, other = self.fail(ReadError("bad", 0))
        self.members[other].fire()
        self.assertEqual(self.successResultOf(result), bytes([65 + other]) * 3)
        self.members[other].fire()
        bad = self.members[1 - other]
        self.assertEqual(bad.history[-1], ("write", (0, bytes([65 + other]) * 3)))
        bad.fire()
        self.assertEqual([member.repaired for member in self.device.status().members][1 - other], 1)
        self.assertEqual([leg.state for leg in self.device.legs], [IN_SYNC, IN_SYNC])

    def test_repairWaits(self) -> None:
        """A repair waits for writes to the same place, and they for it."""
        written: Any = self.device.write(1, b"w")
        for member in self.members:
            member.operations[0].pause()  # it stays
        writes = [member.operations.pop(0) for member in self.members]
        result, other = self.fail(ReadError("bad", 0))
        self.members[other].fire()
        self.successResultOf(result)
        self.assertEqual([member.operations for member in self.members], [[], []])
        for member, one in zip(self.members, writes, strict=True):
            one.unpause()
            member.operations.append(one)
            one.fire()
        self.successResultOf(written)
        self.assertEqual(len(self.members[other].operations), 1)

    def test_repairFails(self) -> None:
        """A member that takes no repair either is left out."""
        result, other = self.fail(ReadError("bad", 0))
        self.members[other].fire()
        self.members[other].fire()
        self.successResultOf(result)
        self.members[1 - other].operations[0].fail(WriteError("dead"))
        self.assertEqual(self.device.legs[1 - other].state, FAILED)
        self.assertEqual(self.device.legs[other].state, IN_SYNC)

    def test_readNone(self) -> None:
        """If all fail the first one's error is told."""
        result, other = self.fail(ReadError("first", 5))
        self.members[other].operations[0].fail(NotReady("second"))
        error = self.failureResultOf(result, ReadError).value
        self.assertEqual((str(error), error.offset), ("first", 5))
        for member in self.members:
            member.error = OSError("gone")
        self.assertRaises(OSError, self.device.read, 0, 10)

    def test_readCancelled(self) -> None:
        """A read that was cancelled is not tried elsewhere."""
        for member in self.members:
            member.obeysCancel = True
        result: Any = self.device.read(0, 10)
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual([member.operations for member in self.members], [[], []])


class RecordTests(SynchronousTestCase):
    """What has to be durable before anybody is told."""

    def setUp(self) -> None:
        self.clock, self.store = Clock(), MemoryStore()
        self.disks = disks(2, 4096)
        self.device = opened(knownMirror(self.disks, self.clock, self.store))
        self.store.waits = True

    def test_flushLost(self) -> None:
        """A flush that a member did not do is answered when that is recorded."""
        self.disks[0].faults = 1
        result = self.device.flush()
        self.assertNoResult(result)
        self.store.fire()
        self.assertIsNone(self.successResultOf(result))

    def test_marked(self) -> None:
        """The first write to a region waits for its mark, before any member sees it; the next does not."""
        result: Any = self.device.write(0, b"x")
        self.assertEqual(
            [disk.history[-1:] for disk in self.disks], [disk.history[-1:] for disk in self.disks]
        )
        self.assertNotIn(("write", 0, 1), self.disks[0].history)
        self.store.fire()
        self.assertIsNone(self.successResultOf(result))
        self.assertIn(("write", 0, 1), self.disks[0].history)
        self.assertIsNone(self.device.write(100, b"y"))

    def test_notMarked(self) -> None:
        """If the mark cannot be kept the write fails, and no member has it."""
        self.store.error = OSError(28, "no room")
        self.assertRaises(DeviceError, self.device.write, 0, b"x")
        self.assertEqual(bytes(self.disks[0].view[:1]), b"\0")
        self.store.error = None
        self.store.waits = False
        self.assertIsNone(self.device.write(0, b"x"))

    def test_failureRecorded(self) -> None:
        """A write that a member failed is acknowledged when that is recorded, and later writes too."""
        self.device.write(0, b"x")
        self.store.fire()
        self.disks[0].broken = True
        first: Any = self.device.write(0, b"y")
        second: Any = self.device.write(8, b"z")
        self.assertNoResult(first)
        self.assertNoResult(second)
        self.store.fire()
        self.successResultOf(first)
        self.successResultOf(second)

    def test_failureNotRecorded(self) -> None:
        """If it cannot be recorded nothing is acknowledged, until it can."""
        self.device.write(0, b"x")
        self.store.fire()
        self.disks[0].broken = True
        self.store.error = OSError(28, "no room")
        self.assertRaises(DeviceError, self.device.write, 0, b"y")
        self.assertRaises(DeviceError, self.device.flush)
        self.store.error, self.store.waits = None, False
        self.assertIsNone(self.device.flush())

    def test_cleared(self) -> None:
        """Marks are taken back when nothing was written for a while, after a flush."""
        self.store.waits = False
        self.device.write(0, b"x")
        self.assertTrue(self.device.intent.marked())
        self.clock.pump([5] * 8)
        self.assertFalse(self.device.intent.marked())
        self.assertEqual(bytes(self.disks[0].platter.durable[:1]), b"x")
        saves = self.store.saves
        self.clock.pump([5] * 20)
        self.assertEqual(self.store.saves, saves)

    def test_slowWrite(self) -> None:
        """A write that was under way while all was flushed keeps its mark until there was another flush."""
        self.store.waits = False
        self.device.write(0, b"x")
        for disk in self.disks:
            disk.waits = True
        slow: Any = self.device.write(0, b"y")
        writes = [disk.operations.pop() for disk in self.disks]
        self.clock.pump([5] * 3)
        flushing: Any = self.device.flush()
        for disk in self.disks:
            disk.operations[0].fire()
        self.successResultOf(flushing)
        for disk, write in zip(self.disks, writes, strict=True):
            disk.operations.append(write)
            write.fire()
            disk.waits = False
        self.successResultOf(slow)
        self.clock.pump([5] * 3)
        self.assertEqual(list(self.device.intent.marked()), [0])
        self.clock.pump([5] * 6)
        self.assertEqual(list(self.device.intent.marked()), [])
        self.assertEqual(bytes(self.disks[0].platter.durable[:1]), b"y")

    def test_adopt(self) -> None:
        """A mirror that was given a store keeps it."""
        self.device.adopt(MemoryStore(), None)
        self.assertIs(self.device.store, self.store)


class NameTests(SynchronousTestCase):
    """Finding members."""

    def test_leg(self) -> None:
        """A member is found by itself and by its name."""
        members = disks(2, 4096)
        mirror = Mirror(members, reactor=Clock())
        for what in (members[1], "disk1", mirror.legs[1]):
            self.assertIs(mirror.leg(what), mirror.legs[1])
        self.assertRaises(LocalError, mirror.leg, "disk2")
        self.assertRaises(LocalError, Mirror, again(members), trusted="disk2")
