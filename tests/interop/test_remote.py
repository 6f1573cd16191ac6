"""Disks of targets that others wrote, exported again by a real C{twistd iscsi}."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.bench.servers import Istgt, OursOf, Server, Tgt, fill

SIZE = 32 << 20
PATIENCE = 60.0


@attrs.frozen
class Chain:
    """
    A target of ours whose disk is the disk of another one.

    @ivar behind: the other one.
    @ivar ours: the one that clients see.
    """

    behind: Server
    ours: OursOf

    @property
    def content(self) -> bytes:
        """What is in the file behind all."""
        return self.behind.disk.read_bytes()


@pytest.fixture(params=[Tgt, Istgt], ids=lambda kind: kind.name)
def chain(request: Any, tmp_path: Path) -> Iterator[Chain]:
    """Both, started."""
    behind: Server = request.param(tmp_path)
    fill(behind.disk, SIZE)
    behind.start()
    ours = OursOf(tmp_path, f"extent0 {behind.url} 0 size\ntarget0 extent0 127.0.0.0/8\n")
    try:
        ours.start()
        yield Chain(behind, ours)
    finally:
        ours.stop()
        behind.stop()


def good(*arguments: str) -> str:
    """What a command prints, which has to succeed."""
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def image(path: Path) -> str:
    """An image of the whole disk, and where it is."""
    path.write_bytes(os.urandom(SIZE))
    return str(path)


def test_whole(chain: Chain, tmp_path: Path) -> None:
    """An image goes through to the disk behind, and comes back; both by checksum."""
    before, back = tmp_path / "before", tmp_path / "back"
    good("qemu-img", "convert", "-f", "raw", "-O", "raw", chain.ours.url, str(before))
    assert hashlib.sha256(before.read_bytes()).digest() == hashlib.sha256(chain.content).digest()
    new = image(tmp_path / "new")
    good("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", new, chain.ours.url)
    assert hashlib.sha256(chain.content).digest() == hashlib.sha256(Path(new).read_bytes()).digest()
    good("qemu-img", "convert", "-f", "raw", "-O", "raw", chain.ours.url, str(back))
    assert back.read_bytes() == Path(new).read_bytes()


def test_pieces(chain: Chain) -> None:
    """Small and large pieces at odd places, read by the same client and found behind."""
    commands = (
        "write -P 0xa1 0 512", "write -P 0xa2 512 1536", "write -P 0xa3 65024 200704", "write -P 0xa4 8M 4M",
        "write -f -P 0xa5 20M 64k", "flush", "read -P 0xa1 0 512", "read -P 0xa2 512 1536",
        "read -P 0xa3 65024 200704", "read -P 0xa4 8M 4M", "read -P 0xa5 20M 64k",
    )  # fmt: skip
    arguments = [part for command in commands for part in ("-c", command)]
    text = good("qemu-io", "-f", "raw", *arguments, chain.ours.url)
    assert "failed" not in text.lower(), text
    content = chain.content
    assert content[8 << 20 : 12 << 20] == b"\xa4" * (4 << 20)
    assert content[512:2048] == b"\xa2" * 1536
    assert content[20 << 20 : (20 << 20) + 65536] == b"\xa5" * 65536


@pytest.mark.parametrize("writes", [True, False], ids=["writes", "reads"])
def test_restarted(chain: Chain, writes: bool) -> None:
    """The target behind is killed and started again under I/O: a client of ours sees no error."""
    step = 65536
    arguments = ["qemu-img", "bench", "-f", "raw", "-s", str(step), "-d", "16", "-c", "12000"]
    arguments += ["-w", "--pattern", "0x5a"] if writes else []
    load = subprocess.Popen([*arguments, chain.ours.url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        underWay(chain, load, writes)
        chain.behind.kill()
        assert load.poll() is None, "the load was over before the target was killed"
        chain.behind.start()
        said, _ = load.communicate(timeout=PATIENCE)
    finally:
        load.kill()
        load.wait()
    assert load.returncode == 0, said
    log = (chain.ours.folder / "log").read_text()
    assert "lost" in log, log
    if writes:
        assert chain.content == b"\x5a" * SIZE
    back = chain.behind.folder / "back"
    good("qemu-img", "convert", "-f", "raw", "-O", "raw", chain.ours.url, str(back))
    assert back.read_bytes() == chain.content


def underWay(chain: Chain, load: subprocess.Popen[bytes], writes: bool) -> None:
    """Wait until something of it has arrived behind."""
    before = chain.behind.cpu()
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and load.poll() is None:
        if writes:
            with chain.behind.disk.open("rb") as file:
                if file.read(512) == b"\x5a" * 512:
                    return
        elif chain.behind.cpu() > before + 50_000:
            return
    raise AssertionError("nothing arrives behind")
