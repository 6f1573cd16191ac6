"""The filters of the manual, as they come from a targets file, in a daemon that real initiators use."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred

from iscsi_twisted.errors import DeviceError
from iscsi_twisted.initiator import LUN, Initiator
from tests.support.clients import BASE, good, run, watch
from tests.support.daemon import Daemon
from tests.support.processes import ROOT, portIn, twistd

TOOL = "from iscsi_twisted.cli.tool import main; main()"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """One that is not started yet."""
    made = Daemon(tmp_path)
    yield made
    if made.process is not None:
        pytest_twisted.blockon(made.process.stop())


async def login(daemon: Daemon, lun: int) -> Any:
    """An open unit and its session."""
    from twisted.internet import reactor

    session = await Initiator(reactor).login(daemon.portal, f"{BASE}:target0")
    unit = LUN(session, lun)
    await unit.open()
    return unit, session


SEEDED = (
    "device0 MEMORY size=4M\ndevice1 FAULTS device0 kind=error on=read,write probability=0.2 seed=%\n"
    "device2 MEMORY size=4M\ndevice3 FAULTS device2 kind=torn probability=0.3 seed=%\n"
    "device4 MEMORY size=4M\ndevice5 FAULTS device4 kind=corrupt probability=0.3 seed=%\n"
    "device6 MEMORY size=4M\ndevice7 FAULTS device6 kind=lost on=write probability=0.3 seed=%\n"
    "target0 device1 device3 device5 device7 any\n"
)


async def happening(daemon: Daemon, seed: int) -> list[Any]:
    """What becomes of the same operations in the same order, and what the disks hold then."""
    await daemon.start(SEEDED.replace("%", str(seed)))
    seen: list[Any] = []
    for lun in range(4):
        unit, session = await login(daemon, lun)
        for number in range(64):
            try:
                await unit.write(number * 4096, bytes([number + 1]) * 4096)
                seen.append("written")
            except DeviceError as error:
                seen.append((str(error), error.offset))
        for number in range(64):
            try:
                seen.append(bytes(await unit.read(number * 4096, 4096)))
            except DeviceError as error:
                seen.append((str(error), error.offset))
        await session.logout()
    await daemon.process.stop()
    return seen


@ensureDeferred
async def test_seeds(daemon: Daemon) -> None:
    """The same operations meet the same faults after a restart, and others with another seed."""
    first = await happening(daemon, 7)
    again = await happening(daemon, 7)
    other = await happening(daemon, 8)
    assert first == again
    for lun in range(4):
        part = slice(lun * 128, lun * 128 + 128)
        assert first[part] != other[part]
    torn = first[128 + 64 : 256]
    for number, data in enumerate(torn):
        # Of a torn write the first sectors are there, and the rest is what it was.
        count = data.count(number + 1)
        assert data == bytes([number + 1]) * count + bytes(4096 - count)
        assert count % 512 == 0


async def bench(daemon: Daemon, lun: int, *options: str) -> Any:
    """What the bench of our own tool measures."""
    outcome = await run(sys.executable, "-c", TOOL, "bench", "--json", *options, daemon.url(lun=lun))
    return json.loads(outcome.out)["total"]


@ensureDeferred
async def test_limits(daemon: Daemon) -> None:
    """Operations and bytes in a time are never more than limits and what was saved up allow; none is lost."""
    await daemon.start(
        "device0 MEMORY size=64M\ndevice1 RATE device0 iops=200 burst=0.1\n"
        "device2 MEMORY size=64M\ndevice3 RATE device2 bytes=8M burst=0\n"
        "device4 MEMORY size=64M\ndevice5 RATE device4 iops=100 burst=5\n"
        "target0 device1 device3 device5 any\n"
    )
    told = await bench(daemon, 0, "--count", "420", "--writes", "50", "--destroy")
    done = told["read"]["count"] + told["write"]["count"]
    assert done == 420
    assert done <= 200 * (told["seconds"] + 0.1) + 1
    told = await bench(daemon, 1, "--count", "20", "--size", "512K")
    assert told["read"]["count"] == 20
    # The one that is the last to begin does so when nothing is owed.
    assert 8 * 1024 * 1024 * told["seconds"] * 1.01 >= 19 * 512 * 1024
    told = await bench(daemon, 2, "--count", "700")
    assert 100 * (told["seconds"] + 5) + 1 >= 700


@ensureDeferred
async def test_delays(daemon: Daemon) -> None:
    """Each read takes as long as its delay at least; how many wait side by side makes no difference."""
    await daemon.start(
        "device0 MEMORY size=4M\ndevice1 DELAY device0 seconds=0.05\n"
        "device2 MEMORY size=4M\ndevice3 DELAY device2 seconds=0.05 shape=uniform spread=0.03 seed=5\n"
        "target0 device1 device3 any\n"
    )
    for lun, least in ((0, 50_000), (1, 20_000)):
        for depth in ("1", "32"):
            told = await bench(daemon, lun, "--count", "64", "--depth", depth)
            assert told["read"]["us"]["mean"] >= least


@ensureDeferred
async def test_killed(daemon: Daemon) -> None:
    """
    What was flushed to an overlay in a file is there after a kill; what is in memory is not, nor what was
    flushed to a disk that only says so.
    """
    lines = (
        "extent0 golden 0 1M\ndevice0 OVERLAY extent0 file=good\ndevice1 MEMORY size=1M\n"
        "device2 OVERLAY extent0 file=bad\ndevice3 FAULTS device2 kind=lost on=flush\n"
        "target0 device0 device1 device3 any\n"
    )
    (daemon.directory / "golden").write_bytes(bytes(1 << 20))
    await daemon.start(lines)
    for lun in range(2):
        text = await good(
            "qemu-io", "-f", "raw", "-c", "write -P 7 0 64k", "-c", "flush", daemon.url(lun=lun)
        )
        assert "failed" not in text
    # It ends by SIGKILL.
    await daemon.process.stop()
    await daemon.start(lines)
    for lun, byte in ((0, 7), (1, 0), (2, 0)):
        text = await good("qemu-io", "-f", "raw", "-c", f"read -P {byte} 0 64k", daemon.url(lun=lun))
        assert "failed" not in text


@ensureDeferred
async def test_switched(daemon: Daemon) -> None:
    """The program of the manual finds devices by their names and switches them while qemu-io is at work."""
    (daemon.directory / "targets").write_text(
        "device0 MEMORY size=64M\ndevice1 FAULTS device0 kind=error on=read active=no\n"
        "device2 DELAY device1 seconds=0 active=no\ntarget0 device2 any\n"
    )
    text = (ROOT / "docs" / "filters.rst").read_text()
    block = text[text.index("    from twisted.application.service import Application\n") :]
    lines = [line[4:] for line in block[: block.index("\n``service.device`` finds")].splitlines()]
    served = "\n".join(lines[: lines.index("service.setServiceParent(application)") + 1])
    switching = "\n".join(lines[lines.index("service.setServiceParent(application)") + 1 :])
    (daemon.directory / "program.tac").write_text(
        f"{served.replace('3260', '0')}\n\n"
        "import os, signal\n\n"
        f"def switch(number, frame):\n    exec({switching!r}, globals())\n"
        "    service.device('device1').active = not os.path.exists('good')\n"
        "    service.device('device2').active = False\n"
        "    print('switched', flush=True)\n\n"
        "signal.signal(signal.SIGUSR1, switch)\n"
    )
    daemon.process = twistd("-ny", "program.tac", "--pidfile=", directory=str(daemon.directory))
    daemon.port = portIn(await daemon.process.line("listening on"))

    async def io(*commands: str) -> str:
        options = [word for command in commands for word in ("-c", command)]
        return (await run("qemu-io", "-f", "raw", *options, daemon.url())).text

    async def switch() -> None:
        daemon.process.output = ""
        os.kill(daemon.process.process.pid, signal.SIGUSR1)
        await daemon.process.line("switched")

    assert "failed" not in await io("write -P 1 0 1M", "read -P 1 0 1M")
    await switch()
    assert "write failed: Input/output error" in await io("write -P 2 0 1M")
    assert "failed" not in await io("read 0 1M")
    (daemon.directory / "good").touch()
    busy = watch("qemu-io", "-f", "raw", *["-c", "aio_write 0 4M", "-c", "aio_flush"] * 40, daemon.url())
    await switch()
    await busy.ended
    assert "failed" not in await io("write -P 3 0 1M", "read -P 3 0 1M")
