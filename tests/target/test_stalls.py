"""Connections through TLS, or behind a proxy, that stop before they have said who they are."""

from __future__ import annotations

import contextlib
from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.config.netmasks import Netmask
from iscsi_twisted.session.limits import Limits
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.target import TargetFactory
from iscsi_twisted.target.protocol import LINGER
from iscsi_twisted.target.proxied import ProxiedFactory
from iscsi_twisted.target.secure import serverEndpoint
from iscsi_twisted.tls.protocol import GuardedFactory
from tests.support.certificates import Authority
from tests.support.served import HOST, PEER
from tests.support.wire import makeNode, makeTarget


class TCPTransport(StringTransport):
    """One in memory that has the words of TCP."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing is ever delayed here."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Nothing goes away by itself here."""


class StallCase(SynchronousTestCase):
    """A target that gives a login ten seconds, and two logins at a time."""

    def setUp(self) -> None:
        self.clock = Clock()
        limits = Limits(loginTime=10, halfOpen=2)
        self.node, self.diary = makeNode(makeTarget(MemoryDevice(1 << 20)), limits=limits)
        self.inner = TargetFactory(self.node, self.clock)
        self.outer: Any = self.wrapped(self.inner)

    def wrapped(self, factory: TargetFactory) -> Any:
        """What the transport gets its protocols from."""
        raise NotImplementedError

    def connect(self, *pieces: bytes) -> tuple[Any, StringTransport]:
        """Somebody connects, and says something."""
        made, transport = self.outer.buildProtocol(PEER), TCPTransport(HOST, PEER, lenient=True)
        made.makeConnection(transport)
        for piece in pieces:
            made.dataReceived(piece)
        return made, transport

    def tick(self, seconds: float) -> None:
        """Time passes, and is noticed."""
        self.clock.advance(seconds)
        for core in self.inner.connections():
            core.tick(self.clock.seconds())

    def assertDropped(self, *pieces: bytes) -> None:
        """Whoever says no more than this is counted at once, and dropped when the time is over."""
        made, transport = self.connect(*pieces)
        self.assertEqual((len(self.node.unfinished), self.node.connections), (1, 1))
        self.tick(9)
        self.assertFalse(transport.disconnecting)
        self.tick(2)
        self.clock.advance(LINGER)
        self.assertTrue(transport.disconnecting)
        made.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((len(self.node.unfinished), self.node.connections), (0, 0))
        self.assertEqual(self.inner.protocols, set())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def assertOldestGoes(self, *pieces: bytes) -> None:
        """Of too many of these the oldest is dropped."""
        lines = [self.connect(*pieces) for _ in range(3)]
        self.clock.advance(LINGER)
        self.assertEqual([transport.disconnecting for _, transport in lines], [True, False, False])
        for made, _ in lines:
            made.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.node.connections, 0)


class TLSTests(StallCase):
    """At a portal that speaks TLS."""

    def wrapped(self, factory: TargetFactory) -> Any:
        authority = Authority(self.mktemp())
        pair = authority.issue("localhost", "localhost")
        self.tls = serverEndpoint(None, "0", cert=pair[0], key=pair[1]).tls
        return GuardedFactory(self.tls, False, factory, self.clock)  # type: ignore[arg-type]

    def hello(self) -> tuple[SSL.Connection, bytes]:
        """The other end, and what it says first."""
        other = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
        other.set_connect_state()
        with contextlib.suppress(SSL.WantReadError):
            other.do_handshake()
        return other, other.bio_read(65536)

    def test_silent(self) -> None:
        """Without a word."""
        self.assertDropped()
        self.assertOldestGoes()

    def test_half(self) -> None:
        """In the midst of the first message, in one piece or in many."""
        hello = self.hello()[1]
        self.assertDropped(hello[: len(hello) // 2])
        self.assertDropped(*(bytes((byte,)) for byte in hello[:-1]))
        self.assertOldestGoes(hello[:40])

    def test_unanswered(self) -> None:
        """With the target's answer never taken up."""
        self.assertDropped(self.hello()[1])

    def test_complete(self) -> None:
        """With TLS agreed upon, and nothing said through it."""
        other, hello = self.hello()
        made, transport = self.connect(hello)
        other.bio_write(transport.value())
        other.do_handshake()
        made.dataReceived(other.bio_read(65536))
        self.tick(9)
        self.assertFalse(transport.disconnecting)
        self.tick(2)
        self.clock.advance(LINGER)
        self.assertTrue(transport.disconnecting)
        made.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((self.node.connections, self.clock.getDelayedCalls()), (0, []))

    def test_record(self) -> None:
        """A record that promises more than there may be, or is none at all, ends the connection at once."""
        for said in (b"\x16\x03\x01\xff\xff" + bytes(100), b"\x17\x03\x03\x00\x10" + bytes(16), bytes(2000)):
            made, transport = self.connect(said)
            self.assertTrue(transport.disconnecting, said[:5])
            made.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.node.connections, 0)
        self.assertEqual([each[0] for each in self.diary.entries].count("handshakeFailed"), 3)


class ProxyTests(StallCase):
    """At a portal behind a proxy."""

    def wrapped(self, factory: TargetFactory) -> Any:
        return ProxiedFactory(factory, Netmask("any"))

    def test_stalled(self) -> None:
        """Without a header, with half of one, and with one alone."""
        line = b"PROXY TCP4 192.0.2.8 198.51.100.1 40000 3260\r\n"
        for said in (b"", b"PROXY TCP4 192.", line, line + bytes(20)):
            self.assertDropped(*filter(None, (said,)))
        self.assertOldestGoes(b"PROXY ")
