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
from tests.bench.servers import ROOT, Ours, OursOf, SlowAndFast, fill
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
    """This project's initiator beside iscsi-perf, both with this project's target."""
    server = Ours(folder)
    fill(server.disk, 64 << 20)
    server.start()
    try:
        for size, depth in ((4096, 32), (262144, 8)):
            theirs, ours, cpu = [], [], []
            for _ in range(rounds):
                operations, taken = perf(depth, size, True)(server, seconds)
                theirs.append(operations / taken)
                arguments = [server.url, str(size), str(depth), str(seconds)]
                command = [sys.executable, "-m", "tests.bench.client", *arguments]
                done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
                rate, used = done.stdout.split()
                ours.append(float(rate))
                cpu.append(float(used))
            rate = median(ours)
            yield (
                f"initiator, {size >> 10} KiB reads at depth {depth}: {rate:,.0f} a second, "
                f"{median(cpu):.1f} us of its CPU each, x{rate / median(theirs):.2f} of iscsi-perf"
            )
    finally:
        server.stop()
