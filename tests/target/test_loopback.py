# -*- test-case-name: tests.target.test_loopback -*-
"""The service over real sockets: a blocking client in a thread, or many connections in the reactor."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from threading import Event
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase

from iscsi_twisted.config.targets import parse
from iscsi_twisted.errors import ConfigurationErrors
from iscsi_twisted.initiator import Initiator, RemoteExtent
from iscsi_twisted.initiator.remote import nameRemote
from iscsi_twisted.scsi.room import QUEUE
from iscsi_twisted.session.limits import Limits
from iscsi_twisted.session.names import complaint
from iscsi_twisted.session.share import READING
from iscsi_twisted.storage import Fault, Faults, MemoryDevice
from iscsi_twisted.target import TargetService
from iscsi_twisted.target.assembly import plans
from tests.support import rawclient
from tests.support.rawclient import RawClient
from tests.support.wire import TARGET, read10, write10

T = TypeVar("T")
LOCAL = "tcp:0:interface=127.0.0.1"
BASE = "iqn.2001-04.com.example"

COMPLEX = """\
# Complex file showing 3-way RAID1 (with RAID1 components),
# also using local and (NFS) remote components

# extents
extent0	iscsi/extents/0			0	100MB
extent1	imports/remote1/iscsi/extents/0	0	100MB
extent2	iscsi/extents/1			0	100MB
extent3	imports/remote1/iscsi/extents/1	0	100MB
extent4	iscsi/extents/2			0	100MB
extent5	imports/remote1/iscsi/extents/2	0	100MB
extent6	iscsi/extents/3			0	100GB

# devices
device0	RAID1		extent0 extent1
device1	RAID1		extent2 extent3
device2	RAID1		extent4 extent5
device3	RAID1		device0 device1 device2

# targets
target0	device3		127.0.0.0/16

# a target can be made from just an extent
target1	extent6		127.0.0.0/8
"""


class Ending(Protocol):
    """A client that says one thing; C{ended} fires when the connection is gone."""

    def __init__(self, greeting: bytes) -> None:
        self.greeting = greeting
        self.ended: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.greeting)

    def connectionLost(self, reason: Any = None) -> None:
        self.ended.callback(None)


class LoopbackTestCase(TestCase):
    """Serves on a free port of loopback, and stops at the end."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor

    def serve(self, *devices: Any, listen: str = LOCAL, **options: Any) -> TargetService:
        """A service that runs."""
        service = TargetService(self.reactor, [listen], **options)
        if devices:
            service.addTarget(TARGET, devices)
        self.addCleanup(service.stopService)
        return service

    def port(self, service: TargetService) -> int:
        """The number of its port."""
        return int(service.ports[0].getHost().port)  # type: ignore[attr-defined]

    def talk(self, service: TargetService, conversation: Callable[[RawClient], T]) -> Deferred[T]:
        """Let a client that has connected do something, in a thread."""
        address = ("127.0.0.1", self.port(service))

        def run() -> T:
            with RawClient(address) as client:
                return conversation(client)

        return deferToThread(run)


def loggedIn(client: RawClient, target: str = TARGET, **keys: str) -> RawClient:
    """Log in, and take the unit attention that a new nexus gets."""
    answer = client.login(target, keys)
    assert answer.header[36:38] == b"\0\0", answer
    assert client.command(bytes(6)).senseKey == 6
    return client


class SessionTests(LoopbackTestCase):
    """Tests of sessions over sockets."""

    async def test_disk(self) -> None:
        """What is written over one connection is read over another, with digests and without."""
        service = self.serve(MemoryDevice(1 << 20))
        service.startService()
        data = os.urandom(256 << 10)

        def write(client: RawClient) -> int:
            return loggedIn(client).command(write10(8, 512), write=data).status

        def read(client: RawClient) -> bytes:
            loggedIn(client, HeaderDigest="CRC32C", DataDigest="CRC32C")
            return client.command(read10(8, 512), read=len(data)).data

        self.assertEqual(await self.talk(service, write), 0)
        self.assertEqual(await self.talk(service, read), data)

    async def test_hangingNeighbour(self) -> None:
        """A unit that hangs, with all that it takes, stalls no other one of the same session."""
        hang = Fault("hang")
        stuck = Faults(MemoryDevice(64 << 20), [hang], self.reactor)
        service = self.serve(MemoryDevice(64 << 20), stuck)
        service.startService()
        data = os.urandom(1 << 20)

        def use(client: RawClient) -> tuple[int, bytes, int]:
            loggedIn(client).command(bytes(6), 1)
            for _ in range(QUEUE):
                client.sendPDU(
                    client.commandHead(read10(0, 32768), 1, rawclient.FINAL | rawclient.READ, 16 << 20)
                )
            written = client.command(write10(0, 2048), write=data).status
            found = client.command(read10(0, 2048), read=len(data)).data
            return written, found, stuck.hanging

        written, found, hanging = await self.talk(service, use)
        self.assertEqual((written, found), (0, data))
        self.assertEqual(hanging, READING >> 24)

    async def test_ipv6(self) -> None:
        """It serves IPv6, and discovery there tells the address in brackets."""
        service = self.serve(MemoryDevice(512), listen=r"tcp6:0:interface=\:\:1")
        service.startService()
        port = self.port(service)

        def discover() -> dict[str, str]:
            with RawClient(socket.create_connection(("::1", port))) as client:
                client.login(None)
                return client.text(SendTargets="All").text

        found = await deferToThread(discover)
        self.assertEqual(found, {"TargetName": TARGET, "TargetAddress": f"[::1]:{port},1"})

    async def test_garbage(self) -> None:
        """Clients that talk nonsense, or nothing, are gone at once and leave nothing behind."""
        service = self.serve(MemoryDevice(512))
        service.startService()
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.port(service))
        for greeting in (b"GET / HTTP/1.1\r\n" * 20, b"\xff" * 4096, bytes(4096), b"\x16\x03\x01" * 99):
            client = await connectProtocol(endpoint, Ending(greeting))
            await client.ended
        for _ in range(3):
            client = await connectProtocol(endpoint, Ending(b"\x43"))
            assert client.transport is not None
            client.transport.loseConnection()
            await client.ended
        await service.factories[0].whenIdle()
        status = service.status()
        self.assertEqual((status.connections, status.sessions, status.surprises), (0, (), 0))

    async def test_logout(self) -> None:
        """A stop asks sessions to log out, and waits until they have and their connections are closed."""
        service = self.serve(MemoryDevice(512))
        service.startService()
        asked: Deferred[int] = Deferred()

        def session(client: RawClient) -> int:
            loggedIn(client)
            self.reactor.callFromThread(asked.callback, 0)
            event = client.recvPDU()
            client.logout()
            return event.opcode

        talking = self.talk(service, session)
        await asked
        await service.stopService()
        self.assertEqual(await talking, rawclient.ASYNC)
        self.assertEqual(service.journal.losses, 0)

    async def test_deaf(self) -> None:
        """A stop ends sessions that do not listen, even those that do not read, within its time."""
        service = self.serve(MemoryDevice(16 << 20), stopTime=0.4)
        service.startService()
        full: Deferred[None] = Deferred()
        gone = Event()

        def session(client: RawClient) -> None:
            loggedIn(client)
            commands = b"".join(
                client.encode(client.commandHead(read10(0, 16384), 0, 0x80 | rawclient.READ, 8 << 20))
                for _ in range(16)
            )
            client.send(commands)
            client.recvPDU()
            self.reactor.callFromThread(full.callback, None)
            gone.wait(10)

        talking = self.talk(service, session)
        await full
        await service.stopService()
        gone.set()
        await talking
        self.assertEqual(service.status().connections, 0)

    async def test_restart(self) -> None:
        """Stopped and started again it serves on, with the identities it had."""
        service = self.serve(MemoryDevice(512), stateDirectory=self.mktemp())
        serials = set()
        for _ in range(2):
            service.startService()
            serials.add(service.status().targets[0].units[0].serial)
            self.assertEqual(await self.talk(service, lambda client: client.login(TARGET).header[36]), 0)
            await service.stopService()
        self.assertEqual(len(serials), 1)

    async def test_busy(self) -> None:
        """A port that is taken is one line that says so, and nothing is served."""
        first = self.serve(MemoryDevice(512))
        first.startService()
        taken = f"tcp:{self.port(first)}:interface=127.0.0.1"
        second = TargetService(self.reactor, [LOCAL, taken])
        error = self.assertRaises(ConfigurationErrors, second.startService)
        self.assertEqual(str(error), f"cannot listen on {taken}: Address already in use")
        self.assertEqual(second.ports, [])

    async def test_sessions(self) -> None:
        """No more sessions than are allowed."""
        service = self.serve(MemoryDevice(512), limits=Limits(sessions=1))
        service.startService()

        def two(client: RawClient) -> bytes:
            loggedIn(client)
            with RawClient(client.socket.getpeername()) as other:
                return other.login(TARGET, isid=b"\x80\0\0\0\0\2").header[36:38]

        self.assertEqual(await self.talk(service, two), b"\x03\x02")

    async def test_takenOver(self) -> None:
        """A connection can be taken over from somebody who has accepted it and read its first bytes."""
        service = self.serve(MemoryDevice(1 << 20))
        service.startService()
        (factory,) = service.factories
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)

        def ask() -> bytes:
            with RawClient(listening.getsockname()) as client:
                return loggedIn(client).command(read10(0, 1), read=512).data

        def accept() -> tuple[socket.socket, bytes]:
            accepted, _ = listening.accept()
            return accepted, accepted.recv(64, socket.MSG_WAITALL)

        asking = deferToThread(ask)
        accepted, begun = await deferToThread(accept)
        self.reactor.adoptStreamConnection(accepted.fileno(), accepted.family, factory)
        accepted.close()
        (protocol,) = factory.protocols
        protocol.dataReceived(begun)
        self.assertEqual(await asking, bytes(512))
        self.assertEqual(service.status().logins, 1)

    async def test_trace(self) -> None:
        """A traced session works as any other, and leaves every kind of trace."""
        service = self.serve(MemoryDevice(1 << 20), trace=frozenset(("net", "iscsi", "scsi")))
        service.startService()
        data = os.urandom(300 << 10)

        def copy(client: RawClient) -> bytes:
            loggedIn(client, DataDigest="CRC32C")
            client.command(write10(0, 600), write=data, immediate=4096)
            return client.command(read10(0, 600), read=len(data)).data

        with capturedLogs() as events:
            self.assertEqual(await self.talk(service, copy), data)
        self.assertEqual({event["kind"] for event in events if "number" in event}, {"net", "iscsi", "scsi"})


class ManualTests(LoopbackTestCase):
    """Tests of the manual's complex example."""

    async def test_complex(self) -> None:
        """A mirror of mirrors from a targets file: what is written is in all six files."""
        directory = self.mktemp()
        for part in ("iscsi/extents", "imports/remote1/iscsi/extents"):
            os.makedirs(os.path.join(directory, part))
        configuration = parse(COMPLEX, "targets", complaint, BASE, directory=directory)
        service = self.serve()
        for plan in plans(configuration, base=BASE, blockSize=512, reactor=self.reactor):
            service.addPlan(plan)
        service.startService()
        await service.whenReady()
        data = os.urandom(128 << 10)

        def write(client: RawClient) -> list[int]:
            loggedIn(client, f"{BASE}:target0")
            ends = [client.command(write10(lba, 256), write=data).status for lba in (0, 4711, 204800 - 256)]
            return [*ends, client.command(b"\x35" + bytes(9)).status]

        def large(client: RawClient) -> tuple[int, bytes]:
            loggedIn(client, f"{BASE}:target1")
            last = (100 << 30) // 512 - 1
            client.command(write10(last, 1), write=data[:512])
            return client.command(read10(last, 2), read=1024).senseKey, client.command(
                read10(last, 1), read=512
            ).data

        self.assertEqual(await self.talk(service, write), [0, 0, 0, 0])
        self.assertEqual(await self.talk(service, large), (5, data[:512]))
        await service.stopService()
        contents = []
        for name in ("0", "1", "2"):
            for part in ("iscsi/extents", "imports/remote1/iscsi/extents"):
                with open(os.path.join(directory, part, name), "rb") as file:
                    contents.append(file.read())
        self.assertEqual({len(each) for each in contents}, {100 << 20})
        for offset in (0, 4711 * 512, (100 << 20) - len(data)):
            self.assertEqual(contents[0][offset : offset + len(data)], data)
        for number, each in enumerate(contents):
            self.assertTrue(each == contents[0], f"mirror {number} differs")


class RemoteTests(LoopbackTestCase):
    """Extents that are units of another target."""

    def again(self, text: str) -> TargetService:
        """A service for a targets file, not started."""
        directory = self.mktemp()
        os.makedirs(directory)
        configuration = parse(text, "targets", complaint, BASE, directory, nameRemote)

        def remote(url: str, start: int, length: int | None, **how: bool) -> RemoteExtent:
            return RemoteExtent(Initiator(self.reactor), url, start, length, **how)

        service = self.serve()
        wanted = plans(configuration, base=BASE, blockSize=512, reactor=self.reactor, remote=remote)
        for plan in wanted:
            service.addPlan(plan)
        return service

    async def test_mirror(self) -> None:
        """What is written to a mirror with a remote member is in both members."""
        there, data = MemoryDevice(1 << 20), os.urandom(128 << 10)
        far = self.serve(there)
        far.startService()
        url = f"iscsi://127.0.0.1:{self.port(far)}/{TARGET}/0"
        service = self.again(
            f"extent0 here 0 512K\nextent1 {url} 256K 512K\ndevice0 RAID1 extent0 extent1\n"
            "target0 device0 any\n"
        )
        service.startService()
        await service.whenReady()

        def write(client: RawClient) -> tuple[int, bytes]:
            loggedIn(client, f"{BASE}:target0")
            status = client.command(write10(8, 256), write=data).status
            return status, client.command(read10(8, 256), read=len(data)).data

        self.assertEqual(await self.talk(service, write), (0, data))
        self.assertEqual(bytes(there.read((256 << 10) + 4096, len(data))), data)
        await service.stopService()
        self.assertEqual(far.node.targets[TARGET].sessions, {})

    async def test_unreachable(self) -> None:
        """A target that is not there is a fault of the line, without the secret."""
        far = self.serve(MemoryDevice(1 << 20))
        far.startService()
        port = self.port(far)
        await far.stopService()
        service = self.again(
            f"extent0 iscsi://me%hush@127.0.0.1:{port}/{TARGET}/0 0 size\ntarget0 extent0 any\n"
        )
        service.startService()
        error = await self.assertFailure(service.whenReady(), ConfigurationErrors)
        self.assertTrue(str(error).startswith(f"targets:1: extent0: iscsi://me%***@127.0.0.1:{port}/"), error)
        self.flushLoggedErrors(ConfigurationErrors)


class ReservationTests(LoopbackTestCase):
    """Persistent reservations over a restart."""

    async def test_restart(self) -> None:
        """A reservation with APTPL is there again, and one without is not."""
        device, state = MemoryDevice(1 << 20), self.mktemp()

        def register(client: RawClient, key: int, flags: int) -> int:
            loggedIn(client)
            for action, data in (
                (6, struct.pack(">QQ4xB3x", 0, key, flags)), (1, struct.pack(">QQ8x", key, 0)),
            ):  # fmt: skip
                cdb = struct.pack(">BBB2xIx", 0x5F, action, 5, 24)
                status = client.command(cdb, write=data).status
            return status

        def keys(client: RawClient) -> bytes:
            loggedIn(client)
            return client.command(b"\x5e\0" + bytes(5) + b"\0\xff\0", read=255).data[8:]

        for key, flags, kept in ((7, 1, (7).to_bytes(8, "big")), (9, 0, b"")):
            service = self.serve(device, stateDirectory=state)
            service.startService()
            self.assertEqual(await self.talk(service, lambda c, k=key, f=flags: register(c, k, f)), 0)
            await service.stopService()
            again = self.serve(device, stateDirectory=state)
            again.startService()
            self.assertEqual(await self.talk(again, keys), kept)
            await again.stopService()
