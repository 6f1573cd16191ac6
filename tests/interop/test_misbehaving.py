"""Disks that lie, tear and forget, and private copies of golden images, as real initiators see them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from pytest_twisted import ensureDeferred

from iscsi_twisted.storage import FileExtent
from tests.support.clients import Serve, good, run

SIZE = 16 << 20


async def io(url: str, *commands: str) -> str:
    """What qemu-io says to these commands."""
    words = [word for command in commands for word in ("-c", command)]
    return (await run("qemu-io", "-f", "raw", *words, url)).text


@ensureDeferred
async def test_golden(serve: Serve, tmp_path: Path) -> None:
    """Three targets have a private copy of one image, which stays as it is; two keep it over a restart."""
    golden = os.urandom(SIZE)
    (tmp_path / "golden").write_bytes(golden)
    lines = (
        "extent0 %/golden 0 size\ndevice0 OVERLAY extent0 file=%/anna\ndevice1 OVERLAY extent0 file=%/bert\n"
        "device2 OVERLAY extent0\ntarget0 device0 any\ntarget1 device1 any\ntarget2 device2 any\n"
    )
    served = await serve(lines)
    for number in range(3):
        url = served.url(f"target{number}")
        text = await io(url, f"write -P {number + 1} 1M 1M", "flush", f"read -P {number + 1} 1M 1M")
        assert "failed" not in text
    assert "failed" not in await io(served.url(), "discard 4M 1M", "write -z 8M 64k", "flush")
    taken = [(tmp_path / name).stat().st_blocks * 512 for name in ("anna", "bert")]
    assert max(taken) < 3 << 20
    await served.service.stopService()
    assert (tmp_path / "golden").read_bytes() == golden

    served = await serve(lines)
    copy = tmp_path / "copy"
    for number, filled in ((0, 1), (1, 2), (2, None)):
        await good("qemu-img", "convert", "-f", "raw", served.url(f"target{number}"), "-O", "raw", str(copy))
        found = copy.read_bytes()
        wanted = golden[1 << 20 : 2 << 20] if filled is None else bytes([filled]) * (1 << 20)
        assert found[1 << 20 : 2 << 20] == wanted
        assert found[: 1 << 20] == golden[: 1 << 20]
        if number:
            assert found[2 << 20 :] == golden[2 << 20 :]
        else:
            assert found[8 << 20 : (8 << 20) + 65536] == bytes(65536)


@ensureDeferred
async def test_commit(serve: Serve, tmp_path: Path) -> None:
    """What was written to an overlay is committed to a copy of the image, or taken back."""
    golden = os.urandom(SIZE)
    for name in ("golden", "next"):
        (tmp_path / name).write_bytes(golden)
    served = await serve(
        "extent0 %/golden 0 size\ndevice0 OVERLAY extent0 file=%/anna\ntarget0 device0 any\n"
    )
    overlay: Any = served.service.device("device0")
    assert "failed" not in await io(served.url(), "write -P 9 3M 1M", "flush")
    await overlay.revert()
    copy = tmp_path / "copy"
    await good("qemu-img", "convert", "-f", "raw", served.url(), "-O", "raw", str(copy))
    assert copy.read_bytes() == golden
    assert "failed" not in await io(served.url(), "write -P 9 3M 1M", "flush")
    from twisted.internet import reactor

    follower = FileExtent(str(tmp_path / "next"), reactor=reactor)  # type: ignore[arg-type]
    follower.open(lambda: None)
    await overlay.commit(follower)
    closing: Any = follower.close()
    if closing is not None:
        await closing
    wanted = golden[: 3 << 20] + b"\x09" * (1 << 20) + golden[4 << 20 :]
    assert (tmp_path / "next").read_bytes() == wanted
    assert (tmp_path / "golden").read_bytes() == golden


@ensureDeferred
async def test_seeded(serve: Serve, tmp_path: Path) -> None:
    """Torn writes, bits turned over and writes that are lost come again as they were, with the same seed."""
    outcomes = []
    writes = [f"write -P {number} {number * 64}k 64k" for number in range(1, 33)]
    for attempt in ("first", "second", "other"):
        folder = tmp_path / attempt
        folder.mkdir()
        seed = 7 if attempt != "other" else 8
        served = await serve(
            f"extent0 %/{attempt}/torn 0 16M\nextent1 %/{attempt}/corrupt 0 16M\n"
            f"extent2 %/{attempt}/lost 0 16M\n"
            f"device0 FAULTS extent0 kind=torn probability=0.3 seed={seed}\n"
            f"device1 FAULTS extent1 kind=corrupt on=write probability=0.3 seed={seed}\n"
            f"device2 FAULTS extent2 kind=lost on=write probability=0.3 seed={seed}\n"
            "target0 device0 any\ntarget1 device1 any\ntarget2 device2 any\n"
        )
        failures = (await io(served.url(), *writes)).count("write failed: Input/output error")
        silent = [await io(served.url(f"target{number}"), *writes) for number in (1, 2)]
        assert not any("failed" in text for text in silent)
        read = "read -P 1 64k 64k", *(f"read -P {number} {number * 64}k 64k" for number in range(2, 33))
        wrong = [
            (await io(served.url(f"target{number}"), *read)).count("Pattern verification failed")
            for number in (1, 2)
        ]
        await served.service.stopService()
        files = [folder / name for name in ("torn", "corrupt", "lost")]
        held = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        outcomes.append((failures, wrong, held))
    first, second, other = outcomes
    assert first == second
    assert first[2] != other[2]
    assert 0 < first[0] < 32
    assert all(0 < count < 32 for count in first[1])
