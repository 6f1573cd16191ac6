"""Initiators: their names, the endpoints they understand, and what discovery tells them."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import LocalError, RemoteError
from iscsi_twisted.initiator import LUN, Found, Initiator
from iscsi_twisted.initiator.node import collect
from iscsi_twisted.session.answers import LoginRefused, Redirected
from iscsi_twisted.session.names import complaint
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import numbers
from tests.support.wire import TARGET
from tests.target.test_loopback import LoopbackTestCase


class NameTests(SynchronousTestCase):
    """Names of initiators and of endpoints."""

    def test_name(self) -> None:
        """One is made of this machine's name; a wrong one is refused."""
        self.assertIsNone(complaint(Initiator(Clock()).name))
        self.assertRaises(LocalError, Initiator, Clock(), "me")

    def test_endpoints(self) -> None:
        """What cannot be understood says so."""
        for text in ("unknown:1:2", "a:b:c", "[::1", "::1"):
            error = self.assertRaises(LocalError, Initiator(Clock()).endpoint, text)
            self.assertIn(repr(text), str(error))


class CollectTests(SynchronousTestCase):
    """Answers to SendTargets."""

    def test_targets(self) -> None:
        """Addresses belong to the name before them; other keys mean nothing."""
        pairs = [
            ("TargetName", "a"),
            ("TargetAddress", "h:1,1"),
            ("X-other", "1"),
            ("TargetName", "b"),
            ("TargetName", "a"),
            ("TargetAddress", "h:2,1"),
        ]
        self.assertEqual(collect(pairs), [Found("a", ("h:1,1", "h:2,1")), Found("b", ())])
        self.assertRaises(RemoteError, collect, [("TargetAddress", "h:1,1")])


class EndpointTests(LoopbackTestCase):
    """Portals of every kind."""

    async def check(self, listen: str, dial: Any) -> None:
        """Write and read more than one PDU holds."""
        service = self.serve(MemoryDevice(4 << 20), listen=listen)
        service.startService()
        session = await Initiator(self.reactor).login(dial(service), TARGET, dataDigest="yes")
        lun = LUN(session)
        await lun.open()
        data = os.urandom(3 << 20)
        await lun.write(512, data)
        self.assertEqual(bytes(await lun.read(512, len(data))), data)
        await session.logout()

    async def test_tcp(self) -> None:
        """A host and a port."""
        await self.check("tcp:0:interface=127.0.0.1", lambda service: f"127.0.0.1:{self.port(service)}")

    async def test_description(self) -> None:
        """Twisted's own language."""
        await self.check(
            "tcp:0:interface=127.0.0.1", lambda service: f"tcp:host=127.0.0.1:port={self.port(service)}"
        )

    async def test_ipv6(self) -> None:
        """IPv6 in brackets."""
        await self.check(r"tcp6:0:interface=\:\:1", lambda service: f"[::1]:{self.port(service)}")

    async def test_unix(self) -> None:
        """A UNIX socket, whose transport takes bytes alone."""
        path = os.path.relpath(self.mktemp())
        await self.check(f"unix:{path}", lambda service: f"unix:{path}")


class Redirecting(Initiator):
    """Logs in where the test says what becomes of it."""

    def __init__(self, *outcomes: Exception) -> None:
        super().__init__(Clock(), "iqn.2001-04.com.example:initiator")
        self.outcomes = list(outcomes)
        self.asked: list[Any] = []

    def endpoint(self, endpoint: Any) -> Any:
        """One that fails as it was told."""
        self.asked.append(endpoint)
        return Refusing(self.outcomes.pop(0))


class Refusing:
    """An endpoint that fails as a login would."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def connect(self, factory: object) -> Any:
        """Fail."""
        raise self.error


class RedirectTests(SynchronousTestCase):
    """Targets that are elsewhere."""

    def test_followed(self) -> None:
        """A redirection is followed; what comes there is what counts."""
        moved = Redirected(numbers.TARGET_MOVED_TEMPORARILY, "192.0.2.2:3260,1")
        made = Redirecting(moved, LoginRefused(numbers.NOT_FOUND))
        error = self.failureResultOf(
            Deferred.fromCoroutine(made.login("192.0.2.1", TARGET)), LoginRefused
        ).value
        self.assertEqual((error.status, made.asked), (numbers.NOT_FOUND, ["192.0.2.1", "192.0.2.2:3260"]))

    def test_round(self) -> None:
        """Targets that send one another everybody are given up."""
        made = Redirecting(
            *(Redirected(numbers.TARGET_MOVED_TEMPORARILY, "192.0.2.1:3260") for _ in range(9))
        )
        self.failureResultOf(Deferred.fromCoroutine(made.login("192.0.2.1", TARGET)), RemoteError)
