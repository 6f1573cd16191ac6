# -*- test-case-name: tests.tls.test_files -*-
"""Private keys and certificates in files, in PEM form (RFC 7468)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from iscsi_twisted.errors import ConfigurationError

MAX_READ = 4 << 20
"""Bytes that are read of a file: many times those of the largest bundle of authorities."""

MAX_SHOWN = 100
"""Characters of a name that are shown to people."""


@attrs.frozen
class Identity:
    """
    What one side proves who it is with.

    @ivar key: a private key.
    @ivar chain: its certificate, then those that lead to an authority.
    """

    key: Any = attrs.field(repr=False)
    chain: tuple[x509.Certificate, ...]


def loadIdentity(certificatePath: str, keyPath: str, now: datetime | None = None) -> Identity:
    """
    Read a private key and its certificate, which may be followed by others in its file.

    @param now: by default the present time.
    @raise ConfigurationError: saying what is wrong with which file.
    """
    chain = _certificates(certificatePath)
    key = _key(keyPath)
    if _public(key.public_key()) != _public(chain[0].public_key()):
        raise ConfigurationError(f"is not the key of the certificate in {certificatePath}", keyPath)
    _checkTime([chain[0]], certificatePath, now)
    return Identity(key, chain)


def loadAuthorities(path: str, now: datetime | None = None) -> tuple[x509.Certificate, ...]:
    """
    Read the certificates of authorities.

    @param now: by default the present time.
    @raise ConfigurationError: if there are none, or none that is valid now.
    """
    found = _certificates(path)
    _checkTime(found, path, now)
    return found


def exposed(path: str, private: bool) -> str | None:
    """
    What anybody on this machine can do with a file that only some should.

    @param private: nobody else is to read it, as little as write it.
    @return: a phrase; None if all is well.
    """
    mode = os.stat(path).st_mode
    if mode & 0o002:
        return "everybody on this machine can write"
    return "everybody on this machine can read" if private and mode & 0o004 else None


def subject(certificate: x509.Certificate) -> str:
    """Whom a certificate names, for people: one line, whoever wrote it."""
    try:
        named = next(iter(names(certificate)), "") or certificate.subject.rfc4514_string()
    except ValueError:
        named = ""
    return shortened(named) or "nobody"


def shortened(text: str) -> str:
    """A name from a certificate as it may stand in a log: short, and no control characters."""
    return "".join(each if each.isprintable() else "?" for each in text[:MAX_SHOWN])


def names(certificate: x509.Certificate) -> tuple[str, ...]:
    """
    The names in a certificate, in their order, each once: the common names of its subject, then what the
    extension subjectAltName has of DNS names, mail addresses and URIs (RFC 5280 4.2.1.6).

    A malformed certificate names nobody.
    """
    try:
        return tuple(dict.fromkeys(filter(None, _names(certificate))))
    except (ValueError, x509.DuplicateExtension):
        return ()


def _names(certificate: x509.Certificate) -> list[str]:
    """@raise ValueError: for a malformed subject or extension."""
    found = [_text(one.value) for one in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    try:
        others = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return found
    for kind in (x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier):
        found += others.get_values_for_type(kind)
    return found


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_READ)
    except OSError as error:
        raise ConfigurationError(error.strerror or str(error), path) from None


def _certificates(path: str) -> tuple[x509.Certificate, ...]:
    data = _read(path)
    try:
        found = x509.load_pem_x509_certificates(data)
    except ValueError:
        raise ConfigurationError(
            "holds no certificate in PEM form, which begins with -----BEGIN CERTIFICATE-----", path
        ) from None
    return tuple(found)


def _key(path: str) -> Any:
    data = _read(path)
    try:
        return load_pem_private_key(data, None)
    except TypeError:
        raise ConfigurationError(
            "the key has a passphrase, and nobody is there to give it; openssl pkey takes it off", path
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(
            "holds no private key in PEM form, which begins with -----BEGIN PRIVATE KEY-----", path
        ) from None


def _public(key: Any) -> bytes:
    made: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return made


def _checkTime(certificates: Sequence[x509.Certificate], path: str, now: datetime | None) -> None:
    """@raise ConfigurationError: if none of them is valid now."""
    now = now or datetime.now(UTC)
    faults = [_untimely(each, now) for each in certificates]
    if all(faults):
        raise ConfigurationError(str(faults[0]), path)


def _untimely(certificate: x509.Certificate, now: datetime) -> str | None:
    """What is wrong with the time at which a certificate is used, if anything is."""
    if now > certificate.not_valid_after_utc:
        return (
            f"the certificate of {subject(certificate)} has expired, {_day(certificate.not_valid_after_utc)}"
        )
    if now < certificate.not_valid_before_utc:
        return (
            f"the certificate of {subject(certificate)} is not valid before"
            f" {_day(certificate.not_valid_before_utc)}"
        )
    return None


def _day(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC")
