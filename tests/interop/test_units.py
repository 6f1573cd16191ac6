"""Kinds of units as real clients see them: optical drives, 4Kn disks, thin disks that run full."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import deferLater

from iscsi_twisted.initiator import LUN, Initiator, Session
from iscsi_twisted.scsi import cdb, cdboptical, cdbprimary
from iscsi_twisted.scsi.cdb import Command
from tests.support import isoimage
from tests.support.clients import BASE, Serve, Served, good, run, watch

CD = "extent0 %/image.iso 0 size type=cdrom\ntarget0 extent0 any\n"
FIRST = 16 * 2048
"""Where the first volume descriptor stands."""


async def opened(served: Served) -> tuple[Session, LUN]:
    """A session of our own initiator, and its LUN without unit attentions."""
    from twisted.internet import reactor

    session = await Initiator(reactor).login(served.portal(), f"{BASE}:target0")
    lun = LUN(session)
    await ask(lun, cdb.REQUEST_SENSE, 252, allocation=252)
    return session, lun


async def until(
    lun: LUN, wanted: Callable[[bytes], bool], command: Command, read: int, **fields: int
) -> bytes:
    """The answer to a command that is sent again and again until it is what is wanted, for half a minute."""
    from twisted.internet import reactor

    for _ in range(300):
        data = await ask(lun, command, read, allocation=read, **fields)
        if wanted(data):
            return data
        await deferLater(reactor, 0.1)
    raise AssertionError(data.hex())


async def ask(lun: LUN, command: Command, read: int = 0, write: bytes = b"", **fields: int) -> bytes:
    """Execute any command; its Data-In."""
    cdbBytes = command.encode(**fields)[: command.layout.size]
    return bytes((await lun.execute(cdbBytes, expected=read, data=write)).data)


@ensureDeferred
async def test_image(serve: Serve, tmp_path: Path) -> None:
    """An ISO image is a CD-ROM; qemu reads it whole, and cannot write it."""
    content = random.Random(3).randbytes(3_000_000)
    image = isoimage.image(content, b"\xeb\xfe")
    (tmp_path / "image.iso").write_bytes(image)
    served = await serve(CD)
    inquiry = await good("iscsi-inq", served.url())
    assert "CD-ROM" in inquiry or "MMC" in inquiry, inquiry
    assert "Removable:1" in inquiry, inquiry
    listed = await good("iscsi-ls", "-s", f"iscsi://{served.portal()}/")
    assert "Type:MMC" in listed or "CD" in listed, listed
    copy = tmp_path / "copy.iso"
    await good("qemu-img", "convert", "-O", "raw", "--image-opts", served.qemu(), str(copy))
    assert copy.read_bytes() == image
    read = await good("qemu-io", "-r", "--image-opts", "-c", f"read -v {FIRST} 512", served.qemu())
    assert "01 43 44 30 30 31 01" in read, read
    refused = await run("qemu-io", "--image-opts", "-c", "write -P 1 0 2048", served.qemu())
    assert refused.status != 0 or "rror" in refused.text or "read-only" in refused.text.lower(), refused
    assert (tmp_path / "image.iso").read_bytes() == image


@ensureDeferred
async def test_decoded(serve: Serve, tmp_path: Path) -> None:
    """tshark decodes what a host asks an optical drive for, and finds nothing malformed."""
    (tmp_path / "image.iso").write_bytes(isoimage.image(b"content"))
    served = await serve(CD)
    fields = ("iscsi.opcode", "scsi_mmc.opcode", "scsi.spc.opcode", "_ws.malformed", "_ws.col.Info")
    tshark = watch(
        "tshark", "-l", "-n", "-i", "lo", "-f", f"tcp port {served.port}",
        "-d", f"tcp.port=={served.port},iscsi", "-Y", "iscsi", "-T", "fields", "-E", "separator=|",
        *(part for field in fields for part in ("-e", field)),
    )  # fmt: skip
    await tshark.line(lambda line: "Capture started" in line)
    session, lun = await opened(served)
    await ask(lun, cdb.INQUIRY, 96, allocation=96)
    for command, fields_ in (
        (cdboptical.READ_TOC, {}),
        (cdboptical.READ_TOC, {"flags": 2}),
        (cdboptical.READ_TOC, {"format": 1}),
        (cdboptical.GET_CONFIGURATION, {}),
        (cdboptical.READ_DISC_INFORMATION, {}),
        (cdboptical.GET_EVENT_STATUS, {"flags": 1, "classes": 16}),
        (cdboptical.MECHANISM_STATUS, {}),
        (cdb.MODE_SENSE_10, {"page": 0x2A}),
    ):
        await ask(lun, command, 255, allocation=255, **fields_)
    assert (await ask(lun, cdb.READ_10, 2048, lba=16, length=1))[1:6] == b"CD001"
    await session.logout()
    await tshark.line(lambda line: line.startswith("0x26"))
    await tshark.interrupt()
    lines = [line.split("|") for line in tshark.lines if line.startswith("0x")]
    seen = {each[1] for each in lines} | {each[2] for each in lines}
    assert {"0x43", "0x46", "0x51", "0x4a"} <= {each.lower() for each in seen}, lines
    assert not [each for each in lines if each[3]], lines


@ensureDeferred
async def test_largeBlocks(serve: Serve, tmp_path: Path) -> None:
    """qemu copies an image to a 4Kn disk and back."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(5 << 20))
    served = await serve("extent0 %/disk 0 5MB block=4K\ntarget0 extent0 any\n")
    assert "4096" in await good("iscsi-readcapacity16", served.url())
    await good("qemu-img", "convert", "-n", "-f", "raw", str(source), "--target-image-opts", served.qemu())
    copy = tmp_path / "copy"
    await good("qemu-img", "convert", "-O", "raw", "--image-opts", served.qemu(), str(copy))
    assert copy.read_bytes() == source.read_bytes() == (tmp_path / "disk").read_bytes()


@ensureDeferred
async def test_threshold(serve: Serve, tmp_path: Path) -> None:
    """A file that fills is told of, once a threshold that an initiator has set is reached."""
    served = await serve("extent0 %/disk 0 64MB\ntarget0 extent0 any\n")
    session, lun = await opened(served)
    await lun.open()
    # LBPERE, and 8 MiB used.
    pages = bytes.fromhex("010a000000000080" + "00" * 4) + bytes.fromhex("5c02002c" + "00" * 12)
    pages += bytes.fromhex("8102000000000008" + "00" * 24)
    await ask(lun, cdb.MODE_SELECT_10, write=bytes(8) + pages, flags=0x10, length=8 + len(pages))
    for mebibyte in range(10):
        await lun.write(mebibyte << 20, os.urandom(1 << 20))
    served.service._tick()
    sense = await until(lun, lambda data: bool(data[2] & 0x0F), cdb.REQUEST_SENSE, 18)
    assert sense[12:14].hex() == "3807", sense.hex()
    log = await ask(lun, cdb.LOG_SENSE, 64, page=0x4C, allocation=64)
    path = tmp_path / "log"
    path.write_text(log.hex(" "))
    text = await good("sg_logs", f"--inhex={path}")
    assert "Used LBA mapping threshold resource count: 10" in text, text
    await session.logout()


@ensureDeferred
async def test_selfTest(serve: Serve) -> None:
    """A test in the background ends by itself, and its result is there."""
    served = await serve("extent0 %/disk 0 8MB\ntarget0 extent0 any\n")
    session, lun = await opened(served)
    await ask(lun, cdbprimary.SEND_DIAGNOSTIC, flags=0x40)
    log = await until(lun, lambda data: data[8] & 0x0F != 15, cdb.LOG_SENSE, 24, page=0x50)
    assert log[8] == 0x40, log.hex()
    await session.logout()


@pytest.mark.parametrize("options", ["thin=yes", "block=4K", "removable=yes"])
@ensureDeferred
async def test_remembered(serve: Serve, options: str) -> None:
    """Names and saved modes are there again when the target is another one."""
    text = f"extent0 %/disk 0 8MB {options}\ntarget0 extent0 any\n"
    served = await serve(text)
    session, lun = await opened(served)
    await ask(lun, cdbprimary.SET_IDENTIFYING, write=b"rack 7", type=4, length=6)
    control = bytes.fromhex("0a0a0610") + bytes(8)
    await ask(lun, cdb.MODE_SELECT_10, write=bytes(8) + control, flags=0x11, length=20)
    await session.logout()
    await served.service.stopService()
    served = await serve(text)
    session, lun = await opened(served)
    name = await ask(lun, cdbprimary.REPORT_IDENTIFYING, 64, type=4, allocation=64)
    assert name[4:] == b"rack 7"
    page = await ask(lun, cdb.MODE_SENSE_10, 64, page=0x0A, flags=8, allocation=64)
    assert page[8:12].hex() == "8a0a0610"
    await session.logout()
