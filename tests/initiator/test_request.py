"""Requests of an initiator: their time limits, and being sent again."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, TimeoutError

from iscsi_twisted.errors import RemoteError
from iscsi_twisted.initiator import LUN
from iscsi_twisted.initiator.asked import LAST_PAUSE, TRIES
from iscsi_twisted.initiator.dialling import FIRST_DELAY, LAST_DELAY
from iscsi_twisted.initiator.request import AGAIN
from iscsi_twisted.scsi import cdb
from iscsi_twisted.scsi.client import Busy, TaskSetFull
from iscsi_twisted.session.answers import Aborted, ConnectionEnded
from tests.initiator.test_session import BLOCK, SlowTestCase

NONSENSE = b"\x3e" + bytes(47)
"""A PDU that no target sends."""


class TimeoutTests(SlowTestCase):
    """Limits."""

    def calls(self) -> list[Any]:
        """What the reactor is to call for limits."""
        return [call for call in self.clock.getDelayedCalls() if call.func.__name__ == "_due"]

    def test_oneCall(self) -> None:
        """However many commands have the same limit, the reactor has one call to make; each gets its time."""
        lun = self.lun(ping=0)
        lun.timeout = 3.0
        first = [lun.read(place * BLOCK, BLOCK) for place in range(5)]
        self.clock.advance(1)
        second = [lun.read(place * BLOCK, BLOCK) for place in range(5)]
        self.assertEqual(len(self.calls()), 1)
        self.clock.advance(2)
        for one in first:
            self.assertIn("within 3 seconds", str(self.failureResultOf(one, TimeoutError).value))
        for one in second:
            self.assertNoResult(one)
        self.clock.advance(1)
        for one in second:
            self.failureResultOf(one, TimeoutError)

    def test_answered(self) -> None:
        """What is answered or cancelled in time is not ended later; nothing is left behind."""
        lun = self.lun(ping=0)
        lun.timeout = 3.0
        answered, cancelled = self.reading(lun), lun.read(BLOCK, BLOCK)
        self.turn()
        cancelled.cancel()
        self.device.fire()
        self.turn()
        self.failureResultOf(cancelled, CancelledError)
        self.assertEqual(len(self.successResultOf(answered)), BLOCK)
        self.clock.advance(3)
        self.turn()
        self.assertEqual(self.calls(), [])

    def test_ended(self) -> None:
        """With the session the limits end."""
        lun = self.lun(ping=0)
        lun.timeout = 3.0
        waiting = self.reading(lun)
        self.endpoint.transports[-1].abortConnection()
        self.failureResultOf(waiting, ConnectionEnded)
        self.turn()
        self.assertEqual(self.calls(), [])

    def test_toldEnds(self) -> None:
        """Whoever is told that the time is over may end the session, or send something else."""
        lun = self.lun(ping=0)
        lun.timeout = 3.0
        first, second = self.reading(lun), lun.read(BLOCK, BLOCK)
        more: list[Any] = []
        first.addErrback(lambda why: more.append(lun.read(0, BLOCK)))
        second.addErrback(lambda why: lun.session.abandon())
        self.clock.advance(3)
        self.assertEqual((self.successResultOf(first), self.successResultOf(second)), (None, None))
        self.failureResultOf(more[0], ConnectionEnded)
        self.turn()
        self.assertEqual(self.calls(), [])

    def test_between(self) -> None:
        """The time runs between two connections, too."""
        lun = self.lun(lasting=True, ping=0)
        lun.timeout = 3.0
        waiting = self.reading(lun)
        self.endpoint.refuses = True
        self.endpoint.transports[-1].abortConnection()
        self.clock.advance(3)
        self.failureResultOf(waiting, TimeoutError)
        lun.session.abandon()


class AgainTests(SlowTestCase):
    """Targets that do what they should not, under a session that is to last."""

    def nonsense(self, lun: LUN) -> None:
        """The target sends what it should not."""
        connection = lun.session.connection
        assert connection is not None
        connection.receive(NONSENSE)
        self.assertIsInstance(connection.error, RemoteError)

    def test_goesOn(self) -> None:
        """The connection ends, and what was not answered is sent over the next one."""
        lun = self.lun(lasting=True, ping=0)
        waiting = self.reading(lun)
        self.nonsense(lun)
        self.assertNoResult(waiting)
        self.clock.advance(FIRST_DELAY)
        self.turn()
        self.device.fire()
        self.turn()
        self.assertEqual(len(self.successResultOf(waiting)), BLOCK)
        self.assertEqual(lun.session.logins, 2)

    def test_notForEver(self) -> None:
        """A command that is answered with nonsense each time fails with it; logins become less frequent."""
        lun = self.lun(lasting=True, ping=0)
        waiting = self.reading(lun)
        delays = []
        for _ in range(AGAIN + 1):
            self.assertNoResult(waiting)
            self.nonsense(lun)
            (call,) = (one for one in self.clock.getDelayedCalls() if one.func == lun.session.dialler.dial)
            delays.append(call.getTime() - self.clock.seconds())
            self.clock.advance(delays[-1])
            self.turn()
        self.assertIn("3eh", str(self.failureResultOf(waiting, RemoteError).value))
        self.assertEqual(delays, sorted(delays))
        self.assertTrue(delays[-1] > 10 * delays[0], delays)
        self.clock.advance(LAST_DELAY + 1)
        self.nonsense(lun)
        (call,) = (one for one in self.clock.getDelayedCalls() if one.func == lun.session.dialler.dial)
        self.assertAlmostEqual(call.getTime() - self.clock.seconds(), FIRST_DELAY)
        lun.session.abandon()

    def test_neverSent(self) -> None:
        """What had no room in the window yet is sent over the next connection, even if only once."""
        self.node.depth = 32
        lun = self.lun(lasting=True, ping=0)
        reads = [lun.read(place * BLOCK, BLOCK) for place in range(self.node.depth)]
        once = lun.execute(cdb.TEST_UNIT_READY.encode()[:6])
        self.nonsense(lun)
        self.clock.advance(FIRST_DELAY)
        for _ in range(3):
            self.turn()
            self.device.fire()
        self.turn()
        for one in [*reads, once]:
            self.successResultOf(one)

    def test_fromErrback(self) -> None:
        """Whoever is told of a lost command may send another one at once."""
        lun = self.lun(lasting=True, ping=0)
        once = lun.execute(cdb.READ_10.encode(lba=0, length=1)[:10], expected=BLOCK)
        self.turn()
        once.addErrback(lambda why: lun.read(0, BLOCK))
        self.nonsense(lun)
        self.clock.advance(FIRST_DELAY)
        self.turn()
        self.device.fire()
        self.turn()
        self.assertEqual(len(self.successResultOf(once)), BLOCK)


class BusyTests(SlowTestCase):
    """Units that have no room for a command."""

    def full(self) -> tuple[LUN, list[Any]]:
        """More reads than the unit takes."""
        lun = self.lun(ping=0)
        reads = [lun.read(place * BLOCK, BLOCK) for place in range(self.node.depth)]
        self.turn()
        self.assertLess(len(self.device.operations), len(reads))
        return lun, reads

    def test_full(self) -> None:
        """What a unit has no room for is sent again a little later, until it is taken."""
        _, reads = self.full()
        while self.device.operations:
            self.device.fire()
            self.turn()
            self.clock.advance(LAST_PAUSE)
            self.turn()
        for one in reads:
            self.assertEqual(len(self.successResultOf(one)), BLOCK)

    def test_never(self) -> None:
        """When there is no room for long it fails, saying so; what has room goes on."""
        _, reads = self.full()
        for _ in range(TRIES + 1):
            self.clock.advance(LAST_PAUSE)
            self.turn()
        failed = [self.failureResultOf(one, TaskSetFull, Busy) for one in reads if one.called]
        self.assertEqual(len(failed), len(reads) - len(self.device.operations))
        self.device.fire()
        self.turn()
        self.assertTrue(all(one.called for one in reads))

    def test_cancelled(self) -> None:
        """While it waits it can be cancelled, and lost with its session; no call is left."""
        lun, reads = self.full()
        reads[-1].cancel()
        self.failureResultOf(reads[-1], CancelledError)
        lun.session.abandon()
        for one in reads[:-1]:
            self.failureResultOf(one, ConnectionEnded)
        self.turn()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ManagementTests(SlowTestCase):
    """Task management functions."""

    def test_ends(self) -> None:
        """Commands that a function has ended are told so; those of other units are not touched."""
        session = self.session()
        lun, other = self.lun(0, session), self.lun(1, session)
        waiting = self.reading(lun)
        self.now(lun.reset())
        self.assertIn("ended the command", str(self.failureResultOf(waiting, Aborted).value))
        self.device.fire()
        self.turn()
        self.assertEqual(len(self.now(other.read(0, BLOCK))), BLOCK)
        self.assertIsNone(session.error)
