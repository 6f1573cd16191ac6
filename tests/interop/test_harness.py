"""The harness as a command, against real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.servers import ROOT, Istgt, Ours, Server, Tgt, fill
from tests.interop.test_initiator import SECRET, ClosedTgt

MAIN = "from iscsi_twisted.cli.harness import main; main()"


def harness(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        [sys.executable, "-c", MAIN, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("kind", [Ours, Istgt, Tgt], ids=lambda kind: kind.name)
def test_passes(tmp_path: Path, kind: type[Server]) -> None:
    """As the FAQ tells to invoke it, it runs all tests, and leaves the disk as it was."""
    server = kind(tmp_path)
    fill(server.disk, 16 << 20)
    before = server.disk.read_bytes()
    server.start()
    try:
        done = harness(
            "-n",
            "3",
            "-h",
            "localhost",
            "-4",
            "-p",
            str(server.port),
            "-t",
            server.iqn,
            "-l",
            str(server.lun),
        )
    finally:
        server.stop()
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout.count("##END DEVICE-SPECIFIC TESTS") == 3
    assert "all tests were completed successfully" in done.stdout
    assert server.disk.read_bytes() == before


def test_chap(tmp_path: Path) -> None:
    """With the user's secret it passes where CHAP is asked for; without, it says what to do."""
    server = ClosedTgt(tmp_path)
    fill(server.disk, 16 << 20)
    auths = tmp_path / "auths"
    auths.write_text(f"me:chap:{SECRET.decode()}\n")
    auths.chmod(0o600)
    where = ("-h", "127.0.0.1", "-p", str(server.port), "-l", str(server.lun), "-u", "me", "-t", server.iqn)
    server.start()
    try:
        done = harness(*where, "-a", "chap", "--auths", str(auths))
        refused = harness(*where, "-a", "none")
    finally:
        server.stop()
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "all tests were completed successfully" in done.stdout
    assert refused.returncode == 1
    assert "Please add an entry for `me'" in refused.stderr


def test_nobody(tmp_path: Path) -> None:
    """Nobody there, or nobody to authenticate as: a message, and status 1."""
    done = harness("-h", "127.0.0.1", "-p", "1")
    assert done.returncode == 1
    assert "refused" in done.stderr
    auths = tmp_path / "auths"
    auths.write_text("")
    os.chmod(auths, 0o600)
    done = harness("-h", "127.0.0.1", "-p", "1", "-u", "agc", "-a", "chap", "--auths", str(auths))
    assert done.returncode == 1
    assert done.stderr == (
        "No matching user configuration entry for `agc' was found\n"
        f"Please add an entry for `agc' to `{auths}'\n"
    )
