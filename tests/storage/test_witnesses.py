# -*- test-case-name: tests.storage.test_witnesses -*-
"""Tests for L{iscsi_twisted.storage.witnesses}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import DeviceError
from iscsi_twisted.storage.mirrorlife import AGE, TICK
from iscsi_twisted.storage.patience import SECONDS
from iscsi_twisted.storage.record import Record
from tests.support.devices import Stubborn
from tests.support.mirrors import again, disks, knownMirror, opened
from tests.support.platters import MemoryStore, Platter, PlatterDisk

SIZE = 1 << 20


class SlowDisk(PlatterDisk):
    """
    A disk that takes its time to keep a number.

    @ivar told: the numbers that it was told.
    @ivar keeping: those that are not kept yet.
    """

    def __init__(self, platter: Platter, title: str) -> None:
        super().__init__(platter, title)
        self.told: list[int] = []
        self.keeping: list[Deferred[None]] = []

    def keepWitness(self, key: str, number: int) -> Any:
        self.told.append(number)
        keeping = Stubborn()
        self.keeping.append(keeping)
        return keeping.addCallback(lambda _: PlatterDisk.keepWitness(self, key, number))


class WitnessTests(SynchronousTestCase):
    """Mirrors whose members know of records."""

    def setUp(self) -> None:
        self.clock, self.store = Clock(), MemoryStore()
        self.disks = disks(3, SIZE)
        mirror = knownMirror(self.disks, self.clock, self.store)
        self.slow = SlowDisk(self.disks[0].platter, "slow")
        mirror.members[0] = self.disks[0] = self.slow
        self.device = opened(mirror)
        self.device.write(0, b"x")

    def lose(self, index: int) -> None:
        """A member fails, of which the record tells."""
        self.disks[index].broken = True
        self.device.write(0, b"y")

    def kept(self) -> int:
        """Of which record the slow disk knows."""
        return max(self.slow.platter.witnesses.values())

    def test_meanwhile(self) -> None:
        """What happens while members are told something they are told directly afterwards."""
        self.lose(1)
        self.lose(2)
        first, newest = self.slow.told[0], self.device.intent.kept
        self.assertEqual((self.slow.told, first < newest), ([first], True))
        self.slow.keeping[0].callback(None)
        self.assertEqual((self.slow.told, self.kept()), ([first, newest], first))
        self.slow.keeping[1].callback(None)
        self.assertEqual((len(self.slow.told), self.kept()), (2, newest))
        for failed in self.disks[1:]:
            self.assertLess(max(failed.platter.witnesses.values()), newest)

    def test_lost(self) -> None:
        """If the record is lost the next is newer than all that members know of, and is believed."""
        for disk in self.disks:
            disk.leave()
            disk.platter.witnesses = dict.fromkeys(disk.platter.witnesses, 1000)
        self.store = MemoryStore()
        mirror = knownMirror(again(self.disks), self.clock, self.store)
        self.assertGreater(Record.decode(*self.store.kept.values()).generation, 1000)
        with capturedLogs() as events:
            opened(mirror)
        self.assertEqual([event for event in events if event.get("event") == "mirror"], [])
        self.assertEqual(mirror.status().unverified, 0)

    def test_notKept(self) -> None:
        """A member that could not keep it is told again."""
        self.lose(1)
        self.slow.keeping[0].errback(DeviceError("no"))
        self.assertEqual(self.slow.told, [self.device.intent.kept])
        Deferred.fromCoroutine(self.device.life.witnesses.tell())
        self.assertEqual(self.slow.told, [self.device.intent.kept] * 2)
        self.slow.keeping[1].callback(None)
        Deferred.fromCoroutine(self.device.life.witnesses.tell())
        self.assertEqual(len(self.slow.told), 2)

    def test_hangs(self) -> None:
        """One that does not answer is not told more and more, but when it answers again."""
        self.lose(1)
        self.clock.pump([TICK] * 20)
        self.assertEqual((len(self.slow.told), self.device.legs[0].hanging), (1, 1))
        self.assertGreater(20 * TICK, SECONDS)
        self.slow.keeping[0].callback(None)
        self.clock.pump([TICK] * AGE)
        self.assertEqual((len(self.slow.told), self.device.legs[0].hanging), (2, 0))
