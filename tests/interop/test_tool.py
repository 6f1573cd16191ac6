"""The command-line tool as a command, beside qemu's."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iscsi_twisted.cli.options import parser
from tests.bench.servers import ROOT, Istgt, Ours, OursOf, Server, Tgt, fill
from tests.support.manual import commands

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


COMMANDS = {
    "ls": "PORTAL", "inq": "URL", "capacity": "URL", "ping": "-c 2 URL", "reset": "URL", "write": "URL",
    "read": "--length 4K URL", "copy": "URL FILE", "bench": "--count 20 URL",
}  # fmt: skip


def test_json(tmp_path: Path) -> None:
    """
    Every command prints one JSON value on one of the standard streams and nothing on the other, whether it
    succeeds or fails; and in words without --json.
    """
    assert set(COMMANDS) == set(commands(parser()))
    server = Ours(tmp_path)
    server.disk.write_bytes(bytes(1 << 20))
    server.start()
    portal, nowhere = server.url.partition("/iqn")[0], server.url.replace(":target0", ":target9")
    try:
        for command, arguments in COMMANDS.items():
            words = arguments.replace("FILE", f"{tmp_path}/copy")
            right = words.replace("PORTAL", portal).replace("URL", server.url).split()
            wrong = words.replace("PORTAL", "iscsi://127.0.0.1:1").replace("URL", nowhere).split()
            done = tool(command, "--json", *right)
            # What read prints is the data.
            answer, other = (done.stderr, done.stdout) if command == "read" else (done.stdout, done.stderr)
            assert isinstance(json.loads(answer), list if command == "ls" else dict), done
            assert (done.returncode, len(other)) == (0, 4096 if command == "read" else 0), done
            done = tool(command, "--json", *wrong)
            assert (done.returncode, done.stdout) == (1, ""), done
            assert list(json.loads(done.stderr)) == ["error"]
            done = tool(command, *wrong)
            assert (done.returncode, done.stdout) == (1, ""), done
            assert done.stderr.startswith("iscsi-twisted: ")
            assert len(done.stderr.splitlines()) == 1
            # One that prints, one that prints data, and one that is silent.
            for output in ("/dev/full", "&-", "PIPE") if command in ("inq", "read", "write") else ():
                failsToTell(command, right, output)
    finally:
        server.stop()


def failsToTell(command: str, arguments: list[str], output: str) -> None:
    """A command whose output goes nowhere says so, in one line, and fails; but for write, which has none."""
    line = shlex.join([sys.executable, "-c", MAIN, command, *arguments])
    # The pipe is broken long before anything is written to it.
    where = "| true; exit ${PIPESTATUS[0]}" if output == "PIPE" else f">{output}"
    done = subprocess.run(
        ["bash", "-c", f"{line} {where}"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if command == "write":
        assert (done.returncode, done.stderr) == (0, ""), done
    else:
        assert (done.returncode, done.stdout) == (1, ""), done
        assert done.stderr.startswith("iscsi-twisted: standard output"), done
        assert len(done.stderr.splitlines()) == 1, done


def test_terminal(tmp_path: Path) -> None:
    """A terminal shows how far a copy has come, a pipe does not; what fails is told on a line of its own."""
    server = OursOf(
        tmp_path,
        f"extent0 {tmp_path}/disk 0 24MB\ndevice0 RATE extent0 bytes=8MB\n"
        f"device1 FAULTS device0 kind=error on=write start=20MB length=4MB\ntarget0 device1 127.0.0.0/8\n",
    )
    image = tmp_path / "image"
    fill(image, 24 << 20)
    server.start()
    try:
        shown = onTerminal("copy", str(image), server.url)
        quiet = onTerminal("copy", "--quiet", str(image), server.url)
        piped = tool("copy", str(image), server.url)
    finally:
        server.stop()
    *bars, told, rest = shown.replace("\r\n", "\n").replace("\n", "\r").split("\r")
    assert bars.pop(0) == rest == ""
    assert len(bars) > 2
    form = r"\[#* *\] +([0-9.]+) %  [0-9]+ MB/s  [0-9:-]+ left\x1b\[K"
    shares = [float(found[1]) for bar in bars if (found := re.fullmatch(form, bar))]
    assert len(shares) == len(bars), bars
    assert shares == sorted(shares)
    for text in (told, quiet.strip(), piped.stderr.strip()):
        assert re.fullmatch(r"iscsi-twisted: .*MEDIUM ERROR, WRITE ERROR \(sense 3h 0Ch/00h\)", text), text


def onTerminal(*arguments: str) -> str:
    """What a terminal shows of a command."""
    near, far = os.openpty()
    try:
        subprocess.run(
            [sys.executable, "-c", MAIN, *arguments],
            cwd=ROOT,
            stderr=far,
            stdout=far,
            timeout=60,
            check=False,
        )
        return os.read(near, 1 << 16).decode()
    finally:
        os.close(near)
        os.close(far)
