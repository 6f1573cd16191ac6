"""Factories and services over transports in memory, and over loopback, driven by PDUs."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from iscsi_twisted.target import TargetFactory, TargetService, VectorEndpoint
from iscsi_twisted.target.protocol import TargetProtocol
from iscsi_twisted.wire import text
from tests.support import pdus
from tests.support.wire import INITIATOR, TARGET

PEER = IPv4Address("TCP", "192.0.2.7", 40000)
HOST = IPv4Address("TCP", "198.51.100.1", 3260)


class MemoryLine:
    """
    One connection to a factory, seen from the initiator.

    @ivar protocol: the target's end.
    @ivar transport: what it sends to.
    """

    def __init__(self, factory: TargetFactory, peer: IAddress = PEER, host: IAddress = HOST) -> None:
        self.protocol: TargetProtocol = factory.buildProtocol(peer)
        self.transport = StringTransport(host, peer, lenient=True)
        self.protocol.makeConnection(self.transport)
        self.digests = (False, False)

    def take(self) -> list[dict[str, Any]]:
        """The PDUs that came since the last call."""
        stream = self.transport.value()
        self.transport.clear()
        return pdus.takeApart(stream, digests=self.digests)

    def say(self, data: bytes) -> list[dict[str, Any]]:
        """Send bytes; what comes back at once."""
        self.protocol.dataReceived(data)
        return self.take()

    def login(self, target: str | None = TARGET, **keys: str) -> dict[str, Any]:
        """Log in, for discovery if there is no target; the response."""
        names = {"InitiatorName": INITIATOR}
        names |= {"SessionType": "Discovery"} if target is None else {"TargetName": target}
        (response,) = self.say(pdus.loginRequest(names | keys))
        response["keys"] = dict(text.decode(response["data"]))
        self.digests = tuple(  # type: ignore[assignment]
            response["keys"].get(key) == "CRC32C" for key in ("HeaderDigest", "DataDigest")
        )
        return response

    def lose(self) -> None:
        """The connection is gone."""
        self.protocol.connectionLost(Failure(ConnectionDone()))


class MemoryService:
    """
    A service that listens in memory.

    @ivar reactor: its time and its ports.
    """

    def __init__(self, *devices: Any, **options: Any) -> None:
        self.reactor = MemoryReactorClock()
        self.service = TargetService(self.reactor, [VectorEndpoint(self.reactor, 3260)], **options)
        if devices:
            self.service.addTarget(TARGET, devices)

    @property
    def listening(self) -> int:
        """Ports that the service listens on."""
        return len(self.service.ports)

    def line(self, peer: IAddress = PEER) -> MemoryLine:
        """One more connection."""
        return MemoryLine(self.service.factories[0], peer)
