"""Authorities and certificates for tests, made anew each time."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

YEAR = timedelta(days=365)


class Authority:
    """
    Signs certificates, and keeps them in a directory.

    @ivar path: its own certificate.
    """

    def __init__(self, directory: str, name: str = "authority", *, age: timedelta = timedelta(0)) -> None:
        """@param age: how long ago all of its certificates were made."""
        os.makedirs(directory, exist_ok=True)
        self.directory, self.name, self._age = directory, name, age
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _subject(name)
        self.path = self._write(f"{name}.pem", self._sign(name, self._key.public_key(), (), None))

    def issue(
        self,
        name: str,
        *others: x509.GeneralName | str,
        age: timedelta | None = None,
        passphrase: bytes = b"",
        more: Sequence[x509.ExtensionType] = (),
        bits: int = 0,
    ) -> tuple[str, str]:
        """
        Make a key and its certificate.

        @param name: the common name.
        @param others: more names; texts are DNS names or IP addresses.
        @param age: how long ago; as of the authority's own if None.
        @param more: extensions.
        @param bits: of an RSA key; 0 for one on an elliptic curve.
        @return: paths of the certificate and the key.
        """
        key = rsa.generate_private_key(65537, bits) if bits else ec.generate_private_key(ec.SECP256R1())
        named = [_general(each) for each in others]
        certificate = self._sign(name, key.public_key(), named, age, ca=False, more=more)
        encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        path = self._write(f"{name}.crt", certificate)
        return path, self._write(f"{name}.key", private)

    def _sign(
        self,
        name: str,
        key: Any,
        others: Any,
        age: timedelta | None,
        ca: bool = True,
        more: Sequence[x509.ExtensionType] = (),
    ) -> bytes:
        began = datetime.now(UTC) - timedelta(hours=1) - (self._age if age is None else age)
        made = (
            x509.CertificateBuilder()
            .subject_name(_subject(name))
            .issuer_name(self._subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(began)
            .not_valid_after(began + YEAR)
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
        )
        if others:
            made = made.add_extension(x509.SubjectAlternativeName(others), critical=False)
        for each in more:
            made = made.add_extension(each, critical=False)
        return made.sign(self._key, SHA256()).public_bytes(Encoding.PEM)

    def _write(self, name: str, data: bytes) -> str:
        path = os.path.join(self.directory, re.sub(r"[/*\0]", "_", name))
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
        return path


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)] if name else [])


def _general(name: x509.GeneralName | str) -> x509.GeneralName:
    if isinstance(name, x509.GeneralName):
        return name
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
