"""libiscsi's tools and qemu against a service."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred

from tests.support.clients import BASE, Serve, good, run, watch

SIMPLE = "extent0 %/disk0 0 64MB\ntarget0 extent0 0.0.0.0/0\n"

COMPLEX = """
# Complex file showing 3-way RAID1 (with RAID1 components),
# also using local and (NFS) remote components

# extents
extent0	%/iscsi/extents/0			0	100MB
extent1	%/imports/remote1/iscsi/extents/0	0	100MB
extent2	%/iscsi/extents/1			0	100MB
extent3	%/imports/remote1/iscsi/extents/1	0	100MB
extent4	%/iscsi/extents/2			0	100MB
extent5	%/imports/remote1/iscsi/extents/2	0	100MB
extent6	%/iscsi/extents/3			0	100GB

# devices
device0	RAID1		extent0 extent1
device1	RAID1		extent2 extent3
device2	RAID1		extent4 extent5
device3	RAID1		device0 device1 device2

# targets
target0	device3		127.0.0.0/8

# a target can be made from just an extent
target1	extent6		127.0.0.0/8
"""


def image(path: Path, size: int, *, pieces: int = 200) -> Path:
    """A raw image with data here and there, the same every time."""
    source = random.Random(7)
    with path.open("wb") as file:
        file.truncate(size)
        for _ in range(pieces):
            length = source.choice((512, 4096, 65536, 300000))
            file.seek(source.randrange(0, size - length) // 512 * 512)
            file.write(source.randbytes(length))
    return path


@pytest.mark.parametrize("family", [4, 6])
@ensureDeferred
async def test_discovery(serve: Serve, family: int) -> None:
    """iscsi-ls finds the targets and their LUNs, and is told the address that it used."""
    served = await serve("extent0 %/a 0 1MB\nextent1 %/b 0 2GB\ntarget0 extent0 extent1 any\n")
    listed = await good("iscsi-ls", "-s", f"iscsi://{served.portal(family)}/")
    assert f"Target:{BASE}:target0 Portal:{served.portal(family)},1" in listed
    assert "Lun:0    Type:DIRECT_ACCESS (Size:1023K)" in listed or "Lun:0    Type:DIRECT_ACCESS" in listed
    assert "Lun:1    Type:DIRECT_ACCESS" in listed


@ensureDeferred
async def test_masked(serve: Serve) -> None:
    """A target whose netmask does not admit the client is neither listed nor served."""
    served = await serve(
        "extent0 %/a 0 1MB\nextent1 %/b 0 1MB\ntarget0 extent0 192.0.2.0/24\ntarget1 extent1 127.0.0.1\n"
    )
    listed = await good("iscsi-ls", f"iscsi://{served.portal()}/")
    assert f"{BASE}:target1" in listed
    assert f"{BASE}:target0" not in listed
    refused = await run("iscsi-inq", served.url("target0"))
    assert refused.status != 0
    assert "uthorization" in refused.text or "(514)" in refused.text


@ensureDeferred
async def test_inquiry(serve: Serve) -> None:
    """iscsi-inq reads the standard data and all pages that are listed."""
    options = "vendor=ACME product=anvil revision=7 serial=S123"
    served = await serve(f"extent0 %/a 0 1MB {options}\ntarget0 extent0 any\n")
    standard = await good("iscsi-inq", served.url())
    assert "Vendor:ACME" in standard
    assert "Product:anvil" in standard
    pages = await good("iscsi-inq", "-e", "1", "-c", "0", served.url())
    for page in (0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2):
        assert f"Page:{page:#04x}" in pages
        await good("iscsi-inq", "-e", "1", "-c", str(page), served.url())
    assert "S123" in await good("iscsi-inq", "-e", "1", "-c", str(0x80), served.url())


@pytest.mark.parametrize("blockSize", [512, 1024, 2048, 4096, 8192])
@ensureDeferred
async def test_capacity(serve: Serve, blockSize: int) -> None:
    """iscsi-readcapacity16 sees the extent's size in blocks of the size that was asked for."""
    served = await serve(SIMPLE, blockSize=blockSize)
    capacity = await good("iscsi-readcapacity16", served.url())
    assert f"RETURNED LOGICAL BLOCK ADDRESS:{(64 << 20) // blockSize - 1}" in capacity
    assert f"LOGICAL BLOCK LENGTH IN BYTES:{blockSize}" in capacity
    assert "Total size:67108864" in capacity


@pytest.mark.parametrize("digest", [False, True])
@pytest.mark.parametrize("family", [4, 6])
@ensureDeferred
async def test_convert(serve: Serve, tmp_path: Path, family: int, digest: bool) -> None:
    """qemu-img writes an image onto the LUN, and reads back the same."""
    raw = image(tmp_path / "raw", 64 << 20)
    source = tmp_path / "source.qcow2"
    await good("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(source))
    served = await serve(SIMPLE)
    unit = served.qemu(family=family, digest=digest)
    here = f"driver=qcow2,file.driver=file,file.filename={source}"
    await good("qemu-img", "convert", "-n", "--image-opts", "--target-image-opts", here, unit)
    assert "identical" in await good("qemu-img", "compare", "--image-opts", here, unit)
    assert (tmp_path / "disk0").read_bytes() == raw.read_bytes()
    assert served.service.status().sessions == ()


@pytest.mark.parametrize("digest", [False, True])
@ensureDeferred
async def test_patterns(serve: Serve, tmp_path: Path, digest: bool) -> None:
    """qemu-io writes, reads, zeroes and discards at odd places and sizes."""
    served = await serve(SIMPLE)
    commands = (
        "write -P 0xa1 0 512", "write -P 0xa2 512 1536", "write -P 0xa3 65024 200704",
        "write -P 0xa4 8M 4M", "writev -P 0xa5 20M 4096 8192 512", "aio_write -P 0xa6 30M 1M",
        "aio_write -P 0xa7 31M 1M", "aio_flush", "flush", "write -z 9M 1M", "write -z -u 10M 1M",
        "discard 33M 1M", "write -f -P 0xa8 40M 64k", "read -P 0xa1 0 512", "read -P 0xa2 512 1536",
        "read -P 0xa3 65024 200704", "read -P 0xa4 8M 1M", "read -P 0 9M 2M", "read -P 0xa4 11M 1M",
        "read -P 0xa5 20M 12800", "read -P 0xa6 30M 1M", "read -P 0xa7 31M 1M", "read -P 0xa8 40M 64k",
        "read -P 0 63M 1M",
    )  # fmt: skip
    arguments = [part for command in commands for part in ("-c", command)]
    text = await good("qemu-io", "--image-opts", *arguments, served.qemu(digest=digest))
    assert "failed" not in text.lower(), text
    with (tmp_path / "disk0").open("rb") as file:
        file.seek(8 << 20)
        assert file.read(1 << 20) == b"\xa4" * (1 << 20)
    assert os.stat(tmp_path / "disk0").st_size == 64 << 20


@ensureDeferred
async def test_faqMirrors(serve: Serve, tmp_path: Path) -> None:
    """The FAQ's complex example is served and written through; all six mirrors are equal afterwards."""
    for directory in ("iscsi/extents", "imports/remote1/iscsi/extents"):
        (tmp_path / directory).mkdir(parents=True)
    served = await serve(COMPLEX)
    raw = image(tmp_path / "raw", 100 << 20)
    await good("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(raw), served.url())
    assert "identical" in await good("qemu-img", "compare", "-f", "raw", "-F", "raw", str(raw), served.url())
    wanted = raw.read_bytes()
    for number in range(3):
        assert (tmp_path / f"iscsi/extents/{number}").read_bytes() == wanted
        assert (tmp_path / f"imports/remote1/iscsi/extents/{number}").read_bytes() == wanted
    capacity = await good("iscsi-readcapacity16", served.url("target1"))
    assert f"Total size:{100 << 30}" in capacity


@ensureDeferred
async def test_concatenation(serve: Serve, tmp_path: Path) -> None:
    """A RAID0 is its members one after the other."""
    served = await serve(
        "extent0 %/a 0 3MB\nextent1 %/b 0 5MB\ndevice0 RAID0 extent0 extent1\ntarget0 device0 any\n"
    )
    raw = image(tmp_path / "raw", 8 << 20, pieces=60)
    await good("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(raw), served.url())
    joined = (tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes()
    assert joined == raw.read_bytes()


@ensureDeferred
async def test_readOnly(serve: Serve, tmp_path: Path) -> None:
    """A read-only target can be read and not written."""
    (tmp_path / "disk0").write_bytes(b"r" * (1 << 20))
    served = await serve("extent0 %/disk0 0 size\ntarget0 ro extent0 any\n")
    text = await good("qemu-io", "-r", "-f", "raw", "-c", "read -P 0x72 0 1M", served.url())
    assert "verification failed" not in text
    refused = await run("qemu-io", "-f", "raw", "-c", "write -P 1 0 512", served.url())
    assert "rite" in refused.text
    assert (tmp_path / "disk0").read_bytes() == b"r" * (1 << 20)


@ensureDeferred
async def test_perf(serve: Serve, tmp_path: Path) -> None:
    """iscsi-perf reads at depth 32 without an error until it is interrupted."""
    image(tmp_path / "disk0", 64 << 20)
    served = await serve(SIMPLE)
    perf = watch("iscsi-perf", "-m", "32", "-b", "8", "-r", served.url())
    await perf.line(lambda line: "iops" in line and "average" in line)
    await perf.interrupt()
    assert not [line for line in perf.lines if "rror" in line or "fail" in line]
    (unit,) = served.service.status().targets[0].units
    assert unit.counters.reads > 100
    # The unit attention of a new nexus, and nothing else.
    assert unit.counters.errors == 1


@ensureDeferred
async def test_stripe(serve: Serve, tmp_path: Path) -> None:
    """An image on a stripe lies on its members chunk by chunk, and is read as it was."""
    raw = image(tmp_path / "raw", 4 << 20)
    served = await serve(
        "extent0 %/left 0 2MB\nextent1 %/right 0 2MB\n"
        "device0 RAID0:64K extent0 extent1\ntarget0 device0 any\n"
    )
    unit = served.qemu()
    here = f"driver=raw,file.driver=file,file.filename={raw}"
    await good("qemu-img", "convert", "-n", "--image-opts", "--target-image-opts", here, unit)
    assert "identical" in await good("qemu-img", "compare", "--image-opts", here, unit)
    whole = raw.read_bytes()
    chunks = [whole[place : place + 65536] for place in range(0, len(whole), 65536)]
    assert (tmp_path / "left").read_bytes() == b"".join(chunks[::2])
    assert (tmp_path / "right").read_bytes() == b"".join(chunks[1::2])


@ensureDeferred
async def test_networkBlockDevice(serve: Serve, tmp_path: Path) -> None:
    """qemu-nbd offers a LUN as an NBD export: what is written there is on the disk."""
    served = await serve(SIMPLE)
    socket = tmp_path / "nbd"
    # It ends by itself when its first client has gone.
    await good(
        "qemu-nbd", "--fork", f"--pid-file={tmp_path}/pid", "--format=raw", f"--socket={socket}", served.url()
    )
    source = image(tmp_path / "source", 64 << 20)
    raw = ("-f", "raw")
    await good("qemu-img", "convert", "-n", *raw, "-O", "raw", str(source), f"nbd+unix:///?socket={socket}")
    assert (tmp_path / "disk0").read_bytes() == source.read_bytes()
