# -*- test-case-name: tests.storage.test_rota -*-
"""Tests for L{iscsi_twisted.storage.rota}."""

from __future__ import annotations

import hashlib
import json

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.storage import Mirror, rota, scrub
from iscsi_twisted.storage.record import DIGEST, Record, Rounds
from tests.support.mirrors import again, disks, knownMirror, opened, settled
from tests.support.platters import MemoryStore, Platter, PlatterDisk

REGION = 1 << 18
SIZE = 8 * REGION
DAY = 86400


class RotaTests(SynchronousTestCase):
    """Mirrors whose members are compared from time to time."""

    def setUp(self) -> None:
        self.patch(scrub, "STRETCH", 1)
        self.clock, self.store = Clock(), MemoryStore()
        self.clock.rightNow = 1000.0 * DAY
        self.disks = disks(2, SIZE)
        self.device = knownMirror(self.disks, self.clock, self.store)

    def start(self, days: float | None = 7) -> Mirror:
        """Serve."""
        self.disks = again(self.disks)
        every = None if days is None else days * DAY
        self.device = opened(Mirror(self.disks, reactor=self.clock, store=self.store, scrubbing=every))
        return self.device

    def stop(self) -> None:
        """Do so no more."""
        self.assertIsNone(self.device.close())

    def crash(self) -> None:
        """The same, suddenly."""
        for call in list(self.clock.getDelayedCalls()):
            call.cancel()
        self.store.serving.clear()

    def slowly(self) -> None:
        """Let each region take a second."""
        pause = self.device.life.pause
        self.device.life.pause = lambda seconds: pause(max(1.0, seconds))  # type: ignore[method-assign]

    def compared(self, pump: list[float]) -> list[int]:
        """How many bytes each comparison has compared that ends meanwhile."""
        with capturedLogs() as events:
            self.clock.pump(pump)
        return [event["compared"] for event in events if event.get("event") == "scrub"]

    def test_restarts(self) -> None:
        """A mirror that is restarted each day is compared when its time has come."""
        found = []
        for _ in range(16):
            self.start()
            found.append(self.compared([5.0] * 4))
            self.stop()
            self.clock.advance(DAY)
        self.assertEqual([day for day, one in enumerate(found) if one], [7, 14])
        self.assertEqual(found[7], [SIZE])

    def test_status(self) -> None:
        """The status tells when it was done last, and when it is the next time."""
        status = self.start().status()
        self.assertEqual((status.scrubbed, status.due), (None, 1007.0 * DAY))
        self.clock.advance(DAY)
        self.device.scrub()
        self.clock.pump([0.5] * 30)
        self.stop()
        status = self.start().status()
        assert status.scrubbed is not None
        self.assertTrue(0 < status.scrubbed - 1001.0 * DAY < 15, status)
        self.assertEqual(status.due, 1008.0 * DAY + 0.5)
        self.stop()
        self.assertIsNone(self.start(None).status().due)

    def test_goesOn(self) -> None:
        """One that was interrupted goes on where it was."""
        self.start(1)
        self.slowly()
        self.clock.advance(DAY)
        self.clock.pump([1.0] * 4)
        place = self.device.life.rota.rounds.place
        self.assertTrue(0 < place < 8, place)
        self.stop()
        self.clock.advance(DAY / 24)
        self.start(1)
        self.assertEqual(self.compared([5.0] * 4), [SIZE - place * REGION])

    def test_alone(self) -> None:
        """A member that has nobody to be compared with is not, until there is one again."""
        self.start(1)
        self.disks[0].broken = True
        self.device.write(0, b"x")
        self.assertEqual(self.compared([DAY, *[5.0] * 4]), [])
        self.assertIsNone(self.device.status().scrubbed)
        self.disks[0].broken = False
        settled(self.device, self.clock)
        self.assertEqual(self.compared([5.0] * 4), [SIZE])
        self.assertIsNotNone(self.device.status().scrubbed)

    def test_notAll(self) -> None:
        """If a member is not there the others are compared, but that does not count for all of them."""
        self.start(1)
        third = PlatterDisk(Platter(SIZE), "third")
        self.successResultOf(self.device.add(third))
        settled(self.device, self.clock)
        self.disks[0].broken = True
        self.device.write(0, b"x")
        began = self.clock.seconds()
        self.assertEqual(self.compared([DAY, *[5.0] * 4]), [SIZE])
        status = self.device.status()
        self.assertIsNone(status.scrubbed)
        assert status.due is not None
        self.assertGreater(status.due, began + 2 * DAY - 1)

    def test_crash(self) -> None:
        """A crash undoes what was compared since that was kept last."""
        self.patch(rota, "CHECKPOINT", 3.0)
        self.start(1)
        self.slowly()
        self.clock.advance(DAY)
        before = self.store.saves
        self.clock.pump([1.0] * 5)
        self.assertIn(self.store.saves - before, (1, 2, 3))
        self.crash()
        self.start(1)
        self.assertIn(self.device.life.rota.rounds.place, range(2, 7))

    def test_noWrites(self) -> None:
        """Nothing is kept for an operation more than before."""
        self.start()
        self.device.write(0, bytes(512))
        before = self.store.saves
        for _ in range(100):
            self.device.write(0, bytes(512))
            self.device.read(0, 512)
        self.assertEqual(self.store.saves, before)

    def test_cannotBeKept(self) -> None:
        """If it cannot be kept it is done none the less."""
        self.start(1)
        self.store.error = OSError(28, "full")
        self.assertEqual(self.compared([DAY, *[5.0] * 9]), [SIZE])

    def test_clock(self) -> None:
        """A clock that is set back does not put it off for ever."""
        self.start()
        self.stop()
        self.clock.rightNow = 500.0 * DAY
        self.assertEqual(self.start().status().due, 507.0 * DAY)

    def test_older(self) -> None:
        """Records from before that was kept can be used."""
        record = Record.decode(next(iter(self.store.kept.values())))
        body = json.loads(record.encode()[DIGEST + 1 :])
        self.assertEqual(body["rounds"], [1000.0 * DAY, 0.0, 0])
        del body["rounds"]
        data = json.dumps(body).encode()
        older = hashlib.sha256(data).hexdigest().encode() + b"\n" + data + b"\n"
        self.assertEqual(Record.decode(older).rounds, Rounds())
