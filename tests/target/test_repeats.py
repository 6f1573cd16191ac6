"""Log lines that are alike."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.target.repeats import ALL, FIRST, Repeats


class RepeatsTests(SynchronousTestCase):
    """Tests of L{Repeats}."""

    def setUp(self) -> None:
        self.repeats = Repeats()

    def pass_(self, address: str, times: int) -> int:
        """How many of so many lines are worth writing."""
        return sum(self.repeats.passes(address) for _ in range(times))

    def test_few(self) -> None:
        """Few lines about each of many addresses all pass, and there is nothing to be told of them."""
        for number in range(20):
            self.assertEqual(self.pass_(f"10.0.0.{number}", FIRST), FIRST)
        self.assertEqual(list(self.repeats.settle()), [])

    def test_many(self) -> None:
        """Of many about one address the first pass, and the others are counted; then it begins anew."""
        self.assertEqual(self.pass_("a", 100), FIRST)
        self.assertEqual(self.pass_("b", 2), 2)
        self.assertFalse(self.repeats.would("a"))
        self.assertEqual(list(self.repeats.settle()), [("a", 100 - FIRST)])
        self.assertTrue(self.repeats.would("a"))
        self.assertEqual(self.pass_("a", 100), FIRST)

    def test_everywhere(self) -> None:
        """Of many about ever new addresses so many pass in all, and what is kept of them has a bound."""
        self.assertEqual(self.pass_("a", 2), 2)
        self.assertEqual(sum(self.pass_(f"10.{n >> 8}.{n & 255}.1", 2) for n in range(4 * ALL)), ALL - 2)
        self.assertEqual(self.pass_("a", 20), 0)
        self.assertLessEqual(len(self.repeats._seen), ALL)
        kept = dict(self.repeats.settle())
        self.assertEqual(kept, {"a": 22 - FIRST, "": 7 * ALL + 2 + 20 - (22 - FIRST)})
