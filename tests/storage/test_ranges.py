# -*- test-case-name: tests.storage.test_ranges -*-
"""Tests for L{iscsi_twisted.storage.ranges}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.storage.ranges import RangeLock


class LockTests(SynchronousTestCase):
    """Tests of L{RangeLock}."""

    def setUp(self) -> None:
        self.lock = RangeLock()
        self.begun: list[str] = []

    def begin(self, name: str, result: Any) -> Any:
        """What is done while a range is locked."""
        self.begun.append(name)
        if isinstance(result, Exception):
            raise result
        return result

    def test_free(self) -> None:
        """What nobody else wants is done at once, and its result is handed on; the range is free again."""
        self.assertEqual(self.lock.run(0, 10, self.begin, "a", 5), 5)
        self.assertEqual(self.lock.holds, [])

    def test_raises(self) -> None:
        """What fails at once fails at once, and leaves nothing."""
        self.assertRaises(ValueError, self.lock.run, 0, 10, self.begin, "a", ValueError())
        self.assertEqual(self.lock.holds, [])

    def test_order(self) -> None:
        """Those who want the same bytes have them in the order in which they came."""
        first: Deferred[int] = Deferred()
        second: Deferred[int] = Deferred()
        a = self.lock.run(0, 10, self.begin, "a", first)
        b = self.lock.run(5, 15, self.begin, "b", second)
        c = self.lock.run(0, 6, self.begin, "c", 3)
        self.assertEqual(self.begun, ["a"])
        first.callback(1)
        self.assertEqual(self.successResultOf(a), 1)
        self.assertEqual(self.begun, ["a", "b"])
        self.assertNoResult(c)
        second.callback(2)
        self.assertEqual((self.successResultOf(b), self.successResultOf(c)), (2, 3))
        self.assertEqual(self.lock.holds, [])

    def test_apart(self) -> None:
        """Ranges that only touch never wait for one another."""
        self.lock.run(10, 20, self.begin, "a", Deferred())
        self.lock.run(20, 30, self.begin, "b", Deferred())
        self.lock.run(0, 10, self.begin, "c", Deferred())
        self.assertEqual(self.begun, ["a", "b", "c"])

    def test_failure(self) -> None:
        """A failure, at once or later, frees the range for the next one."""
        first: Deferred[int] = Deferred()
        a = self.lock.run(0, 10, self.begin, "a", first)
        b = self.lock.run(0, 10, self.begin, "b", ValueError())
        c = self.lock.run(0, 10, self.begin, "c", 3)
        first.errback(ValueError())
        self.failureResultOf(a, ValueError)
        self.failureResultOf(b, ValueError)
        self.assertEqual(self.successResultOf(c), 3)

    def test_fair(self) -> None:
        """One that wants much has its turn however many want little of it all the time."""
        small = [Deferred[None]() for _ in range(8)]
        for number, result in enumerate(small):
            self.lock.run(number, number + 1, self.begin, f"small {number}", result)
        large: Deferred[None] = Deferred()
        self.lock.run(0, 8, self.begin, "large", large)
        later: list[Deferred[None]] = []
        for number, result in enumerate(small):
            # Whoever has had his turn comes again at once.
            later.append(Deferred())
            self.lock.run(number, number + 1, self.begin, f"again {number}", later[-1])
            self.assertNotIn("large", self.begun)
            result.callback(None)
        self.assertEqual(self.begun[8:], ["large"])
        large.callback(None)
        self.assertEqual(self.begun[9:], [f"again {number}" for number in range(8)])
        for result in later:
            result.callback(None)
        self.assertEqual(self.lock.holds, [])

    def test_cancelWaiting(self) -> None:
        """What still waits can be cancelled; it is not done, and those behind it do not wait for it."""
        first: Deferred[int] = Deferred()
        self.lock.run(0, 10, self.begin, "a", first)
        b = self.lock.run(5, 20, self.begin, "b", 2)
        c = self.lock.run(15, 20, self.begin, "c", 3)
        b.cancel()
        self.failureResultOf(b, CancelledError)
        self.assertEqual(self.successResultOf(c), 3)
        first.callback(1)
        self.assertEqual(self.begun, ["a", "c"])

    def test_cancelRunning(self) -> None:
        """What is being done is cancelled itself, after it waited or not."""
        first: Deferred[int] = Deferred()
        second: Deferred[int] = Deferred()
        a = self.lock.run(0, 10, self.begin, "a", first)
        b = self.lock.run(0, 10, self.begin, "b", second)
        a.cancel()
        self.failureResultOf(a, CancelledError)
        b.cancel()
        self.failureResultOf(b, CancelledError)
        self.assertEqual(self.lock.holds, [])

    def test_keep(self) -> None:
        """What has begun without asking keeps its range until it ends."""
        first: Deferred[int] = Deferred()
        self.lock.keep(0, 10, first)
        self.lock.run(9, 11, self.begin, "b", 1)
        self.assertEqual(self.begun, [])
        first.callback(1)
        self.assertEqual(self.begun, ["b"])

    def test_idle(self) -> None:
        """It can be waited for that nobody has anything."""
        self.assertIsNone(self.lock.idle())
        first: Deferred[int] = Deferred()
        second: Deferred[int] = Deferred()
        self.lock.keep(0, 10, first)
        self.lock.keep(20, 30, second)
        waiting: Any = self.lock.idle()
        first.callback(1)
        self.assertNoResult(waiting)
        second.callback(1)
        self.successResultOf(waiting)
