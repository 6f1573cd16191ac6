# -*- test-case-name: tests.initiator.test_secure -*-
"""Targets that are reached over TLS: C{iscsi-tls:HOST:PORT}."""

from __future__ import annotations

from typing import Any, Final

from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from service_identity.hazmat import DNS_ID
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from iscsi_twisted.errors import LocalError
from iscsi_twisted.tls.files import loadAuthorities, loadIdentity, names, shortened
from iscsi_twisted.tls.protocol import GuardedFactory, informed, makeContext, parsed
from iscsi_twisted.transport import vectoring

KIND: Final = "iscsi-tls"
FORM: Final = f"{KIND}:HOST:PORT, then :caFile=FILE, :cert=FILE:key=FILE or :name=HOST if need be"
PORT: Final = 3260


@implementer(IOpenSSLClientConnectionCreator)
class ClientTLS:
    """The initiator's side of TLS, to one host."""

    def __init__(self, name: str, authorities: Any = None, identity: Any = None) -> None:
        """
        @param name: the DNS name or the address that the target's certificate has to have.
        @param authorities: the certificates of those that are trusted; None for the platform's.
        @param identity: what we prove ourselves with; None for nothing.
        @raise LocalError: for a name that no certificate can have.
        """
        self.name = name
        self._address = isIPAddress(name) or isIPv6Address(name)
        if not self._address:
            try:
                DNS_ID(name)
                name.encode("idna")
            except (ValueError, ImportError) as error:
                raise LocalError(f"{name!r} is no name that a certificate could have") from error
        self._authorities, self._identity = authorities, identity
        self._context = makeContext(identity, authorities, SSL.VERIFY_PEER)
        self._context.set_info_callback(self._informed)

    def to(self, name: str) -> ClientTLS:
        """The same for another host."""
        return ClientTLS(name, self._authorities, self._identity)

    def clientConnectionForTLS(self, protocol: object) -> SSL.Connection:
        """See L{IOpenSSLClientConnectionCreator}."""
        connection = SSL.Connection(self._context, None)
        if not self._address:
            connection.set_tlsext_host_name(self.name.encode("idna"))
        return connection

    def _informed(self, connection: SSL.Connection, where: int, result: int) -> None:
        """OpenSSL tells of a handshake that is done: the certificate is valid, but is it the right one?"""
        informed(connection, where, result)
        if not where & SSL.SSL_CB_HANDSHAKE_DONE:
            return
        guarded: Any = connection.get_app_data()
        try:
            # OpenSSL hears of no exception, and would go on.
            guarded.complaint = self._objection(connection.get_peer_certificate())
            if guarded.complaint:
                raise LocalError(guarded.complaint)
        except Exception:
            guarded.complaint = guarded.complaint or "TLS: the certificate of the target cannot be checked"
            guarded.failVerification(Failure())

    def _objection(self, shown: Any) -> str:
        """What is wrong with a certificate that is valid; empty if it is the target's."""
        certificate = None if shown is None else parsed(shown)
        if certificate is None:
            return "TLS: the certificate of the target is malformed"
        verify = verify_certificate_ip_address if self._address else verify_certificate_hostname
        try:
            verify(certificate, self.name)
        except (VerificationError, CertificateError):
            theirs = shortened(", ".join(names(certificate))) or "nobody"
            return f"TLS: the certificate of the target is for {theirs}, and not for {self.name}"
        return ""


@implementer(IStreamClientEndpoint)
class TLSEndpoint:
    """
    A host and a port to be reached over TLS.

    @ivar host: a name or an address.
    @ivar port: TCP port.
    @ivar tls: what is spoken there.
    """

    def __init__(self, reactor: Any, host: str, port: int, tls: ClientTLS) -> None:
        self._reactor = reactor
        self.host, self.port, self.tls = host, port, tls

    def to(self, host: str, port: int) -> TLSEndpoint:
        """Where a target sends us that was reached over TLS: there, too, we speak it, and trust the same."""
        return TLSEndpoint(self._reactor, host, port, self.tls.to(host))

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect; the handshake begins then.

        @return: the protocol; fails as the endpoint for the host does.
        """
        endpoint = HostnameEndpoint(vectoring(self._reactor), self.host, self.port)
        guarded = GuardedFactory(self.tls, True, protocolFactory, self._reactor)
        connected: Deferred[Any] = endpoint.connect(guarded)
        return connected.addCallback(lambda made: made.wrappedProtocol)


def clientEndpoint(
    reactor: Any,
    host: str = "",
    port: str = str(PORT),
    *more: str,
    caFile: str = "",
    cert: str = "",
    key: str = "",
    name: str = "",
    **unknown: str,
) -> TLSEndpoint:
    """
    The endpoint for the parts of a description.

    @param caFile: whom to trust; the platform's authorities if it is empty.
    @param cert: our own certificate; empty for none.
    @param key: its private key; empty if that is in the file of the certificate.
    @param name: the host that the target's certificate has to name, if that is not C{host}.
    @raise LocalError: saying what is wrong with them.
    @raise ConfigurationError: saying what is wrong with the files that they name.
    """
    if more or unknown or not host:
        raise LocalError(f"should read {FORM}")
    if not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
        raise LocalError("a port is a number from 1 to 65535")
    if key and not cert:
        raise LocalError("key= without cert=, which names the file of its certificate")
    authorities = loadAuthorities(caFile) if caFile else None
    identity = loadIdentity(cert, key or cert) if cert else None
    return TLSEndpoint(reactor, host, int(port), ClientTLS(name or host, authorities, identity))
