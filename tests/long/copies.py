"""
Ending C{iscsi-twisted copy} at any moment, by Ctrl-C, SIGTERM or SIGKILL: resumed often enough, it gives an
equal image.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from tests.bench.servers import ROOT, OursOf

SIZE = 96 << 20
AREA = 256 << 10
"""Bytes that are all data, all zeros, or nothing."""

LEAST, MOST = 3, 50
"""Copies that are killed, in a short run and at most."""

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ENOUGH = 20
"""Seconds in which a process has to end after a signal that asks it to."""

COPY = "from iscsi_twisted.cli.tool import main; main()"
TARGETS = """\
extent0 {folder}/thin 0 {size}
extent1 {folder}/other 0 {size}
target0 extent0 extent1 127.0.0.0/8
"""


def draw(path: Path, random: Random) -> None:
    """Fill a file with data, zeros and holes."""
    with open(path, "wb") as file:
        file.truncate(SIZE)
        for place in range(0, SIZE, AREA):
            kind = random.random()
            file.seek(place)
            if kind < 0.6:
                file.write(random.randbytes(AREA))
            elif kind < 0.8:
                file.write(bytes(AREA))


def equal(one: Path, other: Path) -> bool:
    """Whether two files have the same bytes."""
    return one.read_bytes() == other.read_bytes()


class Copying:
    """
    Copies between two ends, one after the other.

    @ivar kills: processes that were ended, by each signal.
    @ivar resumed: copies that did not begin at the beginning.
    """

    def __init__(self, folder: Path, random: Random) -> None:
        self._state, self._random = folder / "state", random
        self.kills = dict.fromkeys(SIGNALS, 0)
        self.resumed = 0

    def copy(self, source: str, sink: str) -> str:
        """
        Copy, killed once at least, and more often or not, until it is through.

        @return: what went wrong.
        """
        command = [
            sys.executable, "-c", COPY, "--json", "copy", "--quiet", "--resume", "--checkpoint", "0",
            "--state", str(self._state), source, sink,
        ]  # fmt: skip
        before = sum(self.kills.values())
        for attempt in range(30):
            kill = attempt < 8 and self._random.random() < 0.8
            by = self._random.choice(SIGNALS) if kill else None
            said, status = self._run(command, by)
            # Before anybody listens a signal ends it at once, or Python tells of it in its own way.
            early = by is signal.SIGINT and said.rstrip().endswith("KeyboardInterrupt")
            if status and not early and (by is None or status not in (-by, 128 + by)):
                return f"it ended with {status} after {by}: {said.strip()}"
            if status and not self._sensible():
                return f"after {by} the state was {self._state.read_bytes()!r}"
            if not status:
                self.resumed += '"resumed": 0' not in said
                if self._state.exists():
                    return "the state was not removed"
                if sum(self.kills.values()) > before:
                    return ""
        return "it could not be killed"

    def _sensible(self) -> bool:
        """Whether the state, if there is any, says how far the copy has come."""
        try:
            told = json.loads(self._state.read_bytes())
        except FileNotFoundError:
            return True
        except ValueError:
            return False
        return 0 <= told["done"] <= told["bytes"] == SIZE

    def _run(self, command: list[str], by: signal.Signals | None) -> tuple[str, int]:
        """Run it, and end it while it starts, or shortly after its state was there."""
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if by is not None:
            late = self._random.random() < 0.8
            deadline = time.monotonic() + (5 if late else self._random.uniform(0.2, 0.8))
            stamp = self._stamp()
            while process.poll() is None and time.monotonic() < deadline:
                if late and self._stamp() != stamp:
                    time.sleep(self._random.uniform(0, 0.15))
                    break
                time.sleep(0.002)
            if process.poll() is None:
                process.send_signal(by)
                self.kills[by] += 1
        try:
            return process.communicate(timeout=None if by is None else ENOUGH)[0], process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            return f"it went on for {ENOUGH} seconds; " + process.communicate()[0], 1

    def _stamp(self) -> int:
        """Another one whenever the state was written."""
        try:
            return self._state.stat().st_ino
        except FileNotFoundError:
            return 0


def copies(seconds: float, seed: int) -> tuple[list[str], list[str]]:
    """
    Copy, kill and resume for so long: a unit to a file, a file to a unit, a unit to a unit.

    @return: what was done, and what went wrong.
    """
    random, done = Random(seed), 0
    deadline = time.monotonic() + seconds
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, back = folder / "image", folder / "back"
        disks = (folder / "thin", folder / "other")
        for disk in disks:
            draw(disk, random)
        server = OursOf(folder, TARGETS.format(folder=folder, size=SIZE))
        server.start()
        urls = [f"iscsi://127.0.0.1:{server.port}/{server.iqn}/{lun}" for lun in (0, 1)]
        ways = (
            (urls[0], str(back), disks[0], back),
            (str(image), urls[0], image, disks[0]),
            (urls[0], urls[1], *disks),
        )
        copying = Copying(folder, random)
        try:
            while done < LEAST or (done < MOST and time.monotonic() < deadline):
                source, sink, origin, copied = ways[done % len(ways)]
                draw(image, random)
                fault = copying.copy(source, sink)
                done += 1
                if fault or not equal(origin, copied):
                    faults.append(f"copy {done} from {source} to {sink}: {fault or 'it is not equal'}")
                    break
        finally:
            server.stop()
    if not any(copying.kills.values()):
        faults.append("none was killed")
    kills = ", ".join(f"{number} by {by.name}" for by, number in copying.kills.items())
    told = f"{done} copies, ended {kills}; {copying.resumed} of them went on in the middle"
    return [told], faults
