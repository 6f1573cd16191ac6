"""Whole sessions, right and spoilt, into cores without sockets, beside a session that is always right."""

from __future__ import annotations

import time
import traceback
from random import Random
from typing import Any

from iscsi_twisted.wire import layout, numbers
from tests.long import streams
from tests.support.devices import FakeDevice
from tests.support.pdus import LAYOUTS
from tests.support.wire import TARGET, Diary, Line, furnished, makeNode, makeTarget, read10, write10

SIZE = 1 << 20
NEIGHBOUR = "iqn.2001-04.com.example:neighbour"
ACTS = ("pause", "resume", "turn", "fire", "fail", "tick")


class Fault(Exception):
    """Something that must not be."""


class Round:
    """One node, one stream that need not make sense, and one session that does."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.devices = [
            FakeDevice(SIZE, obeysCancel=random.random() < 0.5, synchronous=random.random() < 0.6)
        ]
        self.devices.append(FakeDevice(SIZE, synchronous=True))
        self.own = FakeDevice(SIZE, synchronous=True)
        self.diary: Diary
        own = makeTarget(self.own, name=NEIGHBOUR)
        target = makeTarget(*self.devices, name=TARGET)
        for unit in target.units.values():
            furnished(unit)  # type: ignore[arg-type]
        self.node, self.diary = makeNode(target, own, depth=16)
        self.neighbour = Line(self.node)
        self.neighbour.login(InitiatorName=NEIGHBOUR + "s", TargetName=NEIGHBOUR)
        self.lines: list[Line] = []
        self.bytes = 0

    def run(self) -> None:
        """
        Everything, and what must hold afterwards.

        @raise Fault: if something does not.
        """
        for _ in range(self.random.choice((1, 1, 1, 2))):
            line = Line(self.node)
            self.lines.append(line)
            stream = b"".join(streams.mutate(self.random, streams.session(self.random, SIZE // 512)))
            self.bytes += len(stream)
            for chunk in streams.chunks(self.random, stream):
                if not line.stalled:
                    line.core.receive(chunk)
                if self.random.random() < 0.05:
                    self.act(line)
                self.bounded(line)
            self.neighbourly()
        for line in self.lines:
            legal(line)
        self.finish()

    def act(self, line: Line) -> None:
        """Something that does not come from the peer's bytes."""
        act = self.random.choice(ACTS)
        device = self.devices[0]
        if act == "pause":
            line.core.pause()
        elif act == "resume":
            line.core.resume()
        elif act == "turn":
            line.core.proceed()
        elif act == "tick":
            line.now += 5.0
            line.core.tick(line.now)
        elif act == "fire" and device.operations:
            device.operations[0].fire()
        elif act == "fail" and device.operations:
            device.operations[-1].fail(OSError(5, "the disk is broken"))

    def bounded(self, line: Line) -> None:
        """Nothing is kept without a bound, and nothing surprised us."""
        unsurprised(self.diary)
        session = line.core.session
        if session is None:
            return
        room = session.depth + 32
        if max(len(session.tasks), len(session.waiting), len(session.early)) > room:
            raise Fault("more tasks than the window has room for")
        if (session.maxCmdSN - session.expCmdSN + 1) & 0xFFFFFFFF > session.depth:
            raise Fault("the window is wider than its depth")

    def neighbourly(self) -> None:
        """The right session writes and reads, and notices nothing."""
        data = self.random.randbytes(4096)
        lba = self.random.randrange(SIZE // 512 - 8)
        (written,) = self.neighbour.command(write10(lba, 8), write=4096, data=data)
        (read,) = self.neighbour.command(read10(lba, 8), read=4096)
        if written["status"] or read["data"] != data:
            raise Fault("the session beside was disturbed")

    def finish(self) -> None:
        """When all connections are gone everything that was reserved is given back."""
        for line in self.lines:
            line.core.lost("gone")
        self.devices[0].fire()
        if self.node.solicited.used or len(self.node.sessions) != 1 or self.node.unfinished:
            raise Fault("something of a lost connection is still there")
        unsurprised(self.diary)


def unsurprised(diary: Diary) -> None:
    """@raise Fault: if anything was raised that is nobody's answer."""
    for entry in diary.entries:
        if entry[0] == "surprise":
            raise Fault(f"surprise {entry[2]}: {entry[1]!r}") from entry[1]


def legal(line: Line) -> None:
    """
    All that was sent is whole PDUs of a target, their StatSN in order.

    @raise Fault: if not.
    """
    stream = b"".join(bytes(buffer) for batch in line.sent for buffer in batch)
    expected: int | None = None
    for fields in _parts(stream):
        kind = fields["opcode"] & 0x3F
        silent = kind == numbers.R2T or (kind == numbers.DATA_IN and not fields["flags"] & 1)
        if silent or (kind == numbers.NOP_IN and fields["itt"] == numbers.NO_TAG):
            continue
        if expected is not None and fields["statSN"] != expected:
            raise Fault(f"StatSN {fields['statSN']} where {expected} is due")
        expected = (fields["statSN"] + 1) & 0xFFFFFFFF


def _parts(stream: bytes) -> list[dict[str, Any]]:
    """The headers in a stream that has no digests."""
    found = []
    position = 0
    while position < len(stream):
        header = stream[position : position + layout.BHS_LENGTH]
        record = LAYOUTS.get(header[0] & 0x3F)
        if record is None or len(header) < layout.BHS_LENGTH:
            raise Fault(f"not a target's PDU: {header.hex()}")
        fields = record.asDict(header)
        found.append(fields)
        position += layout.BHS_LENGTH + (fields["lengths"] + 3 & ~3)
    if position != len(stream):
        raise Fault("the last PDU is cut short")
    return found


def fuzz(seconds: float, seed: int) -> tuple[list[str], list[str]]:
    """
    Run rounds for so long.

    @return: what was done, and what went wrong; each round has a seed of its own.
    """
    end = time.monotonic() + seconds
    rounds = sent = logins = 0
    faults: list[str] = []
    while time.monotonic() < end and len(faults) < 5:
        each = Round(Random(f"{seed}/{rounds}"))
        try:
            each.run()
        except Exception:
            faults.append(f"round {seed}/{rounds}:\n{traceback.format_exc()}")
        rounds += 1
        sent += each.bytes
        logins += sum(entry[0] == "loggedIn" for entry in each.diary.entries) - 1
    return [f"{rounds} rounds, {logins} logins, {sent / 1e6:.1f} MB of PDUs"], faults
