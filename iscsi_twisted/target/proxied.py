# -*- test-case-name: tests.target.test_proxied -*-
"""
Portals behind a proxy that speaks the PROXY protocol: C{haproxy:tcp:3262:interface=127.0.0.1}.

Twisted has endpoints of that name, too.  These believe only proxies that are named, look at what they say,
and take a header in as many pieces as it comes.
"""

from __future__ import annotations

import re
from typing import Any, Final

import attrs
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from iscsi_twisted.config.netmasks import Netmask
from iscsi_twisted.config.portals import wordsOf
from iscsi_twisted.errors import ConfigurationError, RemoteError
from iscsi_twisted.target.proxyheader import Ends, Place, read

KIND: Final = "haproxy"
FORM: Final = (
    f"{KIND}:ENDPOINT, as in {KIND}:tcp:3262:interface=127.0.0.1, then :proxies=NETMASK if they are elsewhere"
)

NEAR: Final = "127.0.0.0/8"
"""Who is believed if nobody is named: proxies on this machine."""


@implementer(IAddress)
@attrs.frozen
class Unknown:
    """
    Where a client is whose address its proxy does not know.

    @ivar proxy: where that is.
    """

    proxy: str

    def __str__(self) -> str:
        return f"behind {self.proxy}"


class Proxied(ProtocolWrapper):
    """
    One connection that a proxy passes on.

    @ivar ends: what the proxy said; None until then.
    @ivar complaint: why the connection is cut off; empty for no reason.
    """

    factory: ProxiedFactory
    ends: Ends | None = None
    complaint = ""

    _begun = b""

    def makeConnection(self, transport: Any) -> None:
        """Begin, if the other side is a proxy."""
        super().makeConnection(transport)
        address = getattr(transport.getPeer(), "host", None)
        # Who may use a UNIX socket the permissions of its file say.
        if address is not None and not self.factory.proxies.admits(address):
            self._refuse(f"PROXY: no proxy is believed there (proxies={self.factory.proxies})")

    def dataReceived(self, data: bytes) -> None:
        """The header, then what comes through the proxy."""
        if self.ends is not None:
            self.wrappedProtocol.dataReceived(data)
            return
        if self.complaint:
            return
        self._begun += data
        try:
            found = read(self._begun)
        except RemoteError as error:
            self._refuse(str(error))
            return
        if found is not None:
            self.ends, length = found
            rest, self._begun = self._begun[length:], b""
            if rest:
                self.wrappedProtocol.dataReceived(rest)

    def _refuse(self, complaint: str) -> None:
        self.complaint = complaint
        self._begun = b""
        transport: Any = self.transport
        transport.abortConnection()

    def why(self, reason: Failure) -> str | None:
        """Why the connection was cut off; or what TLS beneath has to say."""
        if self.complaint:
            return self.complaint
        beneath = getattr(self.transport, "why", None)
        return None if beneath is None else beneath(reason)

    def getPeer(self) -> Any:
        """Where the client is."""
        transport: Any = self.transport
        if self.ends is None or self.ends.own:
            return transport.getPeer()
        if self.ends.source is None:
            return Unknown(str(getattr(transport.getPeer(), "host", "a proxy")))
        return _address(self.ends.source)

    def getHost(self) -> Any:
        """Where the client connected to."""
        transport: Any = self.transport
        if self.ends is None or self.ends.destination is None:
            return transport.getHost()
        return _address(self.ends.destination)


def _address(place: Place) -> IPv4Address | IPv6Address:
    address, port = place
    return (IPv4Address if address.version == 4 else IPv6Address)("TCP", str(address), port)


class ProxiedFactory(WrappingFactory):
    """
    Makes L{Proxied} connections.

    @ivar proxies: the hosts that are believed.
    """

    protocol = Proxied
    noisy = False

    def __init__(self, wrappedFactory: Any, proxies: Netmask) -> None:
        super().__init__(wrappedFactory)
        self.proxies = proxies


@implementer(IStreamServerEndpoint)
class ProxiedEndpoint:
    """
    Where a proxy passes connections on to.

    @ivar endpoint: the place itself.
    @ivar proxies: the hosts that are believed.
    """

    def __init__(self, endpoint: IStreamServerEndpoint, proxies: Netmask) -> None:
        self.endpoint, self.proxies = endpoint, proxies

    @property
    def guarded(self) -> bool:
        """Whether everybody has to show a certificate beneath."""
        return bool(getattr(self.endpoint, "guarded", False))

    @property
    def terms(self) -> str:
        """What is special there, in words."""
        beneath = getattr(self.endpoint, "terms", "")
        return f"PROXY protocol from {self.proxies}" + (f", {beneath}" if beneath else "")

    def renew(self) -> None:
        """Let the place take up files that have changed, if it has any."""
        getattr(self.endpoint, "renew", _nothing)()

    def __repr__(self) -> str:
        return f"<ProxiedEndpoint {self.endpoint!r}>"

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Listen.

        @return: the port; fails as the place's own endpoint does.
        """
        return self.endpoint.listen(ProxiedFactory(protocolFactory, self.proxies))


def _nothing() -> None:
    """There are no files."""


def takeProxies(words: str) -> tuple[str, Netmask]:
    """
    Take C{proxies=} out of what follows C{haproxy:}.

    @return: the description of the place to listen at, and the hosts that are believed.
    @raise ConfigurationError: saying what is wrong.
    """
    left, named = [], []
    for word in wordsOf(words):
        if word.startswith("proxies="):
            named.append(re.sub(r"\\(.)", r"\1", word.removeprefix("proxies=")))
        else:
            left.append(word)
    if not left or not left[0]:
        raise ConfigurationError(f"should read {FORM}")
    if len(named) > 1:
        raise ConfigurationError("proxies= stands twice; remove one")
    try:
        return ":".join(left), Netmask(named[0] if named else NEAR)
    except ConfigurationError as error:
        raise ConfigurationError(f"proxies=: {error}") from None
