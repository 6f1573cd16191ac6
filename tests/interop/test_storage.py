"""What happens to files while real initiators use them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import deferLater

from tests.support.clients import BASE, Serve, good, run, watch


def qemuIO(*commands: str) -> list[str]:
    """The options of qemu-io for these commands."""
    return [word for command in commands for word in ("-c", command)]


@ensureDeferred
async def test_grown(serve: Serve, tmp_path: Path) -> None:
    """iscsi-readcapacity16 sees a file that has grown as soon as the service has looked."""
    disk = tmp_path / "disk"
    disk.touch()
    os.truncate(disk, 8 << 20)
    served = await serve("extent0 %/disk 0 size\ntarget0 extent0 any\n")
    assert "Total size:8388608" in await good("iscsi-readcapacity16", served.url())
    os.truncate(disk, 24 << 20)
    assert served.service.rescan() == [str(disk)]
    assert "Total size:25165824" in await good("iscsi-readcapacity16", served.url())
    text = await good(
        "qemu-io", "-f", "raw", *qemuIO("write -P 7 20M 64k", "read -P 7 20M 64k"), served.url()
    )
    assert "verification failed" not in text


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(path)], check=True)
    yield path
    # The service lets go of its files at the very end.
    subprocess.run(["umount", "-l", str(path)], check=True)


@ensureDeferred
async def test_full(serve: Serve, small: Path) -> None:
    """qemu-io gets an error for the write that finds no room, and for no other; later there is room."""
    (small / "other").write_bytes(bytes(1 << 20))
    served = await serve("extent0 %/small/disk 0 64M\ntarget0 extent0 any\n")
    assert "wrote" in await good("qemu-io", "-f", "raw", *qemuIO("write -P 1 0 256k"), served.url())
    refused = await run("qemu-io", "-f", "raw", *qemuIO("write -P 2 4M 1M"), served.url())
    assert "write failed: No space left on device" in refused.text
    both = "write -P 3 0 256k", "read -P 3 0 256k", "flush"
    text = await good("qemu-io", "-f", "raw", *qemuIO(*both), served.url())
    assert "failed" not in text
    (small / "other").unlink()
    both = "write -P 2 4M 1M", "read -P 2 4M 1M", "flush"
    text = await good("qemu-io", "-f", "raw", *qemuIO(*both), served.url())
    assert "failed" not in text


@ensureDeferred
async def test_switched(serve: Serve) -> None:
    """A bad spot that is switched on and off while serving is an I/O error to qemu-io, and then none."""
    served = await serve(
        "extent0 %/disk 0 8M\ndevice0 FAULTS extent0 kind=error on=read start=1M length=4K active=no\n"
        "target0 device0 any\n"
    )
    # What was never written qemu does not even ask for.
    await good("qemu-io", "-f", "raw", *qemuIO("write -P 5 0 4M"), served.url())
    reading = ["-f", "raw", *qemuIO("read -P 5 1M 64k"), served.url()]
    assert "read 65536/65536" in await good("qemu-io", *reading)
    served.service.device("device0").active = True
    assert "read failed: Input/output error" in (await run("qemu-io", *reading)).text
    text = await good("qemu-io", "-f", "raw", *qemuIO("read 2M 64k"), served.url())
    assert "read 65536/65536" in text
    served.service.device("device0").active = False
    assert "read 65536/65536" in await good("qemu-io", *reading)
    assert served.service.status().targets[0].name == f"{BASE}:target0"


@ensureDeferred
async def test_direct(serve: Serve, tmp_path: Path) -> None:
    """What qemu-io writes past the page cache it reads back, and the file holds it."""
    served = await serve("extent0 %/disk 0 64M direct=yes\ntarget0 extent0 any\n")
    writes = (
        "write -P 1 0 4M", "aio_write -P 2 1M 68k", "aio_write -P 3 2560k 512k", "write -P 4 512 512",
        "write -P 5 3584 1536", "aio_flush", "discard 3M 64k", "write -z 2M 64k", "flush",
    )  # fmt: skip
    reads = (
        "read -P 1 0 512", "read -P 4 512 512", "read -P 5 3584 1536", "read -P 2 1M 68k",
        "read -P 3 2560k 512k", "read -P 0 2M 64k", "read -P 0 3M 64k", "read -P 1 1200k 64k",
    )  # fmt: skip
    output = await good("qemu-io", "-f", "raw", *qemuIO(*writes, *reads), served.url())
    assert "failed" not in output
    content = (tmp_path / "disk").read_bytes()
    assert content[512:1024] == b"\4" * 512
    assert content[1 << 20 : (1 << 20) + 69632] == b"\2" * 69632
    counters = served.service.status().targets[0].units[0].device.counters
    assert counters is not None
    assert counters.threaded >= counters.reads + counters.writes > 0


@ensureDeferred
async def test_directImage(serve: Serve, tmp_path: Path) -> None:
    """qemu-img copies an image onto a mirror of which one file is past the page cache; both get it."""
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(32 << 20)
        for number in range(50):
            file.seek(number * 517 * 1024 // 512 * 512)
            file.write(os.urandom(30000))
    served = await serve(
        "extent0 %/a 0 32M direct=yes\nextent1 %/b 0 32M\ndevice0 RAID1 extent0 extent1\n"
        "target0 device0 any\n"
    )
    await good("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(source), served.url())
    compared = await good("qemu-img", "compare", "-f", "raw", "-F", "raw", str(source), served.url())
    assert "identical" in compared
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == source.read_bytes()


@ensureDeferred
async def test_space(serve: Serve, tmp_path: Path) -> None:
    """Space is taken as qemu writes and given back as it discards; zeros take none; qemu sees the holes."""
    served = await serve("extent0 %/disk 0 64M\ntarget0 extent0 any\n")

    def used() -> int:
        os.sync()
        return (tmp_path / "disk").stat().st_blocks * 512 >> 20

    async def do(*commands: str) -> None:
        assert "failed" not in await good(
            "qemu-io", "-d", "unmap", "-f", "raw", *qemuIO(*commands), served.url()
        )

    assert used() == 0
    await do("write -P 1 0 16M", "flush")
    assert used() == 16
    await do("discard 4M 8M", "flush")
    assert used() == 8
    await do("write -zu 12M 2M", "write -zu 32M 16M", "flush")
    assert used() == 6
    listed = json.loads(await good("qemu-img", "map", "--output=json", "-f", "raw", served.url()))
    data = [(each["start"], each["length"]) for each in listed if each["data"]]
    assert data == [(0, 4 << 20), (14 << 20, 2 << 20)]
    await do("read -P 1 0 4M", "read -P 0 4M 10M", "read -P 1 14M 2M", "read -P 0 16M 48M")


@ensureDeferred
async def test_queue(serve: Serve) -> None:
    """qemu-io waits and tries again when a unit sends its commands back, and loses nothing."""
    served = await serve(
        "extent0 %/disk 0 64M\ndevice0 DELAY extent0 seconds=0.02 queue=2\ntarget0 device0 any\n"
    )
    writes = [f"aio_write -P {number} {number}M 64k" for number in range(1, 17)]
    reads = [f"read -P {number} {number}M 64k" for number in range(1, 17)]
    text = await good("qemu-io", "-f", "raw", *qemuIO(*writes, "aio_flush", *reads), served.url())
    assert "failed" not in text
    assert served.service.status().targets[0].units[0].counters.sentBack > 0


@ensureDeferred
async def test_hanging(serve: Serve) -> None:
    """While commands of one client hang at one unit another client is served as ever, there and beside."""
    served = await serve(
        "extent0 %/a 0 64M\nextent1 %/b 0 64M\ndevice0 FAULTS extent0 kind=hang on=write\n"
        "target0 device0 extent1 any\n"
    )
    stuck = watch("qemu-io", "-f", "raw", *qemuIO("aio_write -P 1 0 1M", "aio_flush"), served.url())
    hanging = served.service.device("device0")
    from twisted.internet import reactor

    while not hanging.hanging:
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    text = await good("qemu-io", "-f", "raw", *qemuIO("write -P 2 0 1M", "read -P 2 0 1M"), served.url(lun=1))
    assert "failed" not in text
    text = await good("qemu-io", "-f", "raw", *qemuIO("read 32M 1M"), served.url())
    assert "read 1048576/1048576" in text
    hanging.active = False
    hanging.release()
    await stuck.ended
    assert "wrote 1048576/1048576" in "\n".join(stuck.lines)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens soon."""
    from twisted.internet import reactor

    for _ in range(1200):
        if condition():
            return
        await deferLater(reactor, 0.05)  # type: ignore[arg-type]
    raise AssertionError("it has not happened within a minute")


@ensureDeferred
async def test_hangingMember(serve: Serve, tmp_path: Path) -> None:
    """
    A member of a mirror that is made to hang is left out, and no command of qemu-io fails; what it does late
    is overwritten when it is back.
    """
    served = await serve(
        "extent0 %/a 0 16M\nextent1 %/b 0 16M\ndevice0 FAULTS extent1 kind=hang active=no\n"
        "device1 RAID1 extent0 device0 patience=1\ntarget0 device1 any\n"
    )
    service = served.service
    hanging, mirror = service.device("device0"), service.device("device1")

    def states() -> list[str]:
        return [member.state for member in mirror.status().members]

    async def do(*commands: str) -> None:
        text = await good("qemu-io", "-f", "raw", *qemuIO(*commands), served.url())
        assert "failed" not in text

    await until(lambda: states() == ["in sync", "in sync"])
    await do("write -P 1 0 4M", "flush")
    hanging.active = True
    await do("write -P 2 0 1M", "flush", "read -P 2 0 1M", "read -P 1 1M 1M")
    assert states() == ["in sync", "failed"]
    await do("write -P 3 0 1M", "write -P 4 2M 1M", "read -P 3 0 1M")
    hanging.active = False
    hanging.release()
    await until(lambda: states() == ["in sync", "in sync"])
    await do("read -P 3 0 1M", "read -P 1 1M 1M", "read -P 4 2M 1M")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@ensureDeferred
async def test_hangingReads(serve: Serve) -> None:
    """Reads that a member of a mirror does not answer are answered by the other."""
    served = await serve(
        "extent0 %/a 0 16M\nextent1 %/b 0 16M\ndevice0 FAULTS extent1 kind=hang on=read active=no\n"
        "device1 RAID1 extent0 device0 patience=2\ntarget0 device1 any\n"
    )
    mirror = served.service.device("device1")
    await until(lambda: not mirror.status().degraded and not mirror.status().unverified)
    await good("qemu-io", "-f", "raw", *qemuIO("write -P 1 0 4M", "flush"), served.url())
    served.service.device("device0").active = True
    reads = [f"aio_read -P 1 {number * 131 % 4096 // 4 * 4}k 4k" for number in range(64)]
    text = await good("qemu-io", "-f", "raw", *qemuIO(*reads, "aio_flush"), served.url())
    assert text.count("read 4096/4096") == 64
    assert "failed" not in text
    assert not mirror.status().degraded


@ensureDeferred
async def test_rate(serve: Serve) -> None:
    """What a rate holds back comes later and unharmed."""
    served = await serve(
        "extent0 %/disk 0 64M\ndevice0 RATE extent0 iops=40 burst=0.05\ntarget0 device0 any\n"
    )
    writes = [f"aio_write -P {number} {number}M 64k" for number in range(1, 9)]
    reads = [f"aio_read -P {number} {number}M 64k" for number in range(1, 9)]
    text = await good(
        "qemu-io", "-f", "raw", *qemuIO(*writes, "aio_flush", *reads, "aio_flush"), served.url()
    )
    assert "failed" not in text
    assert text.count("read 65536/65536") == 8
