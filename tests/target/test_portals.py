"""Portals: endpoint descriptions, the vectored transport under a real reactor, the allocator."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXServerEndpoint, connectProtocol
from twisted.internet.error import CannotListenError, ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from iscsi_twisted.errors import ConfigurationError
from iscsi_twisted.target.transport import BACKLOG, VectorEndpoint, VectorPort, portal
from iscsi_twisted.transport import VectorServer
from tests.support.lines import Chunks, Filler, Recorder


class PortalTests(SynchronousTestCase):
    """Endpoint descriptions."""

    def assertFault(self, description: str, *words: str) -> None:
        error = self.assertRaises(ConfigurationError, portal, MemoryReactorClock(), description)
        text = str(error)
        self.assertNotIn("\n", text)
        for word in (repr(description), *words):
            self.assertIn(word, text)

    def test_tcp(self) -> None:
        """Descriptions of TCP ports give vectored endpoints with what they say."""
        for description, port, interface, backlog in [
            ("tcp:3260", 3260, "", BACKLOG),
            ("tcp4:3260", 3260, "", BACKLOG),
            ("tcp6:3260", 3260, "::", BACKLOG),
            ("tcp:3260:interface=127.0.0.1", 3260, "127.0.0.1", BACKLOG),
            ("tcp:port=3260:backlog=50", 3260, "", 50),
            ("tcp:3260:127.0.0.1:7", 3260, "127.0.0.1", 7),
            (r"tcp:0:interface=\:\:1", 0, "::1", BACKLOG),
            (r"tcp6:0:interface=\:\:1:backlog=9", 0, "::1", 9),
        ]:
            made = portal(MemoryReactorClock(), description)
            self.assertIsInstance(made, VectorEndpoint)
            self.assertEqual((made.port, made.interface, made.backlog), (port, interface, backlog))

    def test_others(self) -> None:
        """Other kinds are Twisted's own."""
        self.assertIsInstance(portal(MemoryReactorClock(), "unix:/nonexistent/socket"), UNIXServerEndpoint)

    def test_noSystemd(self) -> None:
        """A socket that systemd has not passed is said to be missing."""
        self.assertFault("systemd:domain=INET:index=7", "systemd has passed no such socket")
        self.assertFault("systemd:domain=INET:name=iscsi", "systemd has passed no such socket")

    def test_badTCP(self) -> None:
        """A bad TCP description says what it should look like."""
        for description in ("tcp", "tcp:", "tcp:http", "tcp:1:speed=2", "tcp6:1:interface=::1", "tcp:1\\"):
            self.assertFault(description, f"{description.partition(':')[0]}:PORT")
        self.assertFault("tcp:65536", "0 to 65535")
        self.assertFault("tcp:1:backlog=0", "backlog=")
        self.assertFault("tcp6:1:interface=127.0.0.1", "family")
        self.assertFault(r"tcp4:1:interface=\:\:1", "family")

    def test_badOthers(self) -> None:
        """A description of no known kind gets examples of good ones, others their own fault."""
        for description in ("", "3260", "127.0.0.1:3260", "bogus:1"):
            self.assertFault(description, "tcp:3260:interface=127.0.0.1")
        self.assertFault("unix", "'unix'")
        self.assertFault("ssl:3260:privateKey=/nonexistent/key", "/nonexistent/key")

    def test_withoutSockets(self) -> None:
        """On a reactor without descriptors the reactor's own transport is used."""
        clock, factory = MemoryReactorClock(), Factory.forProtocol(Recorder)
        VectorEndpoint(clock, 3260, "127.0.0.1", 5).listen(factory)
        self.assertEqual(clock.tcpServers, [(3260, factory, 5, "127.0.0.1")])

    def test_representation(self) -> None:
        """An endpoint names its port and address."""
        self.assertEqual(repr(VectorEndpoint(None, 7)), "<VectorEndpoint port 7 of 0.0.0.0>")


class LoopbackTests(TestCase):
    """The transport under the real reactor."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor = reactor

    async def connect(
        self, server: Recorder, interface: str = "127.0.0.1"
    ) -> tuple[VectorPort, Recorder, VectorServer]:
        """Listen, and connect to it: the port, the client, and the server's transport."""
        made: Deferred[Recorder] = Deferred()
        factory = Factory()

        def build(address: object) -> Recorder:
            made.callback(server)
            return server

        factory.buildProtocol = build  # type: ignore[assignment, method-assign]
        port = await VectorEndpoint(self.reactor, 0, interface).listen(factory)
        self.addCleanup(port.stopListening)
        client = Recorder()
        await connectProtocol(TCP4ClientEndpoint(self.reactor, interface, port.getHost().port), client)
        await made
        self.addCleanup(self._end, [client, server])
        return port, client, server.transport

    def _end(self, protocols: list[Recorder]) -> Deferred[Any]:
        for protocol in protocols:
            if protocol.lost is None:
                protocol.transport.loseConnection()
        return gatherResults([protocol.ended for protocol in protocols])

    async def test_options(self) -> None:
        """A connection sends small PDUs at once and finds out when its peer is gone."""
        _, _, made = await self.connect(Recorder())
        if made.inherits:
            self.assertTrue(made.getTcpNoDelay() and made.getTcpKeepAlive())

    async def test_large(self) -> None:
        """Many megabytes in lists arrive in order, though loseConnection came before they were sent."""
        server = Recorder()
        _, client, made = await self.connect(server)
        made.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 131072)
        pieces = [os.urandom(size) for size in (48, 262144) * 40]
        made.writeSequence(pieces[:40])
        made.writeSequence(pieces[40:])
        self.assertGreater(made._queued, 0)
        made.loseConnection()
        await client.ended
        self.assertEqual(client.received, b"".join(pieces))
        server.lost.trap(ConnectionDone)

    async def test_producer(self) -> None:
        """A streaming producer that writes until it is paused is paused and resumed, and all arrives."""
        server = Recorder()
        _, client, made = await self.connect(server)
        made.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 131072)
        producer = Chunks(made, 100)
        made.registerProducer(producer, True)
        producer.resumeProducing()
        await client.ended
        self.assertEqual(client.received, b"".join(b"%06d" % n * 20000 for n in range(100)))
        self.assertGreater(producer.pauses, 1)

    async def test_reset(self) -> None:
        """After a reset the protocol is told once, by the reactor, and never within a write."""
        server = Recorder()
        _, client, made = await self.connect(server)
        client.transport.abortConnection()
        await client.ended
        made.write(b"x" * 100)
        made.write(b"y" * 100)
        self.assertIsNone(server.lost)
        await server.ended
        server.lost.trap(ConnectionLost)

    async def test_fill(self) -> None:
        """Payloads sent by a real client are received in place and the rest by dataReceived."""
        server = Filler(3_000_000, 10)
        _, client, _ = await self.connect(server)
        data = os.urandom(3_000_020)
        client.transport.write(data)
        client.transport.loseConnection()
        await server.ended
        self.assertEqual(server.received, data)

    async def test_addresses(self) -> None:
        """A connection knows both its addresses, and the port its own."""
        port, client, made = await self.connect(Recorder())
        self.assertEqual(made.getHost(), port.getHost())
        self.assertEqual(made.getPeer(), client.transport.getHost())

    async def test_ipv6Only(self) -> None:
        """An IPv6 port leaves IPv4 to another port of the same number."""
        port = await VectorEndpoint(self.reactor, 0, "::1").listen(Factory.forProtocol(Recorder))
        self.addCleanup(port.stopListening)
        self.assertEqual(port.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY), 1)

    async def test_busyPort(self) -> None:
        """A port that is taken fails with CannotListenError."""
        port, _, _ = await self.connect(Recorder())
        with self.assertRaises(CannotListenError):
            await VectorEndpoint(self.reactor, port.getHost().port, "127.0.0.1").listen(Factory())
