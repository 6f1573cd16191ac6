"""Where an area of several members cannot be read or written, as it is seen on the wire."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred

from tests.support.clients import Serve, run, watch

BAD = "kind=error on=read,write start=64K length=8K active=yes"
MEMBERS = f"extent0 %/a 0 1M\nextent1 %/b 0 1M\ndevice0 FAULTS extent1 {BAD}\n"
BLOCK = 512
VALID = 0xF0
"""What tshark tells of the byte that says that there is a valid INFORMATION field (SPC-4 4.5.3)."""

LAYOUTS = {
    # Of each: the lines, and the first bad byte and the byte after the last.
    "concatenation": (MEMBERS + "device1 RAID0 extent0 device0\n", (1 << 20) + (64 << 10), 8 << 10),
    "stripe": (MEMBERS + "device1 RAID0:16K extent0 device0\n", 9 * (16 << 10), 8 << 10),
    "mirror": (
        f"extent2 %/c 0 1M\n{MEMBERS}device2 FAULTS extent2 {BAD}\ndevice3 RAID1 device0 device2\n"
        "device1 RAID0 extent0 device3\n",
        (1 << 20) + (64 << 10),
        8 << 10,
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@ensureDeferred
async def test_place(serve: Serve, layout: str) -> None:
    """
    A failed member gives MEDIUM ERROR for its range alone, and its first bad block in the INFORMATION field;
    so it is for what begins within it, lies in other members too, or is a write.
    """
    lines, first, length = LAYOUTS[layout]
    served = await serve(f"{lines}target0 device1 any\n")
    mirrors = [served.service.device("device3")] if layout == "mirror" else []
    end = first + length
    tshark = watch(
        "tshark", "-l", "-n", "-i", "lo", "-f", f"tcp port {served.port}",
        "-d", f"tcp.port=={served.port},iscsi", "-Y", "scsi.sns.key == 3", "-T", "fields",
        "-e", "scsi.sns.ascascq", "-e", "scsi.sns.valid", "-e", "scsi.sns.info",
    )  # fmt: skip
    await tshark.line(lambda line: "Capture started" in line)
    wanted = []

    async def do(what: str, offset: int, count: int, bad: int | None = None) -> None:
        command = f"{what} {'-P 7 ' if what == 'write' else ''}{offset} {count}"
        outcome = await run("qemu-io", "-f", "raw", "-t", "none", "-c", command, served.url())
        assert ("rror" in outcome.text) is (bad is not None), (command, outcome.text)
        if bad is not None:
            wanted.append(f"0x{0x1100 if what == 'read' else 0x0C00:04x} {VALID} 0x{bad // BLOCK:08x}")

    await do("write", 0, first)
    # What nobody has written qemu would not even ask for.
    await do("write", end, (2 << 20) - end)
    await do("read", 0, first)
    await do("read", end, (2 << 20) - end)
    await do("read", first - BLOCK, 2 * BLOCK, first)
    await do("read", first + 4096, BLOCK, first + 4096)
    await do("read", first - (80 << 10), 128 << 10, first)
    await do("read", end - BLOCK, 64 << 10, end - BLOCK)
    if not mirrors:
        await do("write", first + 4096, BLOCK, first + 4096)
        await do("write", first - (80 << 10), 128 << 10, first)
    assert all(member.state == "in sync" for mirror in mirrors for member in mirror.status().members)
    seen: list[str] = []

    def told(line: str) -> bool:
        if line.startswith("0x"):
            seen.append(" ".join(line.split()))
        return len(seen) >= len(wanted)

    await tshark.line(told)
    await tshark.interrupt()
    assert seen == wanted
