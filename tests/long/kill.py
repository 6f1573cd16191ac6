"""Killing the real process: what was written and flushed before that is there when it serves again."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from threading import Thread
from typing import Protocol, TypeVar

from tests.bench.servers import Ours
from tests.support.rawclient import Closed, RawClient
from tests.support.wire import read10, write10

BLOCKS = 4096
FUA = 0x08
FLUSH = b"\x35" + bytes(9)
"""SYNCHRONIZE CACHE (10) of everything."""


class Writer(Thread):
    """
    Writes blocks that tell where they belong and how new they are, until the target is gone.

    @ivar acknowledged: by block, the newest version that was answered as durable.
    @ivar begun: by block, the newest version that was sent.
    """

    def __init__(self, port: int, random: Random, acknowledged: dict[int, int]) -> None:
        super().__init__()
        self.port = port
        self.random = random
        self.acknowledged = acknowledged
        self.begun = dict(acknowledged)
        self.fault: str | None = None

    def run(self) -> None:
        try:
            with contextlib.suppress(Closed, OSError), loggedIn(self.port) as client:
                while True:
                    self._write(client)
        except Exception as error:
            self.fault = repr(error)

    def _write(self, client: RawClient) -> None:
        count = self.random.randint(1, 16)
        first = self.random.randrange(BLOCKS - count + 1)
        places = range(first, first + count)
        for place in places:
            self.begun[place] = self.begun.get(place, 0) + 1
        data = b"".join(block(place, self.begun[place]) for place in places)
        durable = self.random.random() < 0.5
        cdb = bytearray(write10(first, count))
        cdb[1] = FUA * durable
        good(client, bytes(cdb), write=data)
        if not durable:
            good(client, FLUSH)
        for place in places:
            self.acknowledged[place] = self.begun[place]


def loggedIn(port: int) -> RawClient:
    """A client with a session, and no unit attention left."""
    client = RawClient(("127.0.0.1", port), timeout=30.0)
    client.login(Ours.iqn)
    while client.command(bytes(6)).status:
        pass
    return client


def good(client: RawClient, cdb: bytes, read: int = 0, write: bytes = b"") -> bytes:
    """Run a command that has to succeed."""
    outcome = client.command(cdb, read=read, write=write)
    if outcome.status:
        raise AssertionError(f"{cdb.hex()} ended with {outcome.status:#x}, sense {outcome.sense.hex()}")
    return outcome.data


def block(place: int, version: int) -> bytes:
    """The content of a block."""
    return (place.to_bytes(8, "big") + version.to_bytes(8, "big")) * 32


def lost(port: int, writer: Writer) -> list[str]:
    """What a target that serves again has not, or what nobody wrote; what it has counts from now on."""
    faults = []
    with loggedIn(port) as client:
        data = b"".join(good(client, read10(first, 64), read=64 * 512) for first in range(0, BLOCKS, 64))
        client.logout()
    for place in range(BLOCKS):
        found = data[place * 512 :][:512]
        version = int.from_bytes(found[8:16], "big")
        least, most = writer.acknowledged.get(place, 0), writer.begun.get(place, 0)
        if found != (block(place, version) if version else bytes(512)) or not least <= version <= most:
            faults.append(f"block {place}: version {version} of {least} to {most}: {found[:16].hex()}")
        writer.acknowledged[place] = version
    return faults


class Life(Protocol):
    """
    What goes on from one start of the target to its end: a thread that ends when the target is gone.

    @ivar fault: what went wrong but for that end, or None.
    """

    fault: str | None

    def start(self) -> None: ...

    def join(self) -> None: ...


_L = TypeVar("_L", bound=Life)


def killing(
    seconds: float,
    random: Random,
    size: int,
    live: Callable[[int], _L],
    check: Callable[[int, _L], list[str]],
) -> tuple[int, list[str]]:
    """
    Kill the target and start it again for so long, three times at least, or until something is wrong.

    @param size: bytes of its disk.
    @param live: given its port, what is to go on until it is killed.
    @param check: given its port when it serves again, and what went on: what is wrong.
    @return: how often it was killed, and what was wrong.
    """
    deadline = time.monotonic() + seconds
    faults: list[str] = []
    kills = 0
    with tempfile.TemporaryDirectory() as folder:
        victim = Ours(Path(folder))
        with open(victim.disk, "wb") as file:
            file.truncate(size)
        victim.start()
        while (kills < 3 or time.monotonic() < deadline) and not faults:
            life = live(victim.port)
            life.start()
            time.sleep(random.uniform(0.02, 0.8))
            victim.kill()
            life.join()
            kills += 1
            victim.start()
            faults += check(victim.port, life) + ([life.fault] if life.fault else [])
        victim.stop()
    return kills, faults


def kill(seconds: float, seed: int) -> tuple[list[str], list[str]]:
    """
    Kill a target that is written to.

    @return: what was done, and what went wrong.
    """
    random = Random(seed)
    acknowledged: dict[int, int] = {}
    kills, faults = killing(
        seconds, random, BLOCKS * 512, lambda port: Writer(port, random, acknowledged), lost
    )
    versions = sum(acknowledged.values())
    if not versions:
        faults.append("nothing was written")
    return [f"{kills} kills, {versions} versions of blocks kept"], faults
