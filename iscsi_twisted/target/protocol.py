# -*- test-case-name: tests.target.test_protocol -*-
"""Bytes between a transport and a connection core."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IPushProducer, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

from iscsi_twisted.session.connection import Connection
from iscsi_twisted.session.doors import Peer
from iscsi_twisted.session.names import printable
from iscsi_twisted.session.node import Node
from iscsi_twisted.session.portals import Portal
from iscsi_twisted.target.trace import Trace
from iscsi_twisted.transport import Vectored, writeBytes

LINGER: Final = 5.0
"""Seconds that a peer has to take what was sent before a closed connection is cut."""


NARROW: Final = 65536
"""
Bytes received at a time while memory is short: what came in one piece is kept, and so are the answers to
it, for a thousand connections perhaps.
"""

DRAINED: Final = 16384
"""Bytes queued, in that case, beyond which a peer has to read before it is answered more."""

MAPPED: Final = "::ffff:"
"""What IPv4 addresses begin with where they are told as IPv6 ones (RFC 4291 2.5.5.2)."""


def peer(remote: IAddress, local: IAddress, certificate: tuple[str, ...] = ()) -> Peer:
    """
    What the core wants to know of both ends of a transport.

    @param certificate: the names in the certificate that the other side has shown.
    """
    address = _host(remote)
    host = _host(local)
    if host is not None:
        host = f"[{host}]" if ":" in host else host
        host = f"{host}:{local.port}"  # type: ignore[attr-defined]  # those that have a host have it
    return Peer(address, printable(address or str(remote)), host, certificate)


def _ends(transport: Any) -> Peer:
    return peer(transport.getPeer(), transport.getHost(), getattr(transport, "certifiedNames", tuple)())


def _nothing(reason: Failure) -> None:
    """Of a transport without TLS: TLS has not ended it."""


def _host(address: IAddress) -> str | None:
    """The IP address without a zone, in the form of its own family; None if there is none."""
    if isinstance(address, IPv6Address):
        host = address.host.partition("%")[0]
        mapped = host.lower().startswith(MAPPED) and "." in host
        return host[len(MAPPED) :] if mapped else host
    return address.host if isinstance(address, IPv4Address) else None


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
        self._closing = False
        self._known = False
        self._trace: Trace | None = None
        self._gone: list[Deferred[None]] = []

    def connectionMade(self) -> None:
        """Build the core, and let the transport call it directly."""
        transport: Any = self.transport
        if not getattr(type(transport), "inherits", False) and ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        reactor = self.factory.reactor
        ends = _ends(transport)
        wrapped = isinstance(transport, ProtocolWrapper)
        # A wrapper may know only later who the peer is.
        self._known = not wrapped or getattr(type(transport), "knowsPeer", False)
        if self._known and not self._admits(ends):
            return
        if not self.factory.node.makesRoom():
            self.factory.node.events.crowded(ends)
            transport.abortConnection()
            return
        core = self.core = Connection(
            self.factory.node,
            self.factory.portal,
            ends,
            send=transport.writeSequence if isinstance(transport, Vectored) else partial(writeBytes, self),
            close=self._close,
            stall=self._stall,
            later=self._later,
            narrow=self._narrow,
            now=reactor.seconds(),
        )
        receive: Callable[[bytes], None] = core.receive
        filled: Callable[[int], None] = core.filled
        if self.factory.trace:
            trace = self._trace = Trace(core, self.factory.trace)
            receive, filled = trace.receiving(receive, len), trace.receiving(filled, int)
        # The transport calls the core itself.
        self.dataReceived = receive  # type: ignore[method-assign,assignment]
        if wrapped:
            self.dataReceived = partial(self._introduced, receive)  # type: ignore[method-assign]
        self.wanted = core.wanted
        self.filled = filled
        self.factory.protocols.add(self)
        transport.registerProducer(self, True)

    def _introduced(self, receive: Callable[[bytes], None], data: bytes) -> None:
        """The first bytes through a wrapper (TLS, the PROXY protocol), which may know only now who comes."""
        assert self.core is not None and self.transport is not None
        self.core.peer = _ends(self.transport)
        self._known = True
        self.dataReceived = receive  # type: ignore[method-assign,assignment]
        if self._admits(self.core.peer):
            receive(data)

    def _admits(self, ends: Peer) -> bool:
        """Whether any target admits the peer; if not it is cut off without a word."""
        node = self.factory.node
        try:
            if node.admits(ends.address, self.factory.portal):
                return True
        except Exception:
            # A policy of an application's; the login asks it again, and reports what is wrong with it.
            return True
        node.events.turnedAway(ends)
        if self.core is not None:
            self.core.dismiss()
        transport: Any = self.transport
        transport.abortConnection()
        return False

    def reconsider(self) -> None:
        """What is served has changed: end a login that cannot succeed any more, or has not begun."""
        core = self.core
        if core is not None and core.login is not None and self._known and self._admits(core.peer):
            core.login.reconsider()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The transport is gone."""
        self.connected = 0
        if self._cut is not None and self._cut.active():
            self._cut.cancel()
        why = getattr(self.transport, "why", _nothing)(reason)
        core = self.core
        # Nobody asks for the reason of what this side has ended.
        told = "" if self._closing and self._trace is None else why or reason.getErrorMessage()
        if core is not None:
            if why and not core.bytesIn:
                self.factory.node.events.handshakeFailed(core.peer, why)
            core.lost(told)
        if self._trace is not None:
            self._trace.ended(told)
        self.factory.ended(self)
        gone, self._gone = self._gone, []
        for waiting in gone:
            waiting.callback(None)

    def whenGone(self) -> Deferred[None]:
        """
        Wait for the end of the connection.

        @return: fires when the transport is gone.
        """
        waiting: Deferred[None] = Deferred()
        if self.connected:
            self._gone.append(waiting)
        else:
            waiting.callback(None)
        return waiting

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

    def _narrow(self, narrow: bool) -> None:
        """Receive little at a time, or as much as usual; other transports receive little anyway."""
        transport: Any = self.transport
        if isinstance(transport, Vectored):
            transport.receiveSize = NARROW if narrow else Vectored.receiveSize
            transport.bufferSize = DRAINED if narrow else Vectored.bufferSize

    def _close(self) -> None:
        """Close when all is sent; cut a peer that does not take it."""
        transport: Any = self.transport
        if self._closing or not self.connected:
            return
        self._closing = True
        transport.unregisterProducer()
        if not getattr(transport, "sent", False):
            self._cut = self.factory.reactor.callLater(LINGER, transport.abortConnection)
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
        self._idle: list[Deferred[None]] = []

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """One more connection."""
        return TargetProtocol(self)

    def connections(self) -> list[Connection]:
        """The cores of all connections."""
        return [protocol.core for protocol in self.protocols if protocol.core is not None]

    def ended(self, protocol: TargetProtocol) -> None:
        """A connection is gone."""
        self.protocols.discard(protocol)
        if not self.protocols:
            idle, self._idle = self._idle, []
            for waiting in idle:
                waiting.callback(None)

    def whenIdle(self) -> Deferred[None]:
        """
        Wait for the end of all connections.

        @return: fires when there are none, at once if there are none now.
        """
        if not self.protocols:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._idle.append(waiting)
        return waiting

    def abort(self) -> None:
        """Cut all connections, whatever has not been sent."""
        for protocol in list(self.protocols):
            protocol.transport.abortConnection()  # type: ignore[union-attr]
