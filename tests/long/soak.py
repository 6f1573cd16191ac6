"""A real service on loopback: some clients check every byte they wrote, others do everything wrong."""

from __future__ import annotations

import contextlib
import gc
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from threading import Event, Lock
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThreadPool
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from iscsi_twisted.storage import FileExtent, MemoryDevice
from iscsi_twisted.target import TargetService
from tests.long import streams
from tests.support.rawclient import Closed, RawClient
from tests.support.wire import TARGET, read10, write10

REGION = 2048
"""Blocks that each checking client has for itself."""

CHECKERS = 3
VANDALS = 4
SOUND = "iqn.2001-04.com.example:sound"

GROWTH = 200 << 10
"""KiB that the process may grow by: caches of the allocator, never what was sent."""


@implementer(ILogObserver)
class Listener:
    """Keeps what was logged as an error, and what twisted calls critical."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    def __call__(self, event: dict[str, Any]) -> None:
        if event.get("log_level") is not None and event["log_level"].name in ("error", "critical"):
            failure = event.get("log_failure")
            self.failures.append(failure.getTraceback() if failure is not None else str(event))


class Tally:
    """What was done, counted from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.counts: dict[str, int] = {}
        self.faults: list[str] = []

    def add(self, name: str, count: int = 1) -> None:
        """Count something."""
        with self._lock:
            self.counts[name] = self.counts.get(name, 0) + count


def checker(address: tuple[str, int], number: int, random: Random, ended: Event, tally: Tally) -> None:
    """Write and read a region of one's own, and compare with a model of it."""
    model = bytearray(REGION * 512)
    base = number * REGION
    first = True
    while not ended.is_set():
        keys = {
            name: random.choice(streams.KEYS[name])
            for name in ("InitialR2T", "ImmediateData", "FirstBurstLength", "MaxBurstLength")
        }
        keys["HeaderDigest"] = keys["DataDigest"] = random.choice(("None", "CRC32C"))
        keys["MaxRecvDataSegmentLength"] = random.choice(("512", "8192", "262144"))
        with RawClient(address) as client:
            answer = client.login(SOUND, keys, initiator=f"{SOUND}:checker{number}")
            if answer.header[36]:
                raise AssertionError(f"a right login was refused: {answer.header[36:38].hex()}")
            tally.add("sessions of checkers")
            while client.command(bytes(6)).status:
                pass
            if first:
                model[:] = _read(client, base, REGION)
                first = False
            for _ in range(random.randrange(100)):
                if ended.is_set():
                    break
                _transfer(client, random, base, model, tally)
            if random.random() < 0.5:
                client.logout()


def _transfer(client: RawClient, random: Random, base: int, model: bytearray, tally: Tally) -> None:
    lba = random.randrange(REGION)
    blocks = min(random.choice((1, 2, 8, 64, 512)), REGION - lba)
    begin, length = lba * 512, blocks * 512
    if random.random() < 0.5:
        if _read(client, base + lba, blocks) != model[begin : begin + length]:
            raise AssertionError(f"block {base + lba} and {blocks - 1} more do not hold what was written")
        tally.add("bytes read and compared", length)
        return
    data = random.randbytes(length)
    immediate = 0
    if client.answers.get("ImmediateData") == "Yes":
        immediate = random.choice((0, min(length, int(client.answers.get("FirstBurstLength", "65536")))))
    outcome = client.command(write10(base + lba, blocks), write=data, immediate=immediate)
    if outcome.status or outcome.residual:
        raise AssertionError(f"a write ended with {outcome}")
    model[begin : begin + length] = data
    tally.add("bytes written", length)


def _read(client: RawClient, lba: int, blocks: int) -> bytes:
    outcome = client.command(read10(lba, blocks), read=blocks * 512)
    if outcome.status or outcome.residual:
        raise AssertionError(f"a read ended with {outcome.status:#x}, sense {outcome.sense.hex()}")
    return outcome.data


def vandal(address: tuple[str, int], number: int, random: Random, ended: Event, tally: Tally) -> None:
    """Garbage, spoilt sessions, half logins, and drops at any point; answers are read or not."""
    held: list[RawClient] = []
    while not ended.is_set():
        client = RawClient(address, timeout=0.05)
        tally.add("connections of vandals")
        stream = b"".join(streams.mutate(random, streams.session(random, REGION)))
        if random.random() < 0.2:
            stream = random.randbytes(random.randrange(1000))
        with contextlib.suppress(OSError, Closed):
            for chunk in streams.chunks(random, stream[: random.randrange(len(stream) + 1)]):
                client.send(chunk)
            tally.add("bytes of vandals", len(stream))
            if random.random() < 0.5:
                client.recv(48)
        if random.random() < 0.3:
            held.append(client)
        else:
            client.close()
        while len(held) > 20:
            held.pop(random.randrange(len(held))).close()
    for client in held:
        client.close()


def soak(seconds: float, seed: int) -> tuple[list[str], list[str]]:
    """
    Serve, and let clients do their best and their worst for so long.

    @return: what was done, and what went wrong.
    """
    from twisted.internet import reactor as anyReactor

    reactor: Any = anyReactor
    outcome: list[tuple[list[str], list[str]]] = []
    with tempfile.TemporaryDirectory() as folder:
        run = Run(reactor, Path(folder), seconds, seed)

        def done(result: Any) -> None:
            outcome.append(run.result(result))
            reactor.stop()

        reactor.callWhenRunning(lambda: run.start().addBoth(done))
        reactor.run()
    return outcome[0]


class Run:
    """One service and its clients."""

    def __init__(self, reactor: Any, folder: Path, seconds: float, seed: int) -> None:
        self.reactor = reactor
        self.seconds = seconds
        self.seed = seed
        self.tally = Tally()
        self.ended = Event()
        self.listener = Listener()
        self.service = TargetService(reactor, ["tcp:0:interface=127.0.0.1"])
        sound = FileExtent(str(folder / "sound"), 0, CHECKERS * REGION * 512, reactor=reactor)
        self.service.addTarget(SOUND, [sound])
        self.service.addTarget(TARGET, [MemoryDevice(REGION * 512), MemoryDevice(REGION * 512)])
        self.pool = ThreadPool(CHECKERS + VANDALS, CHECKERS + VANDALS)
        self.growth = 0

    def start(self) -> Any:
        """Begin; fires when all is over."""
        globalLogPublisher.addObserver(self.listener)
        self.service.privilegedStartService()
        self.service.startService()
        return self.service.whenReady().addCallback(self._attack).addBoth(self._stop)

    def _attack(self, _: object) -> Any:
        host = self.service.ports[0].getHost()
        address = (host.host, host.port)
        self.pool.start()
        self.before = _resident()
        self.reactor.callLater(self.seconds, self.ended.set)
        kinds: list[tuple[Any, int]] = [(checker, n) for n in range(CHECKERS)]
        kinds += [(vandal, n) for n in range(VANDALS)]
        return gatherResults(
            [deferToThreadPool(self.reactor, self.pool, self._client, kind, address, n) for kind, n in kinds]
        )

    def _client(self, kind: Callable[..., None], address: tuple[str, int], number: int) -> None:
        try:
            kind(address, number, Random(f"{self.seed}/{kind.__name__}/{number}"), self.ended, self.tally)
        except Exception:
            self.tally.faults.append(f"{kind.__name__} {number}:\n{traceback.format_exc()}")
            self.ended.set()

    def _stop(self, result: Any) -> Any:
        self.ended.set()
        self.pool.stop()
        gc.collect()
        self.growth = _resident() - self.before
        stopped = self.service.stopService()
        return stopped.addBoth(lambda _: result) if stopped is not None else result

    def result(self, result: Any) -> tuple[list[str], list[str]]:
        """What was done, and what went wrong."""
        globalLogPublisher.removeObserver(self.listener)
        lines = [f"{name}: {count}" for name, count in sorted(self.tally.counts.items())]
        status = self.service.status()
        lines.append(f"logins {status.logins}, refusals {status.refusals}, losses {status.losses}")
        lines.append(f"the process grew by {self.growth} KiB")
        faults = [*self.tally.faults, *self.listener.failures]
        if status.surprises:
            faults.append(f"{status.surprises} surprises")
        if self.service.node.sessions or self.service.node.solicited.used or self.service.node.unfinished:
            faults.append("something of a session is still there")
        if self.growth > GROWTH:
            faults.append("the process grew too much")
        if hasattr(result, "getTraceback"):
            faults.append(result.getTraceback())
        if not self.tally.counts.get("bytes read and compared"):
            faults.append("nothing was read and compared")
        return lines, faults


def _resident() -> int:
    """KiB of memory in use by this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0
