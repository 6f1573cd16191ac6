"""
Killing the real process: what it has answered as kept is there when it serves again.

Each kind of state is a row of L{ROWS}: it knows how to change the state with one command, and how to ask for
it.  After a kill the state has to be the last one that was answered, or the one that was asked for just then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from random import Random
from threading import Thread
from typing import Any, NamedTuple

from tests.long.kill import good, killing, loggedIn
from tests.support.rawclient import Closed, RawClient

SIZE = 1 << 20


class Change(NamedTuple):
    """
    A command that changes a state.

    @ivar data: its Data-Out.
    @ivar state: what the state then is.
    """

    cdb: bytes
    data: bytes
    state: Any


class Row(NamedTuple):
    """
    One kind of state.

    @ivar change: given the state there is, and a source of chance, what to send; None where nothing changes.
    @ivar read: asks for it.
    """

    name: str
    change: Callable[[Any, Random], Change] | None
    read: Callable[[RawClient], Any]


# Persistent reservations with APTPL: this nexus' key, and the type of its reservation

TYPES = (1, 3, 5, 6, 7, 8)


def _reserveOut(action: int, kind: int, key: int, new: int, state: Any) -> Change:
    cdb = bytes((0x5F, action, kind, 0, 0, 0, 0, 0, 24, 0))
    return Change(
        cdb, key.to_bytes(8, "big") + new.to_bytes(8, "big") + bytes((0, 0, 0, 0, 1, 0, 0, 0)), state
    )


def changeReservation(state: Any, random: Random) -> Change:
    """Register another key, reserve, release, or unregister."""
    key, kind = state
    choice = random.random()
    if not key or choice < 0.4:
        new = random.randrange(1, 1 << 64)
        return _reserveOut(6, 0, 0, new, (new, kind))
    if choice < 0.5:
        return _reserveOut(6, 0, 0, 0, (0, 0))
    if kind:
        return _reserveOut(2, kind, key, 0, (key, 0))
    new = random.choice(TYPES)
    return _reserveOut(1, new, key, 0, (key, new))


def readReservation(client: RawClient) -> Any:
    """READ KEYS and READ RESERVATION."""
    keys = good(client, b"\x5e\0" + bytes(5) + b"\x0f\xff\0", read=0xFFF)[8:]
    held = good(client, b"\x5e\1" + bytes(5) + b"\x0f\xff\0", read=0xFFF)[8:]
    key = int.from_bytes(keys, "big") if len(keys) in (0, 8) else keys.hex()
    return key, held[13] & 15 if held else 0


# The control mode page, saved: QERR

QERR = (0, 1, 3)


def changePage(state: Any, random: Random) -> Change:
    """MODE SELECT with SP."""
    value = random.choice(QERR)
    page = bytes((0x0A, 0x0A, 0x02, 0x10 | value << 1)) + bytes(8)
    return Change(bytes((0x15, 0x11, 0, 0, 4 + len(page), 0)), bytes(4) + page, value)


def readPage(client: RawClient) -> Any:
    """MODE SENSE of what holds, and of what is saved if something is."""
    current = good(client, bytes((0x1A, 0x08, 0x0A, 0, 255, 0)), read=255)
    saved = good(client, bytes((0x1A, 0x08, 0xCA, 0, 255, 0)), read=255)
    values = {data[7] >> 1 & 3 for data in (current, saved)}
    return values.pop() if len(values) == 1 else f"{current.hex()} {saved.hex()}"


# Identifying information: a name of any length

LENGTHS = (0, 1, 16, 512)


def changeName(state: Any, random: Random) -> Change:
    """SET IDENTIFYING INFORMATION."""
    name = random.randbytes(random.choice(LENGTHS))
    return Change(b"\xa4\x06" + bytes(4) + len(name).to_bytes(4, "big") + bytes(2), name, name)


def readName(client: RawClient) -> Any:
    """REPORT IDENTIFYING INFORMATION."""
    return bytes(good(client, b"\xa3\x05" + bytes(6) + b"\x0f\xff\0\0", read=0xFFF)[4:])


def readIdentity(client: RawClient) -> Any:
    """INQUIRY: standard data, serial number, and designators."""
    return tuple(
        good(client, bytes((0x12, evpd, page, 0, 255, 0)), read=255)
        for evpd, page in ((0, 0), (1, 0x80), (1, 0x83))
    )


ROWS = (
    Row("reservation", changeReservation, readReservation),
    Row("mode page", changePage, readPage),
    Row("name", changeName, readName),
    Row("identity", None, readIdentity),
)


class Changer(Thread):
    """
    Changes states until the target is gone.

    @ivar answered: by name of the row, the state that was answered last.
    @ivar asked: the state that was asked for last.
    @ivar changes: how many were answered.
    """

    def __init__(self, port: int, random: Random, answered: dict[str, Any]) -> None:
        super().__init__()
        self.port = port
        self.random = random
        self.answered = answered
        self.asked = dict(answered)
        self.changes = 0
        self.fault: str | None = None

    def run(self) -> None:
        try:
            with contextlib.suppress(Closed, OSError), loggedIn(self.port) as client:
                while True:
                    row = self.random.choice([each for each in ROWS if each.change is not None])
                    assert row.change is not None
                    change = row.change(self.answered[row.name], self.random)
                    self.asked[row.name] = change.state
                    good(client, change.cdb, write=change.data)
                    self.answered[row.name] = change.state
                    self.changes += 1
        except Exception as error:
            self.fault = repr(error)


def read(port: int) -> dict[str, Any]:
    """All states as they are."""
    with loggedIn(port) as client:
        states = {row.name: row.read(client) for row in ROWS}
        client.logout()
    return states


def states(seconds: float, seed: int) -> tuple[list[str], list[str]]:
    """
    Kill a target that is told to remember other states again and again.

    @return: what was done, and what went wrong.
    """
    random = Random(seed)
    answered: dict[str, Any] = {}
    changes = 0

    def live(port: int) -> Changer:
        answered.update(answered or read(port))
        return Changer(port, random, answered)

    def check(port: int, changer: Changer) -> list[str]:
        nonlocal changes
        changes += changer.changes
        found = read(port)
        faults = [
            f"{name}: {state!r}, not {answered[name]!r} or {changer.asked[name]!r}"
            for name, state in found.items()
            if state not in (answered[name], changer.asked[name])
        ]
        answered.update(found)
        return faults

    kills, faults = killing(seconds, random, SIZE, live, check)
    if not changes:
        faults.append("nothing was changed")
    return [f"{kills} kills, {changes} changes of {', '.join(row.name for row in ROWS)}"], faults
