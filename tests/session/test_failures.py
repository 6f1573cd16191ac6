"""Whoever fails to authenticate has to wait."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.session.failures import ADDRESSES, COUNTED, FORGIVEN, FREE, LONGEST, STEP, Failures

HERE, THERE = "192.0.2.7", "192.0.2.8"


class FailuresTests(SynchronousTestCase):
    """Tests of L{Failures}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.failures = Failures(self.clock.seconds)

    def delays(self, address: str | None, count: int) -> list[float]:
        """What attempts wait that all fail."""
        found = []
        for _ in range(count):
            found.append(self.failures.delay(address))
            self.failures.failed(address)
        return found

    def test_grows(self) -> None:
        """The first failures cost nothing, then the wait doubles up to its bound."""
        found = self.delays(HERE, FREE + 40)
        self.assertEqual(found[:FREE], [0.0] * FREE)
        self.assertEqual(found[FREE : FREE + 3], [STEP, 2 * STEP, 4 * STEP])
        self.assertEqual(found[-1], LONGEST)

    def test_forgiven(self) -> None:
        """A minute without failures makes up for all of them."""
        self.delays(HERE, 10)
        self.clock.advance(FORGIVEN - 1)
        self.assertEqual(self.failures.delay(HERE), LONGEST)
        self.clock.advance(1)
        self.assertEqual(self.failures.delay(HERE), 0)
        self.assertEqual(self.delays(HERE, FREE + 1), [0.0] * FREE + [STEP])

    def test_places(self) -> None:
        """Each address is counted alone; those of one IPv6 network, and peers without one, together."""
        self.delays(HERE, 10)
        self.assertEqual(self.failures.delay(THERE), 0)
        self.delays("2001:db8::1", 10)
        self.assertEqual(self.failures.delay("2001:db8::ffff:2"), LONGEST)
        self.assertEqual(self.failures.delay("2001:db8:0:1::1"), 0)
        self.delays(None, 10)
        self.assertEqual(self.failures.delay(None), LONGEST)

    def test_bounded(self) -> None:
        """Only so many addresses are remembered; those that failed last stay."""
        for number in range(2 * ADDRESSES):
            self.failures.failed(f"10.0.{number >> 8}.{number & 255}")
        self.assertEqual(len(self.failures._counts), ADDRESSES)
        self.delays(HERE, 10)
        self.assertEqual(self.failures.delay(HERE), LONGEST)

    def test_burst(self) -> None:
        """What came at once, before any of it was counted, is remembered for as long as it should take."""
        self.delays(HERE, 100)
        self.clock.advance(100 * LONGEST - 1)
        self.assertEqual(self.failures.delay(HERE), LONGEST)
        self.clock.advance(1)
        self.assertEqual(self.failures.delay(HERE), 0)
        self.delays(HERE, 2 * COUNTED)
        self.clock.advance(COUNTED * LONGEST)
        self.assertEqual(self.failures.delay(HERE), 0)

    def test_mapped(self) -> None:
        """An IPv4 address is the same however it is written; its neighbours are others."""
        self.delays(HERE, 10)
        for same in ("::ffff:192.0.2.7", "::FFFF:c000:207", "0:0:0:0:0:ffff:192.0.2.7"):
            self.assertEqual(self.failures.delay(same), LONGEST, same)
        self.assertEqual(self.failures.delay("::ffff:192.0.2.8"), 0)

    def test_oddities(self) -> None:
        """What is no address is counted somewhere."""
        self.delays("some:transport", 10)
        self.assertEqual(self.failures.delay("some:transport"), LONGEST)
