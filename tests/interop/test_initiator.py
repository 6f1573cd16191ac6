"""Our initiator and targets that others wrote."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from iscsi_twisted.auth.chap import MD5, SHA256, STRONGEST_FIRST, Credentials
from iscsi_twisted.errors import ISCSIError, WriteError
from iscsi_twisted.initiator import LUN, Initiator, Session
from iscsi_twisted.initiator.identity import AnotherUnit
from iscsi_twisted.session.answers import ConnectionEnded, LoginRefused
from iscsi_twisted.wire import numbers
from tests.bench.servers import Istgt, Ours, OursOf, Server, Tgt, fill

SIZE = 32 << 20
SECRET, OTHER = b"initiator-secret", b"target-secret-16"


class ClosedTgt(Tgt):
    """tgt that asks for CHAP, and proves who it is."""

    accounts = (("me", SECRET, ""), ("it", OTHER, "--outgoing"))

    def configure(self) -> None:
        super().configure()
        for user, secret, direction in self.accounts:
            self._tell(f"--op new --mode account --user {user} --password {secret.decode()}", target="")
            self._tell(f"--op bind --mode account --user {user} {direction}")


class AskingTgt(ClosedTgt):
    """tgt that asks for CHAP, and proves nothing."""

    accounts = ClosedTgt.accounts[:1]


class ClosedIstgt(Istgt):
    """istgt that asks for mutual CHAP."""

    how = "CHAP Mutual"

    def arguments(self) -> list[str]:
        made = super().arguments()
        path = self.folder / "istgt.conf"
        # The last AuthMethod is the unit's.
        before, _, after = path.read_text().rpartition("  AuthMethod None")
        path.write_text(f"{before}  AuthMethod {self.how}\n  AuthGroup AuthGroup1{after}")
        auth = f'[AuthGroup1]\n  Auth "me" "{SECRET.decode()}" "it" "{OTHER.decode()}"\n'
        (self.folder / "auth").write_text(auth)
        (self.folder / "auth").chmod(0o600)
        return made


class RenamedTgt(Tgt):
    """tgt whose disk has other names when it is started again."""

    renamed = False

    def _tell(self, words: str, target: str = "--tid 1") -> None:
        super()._tell(words, target)
        if self.renamed and words.startswith("--op new --mode logicalunit"):
            super()._tell("--op update --mode logicalunit --lun 1 --params scsi_id=another,scsi_sn=another")


class AskingIstgt(ClosedIstgt):
    """istgt that asks for CHAP."""

    how = "CHAP"


@pytest.fixture(params=[Tgt, Istgt, Ours], ids=lambda kind: kind.name)
def server(request: Any, tmp_path: Path) -> Iterator[Server]:
    """A target with a disk."""
    yield from started(request.param(tmp_path))


@pytest.fixture(params=[ClosedTgt, ClosedIstgt], ids=lambda kind: kind.name)
def closed(request: Any, tmp_path: Path) -> Iterator[Server]:
    """A target that asks who one is."""
    yield from started(request.param(tmp_path))


@pytest.fixture(params=[AskingTgt, AskingIstgt], ids=lambda kind: kind.name)
def asking(request: Any, tmp_path: Path) -> Iterator[Server]:
    """A target that asks who one is, and is not asked itself."""
    yield from started(request.param(tmp_path))


def started(server: Server) -> Iterator[Server]:
    """A target while it runs."""
    fill(server.disk, SIZE)
    server.start()
    yield server
    server.stop()


def initiator() -> Initiator:
    """An initiator in the reactor of these tests."""
    from twisted.internet import reactor

    return Initiator(reactor, "iqn.2001-04.com.example:initiator")


async def enter(server: Server, **options: Any) -> Session:
    """Log in."""
    return await initiator().login(f"127.0.0.1:{server.port}", server.iqn, **options)


async def unit(session: Session, server: Server) -> LUN:
    """The disk."""
    lun = LUN(session, server.lun)
    await lun.open()
    return lun


@pytest.mark.parametrize("digest", ["no", "prefer"])
@pytest.mark.parametrize("initialR2T", [False, True])
@ensureDeferred
async def test_disk(server: Server, digest: str, initialR2T: bool) -> None:
    """Discovery, login, and data by checksum, with digests or without, in commands of all lengths."""
    found = await initiator().discover(f"127.0.0.1:{server.port}")
    assert server.iqn in [one.name for one in found]
    keys = {"InitialR2T": initialR2T, "ImmediateData": not initialR2T}
    session = await enter(server, headerDigest=digest, dataDigest=digest, keys=keys)
    lun = await unit(session, server)
    assert lun.size == SIZE
    assert server.lun in [one.number for one in await initiator().units(session)]
    whole = server.disk.read_bytes()
    read = await lun.read(0, SIZE)
    assert hashlib.sha256(read).digest() == hashlib.sha256(whole).digest()
    data = os.urandom(5 << 20)
    step = 320 * 512
    await gatherResults([lun.write(place, data[place : place + step]) for place in range(0, 5 << 20, step)])
    await lun.flush()
    assert bytes(await lun.read(0, len(data))) == data
    assert server.disk.read_bytes()[: len(data)] == data
    assert await session.ping(b"are you there") == b"are you there"
    assert await session.manage(numbers.ABORT_TASK_SET, lun._field) == numbers.FUNCTION_COMPLETE
    await session.logout()


@ensureDeferred
async def test_chap(closed: Server) -> None:
    """CHAP both ways; a wrong secret, a wrong target, and nobody at all are refused."""
    right = Credentials("me", SECRET, "it", OTHER)
    session = await enter(closed, credentials=right)
    lun = await unit(session, closed)
    assert lun.size == SIZE
    await session.logout()
    for credentials in (Credentials("me", b"not-the-secret-1"), Credentials("nobody", SECRET)):
        with pytest.raises(ISCSIError):
            await enter(closed, credentials=credentials)
    wrong = Credentials("me", SECRET, "it", b"not-its-secret-1")
    with pytest.raises(ISCSIError, match="did not prove who it is"):
        await enter(closed, credentials=wrong)
    with pytest.raises((LoginRefused, ISCSIError)):
        await enter(closed)


@ensureDeferred
async def test_oneWay(asking: Server) -> None:
    """CHAP one way, with MD5 alone where a list of algorithms is refused, but not against somebody's will."""
    mine = Credentials("me", SECRET, required=True)
    for algorithms in (STRONGEST_FIRST, (MD5,)):
        session = await enter(asking, credentials=mine, algorithms=algorithms)
        await unit(session, asking)
        await session.logout()
    for credentials, algorithms in (
        (Credentials("me", b"not-the-secret-1"), STRONGEST_FIRST),
        (mine, (SHA256,)),
        (None, STRONGEST_FIRST),
    ):
        with pytest.raises(ISCSIError):
            await enter(asking, credentials=credentials, algorithms=algorithms)


@ensureDeferred
async def test_aborts(server: Server) -> None:
    """
    Commands that are cancelled are aborted; the others, and those that come later, do not notice.

    Not even with istgt, which sends answers to aborts and statuses of other tasks out of order.
    """
    session = await enter(server)
    lun = await unit(session, server)
    whole, size = server.disk.read_bytes(), 1 << 20
    for _ in range(4):
        reads = [lun.read(place, size) for place in range(0, SIZE, size)]
        for one in reads[::2]:
            one.addErrback(lambda why: why.trap(CancelledError))
            one.cancel()
        for number, one in enumerate(reads[1::2]):
            place = (2 * number + 1) * size
            assert bytes(await one) == whole[place : place + size]
    assert bytes(await lun.read(0, SIZE)) == whole
    assert session.logins == 1 and session.error is None
    await session.logout()


@ensureDeferred
async def test_abortedWrites(server: Server) -> None:
    """Writes that are cancelled are there or not; the others are, and all else is as it was."""
    session = await enter(server)
    lun = await unit(session, server)
    size = 256 << 10
    before, new = server.disk.read_bytes(), os.urandom(SIZE)
    ended: list[int] = []
    for turn in range(2):
        places = range(turn * SIZE // 4, (turn + 1) * SIZE // 4, size)
        writes = [lun.write(place, new[place : place + size]) for place in places]
        for one in writes[::2]:
            one.addErrback(lambda why: why.trap(CancelledError))
            one.cancel()
        await gatherResults(writes[1::2])
        ended.extend(places[1::2])
    await lun.flush()
    after = bytes(await lun.read(0, SIZE))
    assert after == server.disk.read_bytes()
    for place in range(0, SIZE // 2, size):
        there = after[place : place + size]
        if place in ended:
            assert there == new[place : place + size]
        else:
            blocks = range(place, place + size, 512)
            assert all(after[at : at + 512] in (new[at : at + 512], before[at : at + 512]) for at in blocks)
    assert after[SIZE // 2 :] == before[SIZE // 2 :]
    assert session.logins == 1 and session.error is None
    await session.logout()


@ensureDeferred
async def test_restart(server: Server) -> None:
    """A target that is killed and started again under I/O: nothing fails, and nothing is lost."""
    session = await enter(server, lasting=True, patience=60.0)
    lun = await unit(session, server)
    written: dict[int, bytes] = {}
    done = 0

    async def write(lane: int) -> None:
        nonlocal done
        for number in range(40):
            place, data = (lane * 40 + number) * 4096, os.urandom(4096)
            await lun.write(place, data, fua=True)
            written[place] = data
            done += 1

    writing = [Deferred.fromCoroutine(write(lane)) for lane in range(8)]
    while done < 20:
        await lun.read(0, 4096)
    server.kill()
    server.start()
    await gatherResults(writing)
    for place, data in written.items():
        assert bytes(await lun.read(place, 4096)) == data
    assert session.logins == 2
    await session.logout()


@pytest.mark.parametrize("kind", [RenamedTgt, Ours], ids=lambda kind: kind.name)
@ensureDeferred
async def test_anotherDisk(kind: type[Server], tmp_path: Path) -> None:
    """A target that comes back with another disk at the same number: nothing is written to that."""
    for server in started(kind(tmp_path)):
        session = await enter(server, lasting=True, patience=60.0)
        lun = await unit(session, server)
        await lun.write(0, b"x" * 4096)
        server.kill()
        if isinstance(server, RenamedTgt):
            server.renamed = True
        else:
            shutil.rmtree(server.folder / "state")
        writing = lun.write(4096, b"y" * 4096)
        before = server.disk.read_bytes()
        server.start()
        with pytest.raises(AnotherUnit):
            await writing
        with pytest.raises(ISCSIError, match="is another unit"):
            await lun.write(4096, b"y" * 4096)
        assert server.disk.read_bytes() == before


@ensureDeferred
async def test_lostCache(tmp_path: Path) -> None:
    """
    What was not flushed when a target was killed is not taken for durable: the flush fails, and a target of
    ours that serves the disk again writes it once more; a connection that is lost alone is no such thing.
    """
    behind = Ours(tmp_path)
    fill(behind.disk, SIZE)
    behind.start()
    (tmp_path / "front").mkdir()
    front = OursOf(tmp_path / "front", f"extent0 {behind.url} 0 size\ntarget0 extent0 127.0.0.0/8\n")
    try:
        front.start()
        sessions = [await enter(one, lasting=True, patience=60.0) for one in (behind, front)]
        luns = [await unit(session, one) for session, one in zip(sessions, (behind, front), strict=True)]
        for place, lun in enumerate(luns):
            await lun.write(place * 4096, bytes(4096))
        assert sessions[0].connection is not None
        sessions[0].connection.end(ConnectionEnded("for a test"))
        await luns[0].flush()
        await luns[1].flush()
        for place, lun in enumerate(luns):
            await lun.write(place * 4096, b"x" * 4096)
        behind.kill()
        with open(behind.disk, "r+b") as file:
            # As if the machine had lost power with it.
            file.write(bytes(8192))
        behind.start()
        assert bytes(await luns[0].read(0, 4096)) == bytes(4096)
        with pytest.raises(WriteError):
            await luns[0].flush()
        await luns[0].flush()
        assert bytes(await luns[1].read(4096, 4096)) == b"x" * 4096
        await luns[1].flush()
        assert bytes(await luns[0].read(4096, 4096)) == b"x" * 4096
        for session in sessions:
            await session.logout()
    finally:
        front.stop()
        behind.stop()
    assert "are written again" in (front.folder / "log").read_text()
