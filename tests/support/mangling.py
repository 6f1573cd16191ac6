"""A target whose answers are spoilt on their way to the initiator, PDU by PDU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.task import Clock

from iscsi_twisted.errors import ISCSIError
from iscsi_twisted.initiator import LUN, Initiator, MemoryEndpoint, Session
from iscsi_twisted.target import TargetFactory
from tests.support.devices import FakeDevice
from tests.support.wire import TARGET, makeNode, makeTarget

SIZE = 1 << 20
BLOCK = 512
PATIENCE = 20.0
LONGEST = 1000
"""Seconds of the clock after which whatever still waits hangs."""

Spoiling = tuple[str, int, int]
"""What is done to a PDU, where, and with which number."""

KINDS = (
    "flip",
    "set",
    "drop",
    "twice",
    "late",
    "cut",
    "length",
    "insert",
    "zeros",
    "opcode",
    "close",
    "stop",
)


class ManglingEndpoint(MemoryEndpoint):
    """
    Leads to a target that is malicious, or broken.

    @ivar spoilings: by the number of the PDU, counted over all connections.
    @ivar seen: PDUs that have come.
    """

    def __init__(self, reactor: Any, factory: Any, spoilings: Mapping[int, Spoiling]) -> None:
        super().__init__(reactor, factory)
        self.spoilings, self.seen = spoilings, 0
        self._late: list[bytes] = []

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        """As ever, but for what comes."""
        connected = super().connect(protocolFactory)
        transport = self.transports[-1]
        protocol: Any = transport.protocol
        protocol.dataReceived = partial(self._deliver, transport, protocol.dataReceived)
        return connected

    def _deliver(self, transport: Any, receive: Callable[[bytes], None], data: bytes) -> None:
        core = transport.protocol.core
        digests = (4 * core.headerDigest, 4 * core.dataDigest)
        for pdu in split(data, *digests):
            spoiling = self.spoilings.get(self.seen)
            self.seen += 1
            for part in (pdu,) if spoiling is None else self._spoilt(transport, pdu, spoiling):
                if part:
                    receive(part)

    def _spoilt(self, transport: Any, pdu: bytes, spoiling: Spoiling) -> list[bytes]:
        kind, place, number = spoiling
        spoilt = bytearray(pdu)
        at = place % len(spoilt)
        late, self._late = self._late, []
        if kind == "flip":
            spoilt[at] ^= 1 << number % 8
        elif kind == "set":
            spoilt[at] = number & 255
        elif kind == "drop":
            spoilt.clear()
        elif kind == "twice":
            spoilt *= 2
        elif kind == "late":
            self._late = [bytes(spoilt)]
            spoilt.clear()
        elif kind == "cut":
            del spoilt[at:]
        elif kind == "length":
            spoilt[5:8] = (number & 0xFFFFFF).to_bytes(3, "big")
        elif kind == "insert":
            spoilt[at:at] = number.to_bytes(4, "big") * (1 + place % 40)
        elif kind == "zeros":
            spoilt = bytearray(48) * (1 + place % 200)
        elif kind == "opcode":
            spoilt[0] = number & 0x3F
        elif kind == "close":
            transport.abortConnection()
            spoilt.clear()
        elif kind == "stop":
            transport.pauseProducing()
        return [bytes(spoilt), *late]


def split(data: bytes, headerDigest: int, dataDigest: int) -> list[bytes]:
    """The PDUs in what a target has sent in one go."""
    found, place = [], 0
    while place + 48 <= len(data):
        length = int.from_bytes(data[place + 5 : place + 8], "big")
        end = place + 48 + 4 * data[place + 4] + headerDigest
        end += length + -length % 4 + (dataDigest if length else 0)
        found.append(data[place:end])
        place = end
    return [*found, data[place:]] if place < len(data) else found


class Conversation:
    """
    One initiator that does much with such a target.

    @ivar wrong: what must not be.
    """

    def __init__(self, spoilings: Mapping[int, Spoiling], digests: bool) -> None:
        self.clock = Clock()
        node, _ = makeNode(makeTarget(FakeDevice(SIZE, synchronous=True)))
        self.endpoint = ManglingEndpoint(self.clock, TargetFactory(node, self.clock), spoilings)
        self.initiator = Initiator(self.clock, "iqn.2001-04.com.example:initiator")
        self.digests = digests
        self.wrong: list[str] = []
        self.sessions: list[Session] = []

    def run(self) -> list[str]:
        """All of it; what must not be."""
        result = Deferred.fromCoroutine(self._all())
        told: list[Any] = []
        result.addBoth(told.append)
        until = self.clock.seconds() + LONGEST
        while not told and self.clock.seconds() < until:
            for _ in range(40):
                self.clock.advance(0)
            self.clock.advance(0.5)
        if not told:
            self.wrong.append("it hangs")
        elif told[0] is not None:
            self._judge(told[0].value)
        for session in self.sessions:
            session.abandon()
        self._leftOver()
        return self.wrong

    def _judge(self, error: BaseException) -> None:
        if not isinstance(error, (ISCSIError, TimeoutError)):
            self.wrong.append(f"{type(error).__name__}: {error}")
        elif not str(error):
            self.wrong.append(f"{type(error).__name__} says nothing")

    def _leftOver(self) -> None:
        """Whatever has ended keeps nothing."""
        for transport in self.endpoint.transports:
            core = transport.protocol.core
            kept = len(core.commands) + len(core.callbacks) + len(core.texts) + len(core.waiting)
            if core.error is not None and kept:
                self.wrong.append(f"a connection that has ended keeps {kept} requests")

    async def _all(self) -> None:
        digest = "yes" if self.digests else "no"
        await self._attempt(self.initiator.discover(self.endpoint))
        session = await self.initiator.login(
            self.endpoint, TARGET, headerDigest=digest, dataDigest=digest, lasting=True, patience=PATIENCE,
            ping=5.0,
        )  # fmt: skip
        self.sessions.append(session)
        lun = LUN(session, 0, timeout=PATIENCE)
        await lun.open()
        for number in range(4):
            await self._exchange(lun, number, bytes((number + 1,)) * BLOCK * (1 + 40 * number))
        for one in (session.ping(b"ping", PATIENCE), session.text([("X-a", "b")], PATIENCE)):
            await self._attempt(one)
        await self._attempt(lun.compareAndWrite(0, bytes(BLOCK), bytes(BLOCK)))
        reading = lun.read(0, BLOCK)
        reading.addErrback(lambda why: None)
        reading.cancel()
        await self._attempt(self.initiator.units(session, timeout=PATIENCE))
        await self._attempt(session.logout())

    async def _exchange(self, lun: LUN, number: int, data: bytes) -> None:
        """Write, and read twice at once; with digests what is read is what was written, or an error."""
        place = number * 256 * BLOCK
        try:
            await lun.write(place, data)
        except Exception as error:
            self._judge(error)
            return
        reads = [lun.read(place, len(data)) for _ in range(2)]
        for reading in reads:
            try:
                found = bytes(await reading)
            except Exception as error:
                self._judge(error)
                continue
            if len(found) != len(data) or (self.digests and found != data):
                self.wrong.append(f"{len(found)} bytes of read {number} are wrong")

    async def _attempt(self, waiting: Any) -> None:
        try:
            await waiting
        except Exception as error:
            self._judge(error)
