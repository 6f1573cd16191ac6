"""EXTENDED COPY over the real thing: files, sessions, and what an initiator must not see."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from iscsi_twisted.scsi.cdblong import COPY_STATUS, EXTENDED_COPY
from iscsi_twisted.wire.numbers import TASK_MANAGEMENT_REQUEST
from tests.bench.servers import OursOf
from tests.long.kill import good
from tests.scsi.copies import copyList, segment, target
from tests.support.rawclient import FINAL, WRITE, RawClient, header
from tests.support.wire import INITIATOR

SIZE = 64 << 20
BLOCKS = SIZE // 512
LINES = """
extent0 {folder}/a 0 64MB
extent1 {folder}/b 0 64MB
extent2 {folder}/c 0 64MB
target0 extent0 extent1 extent2 any luns={guest}:1,2;{owner}:0,1,2
"""
SLOW = """
extent0 {folder}/a 0 64MB
extent1 {folder}/b 0 64MB
device0 RATE extent1 bytes=8MB
extent2 {folder}/c 0 1MB
target0 extent0 device0 extent2 any
"""
GUEST = "iqn.2001-04.com.example:guest"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OursOf]:
    """Three disks of one target in one file system; the first is full of data."""
    (tmp_path / "a").write_bytes(os.urandom(1 << 20) * 64)
    made = OursOf(tmp_path, LINES.format(folder=tmp_path, guest=GUEST, owner=INITIATOR))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[OursOf]:
    """Two disks; writing all of the second one takes eight seconds."""
    (tmp_path / "a").write_bytes(b"a" * SIZE)
    made = OursOf(tmp_path, SLOW.format(folder=tmp_path))
    made.start()
    yield made
    made.stop()


def client(server: OursOf, initiator: str = INITIATOR) -> RawClient:
    """A client with a session, and no unit attention left."""
    made = RawClient(("127.0.0.1", server.port))
    made.login(server.iqn, initiator=initiator)
    for lun in range(3):
        made.command(bytes(6), lun=lun)
    return made


def naa(made: RawClient, lun: int) -> bytes:
    """The NAA designator of a unit."""
    page = made.command(bytes((0x12, 1, 0x83, 0, 255, 0)), read=255, lun=lun).data
    assert page[4:8] == bytes((1, 3, 0, 8))
    return page[8:16]


def test_copied(server: OursOf, tmp_path: Path) -> None:
    """A whole disk is copied to another in two commands, while no data go over the network."""
    with client(server) as made:
        targets = [target(naa(made, 0)), target(naa(made, 1))]
        for first in range(0, BLOCKS, BLOCKS // 2):
            parts = [
                segment(0, 1, 32768, first + step, first + step) for step in range(0, BLOCKS // 2, 32768)
            ]
            data = copyList(targets, parts)
            good(made, EXTENDED_COPY.encode(length=len(data)), write=data)
        status = good(made, COPY_STATUS.encode(list=1, allocation=12), read=12)
        assert status == (8).to_bytes(4, "big") + bytes((1, 0, 2, 0)) + (SIZE // 2).to_bytes(4, "big")
        made.logout()
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    assert not any((tmp_path / "c").read_bytes())


def test_thin(server: OursOf, tmp_path: Path) -> None:
    """A clone of a thin disk is as thin."""
    with open(tmp_path / "c", "r+b") as file:
        file.seek(SIZE // 2)
        file.write(b"x" * (1 << 20))
    (tmp_path / "b").write_bytes(b"y" * SIZE)
    with client(server) as made:
        targets = [target(naa(made, lun)) for lun in range(3)]
        parts = [segment(2, 1, 32768, place, place) for place in range(0, BLOCKS, 32768)]
        data = copyList(targets, parts)
        good(made, EXTENDED_COPY.encode(length=len(data)), write=data)
        made.logout()
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()
    assert os.stat(tmp_path / "b").st_blocks * 512 < 2 << 20


def test_masked(server: OursOf, tmp_path: Path) -> None:
    """Who does not see a disk can copy nothing from it, nor to it, though it knows its NAA identifier."""
    with client(server) as owner:
        names = [target(naa(owner, lun)) for lun in range(3)]
    with client(server, GUEST) as guest:
        assert guest.command(bytes((0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0)), read=512).sense[12:14] == b"\x25\0"
        for source, destination, field in ((0, 1, 4), (1, 0, 6)):
            data = copyList(names, [segment(source, destination, 8, 0, 0)])
            refused = guest.command(EXTENDED_COPY.encode(length=len(data)), write=data, lun=1)
            assert (refused.status, refused.sense[2], refused.sense[12:14]) == (2, 0xA, b"\x0d\x02")
            assert refused.sense[15:18] == bytes((0xA0, 0, field))
        data = copyList(names, [segment(1, 2, 8, 0, 0)])
        assert guest.command(EXTENDED_COPY.encode(length=len(data)), write=data, lun=1).status == 0
        guest.logout()
    assert not any((tmp_path / "b").read_bytes())


def test_aborted(slow: OursOf) -> None:
    """A copy goes on beside other commands, and ABORT TASK stops it; how far it came is told."""
    with client(slow) as made:
        names = [target(naa(made, lun)) for lun in range(2)]
        parts = [segment(0, 1, 32768, place, place) for place in range(0, BLOCKS, 32768)]
        data = copyList(names, parts)
        head = made.commandHead(EXTENDED_COPY.encode(length=len(data)), 0, FINAL | WRITE, len(data))
        made.sendPDU(head, data)
        tag = int.from_bytes(head[16:20], "big")
        counts = []
        for _ in range(3):
            time.sleep(0.3)
            status = good(made, COPY_STATUS.encode(list=1, allocation=12), read=12)
            assert status[4] == 0
            counts.append(int.from_bytes(status[8:12], "big"))
        assert 0 < counts[0] < counts[2] < SIZE
        abort = header(
            TASK_MANAGEMENT_REQUEST, 0x81, immediate=True, at16=made.tag(), at20=tag, at24=made.cmdSN,
            at28=made.expStatSN, at32=int.from_bytes(head[24:28], "big"),
        )  # fmt: skip
        made.sendPDU(abort)
        assert made.recvPDU().header[2] == 0
        time.sleep(0.5)
        ended = good(made, COPY_STATUS.encode(list=1, allocation=12), read=12)
        time.sleep(0.5)
        assert ended[4] == 2 and good(made, COPY_STATUS.encode(list=1, allocation=12), read=12) == ended
        assert counts[2] <= int.from_bytes(ended[8:12], "big") < SIZE
        made.logout()
