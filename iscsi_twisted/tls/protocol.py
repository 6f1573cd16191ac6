# -*- test-case-name: tests.tls.test_protocol -*-
"""TLS on one transport, which knows whom the peer's certificate names and why a handshake failed."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import Any, Final

from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.error import ConnectionAborted
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure

from iscsi_twisted.errors import ConfigurationError
from iscsi_twisted.tls.files import Identity, names, subject

COMPLAINTS: Final = {
    2: "its issuer is not known here",
    7: "its signature is wrong",
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is signed by itself, and not among those that are trusted",
    19: "its issuer is not known here",
    20: "its issuer is not known here",
    21: "its issuer is not known here",
    22: "the chain that leads to its issuer is too long",
    23: "it was revoked",
    24: "its issuer is no authority",
    26: "it is not meant for this purpose",
    66: "its key is too short",
    67: "its issuer's key is too short",
    68: "its hash is too weak",
    79: "its issuer is no authority",
}
"""What OpenSSL finds wrong with a certificate (X509_STORE_CTX_get_error)."""

TROUBLES: Final = {
    "peer did not return a certificate": "it shows no certificate, and one is required",
    "unsupported protocol": "it speaks no TLS 1.3",
    "no protocols available": "it speaks no TLS 1.3",
    "wrong version number": "it speaks no TLS",
    "packet length too long": "it speaks no TLS",
    "http request": "it speaks HTTP",
    "unexpected eof while reading": "it went away",
}
"""What OpenSSL says of a failed handshake, in words that help."""


MOST_STEPS: Final = 500
"""
Steps of OpenSSL's in a minute after the handshake; each key update takes ten.  A peer may ask for one at any
time, and is answered at once, whether it reads or not: unbounded, the answers would fill the memory.  Those
that mean it ask once in millions of records.
"""

MINUTE: Final = 60.0


class GuardedTLS(BufferingTLSTransport):
    """
    TLS on one transport.

    @ivar complaint: what is wrong with the peer; empty for nothing.
    @ivar steps: those that OpenSSL has taken after the handshake, since C{counted}; None before its end.
    @ivar counted: when counting began anew.
    @cvar knowsPeer: the address of the peer is known from the beginning.
    """

    complaint = ""
    knowsPeer = True
    steps: int | None = None
    counted = 0.0

    def certifiedNames(self) -> tuple[str, ...]:
        """The names in the certificate that the peer has shown, and that was verified; empty if none was."""
        shown = self.getPeerCertificate() if self._tlsConnection is not None else None
        certificate = None if shown is None else parsed(shown)
        return () if certificate is None else names(certificate)

    def why(self, reason: Failure) -> str | None:
        """What TLS has ended a connection for, in words; None if it was for something else."""
        if self.complaint:
            return self.complaint
        error = reason.value
        if not isinstance(error, SSL.Error):
            return None
        said = [str(each[-1]) for each in error.args[0]] if error.args and error.args[0] else []
        told = next((each for each in said if each), "the handshake failed")
        _, alert, theirs = told.partition(" alert ")
        if alert:
            return f"TLS: the other side refuses it: {theirs}"
        return f"TLS: {TROUBLES.get(told, told)}"


class GuardedFactory(TLSMemoryBIOFactory):
    """Makes L{GuardedTLS}."""

    protocol = GuardedTLS


def makeContext(
    identity: Identity | None, authorities: Iterable[Any] | None, verify: int, path: str = ""
) -> SSL.Context:
    """
    TLS 1.3, and nothing else.

    @param authorities: certificates of those that are trusted; None for the platform's.
    @param verify: flags of C{SSL.VERIFY_PEER} and so on.
    @param path: the file of our certificate, for messages.
    @raise ConfigurationError: for a key or certificates that OpenSSL refuses, such as weak ones.
    """
    try:
        return _context(identity, authorities, verify)
    except SSL.Error as error:
        said = error.args[0] if error.args else ()
        why = next((str(each[-1]) for each in said if each[-1]), "no reason is given")
        raise ConfigurationError(f"OpenSSL does not use these certificates: {why}", path or None) from None


def _context(identity: Identity | None, authorities: Iterable[Any] | None, verify: int) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_info_callback(informed)
    if identity is not None:
        context.use_certificate(identity.chain[0])
        for each in identity.chain[1:]:
            context.add_extra_chain_cert(each)
        context.use_privatekey(identity.key)
    if verify == SSL.VERIFY_NONE:
        context.set_verify(verify)
        return context
    if authorities is None:
        context.set_default_verify_paths()
    store = context.get_cert_store()
    for each in authorities or ():
        assert store is not None
        store.add_cert(crypto.X509.from_cryptography(each))
    context.set_verify(verify, _verified)
    return context


def informed(connection: SSL.Connection, where: int, result: int) -> None:
    """OpenSSL tells of each step of a handshake, and of key updates later on."""
    guarded: Any = connection.get_app_data()
    if where & SSL.SSL_CB_HANDSHAKE_DONE:
        guarded.steps = guarded.steps or 0
    elif where & SSL.SSL_CB_LOOP and guarded.steps is not None:
        now = monotonic()
        if now - guarded.counted > MINUTE:
            guarded.steps, guarded.counted = 0, now
        guarded.steps += 1
        if guarded.steps == MOST_STEPS:
            guarded.complaint = "TLS: it does nothing but change keys"
            guarded.failVerification(Failure(ConnectionAborted()))


def parsed(shown: crypto.X509) -> x509.Certificate | None:
    """What OpenSSL has been shown; None if it takes what nobody else can read."""
    try:
        return shown.to_cryptography()
    except (ValueError, x509.InvalidVersion):
        return None


def _verified(connection: SSL.Connection, shown: crypto.X509, number: int, depth: int, fine: int) -> bool:
    """OpenSSL has looked at one certificate of the peer's chain: keep what it found wrong."""
    if not fine:
        guarded: Any = connection.get_app_data()
        certificate = parsed(shown)
        named = "nobody" if certificate is None else subject(certificate)
        who = "the issuer " * bool(depth) + named
        what = COMPLAINTS.get(number, f"X.509 error {number}")
        guarded.complaint = f"TLS: the certificate of {who}: {what}"
    return bool(fine)
