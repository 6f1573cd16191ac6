"""
Any bytes into the parts that bytes from the network reach: what fuzzers and the replay of their corpus call.

Each function takes bytes, and raises whatever must not be raised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from iscsi_twisted.errors import FramingError, HeaderDigestError, TextError
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import text
from iscsi_twisted.wire.framer import Buffer, Framer
from tests.long.fuzz import Fault, legal, unsurprised
from tests.long.invent import Choices
from tests.long.units import ACTS, live
from tests.support.wire import Diary, Line, makeNode, makeTarget

SIZE: Final = 1 << 16
SEGMENT: Final = 4096


class Taken:
    """What a framer makes of a stream."""

    def __init__(self, digests: int) -> None:
        self.pdus: list[tuple[bytes, bytes, bytes]] = []
        self.fault: str | None = None
        self.framer = Framer(self._deliver, self._spoil)
        self.framer.headerDigest, self.framer.dataDigest = bool(digests & 1), bool(digests & 2)
        self.framer.maxSegment = SEGMENT

    def _deliver(self, chunk: Buffer, offset: int, ahs: Buffer, data: Buffer) -> None:
        if len(data) > SEGMENT:
            raise Fault("a longer data segment than was accepted")
        self.pdus.append((bytes(chunk[offset : offset + 48]), bytes(ahs), bytes(data)))

    def _spoil(self, chunk: Buffer, offset: int) -> None:
        self.pdus.append((bytes(chunk[offset : offset + 48]), b"", b"spoilt"))

    def feed(self, data: bytes) -> None:
        """The next bytes; after a fault nothing is taken."""
        try:
            if self.fault is None:
                self.framer.feed(data)
        except (FramingError, HeaderDigestError) as error:
            self.fault = type(error).__name__


def framer(data: bytes) -> None:
    """The same PDUs and the same fault, however the stream is cut."""
    if len(data) < 3:
        return
    digests, place, stream = data[0], int.from_bytes(data[1:3], "big"), data[3:]
    whole, pieces = Taken(digests), Taken(digests)
    whole.feed(stream)
    pieces.feed(stream[:place])
    pieces.feed(stream[place:])
    if (whole.pdus, whole.fault) != (pieces.pdus, pieces.fault):
        raise Fault(f"cut at {place}: {pieces.fault} instead of {whole.fault}")


def keys(data: bytes) -> None:
    """Text that is taken says the same when it is written again."""
    try:
        pairs = text.decode(data)
    except TextError:
        return
    if text.decode(text.encode(pairs)) != pairs:
        raise Fault("the same pairs are written otherwise")


def session(data: bytes) -> None:
    """Whole connections: from the first byte on, or after a login; all that comes back is legal."""
    if not data:
        return
    node, diary = makeNode(makeTarget(MemoryDevice(SIZE)), depth=16)
    line = Line(node)
    if data[0] & 1:
        line.login(InitialR2T="No" if data[0] & 2 else "Yes", MaxBurstLength="8192", FirstBurstLength="4096")
    _converse(line, diary, data[0], data[1:])
    line.core.lost("gone")
    if node.sessions or node.unfinished or node.solicited.used:
        raise Fault("something of a lost connection is still there")


def _converse(line: Line, diary: Diary, flags: int, stream: bytes) -> None:
    step = (len(stream), 100, 49, 7)[flags >> 2 & 3] or 1
    for place in range(0, len(stream), step):
        line.core.receive(stream[place : place + step])
        for _ in range(line.turns):
            line.turn()
    legal(line)
    unsurprised(diary)


def units(data: bytes) -> None:
    """Units, and all that is done to them: each choice is some of the bytes."""
    live(Choices(data), ACTS)


INPUTS: Final[dict[str, Callable[[bytes], None]]] = {
    "framer": framer,
    "keys": keys,
    "session": session,
    "units": units,
}
