# -*- test-case-name: tests.target.test_secure -*-
"""
Portals that speak TLS: C{iscsi-tls:PORT:key=FILE:cert=FILE}.

The standard knows of no TLS.  What goes over these portals is iSCSI as ever, in TLS 1.3 from the first byte.
"""

from __future__ import annotations

import os
from typing import Any, Final

import attrs
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.interfaces import (
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from zope.interface import implementer

from iscsi_twisted.config.lines import onlyOnce, quoted
from iscsi_twisted.errors import ConfigurationError
from iscsi_twisted.target.transport import VectorEndpoint, tcpEndpoint
from iscsi_twisted.tls.files import exposed, loadAuthorities, loadIdentity, subject
from iscsi_twisted.tls.protocol import GuardedFactory, makeContext

KIND: Final = "iscsi-tls"
FORM: Final = (
    f"{KIND}:PORT:key=FILE:cert=FILE, then :clientCA=FILE, :clientCert=required or optional,"
    " :interface=ADDRESS or :backlog=NUMBER if need be"
)

_log = Logger(namespace="iscsi_twisted")


@attrs.frozen
class Files:
    """
    The files of one portal.

    @ivar key: the private key.
    @ivar certificate: its certificate, and those that lead to an authority.
    @ivar clientCA: the authorities that sign initiators' certificates; empty if none are wanted.
    @ivar required: whether every initiator has to show one.
    """

    key: str
    certificate: str
    clientCA: str = ""
    required: bool = True

    def paths(self) -> list[str]:
        """Those that there are."""
        return list(dict.fromkeys(filter(None, (self.key, self.certificate, self.clientCA))))

    def stamps(self) -> list[tuple[int, ...]]:
        """What changes when a file does."""
        return list(map(_stamp, self.paths()))


def _stamp(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """
    The target's side of TLS; files that are renewed are taken up by the next connection.

    @ivar files: where key and certificates are.
    @ivar subject: whom our certificate names.
    """

    def __init__(self, files: Files) -> None:
        """@raise ConfigurationError: for files that cannot be used."""
        self.files = files
        self._stamps = files.stamps()
        self._context = self._load()

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:
        """See L{IOpenSSLServerConnectionCreator}."""
        self.look()
        return SSL.Connection(self._context, None)

    def look(self) -> None:
        """Take up files that have changed; what is wrong with them is logged."""
        stamps = self.files.stamps()
        if stamps != self._stamps:
            self._stamps = stamps
            self._renew()

    def _renew(self) -> None:
        try:
            faults = [fault for path in self.files.paths() for fault in onlyOnce(path)]
            if faults:
                raise faults[0]
            self._context = self._load()
        except ConfigurationError as error:
            _log.error("{error}: TLS goes on with what was there before", error=error, event="notRenewed")
        else:
            self.warn()
            _log.info("TLS: {path} was renewed", path=self.files.certificate, event="renewed")

    def warn(self) -> None:
        """Log what others than the administrator can do with the files."""
        for path in self.files.paths():
            private = path == self.files.key
            what = exposed(path, private)
            if what is not None:
                _log.warn(
                    "{path}: {what} this {kind}: chmod o= it",
                    path=path,
                    what=what,
                    kind="private key" if private else "file",
                    event="open",
                )

    def _load(self) -> SSL.Context:
        files = self.files
        identity = loadIdentity(files.certificate, files.key)
        authorities = loadAuthorities(files.clientCA) if files.clientCA else ()
        verify = SSL.VERIFY_NONE
        if authorities:
            verify = SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if files.required else 0)
        context = makeContext(identity, authorities, verify, files.certificate)
        for each in authorities:
            context.add_client_ca(each)
        self.subject = subject(identity.chain[0])
        return context


@implementer(IStreamServerEndpoint)
class TLSEndpoint:
    """
    A TCP port to listen on with TLS.

    @ivar tcp: the port.
    @ivar tls: what is spoken there.
    @ivar guarded: whether everybody has to show a certificate.
    @ivar terms: the same in words.
    """

    def __init__(self, reactor: Any, tcp: VectorEndpoint, tls: ServerTLS) -> None:
        self._reactor = reactor
        self.tcp, self.tls = tcp, tls

    @property
    def guarded(self) -> bool:
        return bool(self.tls.files.clientCA) and self.tls.files.required

    @property
    def terms(self) -> str:
        files = self.tls.files
        asked = "required" if files.required else "optional"
        return f"TLS as {self.tls.subject}" + (f", certificates {asked}" if files.clientCA else "")

    def renew(self) -> None:
        """Take up files that have changed, and say what is wrong with them."""
        self.tls.look()

    def __repr__(self) -> str:
        return f"<TLSEndpoint port {self.tcp.port} of {self.tcp.interface or '0.0.0.0'}>"

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Listen.

        @return: the port; fails with L{twisted.internet.error.CannotListenError}.
        """
        self.tls.warn()
        return self.tcp.listen(GuardedFactory(self.tls, False, protocolFactory, self._reactor))


def serverEndpoint(
    reactor: Any,
    port: str = "",
    *more: str,
    key: str = "",
    cert: str = "",
    clientCA: str = "",
    clientCert: str = "",
    interface: str = "",
    backlog: str = "",
    **unknown: str,
) -> TLSEndpoint:
    """
    The endpoint for the parts of a description.

    @raise ConfigurationError: saying what is wrong with them, or with the files that they name.
    """
    if more or unknown:
        what = quoted(f"{next(iter(unknown))}=" if unknown else more[0])
        raise ConfigurationError(f"{what} has no meaning here; it should read {FORM}")
    if not port or not cert:
        raise ConfigurationError(f"should read {FORM}")
    if clientCert not in ("", "required", "optional"):
        raise ConfigurationError(f"clientCert=: required or optional is wanted, not {quoted(clientCert)}")
    if clientCert and not clientCA:
        raise ConfigurationError("clientCert= without clientCA=, which says who signs them")
    words = {"interface": interface, "backlog": backlog}
    tcp = ":".join(
        [f"tcp:{quoteStringArgument(port)}"]
        + [f"{name}={quoteStringArgument(value)}" for name, value in words.items() if value]
    )
    endpoint = tcpEndpoint(reactor, KIND, tcp)
    private, public, clients = (
        os.path.abspath(path) if path else "" for path in (key or cert, cert, clientCA)
    )
    files = Files(private, public, clients, clientCert != "optional")
    return TLSEndpoint(reactor, endpoint, ServerTLS(files))
