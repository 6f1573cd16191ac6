"""The tools of sg3-utils as on a Linux host: their commands go over a session; they decode the answers."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred

from iscsi_twisted.initiator import Initiator, Session
from iscsi_twisted.scsi import cdb
from iscsi_twisted.scsi.lun import encodeLUN
from tests.support import isoimage
from tests.support.clients import BASE, Serve, good
from tests.support.sgio import Tools

UNITS = """
extent0 %/disk0 0 64MB thin=yes removable=yes serial=first product=one
extent1 %/disk1 0 64MB block=4K
extent2 %/image 0 size type=cdrom
extent3 %/disk3 0 64MB thin=no rotation=7200 readonly=yes
target0 extent0 extent1 extent2 extent3 any alua=1:optimized,2:standby
"""
MIB = 1 << 20
COMPLAINTS = re.compile(
    "malformed|too short|too long|truncated|invalid|unexpected|illegal|reserved value|garbled|corrupt|truncat"
)
"""What tools say of data that they do not like."""
ABSENT = ("unmap granularity alignment: 0 [invalid]",)
"""What they say of a value that another one says is none."""


async def session(served: object) -> Session:
    """A session that has been told of the power on, by all units."""
    from twisted.internet import reactor

    made = await Initiator(reactor).login(served.portal(), f"{BASE}:target0")  # type: ignore[attr-defined]
    for lun in range(4):
        await made.execute(encodeLUN(lun), cdb.REQUEST_SENSE.encode(allocation=252)[:6], expected=252)
    return made


Use = Callable[..., Awaitable[Tools]]


@pytest.fixture
def use(serve: Serve, tmp_path: Path) -> Use:
    """Serve L{UNITS} through two portal groups, and have tools for them."""

    async def start() -> Tools:
        (tmp_path / "image").write_bytes(isoimage.image(b"content"))
        (tmp_path / "disk3").write_bytes(bytes(64 * MIB))
        return Tools(tmp_path, await session(await serve(UNITS, tags=(1, 2))))

    return start


ANSWERS = [
    ("sg_inq lun0", "RMB=1|NormACA=1|TPGS=3|3PC=1|CmdQue=1|[SPC-4]|identification: one|first"),
    ("sg_inq lun2", "type: cd/dvd|RMB=1"),
    ("sg_luns lun0", "0003000000000000"),
    ("sg_luns -s 1 lun0", "c101000000000000"),
    ("sg_luns -s 2 lun0", "0000000000000000|c101000000000000"),
    ("sg_luns -s 17 lun0", "0000000000000000|0003000000000000"),
    ("sg_rtpg -d lun0", "id : 0x1|0x00 (active/optimized)|id : 0x2|0x02 (standby)|T_SUP : 1, O_SUP : 1"),
    ("sg_rtpg -d -e lun0", "Implicit transition time"),
    ("sg_opcodes lun0", "Extended copy(LID1)|Write atomic(16)|Sanitize, overwrite|Set target port groups"),
    ("sg_opcodes -R lun0", "Compare and write"),
    ("sg_opcodes -o 0x93 lun0", "Usage data: 93"),
    ("sg_opcodes -t lun0", "Abort task|Clear ACA|Logical unit reset"),
    ("sg_opcodes lun2", "Read TOC/PMA/ATIP|Get configuration|Mechanism status"),
    ("sg_modes -a lun0", "Caching|Control,|Informational exceptions|Read-Write error"),
    ("sg_modes -a -6 lun1", "00 00 40 00 00 00 10 00"),
    ("sg_modes -a lun2", "capabilities and mechanical status|Block descriptor length=0"),
    ("sg_modes -a lun3", "WP=1, DpoFua=1"),
    ("sg_modes -p 0x1c,2 lun0", "Logical block provisioning"),
    ("sg_modes -p 0xa,1 lun0", "Control extension"),
    ("sginfo -a lun0", "Write Cache Enabled                1|Queue Algorithm Modifier           1"),
    ("sg_readcap lun0", "Number of logical blocks=131072"),
    ("sg_readcap -l lun0", "lbpme=1, lbprz=1|blocks per physical block exponent=3|Lowest aligned LBA=0"),
    ("sg_readcap -l lun1", "Logical block length=4096|exponent=0"),
    ("sg_readcap lun2", "Logical block length=2048"),
    ("sg_vpd -a lun0", "serial number: first|Internet SCSI|target0,t,0x0001|target0,t,0x0002|V_SUP=1"),
    ("sg_vpd -a lun0", "HEADSUP=1 ORDSUP=1 SIMPSUP=1|length granularity: 8 blocks|(thin provisioned)"),
    ("sg_vpd -a lun2", "Supported VPD pages"),
    ("sg_vpd -a lun3", "rotation rate: 7200 rpm|Unmap command not implemented"),
    ("sg_get_config lun2", "CD-ROM|CD read feature|Random readable|Power management"),
    ("sg_requests -s lun0", ""),
    ("sg_turs lun0", ""),
    ("sg_get_lba_status -l 0 lun0", "blocks:     131072  deallocated"),
    ("sg_reassign -g lun0", "0"),
    ("sg_reassign --primary lun0", "Elements in primary defect list: 0"),
    ("sg_copy_results -p lun0", "segment descriptor count: 64|Copy from block device to block device"),
    ("sg_senddiag -l lun0", "Supported diagnostic pages"),
    ("sg_senddiag -t lun0", "GOOD"),
    ("sg_logs -a lun0", "Write error|Temperature|Start-stop|Self test|Background scan|General Statistics"),
    ("sg_logs -a -a lun2", "Read error"),
    ("sg_persist --in -k lun0", "NO registered"),
    ("sg_persist --in -c lun0", "(RLR_C): 1|(SIP_C): 1|(ATP_C): 1|(PTPL_C): 1|Access, all registrants: 1"),
]  # fmt: skip
"""What is asked, and what is read from the answer."""


@ensureDeferred
async def test_answers(use: Use) -> None:
    """They find in every answer what was configured, and nothing wrong."""
    tools = await use()
    for command, wanted in ANSWERS:
        text = await tools.good(*command.split())
        for words in filter(None, wanted.split("|")):
            assert all(part in text for part in (words,)) or all(part in text for part in words.split()), (
                command,
                words,
                text,
            )
        shown = [line for line in text.lower().splitlines() if COMPLAINTS.search(line)]
        assert all(any(each in line for each in ABSENT) for line in shown), (command, shown)
    await tools.close()


@ensureDeferred
async def test_reservation(use: Use) -> None:
    """A cluster's life with sg_persist."""
    tools = await use()
    out = "sg_persist", "--out", "lun0"
    await tools.good(*out, "--register", "--param-sark=0xa", "--param-aptpl")
    await tools.good(*out, "--reserve", "--param-rk=0xa", "--prout-type=5")
    assert "Write Exclusive, registrants only" in await tools.good("sg_persist", "--in", "-r", "lun0")
    other = "iqn.1999-01.com.example:other,i,0x0123456789ab"
    await tools.good(
        *out, "--register-move", "--param-rk=0xa", "--param-sark=0xb", "--relative-target-port=2",
        f"--transport-id={other}",
    )  # fmt: skip
    full = await tools.good("sg_persist", "--in", "-s", "lun0")
    for words in ("Key=0xb", "Relative port address: 0x2", "<< Reservation holder >>", other):
        assert words in full, full
    await tools.good(*out, "--preempt", "--param-rk=0xa", "--param-sark=0xb", "--prout-type=7")
    assert "    0xa\n" in await tools.good("sg_persist", "--in", "-k", "lun0")
    await tools.good(*out, "--clear", "--param-rk=0xa")
    assert "NO registered" in await tools.good("sg_persist", "--in", "-k", "lun0")
    await tools.close()


@ensureDeferred
async def test_copy(use: Use, tmp_path: Path) -> None:
    """Data go in with sg_dd, are copied by the target with sg_xcopy, and come out the same."""
    tools = await use()
    content = os.urandom(MIB)
    (tmp_path / "in").write_bytes(content)
    await tools.good("sg_dd", f"if={tmp_path / 'in'}", "of=lun0", "bs=512", "count=2048")
    await tools.good("sg_xcopy", "if=lun0", "of=lun0", "bs=512", "count=2048", "seek=8192")
    await tools.good("sg_xcopy", "if=lun0", "of=lun1", "bs=512", "count=2048")
    for name, options in (
        ("lun0", ("bs=512", "count=2048", "skip=8192")),
        ("lun1", ("bs=4096", "count=256")),
    ):
        await tools.good("sg_dd", f"if={name}", f"of={tmp_path / name}.out", *options)
        assert (tmp_path / f"{name}.out").read_bytes() == content
    assert {0x83, 0x84} <= {each[0] for each in tools.commands}
    await tools.close()


@ensureDeferred
async def test_changes(use: Use, tmp_path: Path) -> None:
    """What changes a unit does so: blocks, modes, paths, the medium, the whole of it."""
    tools = await use()
    (tmp_path / "block").write_bytes(b"\x55" * 512)
    (tmp_path / "swap").write_bytes(b"\x55" * 512 + b"\x66" * 512)
    block = f"--in={tmp_path / 'block'}"
    for command in (
        f"sg_write_x --atomic=0 --16 --lba=4 --num=1 {block} lun0",
        f"sg_compare_and_write --lba=4 --num=1 --in={tmp_path / 'swap'} lun0",
        f"sg_write_verify --lba=5 --num=1 {block} lun0",
        f"sg_write_x --or --16 --lba=5 --num=1 {block} lun0",
        f"sg_write_same --10 --lba=8 --num=8 --xferlen=512 {block} lun0",
        "sg_write_same --16 --ndob --lba=16 --num=8 lun0",
        "sg_verify --lba=4 --count=4 lun0",
        "sg_sync --16 --lba=0 --count=16 lun0",
        "sg_sync --immed lun0",
        "sg_wr_mode --page=0xa --contents=0a,0a,06,10,00,00,00,00,00,00,00,00 --save lun0",
        "sg_stpg --tp=2 --state=an lun0",
        "sg_prevent --prevent=0 lun0",
        "sg_timestamp --milliseconds=1000000 lun0",
    ):
        await tools.good(*command.split())
    assert "8a 0a 06 10" in await tools.good("sg_modes", "-p", "0xa", "-c", "3", "lun0")
    assert "0x01 (active/non optimized)" in await tools.good("sg_rtpg", "-d", "lun0")
    held = (tmp_path / "disk0").read_bytes()[: 24 * 512]
    assert held == bytes(4 * 512) + b"\x66" * 512 + b"\x55" * 512 + bytes(1024) + b"\x55" * 4096 + bytes(4096)
    miscompare = await tools.run(
        "sg_compare_and_write", "--lba=4", "--num=1", f"--in={tmp_path / 'swap'}", "lun0"
    )
    assert miscompare.status == 14, miscompare
    await tools.good("sg_start", "--eject", "lun0")
    assert (await tools.run("sg_turs", "lun0")).status == 2
    await tools.good("sg_start", "--load", "lun0")
    await tools.good("sg_turs", "lun0")
    for command in ("--overwrite --zero --quick --wait", "--block --quick --wait"):
        await tools.good("sg_sanitize", *command.split(), "lun0")
    assert not (tmp_path / "disk0").read_bytes().strip(b"\0")
    await tools.close()


@ensureDeferred
async def test_encrypted(serve: Serve, tmp_path: Path) -> None:
    """An encrypted disk shows nothing of what is written; its key can be forgotten, for good."""
    content = b"something that can be found" * 40000
    (tmp_path / "in").write_bytes(content)
    key = tmp_path / "key"
    key.touch(0o600)
    key.write_bytes(os.urandom(64))
    text = "extent0 %/disk0 0 16MB\ndevice0 CRYPT extent0 key=%/key\ntarget0 device0 any\n"
    served = await serve(text)
    await good(
        "qemu-img", "convert", "-n", "-f", "raw", str(tmp_path / "in"), "--target-image-opts", served.qemu()
    )

    async def read() -> bytes:
        copy = str(tmp_path / "copy")
        await good("qemu-img", "convert", "-O", "raw", "--image-opts", served.qemu(), copy)
        return (tmp_path / "copy").read_bytes()[: len(content)]

    assert await read() == content
    assert b"found" not in (tmp_path / "disk0").read_bytes()
    await served.service.stopService()
    served = await serve(text)
    assert await read() == content
    tools = Tools(tmp_path, await session(served))
    assert "WACEREQ=1" in await tools.good("sg_vpd", "-p", "bdc", "lun0")
    old = key.read_bytes()
    await tools.good("sg_sanitize", "--crypto", "--quick", "--wait", "lun0")
    await tools.close()
    assert key.read_bytes() != old
    noise = await read()
    assert b"found" not in noise and noise.strip(b"\0")
