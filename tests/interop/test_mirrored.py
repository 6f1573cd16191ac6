"""Mirrors under commands of every kind, from several sessions, while they are copied and compared."""

from __future__ import annotations

import filecmp
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random
from threading import Event
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from iscsi_twisted.errors import LocalError
from iscsi_twisted.storage import FileExtent
from tests.support.clients import BASE, Serve, Served, run
from tests.support.rawclient import RawClient

SIZE = 64 << 20
BLOCK = 512
REACH = 4096
"""Blocks that the commands are about: few, so that they meet one another and what is copied."""

MISCOMPARE = 0xE


class Busy:
    """
    One session that changes a disk in every way.

    @ivar counts: how often each way was done.
    """

    def __init__(self, served: Served, seed: int, stop: Event) -> None:
        self.port, self.random, self.stop = served.port, Random(seed), stop
        self.initiator = f"iqn.2001-04.com.example:busy{seed}"
        self.counts = dict.fromkeys(("write", "compare", "unmap", "same", "read"), 0)

    def run(self) -> None:
        """Go on until it is told to stop; in a thread."""
        with RawClient(("127.0.0.1", self.port), timeout=30.0) as client:
            client.login(f"{BASE}:target0", initiator=self.initiator)
            while client.command(bytes(6)).status:
                pass
            while not self.stop.is_set():
                name = self.random.choice(list(self.counts))
                count = self.random.randint(1, 64)
                first = self.random.randrange(REACH - count)
                getattr(self, f"_{name}")(client, first, count)
                self.counts[name] += 1

    def _good(self, client: RawClient, cdb: bytes, **data: Any) -> bytes:
        outcome = client.command(cdb, **data)
        assert not outcome.status, f"{cdb.hex()}: {outcome}"
        return outcome.data

    def _read(self, client: RawClient, first: int, count: int) -> bytes:
        return self._good(client, struct.pack(">BxIxHx", 0x28, first, count), read=count * BLOCK)

    def _write(self, client: RawClient, first: int, count: int) -> None:
        data = self.random.randbytes(BLOCK) * count
        self._good(client, struct.pack(">BxIxHx", 0x2A, first, count), write=data)

    def _compare(self, client: RawClient, first: int, count: int) -> None:
        count = min(count, 16)
        data = self._read(client, first, count) + self.random.randbytes(BLOCK) * count
        outcome = client.command(struct.pack(">BxQxxxBxx", 0x89, first, count), write=data)
        assert not outcome.status or outcome.senseKey == MISCOMPARE, str(outcome)

    def _unmap(self, client: RawClient, first: int, count: int) -> None:
        data = struct.pack(">HHxxxxQIxxxx", 22, 16, first, count)
        self._good(client, struct.pack(">BxxxxxxHx", 0x42, len(data)), write=data)

    def _same(self, client: RawClient, first: int, count: int) -> None:
        unmap = self.random.random() < 0.5
        data = bytes(BLOCK) if unmap else self.random.randbytes(BLOCK)
        self._good(client, struct.pack(">BBQIxx", 0x93, 8 * unmap, first, count), write=data)


async def until(condition: Any, seconds: float = 60.0) -> None:
    """Wait for something that the world does."""
    from twisted.internet import reactor

    for _ in range(int(seconds * 20)):
        if condition():
            return
        await deferLater(reactor, 0.05)  # type: ignore[arg-type]
    raise AssertionError("it has not happened in time")


@ensureDeferred
async def test_busy(serve: Serve, tmp_path: Path) -> None:
    """
    Two sessions compare and write, unmap, write the same and write, while a member fails and is copied to, a
    third one is added, and they are compared: no difference is ever seen, and in the end they are equal.
    """
    from twisted.internet import reactor

    (tmp_path / "a").write_bytes(os.urandom(SIZE))
    (tmp_path / "b").write_bytes((tmp_path / "a").read_bytes())
    served = await serve(
        f"extent0 %/a 0 {SIZE}\nextent1 %/b 0 {SIZE}\n"
        "device0 FAULTS extent1 kind=error on=write times=1 start=1M length=64K active=no\n"
        "device1 RAID1 extent0 device0\ntarget0 device1 any\n"
    )
    mirror, faulty = served.service.device("device1"), served.service.device("device0")
    stop = Event()
    busy = [Busy(served, seed, stop) for seed in range(2)]
    running = [deferToThread(each.run) for each in busy]

    def equal() -> bool:
        status = mirror.status()
        return not (status.degraded or status.unverified)

    async def compare() -> None:
        for _ in range(1200):
            try:
                comparing = mirror.scrub()
            except LocalError:
                await deferLater(reactor, 0.05)  # type: ignore[arg-type]
                continue
            findings = await comparing
            assert (findings.count, findings.unreadable) == (0, 0), str(findings)
            return
        raise AssertionError("it is never compared")

    await until(equal)
    for _ in range(2):
        faulty.faults[0].times = 1
        faulty.active = True
        await until(lambda: mirror.status().members[1].state != "in sync")
        faulty.active = False
        await until(lambda: mirror.status().members[1].state != "failed")
        await compare()
        await until(equal)
    third = FileExtent(str(tmp_path / "c"), 0, SIZE, reactor=reactor)
    await mirror.add(third)
    await compare()
    await until(equal)
    await compare()
    stop.set()
    await gatherResults(running, consumeErrors=True)
    for each in busy:
        assert min(each.counts.values()) > 10, each.counts
    await mirror.flush()
    await until(lambda: not mirror.lock.holds)
    for name in "bc":
        assert filecmp.cmp(tmp_path / "a", tmp_path / name, shallow=False), name


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(path)], check=True)
    yield path
    # The service lets go of its files at the very end.
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize("alone", [False, True], ids=["all", "one"])
@ensureDeferred
async def test_room(serve: Serve, small: Path, tmp_path: Path, alone: bool) -> None:
    """
    If no member has room the command fails with that, and none is left out; if one alone has none it is left
    out, and qemu-io notices nothing.  When there is room again all hold the same.
    """
    second = tmp_path / "b" if alone else small / "b"
    served = await serve(
        f"extent0 %/small/a 0 64M\nextent1 {second} 0 64M\n"
        "device0 RAID1 extent0 extent1\ntarget0 device0 any\n"
    )
    mirror = served.service.device("device0")

    def states() -> list[str]:
        return [member.state for member in mirror.status().members]

    async def do(*commands: str) -> str:
        words = [word for command in commands for word in ("-c", command)]
        return (await run("qemu-io", "-f", "raw", *words, served.url())).text

    await until(lambda: states() == ["in sync"] * 2 and not mirror.status().unverified)
    assert "failed" not in await do("write -P 1 0 256k", "flush")
    space = os.statvfs(small)
    (small / "other").write_bytes(bytes(space.f_bavail * space.f_frsize - (128 << 10)))
    text = await do("write -P 2 8M 256k", "write -P 3 0 256k", "read -P 3 0 256k", "flush")
    assert text.count("write failed: No space left on device") == text.count("(0x2707)") == (not alone), text
    assert ("failed" in text) is not alone, text
    assert ("failed" in states()) is alone, states()
    (small / "other").unlink()
    assert "failed" not in await do("write -P 2 8M 256k", "read -P 2 8M 256k", "read -P 3 0 256k", "flush")
    await until(lambda: states() == ["in sync"] * 2)
    assert filecmp.cmp(small / "a", second, shallow=False)
