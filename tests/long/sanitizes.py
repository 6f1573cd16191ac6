"""
Killing the real process while it sanitizes its disk: whatever the moment, when the disk can be used again all
of it is what the last SANITIZE that was answered has written, or the one that was asked for just then.
"""

from __future__ import annotations

import contextlib
import time
from random import Random
from threading import Thread

from tests.bench.servers import Ours
from tests.long.kill import good, killing
from tests.support.rawclient import Closed, RawClient
from tests.support.wire import read10

SIZE = 48 << 20
PIECE = 1 << 20
OVERWRITE, IMMED = 0x01, 0x80
IN_PROGRESS = 0x041B
PATIENCE = 120.0
"""Seconds that a sanitize may take."""


def entered(port: int) -> RawClient:
    """A client with a session, whatever state the disk is in; it has been told of the start."""
    client = RawClient(("127.0.0.1", port), timeout=60.0)
    client.login(Ours.iqn)
    while True:
        outcome = client.command(bytes(6))
        if not outcome.status or outcome.sense[2] & 15 != 6:
            return client


def finished(client: RawClient) -> int:
    """
    Wait until the disk can be used.

    @return: how often it was said to be in progress; until then it may not be read.
    """
    deadline, looks, progress = time.monotonic() + PATIENCE, 0, 0
    while True:
        sense = client.command(b"\x03\0\0\0\xfc\0", read=252).data
        if not sense[2] & 15:
            return looks
        code, told = int.from_bytes(sense[12:14], "big"), int.from_bytes(sense[16:18], "big")
        if code != IN_PROGRESS or told < progress or time.monotonic() > deadline:
            raise AssertionError(f"{sense.hex()} after progress of {progress}")
        progress, looks = told, looks + 1
        outcome = client.command(read10(0, 1), read=512)
        if not outcome.status and client.command(b"\x03\0\0\0\xfc\0", read=252).data[2] & 15:
            raise AssertionError("it was read while it was sanitized")
        time.sleep(0.01)


class Sanitizer(Thread):
    """
    Sanitizes again and again, until the target is gone.

    @ivar answered: the byte that the last SANITIZE was to write that was answered.
    @ivar asked: the byte of the last that was asked for.
    @ivar done: how many have ended.
    """

    def __init__(self, port: int, random: Random, answered: int) -> None:
        super().__init__()
        self.port, self.random = port, random
        self.answered = self.asked = answered
        self.done = 0
        self.fault: str | None = None

    def run(self) -> None:
        try:
            with contextlib.suppress(Closed, OSError), entered(self.port) as client:
                while True:
                    self.asked = self.random.randrange(1, 256)
                    flags = OVERWRITE | self.random.choice((0, IMMED))
                    data = bytes((self.random.choice((1, 3)), 0, 0, 1, self.asked))
                    good(client, bytes((0x48, flags, 0, 0, 0, 0, 0, 0, len(data), 0)), write=data)
                    self.answered = self.asked
                    finished(client)
                    self.done += 1
        except Exception as error:
            self.fault = repr(error)


def sanitizes(seconds: float, seed: int) -> tuple[list[str], list[str]]:
    """
    Kill a target that sanitizes.

    @return: what was done, and what went wrong.
    """
    random = Random(seed)
    counts = {"done": 0, "resumed": 0}
    state = [0]

    def check(port: int, sanitizer: Sanitizer) -> list[str]:
        counts["done"] += sanitizer.done
        with entered(port) as client:
            counts["resumed"] += bool(finished(client))
            parts = {good(client, read10(place, 2048), read=PIECE) for place in range(0, SIZE // 512, 2048)}
            client.logout()
        found = {byte for part in parts for byte in set(part)}
        wanted = {sanitizer.answered, sanitizer.asked}
        state[:] = list(found)[:1]
        if len(found) == 1 and found <= wanted:
            return []
        return [f"the disk holds {sorted(found)[:8]}, and not {wanted} alone"]

    kills, faults = killing(seconds, random, SIZE, lambda port: Sanitizer(port, random, state[0]), check)
    told = f"{kills} kills, {counts['resumed']} sanitizes went on after one, {counts['done']} ended before"
    return [told], faults
