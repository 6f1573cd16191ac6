# -*- test-case-name: tests.storage.test_sweep -*-
"""Tests for L{iscsi_twisted.storage.sweep}."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.storage.mirrorlife import AGE, TICK
from iscsi_twisted.storage.record import Record
from tests.support.mirrors import disks, knownMirror, opened
from tests.support.platters import SECTOR, MemoryStore

SIZE = 1 << 20


class SweepTests(SynchronousTestCase):
    """A mirror one of whose members may take its time."""

    def setUp(self) -> None:
        self.clock, self.store = Clock(), MemoryStore()
        self.disks = disks(2, SIZE)
        self.device = opened(knownMirror(self.disks, self.clock, self.store))

    def write(self) -> Any:
        """Write something to the first region."""
        return self.device.write(0, b"x" * SECTOR)

    def look(self, times: int) -> None:
        """So much time goes by that the mirror looks around so often."""
        self.clock.pump([TICK] * AGE * times)

    def marked(self) -> list[int]:
        """The regions that the record calls marked."""
        (data,) = self.store.kept.values()
        return list(Record.decode(data).marked)

    def test_quiet(self) -> None:
        """Where nothing was written between two looks the mark is taken back, when that has been flushed."""
        self.write()
        self.look(1)
        self.assertEqual(self.marked(), [0])
        self.look(1)
        self.assertEqual(self.marked(), [])
        for disk in self.disks:
            self.assertEqual(disk.history[-1][0], "flush")

    def test_slow(self) -> None:
        """It is not if something was written since the flush for that began, however long that takes."""
        self.write()
        self.look(1)
        self.disks[1].waits = True
        self.look(1)
        (flush,) = self.disks[1].operations
        writing = self.write()
        self.look(1)
        flush.fire()
        while self.disks[1].operations:
            self.disks[1].operations[0].fire()
        self.assertIsNone(self.successResultOf(writing))
        self.assertEqual(self.marked(), [0])
        self.disks[1].waits = False
        self.look(3)
        self.assertEqual(self.marked(), [])

    def test_failed(self) -> None:
        """After one that has come to nothing there are others."""
        self.write()
        self.look(1)
        self.disks[0].faults = self.disks[1].faults = 1
        self.look(1)
        self.assertEqual(self.marked(), [0])
        self.look(2)
        self.assertEqual(self.marked(), [])
