# -*- test-case-name: tests.storage.test_records -*-
"""Tests for L{iscsi_twisted.storage.records}."""

from __future__ import annotations

from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.storage.record import MemberRecord, Record
from iscsi_twisted.storage.records import Records
from iscsi_twisted.storage.regions import Regions


def record(generation: int, *members: str) -> bytes:
    """A record of a mirror with these members."""
    legs = tuple(MemberRecord(f"inode {each}", each, True, Regions(1)) for each in members)
    return Record("0" * 16, generation, 512, 18, Regions(1), Regions(1), legs).encode()


class RecordsTests(SynchronousTestCase):
    """Tests of L{Records}."""

    def setUp(self) -> None:
        self.records = Records([("a", record(3, "one", "two")), ("b", record(2, "two", "three"))])

    def generations(self, *members: str) -> list[int]:
        """Of the records that are found by these members."""
        return [each.generation for each in self.records.of([f"inode {member}" for member in members])]

    def test_found(self) -> None:
        """Records are found by what their members are, and titles are known."""
        self.assertEqual(self.records.generation, 3)
        self.assertEqual([self.generations("one"), self.generations("two")], [[3], [3, 2]])
        self.assertEqual(list(self.records.of([None, "inode four"])), [])
        self.assertEqual([self.records.knows(each) for each in ("three", "four")], [True, False])

    def test_changed(self) -> None:
        """A record that has changed takes the place of what was there."""
        self.records.put("a", record(4, "one", "four"))
        self.assertEqual([self.generations("two"), self.generations("four")], [[2], [4]])
        self.records.drop("b")
        self.assertEqual([self.records.knows(each) for each in ("one", "two")], [True, False])
        self.assertEqual(self.records.generation, 4)

    def test_damaged(self) -> None:
        """One that is damaged is told of once, and is none, also if it was one before."""
        lines: list[str] = []

        def see(event: LogEvent) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(see)
        self.addCleanup(globalLogPublisher.removeObserver, see)
        self.records.put("a", b"nonsense")
        self.assertEqual([self.generations("one"), self.generations("two")], [[], [2]])
        (line,) = lines
        self.assertIn("record a of a mirror cannot be used: it is damaged", line)
