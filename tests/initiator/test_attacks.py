"""Targets that answer what they should not: a clear error, little memory, and no hang."""

from __future__ import annotations

from typing import Any

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.auth.chap import MD5, SHA256, STRONGEST_FIRST, Credentials
from iscsi_twisted.errors import LocalError, ReadError, RemoteError
from iscsi_twisted.initiator import MemoryEndpoint, Residual
from iscsi_twisted.initiator.dialling import FIRST_DELAY
from iscsi_twisted.initiator.node import LUNS, collect, numbersOf
from iscsi_twisted.initiator.request import AGAIN, CUTS
from iscsi_twisted.initiator.session import ABORT_TIME
from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.cdb import READ_10
from iscsi_twisted.session.answers import ConnectionEnded, Event, LoginRefused, NoRoom
from iscsi_twisted.wire import numbers, text
from tests.support.attacks import AttackTestCase
from tests.support.scripted import (
    BLOCK,
    Answer,
    Asked,
    ScriptedConnection,
    ScriptedTarget,
)
from tests.support.wire import TARGET


def moved(address: str) -> ScriptedTarget:
    """A target that is elsewhere."""
    return ScriptedTarget(
        {
            numbers.LOGIN_REQUEST: lambda connection, asked: connection.refuse(
                asked, numbers.TARGET_MOVED_TEMPORARILY, ("TargetAddress", address)
            )
        }
    )


class RedirectionTests(AttackTestCase):
    """Targets that say that they are elsewhere."""

    def test_good(self) -> None:
        """The target of these tests does what it should, if it is not told otherwise."""
        lun = self.lun(ScriptedTarget())
        self.now(lun.write(0, bytes(4096)))
        self.assertEqual(self.now(lun.read(0, 8192)), bytes(8192))
        self.assertEqual([one.number for one in self.now(self.initiator.units(lun.session))], [0])
        self.assertEqual(self.now(lun.session.ping(b"here")), b"here")
        self.assertEqual(self.now(lun.session.text([("X-a", "b")])), [])
        self.now(lun.session.logout())

    def test_nowhere(self) -> None:
        """Nobody is sent to anything but a host and a port: not to sockets of this machine, for one."""
        for address in (
            "unix:/run/secrets", "tcp:127.0.0.1:3260", "systemd:domain=INET:index=0", "host:\u00b2",
            "127.0.0.1:99999", "127.0.0.1:0", "127.0.0.1:-1", "a" * 300, "x y:3260", "\x1b[2J:3260", "::1",
            "[::1]:1x", "[::1]1", "[zz]:3260", "[]:3260", ":3260", " ", "host:", "[::1", "192.0.2.1:3260:1",
        ):  # fmt: skip
            error = self.fails(RemoteError, self.login(moved(address)), "where nobody can go")
            self.assertTrue(str(error).isprintable(), address)

    def test_again(self) -> None:
        """Where a target was moved may be out of reach for long; it is followed there each time."""
        there = ScriptedTarget()
        session = self.session(there, lasting=True, patience=1000.0, ping=0)
        back = MemoryEndpoint(self.clock, there)
        back.refuses = True
        session.dialler.endpoint = MemoryEndpoint(self.clock, moved("192.0.2.1:3260,1"))
        session.dialler.elsewhere = lambda address: back
        self.endpoint.transports[-1].abortConnection()
        for _ in range(20):
            self.clock.advance(10 * FIRST_DELAY)
            self.turn()
        back.refuses = False
        for _ in range(40):
            self.clock.advance(1)
            self.turn()
        self.assertEqual(session.logins, 2)


class AlgorithmTests(AttackTestCase):
    """Targets that take no list of CHAP's algorithms."""

    def test_again(self) -> None:
        """They are asked for MD5 alone, unless whoever logs in does not want that; nobody is asked twice."""
        asked: list[str] = []

        def old(connection: ScriptedConnection, request: Asked) -> None:
            said = dict(text.decode(request.data))
            if "CHAP_A" not in said:
                connection.login(request, method="CHAP", flags=0)
                return
            asked.append(said["CHAP_A"])
            status = numbers.AUTHENTICATION_FAILURE if said["CHAP_A"] == "5" else numbers.INITIATOR_ERROR
            connection.refuse(request, status)

        credentials = Credentials("user", b"secret-of-user-1")
        for algorithms, wanted in (
            (STRONGEST_FIRST, ["8,7,6,5", "5"]),
            ((SHA256, MD5), ["7,5", "5"]),
            ((SHA256,), ["7"]),
            ((MD5,), ["5"]),
        ):
            asked.clear()
            target = ScriptedTarget({numbers.LOGIN_REQUEST: old})
            options: dict[str, Any] = {"credentials": credentials, "algorithms": algorithms}
            self.fails(LoginRefused, self.login(target, **options))
            self.assertEqual(asked, wanted)


class ListTests(SynchronousTestCase):
    """Lists of targets and units."""

    def test_unprintable(self) -> None:
        """No target writes to the terminal of whoever looks for it."""
        name = ("TargetName", "iqn.2001-04.com.example:\x1b[2J")
        address = ("TargetAddress", "\x1b]0;x\a:3260,1")
        for pairs in ([name], [("TargetName", TARGET), address]):
            error = self.assertRaises(RemoteError, collect, pairs)
            self.assertTrue(str(error).isprintable())

    def test_messages(self) -> None:
        """What a target says may be in an error, in one line that is not endless."""
        text = str(RemoteError("\x1b[2J\r\n" + "x" * 100000))
        self.assertTrue(text.isprintable() and len(text) < 2000)

    def test_units(self) -> None:
        """Units are listed once, those of unknown kinds are told of, and a list is as long as it says."""
        fields = [b"\0\2", b"\x40\5", b"\0\2", b"\x01\2", b"\0\1\0\1"]
        data = b"".join(one.ljust(8, b"\0") for one in fields)
        with capturedLogs() as logged:
            self.assertEqual(numbersOf(len(data).to_bytes(4, "big") + bytes(4) + data), [2, 5])
        self.assertEqual([event["count"] for event in logged], [2])
        for lying in (b"\xff\xff\xff\xf0" + bytes(12), b"\0\0\0\x10" + bytes(12), b"\0\0\0\x08"):
            self.assertRaises(RemoteError, numbersOf, lying)
        self.assertEqual(numbersOf(b""), [])
        self.assertEqual(numbersOf((1 << 20).to_bytes(4, "big") + bytes(LUNS - 4)), [0])


class LeavingTests(AttackTestCase):
    """Targets that ask for a logout."""

    def ask(self, connection: ScriptedConnection) -> None:
        """Ask for it."""
        connection.say(
            numbers.ASYNC_MESSAGE, itt=numbers.NO_TAG, event=numbers.EVENT_LOGOUT_REQUEST, parameter3=5
        )
        self.turn()

    def test_goesOn(self) -> None:
        """Nothing is sent behind the logout (RFC 7143 11.14); a session that lasts goes on after it."""
        target = ScriptedTarget({numbers.LOGOUT_REQUEST: lambda connection, asked: None})
        lun = self.lun(target, lasting=True, ping=5.0)
        self.ask(target.connections[0])
        self.assertEqual(target.asked[-1], numbers.LOGOUT_REQUEST)
        sent = len(target.asked)
        reading = lun.read(0, BLOCK)
        for request in (lun.session.ping(), lun.session.text([]), lun.session.manage(1)):
            self.fails(LocalError, request)
        self.ask(target.connections[0])
        self.clock.advance(6)
        self.assertEqual(len(target.asked), sent)
        # It is not waited for without end.
        self.clock.advance(ABORT_TIME)
        self.clock.advance(FIRST_DELAY)
        self.turn()
        self.assertEqual(self.successResultOf(reading), bytes(BLOCK))
        self.assertTrue(target.connections[0].lost)
        self.assertEqual(lun.session.logins, 2)

    def test_window(self) -> None:
        """What had no room in the window is not sent behind a logout either, though there is room now."""
        target = ScriptedTarget(
            {numbers.LOGOUT_REQUEST: lambda connection, asked: None}, READ_10=lambda connection, asked: None
        )
        target.delta = 2
        lun = self.lun(target, lasting=True, ping=0)
        reads = [lun.read(0, BLOCK) for _ in range(5)]
        self.turn()
        target.delta = 64
        self.ask(target.connections[0])
        self.assertEqual(target.asked[-1], numbers.LOGOUT_REQUEST)
        target.commands[READ_10.opcode] = target.good()["READ_10"]
        self.clock.advance(ABORT_TIME)
        self.clock.advance(FIRST_DELAY)
        self.turn()
        self.assertEqual([len(self.successResultOf(one)) for one in reads], [BLOCK] * 5)

    def test_rejected(self) -> None:
        """A target that rejects the logout that it has asked for is left all the same."""

        def reject(connection: ScriptedConnection, asked: Asked) -> None:
            connection.say(
                numbers.REJECT, asked.header, itt=numbers.NO_TAG, reason=numbers.REASON_NOT_SUPPORTED
            )

        target = ScriptedTarget({numbers.LOGOUT_REQUEST: reject})
        lun = self.lun(target, ping=0)
        self.ask(target.connections[0])
        self.assertTrue(target.connections[0].lost)
        self.fails(ConnectionEnded, lun.read(0, BLOCK))


class AgainAndAgainTests(AttackTestCase):
    """Targets that do one wrong thing for ever."""

    def test_hangsUp(self) -> None:
        """
        One that lets us in and hangs up at each command: it is not called more than once a second, and the
        command fails at last.
        """

        def hangUp(connection: ScriptedConnection, asked: Asked) -> None:
            assert connection.transport is not None
            connection.transport.loseConnection()

        target = ScriptedTarget(READ_10=hangUp)
        lun = self.lun(target, lasting=True, ping=0)
        reading = lun.read(0, BLOCK)
        began = self.clock.seconds()
        while not reading.called and self.clock.seconds() - began < 100:
            self.clock.advance(0.5)
            self.turn(20)
        self.failureResultOf(reading, ConnectionEnded)
        self.assertEqual(target.asked.count(0x100 | READ_10.opcode), CUTS + 1)
        self.assertGreater(self.clock.seconds() - began, CUTS * 0.8)
        # Other commands are carried out.
        writing = lun.write(0, bytes(BLOCK))
        self.clock.advance(1)
        self.turn()
        self.successResultOf(writing)

    def test_closedWindow(self) -> None:
        """
        A target that takes no command, though it has none to do, is left, and others are not kept for ever
        by one that does so each time.
        """
        target = ScriptedTarget()
        target.delta = 1
        lun = self.lun(target, lasting=True, ping=5.0)
        target.delta = 0
        self.now(lun.read(0, BLOCK))
        reads = [lun.read(0, BLOCK) for _ in range(AGAIN + 9)]
        for _ in range(4):
            self.clock.advance(5)
            self.turn()
        self.assertTrue(target.connections[0].lost)
        self.assertIn(numbers.NOP_OUT, target.asked)
        for _ in range(200):
            self.clock.advance(5)
            self.turn()
        # The first command of a connection needs no leave.
        ends = [one.addErrback(lambda why: why.trap(NoRoom)).result for one in reads]
        self.assertEqual((ends.count(bytes(BLOCK)), ends.count(NoRoom)), (AGAIN, 9))
        target.delta = 64
        reading = lun.read(0, BLOCK)
        for _ in range(5):
            self.clock.advance(5)
            self.turn()
        self.assertEqual(self.successResultOf(reading), bytes(BLOCK))

    def test_slowWindow(self) -> None:
        """One that is only slow, or has a command to do, is waited for."""
        held: list[Asked] = []
        target = ScriptedTarget(READ_10=lambda connection, asked: held.append(asked))
        lun = self.lun(target, ping=5.0)
        target.delta = 1
        self.now(lun.session.ping())
        reads = [lun.read(0, BLOCK) for _ in range(70)]
        for _ in range(20):
            self.clock.advance(5)
            self.turn()
        while held:
            connection, asked = target.connections[0], held.pop(0)
            connection.dataIn(asked, bytes(BLOCK))
            self.clock.advance(4)
            self.turn()
        self.assertEqual([len(self.successResultOf(one)) for one in reads], [BLOCK] * 70)

    def test_events(self) -> None:
        """A million messages do not fill the log."""
        target = ScriptedTarget()
        session = self.session(target)
        with capturedLogs() as logged:
            for _ in range(1000):
                target.connections[0].say(numbers.ASYNC_MESSAGE, itt=numbers.NO_TAG, event=255)
            self.turn()
        self.assertEqual(session.events, 1000)
        self.assertLess(len(logged), 12)

    def test_login(self) -> None:
        """A login that never ends, whatever it is filled with."""

        def loops(connection: ScriptedConnection, asked: Asked) -> None:
            connection.login(asked, flags=asked.flags & 0x0C)

        def parts(connection: ScriptedConnection, asked: Asked) -> None:
            connection.say(
                numbers.LOGIN_RESPONSE, b"X", flags=0x40 | asked.flags & 0x0C, isid=asked.isid, itt=asked.itt
            )

        def back(connection: ScriptedConnection, asked: Asked) -> None:
            connection.login(asked, flags=numbers.FINAL | 4)

        for answer in (loops, parts, back):
            target = ScriptedTarget({numbers.LOGIN_REQUEST: answer})
            self.fails(RemoteError, self.login(target))
            self.assertTrue(target.connections[0].lost)

    def test_text(self) -> None:
        """An answer to SendTargets that never ends."""

        def more(connection: ScriptedConnection, asked: Asked) -> None:
            connection.text(asked, [("TargetName", TARGET)], flags=0, ttt=1)

        target = ScriptedTarget({numbers.TEXT_REQUEST: more})
        endpoint = MemoryEndpoint(self.clock, target)
        self.fails(RemoteError, self.initiator.discover(endpoint), "parts")
        self.assertTrue(target.connections[0].lost)


def solicited(connection: ScriptedConnection, asked: Asked) -> None:
    """A login after which no data come that were not asked for."""
    operational = asked.flags >> 2 & 3 == numbers.OPERATIONAL
    connection.login(asked, *[("ImmediateData", "No"), ("InitialR2T", "Yes")] * operational)


SOLICITED: dict[int, Answer] = {numbers.LOGIN_REQUEST: solicited}


class DataTests(AttackTestCase):
    """Targets that lie about data."""

    def test_neverAsked(self) -> None:
        """A write is not done if the target has not asked for its data, or says that it has used less."""

        def pretends(connection: ScriptedConnection, asked: Asked) -> None:
            connection.status(asked)

        def less(connection: ScriptedConnection, asked: Asked) -> None:
            connection.status(asked, flags=numbers.FINAL | numbers.UNDERFLOW, residual=512)

        def more(connection: ScriptedConnection, asked: Asked) -> None:
            connection.status(asked, flags=numbers.FINAL | numbers.OVERFLOW, residual=512)

        for answer, words in (
            (pretends, "1024 bytes less"), (less, "512 bytes less"), (more, "512 bytes more"),
        ):  # fmt: skip
            lun = self.lun(ScriptedTarget(SOLICITED if answer is pretends else {}, WRITE_10=answer))
            self.fails(Residual, lun.write(0, bytes(1024)), words)
            self.assertEqual(lun.volatile.written, 0)

    def test_short(self) -> None:
        """Nor is a read if less came than was to be read, whatever the target says of it."""
        for answer in (
            lambda connection, asked: connection.dataIn(asked, bytes(100)),
            lambda connection, asked: connection.status(asked),
            lambda connection, asked: connection.dataIn(asked, bytes(100), flags=0x81, residual=0),
        ):
            lun = self.lun(ScriptedTarget(READ_10=answer))
            error = self.fails(Residual, lun.read(0, BLOCK))
            self.assertLess(error.outcome.received, BLOCK)

    def test_twice(self) -> None:
        """A status that comes twice, Data-In behind it, and Data-In that jump or are too many."""

        def twice(connection: ScriptedConnection, asked: Asked) -> None:
            for _ in range(2):
                connection.dataIn(asked, bytes(asked.expectedLength))

        def behind(connection: ScriptedConnection, asked: Asked) -> None:
            connection.dataIn(asked, bytes(asked.expectedLength))
            connection.say(numbers.DATA_IN, bytes(512), counts=False, itt=asked.itt, dataSN=1, flags=0)

        def jumps(connection: ScriptedConnection, asked: Asked) -> None:
            connection.say(numbers.DATA_IN, bytes(256), counts=False, itt=asked.itt, dataSN=7, flags=0)

        def tooMuch(connection: ScriptedConnection, asked: Asked) -> None:
            connection.say(numbers.DATA_IN, bytes(1 << 20), itt=asked.itt, flags=0x81)

        def over(connection: ScriptedConnection, asked: Asked) -> None:
            place = 0xFFFFFF00
            connection.say(numbers.DATA_IN, bytes(512), itt=asked.itt, flags=0x81, bufferOffset=place)

        for answer in (twice, behind, jumps, tooMuch, over):
            target = ScriptedTarget(READ_10=answer)
            lun = self.lun(target, ping=0)
            first, second = lun.read(0, BLOCK), lun.read(0, BLOCK)
            self.turn()
            self.failureResultOf(second, RemoteError)
            first.addErrback(lambda why: why.trap(RemoteError))
            self.assertIsInstance(lun.session.error, RemoteError)
            self.assertTrue(target.connections[0].lost)

    def test_storm(self) -> None:
        """R2Ts that overlap, use one tag again and again, or never end."""

        def storm(connection: ScriptedConnection, asked: Asked) -> None:
            for number in range(1000):
                connection.say(
                    numbers.R2T, counts=False, itt=asked.itt, ttt=1, r2tSN=number, bufferOffset=0,
                    desiredLength=512,
                )  # fmt: skip

        target = ScriptedTarget(SOLICITED, WRITE_10=storm)
        lun = self.lun(target)
        self.fails(RemoteError, lun.write(0, bytes(4096)), "R2T")
        self.assertLessEqual(target.asked.count(numbers.DATA_OUT), 8)

    def test_window(self) -> None:
        """A window that moves back, or is as wide as can be, hurts nobody."""
        target = ScriptedTarget()
        lun = self.lun(target)
        for delta in (0x7FFFFFFF, 1 << 31, 0, -5, -(1 << 30), 64):
            target.delta = delta
            self.assertEqual(self.now(lun.read(0, BLOCK)), bytes(BLOCK))

    def test_pings(self) -> None:
        """A flood of NOP-Ins is answered, and stops nobody."""
        target = ScriptedTarget()
        lun = self.lun(target, ping=0)
        connection = target.connections[0]
        for number in range(5000):
            connection.say(numbers.NOP_IN, counts=False, itt=numbers.NO_TAG, ttt=number % 7)
        self.assertEqual(self.now(lun.read(0, BLOCK)), bytes(BLOCK))
        self.assertEqual(target.asked.count(numbers.NOP_OUT), 5000)

    def test_sense(self) -> None:
        """Sense data without end, or of an event, are kept as far as they came."""
        target = ScriptedTarget(
            READ_10=lambda connection, asked: connection.status(
                asked, codes.CHECK_CONDITION, b"\xff\xfa\x72\x03\x11\0\0\0\0\xff" + b"\xff" * 65528
            )
        )
        lun = self.lun(target)
        self.fails(ReadError, lun.read(0, BLOCK), "MEDIUM ERROR")
        events: list[Event] = []
        lun.session.told = events.append
        for data in (b"\xff\xff" + bytes(1 << 20 >> 1), b"\xff\xff", b"\xff", b""):
            target.connections[0].say(numbers.ASYNC_MESSAGE, data, itt=numbers.NO_TAG, event=0)
        self.turn()
        self.assertEqual([len(event.sense) for event in events], [65535, 0, 0, 0])
