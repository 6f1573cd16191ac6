"""The vectored transport: order, partial sends, producers, ends of connections, receives in place."""

from __future__ import annotations

import os
import select
import socket
import struct
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import main
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXServerEndpoint, connectProtocol
from twisted.internet.error import CannotListenError, ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, ITCPTransport, ITransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from iscsi_twisted.errors import ConfigurationError
from iscsi_twisted.target import transport
from iscsi_twisted.target.transport import BACKLOG, VectorEndpoint, VectorPort, VectorServer, portal


class Recorder(Protocol):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.lost: Failure | None = None
        self.ended: Deferred[Recorder] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = Failure(main.CONNECTION_DONE)) -> None:  # noqa: B008
        self.lost = reason
        self.ended.callback(self)


@implementer(IHalfCloseableProtocol)
class HalfCloser(Recorder):
    """Is told of half closes too."""

    readEnded = writeEnded = False

    def readConnectionLost(self) -> None:
        self.readEnded = True

    def writeConnectionLost(self) -> None:
        self.writeEnded = True


class Filler(Recorder):
    """Receives into views that it hands out: a queue of them, then C{dataReceived}."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.places = [memoryview(bytearray(size)) for size in sizes]
        self.counts: list[int] = []
        self.done = 0

    def wanted(self) -> memoryview | None:
        return self.places[0][self.done :] if self.places else None

    def filled(self, count: int) -> None:
        self.counts.append(count)
        self.done += count
        if self.done == len(self.places[0]):
            self.received += self.places.pop(0)
            self.done = 0


class Producer:
    """A producer that counts what it is told."""

    paused = resumed = stopped = 0

    def pauseProducing(self) -> None:
        self.paused += 1

    def resumeProducing(self) -> None:
        self.resumed += 1

    def stopProducing(self) -> None:
        self.stopped += 1


class Narrow(socket.socket):
    """
    A socket that takes no more than it is allowed to in one call, and shows what it was given.

    @ivar allowances: bytes for the calls to come; 0 is a full socket.  When used up, all is taken.
    """

    def __init__(self, family: int, kind: int, fileno: int) -> None:
        super().__init__(family, kind, fileno=fileno)
        self.allowances: list[int] = []
        self.calls: list[list[Any]] = []

    def sendmsg(self, buffers: Any, *arguments: Any) -> int:  # type: ignore[override]
        self.calls.append(list(buffers))
        if not self.allowances:
            return super().sendmsg(buffers)
        allowed = self.allowances.pop(0)
        if not allowed:
            raise BlockingIOError(11, "full")
        return super().send(b"".join(buffers)[:allowed])


class Line:
    """A vectored transport on one end of a socket pair, under a reactor that the test turns."""

    def __init__(self, test: SynchronousTestCase, protocol: Recorder | None = None, sndbuf: int = 0) -> None:
        near, self.far = socket.socketpair()
        if sndbuf:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)
        self.near = Narrow(near.family, near.type, near.detach())
        self.far.setblocking(False)
        self.reactor = MemoryReactorClock()
        self.protocol = protocol or Recorder()
        self.transport = VectorServer(self.near, self.protocol, ("127.0.0.1", 9), None, 0, self.reactor)
        test.addCleanup(self.far.close)
        test.addCleanup(self.near.close)
        self.protocol.makeConnection(self.transport)

    @property
    def writing(self) -> bool:
        return self.transport in self.reactor.getWriters()

    def arrived(self) -> bytes:
        """All that the far end can receive now."""
        data = bytearray()
        while True:
            try:
                piece = self.far.recv(65536)
            except BlockingIOError:
                return bytes(data)
            if not piece:
                return bytes(data)
            data += piece

    def drain(self) -> bytes:
        """Turn the reactor while the transport wants to write, and receive."""
        data = bytearray(self.arrived())
        while self.writing:
            self.end(self.transport.doWrite())
            data += self.arrived()
        return bytes(data)

    def end(self, why: Any) -> None:
        """Do as a reactor does with what doRead or doWrite returned."""
        if why is not None:
            self.transport.connectionLost(Failure(why))


def resetPair(test: SynchronousTestCase) -> tuple[Narrow, Recorder, VectorServer, MemoryReactorClock]:
    """A transport on TCP whose peer has just reset the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        accepted, address = listener.accept()
    near = Narrow(accepted.family, accepted.type, accepted.detach())
    test.addCleanup(near.close)
    protocol, clock = Recorder(), MemoryReactorClock()
    made = VectorServer(near, protocol, address, None, 0, clock)
    protocol.makeConnection(made)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    poll = select.poll()
    poll.register(near, 0)
    poll.poll(5000)
    return near, protocol, made, clock


class SendingTests(SynchronousTestCase):
    """What is written arrives, in order, once."""

    def test_atOnce(self) -> None:
        """A list of buffers goes out in one call, before the reactor turns."""
        line = Line(self)
        line.transport.writeSequence([b"head", bytearray(b"er"), memoryview(b"data")])
        self.assertEqual(line.arrived(), b"headerdata")
        self.assertEqual(len(line.near.calls), 1)
        self.assertFalse(line.writing)

    def test_write(self) -> None:
        """One buffer is sent as a list of one is."""
        line = Line(self)
        line.transport.write(b"alone")
        self.assertEqual(line.arrived(), b"alone")
        self.assertFalse(line.writing)

    def test_anyIterable(self) -> None:
        """A generator of buffers will do, as it does for Twisted's own transports."""
        line = Line(self)
        line.transport.writeSequence(piece for piece in (b"a", b"b"))
        self.assertEqual(line.arrived(), b"ab")

    def test_nothing(self) -> None:
        """Empty lists and empty buffers leave nothing queued."""
        line = Line(self)
        line.transport.writeSequence([])
        line.near.allowances = [0]
        line.transport.writeSequence([b"", b""])
        self.assertFalse(line.writing)
        self.assertEqual(line.arrived(), b"")

    def test_everyBoundary(self) -> None:
        """Wherever the first call stops, the rest follows unchanged."""
        pieces = [b"abc", b"", b"d", bytearray(b"efgh"), memoryview(b"ij")]
        whole = b"".join(pieces)
        for stop in range(len(whole) + 1):
            line = Line(self)
            line.near.allowances = [stop]
            line.transport.writeSequence(pieces)
            self.assertEqual(line.arrived(), whole[:stop])
            self.assertEqual(line.writing, stop < len(whole))
            self.assertEqual(line.drain(), whole[stop:])

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(st.lists(st.binary(max_size=20), max_size=6), max_size=6),
        st.lists(st.integers(0, 30), max_size=20),
    )
    def test_anyPartialSends(self, writes: list[list[bytes]], allowances: list[int]) -> None:
        """Whatever the socket takes of each call, the stream is the buffers in order."""
        line = Line(self)
        line.near.allowances = allowances
        for pieces in writes:
            line.transport.writeSequence(pieces)
        self.assertEqual(line.drain(), b"".join(map(b"".join, writes)))
        self.assertEqual(line.transport._queued, 0)
        line.near.close()
        line.far.close()

    def test_smallSocketBuffer(self) -> None:
        """A real socket with a small send buffer takes a large list piece by piece."""
        line = Line(self, sndbuf=4096)
        pieces = [os.urandom(size) for size in (1, 5000, 48, 70000, 48, 300000)]
        line.transport.writeSequence(pieces)
        self.assertTrue(line.writing)
        self.assertEqual(line.drain(), b"".join(pieces))

    def test_neverCopied(self) -> None:
        """After a partial send the rest of a payload is sent from the payload itself."""
        line = Line(self)
        line.near.allowances = [10, 100]
        payload = bytes(100000)
        line.transport.writeSequence([b"x" * 48, payload])
        line.drain()
        second, third = line.near.calls[1:]
        self.assertEqual([len(buffer) for buffer in second], [38, 100000])
        self.assertIs(second[1].obj, payload)
        self.assertEqual([len(buffer) for buffer in third], [99938])
        self.assertIs(third[0].obj, payload)

    def test_behindTheQueue(self) -> None:
        """While something is queued nothing overtakes it."""
        line = Line(self)
        line.near.allowances = [2]
        line.transport.write(b"first")
        line.transport.write(b"second")
        line.transport.writeSequence([b"third"])
        self.assertEqual(line.arrived(), b"fi")
        self.assertEqual(line.drain(), b"rstsecondthird")

    def test_moreBuffersThanOneCallTakes(self) -> None:
        """Lists longer than IOV_MAX go out in several calls."""
        line = Line(self)
        pieces = [b"%d," % number for number in range(3 * transport.IOV_MAX + 5)]
        line.transport.writeSequence(pieces)
        self.assertEqual(line.drain(), b"".join(pieces))
        self.assertEqual([len(call) for call in line.near.calls], [1024, 1024, 1024, 5])

    def test_boundOfOneCall(self) -> None:
        """No more buffers than the socket can take are put into one call."""
        line = Line(self)
        line.near.allowances = [0]
        line.transport.writeSequence([bytes(VectorServer.SEND_LIMIT // 2)] * 5)
        line.end(line.transport.doWrite())
        self.assertEqual(len(line.near.calls[1]), 2)

    def test_notABuffer(self) -> None:
        """What is not a buffer raises TypeError, whether or not something is queued."""
        line = Line(self)
        self.assertRaises(TypeError, line.transport.write, "text")
        line.near.allowances = [1]
        line.transport.write(b"queued")
        self.assertRaises(TypeError, line.transport.writeSequence, [b"good", "bad"])
        self.assertEqual(line.drain(), b"queued")

    def test_listBelongsToTheCaller(self) -> None:
        """The caller may clear its list once it has been written."""
        line = Line(self)
        line.near.allowances = [0]
        pieces = [b"one", b"two"]
        line.transport.writeSequence(pieces)
        pieces.clear()
        self.assertEqual(line.drain(), b"onetwo")


class ProducerTests(SynchronousTestCase):
    """The transport is a consumer with a bound in bytes."""

    def test_streaming(self) -> None:
        """A streaming producer is paused beyond bufferSize and resumed when all is sent."""
        line, producer = Line(self), Producer()
        line.transport.registerProducer(producer, True)
        line.near.allowances = [0, 1]
        line.transport.write(bytes(VectorServer.bufferSize))
        self.assertEqual(producer.paused, 0)
        line.transport.write(b"!")
        self.assertEqual(producer.paused, 1)
        line.end(line.transport.doWrite())
        self.assertEqual(producer.resumed, 0)
        line.drain()
        self.assertEqual((producer.paused, producer.resumed), (1, 1))

    def test_neverPausedNeverResumed(self) -> None:
        """A streaming producer that was not paused hears nothing, and nothing is armed for it."""
        line, producer = Line(self), Producer()
        line.transport.registerProducer(producer, True)
        line.transport.write(b"small")
        self.assertFalse(line.writing)
        line.near.allowances = [0]
        line.transport.write(b"queued")
        line.drain()
        self.assertEqual((producer.paused, producer.resumed), (0, 0))

    def test_pull(self) -> None:
        """A pull producer is asked at once and again each time that all is sent."""
        line, producer = Line(self), Producer()
        line.transport.registerProducer(producer, False)
        self.assertEqual(producer.resumed, 1)
        line.transport.write(b"a")
        self.assertTrue(line.writing)
        line.end(line.transport.doWrite())
        self.assertEqual(producer.resumed, 2)
        self.assertFalse(line.writing)

    def test_twoProducers(self) -> None:
        """A second producer is refused until the first is unregistered."""
        line = Line(self)
        line.transport.registerProducer(Producer(), True)
        self.assertRaises(RuntimeError, line.transport.registerProducer, Producer(), True)
        line.transport.unregisterProducer()
        line.transport.registerProducer(Producer(), True)

    def test_unregisterThenClose(self) -> None:
        """After loseConnection the connection ends once a pull producer is unregistered."""
        line, producer = Line(self), Producer()
        line.transport.registerProducer(producer, False)
        line.transport.loseConnection()
        line.end(line.transport.doWrite())
        self.assertIsNone(line.protocol.lost)
        line.transport.unregisterProducer()
        line.drain()
        line.protocol.lost.trap(ConnectionDone)

    def test_stopped(self) -> None:
        """When the connection is lost the producer is stopped."""
        line, producer = Line(self), Producer()
        line.transport.registerProducer(producer, True)
        line.end(main.CONNECTION_LOST)
        self.assertEqual(producer.stopped, 1)


class EndingTests(SynchronousTestCase):
    """Every way that a connection ends is as with Twisted's own transport."""

    def test_loseConnectionFlushes(self) -> None:
        """What was queued, and what is written after loseConnection, arrives before the end."""
        line = Line(self, sndbuf=4096)
        data = os.urandom(200000)
        line.transport.write(data)
        line.transport.loseConnection()
        line.transport.write(b"tail")
        self.assertNotIn(line.transport, line.reactor.getReaders())
        self.assertEqual(line.drain(), data + b"tail")
        line.protocol.lost.trap(ConnectionDone)
        self.assertEqual(line.far.recv(1), b"")

    def test_loseConnectionWithNothingQueued(self) -> None:
        """The connection ends at the next turn, not within the call."""
        line = Line(self)
        line.transport.loseConnection()
        self.assertIsNone(line.protocol.lost)
        line.drain()
        line.protocol.lost.trap(ConnectionDone)

    def test_abortConnection(self) -> None:
        """Aborting drops what is queued and sends nothing more."""
        line = Line(self)
        line.near.allowances = [0]
        line.transport.write(b"queued")
        line.transport.abortConnection()
        line.transport.write(b"late")
        self.assertFalse(line.writing)
        line.reactor.advance(0)
        line.protocol.lost.trap(ConnectionAborted)
        self.assertEqual(line.arrived(), b"")

    def test_writeAfterTheEnd(self) -> None:
        """Writing to a lost connection does nothing."""
        line = Line(self)
        line.end(main.CONNECTION_LOST)
        line.transport.write(b"late")
        line.transport.writeSequence([b"later"])
        self.assertFalse(line.writing)
        self.assertEqual(line.arrived(), b"")

    def test_queueIsFreed(self) -> None:
        """A lost connection keeps no payload alive."""
        line = Line(self)
        line.near.allowances = [0]
        payload = bytearray(100)
        line.transport.write(payload)
        self.assertRaises(BufferError, payload.append, 1)
        line.end(main.CONNECTION_LOST)
        payload.append(1)

    def test_halfClose(self) -> None:
        """loseWriteConnection flushes, then ends this direction alone, and writes are dropped."""
        line = Line(self, HalfCloser())
        line.near.allowances = [0]
        line.transport.write(b"last")
        line.transport.loseWriteConnection()
        self.assertEqual(line.drain(), b"last")
        self.assertTrue(line.protocol.writeEnded)
        self.assertEqual(line.far.recv(1), b"")
        line.transport.write(b"late")
        self.assertFalse(line.writing)
        line.far.send(b"still heard")
        self.assertIsNone(line.transport.doRead())
        self.assertEqual(line.protocol.received, b"still heard")
        line.transport.loseConnection()
        line.protocol.lost.trap(ConnectionDone)

    def test_resetDuringSend(self) -> None:
        """A peer's reset does not reach the caller of write; the next doWrite tells the reactor."""
        near, protocol, made, clock = resetPair(self)
        made.writeSequence([b"into", b"the void"])
        made.write(b"more")
        self.assertIsNone(protocol.lost)
        self.assertIn(made, clock.getWriters())
        self.assertEqual(len(near.calls), 1)
        why = made.doWrite()
        self.assertIsInstance(why, ConnectionLost)
        made.connectionLost(Failure(why))
        protocol.lost.trap(ConnectionLost)

    def test_resetSeenByTheReader(self) -> None:
        """An error that the immediate send used up still makes the end an unclean one."""
        _, _, made, _ = resetPair(self)
        made.write(b"into the void")
        self.assertIsInstance(made.doRead(), ConnectionLost)

    def test_startTLS(self) -> None:
        """TLS is refused."""
        self.assertRaises(NotImplementedError, Line(self).transport.startTLS, None)

    def test_interfaces(self) -> None:
        """The transport provides what TCP transports provide."""
        line = Line(self)
        for interface in (ITransport, ITCPTransport):
            verifyObject(interface, line.transport)


class ReceivingTests(SynchronousTestCase):
    """doRead delivers to dataReceived, or straight into memory of the protocol's."""

    def test_dataReceived(self) -> None:
        """A protocol that offers no memory gets bytes."""
        line = Line(self)
        line.far.send(b"hello")
        self.assertIsNone(line.transport.doRead())
        self.assertEqual(line.protocol.received, b"hello")

    def test_nothingThere(self) -> None:
        """A spurious wake-up does nothing."""
        line = Line(self)
        self.assertIsNone(line.transport.doRead())
        self.assertEqual(line.protocol.received, b"")

    def test_end(self) -> None:
        """The peer's close is a clean end."""
        line = Line(self)
        line.far.close()
        self.assertIsInstance(line.transport.doRead(), ConnectionDone)

    def test_reset(self) -> None:
        """The peer's reset is an unclean end."""
        _, _, made, _ = resetPair(self)
        self.assertIsInstance(made.doRead(), ConnectionLost)

    def test_exactFill(self) -> None:
        """A view is filled exactly, and what follows it goes to dataReceived."""
        line = Line(self, Filler(6))
        line.far.send(b"abcdefgh")
        line.transport.doRead()
        self.assertEqual(line.protocol.received, b"abcdef")
        line.transport.doRead()
        self.assertEqual(line.protocol.received, b"abcdefgh")
        self.assertEqual(line.protocol.counts, [6])

    def test_partialFills(self) -> None:
        """A view that is filled in parts is asked for again each time."""
        line = Line(self, Filler(5, 4))
        for piece in (b"ab", b"cde", b"f", b"ghi"):
            line.far.send(piece)
            line.transport.doRead()
        self.assertEqual(line.protocol.counts, [2, 3, 1, 3])
        self.assertEqual(line.protocol.received, b"abcdefghi")

    def test_nothingThereToFill(self) -> None:
        """A spurious wake-up fills nothing."""
        line = Line(self, Filler(5))
        self.assertIsNone(line.transport.doRead())
        self.assertEqual(line.protocol.counts, [])

    def test_endWhileFilling(self) -> None:
        """The end of the stream within a view is the end of the connection."""
        line = Line(self, Filler(5))
        line.far.send(b"abc")
        line.far.close()
        self.assertIsNone(line.transport.doRead())
        self.assertIsInstance(line.transport.doRead(), ConnectionDone)
        self.assertEqual(line.protocol.counts, [3])

    def test_protocolChanged(self) -> None:
        """When the transport is given another protocol, that one is asked."""
        line = Line(self, Filler(100))
        line.far.send(b"one")
        line.transport.doRead()
        line.transport.protocol = successor = Recorder()
        line.far.send(b"two")
        line.transport.doRead()
        self.assertEqual(successor.received, b"two")

    def test_paused(self) -> None:
        """pauseProducing and resumeProducing stop and start the reading."""
        line = Line(self)
        line.transport.pauseProducing()
        self.assertNotIn(line.transport, line.reactor.getReaders())
        line.transport.resumeProducing()
        self.assertIn(line.transport, line.reactor.getReaders())


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


class MallocTests(SynchronousTestCase):
    """Tuning of the allocator."""

    def test_glibc(self) -> None:
        """It is done exactly where glibc is there to take it."""
        glibc = "CS_GNU_LIBC_VERSION" in os.confstr_names and bool(os.confstr("CS_GNU_LIBC_VERSION"))
        self.assertEqual(transport.tuneMalloc(), glibc)

    def test_withoutGlibc(self) -> None:
        """Another C library, or none that can be asked, is left alone."""

        def unknown(name: str) -> str:
            raise ValueError(name)

        for confstr in (unknown, lambda name: None, lambda name: "other 1.0"):
            self.patch(os, "confstr", confstr)
            self.assertFalse(transport.tuneMalloc())


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


class Chunks:
    """A push producer of so many numbered chunks, which then ends the connection."""

    def __init__(self, consumer: VectorServer, count: int) -> None:
        self.consumer, self.count = consumer, count
        self.pauses = self.next = 0
        self.running = False

    def pauseProducing(self) -> None:
        self.pauses += 1
        self.running = False

    def resumeProducing(self) -> None:
        self.running = True
        while self.running and self.next < self.count:
            self.next += 1
            self.consumer.write(b"%06d" % (self.next - 1) * 20000)
        if self.next == self.count and self.running:
            self.running = False
            self.consumer.unregisterProducer()
            self.consumer.loseConnection()

    def stopProducing(self) -> None:
        self.running = False
