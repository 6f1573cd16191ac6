# -*- test-case-name: tests.storage.test_intent -*-
"""Tests for L{iscsi_twisted.storage.intent}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import DeviceError
from iscsi_twisted.storage.intent import AHEAD, Intent
from iscsi_twisted.storage.record import Record
from iscsi_twisted.storage.regions import Regions
from tests.support.platters import MemoryStore


class IntentTests(SynchronousTestCase):
    """Tests of L{Intent}."""

    count = 40

    def setUp(self) -> None:
        self.store = MemoryStore(waits=True)
        self.intent = Intent(self.store, "m", self.count, self.record)

    def record(self) -> Record:
        """What is kept."""
        return Record("m", 1, self.count << 18, 18, self.intent.marked(), Regions(self.count), ())

    def kept(self) -> list[int]:
        """The marks that are durable."""
        return list(Record.decode(self.store.kept["m"]).marked)

    def test_mark(self) -> None:
        """A mark is there when it is durable, and then costs nothing."""
        marking: Any = self.intent.mark(3, 4)
        self.assertEqual(bytes(self.intent.marks), bytes(self.count))
        self.store.fire()
        self.successResultOf(marking)
        self.assertEqual(self.kept(), [3, 4])
        self.assertIsNone(self.intent.mark(3, 3))
        self.assertEqual(self.store.saves, 1)

    def test_together(self) -> None:
        """Marks that come while others are being kept are kept together."""
        markings: list[Any] = [self.intent.mark(number, number) for number in (1, 5, 9, 13)]
        self.store.fire()
        self.successResultOf(markings[0])
        self.assertNoResult(markings[1])
        self.store.fire()
        for marking in markings[1:]:
            self.successResultOf(marking)
        self.assertEqual((self.kept(), self.store.saves), ([1, 5, 9, 13], 2))

    def test_ahead(self) -> None:
        """When writes go on from one region to the next, some that follow are marked too."""
        self.intent.mark(3, 3)
        self.store.fire()
        self.intent.mark(4, 4)
        self.store.fire()
        self.assertEqual(self.kept(), list(range(3, 5 + AHEAD)))
        self.assertIsNone(self.intent.mark(5, 5))

    def test_fails(self) -> None:
        """A mark that cannot be kept is none; the next attempt may do."""
        self.store.error = OSError(28, "no room")
        self.assertRaises(DeviceError, self.intent.mark, 3, 3)
        self.store.error = None
        first: Any = self.intent.mark(3, 3)
        second: Any = self.intent.mark(20, 20)
        self.store.error = OSError(28, "no room")
        self.store.fire()
        self.successResultOf(first)
        self.failureResultOf(second, DeviceError)
        self.assertEqual(self.intent.marks[20], 0)

    def test_failsLater(self) -> None:
        """The same if that is found out later."""
        marking: Any = self.intent.mark(3, 3)
        self.store.pending.pop()[2].errback(OSError(5, "worn out"))
        self.failureResultOf(marking, DeviceError)
        self.assertEqual(self.intent.marks[3], 0)

    def test_gone(self) -> None:
        """What was to be marked and is not, as it failed or was cancelled, is not marked in later records."""
        self.store.error = OSError(28, "no room")
        self.assertRaises(DeviceError, self.intent.mark, 3, 3)
        self.store.error = None
        first: Any = self.intent.mark(5, 5)
        second: Any = self.intent.mark(5, 9)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(list(self.intent.marked()), [5, 6, 7, 8, 9])
        self.store.fire()
        self.store.fire()
        self.successResultOf(second)
        third: Any = self.intent.mark(20, 20)
        third.cancel()
        self.failureResultOf(third, CancelledError)
        self.store.fire()
        self.assertEqual(list(self.intent.marked()), [5, 6, 7, 8, 9])

    def test_age(self) -> None:
        """
        What was not written between two looks is quiet, unless it is written before the mark is taken back.
        """
        self.store.waits = False
        for number in (3, 20, 30):
            self.intent.mark(number, number)
        self.assertEqual(self.intent.age(), [])
        self.intent.mark(20, 20)
        quiet = self.intent.age()
        self.assertEqual(quiet, [3, 30])
        self.intent.mark(30, 30)
        self.intent.clear(self.intent.quiet(quiet))
        self.assertEqual(list(self.intent.marked()), [20, 30])

    def test_nowhere(self) -> None:
        """Without a store all is forgotten, and nothing waits."""
        intent = Intent(None, "m", self.count, self.record)
        self.assertIsNone(intent.mark(3, 3))
        self.assertEqual(intent.marks[3], 2)
