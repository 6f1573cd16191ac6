"""
What the target costs while it does little: memory, start time, a slow disk's neighbour; and the initiator.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from tests.bench.loads import perf
from tests.bench.servers import ROOT, Ours, OursOf, Server, SlowAndFast, Tgt, fill
from tests.support.rawclient import FINAL, READ, RawClient
from tests.support.wire import read10

SESSIONS = 1000
TARGETS = 10_000
HUNG = 100


def idle(folder: Path) -> Iterator[str]:
    """Memory with no session, and with many that do nothing."""
    server = Ours(folder)
    fill(server.disk, 1 << 20)
    took = server.start()
    clients: list[RawClient] = []
    try:
        yield f"idle: {server.rss():.1f} MiB, serving {took:.2f} s after its start"
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        began = time.monotonic()
        for number in range(SESSIONS):
            client = RawClient(("127.0.0.1", server.port))
            answer = client.login(server.iqn, initiator=f"iqn.2001-04.com.example:{number}")
            if answer.header[36]:
                raise AssertionError(f"login {number}: {answer}")
            clients.append(client)
        took = time.monotonic() - began
        yield f"{SESSIONS} idle sessions: {server.rss():.1f} MiB; logged in within {took:.1f} s"
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    finally:
        for client in clients:
            client.close()
        server.stop()


def many(folder: Path) -> Iterator[str]:
    """Memory and start time with many targets, each with a range of one file."""
    path = folder / "many"
    with open(path, "wb") as file:
        file.truncate(TARGETS << 20)
    lines = [f"extent{n} {path} {n}MB 1MB\ntarget{n} extent{n} any\n" for n in range(TARGETS)]
    server = OursOf(folder, "".join(lines))
    took = server.start()
    try:
        yield f"{TARGETS} targets: serving {took:.2f} s after its start, {server.rss():.1f} MiB"
        with RawClient(("127.0.0.1", server.port)) as client:
            name = server.iqn.removesuffix("0") + str(TARGETS - 1)
            answer = client.login(name)
            if answer.header[36]:
                raise AssertionError(f"login to {name}: {answer}")
    finally:
        server.stop()
        path.unlink()


def slow(folder: Path, seconds: float, rounds: int) -> Iterator[str]:
    """A fast disk's operations a second with and without load on a slow one beside it."""
    server = SlowAndFast(folder)
    fill(server.disk, 64 << 20)
    server.start()
    load = perf(32, 4096, True)
    alone, beside, free, stuck = [], [], [], []
    try:
        for _ in range(rounds):
            count, taken = load(server, seconds)
            alone.append(count / taken)
            neighbour = server.url.removesuffix("0") + "1"
            busy = subprocess.Popen(
                ["iscsi-perf", "-m", "32", "-b", "8", "-r", "-t", str(round(seconds) + 3), neighbour],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(0.5)  # until its commands wait at the slow disk
            count, taken = load(server, seconds)
            beside.append(count / taken)
            busy.terminate()
            busy.wait()
            free.append(_within(server, 0, seconds))
            stuck.append(_within(server, HUNG, seconds))
    finally:
        server.stop()
    first, second = sorted(alone)[len(alone) // 2], sorted(beside)[len(beside) // 2]
    yield (
        f"slow disk's neighbour: {first:,.0f} reads a second alone, {second:,.0f} while 32 commands wait"
        f" at the slow one ({(second / first - 1) * 100:+.1f} %)"
    )
    first, second = median(free), median(stuck)
    yield (
        f"in one session: {first:,.0f} reads a second, {second:,.0f} while {HUNG} reads of 1 MiB hang at"
        f" another unit ({(second / first - 1) * 100:+.1f} %)"
    )


def _within(server: SlowAndFast, hung: int, seconds: float) -> float:
    """Reads a second of a session that has so many others hanging at the unit that hangs."""
    with RawClient(("127.0.0.1", server.port)) as client:
        client.login(server.iqn, {"SessionType": "Normal"})
        for lun in (0, 2):
            while client.command(bytes(6), lun).status:
                pass
        for _ in range(hung):
            client.sendPDU(client.commandHead(read10(0, 2048), 2, FINAL | READ, 1 << 20))
        count, began = int(20000 * seconds), time.monotonic()
        client.transfer(count, 32, 8, lambda number: number * 7 % 8192 * 8)
        return count / (time.monotonic() - began)


def client(folder: Path, seconds: float, rounds: int) -> Iterator[str]:
    """This project's initiator beside iscsi-perf, both with this project's target and with tgt, in turn."""
    servers: list[Server] = []
    try:
        for kind in (Ours, Tgt):
            server = kind(folder)
            fill(server.disk, 64 << 20)
            server.start()
            servers.append(server)
        for size, depth in ((4096, 32), (262144, 8)):
            runs = [[_both(server, size, depth, seconds) for server in servers] for _ in range(rounds)]
            for server, each in zip(servers, zip(*runs, strict=True), strict=True):
                theirs, ours, cpu = (median(run[column] for run in each) for column in range(3))
                ratio = median(run[1] / run[0] for run in each)
                yield (
                    f"initiator, {size >> 10} KiB reads at depth {depth} from {server.name}: "
                    f"{ours:,.0f} a second, {cpu:.1f} us of its CPU each; iscsi-perf {theirs:,.0f}, "
                    f"x{ratio:.2f} of it in the median round"
                )
    finally:
        for server in servers:
            server.stop()


def _both(server: Server, size: int, depth: int, seconds: float) -> tuple[float, float, float]:
    """The rates of iscsi-perf and of our initiator, in turn, and the CPU time that ours took for each."""
    operations, taken = perf(depth, size, True)(server, seconds)
    command = [sys.executable, "-m", "tests.bench.client", server.url, str(size), str(depth), str(seconds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rate, used = done.stdout.split()
    return operations / taken, float(rate), float(used)
