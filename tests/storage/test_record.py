# -*- test-case-name: tests.storage.test_record -*-
"""Tests for L{iscsi_twisted.storage.record}."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.storage.record import MemberRecord, Record, regionCount
from iscsi_twisted.storage.regions import Regions


class RecordTests(SynchronousTestCase):
    """Tests of L{Record}."""

    def record(self, size: int = 5 << 18) -> Record:
        """A record."""
        shift = 18 if size < 1 << 30 else 24
        count = regionCount(size, shift)
        sets = [Regions(count) for _ in range(4)]
        source = random.Random(1)
        for one in sets:
            one.flags[:] = bytes(source.choices((0, 1), k=count))
        members = (
            MemberRecord("inode 5", "extent0 (/a)", True, sets[2], (5, 6)),
            MemberRecord("inode 6", "extent1 (/b)", False, sets[3]),
        )
        return Record("0" * 16, 7, size, shift, sets[0], sets[1], members)

    def test_same(self) -> None:
        """What was kept is found again."""
        record = self.record()
        found = Record.decode(record.encode())
        self.assertEqual(found.encode(), record.encode())
        self.assertEqual(found.members[0].stamp, (5, 6))
        self.assertEqual(list(found.members[1].behind), list(record.members[1].behind))

    def test_size(self) -> None:
        """The worst record of a mirror of 1 TiB is well below 1 MB."""
        self.assertLess(len(self.record(1 << 40).encode()), 100_000)

    def test_damaged(self) -> None:
        """What is damaged, or none, is refused."""
        data = self.record().encode()
        for wrong in (b"", b"x" * 200, data[:-9], data.replace(b"inode 5", b"inode 7")):
            self.assertRaises(ValueError, Record.decode, wrong)
