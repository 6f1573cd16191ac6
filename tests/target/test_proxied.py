"""Portals whose peers come through something else: a proxy, a UNIX socket, a socket of systemd's."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase

from iscsi_twisted.config.netmasks import Netmask
from iscsi_twisted.errors import ConfigurationError
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.target import TargetService
from iscsi_twisted.target.listeners import listener
from iscsi_twisted.target.proxied import ProxiedEndpoint
from tests.support.certificates import Authority
from tests.support.processes import Python, portIn
from tests.support.rawclient import Closed, RawClient
from tests.support.wire import TARGET, read10, write10
from tests.target.test_loopback import LoopbackTestCase, loggedIn
from tests.target.test_proxyheader import binary

T = TypeVar("T")

BASE = "iqn.1994-04.org.netbsd.iscsi-target:target0"
REFUSED = b"\x02\x02"
"""Login status: authorization failure (RFC 7143 11.13.5)."""

PASSED = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 3260\r\n"
"""What a proxy says."""


class ProxyTests(LoopbackTestCase):
    """Tests of the PROXY protocol, as C{haproxy:} portals speak it."""

    def masked(self, *others: str) -> TargetService:
        """
        A service with a target for one network, which is not the proxy's.

        @param others: netmasks of more targets.
        """
        service = self.serve(listen="haproxy:tcp:0:interface=127.0.0.1")
        for number, mask in enumerate(("192.0.2.0/24", *others)):
            name = f"{TARGET}{number or ''}"
            service.addTarget(name, [MemoryDevice(512)], policy=Netmask(mask))
        service.startService()
        return service

    def status(self, service: TargetService, words: bytes) -> Deferred[bytes]:
        """Status class and detail of a login through a proxy."""

        def run(client: RawClient) -> bytes:
            client.send(words)
            return bytes(client.login(TARGET).header[36:38])

        return self.talk(service, run)

    async def test_netmask(self) -> None:
        """Netmasks look at the address that the proxy tells, not at the proxy's own."""
        service = self.masked("any")
        for words, status in (
            (PASSED, b"\0\0"),
            (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 40000 3260\r\n", b"\0\0"),
            (b"PROXY TCP4 203.0.113.7 198.51.100.1 40000 3260\r\n", REFUSED),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 3260\r\n", REFUSED),
            (b"PROXY UNKNOWN 192.0.2.7 198.51.100.1 40000 3260\r\n", REFUSED),
        ):
            self.assertEqual(await self.status(service, words), status, words)

    async def test_unknown(self) -> None:
        """Whom the proxy does not know is nowhere, but the proxy's own connections are on its machine."""
        service = self.serve(listen="haproxy:tcp:0:interface=127.0.0.1")
        for name, mask in ((TARGET, "127.0.0.0/8"), (f"{TARGET}1", "any")):
            service.addTarget(name, [MemoryDevice(512)], policy=Netmask(mask))
        service.startService()
        unspecified, unix = (binary(kind, bytes(216)) for kind in (0x00, 0x31))
        for words, status in (
            (b"PROXY UNKNOWN\r\n", REFUSED), (unspecified, REFUSED), (unix, REFUSED),
            (binary(0, b"", 0x20), b"\0\0"),
        ):  # fmt: skip
            self.assertEqual(await self.status(service, words), status, words)
        await self.status(service, unspecified)

        def open_(client: RawClient) -> bytes:
            client.send(unspecified)
            return bytes(client.login(f"{TARGET}1").header[36:38])

        with capturedLogs() as events:
            self.assertEqual(await self.talk(service, open_), b"\0\0")
        (address,) = [event["address"] for event in events if event.get("event") == "login"]
        self.assertEqual(address, "behind 127.0.0.1")

    async def test_turnedAway(self) -> None:
        """A host that no target admits is cut off once the proxy has told its address."""
        waiting = self.status(self.masked(), b"PROXY TCP4 203.0.113.7 198.51.100.1 40000 3260\r\n")
        with self.assertRaises((Closed, ConnectionError)):
            await waiting

    async def test_discovery(self) -> None:
        """The address that discovery tells is the one that the client connected to."""
        service = self.masked()

        def discover(client: RawClient) -> bytes:
            client.send(PASSED)
            client.login(None)
            return client.text(SendTargets="All").data

        self.assertIn(b"TargetAddress=198.51.100.1:3260,1\0", await self.talk(service, discover))

    async def test_pieces(self) -> None:
        """A header may come byte by byte, or with the first request."""
        service = self.masked()

        def slowly(client: RawClient) -> bytes:
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in PASSED:
                client.send(bytes((byte,)))
            return bytes(client.login(TARGET).header[36:38])

        self.assertEqual(await self.talk(service, slowly), b"\0\0")

    async def refused(self, service: TargetService, words: bytes) -> list[str]:
        """Say something that is no header; the reasons that are logged."""
        with capturedLogs() as events:
            with self.assertRaises((Closed, ConnectionError)):
                await self.status(service, words)
            (factory,) = service.factories
            await factory.whenIdle()
        self.assertEqual([event for event in events if "log_failure" in event], [])
        return [event["reason"] for event in events if event.get("event") == "handshakeFailed"]

    async def test_wrong(self) -> None:
        """Who does not say where it comes from, or lies badly, is cut off; that is one line of the log."""
        service = self.masked("any")
        line = "PROXY: its line is none of the protocol's"
        for words, why in (
            (b"\x43\x87" + bytes(46), "it does not begin with the PROXY protocol"),
            (
                b"PROXY TCP4 192.0.2.7 198.51.100.1 forty 3260\r\n",
                "PROXY: its line is none of the protocol's",
            ),
            (b"PROXY TCP4 \xff 198.51.100.1 40000 3260\r\n", line),
            (
                b"PROXY TCP4 192.0.2.7\n>\x1b[2J 198.51.100.1 40000 3260\r\n",
                "PROXY: its line is none of the protocol's",
            ),
            (
                binary(0x12, bytes(12)),
                "PROXY: family and protocol are 0x12: no stream that could carry iSCSI",
            ),
        ):
            self.assertEqual(await self.refused(service, words), [why])

    async def test_secondTry(self) -> None:
        """After a wrong header nothing that follows is looked at."""
        service = self.masked()
        self.assertEqual(len(await self.refused(service, b"nonsense" + PASSED)), 1)
        self.assertEqual(service.journal.logins, 0)

    async def test_proxies(self) -> None:
        """Only proxies that are named are believed, by default those of this machine."""
        for words, fine in (
            ("", True),
            (":proxies=192.0.2.0/24", False),
            (r":proxies=\:\:1,127.0.0.1", True),
        ):
            service = self.serve(MemoryDevice(512), listen=f"haproxy:tcp:0:interface=127.0.0.1{words}")
            service.startService()
            if fine:
                self.assertEqual(await self.status(service, PASSED), b"\0\0")
            else:
                why = "PROXY: no proxy is believed there (proxies=192.0.2.0/24)"
                self.assertEqual(await self.refused(service, PASSED), [why])

    async def test_plainPortal(self) -> None:
        """A portal that is not behind a proxy believes nobody."""
        service = self.serve()
        service.addTarget(TARGET, [MemoryDevice(512)], policy=Netmask("any,!127.0.0.0/8"))
        service.addTarget(f"{TARGET}1", [MemoryDevice(512)], policy=Netmask("127.0.0.0/8"))
        service.startService()
        for words in (PASSED, binary(0x11, bytes(12))):
            with self.assertRaises((Closed, ConnectionError)):
                await self.status(service, words)
        self.assertEqual(service.journal.logins, 0)

    def test_descriptions(self) -> None:
        """What stands in a description is told, or what is wrong with it."""
        made = listener(self.reactor, "haproxy:tcp:3262:proxies=10.0.0.1:tpgt=2")
        self.assertEqual((made.portal.tag, made.portal.carrier), (2, "haproxy"))
        assert isinstance(made.endpoint, ProxiedEndpoint)
        self.assertEqual(made.endpoint.terms, "PROXY protocol from 10.0.0.1")
        self.assertEqual(repr(made.endpoint), "<ProxiedEndpoint <VectorEndpoint port 3262 of 0.0.0.0>>")
        self.assertFalse(made.portal.guarded)
        authority = Authority(self.mktemp())
        certificate, key = authority.issue("localhost")
        inner = f"iscsi-tls:1:cert={certificate}:key={key}:clientCA={authority.path}"
        made = listener(self.reactor, f"haproxy:{inner}:proxies=any")
        self.assertTrue(made.portal.guarded)
        self.assertEqual(
            made.endpoint.terms,  # type: ignore[attr-defined]
            "PROXY protocol from any, TLS as localhost, certificates required",
        )
        for words, why in (
            ("", "should read haproxy:ENDPOINT, as in"), (":proxies=any", "should read haproxy:ENDPOINT"),
            (":tcp:1:proxies=host", "proxies=: 'host' is not a netmask"),
            (":tcp:1:proxies=any:proxies=any", "proxies= stands twice"),
            (":tcp:http", "should read tcp:PORT"),
        ):  # fmt: skip
            error = self.assertRaises(ConfigurationError, listener, self.reactor, f"haproxy{words}")
            self.assertIn(why, str(error))


class UNIXTests(LoopbackTestCase):
    """Tests of C{unix:} portals."""

    async def test_large(self) -> None:
        """Large reads in several PDUs, which are no bytes of their own, go over any transport."""
        path = os.path.relpath(self.mktemp())
        service = self.serve(MemoryDevice(4 << 20), listen=f"unix:{path}")
        service.startService()
        data = os.urandom(1 << 20)

        def run(client: RawClient) -> bytes:
            loggedIn(client, MaxRecvDataSegmentLength="65536", DataDigest="CRC32C")
            client.command(write10(0, 2048), write=data)
            return client.command(read10(0, 2048), read=len(data)).data

        self.assertEqual(await self.dial(path, run), data)

    def dial(self, path: str, conversation: Callable[[RawClient], T]) -> Deferred[T]:
        """A client in a thread."""

        def run() -> T:
            made = socket.socket(socket.AF_UNIX)
            with RawClient(made) as client:
                made.connect(path)
                return conversation(client)

        return deferToThread(run)

    async def test_policies(self) -> None:
        """A peer without an address is let in where anybody is, and nowhere else."""
        path = os.path.relpath(self.mktemp())
        service = self.serve(listen=f"unix:{path}")
        service.addTarget(TARGET, [MemoryDevice(512)], policy=Netmask("any"))
        service.addTarget(f"{TARGET}2", [MemoryDevice(512)], policy=Netmask("127.0.0.0/8"))
        service.startService()
        self.assertEqual(await self.dial(path, lambda client: client.login(TARGET).header[36:38]), b"\0\0")
        refused = await self.dial(path, lambda client: client.login(f"{TARGET}2").header[36:38])
        self.assertEqual(refused, REFUSED)


INHERITING = """
import os, socket
listening = socket.create_server(("127.0.0.1", 0))
os.dup2(listening.fileno(), 4)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2", LISTEN_FDNAMES="one:two")
from twisted.scripts.twistd import run
run()
"""
"""A process that finds a socket at its second inherited descriptor, which is number 4."""


class SystemdTests(TestCase):
    """Tests of C{systemd:} portals."""

    async def test_inherited(self) -> None:
        """A socket that was opened before is served."""
        directory = self.mktemp()
        os.mkdir(directory)
        arguments = ["-n", "--pidfile=", "iscsi", "--disk", "d:1MB", "--state", "state"]
        arguments += ["-l", "systemd:domain=INET:index=1"]
        process = Python("-c", INHERITING, *arguments, directory=directory)
        self.addCleanup(process.stop)
        port = portIn(await process.line("listening on"))

        def run() -> int:
            with RawClient(("127.0.0.1", port)) as client:
                return loggedIn(client, BASE).command(bytes(6)).status

        self.assertEqual(await deferToThread(run), 0)
