"""Clients that mean no good, over real sockets, beside one that does."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack

from iscsi_twisted.session.limits import Limits
from iscsi_twisted.storage import MemoryDevice
from tests.support import pdus
from tests.support.rawclient import RawClient
from tests.support.wire import INITIATOR, TARGET, read10, write10
from tests.target.test_loopback import LoopbackTestCase, loggedIn

HALF_OPEN = 40


class HostileTests(LoopbackTestCase):
    """A session that is always right, while others are not."""

    async def test_halfOpen(self) -> None:
        """Of too many connections that never log in the oldest is dropped; who comes then is served."""
        service = self.serve(MemoryDevice(1 << 20))
        service.node.limits = Limits(halfOpen=HALF_OPEN)
        service.startService()
        address = ("127.0.0.1", self.port(service))
        data = os.urandom(4096)

        def attack(good: RawClient) -> tuple[list[bytes], bytes]:
            loggedIn(good)
            with ExitStack() as stack:
                dial = socket.create_connection
                held = [stack.enter_context(dial(address, 10)) for _ in range(3 * HALF_OPEN)]
                good.command(write10(8, 8), write=data)
                with RawClient(address) as late:
                    read = loggedIn(late).command(read10(8, 8), read=4096).data
                # The first ones read the end of their connections.
                return [one.recv(1) for one in held[: 2 * HALF_OPEN + 1]], read

        ends, read = await self.talk(service, attack)
        self.assertEqual((set(ends), read), ({b""}, data))
        self.assertEqual(service.status().surprises, 0)

    async def test_everyDrop(self) -> None:
        """A connection that ends after any byte of its session leaves nothing but whole blocks."""
        service = self.serve(MemoryDevice(1 << 20))
        service.startService()
        address = ("127.0.0.1", self.port(service))
        stream = self.session()

        def attack(good: RawClient) -> bytes:
            loggedIn(good)
            good.command(write10(0, 8), write=b"\1" * 4096)
            for length in range(len(stream) + 1):
                with socket.create_connection(address, 10) as other:
                    other.sendall(stream[:length])
            return good.command(read10(0, 16), read=8192).data

        read = await self.talk(service, attack)
        self.assertEqual(read[:4096], b"\1" * 4096)
        self.assertIn(read[4096:], (bytes(4096), b"\2" * 512 + bytes(3584)))
        self.assertEqual(service.status().surprises, 0)

    def session(self) -> bytes:
        """A login, and a write of one block with its data."""
        login = pdus.loginRequest({"InitiatorName": INITIATOR + "2", "TargetName": TARGET})
        attention = pdus.scsiCommand(bytes(6), itt=1, cmdSN=1)
        return (
            login + attention + pdus.scsiCommand(write10(8, 1), itt=2, cmdSN=2, write=512, data=b"\2" * 512)
        )
