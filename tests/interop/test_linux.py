"""Linux and its initiator, open-iscsi, in a machine of their own: the drivers of disks and CDs work."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred

from tests.support import isoimage
from tests.support.clients import BASE, Serve, run
from tests.support.guest import HOST, Guest

FOLDER = os.environ.get("GUEST", "")
"""Where the packages of the guest are; see L{tests.support.guest}."""

pytestmark = pytest.mark.skipif(
    "CI" not in os.environ and not FOLDER, reason="GUEST does not name a directory with a guest's packages"
)

UNITS = "extent0 %/disk 0 256MB\nextent1 %/image 0 size type=cdrom\ntarget0 extent0 extent1 any\n"
CONTENT = b"this stands in the file\n"

LOGIN = """
node="iscsiadm -m node -T {target} -p {portal}"
run $node -o new
{settings}
run $node -l
until [ -b /dev/sda ] && [ -b /dev/sr0 ]; do sleep 0.1; done
"""
SETTINGS = {
    "plain": {},
    "CHAP, digests": {
        "node.session.auth.authmethod": "CHAP",
        "node.session.auth.username": "linux",
        "node.session.auth.password": "correct-horse-battery",
        "node.conn[0].iscsi.HeaderDigest": "CRC32C",
        "node.conn[0].iscsi.DataDigest": "CRC32C",
    },
}
SCRIPT = """
show() { echo "=== $1 $(cat /sys/block/$1)"; }
for name in logical_block_size physical_block_size optimal_io_size discard_granularity discard_max_bytes \\
        write_zeroes_max_bytes write_cache fua; do show sda/queue/$name; done
run dd if=/dev/urandom of=/tmp/data bs=1M count=8
run dd if=/tmp/data of=/dev/sda bs=1M oflag=direct
run dd if=/dev/sda of=/tmp/back bs=1M count=8 iflag=direct
run cmp /tmp/data /tmp/back
run sg_xcopy if=/dev/sg0 of=/dev/sg0 bs=512 count=16384 seek=32768
run dd if=/dev/sda of=/tmp/back bs=1M skip=16 count=8 iflag=direct
run cmp /tmp/data /tmp/back
run /sbin/blkdiscard /dev/sda
run dd if=/dev/sda of=/tmp/back bs=1M count=24 iflag=direct
run sh -c "test $(tr -d '\\000' </tmp/back | wc -c) -eq 0"
run /sbin/blkdiscard -z -o 0 -l 4194304 /dev/sda
run /sbin/mke2fs -q -t ext4 /dev/sda
run mount -t ext4 -o discard /dev/sda /mnt
run cp /tmp/data /mnt/data
run umount /mnt
run mount -t ext4 /dev/sda /mnt
run cmp /tmp/data /mnt/data
run umount /mnt
run mount -t iso9660 -o ro /dev/sr0 /mnt
run cat /mnt/file.dat
run umount /mnt
run sg_start --eject /dev/sr0
run sg_start --load /dev/sr0
run dd if=/dev/sr0 of=/dev/null count=1
run sg_persist --out --register --param-sark=0xa /dev/sda
run sg_persist --out --reserve --param-rk=0xa --prout-type=5 /dev/sda
run sg_persist --in -r /dev/sda
run sg_persist --out --clear --param-rk=0xa /dev/sda
run sg_sanitize --block --quick --wait /dev/sda
run $node -u
"""
WANTED = {
    "logical_block_size": "512",
    "physical_block_size": "4096",
    "optimal_io_size": "1048576",
    "discard_granularity": "4096",
    "discard_max_bytes": str(512 << 20),
    "write_zeroes_max_bytes": str(16 << 20),
    "write_cache": "write back",
    "fua": "1",
}
"""What the driver of disks has made of the unit's pages."""


@pytest.mark.parametrize("kind", SETTINGS)
@ensureDeferred
async def test_linux(serve: Serve, tmp_path: Path, kind: str) -> None:
    """It logs in, uses a disk and a CD with file systems, and every command that it is given ends well."""
    (tmp_path / "image").write_bytes(isoimage.image(CONTENT))
    settings = SETTINGS[kind]
    secret = settings.get("node.session.auth.password")
    served = await serve(UNITS, users=f"linux:chap:{secret}\n" if secret else None)
    updates = "\n".join(f"run $node -o update -n '{name}' -v {value}" for name, value in settings.items())
    login = LOGIN.format(target=f"{BASE}:target0", portal=f"{HOST}:{served.port}", settings=updates)
    work = tmp_path / "guest"
    work.mkdir()
    ended = await run("timeout", "300", *Guest(Path(FOLDER), work).command(login + SCRIPT))
    text = ended.out.replace("\r", "")
    assert ended.status == 0, text[-3000:]
    done = re.findall(r"^\+\+\+ (.*)\n((?:(?!\+\+\+|---).*\n)*)--- (\d+)$", text, re.MULTILINE)
    assert [each for each in done if each[2] != "0"] == []
    assert len(done) == (login + SCRIPT).count("\nrun "), text
    assert dict(re.findall(r"^=== sda/queue/(\w+) (.*)$", text, re.MULTILINE)) == WANTED
    assert CONTENT.decode() in text and "Write Exclusive, registrants only" in text
    held = (tmp_path / "disk").read_bytes()
    assert not held.strip(b"\0")
