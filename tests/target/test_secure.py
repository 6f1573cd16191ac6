"""Portals that speak TLS, and initiators that do."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.auth.chap import Credentials
from iscsi_twisted.config.auths import parseAuths
from iscsi_twisted.errors import ConfigurationError, ISCSIError, LocalError
from iscsi_twisted.initiator import LUN, Initiator
from iscsi_twisted.initiator import secure as client
from iscsi_twisted.initiator.remote import nameRemote
from iscsi_twisted.initiator.secure import clientEndpoint
from iscsi_twisted.interfaces import Asker, Grant
from iscsi_twisted.session.answers import LoginRefused
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.target import TargetService
from iscsi_twisted.target.change import Wanted
from iscsi_twisted.target.listeners import listener
from iscsi_twisted.target.secure import TLSEndpoint, serverEndpoint
from iscsi_twisted.target.users import FileUsers
from tests.support.certificates import YEAR, Authority
from tests.support.wire import TARGET
from tests.target.test_loopback import LoopbackTestCase

LOGIN_TIME = 5.0
USERS = "agc:tls\njoe:tls:joe@example.com\nsue:chap:correct-horse-battery\n"


class DescriptionTests(SynchronousTestCase):
    """What descriptions of such portals may say."""

    def setUp(self) -> None:
        """Files to name."""
        self.authority = Authority(self.mktemp())
        self.certificate, self.key = self.authority.issue("localhost", "localhost")

    def fault(self, *parts: str, **words: str) -> str:
        """What is wrong with a description."""
        return str(self.assertRaises(ConfigurationError, serverEndpoint, None, *parts, **words))

    def test_files(self) -> None:
        """Key, certificate and authorities are named; the key may stand with the certificate."""
        made = serverEndpoint(None, "3260", key=self.key, cert=self.certificate)
        self.assertEqual((made.tcp.port, made.tcp.interface, made.tls.files.clientCA), (3260, "", ""))
        made = serverEndpoint(
            None, "0", key=self.key, cert=self.certificate, clientCA=self.authority.path, interface="::1",
            backlog="7", clientCert="optional",
        )  # fmt: skip
        self.assertEqual((made.tcp.interface, made.tcp.backlog, made.tls.files.required), ("::1", 7, False))
        self.assertEqual(repr(made), "<TLSEndpoint port 0 of ::1>")

    def test_faults(self) -> None:
        """What is missing, unknown or does not fit is told before anything listens."""
        both = {"key": self.key, "cert": self.certificate}
        self.assertIn("should read iscsi-tls:PORT:key=FILE:cert=FILE", self.fault())
        self.assertIn("should read iscsi-tls:PORT:key=FILE:cert=FILE", self.fault("3260", key=self.key))
        self.assertIn("'speed=' has no meaning here; it should", self.fault("1", speed="2", **both))
        self.assertIn("'2' has no meaning here", self.fault("1", "2", **both))
        self.assertIn("should read iscsi-tls:PORT", self.fault("http", **both))
        self.assertIn("0 to 65535", self.fault("65536", **both))
        self.assertIn(
            "clientCert=: required or optional is wanted, not 'no'", self.fault("1", clientCert="no", **both)
        )
        self.assertIn("clientCert= without clientCA=", self.fault("1", clientCert="optional", **both))
        self.assertIn("holds no private key", self.fault("1", cert=self.certificate))
        self.assertIn("No such file", self.fault("1", clientCA="/nonexistent/ca", **both))
        old = Authority(self.mktemp(), age=2 * YEAR)
        self.assertIn(
            f"{old.path}: the certificate of authority has expired",
            self.fault("1", clientCA=old.path, **both),
        )

    def test_plugin(self) -> None:
        """Twisted's own functions know both kinds of endpoint; they get their words alone."""
        description = f"iscsi-tls:3260:key={self.key}:cert={self.certificate}"
        self.assertIsInstance(serverFromString(None, description), TLSEndpoint)
        self.assertIsInstance(clientFromString(None, "iscsi-tls:localhost:3260"), client.TLSEndpoint)
        guarded = listener(None, f"{description}:clientCA={self.authority.path}")
        self.assertTrue(guarded.portal.guarded)
        self.assertFalse(listener(None, guarded.name + ":clientCert=optional").portal.guarded)
        made = listener(None, description + ":tpgt=3:advertise=127.0.0.1:3261")
        self.assertEqual(
            (made.portal.tag, made.portal.carrier, made.portal.advertised), (3, "tls", "127.0.0.1:3261")
        )
        error = self.assertRaises(
            ConfigurationError, listener, None, "iscsi-tls:1:key=/nonexistent:cert=/nonexistent"
        )
        self.assertIn(
            "'iscsi-tls:1:key=/nonexistent:cert=/nonexistent': /nonexistent: No such file", str(error)
        )

    def test_withoutOpenSSL(self) -> None:
        """Where pyOpenSSL is not installed, whoever wants TLS is told what to do."""
        names = [name for name in sys.modules if name.startswith(("iscsi_twisted.tls", "OpenSSL"))]
        names += ["iscsi_twisted.target.secure", "iscsi_twisted.initiator.secure"]
        with patch.dict(sys.modules):
            for name in names:
                del sys.modules[name]
            sys.modules["OpenSSL"] = None  # type: ignore[assignment]
            description = f"iscsi-tls:1:key={self.key}:cert={self.certificate}"
            error: Exception = self.assertRaises(ConfigurationError, listener, None, description)
            self.assertIn("it needs pyOpenSSL: pip install iscsi-twisted[tls]", str(error))
            error = self.assertRaises(LocalError, Initiator(Clock()).endpoint, "iscsi-tls:host:1")
            self.assertIn("TLS needs pyOpenSSL: pip install iscsi-twisted[tls]", str(error))
            error = self.assertRaises(ConfigurationError, nameRemote, f"iscsis://host/{TARGET}/0")
            self.assertIn("TLS needs pyOpenSSL: pip install iscsi-twisted[tls]", str(error))


class TLSTestCase(LoopbackTestCase):
    """Serves over TLS."""

    def setUp(self) -> None:
        """An authority, a target's certificate and an initiator's."""
        super().setUp()
        self.authority = Authority(self.mktemp())
        self.certificate, self.key = self.authority.issue("localhost", "localhost", "127.0.0.1")
        self.agc = self.authority.issue("agc")
        self.initiator = Initiator(self.reactor)

    def secured(self, words: str = "", users: str = "", **options: Any) -> TargetService:
        """A service whose only portal speaks TLS."""
        listen = f"iscsi-tls:0:key={self.key}:cert={self.certificate}:interface=127.0.0.1{words}"
        if users:
            options["secrets"] = FileUsers(parseAuths(users, None))
        service = self.serve(MemoryDevice(1 << 20), listen=listen, **options)
        service.startService()
        return service

    def there(self, service: TargetService, host: str = "localhost", **words: str) -> client.TLSEndpoint:
        """Where it is; the authority is trusted."""
        return clientEndpoint(
            self.reactor, host, str(self.port(service)), **({"caFile": self.authority.path} | words)
        )

    def shown(self, pair: tuple[str, str]) -> dict[str, str]:
        """The words with which an initiator shows a certificate."""
        return {"cert": pair[0], "key": pair[1]}

    async def user(self, endpoint: Any, target: str = TARGET, **options: Any) -> str:
        """Log in; who the target then knows."""
        session = await self.initiator.login(endpoint, target, **options)
        await session.ping(b"")
        (status,) = self.service.status().sessions
        user = status.user
        self.assertTrue(status.connection.certificate or "cert" not in str(options))
        await session.logout()
        return user

    async def refusal(self, endpoint: Any, **options: Any) -> ISCSIError:
        """Why a login does not succeed."""
        try:
            session = await self.initiator.login(endpoint, TARGET, **options)
        except ISCSIError as error:
            return error
        await session.logout()
        self.fail("it was let in")

    @property
    def clientCA(self) -> str:
        """The word that asks for certificates."""
        return f":clientCA={self.authority.path}"


class HandshakeTests(TLSTestCase):
    """Who talks to whom."""

    async def test_io(self) -> None:
        """What is written over TLS is read back, in large and small pieces; discovery tells the address."""
        service = self.secured()
        there = self.there(service)
        (found,) = await self.initiator.discover(there)
        self.assertEqual(found.addresses, (f"127.0.0.1:{self.port(service)},1",))
        session = await self.initiator.login(there, TARGET, headerDigest="yes", dataDigest="yes")
        lun = LUN(session, 0)
        await lun.open()
        data = os.urandom(1 << 20)
        await lun.write(0, data)
        self.assertEqual(bytes(await lun.read(0, 1 << 20)), data)
        self.assertEqual(bytes(await lun.read(4096, 512)), data[4096:4608])
        await session.logout()

    async def test_version(self) -> None:
        """TLS 1.3 is spoken, and nothing older."""
        service = self.secured()
        (error, version) = await deferToThread(self.versions, self.port(service))
        self.assertIn("alert protocol version", error.lower().replace("_", " "))
        self.assertEqual(version, "TLSv1.3")

    def versions(self, port: int) -> tuple[str, str | None]:
        """What becomes of a client that knows nothing newer than TLS 1.2, and what another agrees upon."""
        import ssl

        context = ssl.create_default_context(cafile=self.authority.path)
        made = socket.create_connection(("127.0.0.1", port))
        with context.wrap_socket(made, server_hostname="localhost") as wrapped:
            version = wrapped.version()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with socket.create_connection(("127.0.0.1", port)) as made:
            try:
                context.wrap_socket(made, server_hostname="localhost").close()
            except ssl.SSLError as error:
                return str(error), version
        return "", version

    async def test_wrongHost(self) -> None:
        """A target whose certificate is for another host is not talked to, nor one at another address."""
        self.certificate, self.key = self.authority.issue(
            "other.example.com", "other.example.com", "127.0.0.2"
        )
        service = self.secured()
        for host in ("localhost", "127.0.0.1"):
            error = await self.refusal(self.there(service, host))
            self.assertIn(
                f"TLS: the certificate of the target is for other.example.com, and not for {host}", str(error)
            )
        session = await self.initiator.login(self.there(service, name="other.example.com"), TARGET)
        await session.logout()

    async def test_address(self) -> None:
        """A certificate can be for an address."""
        session = await self.initiator.login(self.there(self.secured(), "127.0.0.1"), TARGET)
        await session.logout()

    async def test_unknownAuthority(self) -> None:
        """A target that somebody unknown speaks for is not talked to; the target logs that."""
        service = self.secured()
        other = Authority(self.mktemp(), "other")
        with capturedLogs() as events:
            error = await self.refusal(self.there(service, caFile=other.path))
            await self.ended(service)
        self.assertIn("TLS: the certificate of localhost: its issuer is not known here", str(error))
        self.assertEqual(
            [(each["address"], each["reason"]) for each in events if each.get("event") == "handshakeFailed"],
            [("127.0.0.1", "TLS: the other side refuses it: unknown ca")],
        )
        error = await self.refusal(clientEndpoint(self.reactor, "localhost", str(self.port(service))))
        self.assertIn("its issuer is not known here", str(error))

    def ended(self, service: TargetService) -> Deferred[None]:
        """Wait until there is no connection."""
        (factory,) = service.factories
        return factory.whenIdle()

    async def test_expired(self) -> None:
        """A target whose certificate has expired is not talked to."""
        certificate, key = self.authority.issue("localhost", "localhost", age=2 * YEAR)
        # Our own portals refuse to begin with such a one.
        listen = f"ssl:0:privateKey={key}:certKey={certificate}:interface=127.0.0.1"
        service = self.serve(MemoryDevice(512), listen=listen)
        service.startService()
        error = await self.refusal(self.there(service))
        self.assertIn("TLS: the certificate of localhost: it has expired", str(error))

    async def test_plain(self) -> None:
        """Whoever speaks plain iSCSI to such a portal is told nothing, and the log says what was wrong."""
        service = self.secured()
        with capturedLogs() as events:
            await self.refusal(f"127.0.0.1:{self.port(service)}")
            await self.ended(service)
        (event,) = [each for each in events if each.get("event") == "handshakeFailed"]
        self.assertEqual(event["reason"], "TLS: it speaks no TLS")

    async def test_renewed(self) -> None:
        """A certificate that is renewed is taken up by the next connection; a broken one is not."""
        service = self.secured()
        before = await self.serial(service)
        with open(self.certificate, "a") as file:
            file.write(" ")
        with open(self.key) as file:
            kept = file.read()
        with capturedLogs() as events:
            with open(self.key, "w") as file:
                file.write("nothing")
            self.assertEqual(await self.serial(service), before)
        (event,) = [each for each in events if each.get("event") == "notRenewed"]
        self.assertIn("holds no private key", str(event["error"]))
        with open(self.key, "w") as file:
            file.write(kept)
        self.assertEqual(await self.serial(service), before)
        for old, new in zip(
            (self.certificate, self.key), self.authority.issue("new", "localhost"), strict=True
        ):
            shutil.copy(new, old)
        self.assertNotEqual(await self.serial(service), before)

    async def test_reloaded(self) -> None:
        """A reload looks at the files at once, through whatever there is before a portal."""
        for before in ("", "haproxy:"):
            listen = f"{before}iscsi-tls:0:key={self.key}:cert={self.certificate}:interface=127.0.0.1"
            service = self.serve(MemoryDevice(512), listen=listen, read=lambda: Wanted(()))
            service.startService()
            with open(self.key) as file:
                kept = file.read()
            for text, event in (("", "notRenewed"), (kept, "renewed")):
                with open(self.key, "w") as file:
                    file.write(text)
                with capturedLogs() as events:
                    await service.reload()
                self.assertEqual([each["event"] for each in events if "event" in each], [event, "reloaded"])

    async def test_renewedMeanwhile(self) -> None:
        """Sessions go on when the certificate is another; what is no file any more is not waited for."""
        service = self.secured()
        session = await self.initiator.login(self.there(service), TARGET)
        before = await self.serial(service)
        for old, new in zip(
            (self.certificate, self.key), self.authority.issue("new", "localhost"), strict=True
        ):
            shutil.copy(new, old)
        self.assertNotEqual(await self.serial(service), before)
        await session.ping(b"here")
        now = await self.serial(service)
        os.rename(self.key, self.key + ".old")
        os.mkfifo(self.key)
        with capturedLogs() as events:
            self.assertEqual(await self.serial(service), now)
        (event,) = [each for each in events if each.get("event") == "notRenewed"]
        self.assertIn("is no regular file, and is read at the start only", str(event["error"]))
        os.rename(self.key + ".old", self.key)
        os.chmod(self.key, 0o644)
        with capturedLogs() as events:
            self.assertEqual(await self.serial(service), now)
        self.assertEqual([each["event"] for each in events if "event" in each], ["open", "renewed"])
        await session.logout()

    async def test_weak(self) -> None:
        """A certificate that OpenSSL does not use is told; if it comes later the old one stays."""
        weak = self.authority.issue("weak", "localhost", bits=1024)
        error = self.assertRaises(ConfigurationError, serverEndpoint, None, "1", cert=weak[0], key=weak[1])
        self.assertEqual(
            str(error),
            f"{os.path.abspath(weak[0])}: OpenSSL does not use these certificates: ee key too small",
        )
        service = self.secured()
        before = await self.serial(service)
        for old, new in zip((self.certificate, self.key), weak, strict=True):
            shutil.copy(new, old)
        with capturedLogs() as events:
            self.assertEqual(await self.serial(service), before)
        self.assertIn("notRenewed", [each.get("event") for each in events])
        self.assertEqual(self.flushLoggedErrors(), [])

    def serial(self, service: TargetService) -> Deferred[int]:
        """The serial number of the certificate that a service shows."""
        import ssl

        from cryptography import x509

        def ask() -> int:
            shown = ssl.get_server_certificate(("127.0.0.1", self.port(service)))
            return x509.load_pem_x509_certificate(shown.encode()).serial_number

        return deferToThread(ask)

    async def test_netmask(self) -> None:
        """A host that no target admits is cut off before anybody speaks TLS with it."""
        from iscsi_twisted.config.netmasks import Netmask

        listen = f"iscsi-tls:0:key={self.key}:cert={self.certificate}:interface=127.0.0.1"
        service = self.serve(listen=listen)
        service.addTarget(TARGET, [MemoryDevice(512)], policy=Netmask("192.0.2.0/24"))
        service.startService()
        with capturedLogs() as events:
            await self.refusal(self.there(service))
        self.assertEqual([each["event"] for each in events if "event" in each], ["turnedAway"])


class CertificateTests(TLSTestCase):
    """Initiators that show certificates."""

    async def test_required(self) -> None:
        """Where certificates are required nobody gets in without one, or with one of another authority."""
        service = self.secured(self.clientCA)
        with capturedLogs() as events:
            none = await self.refusal(self.there(service))
            other = Authority(self.mktemp(), "other").issue("agc")
            wrong = await self.refusal(self.there(service, **self.shown(other)))
            old = self.authority.issue("late", age=2 * YEAR)
        self.assertIn("TLS: the other side refuses it: certificate required", str(none))
        self.assertIn("TLS: the other side refuses it: unknown ca", str(wrong))
        self.assertEqual(
            [each["reason"] for each in events if each.get("event") == "handshakeFailed"],
            [
                "TLS: it shows no certificate, and one is required",
                "TLS: the certificate of agc: its issuer is not known here",
            ],
        )
        error = self.assertRaises(ConfigurationError, self.there, service, **self.shown(old))
        self.assertIn("the certificate of late has expired", str(error))
        session = await self.initiator.login(self.there(service, **self.shown(self.agc)), TARGET)
        await session.logout()

    async def test_user(self) -> None:
        """Whoever shows a user's certificate is that user, and needs no secret."""
        self.service = service = self.secured(self.clientCA, USERS)
        self.assertEqual(await self.user(self.there(service, **self.shown(self.agc))), "agc")
        from cryptography import x509

        joe = self.authority.issue("J. Doe", x509.RFC822Name("joe@example.com"))
        self.assertEqual(await self.user(self.there(service, **self.shown(joe))), "joe")
        (found,) = await self.initiator.discover(self.there(service, **self.shown(joe)))
        self.assertEqual(found.name, TARGET)

    async def test_secretToo(self) -> None:
        """Who has a certificate may be another user with a secret; if it is nobody's, has to be."""
        self.service = service = self.secured(self.clientCA, USERS)
        sue = Credentials("sue", b"correct-horse-battery")
        for pair in (self.agc, self.authority.issue("stranger")):
            self.assertEqual(await self.user(self.there(service, **self.shown(pair)), credentials=sue), "sue")
        error = await self.refusal(self.there(service, **self.shown(self.authority.issue("stranger"))))
        assert isinstance(error, LoginRefused)
        self.assertEqual(error.status, 0x0201)
        wrong = Credentials("sue", b"wrong-horse-battery")
        error = await self.refusal(self.there(service, **self.shown(self.agc)), credentials=wrong)
        self.assertIn("0201", str(error))

    async def test_optional(self) -> None:
        """Where certificates are optional, one without needs a secret; a wrong one is refused."""
        self.service = service = self.secured(self.clientCA + ":clientCert=optional", USERS)
        self.assertEqual(await self.user(self.there(service, **self.shown(self.agc))), "agc")
        sue = Credentials("sue", b"correct-horse-battery")
        self.assertEqual(await self.user(self.there(service), credentials=sue), "sue")
        error = await self.refusal(self.there(service))
        assert isinstance(error, LoginRefused)
        self.assertEqual(error.status, 0x0201)
        other = Authority(self.mktemp(), "other").issue("agc")
        self.assertIn("unknown ca", str(await self.refusal(self.there(service, **self.shown(other)))))

    async def test_otherUser(self) -> None:
        """A user who may not use the target is refused in spite of a certificate, and told of no target."""
        listen = f"iscsi-tls:0:key={self.key}:cert={self.certificate}:interface=127.0.0.1{self.clientCA}"
        service = self.serve(listen=listen, secrets=FileUsers(parseAuths(USERS, None)))
        service.addTarget(TARGET, [MemoryDevice(512)], users=["joe"])
        service.startService()
        there = self.there(service, **self.shown(self.agc))
        error = await self.refusal(there)
        assert isinstance(error, LoginRefused)
        self.assertEqual(error.status, 0x0202)
        self.assertEqual(await self.initiator.discover(there), [])

    async def test_policy(self) -> None:
        """A policy of an application's is told the names in the certificate."""
        asked: list[Asker] = []

        class Policy:
            def admits(self, address: str | None) -> bool:
                return True

            def decide(self, asker: Asker) -> Grant | None:
                asked.append(asker)
                return Grant()

        listen = f"iscsi-tls:0:key={self.key}:cert={self.certificate}:interface=127.0.0.1{self.clientCA}"
        service = self.serve(listen=listen)
        service.addTarget(TARGET, [MemoryDevice(512)], policy=Policy())
        service.startService()
        session = await self.initiator.login(self.there(service, **self.shown(self.agc)), TARGET)
        await session.logout()
        self.assertEqual({each.certificate for each in asked}, {("agc",)})
