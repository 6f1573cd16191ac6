# -*- test-case-name: tests.initiator.test_isids -*-
"""Tests for L{iscsi_twisted.initiator.isids}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.initiator.isids import ISIDs


class ISIDTests(SynchronousTestCase):
    """Tests of L{ISIDs}."""

    def test_next(self) -> None:
        """Every session has one of its own."""
        made = ISIDs(b"\x80\1\2\3\xff\xff", None)
        self.assertEqual([made.next().hex() for _ in range(2)], ["800102030000", "800102030001"])
        self.assertNotEqual(ISIDs(None, None).next(), ISIDs(None, None).next())

    def test_claim(self) -> None:
        """A use has the same one each time, with the same seed."""
        first, again, other = (ISIDs(None, lambda seed=seed: seed) for seed in (b"a", b"a", b"b"))
        isid = first.claim("x")
        self.assertEqual((len(isid), isid[0]), (6, 0x80))
        self.assertEqual(again.claim("x"), isid)
        self.assertNotIn(isid, (other.claim("x"), first.claim("y")))

    def test_claimed(self) -> None:
        """While somebody has it the next one gets another, which is always the same too."""
        made = ISIDs(None, lambda: b"a")
        first, second = made.claim("x"), made.claim("x")
        self.assertNotEqual(first, second)
        made.release(first)
        self.assertEqual(made.claim("x"), first)
        made.release(second)
        self.assertEqual(made.claim("x"), second)

    def test_unseeded(self) -> None:
        """Without a seed it is the same as long as the initiator lasts."""
        made = ISIDs(None, None)
        isid = made.claim("x")
        made.release(isid)
        self.assertEqual(made.claim("x"), isid)
        self.assertNotEqual(ISIDs(None, None).claim("x"), isid)
