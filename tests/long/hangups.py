"""
A storm of SIGHUPs while floods go on: files that are rewritten, emptied, unreadable, broken in the middle.

Whoever may stay reads back what it writes all the time, nobody gets in who may not, memory and descriptors
end as they were; and SIGTERM in the middle of another such storm ends the process as it should.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.bench.servers import OursOf
from tests.long.flood import settled
from tests.support.flood import Process
from tests.support.processes import TWISTD
from tests.support.rawclient import Closed, RawClient

SIGNALS = 200
"""In one storm, one for each change of the files."""

SILENT, WRONG = 2000, 50
GROWTH = 24.0
"""MiB that all storms may leave behind."""

ENOUGH = 20.0
"""Seconds in which a process has to have read its files, or to end."""

BLOCKS = 8
SIZE = 16 << 20
BASE = "iqn.1994-04.org.netbsd.iscsi-target"

JOE, AMY = "correct-horse-battery", "staple-correct-horse"
USERS = f"joe:chap:{JOE}\n"
STAYS = "extent0 {folder}/disk 0 16MB\ntarget0 extent0 any users=joe\n"
"""What is served all the time, to one who is admitted all the time."""


def chap(client: RawClient, target: str, user: str, secret: str, initiator: str) -> int:
    """Log in with CHAP (RFC 7143 12.1.3, MD5); the status of the last Login Response."""
    names = [("InitiatorName", initiator), ("TargetName", f"{BASE}:{target}"), ("AuthMethod", "CHAP")]
    for pairs, flags in ((names, 0x81), ([("CHAP_A", "5")], 0x81)):
        answer = client.loginPDU(pairs, flags)
        if answer.header[36]:
            return int.from_bytes(answer.header[36:38], "big")
    said = answer.text
    challenge = bytes.fromhex(said["CHAP_C"][2:])
    proof = hashlib.md5(bytes((int(said["CHAP_I"]),)) + secret.encode() + challenge).hexdigest()
    for pairs, flags in (([("CHAP_N", user), ("CHAP_R", f"0x{proof}")], 0x81), ([], 0x87)):
        answer = client.loginPDU(pairs, flags)
        if answer.header[36]:
            break
    return int.from_bytes(answer.header[36:38], "big")


class Stayer:
    """
    One who may stay: writes blocks and reads them back, until it is told to end.

    @ivar done: how many pairs of a write and a read.
    @ivar faults: what went wrong.
    """

    def __init__(self, port: int, seed: int) -> None:
        self.done = 0
        self.faults: list[str] = []
        self._random = random.Random(seed)
        self._client = RawClient(("127.0.0.1", port), ENOUGH)
        status = chap(self._client, "target0", "joe", JOE, "iqn.2001-04.com.example:stayer")
        if status:
            self.faults.append(f"who may log in is refused with {status:04x}h")
        self._over = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            # Unit attentions of a nexus that is new.
            while self._client.command(bytes(6)).status:
                pass
            while not self._over and not self.faults:
                self._pair()
                time.sleep(0.001)
        except (OSError, Closed, AssertionError) as error:
            if not self._over:
                self.faults.append(f"after {self.done} writes: {error!r}")

    def _pair(self) -> None:
        place = self._random.randrange(SIZE // 512 // BLOCKS) * BLOCKS
        data = self._random.randbytes(BLOCKS * 512)
        middle = bytes(1) + place.to_bytes(4, "big") + bytes(1) + BLOCKS.to_bytes(2, "big") + bytes(1)
        written = self._client.command(b"\x2a" + middle, write=data)
        read = self._client.command(b"\x28" + middle, read=len(data))
        if written.status or read.status:
            self.faults.append(
                f"status {written.status:02x}h, {read.status:02x}h; sense {written.sense.hex()}"
            )
        elif read.data != data:
            self.faults.append(f"block {place} is not what was written")
        else:
            self.done += 1

    def end(self) -> None:
        """Stop, wherever it is."""
        self._over = True
        self._thread.join()
        self._client.close()


class Stranger:
    """
    One who may not come in, and tries again and again: with a secret or a target that is not his, or none.

    He comes from another address each time, so that he never has to wait.

    @ivar tried: how often.
    @ivar refused: how often he was told that he may not.
    @ivar faults: when it worked.
    """

    WAYS = (
        ("target0", "joe", "wrong-horse-battery"),
        ("target0", "joe", AMY),
        ("target0", "amy", AMY),
        ("target0", "nobody", JOE),
        ("target0", "joe", ""),
    )

    def __init__(self, port: int, seed: int) -> None:
        self._random = random.Random(seed)
        self.tried = self.refused = 0
        self.faults: list[str] = []
        self._port, self._over = port, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            way = self.WAYS[self.tried % len(self.WAYS)]
            self.tried += 1
            try:
                here = ".".join(map(str, (127, *self._random.randbytes(2), self._random.randrange(2, 255))))
                other = socket.create_connection(("127.0.0.1", self._port), ENOUGH, (here, 0))
                with RawClient(other) as client:
                    self._try(client, *way)
            except (OSError, Closed):
                pass
            self._over.wait(0.02)

    def _try(self, client: RawClient, target: str, user: str, secret: str) -> None:
        initiator = "iqn.2001-04.com.example:stranger"
        if secret:
            status = chap(client, target, user, secret, initiator)
        else:
            status = int.from_bytes(
                client.login(f"{BASE}:{target}", initiator=initiator).header[36:38], "big"
            )
        self.refused += status > 0
        if not status:
            self.faults.append(f"{user!r} was let in to {target} with {secret or 'no secret'!r}")

    def end(self) -> None:
        """Stop when the attempt that is under way has ended."""
        self._over.set()
        self._thread.join()


class Stormy(OursOf):
    """A real twistd whose files change."""

    command = [sys.executable, *TWISTD, "-n", "--pidfile=", "iscsi"]
    grace = ENOUGH

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder, STAYS.format(folder=folder / self.name))
        self.auths = self.folder / "auths"
        self.random = random.Random(seed)
        self.disk.write_bytes(bytes(SIZE))
        self._write(self.auths, USERS.encode())

    def arguments(self) -> list[str]:
        return [*super().arguments(), "-a", str(self.auths), "--max-half-open", "500"]

    def _write(self, path: Path, content: bytes) -> None:
        """Write a file as an editor may: it is empty for a moment, or another in its place."""
        with suppress(OSError):
            path.rmdir()
        if path.is_symlink():
            path.unlink()
        if self.random.random() < 0.5:
            path.write_bytes(content)
        else:
            other = path.with_suffix(".new")
            other.write_bytes(content)
            other.chmod(0o600)
            other.replace(path)
        path.chmod(0o600)

    def valid(self) -> None:
        """Files that make sense, each time others."""
        lines = [STAYS.format(folder=self.folder)]
        for number in range(1, self.random.randrange(1, 6)):
            lines.append(f"extent{number} {self.folder}/more{number} 0 1MB\n")
            lines.append(f"target{number} extent{number} 127/8 users=amy alias=a{self.random.randrange(9)}\n")
        users = USERS + f"amy:chap:{AMY}\n"
        self._write(self.file, "".join(lines).encode())
        self._write(self.auths, users.encode())

    def spoil(self) -> None:
        """A file that makes none, or none at all."""
        path = self.random.choice((self.file, self.auths))
        content = path.read_bytes() if path.is_file() else b""
        cut = self.random.randrange(len(content) + 1)
        garbage = self.random.randbytes(20)
        way: Callable[[], object] = self.random.choice(
            (
                lambda: self._write(path, b""),
                lambda: self._write(path, content[:cut] + garbage + content[cut:]),
                lambda: self._write(path, content + b"target9 extent99 any\njoe\n"),
                lambda: self._write(path, b"#" * (1 << 16) + b"\0"),
                lambda: (path.unlink(missing_ok=True), path.mkdir()),
                lambda: (path.unlink(missing_ok=True), path.symlink_to("nowhere")),
            )
        )
        if not path.is_dir() and not path.is_symlink():
            way()

    def hangUp(self) -> None:
        """Ask it to read its files."""
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def told(self) -> str:
        """All that it has logged."""
        return (self.folder / "log").read_text("utf-8", "replace")

    def storm(self, signals: int) -> None:
        """Change the files and ask that they be read, in quick succession."""
        for _ in range(signals):
            self.random.choice((self.valid, self.spoil))()
            self.hangUp()
            time.sleep(self.random.choice((0, 0, 0.002, 0.02)))

    def calm(self) -> str:
        """Good files again; what is wrong if they are not taken over."""
        self.valid()
        last = f"extent7 {self.folder}/last 0 1MB\ntarget7 extent7 any users=amy\n"
        self._write(self.file, (STAYS.format(folder=self.folder) + last).encode())
        before = len(self.told())
        self.hangUp()
        deadline = time.monotonic() + ENOUGH
        while time.monotonic() < deadline:
            if f"{BASE}:target7" in self.told()[before:]:
                return ""
            time.sleep(0.05)
        return f"good files are not taken over: {self.told()[-500:]}"


def hangups(seconds: float, seed: int) -> tuple[list[str], list[str]]:
    """
    Storms for so long, then one that is cut off.

    @return: what was done, and what was wrong.
    """
    with tempfile.TemporaryDirectory(prefix="hangups") as name:
        server = Stormy(Path(name), seed)
        server.start()
        try:
            return _storms(server, time.monotonic() + seconds, seed)
        finally:
            server.stop()


def _storms(server: Stormy, end: float, seed: int) -> tuple[list[str], list[str]]:
    faults: list[str] = []
    brief = end - time.monotonic() < ENOUGH
    before, open = server.rss(), 0
    if not brief:
        # The first one brings what is only made when it is needed.
        _storm(server, brief, seed, faults)
        before, open = settled(server)
    done, storms = "", 0
    while not storms or (time.monotonic() < end and not faults):
        storms += 1
        done = _storm(server, brief, seed + storms, faults)
    after, left = (server.rss(), 0) if brief else settled(server)
    if left > open:
        faults.append(f"{left - open} descriptors are left open")
    if after - before > GROWTH:
        faults.append(f"memory grew from {before:.1f} to {after:.1f} MiB")
    told = Counter(re.findall("reloaded: |nothing was changed", server.told()))
    if len(told) < 2:
        faults.append(f"the files were read with always the same outcome: {dict(told)}")
    lines = [
        f"{storms} storms, {dict(told)}; the last: {done}",
        f"memory: {before:.1f} MiB before, {after:.1f} afterwards",
    ]
    return [*lines, _cut(server, seed, faults)], faults


def _storm(server: Stormy, brief: bool, seed: int, faults: list[str]) -> str:
    """One storm among floods; what was done."""
    signals, silent = (SIGNALS // 4, SILENT // 10) if brief else (SIGNALS, SILENT)
    stayer, stranger = Stayer(server.port, seed), Stranger(server.port, seed)
    floods: list[Process] = []
    try:
        for kind, number in (("silent", silent), ("wrong", WRONG)):
            floods.append(Process(server.port, kind, number, 60))
        server.storm(signals)
        wrong = server.calm()
        faults += [wrong] if wrong else []
    finally:
        for each in floods:
            each.kill()
        stranger.end()
        stayer.end()
    faults += stayer.faults + stranger.faults + _surprises(server)
    if not stranger.refused or not stayer.done:
        faults.append("nobody was refused, or nobody could stay")
    return f"{signals} signals, {stayer.done} writes read back, {stranger.refused} strangers refused"


def _surprises(server: Stormy) -> list[str]:
    return ["the log tells of a surprise"] if "Traceback" in server.told() else []


def _cut(server: Stormy, seed: int, faults: list[str]) -> str:
    """SIGTERM in the middle of a storm."""
    stayer = Stayer(server.port, seed)
    process = server.process
    assert process is not None
    server.storm(20)
    process.terminate()
    began = time.monotonic()
    with suppress(ProcessLookupError, OSError):
        while process.poll() is None and time.monotonic() < began + ENOUGH:
            server.spoil()
            os.kill(process.pid, signal.SIGHUP)
            time.sleep(0.01)
    try:
        status = process.wait(ENOUGH)
    except subprocess.TimeoutExpired:
        status = 0
        faults.append(f"it has not ended {ENOUGH:g} seconds after SIGTERM")
    stayer.end()
    if status not in (0, -signal.SIGTERM):
        faults.append(f"SIGTERM in a storm ended it with {status}: {server.told()[-500:]}")
    faults += _surprises(server)
    return f"SIGTERM in a storm ended it with {status} in {time.monotonic() - began:.1f} s"
