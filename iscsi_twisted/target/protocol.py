# -*- test-case-name: tests.target.test_protocol -*-
"""Bytes between a transport and a connection core."""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IPushProducer, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from iscsi_twisted.session.connection import Connection
from iscsi_twisted.session.names import printable
from iscsi_twisted.session.node import Node, Peer, Portal
from iscsi_twisted.target.trace import Trace

LINGER: Final = 5.0
"""Seconds that a peer has to take what was sent before a closed connection is cut."""


def _peer(remote: IAddress, local: IAddress) -> Peer:
    """What the core wants to know of both ends of a transport."""
    address = getattr(remote, "host", None)
    if isinstance(remote, IPv6Address):
        address = remote.host.partition("%")[0]
        if address.lower().startswith("::ffff:") and "." in address:
            address = address[7:]
    return Peer(address, address or printable(str(remote)), _hostPort(local))


def _hostPort(address: IAddress) -> str | None:
    """C{host:port} as in TargetAddress (RFC 7143 13.8)."""
    if isinstance(address, IPv6Address):
        return f"[{address.host.partition('%')[0]}]:{address.port}"
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    return None


@implementer(IPushProducer)
class TargetProtocol(Protocol):
    """
    iSCSI, the target's side, on one transport.

    @ivar core: the connection; None before C{connectionMade}.
    """

    core: Connection | None = None

    factory: TargetFactory

    def __init__(self, factory: TargetFactory) -> None:
        self.factory = factory
        self._cut: Any = None

    def connectionMade(self) -> None:
        """Build the core, and let the transport call it directly."""
        transport: Any = self.transport
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        reactor = self.factory.reactor
        core = self.core = Connection(
            self.factory.node,
            self.factory.portal,
            _peer(transport.getPeer(), transport.getHost()),
            send=transport.writeSequence,
            close=self._close,
            stall=self._stall,
            later=self._later,
            now=reactor.seconds(),
        )
        if self.factory.trace:
            Trace(core, self.factory.trace)
        self.dataReceived = core.receive  # type: ignore[method-assign]
        self.wanted = core.wanted
        self.filled = core.filled
        self.factory.protocols.add(self)
        transport.registerProducer(self, True)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The transport is gone."""
        self.factory.protocols.discard(self)
        if self._cut is not None and self._cut.active():
            self._cut.cancel()
        if self.core is not None:
            self.core.lost(reason.getErrorMessage())

    def pauseProducing(self) -> None:
        """The transport's queue is full."""
        if self.core is not None:
            self.core.pause()

    def resumeProducing(self) -> None:
        """The transport's queue is empty."""
        if self.core is not None:
            self.core.resume()

    def stopProducing(self) -> None:
        """The transport is closing."""

    def _later(self) -> None:
        if self.core is not None:
            self.factory.reactor.callLater(0, self.core.proceed)

    def _stall(self, stalled: bool) -> None:
        transport: Any = self.transport
        if stalled:
            transport.pauseProducing()
        else:
            transport.resumeProducing()

    def _close(self) -> None:
        """Close when all is sent; cut a peer that does not take it."""
        transport: Any = self.transport
        if self._cut is None:
            self._cut = self.factory.reactor.callLater(LINGER, transport.abortConnection)
            transport.unregisterProducer()
            transport.loseConnection()


class TargetFactory(ServerFactory):
    """
    Makes a L{TargetProtocol} for each connection to one portal.

    @ivar node: whose targets are served.
    @ivar portal: where.
    @ivar trace: what is traced: some of L{iscsi_twisted.target.trace.KINDS}.
    @ivar protocols: the connections there are.
    """

    noisy = False

    def __init__(
        self,
        node: Node,
        reactor: IReactorTime,
        portal: Portal | None = None,
        trace: frozenset[str] = frozenset(),
    ) -> None:
        self.node = node
        self.reactor: Any = reactor
        self.portal = portal if portal is not None else Portal()
        self.trace = trace
        self.protocols: set[TargetProtocol] = set()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """One more connection."""
        return TargetProtocol(self)

    def connections(self) -> list[Connection]:
        """The cores of all connections."""
        return [protocol.core for protocol in self.protocols if protocol.core is not None]
