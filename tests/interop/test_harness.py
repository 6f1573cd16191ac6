"""The harness as a command, against real processes."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bench.servers import ROOT, Istgt, Ours, OursOf, Server, Tgt, fill
from tests.interop.test_initiator import OTHER, SECRET, ClosedIstgt, ClosedTgt
from tests.interop.test_tool import MAIN as TOOL

MAIN = "from iscsi_twisted.cli.harness import main; main()"

PATIENCE = 60.0


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


@pytest.mark.parametrize("kind", [ClosedTgt, ClosedIstgt], ids=lambda kind: kind.name)
def test_chap(tmp_path: Path, kind: type[Server]) -> None:
    """
    With the user's secret it passes where CHAP is asked for; with a wrong one it is refused, and without one
    it says what to do.
    """
    server = kind(tmp_path)
    fill(server.disk, 16 << 20)
    auths = tmp_path / "auths"
    auths.write_text(f"me:chap:{SECRET.decode()}:it:{OTHER.decode()}\nyou:chap:not-the-secret-1\n")
    auths.chmod(0o600)
    where = ("-h", "127.0.0.1", "-p", str(server.port), "-l", str(server.lun), "-u", "me", "-t", server.iqn)
    server.start()
    try:
        done = harness(*where, "-a", "chap", "--auths", str(auths))
        refused = harness(*where, "-a", "none")
        wrong = harness(*where, "-u", "you", "--auths", str(auths))
    finally:
        server.stop()
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "all tests were completed successfully" in done.stdout
    assert refused.returncode == 1
    assert refused.stderr == (
        "No matching user configuration entry for `me' was found\n"
        "Please add an entry for `me' to `/etc/iscsi/auths'\n"
    )
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("the login was refused")


@contextmanager
def begun(folder: Path) -> Iterator[tuple[Ours, bytes, subprocess.Popen[str], str]]:
    """A target, what was on its disk, a harness that has changed that, and what that has said."""
    server = Ours(folder)
    fill(server.disk, 16 << 20)
    before = server.disk.read_bytes()
    server.start()
    run = subprocess.Popen(
        [sys.executable, "-c", MAIN, "-h", "127.0.0.1", "-p", str(server.port), "-t", server.iqn],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert run.stdout is not None
        said = ""
        while "integrity" not in said:
            line = run.stdout.readline()
            assert line, said
            said += line
        yield server, before, run, said
    finally:
        run.kill()
        run.wait()
        server.stop()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    """Whoever interrupts it finds the disk as it was."""
    with begun(tmp_path) as (server, before, run, _):
        assert server.disk.read_bytes() != before
        run.send_signal(number)
        said, error = run.communicate(timeout=PATIENCE)
    assert (run.returncode, error) == (128 + number, f"interrupted by {number.name}\n")
    assert "what was on the disk is there again" in said
    assert server.disk.read_bytes() == before


def test_killed(tmp_path: Path) -> None:
    """When its target is gone, it says where to find what was on the disk."""
    with begun(tmp_path) as (server, before, run, _):
        server.kill()
        said, error = run.communicate(timeout=PATIENCE)
    assert run.returncode == 1
    assert "connection" in error
    found = re.search(r"not there again \(.*\): (\S+) has it", said)
    assert found, said
    giveBack(server, Path(found[1]), before)


def test_killedItself(tmp_path: Path) -> None:
    """When it is ended by force, the file that it has named has what was on the disk."""
    with begun(tmp_path) as (server, before, run, said):
        run.kill()
        run.communicate(timeout=PATIENCE)
    found = re.search(r"kept in (\S+) as well", said)
    assert found, said
    giveBack(server, Path(found[1]), before)


def giveBack(server: Server, kept: Path, before: bytes) -> None:
    """With what was kept, the manual's commands have the disk as it was."""
    server.start()
    try:
        write = shlex.join([sys.executable, "-c", TOOL, "write"])
        line = (
            f"head -c 8388608 {kept} | {write} {server.url} &&"
            f" tail -c +8388609 {kept} | {write} --offset {len(before) - 512} {server.url}"
        )
        subprocess.run(line, shell=True, check=True, cwd=ROOT, timeout=PATIENCE)
    finally:
        server.stop()
    assert server.disk.read_bytes() == before
    kept.unlink()


def test_wrong(tmp_path: Path) -> None:
    """A disk that gives other bytes than were written fails the integrity test, which names the first."""
    lines = "extent0 {0} 0 size\ndevice0 FAULTS extent0 kind=corrupt on=read start=64K length=64K\n"
    disk = tmp_path / "disk"
    fill(disk, 16 << 20)
    before = disk.read_bytes()
    server = OursOf(tmp_path, lines.format(disk) + "target0 device0 127.0.0.0/8\n")
    server.start()
    try:
        done = harness("-h", "127.0.0.1", "-p", str(server.port), "--destructive")
    finally:
        server.stop()
    assert done.returncode == 1
    found = re.fullmatch(r"the integrity test: byte (\d+) is 0x.., where 0x.. was written\n", done.stderr)
    assert found and int(found[1]) < 256 << 10, done
    assert "completed successfully" not in done.stdout
    assert disk.read_bytes()[8 << 20 : -512] == before[8 << 20 : -512]


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
