"""Sessions with a target in memory: logins, commands, aborts, lost connections, pings."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.error import ConnectionRefusedError

from iscsi_twisted.errors import LocalError
from iscsi_twisted.initiator import LUN, Session
from iscsi_twisted.initiator.dialling import FIRST_DELAY, REDIRECTS
from iscsi_twisted.initiator.pulse import STALLS
from iscsi_twisted.initiator.session import ABORT_TIME, TEXT_TIME
from iscsi_twisted.session import asking, notices
from iscsi_twisted.session.answers import ConnectionEnded, Event, LoginRefused, LogoutRefused, Redirected
from iscsi_twisted.wire import numbers
from tests.support.devices import FakeDevice
from tests.support.initiator import SIZE, InitiatorTests

BLOCK = 512


class LoginTests(InitiatorTests):
    """Logins and logouts."""

    def test_discover(self) -> None:
        """Discovery finds the targets and their addresses, and logs out."""
        (found,) = self.now(self.initiator.discover(self.endpoint))
        self.assertEqual((found.name, found.addresses), (self.target.name, ("127.0.0.1:3260,1",)))
        self.assertEqual(self.node.sessions, set())

    def test_login(self) -> None:
        """A session has what was agreed upon, and ends with a logout."""
        session = self.session(keys={"MaxBurstLength": 65536, "InitialR2T": True})
        assert session.connection is not None
        parameters = session.connection.parameters
        self.assertEqual((parameters.maxBurst, parameters.initialR2T, session.logins), (65536, True, 1))
        self.assertEqual(session.connection.declared["TargetPortalGroupTag"], "1")
        self.now(session.logout())
        self.assertEqual((self.node.sessions, session.connection), (set(), None))
        self.assertIn(("loggedOut",), self.diary.entries)

    def test_logoutRefused(self) -> None:
        """A logout that went wrong at the target says so; the session is over all the same."""
        session = self.session()
        self.patch(asking, "logout", lambda connection, done: done(LogoutRefused(numbers.CLEANUP_FAILED)))
        error = self.fails(LogoutRefused, session.logout())
        self.assertIn("cleaned up", str(error))
        self.assertIsNone(session.connection)

    def test_refused(self) -> None:
        """A login that the target refuses says why."""
        waiting = self.initiator.login(self.endpoint, "iqn.2001-04.com.example:other")
        error = self.fails(LoginRefused, waiting)
        self.assertEqual(error.status, numbers.NOT_FOUND)
        self.assertIn("no such target", str(error))

    def test_unreachable(self) -> None:
        """A session is not there if nobody listens."""
        self.endpoint.refuses = True
        self.fails(ConnectionRefusedError, self.initiator.login(self.endpoint, self.target.name))

    def test_digests(self) -> None:
        """With digests all is as without."""
        lun = self.lun(headerDigest="yes", dataDigest="yes")
        data = os.urandom(64 * BLOCK)
        self.now(lun.write(0, data))
        self.assertEqual(bytes(self.now(lun.read(0, len(data)))), data)
        assert lun.session.connection is not None
        self.assertTrue(lun.session.connection.parameters.dataDigest)

    def test_over(self) -> None:
        """After the logout nothing can be asked for any more."""
        session = self.session()
        self.now(session.logout())
        self.fails(ConnectionEnded, session.execute(bytes(8), bytes(6)))
        self.fails(LocalError, session.ping())

    def test_ping(self) -> None:
        """What is sent with a ping comes back."""
        self.assertEqual(self.now(self.session().ping(b"hello")), b"hello")

    def test_abandoned(self) -> None:
        """A login that is cancelled at any point leaves no session behind."""
        for turns in range(12):
            waiting = Deferred.fromCoroutine(self.initiator.login(self.endpoint, self.target.name))
            self.turn(turns)
            waiting.cancel()
            self.turn()
            self.assertTrue(waiting.called)
            if waiting.result is None or hasattr(waiting.result, "check"):
                self.failureResultOf(waiting)
                self.assertEqual(self.node.sessions, set(), turns)

    def test_oneMoreSession(self) -> None:
        """Each session has an ISID of its own: none takes another's place."""
        first, second = self.session(), self.session()
        self.assertEqual(len(self.node.sessions), 2)
        self.assertNotEqual(first.wish.isid, second.wish.isid)


class Moved:
    """The endpoint of a target that is somewhere else."""

    def __init__(self, asked: list[str], status: int) -> None:
        self.asked, self.status = asked, status

    def connect(self, factory: object) -> Any:
        """Say where."""
        self.asked.append("old")
        raise Redirected(self.status, "192.0.2.2:3260,1")


class Noted:
    """An endpoint that tells when it was used."""

    def __init__(self, asked: list[str], endpoint: Any) -> None:
        self.asked, self.endpoint = asked, endpoint

    def connect(self, factory: object) -> Any:
        """Connect."""
        self.asked.append("new")
        return self.endpoint.connect(factory)


class SlowTestCase(InitiatorTests):
    """A device that takes its time."""

    def makeDevice(self) -> FakeDevice:
        """It answers when it is told to."""
        return FakeDevice(SIZE)

    def reading(self, lun: LUN) -> Any:
        """A read that has reached the device."""
        waiting = lun.read(0, BLOCK)
        self.turn()
        self.assertEqual(len(self.device.operations), 1)
        return waiting


class SlowTests(SlowTestCase):
    """Commands that take their time."""

    def test_cancel(self) -> None:
        """Cancelling aborts the task at the target; what comes late is nobody's."""
        lun = self.lun()
        waiting = self.reading(lun)
        waiting.cancel()
        self.turn()
        self.failureResultOf(waiting, CancelledError)
        (served,) = self.node.sessions
        self.assertEqual((served.tasks, served.aborts), ({}, 1))
        assert lun.session.connection is not None
        self.assertEqual(lun.session.connection.commands, {})
        self.device.fire()
        self.turn()
        other = lun.read(0, BLOCK)
        self.turn()
        self.device.fire()
        self.turn()
        self.assertEqual(len(self.successResultOf(other)), BLOCK)

    def test_timeout(self) -> None:
        """A command that takes too long is aborted."""
        lun = self.lun()
        lun.timeout = 3.0
        waiting = self.reading(lun)
        self.clock.advance(3)
        self.turn()
        self.failureResultOf(waiting, TimeoutError)
        (served,) = self.node.sessions
        self.assertEqual(served.aborts, 1)

    def test_window(self) -> None:
        """What the window has no room for waits, and goes when there is room."""
        depth = self.node.depth = 32
        lun = self.lun()
        waiting = [lun.read(place * BLOCK, BLOCK) for place in range(depth + 5)]
        self.turn()
        assert lun.session.connection is not None
        self.assertEqual(len(lun.session.connection.waiting), 5)
        waiting[-1].cancel()
        self.failureResultOf(waiting[-1], CancelledError)
        self.device.fire()
        self.turn()
        self.device.fire()
        self.turn()
        self.assertEqual([len(self.successResultOf(one)) for one in waiting[:-1]], [BLOCK] * (depth + 4))


class LostTests(SlowTestCase):
    """Connections that are lost."""

    def cut(self) -> None:
        """Cut the connection."""
        self.endpoint.transports[-1].abortConnection()

    def test_lost(self) -> None:
        """A session that is not to last fails what waits, and ends."""
        lun = self.lun()
        waiting = self.reading(lun)
        self.cut()
        self.failureResultOf(waiting, ConnectionEnded)
        self.fails(ConnectionEnded, lun.session.execute(bytes(8), bytes(6)))

    def test_replay(self) -> None:
        """One that lasts logs in again and sends the same again; unit attentions are taken."""
        lun = self.lun(lasting=True)
        waiting = self.reading(lun)
        self.cut()
        self.assertNoResult(waiting)
        self.clock.advance(FIRST_DELAY)
        self.turn()
        self.device.fire()
        self.turn()
        self.assertEqual(len(self.successResultOf(waiting)), BLOCK)
        self.assertEqual(lun.session.logins, 2)

    def test_meanwhile(self) -> None:
        """Between two connections commands wait."""
        lun = self.lun(lasting=True)
        self.cut()
        waiting = lun.read(0, BLOCK)
        self.clock.advance(FIRST_DELAY)
        self.turn()
        self.device.fire()
        self.turn()
        self.assertEqual(len(self.successResultOf(waiting)), BLOCK)

    def test_once(self) -> None:
        """What may not be done twice is not sent again: it fails, and nobody knows whether it was done."""
        lun = self.lun(lasting=True)
        waiting = self.startCompare(lun)
        self.cut()
        self.failureResultOf(waiting, ConnectionEnded)

    def startCompare(self, lun: LUN) -> Any:
        """A COMPARE AND WRITE that has reached the device."""
        waiting = Deferred.fromCoroutine(lun.compareAndWrite(0, bytes(BLOCK), bytes(BLOCK)))
        self.turn()
        self.assertEqual(len(self.device.operations), 1)
        return waiting

    def test_backOff(self) -> None:
        """Attempts are made less and less often, until the patience is over."""
        lun = self.lun(lasting=True, patience=10.0, ping=0)
        waiting = self.reading(lun)
        self.endpoint.refuses = True
        self.cut()
        times = []
        while not waiting.called:
            (call,) = (one for one in self.clock.getDelayedCalls() if one.func == lun.session.dialler.dial)
            times.append(call.getTime() - self.clock.seconds())
            self.clock.advance(times[-1])
        self.assertEqual(times, sorted(times))
        self.assertTrue(5 < sum(times) <= 10, times)
        self.failureResultOf(waiting, ConnectionRefusedError)

    def test_abandonBetween(self) -> None:
        """A session that is given up between two connections fails what waits, and tries no more."""
        lun = self.lun(lasting=True, ping=0)
        waiting = self.reading(lun)
        self.cut()
        lun.session.abandon()
        self.failureResultOf(waiting, ConnectionEnded)
        self.clock.advance(100)
        self.assertEqual(lun.session.logins, 1)

    def test_moved(self) -> None:
        """A session whose target has moved meanwhile goes on where it is now, for good only if told so."""
        for status, at in (
            (numbers.TARGET_MOVED_TEMPORARILY, ["old", "new", "old", "new"]),
            (numbers.TARGET_MOVED_PERMANENTLY, ["old", "new", "new"]),
        ):
            asked: list[str] = []
            lun = self.lun(lasting=True, ping=0)
            session = lun.session
            session.dialler.endpoint = Moved(asked, status)  # type: ignore[assignment]
            session.dialler.elsewhere = lambda address, asked=asked: Noted(asked, self.endpoint)  # type: ignore[assignment,misc]
            for _ in range(2):
                waiting = lun.read(0, BLOCK)
                self.turn()
                self.cut()
                self.clock.advance(5 * FIRST_DELAY)
                self.turn()
                self.device.fire()
                self.turn()
                self.assertEqual(len(self.successResultOf(waiting)), BLOCK)
            self.assertEqual(asked, at)

    def test_movedRound(self) -> None:
        """Targets that send one another everybody are tried again later, not in a circle."""
        asked: list[str] = []
        lun = self.lun(lasting=True, ping=0)
        lun.session.dialler.endpoint = Moved(asked, numbers.TARGET_MOVED_TEMPORARILY)  # type: ignore[assignment]
        lun.session.dialler.elsewhere = lambda address: lun.session.dialler.endpoint
        self.cut()
        self.clock.advance(FIRST_DELAY)
        self.assertEqual(len(asked), REDIRECTS + 1)

    def test_logoutWhileWaiting(self) -> None:
        """A logout ends at once what waits: commands at work, and those between two connections."""
        for cut in (False, True):
            lun = self.lun(lasting=True, ping=0)
            waiting = [self.reading(lun)]
            if cut:
                self.cut()
                waiting.append(lun.read(BLOCK, BLOCK))
            out = lun.session.logout()
            self.turn()
            self.successResultOf(out)
            for one in waiting:
                self.failureResultOf(one, ConnectionEnded)
            self.device.fire()
            self.clock.advance(100)
            self.assertEqual((lun.session.logins, self.node.sessions), (1, set()))

    def test_deafAbort(self) -> None:
        """A target that does not answer an abort is given up."""
        lun = self.lun(ping=0)
        waiting = self.reading(lun)
        other = lun.read(BLOCK, BLOCK)
        self.endpoint.transports[-1].other.pauseProducing()
        waiting.cancel()
        self.clock.advance(ABORT_TIME)
        self.failureResultOf(waiting, CancelledError)
        self.failureResultOf(other, ConnectionEnded)


class LifeTests(InitiatorTests):
    """Signs of life, and events."""

    def test_silence(self) -> None:
        """A target that says nothing is asked, and dropped if it does not answer."""
        session = self.session(ping=5.0)
        self.endpoint.transports[-1].other.pauseProducing()
        for _ in range(4):
            self.clock.advance(5)
        self.assertIsNone(session.connection)
        self.assertIn("ping", str(session.error))

    def test_dripping(self) -> None:
        """So is one that sends bytes, but never what was asked for; it is asked once."""
        session = self.session(ping=5.0)
        transport = self.endpoint.transports[-1]
        transport.other.pauseProducing()
        head = bytes((numbers.NOP_IN, 0x80, 0, 0, 0)) + (65536).to_bytes(3, "big") + bytes(40)
        for data in (head, *(b"x" for _ in range(2 * STALLS + 1))):
            self.assertLess(len(session.connection.callbacks) if session.connection else 0, 2)
            self.clock.advance(5)
            if session.connection is not None:
                transport.protocol.dataReceived(data)
        self.assertIsNone(session.connection)
        self.assertIn("no answer to a ping within 50 seconds", str(session.error))

    def test_alive(self) -> None:
        """One that answers is kept."""
        session = self.session(ping=5.0)
        for _ in range(10):
            self.clock.advance(5)
            self.turn()
        self.assertIsNotNone(session.connection)

    def test_negotiation(self) -> None:
        """To a request for a negotiation an empty Text Request is the answer."""
        session: Session = self.session()
        (core,) = self.factory.connections()
        before = core.pdusIn
        notices.tell(core, numbers.EVENT_NEGOTIATION)
        self.turn()
        self.assertEqual(core.pdusIn, before + 1)
        self.assertEqual(self.now(session.ping(b"here")), b"here")

    def test_textTime(self) -> None:
        """A text request that is not answered does not wait for ever."""
        session: Session = self.session()
        transport: Any = session.connection._close.__self__.transport
        transport.other.pauseProducing()
        asked = session.text([("SendTargets", "All")])
        self.clock.advance(TEXT_TIME - 1)
        self.assertNoResult(asked)
        self.clock.advance(1)
        self.assertIn("not answered within 60 seconds", str(self.failureResultOf(asked, TimeoutError).value))

    def test_manyEvents(self) -> None:
        """However often a target asks for a logout, or a negotiation, it is answered once at a time."""
        session: Session = self.session()
        connection = session.connection
        link = connection.owner
        for _ in range(100):
            link.told(Event(numbers.EVENT_NEGOTIATION, bytes(8), b"", (0, 0, 0)))
        self.assertEqual(len(connection.texts), 1)
        for _ in range(100):
            link.told(Event(numbers.EVENT_LOGOUT_REQUEST, bytes(8), b"", (0, 0, 0)))
        self.assertEqual(len(connection.callbacks), 1)
        self.turn()
        self.assertEqual(self.node.sessions, set())

    def test_events(self) -> None:
        """Events are told; a request to log out is obeyed."""
        session: Session = self.session()
        events: list[Event] = []
        session.told = events.append
        self.assertEqual(self.target.reportEvent(bytes(8), b"sense"), 1)
        (core,) = self.factory.connections()
        notices.requestLogout(core, 5)
        self.turn()
        self.assertEqual([event.code for event in events], [numbers.EVENT_SCSI, numbers.EVENT_LOGOUT_REQUEST])
        self.assertEqual(events[0].sense, b"sense")
        self.assertEqual(self.node.sessions, set())
