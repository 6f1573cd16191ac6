"""A daemon whose files and disks go wrong in every way, and real initiators that see what comes of it."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater

from iscsi_twisted.errors import WriteError
from iscsi_twisted.initiator import LUN, Initiator
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.lun import encodeLUN
from iscsi_twisted.session.answers import Aborted
from iscsi_twisted.wire import numbers
from tests.support.clients import BASE, run
from tests.support.daemon import Daemon

TWO = "extent0 a.bad 0 16M\nextent1 b 0 16M\ntarget0 extent0 extent1 any\n"


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What lets system calls go wrong."""
    source = Path(__file__).parent.parent / "support" / "baddisk.c"
    made = tmp_path_factory.mktemp("baddisk") / "baddisk.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(made), str(source), "-ldl"], check=True)
    return made


class BadDisk(Daemon):
    """A daemon whose files with names that end in C{.bad} fail on demand."""

    def fail(self, call: str, number: int | None) -> None:
        """Let C{read}, C{write} or C{sync} fail with an error number, or hang."""
        rule = self.directory / "rules" / "new"
        rule.write_text("" if number is None else str(number))
        rule.rename(self.directory / "rules" / call)

    def heal(self, call: str) -> None:
        """Let it do so no more."""
        (self.directory / "rules" / call).unlink()

    async def io(self, *commands: str, lun: int = 0) -> str:
        """What qemu-io says to these commands, whatever becomes of them."""
        options = [word for command in commands for word in ("-c", command)]
        return (await run("qemu-io", "-f", "raw", *options, self.url("target0", lun))).text

    async def ok(self, *commands: str, lun: int = 0) -> None:
        """Do what must succeed."""
        text = await self.io(*commands, lun=lun)
        assert "failed" not in text, text

    async def login(self, lun: int = 0, name: str = "iqn.2001-04.com.example:a") -> Any:
        """An open unit of our own initiator, and its session."""
        from twisted.internet import reactor

        session = await Initiator(reactor, name).login(self.portal, f"{BASE}:target0")
        unit = LUN(session, lun)
        await unit.open()
        return unit, session


@pytest.fixture
def disk(tmp_path: Path, library: Path) -> Iterator[BadDisk]:
    """One that is not started yet."""
    made = BadDisk(tmp_path)
    (tmp_path / "rules").mkdir()
    made.environment = {"LD_PRELOAD": str(library), "BADDISK": str(tmp_path / "rules")}
    yield made
    if made.process is not None:
        pytest_twisted.blockon(made.process.stop())


async def pause(seconds: float) -> None:
    """Let time pass in which nothing must happen."""
    from twisted.internet import reactor

    await deferLater(reactor, seconds)  # type: ignore[arg-type]


@ensureDeferred
async def test_flushFails(disk: BadDisk) -> None:
    """
    After one failed fsync every flush, write and read fails, though the disk is good again, until the target
    is left out for one reload; its neighbour is as ever.
    """
    await disk.start(TWO)
    await disk.ok("write -P 1 0 64k", "flush")
    disk.fail("sync", errno.EIO)
    assert "write failed: Input/output error" in await disk.io("write -P 2 0 64k", "flush")
    disk.heal("sync")
    unit, session = await disk.login()
    for _ in range(2):
        with pytest.raises(WriteError, match="MEDIUM ERROR, WRITE ERROR"):
            await unit.flush()
        assert "read failed: Input/output error" in await disk.io("read 0 64k")
        assert "write failed: Input/output error" in await disk.io("write 1M 64k")
    await disk.ok("write -P 3 0 64k", "flush", "read -P 3 0 64k", lun=1)
    await session.logout()
    assert disk.process.output.count("what was written may be lost") == 1
    await disk.reload(TWO)
    assert "read failed: Input/output error" in await disk.io("read 0 64k")
    await disk.reload("extent1 b 0 16M\ntarget1 extent1 any\n")
    await disk.reload(TWO)
    await disk.ok("write -P 4 0 64k", "flush", "read -P 4 0 64k")


@ensureDeferred
async def test_badCalls(disk: BadDisk) -> None:
    """A read or write that the disk refuses fails alone, each time, and never when the disk is good again."""
    await disk.start(TWO)
    await disk.ok("write -P 1 0 64k", "flush")
    disk.fail("read", errno.EIO)
    for _ in range(2):
        assert "read failed: Input/output error" in await disk.io("read 0 64k")
    disk.heal("read")
    await disk.ok("read -P 1 0 64k")
    disk.fail("write", errno.EIO)
    for _ in range(2):
        assert "write failed: Input/output error" in await disk.io("write -P 2 0 64k")
    assert "read 65536/65536" in await disk.io("read -P 1 0 64k")
    disk.heal("write")
    disk.fail("write", errno.ENOSPC)
    assert "write failed: No space left on device" in await disk.io("write -P 2 0 64k")
    disk.heal("write")
    await disk.ok("write -P 2 0 64k", "read -P 2 0 64k")
    assert disk.process.process.pid is not None


@ensureDeferred
async def test_hanging(disk: BadDisk) -> None:
    """
    A disk that hangs stalls its own commands alone, and holds no more of them than it may have: the others
    are sent back at once.  When it goes on all is done.
    """
    await disk.start(TWO.replace("0 16M", "0 16M direct=yes queue=6", 1))
    unit, session = await disk.login()
    disk.fail("write", None)
    block = cdb.WRITE_10.encode(lba=0, length=1)
    held = [unit.write(number * 4096, bytes([number]) * 4096) for number in range(1, 7)]
    _, theirs = await disk.login(name="iqn.2001-04.com.example:b")
    for asking, status in ((theirs, codes.BUSY), (session, codes.TASK_SET_FULL)):
        outcome = await asking.execute(encodeLUN(0), block, data=bytes(512))
        assert outcome.status == status
    more = unit.write(7 * 4096, bytes([7]) * 4096)
    await disk.ok("write -P 9 0 1M", "flush", "read -P 9 0 1M", lun=1)
    assert not any(write.called for write in (*held, more))
    disk.heal("write")
    for write in (*held, more):
        await write
    for number in range(1, 8):
        assert bytes(await unit.read(number * 4096, 4096)) == bytes([number]) * 4096
    await session.logout()
    await theirs.logout()


@ensureDeferred
async def test_aborted(disk: BadDisk) -> None:
    """
    A write that hangs and is aborted may reach the disk later, but never on top of what was written after
    it: what overlaps it waits for its end, and nothing else does.
    """
    await disk.start(TWO.replace("0 16M", "0 16M direct=yes", 1))
    unit, session = await disk.login()
    await unit.write(0, b"0" * 65536)
    for function, count in ((numbers.ABORT_TASK_SET, 16), (numbers.LOGICAL_UNIT_RESET, 4), (None, 4)):
        disk.fail("write", None)
        # Of more than eight some have not begun: there are no more threads.
        old = [unit.write(number * 4096, b"A" * 4096) for number in range(count)]
        for write in old:
            write.addErrback(lambda why: why.trap(Aborted, CancelledError))
        await pause(0.1)
        if function is None:
            for write in old:
                write.cancel()
        else:
            assert await session.manage(function, encodeLUN(0)) == numbers.FUNCTION_COMPLETE
            await unit.ready()
        newer = unit.write(2048, b"B" * 57344)
        reading = unit.read(0, 65536)
        if count < 8:
            assert bytes(await unit.read(1 << 20, 4096)) == bytes(4096)
        assert not newer.called
        assert not reading.called
        disk.heal("write")
        await newer
        await unit.flush()
        content = bytes(await unit.read(0, 65536))
        assert content[2048:59392] == b"B" * 57344
        assert set(content[:2048] + content[59392:]) <= set(b"0A")
        assert (disk.directory / "a.bad").read_bytes()[:65536] == content
        await reading
    await session.logout()


@ensureDeferred
async def test_grown(disk: BadDisk) -> None:
    """A SIGHUP lets the daemon see that a file has grown; who is logged in is told, and can use all of it."""
    (disk.directory / "a").write_bytes(bytes(1 << 20))
    lines = "extent0 a 0 size\ntarget0 extent0 any\n"
    await disk.start(lines)
    unit, session = await disk.login()
    told: list[int] = []
    unit.attention = lambda condition: told.append(condition.code)
    os.truncate(disk.directory / "a", 3 << 20)
    await disk.reload(lines)
    await unit.ready()
    assert told == [codes.CAPACITY_CHANGED]
    assert "Total size:3145728" in await disk.capacity("target0")
    await disk.ok("write -P 1 2M 64k", "flush", "read -P 1 2M 64k")
    await session.logout()


@ensureDeferred
async def test_cutShort(disk: BadDisk) -> None:
    """
    What is missing of a file that was cut short is an error to qemu-io, and nothing makes zeros of it; when
    the file is as long again, all is well.
    """
    lines = "extent0 a 0 16M\ntarget0 extent0 any\n"
    await disk.start(lines)
    await disk.ok("write -P 1 0 16M", "flush")
    os.truncate(disk.directory / "a", 4 << 20)
    await disk.ok("read -P 1 0 4M", "write -P 2 0 64k", "flush")
    for bad in ("read 3M 2M", "read 8M 64k", "write -P 3 8M 64k", "write -z 8M 64k", "write -zu 8M 64k"):
        assert "failed: Input/output error" in await disk.io(bad), bad
    assert os.stat(disk.directory / "a").st_size == 4 << 20
    assert disk.process.output.count("has become shorter") == 1
    await disk.ok("write -P 4 4M 1M", "read -P 4 4M 1M", "read -P 1 1M 3M")
    os.truncate(disk.directory / "a", 16 << 20)
    await disk.reload(lines)
    await disk.ok("read -P 0 8M 64k", "write -P 5 12M 64k", "flush", "read -P 5 12M 64k")


@ensureDeferred
async def test_cutShortMember(disk: BadDisk) -> None:
    """
    Nothing that a member of a mirror has lost is ever read from it: it is left out when that is met, gets all
    of it again, and both are equal.
    """
    await disk.start("extent0 a 0 16M\nextent1 b 0 16M\ndevice0 RAID1 extent0 extent1\ntarget0 device0 any\n")
    await disk.process.line("differences")
    await disk.ok("write -P 7 0 16M", "flush")
    os.truncate(disk.directory / "a", 4 << 20)
    reads = [f"read -P 7 {place}M 1M" for place in (8, 5, 15, 10, 4, 12)]
    await disk.ok("write -P 8 15M 64k", "flush", "read -P 8 15M 64k", *reads[:2], *reads[3:])
    assert "extent0" in await disk.process.line(" is failed: ")
    disk.process.output = ""
    await disk.process.line(" is in sync")
    await disk.ok("read -P 8 15M 64k", "read -P 7 4M 11M")
    assert (disk.directory / "a").read_bytes() == (disk.directory / "b").read_bytes()


@ensureDeferred
async def test_exchanged(disk: BadDisk) -> None:
    """
    A file that is exchanged while it is served is told on SIGHUP, and served on; when the target was left out
    for one reload it is the new one.
    """
    rest = "extent1 b 0 1M\ntarget1 extent1 any\n"
    lines = f"extent0 a 0 1M\ntarget0 extent0 any\n{rest}"
    (disk.directory / "a").write_bytes(b"\1" * (1 << 20))
    (disk.directory / "new").write_bytes(b"\2" * (1 << 20))
    await disk.start(lines)
    await disk.ok("read -P 1 0 1M")
    (disk.directory / "new").rename(disk.directory / "a")
    await disk.reload(lines)
    assert f"{disk.directory}/a: another file has that name now" in disk.process.output
    await disk.ok("read -P 1 0 1M")
    await disk.reload(rest)
    await disk.reload(lines)
    await disk.ok("read -P 2 0 1M")


@ensureDeferred
async def test_limited(disk: BadDisk) -> None:
    """A limit on the size of files is an error to who writes beyond it, and the daemon lives."""
    (disk.directory / "a").touch()
    os.truncate(disk.directory / "a", 16 << 20)
    await disk.start("extent0 a 0 16M\ntarget0 extent0 any\n")
    pid = disk.process.process.pid
    subprocess.run(["prlimit", f"--pid={pid}", "--fsize=4194304:unlimited"], check=True)
    assert "write failed: Input/output error" in await disk.io("write -P 1 4M 64k")
    await disk.ok("write -P 1 0 64k", "read -P 1 0 64k", "read 4M 64k")
    subprocess.run(["prlimit", f"--pid={pid}", "--fsize=unlimited:unlimited"], check=True)
    await disk.ok("write -P 1 4M 64k", "read -P 1 4M 64k")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of ext4 of 8 MiB, in a file."""
    path, image = tmp_path / "small", tmp_path / "image"
    path.mkdir()
    image.touch()
    os.truncate(image, 8 << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(path)], check=True)
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@ensureDeferred
async def test_full(disk: BadDisk, small: Path) -> None:
    """
    On a full file system a write fails with a lack of space, past the page cache, in an overlay and without a
    write cache, too; what has its place is written on, and when there is room again all is.
    """
    (small / "other").write_bytes(bytes(5 << 20))
    (disk.directory / "golden").write_bytes(bytes(8 << 20))
    await disk.start(
        "extent0 small/a 0 64M\nextent1 small/b 0 64M direct=yes\nextent2 golden 0 8M\n"
        "device0 OVERLAY extent2 file=small/c\nextent3 small/d 0 64M writecache=no\n"
        "target0 extent0 extent1 device0 extent3 any\n"
    )
    for lun in range(4):
        await disk.ok(f"write -P {lun} 0 64k", "flush", lun=lun)
    for lun in range(4):
        assert "write failed: No space left on device" in await disk.io("write -P 9 4M 4M", lun=lun)
        await disk.ok(f"read -P {lun} 0 64k", f"write -P {lun + 1} 0 64k", "flush", lun=lun)
        # What was written before there was no more room holds it.
        await disk.ok("discard 4M 4M", "flush", lun=lun)
    (small / "other").unlink()
    for lun in range(4):
        await disk.ok("write -P 9 4M 1M", "flush", "read -P 9 4M 1M", f"read -P {lun + 1} 0 64k", lun=lun)
