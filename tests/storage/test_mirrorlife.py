# -*- test-case-name: tests.storage.test_mirrorlife -*-
"""Tests for L{iscsi_twisted.storage.mirrorlife}."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import DeviceError, NotReady, ReadError, WriteError
from iscsi_twisted.storage import Concatenation, FileExtent, Mirror
from iscsi_twisted.storage.legs import IN_SYNC, MISSING, RESYNCING
from iscsi_twisted.storage.record import Record
from tests.support.mirrors import again, disks, knownMirror, opened, settled
from tests.support.platters import MemoryStore, Platter, PlatterDisk
from tests.support.threads import StepPool, StepReactor

SIZE = 1 << 20


class LifeTests(SynchronousTestCase):
    """How mirrors start and end."""

    def setUp(self) -> None:
        self.clock, self.store = Clock(), MemoryStore()
        self.disks = disks(2, SIZE)
        self.device = knownMirror(self.disks, self.clock, self.store)

    def states(self) -> list[str]:
        """Those of all members."""
        return [member.state for member in self.device.status().members]

    def start(self, *broken: int) -> list[str]:
        """Start once more, with these members broken; what is told."""
        self.disks = again(self.disks)
        for index in broken:
            self.disks[index].broken = True
        self.device = Mirror(self.disks, reactor=self.clock, store=self.store)
        with capturedLogs() as events:
            opened(self.device)
        return [str(formatEvent(event)) for event in events if event.get("event") == "mirror"]

    def test_quiet(self) -> None:
        """A mirror that was closed starts with all members in sync, and has nothing to say or to do."""
        self.assertEqual((self.start(), self.states()), ([], [IN_SYNC] * 2))
        self.clock.pump([5] * 10)
        self.assertEqual([disk.history for disk in self.disks], [[], []])

    def test_order(self) -> None:
        """Members are known by what they are, whatever their order and their names."""
        self.disks.reverse()
        for disk in self.disks:
            disk.title += "x"
        self.assertEqual((self.start(), self.states()), ([], [IN_SYNC] * 2))

    def test_missing(self) -> None:
        """With one missing it starts, loudly; that one is stale from the first write on."""
        (line,) = self.start(1)
        self.assertIn("degraded: disk1 is not there: disk1 is broken", line)
        self.assertEqual(self.states(), [IN_SYNC, MISSING])
        self.device.write(0, b"x")
        self.assertIsNone(self.device.close())
        self.assertRaises(NotReady, self.start, 0)
        self.start()
        self.assertEqual(self.states(), [IN_SYNC, RESYNCING])

    def test_missingInVain(self) -> None:
        """If nothing was written meanwhile either may start alone."""
        self.start(1)
        self.assertIsNone(self.device.close())
        self.start(0)
        self.assertEqual(self.states(), [MISSING, IN_SYNC])

    def test_backup(self) -> None:
        """A record from a backup, in which writes were under way, is known to be older than the members."""
        opened(self.device)
        self.device.write(0, b"x")
        backup = dict(self.store.kept)
        self.disks[1].broken = True
        self.device.write(0, b"y")
        self.clock.pump([5] * 3)
        for disk in self.disks:
            disk.crash(Random(0), power=False)
        self.store.kept = backup
        (line,) = self.start()
        self.assertIn("is old: disk0 knows of a newer one", line)
        self.assertEqual(self.device.status().unverified, SIZE)
        self.assertRaises(ReadError, self.device.read, 0, 1)
        self.assertEqual(bytes(self.device.read(SIZE // 2, 1)), bytes(1))
        self.assertIsNone(self.device.close())
        self.assertRaises(NotReady, self.start, 0)

    def test_backupOfNow(self) -> None:
        """So is one that was made a moment before a member failed, however soon the end comes."""
        for waits in (False, True):
            opened(self.device)
            self.device.write(0, b"x")
            backup = dict(self.store.kept)
            self.disks[1].broken = True
            self.store.waits = waits
            self.device.write(0, b"y")
            while self.store.pending:
                self.store.fire()
            for disk in self.disks:
                disk.crash(Random(0), power=False)
            self.store.kept, self.store.waits = backup, False
            (line,) = self.start()
            self.assertIn("is old: disk0 knows of a newer one", line)
            self.device.trust(self.device.legs[0])
            self.clock.pump([1.0] * 9)
            self.assertIsNone(self.device.close())

    def test_restartedMeanwhile(self) -> None:
        """What a member stands on is started anew while the mirror is closed: that is looked into before."""
        self.disks[1].view[:] = self.disks[0].view[:] = b"x" * SIZE
        opened(self.device)
        for disk in self.disks:
            disk.waits = True
        closing: Any = self.device.close()
        self.disks[1].bounce(Random(0))
        flushes = [one for disk in self.disks for one in disk.operations if one.name == "flush"]
        for operation in flushes:
            operation.fire()
        self.assertNoResult(closing)
        while any(disk.operations for disk in self.disks):
            for disk in self.disks:
                for operation in list(disk.operations):
                    operation.fire()
        self.assertIsNone(self.successResultOf(closing))
        saves = self.store.saves
        self.disks[0].bounce(Random(0))
        self.clock.advance(60)
        self.assertEqual((self.store.saves, self.clock.getDelayedCalls()), (saves, []))

    def test_killed(self) -> None:
        """What was written and not flushed when it was killed is durable before anything else is recorded."""
        opened(self.device)
        self.device.write(0, b"x")
        for disk in self.disks:
            disk.crash(Random(0), power=False)
        self.start()
        self.assertEqual([bytes(disk.platter.durable[:1]) for disk in self.disks], [b"x"] * 2)

    def test_killedForGood(self) -> None:
        """A member that cannot do that is not there."""
        opened(self.device)
        self.device.write(0, b"x")
        for disk in self.disks:
            disk.crash(Random(0), power=False)
        self.disks = again(self.disks)
        self.disks[0].faults = 1
        self.device = Mirror(self.disks, reactor=self.clock, store=self.store)
        opened(self.device)
        self.assertEqual(self.states(), [MISSING, IN_SYNC])
        self.assertIn("cannot flush", self.device.status().members[0].reason)
        self.assertEqual(bytes(self.device.read(0, 1)), b"x")
        settled(self.device, self.clock)

    def test_changed(self) -> None:
        """A member that was changed while nothing was served puts all in doubt."""
        self.disks[1].platter.version += 1
        (line,) = self.start()
        self.assertIn("disk1 was changed while the mirror did not serve", line)
        self.assertEqual(self.device.status().unverified, SIZE)

    def test_damaged(self) -> None:
        """A record that is damaged is told of, and is none."""
        (name,) = self.store.kept
        self.store.kept[name] = self.store.kept[name][:-5]
        lines = self.start()
        self.assertIn(name, lines[0])
        self.assertIn("compared", lines[1])

    def test_notReadable(self) -> None:
        """If records cannot be read nothing is served."""

        def broken() -> None:
            raise OSError(5, "worn out")

        self.store.records = broken  # type: ignore[method-assign,assignment]
        self.assertRaises(DeviceError, self.start)
        self.assertFalse(self.disks[0]._open)

    def test_notKept(self) -> None:
        """Nor if the record cannot be kept."""
        self.store.error = OSError(28, "no room")
        self.assertRaises(DeviceError, self.start)
        self.assertFalse(self.disks[0]._open)

    def test_closeFails(self) -> None:
        """If all could not be made durable at the end, that is told, and not forgotten."""
        self.start()
        self.device.write(0, b"x")
        for disk in self.disks:
            disk.faults = 1
        self.assertRaises(WriteError, self.device.close)
        (data,) = self.store.kept.values()
        self.assertEqual(list(Record.decode(data).marked), [0])

    def test_closeWithout(self) -> None:
        """A member that fails at the end is left out."""
        self.start()
        self.device.write(0, b"x")
        self.disks[0].faults = 1
        self.assertIsNone(self.device.close())
        for disk in self.disks:
            disk.platter.durable[:] = disk.view
        self.start()
        self.assertEqual(self.states(), [RESYNCING, IN_SYNC])

    def test_busy(self) -> None:
        """A region stays marked for as long as a write is under way there, however long that takes."""
        opened(self.device)
        self.device.patience = 0
        for _ in range(2):
            self.disks[1].waits = True
            writing = self.device.write(SIZE // 2, b"x" * 512)
            for _ in range(12):
                self.clock.advance(5)
                for operation in self.disks[1].operations[:]:
                    if operation.name == "flush":
                        operation.fire()
            self.assertEqual([one.name for one in self.disks[1].operations], ["write"])
            (data,) = self.store.kept.values()
            self.assertEqual(list(Record.decode(data).marked), [self.device.regions(SIZE // 2, SIZE)[0]])
            self.disks[1].waits = False
            self.disks[1].operations[0].fire()
            self.successResultOf(writing)
        self.clock.pump([5] * 12)
        (data,) = self.store.kept.values()
        self.assertFalse(Record.decode(data).marked)

    def test_single(self) -> None:
        """A mirror of one member needs no record: it is read and written at once, and another may join it."""
        (only, other) = disks(2, SIZE)
        only.view[:3] = b"old"
        mirror = opened(Mirror([only], reactor=self.clock))
        self.assertEqual(mirror.read(0, 3), b"old")
        self.assertIsNone(mirror.write(3, b"new"))
        mirror.add(other)
        self.clock.pump([1] * 10)
        self.assertEqual([leg.state for leg in mirror.legs], [IN_SYNC, IN_SYNC])
        self.assertEqual(bytes(other.view[:6]), b"oldnew")

    def test_nested(self) -> None:
        """A mirror in a mirror is known by its record, even if its own members have changed."""
        inner = Mirror(disks(2, SIZE), reactor=self.clock, store=self.store)
        other = PlatterDisk(Platter(SIZE), "other")
        outer = knownMirror([Concatenation([inner]), other], self.clock, self.store)
        opened(outer)
        inner.replace("disk0", PlatterDisk(Platter(SIZE), "new"))
        settled(inner, self.clock)
        outer.write(0, b"deep")
        self.assertIsNone(outer.close())
        with capturedLogs() as events:
            opened(outer)
        self.assertEqual([event for event in events if event.get("event") == "mirror"], [])
        self.assertEqual([leg.state for leg in outer.legs], [IN_SYNC] * 2)

    def test_small(self) -> None:
        """A mirror of 1 TiB starts at once, and its record is small."""
        reactor, pool, paths = StepReactor(), StepPool(), [self.mktemp() for _ in range(2)]
        mirror = Mirror(
            [FileExtent(path, 0, 1 << 40, reactor=reactor, threadPool=pool) for path in paths],
            reactor=reactor,
            store=self.store,
        )
        opening: Any = mirror.open(lambda: None)
        pool.run()
        self.assertIsNone(self.successResultOf(opening))
        for _ in range(5000):
            pool.run()
            reactor.advance(0.1)
            if not mirror.unverified:
                break
        self.assertFalse(mirror.unverified)
        self.assertLess(max(map(len, self.store.kept.values())), 10_000)
        mirror.close()
        pool.run()


class FileTests(SynchronousTestCase):
    """Files as members."""

    def setUp(self) -> None:
        self.reactor, self.pool, self.store = StepReactor(), StepPool(), MemoryStore()
        self.paths = [self.mktemp() for _ in range(2)]

    def extent(self, path: str) -> FileExtent:
        """A file as a member."""
        return FileExtent(path, 0, SIZE, reactor=self.reactor, threadPool=self.pool)

    def opened(self, *paths: str) -> Mirror:
        """A mirror of files, as far as it gets."""
        mirror = Mirror(map(self.extent, paths), reactor=self.reactor, store=self.store)
        mirror.open(lambda: None)
        for _ in range(50):
            self.pool.run()
            self.reactor.advance(0.1)
        return mirror

    def closed(self, mirror: Mirror) -> None:
        """Close it."""
        mirror.close()
        self.pool.run()

    def test_notMadeAnew(self) -> None:
        """A file that was a member and is gone is not made anew; one that was none is made, and copied to."""
        import os

        self.closed(self.opened(*self.paths))
        os.unlink(self.paths[1])
        mirror = self.opened(*self.paths)
        self.assertEqual([leg.state for leg in mirror.legs], [IN_SYNC, MISSING])
        self.assertIn("not made anew", mirror.legs[1].reason)
        for _ in range(20):
            self.pool.run()
            self.reactor.advance(1)
        self.assertFalse(os.path.exists(self.paths[1]))
        self.closed(mirror)
        mirror = self.opened(self.paths[0], self.mktemp())
        self.assertEqual([leg.state for leg in mirror.legs], [IN_SYNC, IN_SYNC])
        self.closed(mirror)

    def test_newFile(self) -> None:
        """A new file under the old name is a new member."""
        import os

        mirror = self.opened(*self.paths)
        mirror.write(0, b"x" * 512)
        self.pool.run()
        self.closed(mirror)
        os.unlink(self.paths[0])
        with open(self.paths[0], "wb") as file:
            file.truncate(SIZE)
        mirror = self.opened(*self.paths)
        self.assertEqual(bytes(mirror.read(0, 3)), b"xxx")
        self.closed(mirror)
        with open(self.paths[0], "rb") as file:
            self.assertEqual(file.read(512), b"x" * 512)
