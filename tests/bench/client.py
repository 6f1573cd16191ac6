"""
This project's initiator as a load: C{python -m tests.bench.client URL BYTES DEPTH SECONDS} prints its rate.
"""

from __future__ import annotations

import random
import sys
import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from iscsi_twisted.initiator import LUN, Initiator, parseURL
from iscsi_twisted.transport import tuneMalloc


class Load:
    """
    Random reads, several outstanding.

    @ivar done: how many have ended.
    @ivar ended: fires when the time is over and all have ended.
    """

    def __init__(self, lun: LUN, size: int, depth: int, until: float) -> None:
        self.done = 0
        self.ended: Deferred[None] = Deferred()
        self._lun, self._size, self._until = lun, size, until
        self._outstanding = depth
        self._places = lun.size // size
        for _ in range(depth):
            self._next()

    def _next(self) -> None:
        place = int(random.random() * self._places) * self._size
        self._lun.read(place, self._size).addCallbacks(self._finished, self.ended.errback)

    def _finished(self, _: object) -> None:
        self.done += 1
        if time.perf_counter() < self._until:
            self._next()
            return
        self._outstanding -= 1
        if not self._outstanding:
            self.ended.callback(None)


async def main(reactor: Any, text: str, size: str, depth: str, seconds: str) -> None:
    """Log in, read, and print reads a second and microseconds of CPU time for each."""
    tuneMalloc()
    url = parseURL(text)
    where = f"{url.host}:{url.port}"
    # As iscsi-perf: some targets choose digests if they may.
    session = await Initiator(reactor).login(where, url.target, headerDigest="no", dataDigest="no")
    lun = LUN(session, url.lun or 0)
    await lun.open()
    began, cpu = time.perf_counter(), time.process_time()
    load = Load(lun, int(size), int(depth), began + float(seconds))
    await load.ended
    taken, used = time.perf_counter() - began, time.process_time() - cpu
    print(f"{load.done / taken:.0f} {used / load.done * 1e6:.1f}")
    await session.logout()


if __name__ == "__main__":
    react(lambda reactor, *arguments: Deferred.fromCoroutine(main(reactor, *arguments)), sys.argv[1:])
