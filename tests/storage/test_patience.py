"""
Tests for L{iscsi_twisted.storage.patience}.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import DeviceError, LocalError, OutOfSpace
from iscsi_twisted.storage import Concatenation, Mirror
from iscsi_twisted.storage.legs import FAILED, IN_SYNC, MISSING, RESYNCING
from iscsi_twisted.storage.patience import SECONDS
from iscsi_twisted.storage.record import Record
from tests.support.devices import Stubborn
from tests.support.mirrors import again, disks, knownMirror, opened, settled
from tests.support.platters import SECTOR, MemoryStore

SIZE = 1 << 20
LONG = 4 * SECONDS


class PatienceTests(SynchronousTestCase):
    """Members that do not answer."""

    def setUp(self) -> None:
        """An open mirror in sync."""
        self.clock = Clock()
        self.store = MemoryStore()
        self.disks = disks(2, SIZE)
        knownMirror(self.disks, self.clock, self.store)
        self.disks = again(self.disks)
        self.mirror = opened(Mirror(self.disks, reactor=self.clock, store=self.store))
        self.mirror.write(0, b"0" * SECTOR)

    def states(self) -> list[str]:
        """What each member is."""
        return [leg.state for leg in self.mirror.legs]

    def hang(self, *indices: int) -> None:
        """From now on these members do not answer."""
        for index in indices:
            self.disks[index].waits = True

    def advance(self, seconds: float) -> None:
        """Time goes by, in small steps."""
        self.clock.pump([0.5] * round(seconds * 2))

    def test_write(self) -> None:
        """A write that one member does not end is answered without it, and that member has failed."""
        self.hang(1)
        writing: Any = self.mirror.write(0, b"1" * SECTOR)
        self.advance(SECONDS - 1)
        self.assertNoResult(writing)
        self.assertEqual(self.states(), [IN_SYNC, IN_SYNC])
        self.advance(SECONDS / 5)
        self.assertIsNone(self.successResultOf(writing))
        self.assertEqual(self.states(), [IN_SYNC, FAILED])
        (_, status) = self.mirror.status().members
        self.assertEqual(status.hanging, 1)
        self.assertIn("not ended within 25 seconds", status.reason)
        self.assertIsNone(self.mirror.write(0, b"2" * SECTOR))
        self.assertEqual(self.mirror.read(0, SECTOR), b"2" * SECTOR)

    def test_recorded(self) -> None:
        """Who was not waited for is known before the write is answered, and is not believed after a crash."""
        self.hang(1)
        writing: Any = self.mirror.write(0, b"1" * SECTOR)
        self.advance(LONG / 2)
        self.successResultOf(writing)
        (data,) = self.store.kept.values()
        (_, other) = Record.decode(data).members
        self.assertFalse(other.present)
        self.assertTrue(other.behind.has(0, 0))

    def test_allAtOnce(self) -> None:
        """With the first operation that a member does not end in time nobody waits for its others either."""
        self.hang(1)
        first: Any = self.mirror.write(0, b"1" * SECTOR)
        self.advance(SECONDS / 2)
        second: Any = self.mirror.write(SECTOR, b"1" * SECTOR)
        flushing: Any = self.mirror.flush()
        self.advance(SECONDS * 0.7)
        for one in (first, second, flushing):
            self.assertIsNone(self.successResultOf(one))
        self.assertEqual(self.mirror.status().members[1].hanging, 3)

    def test_failed(self) -> None:
        """One that fails an operation is not waited for with its others."""
        self.hang(1)
        first: Any = self.mirror.write(0, b"1" * SECTOR)
        second: Any = self.mirror.write(SECTOR, b"1" * SECTOR)
        self.disks[1].faults = 1
        self.disks[1].operations[0].fire()
        self.successResultOf(first)
        self.assertNoResult(second)
        self.clock.advance(0)
        self.successResultOf(second)
        self.assertEqual(self.states(), [IN_SYNC, FAILED])

    def test_late(self) -> None:
        """What is done at last lands on nothing newer: the member is back only when all has ended."""
        self.hang(1)
        writing: Any = self.mirror.write(0, b"1" * SECTOR)
        self.advance(LONG / 2)
        self.successResultOf(writing)
        self.mirror.write(0, b"2" * SECTOR)
        self.advance(1000)
        self.assertEqual(self.states(), [IN_SYNC, FAILED])
        self.disks[1].waits = False
        for operation in self.disks[1].operations[:]:
            operation.fire()
        self.assertEqual(bytes(self.disks[1].view[:SECTOR]), b"1" * SECTOR)
        self.assertEqual(self.mirror.read(0, SECTOR), b"2" * SECTOR)
        settled(self.mirror, self.clock)
        self.assertEqual(bytes(self.disks[1].view[:SECTOR]), b"2" * SECTOR)
        self.assertEqual(self.mirror.status().members[1].hanging, 0)

    def test_cancelled(self) -> None:
        """What is not waited for is cancelled, once: it may be possible."""
        self.hang(1)
        writing: Any = self.mirror.write(0, b"1" * SECTOR)
        cancelled: list[float] = []
        now = self.clock.seconds
        self.patch(self.disks[1].operations[0], "cancel", lambda: cancelled.append(now()))
        self.advance(LONG)
        self.successResultOf(writing)
        self.assertEqual(len(cancelled), 1)

    def test_sober(self) -> None:
        """A member that hung is not tried as soon as one that failed."""
        self.hang(1)
        writing: Any = self.mirror.write(0, b"1" * SECTOR)
        self.advance(LONG / 2)
        self.successResultOf(writing)
        self.disks[1].waits = False
        self.disks[1].operations[0].fire()
        self.advance(30)
        self.assertEqual(self.states(), [IN_SYNC, FAILED])

    def test_allHang(self) -> None:
        """While nobody has done it everybody is waited for."""
        self.hang(0, 1)
        writing: Any = self.mirror.write(0, b"1" * SECTOR)
        self.advance(LONG)
        self.assertNoResult(writing)
        self.disks[0].operations[0].fire()
        self.advance(SECONDS - 1)
        self.assertNoResult(writing)
        self.disks[1].operations[0].fire()
        self.successResultOf(writing)
        self.assertEqual(self.states(), [IN_SYNC, IN_SYNC])

    def test_needed(self) -> None:
        """A member that alone has everything is waited for, whatever others have done."""
        self.disks[0].faults = 1
        self.mirror.write(SIZE // 2, b"1" * SECTOR)
        self.disks[0].broken = True
        self.hang(1)
        self.mirror.legs[0].happens("behind", self.mirror)
        self.mirror.arrange()
        self.disks[0].broken = False
        writing: Any = self.mirror.write(0, b"1" * SECTOR)
        self.advance(4)
        self.advance(LONG)
        self.assertNoResult(writing)
        self.assertEqual(self.states()[1], IN_SYNC)

    def test_forEver(self) -> None:
        """With no patience given members are waited for as long as it takes."""
        self.mirror.patience = 0
        self.hang(1)
        writing: Any = self.mirror.write(0, b"1" * SECTOR)
        self.advance(LONG)
        self.assertNoResult(writing)
        self.mirror.patience = 5
        self.advance(6)
        self.successResultOf(writing)
        self.assertRaises(LocalError, setattr, self.mirror, "patience", -1)
        self.assertRaises(LocalError, Mirror, self.disks, patience=float("inf"))

    def test_flush(self) -> None:
        """A flush that does not end is the same."""
        self.hang(0)
        flushing: Any = self.mirror.flush()
        self.advance(LONG / 2)
        self.assertIsNone(self.successResultOf(flushing))
        self.assertEqual(self.states(), [FAILED, IN_SYNC])

    def test_told(self) -> None:
        """If a write fails where it counts, that is told, and not who was left out."""
        self.hang(1)
        writing: Any = self.mirror.write(0, b"1" * SECTOR)
        self.advance(LONG / 2)
        self.successResultOf(writing)
        self.hang(0)
        writing = self.mirror.write(0, b"2" * SECTOR)
        self.disks[0].operations[0].errback(OutOfSpace("full"))
        self.failureResultOf(writing, OutOfSpace)

    def test_resync(self) -> None:
        """A member that hangs while it is resynced fails; writes wait for that, but not for ever."""
        self.disks[1].faults = 1
        self.mirror.write(0, b"1" * SECTOR)
        self.assertEqual(self.states(), [IN_SYNC, FAILED])
        self.advance(4)
        self.hang(1)
        self.advance(10)
        self.assertEqual(self.states(), [IN_SYNC, RESYNCING])
        writing: Any = self.mirror.write(0, b"2" * SECTOR)
        self.assertNoResult(writing)
        self.advance(SECONDS * 1.3)
        self.successResultOf(writing)
        self.assertEqual(self.states(), [IN_SYNC, FAILED])
        self.disks[1].waits = False
        for operation in self.disks[1].operations[:]:
            operation.fire()
        settled(self.mirror, self.clock)
        self.assertEqual(self.disks[0].view, self.disks[1].view)

    def test_scrub(self) -> None:
        """What a member does not answer is not compared, and keeps nobody from writing."""
        self.hang(1)
        scrubbing = self.mirror.scrub()
        self.clock.advance(0)
        self.assertIn("read", [one.name for one in self.disks[1].operations])
        self.disks[1].waits = False
        writing: Any = self.mirror.write(0, b"1" * SECTOR)
        self.assertNoResult(writing)
        self.advance(SECONDS * 1.2)
        self.successResultOf(writing)
        self.assertGreater(self.successResultOf(scrubbing).unreadable, 0)
        self.assertEqual(self.states(), [IN_SYNC, IN_SYNC])

    def test_close(self) -> None:
        """A mirror can be closed while a member hangs."""
        self.hang(1)
        writing: Any = self.mirror.write(0, b"1" * SECTOR)
        self.advance(LONG / 2)
        self.successResultOf(writing)
        self.assertIsNone(self.mirror.close())
        self.advance(5)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.disks = again(self.disks)
        self.mirror = opened(Mirror(self.disks, reactor=self.clock, store=self.store))
        self.assertEqual(self.states(), [IN_SYNC, RESYNCING])

    def test_start(self) -> None:
        """A mirror starts without a member that does not flush or open; it comes when that has ended."""
        self.mirror.write(0, b"1" * SECTOR)
        for name in ("flush", "open"):
            self.disks = again(self.disks)
            self.hang(1)
            waiting = Stubborn()
            self.patch(self.disks[1], name, lambda *_, waiting=waiting: waiting)
            self.mirror = Mirror(self.disks, reactor=self.clock, store=self.store)
            opening: Any = self.mirror.open(lambda: None)
            self.advance(SECONDS - 1)
            self.assertNoResult(opening)
            self.advance(SECONDS / 5)
            self.successResultOf(opening)
            self.assertEqual(self.states(), [IN_SYNC, MISSING], name)
            self.assertIsNone(self.mirror.write(0, name.encode() * SECTOR))
            self.advance(100)
            self.assertEqual(self.states(), [IN_SYNC, MISSING], name)
            self.disks[1].waits = False
            del self.disks[1].__dict__[name]
            closed: list[str] = []
            self.patch(self.disks[1], "close", partial(closed.append, name))
            if name == "open":
                self.disks[1].open(lambda: None)
            waiting.callback(None)
            settled(self.mirror, self.clock)
            # What is open by then is closed before it is opened once more.
            self.assertEqual(closed, ["open"] * (name == "open"))
            self.assertEqual(self.disks[0].view, self.disks[1].view)

    def test_openTooLate(self) -> None:
        """A member that is open when the mirror is closed, or could not be started, is closed at once."""
        for known in (True, False):
            self.assertIsNone(self.mirror.close())
            self.disks = again(self.disks)
            waiting, calls = Stubborn(), []
            self.patch(self.disks[1], "open", lambda *_, waiting=waiting: waiting)
            self.patch(self.disks[1], "close", partial(calls.append, "close"))
            if not known:
                self.store.kept.clear()
            self.mirror = Mirror(self.disks, reactor=self.clock, store=self.store)
            opening: Any = self.mirror.open(lambda: None)
            self.advance(SECONDS + 3)
            if known:
                self.successResultOf(opening)
                self.assertIsNone(self.mirror.close())
            else:
                self.failureResultOf(opening, DeviceError)
            self.assertEqual(calls, [])
            waiting.callback(None)
            self.assertEqual(calls, ["close"], known)

    def test_closing(self) -> None:
        """A member that does not end its closing is not opened before, or it would be closed again late."""
        waiting = Stubborn()
        tried: list[float] = []
        open_ = self.disks[1].open

        def opens(changed: Any) -> None:
            tried.append(self.clock.seconds())
            open_(changed)

        self.patch(self.disks[1], "close", lambda: waiting)
        self.patch(self.disks[1], "open", opens)
        self.disks[1].faults = 1
        self.assertIsNone(self.mirror.write(0, b"1" * SECTOR))
        self.advance(200)
        self.assertEqual((self.states(), tried), ([IN_SYNC, FAILED], []))
        waiting.callback(None)
        settled(self.mirror, self.clock)
        self.assertEqual(len(tried), 1)
        self.assertEqual(self.disks[0].view, self.disks[1].view)

    def test_removed(self) -> None:
        """A member that hangs can be removed."""
        self.hang(1)
        writing: Any = self.mirror.write(0, b"1" * SECTOR)
        removing = self.mirror.remove("disk1")
        self.advance(LONG / 2)
        self.successResultOf(writing)
        self.successResultOf(removing)
        self.assertEqual(self.states(), [IN_SYNC])


class NestedTests(SynchronousTestCase):
    """Mirrors of mirrors."""

    def test_inner(self) -> None:
        """The inner one finds out who hangs, before the outer one gives it up as a whole."""
        clock = Clock()
        members = disks(3, SIZE)
        inner = Mirror(members[:2], reactor=clock, store=MemoryStore())
        outer = opened(Mirror([members[2], Concatenation([inner])], reactor=clock, store=MemoryStore()))
        clock.pump([1] * 20)
        self.assertIsNone(outer.write(0, b"0" * SECTOR))
        members[0].waits = True
        writing: Any = outer.write(0, b"1" * SECTOR)
        clock.pump([0.5] * 60)
        self.successResultOf(writing)
        self.assertEqual([leg.state for leg in inner.legs], [FAILED, IN_SYNC])
        self.assertEqual([leg.state for leg in outer.legs], [IN_SYNC, IN_SYNC])
        members[1].waits = True
        writing = outer.write(0, b"2" * SECTOR)
        clock.pump([0.5] * 90)
        self.assertNoResult(writing)
        clock.pump([0.5] * 30)
        self.successResultOf(writing)
        self.assertEqual([leg.state for leg in outer.legs], [IN_SYNC, FAILED])


class ThreeTests(SynchronousTestCase):
    """Two of three members that hang."""

    def test_write(self) -> None:
        """Both are left out when their time is over, and come back."""
        clock, store, members = Clock(), MemoryStore(), disks(3, SIZE)
        knownMirror(members, clock, store)
        members = again(members)
        mirror = opened(Mirror(members, reactor=clock, store=store, patience=2))
        mirror.write(0, b"0" * SECTOR)
        for disk in members[:2]:
            disk.waits = True
        writing: Any = mirror.write(0, b"1" * SECTOR)
        clock.pump([0.1] * 25)
        self.successResultOf(writing)
        self.assertEqual([leg.state for leg in mirror.legs], [FAILED, FAILED, IN_SYNC])
        for disk in members[:2]:
            disk.waits = False
            disk.operations[0].fire()
        settled(mirror, clock)
        self.assertEqual(members[0].view, members[2].view)
