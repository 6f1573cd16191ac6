"""Firmware starts a program from an ISO image: a real BIOS, and iPXE with its own initiator."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred

from tests.support import isoimage
from tests.support.clients import BASE, Serve, run

QEMU = "qemu-system-x86_64"

pytestmark = pytest.mark.skipif(
    "CI" not in os.environ and shutil.which(QEMU) is None, reason=f"{QEMU} is not installed"
)

CD = "extent0 %/image.iso 0 size type=cdrom\nextent1 %/disk 0 64MB\ntarget0 extent0 extent1 any\n"
CONTENT = b"this stands in the file\r\n\0"

SERIAL, OFF = 0x3F8, 0x501
ENDED = 33
"""The machine's exit status when 16 is written to the port that switches it off."""

PROGRAM = bytes.fromhex(
    # Where the BIOS has put it is segment 07C0h.  Bytes 8 to 63 may be written by whoever makes an image.
    "ea4000c007" + "00" * 59
    # The data are here: mov %cs,%ax; mov %ax,%ds; mov %ax,%es.
    + "8cc8" "8ed8" "8ec0"
    # Read a sector from the drive in %dl: mov $42h,%ah; mov $packet,%si; int $13h; jc off.
    + "b442" "be8000" "cd13" "720e"
    # print: mov $1000h,%si; lodsb; test %al,%al; je off; mov $SERIAL,%dx; out %al,%dx; jmp to lodsb.
    + "be0010" "ac" "84c0" "7406" "baf803" "ee" "ebf5"
    # off: mov $OFF,%dx; mov $16,%al; out %al,%dx; hlt.
    + "ba0105" "b010" "ee" "f4"
).ljust(0x80, b"\0") + bytes.fromhex(
    # packet: 16 bytes; one sector to 07C0:1000, from the first one of the file.
    "1000" "0100" "0010" "c007"
) + isoimage.FILE.to_bytes(8, "little")  # fmt: skip


async def started(tmp_path: Path, *options: str) -> str:
    """What a machine has sent to its serial line when it has switched itself off."""
    serial = tmp_path / "serial"
    ended = await run(
        "timeout", "60", QEMU, "-machine", "pc,accel=tcg", "-m", "64", "-display", "none", "-nodefaults",
        "-serial", f"file:{serial}", "-device", f"isa-debug-exit,iobase={OFF},iosize=1", *options,
    )  # fmt: skip
    assert ended.status == ENDED, (ended, serial.read_text())
    return serial.read_text()


@ensureDeferred
async def test_bios(serve: Serve, tmp_path: Path) -> None:
    """A BIOS finds the drive, and the boot catalog on the disc; every command of its reaches the target."""
    (tmp_path / "image.iso").write_bytes(isoimage.image(CONTENT, PROGRAM))
    served = await serve(CD)
    text = await started(
        tmp_path, "-device", "virtio-scsi-pci", "-device", "scsi-block,drive=cd,bootindex=0", "-blockdev",
        f"driver=iscsi,node-name=cd,transport=tcp,portal={served.portal()},target={BASE}:target0,lun=0,"
        "read-only=on",
    )  # fmt: skip
    assert text == CONTENT[:-1].decode().replace("\r\n", "\n")


@pytest.mark.parametrize("secret", ["", "correct-horse-battery"])
@ensureDeferred
async def test_network(serve: Serve, tmp_path: Path, secret: str) -> None:
    """iPXE logs in by itself, with CHAP where that is wanted, and boots from the disc."""
    (tmp_path / "image.iso").write_bytes(isoimage.image(CONTENT, PROGRAM))
    served = await serve(CD, users=f"ipxe:chap:{secret}\n" if secret else None)
    lines = ["#!ipxe", "set initiator-iqn iqn.2001-04.com.example:ipxe"]
    if secret:
        lines += ["set username ipxe", f"set password {secret}"]
    lines.append(f"sanboot iscsi:10.0.2.2::{served.port}:0:{BASE}:target0")
    folder = tmp_path / "tftp"
    folder.mkdir()
    (folder / "script").write_text("\n".join(lines) + "\n")
    text = await started(
        tmp_path,
        "-netdev",
        f"user,id=n,tftp={folder},bootfile=/script",
        "-device",
        "e1000,netdev=n,bootindex=0",
    )
    assert text == CONTENT[:-1].decode().replace("\r\n", "\n")
