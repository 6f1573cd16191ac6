"""Overlays of a daemon over one golden image: private to each host, committed by a program that is killed."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from iscsi_twisted.storage.overlayfile import COMMITTING, MAGIC, SETTLED
from tests.support.clients import good
from tests.support.daemon import Daemon
from tests.support.processes import ROOT, Python

LINES = "extent0 golden 0 size\ndevice0 OVERLAY extent0 file=anna\n"
STATE = len(MAGIC) + 8


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """One that is not started yet."""
    made = Daemon(tmp_path)
    yield made
    if made.process is not None:
        pytest_twisted.blockon(made.process.stop())


def program() -> str:
    """The program of the manual that commits."""
    text = (ROOT / "docs" / "filters.rst").read_text()
    block = text[text.index("    import sys\n\n    from twisted.internet.task import react") :]
    lines = block[: block.index("sys.argv[1:])\n") + len("sys.argv[1:])\n")].splitlines()
    return "\n".join(line[4:] for line in lines)


async def pause(seconds: float) -> None:
    """Let others go on."""
    from twisted.internet import reactor

    await deferLater(reactor, seconds)  # type: ignore[arg-type]


async def io(url: str, *commands: str) -> None:
    """Let qemu-io do what must succeed."""
    options = [word for command in commands for word in ("-c", command)]
    text = await good("qemu-io", "-f", "raw", *options, url)
    assert "failed" not in text, text


@ensureDeferred
async def test_committed(daemon: Daemon, tmp_path: Path) -> None:
    """
    Three hosts write to their overlays at once, and each sees its own disk; the golden image is as it was.
    The manual's program commits one of them; killed in the middle it is run again, and the image is what that
    host saw.  Then the others are refused.
    """
    golden, before = tmp_path / "golden", tmp_path / "before"
    golden.write_bytes(random.Random(1).randbytes(64 << 20))
    shutil.copy2(golden, before)
    await daemon.start(
        f"{LINES}device1 OVERLAY extent0 file=bert\ndevice2 OVERLAY extent0\n"
        "target0 device0 device1 device2 any\n"
    )
    urls = [daemon.url(lun=lun) for lun in range(3)]
    writing = [
        io(url, f"write -P {lun + 65} 0 48M", f"write -P {lun + 70} 60M 1000k", "flush")
        for lun, url in enumerate(urls)
    ]
    await gatherResults([Deferred.fromCoroutine(each) for each in writing])
    for lun, url in enumerate(urls):
        await io(url, f"read -P {lun + 65} 0 48M", f"read -P {lun + 70} 60M 1000k")
    seen = tmp_path / "seen"
    await good("qemu-img", "convert", "-f", "raw", "-O", "raw", urls[0], str(seen))
    assert golden.read_bytes() == before.read_bytes()
    await daemon.process.stop()

    (tmp_path / "commit.py").write_text(program())
    killed = 0
    for delay in (0.0, 0.004, 0.008, 0.012):
        changed = golden.stat().st_mtime_ns
        process = Python("commit.py", "golden", "anna", directory=str(tmp_path))
        while not process.ended.called and golden.stat().st_mtime_ns == changed:
            await pause(0.001)
        await pause(delay)
        await process.stop()
        assert golden.stat().st_size == 64 << 20
        killed += golden.read_bytes() != before.read_bytes() != seen.read_bytes() != golden.read_bytes()
        assert state(tmp_path / "anna") in (COMMITTING, SETTLED)
    assert killed
    await daemon.start(f"{LINES}target0 device0 any\n")
    assert "identical" in await good("qemu-img", "compare", "-f", "raw", "-F", "raw", daemon.url(), str(seen))
    await daemon.process.stop()

    # It may have been too quick to be killed.
    for sizes in (("51355648 bytes", "0 bytes"), ("0 bytes",)):
        process = Python("commit.py", "golden", "anna", directory=str(tmp_path))
        await process.ended
        assert process.output.strip() in sizes
        assert golden.read_bytes() == seen.read_bytes()
    assert (tmp_path / "anna").stat().st_blocks * 512 < 1 << 20

    with pytest.raises(AssertionError, match="was begun over another base than"):
        await daemon.start(f"{LINES.replace('anna', 'bert')}target0 device0 any\n")
    await daemon.start(f"{LINES}target0 device0 any\n")
    await io(daemon.url(), "read -P 65 0 48M", "write -P 1 0 64k", "read -P 1 0 64k")
    other = Daemon(tmp_path)
    with pytest.raises(AssertionError, match="are wanted, but"):
        await other.start("extent0 golden 0 size\ntarget0 extent0 any\n")


def state(path: Path) -> int:
    """What is under way, as an overlay's file tells."""
    with path.open("rb") as file:
        return os.pread(file.fileno(), 1, STATE)[0]
