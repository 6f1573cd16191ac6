"""A target core with real units and memory for disks, driven by PDUs: no sockets, no reactor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

from iscsi_twisted.interfaces import Buffer, TargetPort
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.identity import Identity
from iscsi_twisted.scsi.inventory import furnish
from iscsi_twisted.scsi.lun import decodeLUN
from iscsi_twisted.scsi.paths import Paths
from iscsi_twisted.session.connection import Connection
from iscsi_twisted.session.doors import Peer
from iscsi_twisted.session.node import Node
from iscsi_twisted.session.portals import Portal
from iscsi_twisted.session.session import Session
from iscsi_twisted.session.target import Target
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import numbers, text
from tests.scsi.devices import MemoryStore
from tests.support import pdus

INITIATOR = "iqn.2001-04.com.example:initiator"
TARGET = "iqn.2001-04.com.example:target"
TEST_UNIT_READY = bytes(6)


def read10(lba: int, blocks: int) -> bytes:
    """READ (10)."""
    return b"\x28\0" + lba.to_bytes(4, "big") + b"\0" + blocks.to_bytes(2, "big") + b"\0"


def write10(lba: int, blocks: int) -> bytes:
    """WRITE (10)."""
    return b"\x2a\0" + lba.to_bytes(4, "big") + b"\0" + blocks.to_bytes(2, "big") + b"\0"


class Diary:
    """Provides L{iscsi_twisted.session.node.Events}: keeps what it is told."""

    def __init__(self) -> None:
        self.entries: list[tuple[Any, ...]] = []

    def loggedIn(self, connection: Connection) -> None:
        self.entries.append(("loggedIn",))

    def loggedOut(self, connection: Connection) -> None:
        self.entries.append(("loggedOut",))

    def lost(self, connection: Connection, reason: str) -> None:
        self.entries.append(("lost", reason))

    def refused(self, connection: Connection, status: int, reason: str) -> None:
        self.entries.append(("refused", status, reason))

    def unknownUser(self, connection: Connection, user: str) -> None:
        self.entries.append(("unknownUser", user))

    def turnedAway(self, peer: Peer) -> None:
        self.entries.append(("turnedAway", peer.text))

    def crowded(self, peer: Peer) -> None:
        self.entries.append(("crowded", peer.text))

    def handshakeFailed(self, peer: Peer, reason: str) -> None:
        self.entries.append(("handshakeFailed", reason))

    def reset(self, session: Session, function: str, lun: int | None) -> None:
        self.entries.append(("reset", function, lun))

    def surprise(self, error: BaseException, doing: str) -> None:
        self.entries.append(("surprise", error, doing))


class Nobody:
    """An access policy that admits these addresses alone."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    def admits(self, address: str | None) -> bool:
        return address in self.addresses


class Anybody:
    """An access policy that admits everybody."""

    def admits(self, address: str | None) -> bool:
        return True


def makeUnit(device: Any, lun: int = 0, **options: Any) -> DiskUnit:
    """A ready disk over a device, whose unexpected failures are raised."""

    def report(error: BaseException, task: object) -> None:
        raise AssertionError(f"unexpected failure: {error!r}") from error

    identity = Identity(
        vendor="TEST", product="disk", revision="1", serial=f"serial{lun}",
        naa=bytes.fromhex("3000000000000001"), deviceName=f"{TARGET},L,0x{lun:016x}",
    )  # fmt: skip
    unit = DiskUnit(device, identity=identity, report=report, **options)
    device.open(unit.changed)
    unit.opened()
    return unit


def furnished(unit: DiskUnit) -> DiskUnit:
    """The same unit, with all that it can have: so there is no command that it has not."""
    for keep in (unit.keepWrites, unit.remember, unit.keepPlans, unit.keep):
        keep(MemoryStore())
    unit.paths = Paths((1, 2))
    return unit


def makeTarget(*devices: Any, name: str = TARGET, policy: Any = None, **options: Any) -> Target:
    """A target whose LUNs are these devices."""
    units = {lun: makeUnit(device, lun) for lun, device in enumerate(devices)}
    absent, wellKnown = furnish(
        units, (TargetPort(name, 1),), makeUnit(MemoryDevice(512)).identity, lambda error, task: None
    )
    return Target(name, policy or Anybody(), units, absent, decodeLUN, wellKnown=wellKnown, **options)


class Line:
    """
    One connection to a node, seen from the initiator.

    @ivar core: the connection.
    @ivar sent: every batch that was sent, as lists of buffers.
    @ivar closed: the connection was closed by the target.
    @ivar stalled: the target reads no more for now.
    @ivar narrow: the target reads little at a time.
    @ivar turns: how often a further turn was asked for and has not been taken.
    @ivar digests: of header and data.
    @ivar now: seconds since the beginning of the connection.
    @cvar cut: how what is received in one piece is cut into several; None for not at all.
    """

    cut: ClassVar[Callable[[bytes], Iterable[bytes]] | None] = None

    def __init__(self, node: Node, *, address: str | None = "192.0.2.7", tag: int = 1) -> None:
        self.node = node
        self.sent: list[list[Buffer]] = []
        self.closed = False
        self.stalled = self.narrow = False
        self.turns = 0
        self.digests = (False, False)
        self.cmdSN = 1
        self.itt = 0x1000
        self.now = 0.0
        self.core = Connection(
            node,
            Portal(tag),
            Peer(address, str(address), "198.51.100.1:3260"),
            send=self.sent.append,
            close=self._close,
            stall=self._stall,
            later=self._later,
            narrow=self._narrow,
        )
        if Line.cut is not None:
            self._whole = self.core.receive
            self.core.receive = self._inPieces  # type: ignore[method-assign]

    def _inPieces(self, data: bytes) -> None:
        """Give the core each piece; the rest at once when it wants no more."""
        assert Line.cut is not None
        pieces = list(Line.cut(bytes(data)))
        while pieces:
            self._whole(pieces.pop(0))
            if self.stalled and pieces:
                pieces = [b"".join(pieces)]

    def _close(self) -> None:
        self.closed = True

    def _stall(self, stalled: bool) -> None:
        self.stalled = stalled

    def _narrow(self, narrow: bool) -> None:
        self.narrow = narrow

    def _later(self) -> None:
        self.turns += 1

    def turn(self) -> None:
        """Take the further turn that was asked for."""
        self.turns -= 1
        self.core.proceed()

    def wait(self, seconds: float, each: Callable[[], object] = lambda: None) -> list[dict[str, Any]]:
        """
        Let time pass, with a tick every five seconds.

        @param each: called before each tick.
        @return: the PDUs that were sent meanwhile.
        """
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + 5.0, end)
            each()
            self.core.tick(self.now)
        return self.take()

    def take(self) -> list[dict[str, Any]]:
        """The PDUs that have been sent since the last call."""
        stream = b"".join(bytes(buffer) for batch in self.sent for buffer in batch)
        self.sent.clear()
        return pdus.takeApart(stream, digests=self.digests)

    def say(self, data: bytes) -> list[dict[str, Any]]:
        """Send bytes; what comes back."""
        self.core.receive(data)
        return self.take()

    def login(self, **pairs: str) -> dict[str, Any]:
        """Log in, with these keys beside the names; the last response."""
        names = {"InitiatorName": INITIATOR, "TargetName": TARGET, "SessionType": "Normal"}
        if pairs.get("SessionType") == "Discovery":
            del names["TargetName"]
        (response,) = self.say(pdus.loginRequest(names | pairs))
        assert response["status"] == 0, f"login refused: {response['status']:#06x}"
        if self.core.session is not None:
            parameters = self.core.session.parameters
            self.digests = (parameters.headerDigest, parameters.dataDigest)
        if self.core.session is not None and self.core.session.target is not None:
            self.clearAttentions()
        response["keys"] = dict(text.decode(response["data"]))
        return response

    def clearAttentions(self) -> None:
        """Take the unit attention that every new nexus gets, from every unit."""
        assert self.core.session is not None
        target, nexus = self.core.session.target, self.core.session.nexus
        assert target is not None and nexus is not None
        for lun in target.units:
            field = bytes((0, lun)) + bytes(6)
            if target.addressed(field, nexus)[1] is target.absent:
                continue
            while self.command(TEST_UNIT_READY, lun=field)[-1]["status"]:
                pass

    def build(self, cdb: bytes, **options: Any) -> bytes:
        """The next SCSI Command, with the next tag and CmdSN unless others are given."""
        if "itt" not in options:
            self.itt += 1
            options["itt"] = self.itt
        if "cmdSN" not in options:
            options["cmdSN"] = self.cmdSN
            if not options.get("immediate"):
                self.cmdSN += 1
        return pdus.scsiCommand(cdb, digests=self.digests, **options)

    def command(self, cdb: bytes, **options: Any) -> list[dict[str, Any]]:
        """Send a command; what comes back at once."""
        return self.say(self.build(cdb, **options))


def makeNode(*targets: Target, **options: Any) -> tuple[Node, Diary]:
    """A node with these targets, and the diary that it writes."""
    diary = Diary()
    node = Node(diary, **options)
    for target in targets:
        node.add(target)
    return node, diary


def loggedIn(*devices: Any, address: str = "192.0.2.7", **pairs: str) -> Line:
    """A line with a normal session to a target with these devices (one of 1 MiB if there are none)."""
    node, _ = makeNode(makeTarget(*(devices or (MemoryDevice(1 << 20),))))
    line = Line(node, address=address)
    line.login(**pairs)
    return line


def everySplit(stream: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The stream in two parts, cut at every byte."""
    for position in range(1, len(stream)):
        yield stream[:position], stream[position:]


Conversation = Callable[[Line], None]

DATA_IN = numbers.DATA_IN
SCSI_RESPONSE = numbers.SCSI_RESPONSE
R2T = numbers.R2T
