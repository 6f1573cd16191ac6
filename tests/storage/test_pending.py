# -*- test-case-name: tests.storage.test_pending -*-
"""Tests for L{iscsi_twisted.storage.pending}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import ReadError, WriteError
from iscsi_twisted.storage.pending import attempt, deferred, gather, ifLater, settle, whenDone


def broken(error: Exception) -> None:
    """Raise it."""
    raise error


class Lookalike:
    """Pending, but no L{Deferred}."""

    def __init__(self) -> None:
        self.callbacks: list[tuple[Any, Any]] = []
        self.cancelled = 0

    def addCallbacks(self, callback: Any, errback: Any = None, /) -> None:
        self.callbacks.append((callback, errback))

    def addBoth(self, callback: Any, /) -> None:
        self.addCallbacks(callback, callback)

    def cancel(self) -> None:
        self.cancelled += 1


class WhenDoneTests(SynchronousTestCase):
    """L{whenDone} and L{ifLater}."""

    def test_now(self) -> None:
        """A result that is there is gone on with at once."""
        self.assertEqual(whenDone(b"ab", len), 2)

    def test_later(self) -> None:
        """A result that is to come is gone on with then, on the same Deferred."""
        source: Deferred[bytes] = Deferred()
        result = whenDone(source, len)
        self.assertIs(result, source)
        source.callback(b"abc")
        self.assertEqual(self.successResultOf(source), 3)

    def test_ifLater(self) -> None:
        """A later failure is given to the function after its arguments; a success passes."""
        seen: list[Any] = []
        bad: Deferred[int] = ifLater(Deferred(), lambda *all_: seen.append(all_[0]), "first")
        good: Deferred[int] = ifLater(Deferred(), lambda *all_: seen.append(all_[0]), "second")
        bad.errback(ReadError())
        good.callback(7)
        self.assertEqual(seen, ["first"])
        self.assertEqual(self.successResultOf(good), 7)

    def test_ifNow(self) -> None:
        """A result that is there is returned."""
        self.assertEqual(ifLater(b"x", self.fail), b"x")


class GatherTests(SynchronousTestCase):
    """L{gather} and L{settle}."""

    def test_allNow(self) -> None:
        """What all members answered at once is a list at once."""
        self.assertEqual(gather([b"a", None, [1]]), [b"a", None, [1]])
        self.assertEqual(gather([]), [])

    def test_failedNow(self) -> None:
        """The first failure of the list is raised at once if nothing is pending."""
        failures = [attempt(broken, WriteError("one")), b"", attempt(broken, ReadError("two"))]
        self.assertEqual(str(self.assertRaises(WriteError, gather, failures)), "one")

    def test_someLater(self) -> None:
        """If one is pending, so is the list; it keeps the order of the members."""
        first, second = Deferred[bytes](), Deferred[bytes]()
        joint = gather([first, b"b", second])
        second.callback(b"c")
        self.assertNoResult(joint)
        first.callback(b"a")
        self.assertEqual(self.successResultOf(joint), [b"a", b"b", b"c"])

    def test_failureWaits(self) -> None:
        """A failure is told when the others have ended too, since they may still be writing."""
        first = Deferred[None]()
        joint = gather([first, attempt(broken, WriteError("second"))])
        self.assertNoResult(joint)
        first.callback(None)
        self.assertEqual(str(self.failureResultOf(joint, WriteError).value), "second")

    def test_firstFailure(self) -> None:
        """Of several failures the first in the list is told, not the first in time; all are handled."""
        first, second = Deferred[None](), Deferred[None]()
        joint = gather([first, second])
        second.errback(WriteError("second"))
        first.errback(WriteError("first"))
        self.assertEqual(str(self.failureResultOf(joint, WriteError).value), "first")

    def test_alreadyFired(self) -> None:
        """Deferreds that have fired before are as good as others."""
        first = Deferred[int]()
        first.callback(1)
        self.assertEqual(self.successResultOf(gather([first, 2])), [1, 2])

    def test_cancel(self) -> None:
        """Cancelling cancels every member that is pending."""
        first, second = Deferred[None](), Deferred[None]()
        joint = gather([first, second])
        joint.cancel()
        self.failureResultOf(joint, CancelledError)
        self.assertTrue(first.called and second.called)

    def test_cancelIgnored(self) -> None:
        """A member that cannot be cancelled is waited for."""
        obedient, stubborn = Deferred[None](), Lookalike()
        joint = gather([obedient, stubborn])
        joint.cancel()
        self.assertEqual(stubborn.cancelled, 1)
        self.assertNoResult(joint)
        stubborn.callbacks[0][0](None)
        self.failureResultOf(joint, CancelledError)

    def test_cancelLater(self) -> None:
        """Once it has fired, cancelling reaches what a callback is waiting for."""
        first, next_ = Deferred[None](), Deferred[None]()
        joint: Any = gather([first])
        joint.addCallback(lambda _: next_)
        first.callback(None)
        joint.cancel()
        self.failureResultOf(joint, CancelledError)

    def test_settle(self) -> None:
        """Settling never fails: failures are in the list."""
        first = Deferred[None]()
        outcome = settle([first, 1])
        first.errback(ReadError())
        failure, one = self.successResultOf(outcome)
        self.assertIsInstance(failure, Failure)
        self.assertEqual(one, 1)


class DeferredTests(SynchronousTestCase):
    """L{deferred}."""

    def test_itself(self) -> None:
        """A Deferred is one."""
        source = Deferred[int]()
        self.assertIs(deferred(source), source)

    def test_lookalike(self) -> None:
        """Anything pending becomes one, for success and failure."""
        for index, value in ((0, 5), (1, Failure(ReadError()))):
            source = Lookalike()
            answer = deferred(source)
            source.callbacks[0][index](value)
            if index:
                self.failureResultOf(answer, ReadError)
            else:
                self.assertEqual(self.successResultOf(answer), 5)

    def test_cancelLookalike(self) -> None:
        """Cancelling is left to the thing itself until it has fired, then to what is waited for."""
        source = Lookalike()
        answer = deferred(source)
        answer.cancel()
        self.assertNoResult(answer)
        self.assertEqual(source.cancelled, 1)
        next_ = Deferred[None]()
        answer.addCallback(lambda _: next_)
        source.callbacks[0][0](None)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual(source.cancelled, 1)
