"""The vectored transport: order, partial sends, producers, ends of connections, receives in place."""

from __future__ import annotations

import os

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import main
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ITCPTransport, ITransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from iscsi_twisted import transport
from iscsi_twisted.transport import VectorServer
from tests.support.lines import Filler, HalfCloser, Line, Producer, Recorder, Scatterer, resetPair


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
        """The connection ends at the next turn, not within the call, whether or not it could send more."""
        line = Line(self)
        line.transport.loseConnection()
        line.transport.loseConnection()
        self.assertIsNone(line.protocol.lost)
        self.assertNotIn(line.transport, line.reactor.getReaders() + line.reactor.getWriters())
        line.reactor.advance(0)
        line.protocol.lost.trap(ConnectionDone)
        self.assertEqual(line.far.recv(1), b"")

    def test_writeMeanwhile(self) -> None:
        """What is written in the turn in which the connection is to end is sent before."""
        line = Line(self)
        line.transport.loseConnection()
        line.near.allowances = [0]
        line.transport.write(b"last")
        self.assertFalse(line.transport.sent)
        line.reactor.advance(0)
        self.assertIsNone(line.protocol.lost)
        self.assertEqual(line.drain(), b"last")
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

    def test_scattered(self) -> None:
        """Several views are filled by one call, one behind the other."""
        line = Line(self, Scatterer(3, 4, 2))
        for piece in (b"a", b"bcde", b"fgh", b"ij"):
            line.far.send(piece)
            line.transport.doRead()
        self.assertEqual(line.protocol.counts, [1, 4, 3, 1])
        line.transport.doRead()
        self.assertEqual(line.protocol.received, b"abcdefghij")

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


class MallocTests(SynchronousTestCase):
    """Tuning of the allocator."""

    def test_glibc(self) -> None:
        """It is done exactly where glibc is there to take it."""
        glibc = "CS_GNU_LIBC_VERSION" in os.confstr_names and bool(os.confstr("CS_GNU_LIBC_VERSION"))
        self.assertEqual(transport.tuneMalloc(), glibc)
        self.assertEqual(transport.trimMalloc(), glibc)

    def test_withoutGlibc(self) -> None:
        """Another C library, or none that can be asked, is left alone."""

        def unknown(name: str) -> str:
            raise ValueError(name)

        for confstr in (unknown, lambda name: None, lambda name: "other 1.0"):
            self.patch(os, "confstr", confstr)
            self.assertFalse(transport.tuneMalloc())
            self.assertFalse(transport.trimMalloc())
