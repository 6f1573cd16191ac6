# -*- test-case-name: tests.storage.test_threads -*-
"""Tests for L{iscsi_twisted.storage.threads}."""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from iscsi_twisted.errors import ReadError
from iscsi_twisted.storage.threads import IDLE, LIMIT, Threads
from tests.support.threads import StepPool, StepReactor, Ticks


def broken() -> None:
    """Fail."""
    raise ReadError("broken")


class ThreadsTests(SynchronousTestCase):
    """L{Threads} with a pool that waits for the test."""

    def setUp(self) -> None:
        self.pool = StepPool()
        self.clock = Ticks()
        self.threads = Threads(StepReactor(), self.clock, self.pool)

    def test_result(self) -> None:
        """A call's result arrives, and it is counted while it runs."""
        operation = self.threads.run(pow, 2, 10)
        self.assertEqual((self.threads.running, self.threads.count), (1, 1))
        self.pool.run()
        self.assertEqual(self.successResultOf(operation), 1024)
        self.assertEqual((self.threads.running, self.threads.count), (0, 1))

    def test_failure(self) -> None:
        """So does its failure."""
        operation = self.threads.run(broken)
        self.pool.run()
        self.failureResultOf(operation, ReadError)
        self.assertEqual(self.threads.running, 0)

    def test_elapsed(self) -> None:
        """It is measured how long the call took."""
        operation = self.threads.run(pow, 2, 2)
        self.clock.cost = 0.25
        self.pool.run()
        self.assertAlmostEqual(operation.elapsed, 0.25)
        self.successResultOf(operation)

    def test_cancelBefore(self) -> None:
        """A call that no thread has begun is cancelled at once and never made."""
        made: list[int] = []
        operation = self.threads.run(made.append, 1)
        operation.cancel()
        self.failureResultOf(operation, CancelledError)
        self.assertEqual(self.threads.running, 1)
        self.pool.run()
        self.assertEqual((made, self.threads.running), ([], 0))

    def test_cancelDuring(self) -> None:
        """A call that a thread has begun goes on, and its result arrives."""
        operation: Any = self.threads.run(lambda: operation.cancel() or 5)
        self.pool.step()
        self.assertEqual(self.successResultOf(operation), 5)

    def test_cancelAfter(self) -> None:
        """Once it has ended, cancelling reaches what a callback is waiting for."""
        next_: Deferred[None] = Deferred()
        operation = self.threads.run(pow, 1, 1)
        operation.addCallback(lambda _: next_)
        self.pool.run()
        operation.cancel()
        self.failureResultOf(operation, CancelledError)

    def test_idle(self) -> None:
        """One can wait until nothing is running."""
        self.assertIsNone(self.threads.idle())
        operations = [self.threads.run(pow, 1, 1), self.threads.run(pow, 1, 1)]
        idle = self.threads.idle()
        assert idle is not None
        self.pool.step()
        self.assertNoResult(idle)
        self.pool.step()
        self.assertIsNone(self.successResultOf(idle))
        self.assertEqual([self.successResultOf(operation) for operation in operations], [1, 1])

    def test_givenPool(self) -> None:
        """A pool that was given is not stopped."""
        self.threads.stop()
        operation = self.threads.run(pow, 1, 1)
        self.pool.run()
        self.assertEqual(self.successResultOf(operation), 1)


class OwnThreadsTests(TestCase):
    """L{Threads} of a device's own."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor

    def alive(self) -> list[threading.Thread]:
        """The storage threads that there are."""
        return [thread for thread in threading.enumerate() if "iscsi-storage" in thread.name]

    async def test_lazily(self) -> None:
        """There is no thread until one is needed, and none after the stop."""
        threads = Threads(self.reactor, self.reactor.seconds)
        self.assertEqual(self.alive(), [])
        name = await threads.run(lambda: threading.current_thread().name)
        self.assertIn("iscsi-storage", name)
        self.assertTrue(all(thread.daemon for thread in self.alive()))
        threads.stop()
        self.assertEqual(self.alive(), [])

    async def test_sideBySide(self) -> None:
        """Calls run side by side, as many as there are threads."""
        threads = Threads(self.reactor, self.reactor.seconds)
        self.addCleanup(threads.stop)
        barrier = threading.Barrier(LIMIT)
        operations = [threads.run(barrier.wait, 30.0) for _ in range(LIMIT)]
        ranks = [await operation for operation in operations]
        self.assertEqual(sorted(ranks), list(range(LIMIT)))

    async def test_rest(self) -> None:
        """Threads that nobody needed for a while end, and start again when needed."""
        clock = StepReactor()
        clock.callFromThread = self.reactor.callFromThread  # type: ignore[method-assign]
        threads = Threads(clock, clock.seconds)
        await threads.run(pow, 1, 1)
        clock.advance(IDLE / 2)
        await threads.run(pow, 1, 1)
        clock.advance(IDLE / 2)
        # One, or two: the first may not have told yet that it is free when the second is wanted.
        self.assertTrue(self.alive())
        clock.advance(IDLE)
        self.assertEqual(self.alive(), [])
        self.assertEqual(clock.getDelayedCalls(), [])
        self.assertEqual(await threads.run(pow, 3, 2), 9)
        threads.stop()
        self.assertEqual(clock.getDelayedCalls(), [])
