# -*- test-case-name: tests.target.test_protocol -*-
"""The protocol between transport and core, over transports in memory."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from iscsi_twisted.session.doors import Peer
from iscsi_twisted.session.limits import NO_CHANGES, Limits
from iscsi_twisted.session.portals import Portal
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.target import TargetFactory
from iscsi_twisted.target.protocol import LINGER, peer
from iscsi_twisted.wire import numbers
from tests.support import pdus
from tests.support.served import HOST, PEER, MemoryLine
from tests.support.wire import TARGET, Nobody, makeNode, makeTarget, read10


class PeerTests(SynchronousTestCase):
    """Tests of what the core is told of both ends."""

    def test_ipv4(self) -> None:
        """An IPv4 peer is known by its address, and our end by host and port."""
        self.assertEqual(peer(PEER, HOST), Peer("192.0.2.7", "192.0.2.7", "198.51.100.1:3260"))

    def test_ipv6(self) -> None:
        """A zone does not belong to an IPv6 address, and our end gets brackets."""
        remote = IPv6Address("TCP", "fe80::1%eth0", 5, 0, 2)
        local = IPv6Address("TCP", "fe80::2%eth0", 3260, 0, 2)
        self.assertEqual(peer(remote, local), Peer("fe80::1", "fe80::1", "[fe80::2]:3260"))

    def test_mapped(self) -> None:
        """IPv4 over an IPv6 socket is IPv4, at both ends."""
        remote = IPv6Address("TCP", "::ffff:192.0.2.7", 5)
        local = IPv6Address("TCP", "::FFFF:198.51.100.1", 3260)
        self.assertEqual(peer(remote, local), Peer("192.0.2.7", "192.0.2.7", "198.51.100.1:3260"))

    def test_odd(self) -> None:
        """What a wrapper of somebody else's takes for an address has no control characters in a log."""
        found = peer(IPv4Address("TCP", "192.0.2.7\n> \x1b[2J", 5), HOST)
        self.assertEqual(found.text, "192.0.2.7?> ?[2J")

    def test_unix(self) -> None:
        """A UNIX socket has no IP address; its name in a log has no control characters."""
        remote = UNIXAddress(b"/run/a\nb")
        found = peer(remote, UNIXAddress(b"/run/iscsi"))
        self.assertEqual((found.address, found.local), (None, None))
        self.assertTrue(found.text.isprintable())


class ConnectionTests(SynchronousTestCase):
    """Tests of the life of a connection."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.node, self.diary = makeNode(makeTarget(MemoryDevice(1 << 20)))
        self.factory = TargetFactory(self.node, self.clock)

    def test_factory(self) -> None:
        """The factory is one that any endpoint takes."""
        verifyObject(IProtocolFactory, self.factory)

    def test_session(self) -> None:
        """A login, a ping and a logout over a transport in memory; at the end the transport is closed."""
        line = MemoryLine(self.factory)
        line.login()
        (pong,) = line.say(pdus.nopOut(b"hello"))
        (goodbye,) = line.say(pdus.logoutRequest())
        self.assertEqual((pong["data"], goodbye["opcode"]), (b"hello", numbers.LOGOUT_RESPONSE))
        self.assertTrue(line.transport.disconnecting)

    def test_nothingStays(self) -> None:
        """A peer that connects and goes leaves no connection, no timer and no word."""
        line = MemoryLine(self.factory)
        self.assertEqual(len(self.factory.connections()), 1)
        line.lose()
        self.assertEqual(self.factory.connections(), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.node.sessions), 0)

    def test_crowded(self) -> None:
        """Where all connections that there may be have sessions, one more is cut."""
        node, diary = makeNode(makeTarget(MemoryDevice(512)), limits=Limits(connections=1))
        factory = TargetFactory(node, self.clock)
        first = MemoryLine(factory)
        first.login()
        diary.entries.clear()
        second = MemoryLine(factory)
        self.assertTrue(second.transport.disconnected or second.transport.aborting)  # type: ignore[attr-defined]
        self.assertEqual((diary.entries, node.connections), ([("crowded", "192.0.2.7")], 1))
        first.lose()
        self.assertEqual(node.connections, 0)
        self.assertEqual(MemoryLine(factory).login()["status"], 0)

    def test_turnedAway(self) -> None:
        """A peer that no target admits is cut off without a word, and takes nobody's place."""
        node, diary = makeNode(makeTarget(MemoryDevice(512), policy=Nobody("192.0.2.8")))
        factory = TargetFactory(node, self.clock)
        line = MemoryLine(factory)
        self.assertTrue(line.transport.disconnected)
        self.assertEqual(line.transport.value(), b"")
        self.assertEqual((diary.entries, dict(node.unfinished)), ([("turnedAway", "192.0.2.7")], {}))
        line.lose()
        self.assertEqual((factory.connections(), self.clock.getDelayedCalls()), ([], []))

    def test_garbage(self) -> None:
        """Bytes that are no PDU end the connection; nothing stays."""
        line = MemoryLine(self.factory)
        line.protocol.dataReceived(b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n" * 9)
        self.assertTrue(line.transport.disconnecting)
        line.lose()
        self.assertEqual(self.factory.connections(), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual([entry[0] for entry in self.diary.entries], ["lost"])

    def test_lingering(self) -> None:
        """A peer that does not take what is left for it is cut after a while."""
        line = MemoryLine(self.factory)
        line.login()
        line.say(pdus.logoutRequest())
        self.clock.advance(LINGER - 1)
        self.assertFalse(line.transport.disconnected)
        self.clock.advance(1)
        self.assertTrue(line.transport.disconnected)

    def test_lostInTime(self) -> None:
        """A connection that closed by itself is not cut later."""
        line = MemoryLine(self.factory)
        line.login()
        line.say(pdus.logoutRequest())
        line.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closedOnceLost(self) -> None:
        """What a core decides after its transport is gone sets no timer."""
        line = MemoryLine(self.factory)
        line.login()
        line.lose()
        assert line.protocol.core is not None
        line.protocol.core.abandon("too late")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_netmask(self) -> None:
        """The policy of a target is asked about the address that the transport tells."""
        self.node.add(makeTarget(MemoryDevice(512), name="iqn.2001-04.com.example:closed", policy=Nobody()))
        self.assertEqual(MemoryLine(self.factory).login("iqn.2001-04.com.example:closed")["status"], 0x0202)
        mapped = makeTarget(MemoryDevice(512), name="iqn.2001-04.com.example:one", policy=Nobody("192.0.2.7"))
        self.node.add(mapped)
        line = MemoryLine(self.factory, IPv6Address("TCP", "::ffff:192.0.2.7", 5))
        self.assertEqual(line.login(mapped.name)["status"], 0)

    def test_address(self) -> None:
        """Discovery tells the address that the initiator came to, and the portal group's tag."""
        self.factory.portal = Portal(7)
        line = MemoryLine(self.factory, host=IPv6Address("TCP", "2001:db8::1", 3260))
        line.login(None)
        (answer,) = line.say(pdus.textRequest({"SendTargets": "All"}))
        self.assertEqual(
            answer["data"], f"TargetName={TARGET}\0TargetAddress=[2001:db8::1]:3260,7\0".encode()
        )

    def test_loginTime(self) -> None:
        """A connection that does not log in in time is closed by the service's clock."""
        line = MemoryLine(self.factory)
        (core,) = self.factory.connections()
        core.tick(self.clock.seconds() + NO_CHANGES.loginTime)
        self.assertFalse(line.transport.disconnecting)
        core.tick(self.clock.seconds() + NO_CHANGES.loginTime + 1)
        self.assertTrue(line.transport.disconnecting)

    def test_producer(self) -> None:
        """While the transport's queue is full no command begins; afterwards it does."""
        line = MemoryLine(self.factory)
        line.login()
        line.say(pdus.scsiCommand(bytes(6), itt=1, cmdSN=1))  # takes the unit attention
        self.assertIs(line.transport.producer, line.protocol)
        line.protocol.pauseProducing()
        self.assertEqual(line.say(pdus.scsiCommand(read10(0, 1), itt=2, cmdSN=2, read=512)), [])
        line.protocol.resumeProducing()
        self.assertEqual([pdu["opcode"] for pdu in line.take()], [numbers.DATA_IN])

    def test_idle(self) -> None:
        """The factory tells when its last connection is gone, and at once if there is none."""
        self.successResultOf(self.factory.whenIdle())
        lines = [MemoryLine(self.factory), MemoryLine(self.factory, IPv4Address("TCP", "192.0.2.8", 1))]
        waiting = self.factory.whenIdle()
        lines[0].lose()
        self.assertNoResult(waiting)
        lines[1].lose()
        self.successResultOf(waiting)

    def test_abort(self) -> None:
        """All connections of a factory can be cut."""
        lines = [MemoryLine(self.factory), MemoryLine(self.factory)]
        self.factory.abort()
        self.assertEqual([line.transport.disconnected for line in lines], [True, True])
