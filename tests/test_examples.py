# -*- test-case-name: tests.test_examples -*-
"""The examples, each run for real on free ports of loopback."""

from __future__ import annotations

import json
import os
import re
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from iscsi_twisted.auth.chap import SHA256, STRONGEST_FIRST, Credentials
from iscsi_twisted.initiator import LUN, Initiator
from iscsi_twisted.scsi.codes import IN_STANDBY
from iscsi_twisted.session.answers import LoginRefused
from iscsi_twisted.wire import numbers
from tests.support.processes import ROOT, TWISTD, Python
from tests.support.rawclient import RawClient
from tests.support.wire import read10, write10

T = TypeVar("T")
EXAMPLES = ROOT / "examples"
BASE = "iqn.2001-04.com.example"
DATA = os.urandom(64 << 10)


def copied(client: RawClient, target: str, lun: int = 0) -> bytes:
    """Write to a disk, far from its beginning, and read that back."""
    answer = client.login(f"{BASE}:{target}")
    assert answer.header[36:38] == b"\0\0", answer
    client.command(bytes(6), lun)
    assert client.command(write10(20000, 128), lun, write=DATA).status == 0
    return client.command(read10(20000, 128), lun, read=len(DATA)).data


class ExampleTests(TestCase):
    """Tests of all files of C{examples/}."""

    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory)

    def example(self, *arguments: str, **environment: str) -> Python:
        """A process with an example, ended with the test."""
        process = Python(*arguments, directory=self.directory, environment=environment)
        self.addCleanup(process.stop)
        return process

    async def test_copyLUN(self) -> None:
        """One disk is copied to another, both in memory."""
        process = self.example(str(EXAMPLES / "copy_lun.py"))
        self.assertIn("5242880 bytes copied", await process.line("copied"))

    async def port(self, process: Python, factory: str = "TargetFactory") -> int:
        """The port that the log names."""
        line = await process.line(f"{factory} starting on")
        return int(line.rpartition(" ")[2])

    def talk(self, port: int, conversation: Callable[[RawClient], T]) -> Deferred[T]:
        """A client in a thread."""

        def run() -> T:
            with RawClient(("127.0.0.1", port)) as client:
                return conversation(client)

        return deferToThread(run)

    async def interrupt(self, process: Python) -> None:
        """Ctrl-C ends it in good order."""
        process.process.signalProcess("INT")
        reason = await process.exited
        self.assertIn((reason.exitCode, reason.signal), ((0, None), (None, signal.SIGINT)))
        self.assertNotIn("Traceback", process.output)
        self.assertNotIn("error", process.output.lower())

    async def test_ramdisk(self) -> None:
        """C{ramdisk.tac} serves a disk in memory."""
        process = self.example(*TWISTD, "--pidfile=", "-ny", str(EXAMPLES / "ramdisk.tac"), PORT="0")
        port = await self.port(process)
        self.assertEqual(await self.talk(port, lambda client: copied(client, "ramdisk")), DATA)
        await self.interrupt(process)

    async def test_customDevice(self) -> None:
        """C{custom_device.py} serves three devices of one's own, and all of them keep what is written."""
        process = self.example(str(EXAMPLES / "custom_device.py"), "0")
        port = await self.port(process)
        for lun in range(3):
            read = await self.talk(port, lambda client, lun=lun: copied(client, "custom", lun))  # type: ignore[misc]
            self.assertEqual(read, DATA)
        await self.interrupt(process)

    async def test_mirror(self) -> None:
        """C{mirror.py} writes to both sides, also where one of them goes on in its second file."""
        process = self.example(str(EXAMPLES / "mirror.py"), "0")
        port = await self.port(process)
        middle = (32 << 20) // 512 - 64

        def write(client: RawClient) -> int:
            copied(client, "mirror")
            return client.command(write10(middle, 128), write=DATA).status

        self.assertEqual(await self.talk(port, write), 0)
        await self.interrupt(process)
        left, right0, right1 = (
            Path(self.directory, name).read_bytes() for name in ("left", "right0", "right1")
        )
        self.assertEqual(left[middle * 512 :][: len(DATA)], DATA)
        self.assertTrue(left == right0 + right1)

    async def test_twoPaths(self) -> None:
        """C{two_paths.py} serves one disk through two groups, the second of which is on standby at first."""
        process = self.example(str(EXAMPLES / "two_paths.py"), "0")
        await process.line("group 1 is active, group 2 on standby")
        ports = [int(port) for port in re.findall(r"TargetFactory starting on (\d+)", process.output)]

        def session(place: tuple[str, int]) -> tuple[str, list[int]]:
            with RawClient(place) as client:
                answer = client.login(f"{BASE}:two-paths")
                return answer.text["TargetPortalGroupTag"], [client.command(bytes(6)).asc for _ in range(3)]

        for tag, port, last in (("1", ports[0], 0), ("2", ports[1], IN_STANDBY)):
            found = await deferToThread(session, (f"127.0.0.{tag}", port))
            self.assertEqual((found[0], found[1][-1]), (tag, last))
        await self.interrupt(process)

    async def test_web(self) -> None:
        """C{embed_with_web.py} tells the target's status as JSON, sessions and all."""
        process = self.example(str(EXAMPLES / "embed_with_web.py"), "0", "0")
        port, web = await self.port(process), await self.port(process, "Site")

        def session(client: RawClient) -> dict[str, object]:
            copied(client, "embedded")
            with urllib.request.urlopen(f"http://127.0.0.1:{web}/", timeout=10) as answer:
                found: dict[str, object] = json.load(answer)
            return found

        status = await self.talk(port, session)
        (unit,) = status["targets"][0]["units"]  # type: ignore[index]
        self.assertEqual((unit["size"], unit["counters"]["writtenBytes"]), (64 << 20, len(DATA)))
        self.assertEqual(status["sessions"][0]["target"], f"{BASE}:embedded")  # type: ignore[index]
        await self.interrupt(process)

    async def test_credUsers(self) -> None:
        """C{cred_users.py} lets in whom twisted.cred knows, in every algorithm, and nobody else."""
        from twisted.internet import reactor

        process = self.example(str(EXAMPLES / "cred_users.py"), "0")
        port, secret = await self.port(process), b"0123456789abcdef"
        initiator = Initiator(reactor)

        async def login(user: str, secret: bytes, algorithm: int = SHA256) -> None:
            session = await initiator.login(
                f"127.0.0.1:{port}",
                f"{BASE}:users",
                credentials=Credentials(user, secret),
                algorithms=(algorithm,),
            )
            await session.logout()

        for algorithm in STRONGEST_FIRST:
            await login("agc", secret, algorithm)
        for user, word in (("agc", b"another secret"), ("joe", secret)):
            with self.assertRaises(LoginRefused) as caught:
                await login(user, word)
            self.assertEqual(caught.exception.status, numbers.AUTHENTICATION_FAILURE)
        await self.interrupt(process)

    async def test_ownPolicy(self) -> None:
        """C{own_policy.py} lets the owner write, guests read one disk, and others not in."""
        from twisted.internet import reactor

        process = self.example(str(EXAMPLES / "own_policy.py"), "0")
        where = f"127.0.0.1:{await self.port(process)}"
        guest, owner = Credentials("guest", b"0123456789abcdef"), Credentials("owner", b"fedcba9876543210")
        for credentials, luns, name in ((owner, 2, "x"), (guest, 1, "x"), (owner, 2, "noisy")):
            initiator = Initiator(reactor, f"{BASE}:{name}")
            session = await initiator.login(where, f"{BASE}:house", credentials=credentials)
            self.assertEqual(len(await initiator.units(session)), luns)
            lun = LUN(session, 0)
            await lun.open()
            self.assertEqual(lun.capabilities().readOnly, credentials is guest)
            await session.logout()
        self.assertEqual(await initiator.discover(where, credentials=guest), [])
        with self.assertRaises(LoginRefused) as caught:
            await initiator.login(where, f"{BASE}:house", credentials=guest)
        self.assertEqual(caught.exception.status, numbers.AUTHORIZATION_FAILURE)
        await self.interrupt(process)

    async def test_faulty(self) -> None:
        """C{faulty_disk.py} has one block that cannot be read, and counts who tried."""
        process = self.example(str(EXAMPLES / "faulty_disk.py"), "0")
        port = await self.port(process)

        def read(client: RawClient) -> list[int]:
            copied(client, "faulty")
            return [client.command(read10(lba, 8), read=4096).status for lba in (2040, 2044, 2049)]

        self.assertEqual(await self.talk(port, read), [0, 2, 0])
        await self.interrupt(process)

    async def test_devices(self) -> None:
        """C{devices.py} runs three devices through their lives."""
        process = self.example(str(EXAMPLES / "devices.py"))
        reason = await process.exited
        await process.ended
        self.assertEqual((reason.exitCode, process.output.count("hello from")), (0, 3))

    def test_all(self) -> None:
        """Every example is tested here, and says how to run it and what to see."""
        examples = sorted(path for path in EXAMPLES.iterdir() if path.is_file())
        self.assertEqual(
            [path.name for path in examples],
            [
                "copy_lun.py",
                "cred_users.py",
                "custom_device.py",
                "devices.py",
                "embed_with_web.py",
                "faulty_disk.py",
                "mirror.py",
                "own_policy.py",
                "ramdisk.tac",
                "two_paths.py",
            ],
        )
        for path in examples:
            text = path.read_text()
            self.assertTrue(text.startswith("# Run it with: "), path)
            self.assertIn("hat you see", text)
