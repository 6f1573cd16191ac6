"""The loads: what a client does to a server, and the figures that come of it."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from typing import NamedTuple

from tests.bench.servers import Server, Unavailable
from tests.support.rawclient import Closed, RawClient

LIMIT = 120
"""Seconds after which a client that hangs is ended."""


class Figures(NamedTuple):
    """
    What one run gave.

    @ivar iops: operations a second.
    @ivar megabytes: millions of bytes a second.
    @ivar cpu: microseconds of the server's CPU time per operation.
    """

    iops: float
    megabytes: float
    cpu: float


class Row(NamedTuple):
    """
    A line of the table.

    @ivar size: bytes of one operation.
    @ivar run: drives a server for about so many seconds: operations done and seconds taken.
    """

    name: str
    title: str
    size: int
    run: Callable[[Server, float], tuple[float, float]]

    def measure(self, server: Server, seconds: float) -> Figures:
        """Run once."""
        before = server.cpu()
        operations, taken = self.run(server, seconds)
        iops = operations / taken
        return Figures(iops, iops * self.size / 1e6, (server.cpu() - before) / operations)


def _output(*arguments: str) -> str:
    """
    What a client prints.

    @raise Unavailable: if it is not there, fails or hangs.
    """
    try:
        done = subprocess.run(
            arguments,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise Unavailable(str(error)) from error
    if done.returncode:
        raise Unavailable(f"{arguments[0]}: {(done.stderr or done.stdout).strip()[-200:]}")
    return done.stdout


def perf(
    depth: int, size: int, random: bool = False, query: str = ""
) -> Callable[[Server, float], tuple[float, float]]:
    """Reads by iscsi-perf, which reports its average over whole seconds."""

    def run(server: Server, seconds: float) -> tuple[float, float]:
        whole = max(1, round(seconds))
        options = ["-m", str(depth), "-b", str(size // 512), "-t", str(whole)] + (["-r"] if random else [])
        text = _output("iscsi-perf", *options, server.url + query)
        averages = re.findall(r"iops average (\d+)", text)
        if not averages:
            raise Unavailable(f"iscsi-perf: {text.strip()[-200:]}")
        return int(averages[-1]) * whole, whole

    return run


def image(depth: int, size: int, step: int, guess: int) -> Callable[[Server, float], tuple[float, float]]:
    """
    Writes by qemu-img.

    @param step: bytes from one write to the next.
    @param guess: operations a second to expect; it wants to be told a count.
    """

    def run(server: Server, seconds: float) -> tuple[float, float]:
        count = int(guess * seconds)
        options = f"-w -f raw -c {count} -d {depth} -s {size} -S {step}".split()
        text = _output("qemu-img", "bench", *options, server.url)
        taken = re.search(r"completed in ([\d.]+) seconds", text)
        if taken is None:
            raise Unavailable(f"qemu-img: {text.strip()[-200:]}")
        return count, float(taken[1])

    return run


def raw(
    size: int, depth: int, guess: int, digest: str = "None", write: bool = False
) -> Callable[[Server, float], tuple[float, float]]:
    """
    Reads or writes by this project's own client, with or without data digests.

    It is slower than the servers: look at the server's CPU time.
    """

    def run(server: Server, seconds: float) -> tuple[float, float]:
        blocks = size // 512
        span = server.disk.stat().st_size // size
        with RawClient(("127.0.0.1", server.port)) as client:
            keys = {"SessionType": "Normal", "DataDigest": digest, "MaxRecvDataSegmentLength": "262144"}
            client.login(server.iqn, keys)
            if client.dataDigest != (digest == "CRC32C"):
                raise Unavailable(f"{server.name} answers DataDigest={client.answers.get('DataDigest')}")
            _settle(client, server)
            count = int(guess * seconds)
            began = time.monotonic()
            client.transfer(
                count,
                depth,
                blocks,
                lambda n: n * 7 % span * blocks,
                bytes(size) if write else b"",
                server.lun,
            )
            return count, time.monotonic() - began

    return run


def _settle(client: RawClient, server: Server) -> None:
    """Take the unit attentions that a new session meets."""
    try:
        while client.command(bytes(6), server.lun).status:
            pass
    except (Closed, AssertionError) as error:
        raise Unavailable(f"{server.name} with the raw client: {error}") from error


KIB, MIB = 1024, 1024 * 1024

ROWS = [
    Row("read4k", "4 KiB random reads, depth 32", 4 * KIB, perf(32, 4 * KIB, True)),
    Row("read4k1", "4 KiB random reads, depth 1", 4 * KIB, perf(1, 4 * KIB, True)),
    Row("read64k", "64 KiB sequential reads, depth 8", 64 * KIB, perf(8, 64 * KIB)),
    Row("read256k", "256 KiB sequential reads, depth 8", 256 * KIB, perf(8, 256 * KIB)),
    Row("read1m", "1 MiB sequential reads, depth 8", MIB, perf(8, MIB)),
    Row("write4k", "4 KiB strided writes, depth 32", 4 * KIB, image(32, 4 * KIB, 68 * KIB, 30000)),
    Row("write64k", "64 KiB sequential writes, depth 8", 64 * KIB, image(8, 64 * KIB, 64 * KIB, 8000)),
    Row("write256k", "256 KiB sequential writes, depth 8", 256 * KIB, image(8, 256 * KIB, 256 * KIB, 3000)),
    Row(
        "header4k",
        "4 KiB random reads, depth 32, header digest",
        4 * KIB,
        perf(32, 4 * KIB, True, "?header_digest=crc32c"),
    ),
    Row("raw4k", "4 KiB reads, depth 32, raw client", 4 * KIB, raw(4 * KIB, 32, 30000)),
    Row("data4k", "4 KiB reads, depth 32, data digest", 4 * KIB, raw(4 * KIB, 32, 30000, "CRC32C")),
    Row("raw64k", "64 KiB reads, depth 8, raw client", 64 * KIB, raw(64 * KIB, 8, 15000)),
    Row("data64k", "64 KiB reads, depth 8, data digest", 64 * KIB, raw(64 * KIB, 8, 15000, "CRC32C")),
    Row("raww64k", "64 KiB writes, depth 8, raw client", 64 * KIB, raw(64 * KIB, 8, 8000, write=True)),
    Row("dataw64k", "64 KiB writes, depth 8, data digest", 64 * KIB, raw(64 * KIB, 8, 8000, "CRC32C", True)),
]
