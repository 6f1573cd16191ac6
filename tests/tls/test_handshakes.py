"""Handshakes with peers that mean no good, in memory."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.initiator.secure import clientEndpoint
from iscsi_twisted.target.secure import serverEndpoint
from iscsi_twisted.tls.protocol import GuardedFactory, GuardedTLS
from tests.support.certificates import YEAR, Authority

MALFORMED_NAMES = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\x30\x03\x82\x05a")


class Noting(Protocol):
    """Notes what comes."""

    def __init__(self) -> None:
        self.received = b""
        self.why: str | None = None
        self.names: tuple[str, ...] = ()

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        guarded: Any = self.transport
        self.names = guarded.certifiedNames()

    def connectionLost(self, reason: Any = None) -> None:
        guarded: Any = self.transport
        self.why = guarded.why(reason)


class HandshakeCase(SynchronousTestCase):
    """An authority, a target that it knows, and one end of a connection that OpenSSL plays by itself."""

    def setUp(self) -> None:
        warnings.simplefilter("ignore", DeprecationWarning)
        self.addCleanup(warnings.resetwarnings)
        self.authority = Authority(self.mktemp())
        self.target = self.authority.issue("localhost", "localhost")

    def guarded(self, creator: Any, client: bool) -> tuple[Noting, GuardedTLS, StringTransport]:
        """Our own end."""
        noting, transport = Noting(), StringTransport()
        factory = GuardedFactory(creator, client, Factory.forProtocol(lambda: noting), Clock())
        made: Any = factory.buildProtocol(None)  # type: ignore[arg-type]
        made.makeConnection(transport)
        return noting, made, transport

    def talk(self, other: SSL.Connection, made: GuardedTLS, transport: StringTransport) -> str:
        """Let both ends speak until neither has anything to say; what the other end hears of it."""
        told = ""
        for _ in range(12):
            try:
                other.do_handshake()
                other.send(b"hello")
                other.recv(1)
            except SSL.WantReadError:
                pass
            except SSL.Error as error:
                told = told or str(error)
            with contextlib.suppress(SSL.WantReadError):
                made.dataReceived(other.bio_read(1 << 20))
            data = transport.value()
            transport.clear()
            if data:
                other.bio_write(data)
        made.connectionLost(Failure(ConnectionDone()))
        return told


class ServerTests(HandshakeCase):
    """The target's side."""

    def shows(self, certificate: bytes, key: str, newest: int = SSL.TLS1_3_VERSION) -> tuple[Noting, str]:
        """An initiator shows a certificate; what our end knows, and what that one hears."""
        tls = serverEndpoint(
            None, "0", cert=self.target[0], key=self.target[1], clientCA=self.authority.path
        ).tls
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        context.set_max_proto_version(newest)
        context.use_certificate(crypto.load_certificate(crypto.FILETYPE_ASN1, certificate))
        with open(key, "rb") as file:
            context.use_privatekey(crypto.load_privatekey(crypto.FILETYPE_PEM, file.read()))
        other = SSL.Connection(context, None)
        other.set_connect_state()
        noting, made, transport = self.guarded(tls, False)
        return noting, self.talk(other, made, transport)

    def der(self, path: str) -> bytes:
        """A certificate's bytes."""
        with open(path, "rb") as file:
            return x509.load_pem_x509_certificate(file.read()).public_bytes(Encoding.DER)

    def test_malformed(self) -> None:
        """A certificate that cannot be read is refused as others are, and raises nothing."""
        path, key = Authority(self.mktemp(), "other").issue("agcagc")
        good = self.der(path)
        version = good.index(b"\xa0\x03\x02\x01\x02") + 4
        for name, made in (
            ("agcagc", good),
            ("ag??[c", good.replace(b"agcagc", b"ag\n\x1b[c")),
            ("ag?cgc", good.replace(b"agcagc", b"ag\0cgc")),
            ("nobody", good.replace(b"\x0c\6agcagc", b"\x13\6ag\xff\xfegc")),
            ("nobody", good.replace(b"\x0c\6agcagc", b"\x16\6ag\xff\xfegc")),
            ("nobody", good[:version] + b"\x4d" + good[version + 1 :]),
        ):
            noting, told = self.shows(made, key)
            self.assertEqual(noting.why, f"TLS: the certificate of {name}: its issuer is not known here")
            self.assertIn("unknown ca", told)
            self.assertEqual(noting.received, b"")

    def test_malformedNames(self) -> None:
        """An authority's certificate whose names cannot be read is nobody's."""
        path, key = self.authority.issue("agc", more=[MALFORMED_NAMES])
        noting, _ = self.shows(self.der(path), key)
        self.assertEqual(noting.names, ())

    def test_names(self) -> None:
        """Names count as they stand, whatever they look like; and there may be many."""
        many = [f"{number}.example.com" for number in range(2000)]
        for names in (("*", "*.example.com"), ("agc", *many), ("",)):
            path, key = self.authority.issue(*names)
            noting, _ = self.shows(self.der(path), key)
            self.assertEqual(noting.names, tuple(filter(None, names)))
            self.assertEqual(noting.received[:5], b"hello")

    def test_excessive(self) -> None:
        """A certificate of megabytes is not read."""
        path, key = self.authority.issue("agc", *(f"{number}.example.com" for number in range(9000)))
        noting, _ = self.shows(self.der(path), key)
        self.assertEqual((noting.why, noting.received), ("TLS: excessive message size", b""))

    def test_purpose(self) -> None:
        """A certificate for servers proves no initiator."""
        usage = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH])
        path, key = self.authority.issue("agc", more=[usage])
        noting, _ = self.shows(self.der(path), key)
        self.assertEqual(noting.why, "TLS: the certificate of agc: it is not meant for this purpose")
        self.assertEqual(noting.received, b"")

    def test_untimely(self) -> None:
        """One that has expired, or is not valid yet, proves nobody; nor does a key that is too short."""
        for options, why in (
            ({"age": 2 * YEAR}, "it has expired"),
            ({"age": -YEAR}, "it is not valid yet"),
            ({"bits": 1024}, "its key is too short"),
        ):
            path, key = self.authority.issue("agc", **options)  # type: ignore[arg-type]
            noting, _ = self.shows(self.der(path), key)
            self.assertEqual((noting.why, noting.received), (f"TLS: the certificate of agc: {why}", b""))

    def test_oldVersion(self) -> None:
        """TLS 1.2 is not spoken, so nothing is negotiated anew."""
        path, key = self.authority.issue("agc")
        noting, told = self.shows(self.der(path), key, SSL.TLS1_2_VERSION)
        self.assertEqual((noting.why, noting.received), ("TLS: it speaks no TLS 1.3", b""))
        self.assertIn("protocol version", told)

    def test_longName(self) -> None:
        """What a stranger calls itself fills no log."""
        path, key = Authority(self.mktemp(), "other").issue("", "x" * 60 + "." + "y" * 5000)
        noting, _ = self.shows(self.der(path), key)
        assert noting.why is not None
        self.assertLess(len(noting.why), 200)


class ClientTests(HandshakeCase):
    """The initiator's side."""

    def meets(self, pair: tuple[str, str], expected: str = "localhost") -> Noting:
        """A target with this certificate, where another was expected or the same."""
        tls = clientEndpoint(None, "localhost", caFile=self.authority.path).tls
        tls.name = expected
        context = SSL.Context(SSL.TLS_METHOD)
        context.use_certificate_file(pair[0])
        context.use_privatekey_file(pair[1])
        other = SSL.Connection(context, None)
        other.set_accept_state()
        noting, made, transport = self.guarded(tls, True)
        self.talk(other, made, transport)
        return noting

    def test_right(self) -> None:
        """The target that was meant is talked to."""
        noting = self.meets(self.target)
        self.assertEqual((noting.why, noting.received[:5]), (None, b"hello"))

    def test_names(self) -> None:
        """Others are not: whether they are called otherwise, or nothing, or cannot be read."""
        for names, words in (
            (("other", "other.example.com"), "is for other, other.example.com, and not for localhost"),
            (("localhost",), "is for localhost, and not for localhost"),
            (("",), "is for nobody, and not for localhost"),
            (("*", "*"), "is for *, and not for localhost"),
            (("localhost\0", "192.0.2.1"), "is for localhost?, and not for localhost"),
        ):
            noting = self.meets(self.authority.issue(*names))
            self.assertEqual(
                (noting.why, noting.received), (f"TLS: the certificate of the target {words}", b"")
            )

    def test_unanswerable(self) -> None:
        """If it cannot be found out whether a name is the right one it is not."""
        noting = self.meets(self.target, "local host")
        self.assertEqual(
            (noting.why, noting.received), ("TLS: the certificate of the target cannot be checked", b"")
        )

    def test_malformed(self) -> None:
        """Names that cannot be read are not taken for the right ones."""
        noting = self.meets(self.authority.issue("localhost", more=[MALFORMED_NAMES]))
        self.assertIsNotNone(noting.why)
        self.assertEqual(noting.received, b"")
