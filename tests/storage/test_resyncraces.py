# -*- test-case-name: tests.storage.test_resyncraces -*-
"""Tests for L{iscsi_twisted.storage.resync}: what happens to members while something is copied to them."""

from __future__ import annotations

import os

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import WriteError
from iscsi_twisted.interfaces import isPending
from iscsi_twisted.storage import Mirror, resync
from iscsi_twisted.storage.legs import FAILED, RESYNCING
from iscsi_twisted.storage.record import Record
from tests.support.mirrors import again, disks, knownMirror, opened, settled
from tests.support.platters import MemoryStore, Platter, PlatterDisk

REGION = 1 << 18
SIZE = 4 * REGION


class RaceTests(SynchronousTestCase):
    """A member is added to a mirror that has one."""

    def setUp(self) -> None:
        self.patch(resync, "PIECE", REGION)
        self.clock, self.store = Clock(), MemoryStore()
        self.old, other = disks(2, SIZE)
        self.device = opened(knownMirror([self.old, other], self.clock, self.store))
        self.successResultOf(self.device.remove(other))
        self.device.write(0, os.urandom(SIZE))
        self.device.flush()
        self.new = PlatterDisk(Platter(SIZE), "new")

    def add(self) -> None:
        """Add the new member, and let the copying begin."""
        self.successResultOf(self.device.add(self.new))
        self.clock.advance(0)

    def names(self, disk: PlatterDisk) -> list[tuple[str, int]]:
        """What a disk has to do."""
        return [(one.name, one.offset) for one in disk.operations]

    def finish(self) -> None:
        """Let all happen, the latest first, and the rest at once."""
        for disk in (self.old, self.new):
            disk.waits = False
            for operation in reversed(disk.operations[:]):
                operation.fire()

    def changedMeanwhile(self, operation: str, *arguments: object) -> None:
        """Change region 1 while older bytes of it are on their way to the new member."""
        self.old.waits = self.new.waits = True
        self.add()
        self.assertIn(("read", REGION), self.names(self.old))
        for one in self.old.operations[:]:
            one.fire()
        self.assertIn(("write", REGION), self.names(self.new))
        changing = getattr(self.device, operation)(REGION, *arguments)
        self.assertTrue(isPending(changing))
        self.finish()
        self.successResultOf(changing)
        settled(self.device, self.clock)
        self.assertEqual(self.device.read(REGION, 512), bytes(self.old.view[REGION : REGION + 512]))
        self.assertTrue(self.old.view == self.new.view, "the new member holds older bytes")

    def test_written(self) -> None:
        """What is written while the region is copied is not overwritten by what was there before."""
        self.changedMeanwhile("write", b"x" * 512)
        self.assertEqual(self.new.view[REGION : REGION + 512], b"x" * 512)

    def test_discarded(self) -> None:
        """What is discarded then does not come back."""
        self.changedMeanwhile("discard", 512)
        self.assertEqual(self.new.view[REGION : REGION + 512], bytes(512))

    def test_zeroed(self) -> None:
        """Nor does what is zeroed."""
        self.changedMeanwhile("zero", 512, True)
        self.assertEqual(self.new.view[REGION : REGION + 512], bytes(512))

    def test_spoilt(self) -> None:
        """A member that fails a write to what was just copied, and is back meanwhile, gets it again."""
        self.old.waits = True
        self.add()
        self.old.operations[0].fire()
        self.new.faults = 1
        writing = self.device.write(0, b"x" * 512)
        self.assertEqual(self.names(self.old)[-1], ("write", 0))
        self.old.operations[-1].fire()
        self.successResultOf(writing)
        self.assertEqual(self.device.legs[1].state, FAILED)
        self.clock.advance(5)
        self.assertEqual(self.device.legs[1].state, RESYNCING)
        self.assertIn(("read", REGION), self.names(self.old))
        self.finish()
        settled(self.device, self.clock)
        self.assertEqual(self.new.view[:512], b"x" * 512)
        self.assertTrue(self.old.view == self.new.view, "the new member holds older bytes")

    def copied(self) -> None:
        """Copy all to the new member, which is about to flush it; the record is kept meanwhile."""
        self.new.flush = Deferred  # type: ignore[method-assign]
        self.add()
        self.clock.pump([0.1] * 20)
        self.assertTrue(self.old.view == self.new.view)
        self.device.keepRecord()

    def test_unflushed(self) -> None:
        """What was copied and not flushed is lacking after a power cut, and copied again."""
        self.copied()
        (data,) = self.store.kept.values()
        member = next(one for one in Record.decode(data).members if one.fingerprint == self.new.fingerprint())
        self.assertEqual(list(member.behind), [0, 1, 2, 3])
        for call in list(self.clock.getDelayedCalls()):
            call.cancel()
        self.old.platter.durable[:] = self.old.view
        old, new = again([self.old, self.new])
        self.assertFalse(any(new.view))
        device = opened(Mirror([old, new], reactor=self.clock, store=self.store))
        settled(device, self.clock)
        self.assertTrue(old.view == new.view, "the new member lacks what it had in its cache")

    def test_flushFails(self) -> None:
        """If it cannot be flushed it may be gone, so that it is copied again when the member is back."""
        self.clock.pump([5] * 12)
        self.assertFalse(self.device.intent.marked())
        real = self.new.flush

        def lost() -> None:
            self.new.view[:] = self.new.platter.durable
            self.new.flush = real  # type: ignore[method-assign]
            raise WriteError("the cache is gone")

        self.new.flush = lost  # type: ignore[method-assign]
        self.add()
        self.clock.pump([0.1] * 20)
        self.assertEqual(self.device.legs[1].state, FAILED)
        self.assertEqual(list(self.device.legs[1].behind), [0, 1, 2, 3])
        settled(self.device, self.clock)
        self.assertTrue(self.old.view == self.new.view, "the new member lacks what it had in its cache")
