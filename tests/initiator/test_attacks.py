"""Targets that answer what they should not: a clear error, little memory, and no hang."""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import RemoteError
from iscsi_twisted.initiator import LUN, Initiator, MemoryEndpoint, Session
from iscsi_twisted.initiator.node import LUNS, collect, numbersOf
from iscsi_twisted.initiator.session import FIRST_DELAY
from iscsi_twisted.wire import numbers
from tests.support.scripted import ScriptedTarget
from tests.support.wire import TARGET

T = TypeVar("T")


class AttackTestCase(SynchronousTestCase):
    """
    An initiator, and a target that a test makes.

    @ivar clock: when it advances, what was sent arrives.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.initiator = Initiator(self.clock, "iqn.2001-04.com.example:initiator")

    def turn(self, turns: int = 60) -> None:
        """Let what was sent arrive, and be answered."""
        for _ in range(turns):
            self.clock.advance(0)

    def login(self, target: ScriptedTarget, **options: Any) -> Deferred[Session]:
        """A login at a target."""
        self.endpoint = MemoryEndpoint(self.clock, target)
        made = Deferred.fromCoroutine(self.initiator.login(self.endpoint, TARGET, **options))
        self.turn()
        return made

    def session(self, target: ScriptedTarget, **options: Any) -> Session:
        """A session with it."""
        return self.successResultOf(self.login(target, **options))

    def lun(self, target: ScriptedTarget, **options: Any) -> LUN:
        """Its disk, open."""
        lun = LUN(self.session(target, **options))
        self.now(lun.open())
        return lun

    def now(self, waiting: Any) -> Any:
        """The result of what needs no time to pass."""
        deferred = waiting if isinstance(waiting, Deferred) else Deferred.fromCoroutine(waiting)
        self.turn()
        return self.successResultOf(deferred)

    def fails(self, kind: type[BaseException], waiting: Any, words: str = "") -> Any:
        """What it fails with, which says these words."""
        deferred = waiting if isinstance(waiting, Deferred) else Deferred.fromCoroutine(waiting)
        self.turn()
        error = self.failureResultOf(deferred, kind).value
        self.assertIn(words, str(error))
        return error


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
        session._endpoint = MemoryEndpoint(self.clock, moved("192.0.2.1:3260,1"))
        session._elsewhere = lambda address: back
        self.endpoint.transports[-1].abortConnection()
        for _ in range(20):
            self.clock.advance(10 * FIRST_DELAY)
            self.turn()
        back.refuses = False
        for _ in range(40):
            self.clock.advance(1)
            self.turn()
        self.assertEqual(session.logins, 2)


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
