"""The command-line tool as a command, beside qemu's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bench.servers import ROOT, Istgt, Ours, OursOf, Server, Tgt, fill

MAIN = "from iscsi_twisted.cli.tool import main; main()"


def tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        [sys.executable, "-c", MAIN, *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def good(*arguments: str) -> str:
    """What it prints when it succeeds."""
    done = tool(*arguments)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


@pytest.mark.parametrize("kind", [Ours, Istgt, Tgt], ids=lambda kind: kind.name)
def test_copy(tmp_path: Path, kind: type[Server]) -> None:
    """An image onto a unit and back; qemu-img finds both equal to what was copied."""
    server = kind(tmp_path)
    fill(server.disk, 16 << 20)
    image, back = tmp_path / "image", tmp_path / "back"
    image.write_bytes(os.urandom(3 << 20) + bytes(5 << 20) + os.urandom(8 << 20))
    server.start()
    try:
        listed = json.loads(good("--json", "ls", f"iscsi://127.0.0.1:{server.port}"))
        assert server.iqn in [target["name"] for target in listed]
        assert json.loads(good("--json", "capacity", server.url))["bytes"] == 16 << 20
        good("copy", "--verify", str(image), server.url)
        compare = ["qemu-img", "compare", "-f", "raw", "-F", "raw", str(image), server.url]
        assert "identical" in subprocess.run(compare, capture_output=True, text=True, check=True).stdout
        good("copy", server.url, str(back))
    finally:
        server.stop()
    assert back.read_bytes() == image.read_bytes()
    done = tool("capacity", server.url)
    assert done.returncode == 1
    assert "refused" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_restarted(tmp_path: Path) -> None:
    """
    A copy whose target is killed and started again does not call durable what may be lost: it fails, and goes
    on from what was.
    """
    disk = tmp_path / "slow"
    fill(disk, 128 << 20)
    # It takes two seconds, wherever it runs.
    server = OursOf(
        tmp_path, f"extent0 {disk} 0 size\ndevice0 RATE extent0 bytes=64MB\ntarget0 device0 127.0.0.0/8\n"
    )
    image, state = tmp_path / "image", tmp_path / "state"
    image.write_bytes(os.urandom(128 << 20))
    server.start()
    arguments = ["copy", "--checkpoint", "0.1", "--state", str(state), str(image), server.url]
    try:
        copying = subprocess.Popen(
            [sys.executable, "-c", MAIN, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        while not state.exists() and copying.poll() is None:
            time.sleep(0.01)
        server.kill()
        assert copying.poll() is None, "the copy was over before the target was killed"
        server.start()
        _, error = copying.communicate(timeout=60)
        assert copying.returncode == 1
        assert "was started anew: what was written before, and not flushed, may be lost" in error
        assert 0 < json.loads(state.read_text())["done"] < 128 << 20
        good(*arguments, "--resume")
    finally:
        server.stop()
    assert not state.exists()
    assert disk.read_bytes() == image.read_bytes()
