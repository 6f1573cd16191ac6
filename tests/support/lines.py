"""Connections under test: protocols that keep what they hear, a transport whose reactor the test turns."""

from __future__ import annotations

import select
import socket
import struct
from typing import Any

from twisted.internet import main
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from iscsi_twisted.transport import VectorServer


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

    def wanted(self) -> memoryview | list[memoryview] | None:
        return self.places[0][self.done :] if self.places else None

    def filled(self, count: int) -> None:
        self.counts.append(count)
        self.done += count
        if self.done == len(self.places[0]):
            self.received += self.places.pop(0)
            self.done = 0


class Scatterer(Filler):
    """Receives into the first view and a second one behind it at once."""

    def wanted(self) -> memoryview | list[memoryview] | None:
        return [self.places[0][self.done :], *self.places[1:2]] if self.places else None

    def filled(self, count: int) -> None:
        self.counts.append(count)
        self.done += count
        while self.places and self.done >= len(self.places[0]):
            self.done -= len(self.places[0])
            self.received += self.places.pop(0)


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
