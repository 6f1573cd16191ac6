"""What a process has left unfinished that was killed, and is started again."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from iscsi_twisted.scsi.cdblong import SANITIZE_OVERWRITE, WRITE_ATOMIC_16
from iscsi_twisted.scsi.untorn import ATOMIC_LIMIT, record
from tests.bench.servers import OursOf
from tests.long.kill import good
from tests.support.rawclient import Closed, RawClient
from tests.support.wire import read10, write10

SIZE = 24 << 20
LINES = "extent0 %s 0 24MB\n{device}\ntarget0 rw {served} any\n"
READY = bytes(6)
IN_PROGRESS = (2, 0x041B)


class Disk:
    """A process that serves a disk, and a client of it."""

    def __init__(self, folder: Path, device: str = "", served: str = "extent0") -> None:
        lines = LINES.format(device=device, served=served) % (folder / "extent")
        self.server = OursOf(folder, lines)
        self.image = folder / "extent"
        self.state = self.server.folder / "state"
        self.server.start()

    def again(self) -> None:
        """Kill it with SIGKILL, and start it again."""
        self.server.kill()
        self.server.start()

    def client(self) -> RawClient:
        """A client with a session, to which the unit attention of the start was told."""
        client = RawClient(("127.0.0.1", self.server.port))
        client.login(self.server.iqn)
        client.command(READY)
        return client


@pytest.fixture
def fast(tmp_path: Path) -> Iterator[Disk]:
    """A disk as fast as it can be."""
    disk = Disk(tmp_path)
    yield disk
    disk.server.stop()


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Disk]:
    """A disk that needs three seconds for all of it."""
    disk = Disk(tmp_path, "device0 RATE extent0 bytes=8MB", "device0")
    yield disk
    disk.server.stop()


def reason(client: RawClient) -> tuple[int, int]:
    """Why the disk is not ready: sense key and code."""
    sense = client.command(READY).sense
    return (sense[2] & 15, sense[12] << 8 | sense[13]) if sense else (0, 0)


def test_sanitize(slow: Disk) -> None:
    """A sanitize that was killed goes on at each start, and nobody reads the disk before it has ended."""
    with slow.client() as client:
        good(client, write10(0, 8), write=b"secret! " * 512)
        pattern = struct.pack(">BxH", 1, 1) + b"x"
        good(client, SANITIZE_OVERWRITE.encode(action=0x80, length=5)[:10], write=pattern)
        assert reason(client) == IN_PROGRESS
    for _ in range(2):
        time.sleep(0.3)
        slow.again()
        with slow.client() as client:
            assert reason(client) == IN_PROGRESS
            assert client.command(read10(0, 8), read=4096).status == 2
    deadline = time.monotonic() + 30
    with slow.client() as client:
        while (why := reason(client)) != (0, 0):
            assert why == IN_PROGRESS
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert good(client, read10(0, 8), read=4096) == b"x" * 4096
        client.logout()
    assert slow.image.read_bytes() == b"x" * SIZE
    slow.again()
    with slow.client() as client:
        good(client, write10(0, 8), write=b"new data" * 512)
    slow.again()
    with slow.client() as client:
        assert good(client, read10(0, 8), read=4096) == b"new data" * 512


def test_writeAtomic(fast: Disk) -> None:
    """A WRITE ATOMIC that was cut short is finished at the next start; one that was not is not redone."""
    with fast.client() as client:
        good(client, WRITE_ATOMIC_16.encode(lba=8, length=8), write=b"a" * 4096)
        good(client, write10(8, 8), write=b"b" * 4096)
    fast.again()
    with fast.client() as client:
        assert good(client, read10(8, 8), read=4096) == b"b" * 4096
    assert list((fast.state / "writes").iterdir()) == []
    with fast.client() as client:
        name = good(client, bytes((0x12, 1, 0x83, 0, 255, 0)), read=255)[8:16].hex()
    fast.server.kill()
    (fast.state / "writes" / name).write_bytes(record(16 * 512, b"c" * 8192))
    fast.server.start()
    with fast.client() as client:
        assert good(client, read10(16, 16), read=8192) == b"c" * 8192
    assert list((fast.state / "writes").iterdir()) == []


class AtomicWriter(Thread):
    """
    Writes one range again and again, each time with another byte, until the target is gone.

    @ivar begun: the last byte that was sent; C{ended}, the last one that was answered.
    """

    def __init__(self, client: RawClient, version: int) -> None:
        super().__init__()
        self.client = client
        self.begun = self.ended = version

    def run(self) -> None:
        blocks = ATOMIC_LIMIT // 512
        with contextlib.suppress(Closed, OSError):
            while True:
                self.begun += 1
                data = bytes((self.begun % 256,)) * ATOMIC_LIMIT
                good(self.client, WRITE_ATOMIC_16.encode(lba=5, length=blocks), write=data)
                self.ended = self.begun


def test_killed(fast: Disk) -> None:
    """However often the process is killed while it writes, a WRITE ATOMIC is there as a whole or not."""
    version = 0
    for number in range(4):
        writer = AtomicWriter(fast.client(), version)
        writer.start()
        time.sleep(0.2 + 0.13 * number)
        fast.server.kill()
        writer.join()
        fast.server.start()
        with fast.client() as client:
            places = range(5, 2053, 256)
            found = b"".join(good(client, read10(place, 256), read=256 * 512) for place in places)
        assert found == found[:1] * ATOMIC_LIMIT
        possible = [each for each in (writer.ended, writer.begun) if each % 256 == found[0]]
        assert possible and writer.ended > version
        version = possible[0]
