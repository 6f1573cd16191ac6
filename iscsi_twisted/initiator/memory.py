# -*- test-case-name: tests.initiator.test_session -*-
"""A target and an initiator in one process, without sockets: for the tests of applications, and for ours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IAddress, IProtocol, IReactorTime, IStreamClientEndpoint, ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

from iscsi_twisted.interfaces import Buffer

CLIENT = IPv4Address("TCP", "127.0.0.1", 40000)
SERVER = IPv4Address("TCP", "127.0.0.1", 3260)


@implementer(ITransport)
class MemoryTransport:
    """
    One end of a connection in memory.  What is written arrives when the reactor turns the next time.

    @ivar other: the other end.
    @ivar protocol: what is at this end.
    """

    other: MemoryTransport
    protocol: Any
    disconnecting = False

    def __init__(self, reactor: IReactorTime, here: IAddress, there: IAddress) -> None:
        self._reactor, self._here, self._there = reactor, here, there
        self._queue: list[bytes] = []
        self._scheduled = self._paused = self._lost = self._ending = False

    def write(self, data: Buffer) -> None:
        """Send bytes."""
        self.writeSequence([data])

    def writeSequence(self, iovec: Iterable[Buffer]) -> None:
        """Send buffers."""
        if not self._lost and not self.disconnecting:
            self.other._queue += [bytes(each) for each in iovec]
            self.other._schedule()

    def loseConnection(self) -> None:
        """End the connection when what was written has arrived."""
        if not self.disconnecting:
            self.disconnecting = True
            self.other._ending = True
            self.other._schedule()

    def abortConnection(self) -> None:
        """End the connection at once, as if it were cut."""
        for end in (self, self.other):
            end._queue.clear()
            end._lose(ConnectionLost())

    def getPeer(self) -> IAddress:
        """The other end's address."""
        return self._there

    def getHost(self) -> IAddress:
        """This end's address."""
        return self._here

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Nothing is ever too much: there is no other machine to wait for."""

    def unregisterProducer(self) -> None:
        """See C{registerProducer}."""

    def pauseProducing(self) -> None:
        """Deliver nothing for now."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Go on."""
        self._paused = False
        self._schedule()

    def stopProducing(self) -> None:
        """End the connection."""
        self.loseConnection()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._reactor.callLater(0, self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        if self._queue and not self._paused and not self._lost:
            data = b"".join(self._queue)
            self._queue.clear()
            self.protocol.dataReceived(data)
        if self._ending and not self._queue:
            self._lose(ConnectionDone())
            self.other._lose(ConnectionDone())

    def _lose(self, reason: Exception) -> None:
        if not self._lost:
            self._lost = self.disconnecting = True
            self.protocol.connectionLost(Failure(reason))


@implementer(IStreamClientEndpoint)
class MemoryEndpoint:
    """
    Leads to a server's factory in the same process, such as L{iscsi_twisted.target.TargetFactory}.

    @ivar refuses: whether connections are refused, as if nobody listened.
    @ivar transports: the client's ends of all connections that were made.
    """

    def __init__(self, reactor: Any, factory: Any) -> None:
        """
        @param reactor: when it turns, what was written arrives; a
            L{Clock<twisted.internet.task.Clock>} will do.
        """
        self._reactor = reactor
        self._factory = factory
        self.refuses = False
        self.transports: list[MemoryTransport] = []

    def connect(self, protocolFactory: Any) -> Deferred[IProtocol]:
        """Connect a client."""
        if self.refuses:
            failed: Deferred[IProtocol] = Deferred()
            failed.errback(ConnectionRefusedError())
            return failed
        near = MemoryTransport(self._reactor, CLIENT, SERVER)
        far = MemoryTransport(self._reactor, SERVER, CLIENT)
        near.other, far.other = far, near
        far.protocol = self._factory.buildProtocol(CLIENT)
        near.protocol = protocolFactory.buildProtocol(SERVER)
        self.transports.append(near)
        far.protocol.makeConnection(far)
        near.protocol.makeConnection(near)
        protocol: IProtocol = near.protocol
        return succeed(protocol)
