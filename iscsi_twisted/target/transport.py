# -*- test-case-name: tests.target.test_portals -*-
"""Where a target listens: endpoints with the vectored transport, and those of Twisted's own."""

from __future__ import annotations

from socket import (
    AF_INET6,
    IPPROTO_IPV6,
    IPPROTO_TCP,
    IPV6_V6ONLY,
    SO_KEEPALIVE,
    SOL_SOCKET,
    TCP_NODELAY,
    socket,
)
from typing import Any

from twisted.internet import endpoints, tcp
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.posixbase import PosixReactorBase
from zope.interface import implementer

from iscsi_twisted.errors import ConfigurationError
from iscsi_twisted.target.proxied import KIND as PROXIED
from iscsi_twisted.target.proxied import ProxiedEndpoint, takeProxies
from iscsi_twisted.transport import VectorServer

BACKLOG = 1024
"""Connections that may wait to be accepted: enough for all sessions to come back at once."""

_TWISTED_BACKLOG = 50
_TCP_KINDS = {"tcp": "tcp", "tcp4": "tcp", "tcp6": "tcp6"}
_TCP_FORM = r"tcp:PORT, then :interface=ADDRESS or :backlog=NUMBER if need be, a colon within one as \:"
_EXAMPLES = r"tcp:3260, tcp:3260:interface=127.0.0.1 or tcp6:3260:interface=\:\:1"


class VectorPort(tcp.Port):
    """A listening TCP port whose connections are L{VectorServer}s."""

    transport: type[tcp.Server] = VectorServer

    def createInternetSocket(self) -> socket:
        """Make the socket; an IPv6 one leaves the IPv4 addresses of its port to another."""
        made: socket = super().createInternetSocket()
        if self.addressFamily == AF_INET6:
            made.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)
        # Where connections inherit them that is two system calls fewer for each.
        made.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        made.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
        return made


@implementer(IStreamServerEndpoint)
class VectorEndpoint:
    """
    A TCP port to listen on with the vectored transport, or with the reactor's own where that has none.

    @ivar port: the port's number; 0 for any that is free.
    @ivar interface: an IPv4 or IPv6 address; empty for all of IPv4.
    @ivar backlog: connections that may wait to be accepted.
    """

    def __init__(self, reactor: Any, port: int, interface: str = "", backlog: int = BACKLOG) -> None:
        self._reactor = reactor
        self.port = port
        self.interface = interface
        self.backlog = backlog

    def __repr__(self) -> str:
        return f"<VectorEndpoint port {self.port} of {self.interface or '0.0.0.0'}>"

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Listen.

        @return: the port; fails with L{twisted.internet.error.CannotListenError}.
        """
        # IReactorFDSet would not do: in-memory reactors provide that too, yet poll no sockets.
        listen = self._vectored if isinstance(self._reactor, PosixReactorBase) else self._reactor.listenTCP
        return execute(listen, self.port, protocolFactory, self.backlog, self.interface)

    def _vectored(self, number: int, factory: IProtocolFactory, backlog: int, interface: str) -> VectorPort:
        port = VectorPort(number, factory, backlog, interface, self._reactor)
        port.startListening()
        return port


class _Description:
    """Stands for a reactor while Twisted takes a description apart: keeps what it is asked for."""

    port: int
    interface: str
    backlog: int

    def listenTCP(self, port: int, factory: object, backlog: int, interface: str) -> None:
        self.port, self.backlog, self.interface = port, backlog, interface


def portal(reactor: Any, description: str) -> IStreamServerEndpoint:
    """
    The endpoint for a description in the language of L{endpoints.serverFromString}.

    Plain TCP gets the vectored transport, and behind a proxy whatever its place gets; all others are
    Twisted's own.  C{tcp4} means C{tcp}.

    @raise ConfigurationError: if it cannot be understood or what it names cannot be had.
    """
    kind, colon, rest = description.partition(":")
    try:
        if kind in _TCP_KINDS:
            return tcpEndpoint(reactor, kind, _TCP_KINDS[kind] + colon + rest)
        if kind == PROXIED:
            place, proxies = takeProxies(rest)
            return ProxiedEndpoint(portal(reactor, place), proxies)
        endpoint: IStreamServerEndpoint = endpoints.serverFromString(reactor, description)
        return endpoint
    except ConfigurationError as error:
        raise ConfigurationError(f"endpoint {description!r}: {error}") from error
    except Exception as error:  # a plugin may raise anything
        why = " ".join(str(error).split()) or type(error).__name__
        if why.startswith("Unknown endpoint type"):
            why = f"no kind of endpoint is called {kind!r}; right would be {_EXAMPLES}"
        elif kind == "systemd" and isinstance(error, LookupError):
            why = "systemd has passed no such socket to this process (LISTEN_FDS, LISTEN_FDNAMES)"
        elif isinstance(error, ImportError):
            why = f"it needs pyOpenSSL: pip install iscsi-twisted[tls] ({why})"
        elif isinstance(error, TypeError):
            why = f"these are not the parts of a {kind!r} endpoint ({why})"
        raise ConfigurationError(f"endpoint {description!r}: {why}") from error


def tcpEndpoint(reactor: Any, kind: str, description: str) -> VectorEndpoint:
    """
    The endpoint for a TCP description, taken apart by Twisted's own rules.

    @param kind: what it was called before.
    @raise ConfigurationError: saying what is wrong.
    """
    asked = _Description()
    try:
        endpoints.serverFromString(asked, description).listen(None)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigurationError(f"should read {_TCP_FORM.replace('tcp', kind, 1)}") from error
    if not 0 <= asked.port <= 65535:
        raise ConfigurationError("a port is a number from 0 to 65535")
    if asked.backlog < 1:
        raise ConfigurationError("backlog= is a number from 1")
    if isIPAddress(asked.interface) if kind == "tcp6" else kind == "tcp4" and isIPv6Address(asked.interface):
        raise ConfigurationError(f"interface= names an address of the other family than {kind}'s")
    if asked.backlog == _TWISTED_BACKLOG and "backlog" not in description:
        asked.backlog = BACKLOG
    return VectorEndpoint(reactor, asked.port, asked.interface, asked.backlog)
