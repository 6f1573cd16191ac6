"""
Ending C{iscsi-twisted} at any moment by Ctrl-C or SIGTERM: whatever it is at, the target sees it log out of
each session that it has logged in to.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from tests.bench.servers import ROOT, OursOf, fill

SIZE = 256 << 20
SIGNALS = (signal.SIGINT, signal.SIGTERM)
LEAST = 8
"""Commands of a short run: one of each kind."""

ENOUGH = 20.0
"""Seconds in which a process has to end after a signal, and the target has to tell of that."""

TOOL = (sys.executable, "-c", "from iscsi_twisted.cli.tool import main; main()")
COMMANDS = (
    "ls PORTAL",
    "read URL0",
    "write URL0",
    "copy --quiet URL0 OUT",
    "copy --quiet IMAGE URL0",
    "copy --quiet --verify URL0 URL1",
    "bench --seconds 30 URL0 URL1",
    "bench --seconds 30 --destroy --writes 50 --size 64K URL0",
)
TARGETS = """\
extent0 {folder}/one 0 {size}
extent1 {folder}/other 0 {size}
target0 extent0 extent1 127.0.0.0/8
"""


class Logged(OursOf):
    """A target whose log tells who has come and gone."""

    def events(self) -> Counter[str]:
        """How many logins and logouts there were, and lost connections."""
        told = (self.folder / "log").read_text("utf-8", "replace")
        return Counter(re.findall(r'"event": "(\w+)"', told))


def interrupt(server: Logged, command: list[str], image: Path, by: signal.Signals, random: Random) -> str:
    """
    Run a command, and end it: while it starts, or once it has logged in.

    @param image: what it may read from its standard input, as much as a unit takes.
    @return: what went wrong.
    """
    before = server.events()
    with open(image, "rb") as content:
        process = subprocess.Popen(
            [*TOOL, *command],
            cwd=ROOT,
            stdin=content,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
    if random.random() < 0.3:
        time.sleep(random.uniform(0, 1))
    else:
        while process.poll() is None and server.events()["login"] == before["login"]:
            time.sleep(0.002)
        time.sleep(random.choice((0, 0, random.uniform(0, 0.02), random.uniform(0, 1))))
    process.send_signal(by)
    try:
        said = process.communicate(timeout=ENOUGH)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        return f"it went on for {ENOUGH:g} seconds; {process.communicate()[1]}"
    if process.returncode not in (0, -by, 128 + by) or "iscsi_twisted/" in said:
        return f"it ended with {process.returncode}: {said.strip()}"
    deadline = time.monotonic() + ENOUGH
    while True:
        came = server.events() - before
        if came["login"] == came["logout"] and len(came) <= 2:
            return ""
        if time.monotonic() > deadline or set(came) - {"login", "logout"}:
            return f"it ended with {process.returncode}, and the target saw {dict(came)}"
        time.sleep(0.01)


def interrupts(seconds: float, seed: int) -> tuple[list[str], list[str]]:
    """
    Interrupt commands for so long.

    @return: what was done, and what went wrong.
    """
    random, done = Random(seed), 0
    deadline = time.monotonic() + seconds
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for disk in ("one", "other", "image"):
            fill(folder / disk, SIZE)
        server = Logged(folder, TARGETS.format(folder=folder, size=SIZE))
        server.start()
        portal = f"iscsi://127.0.0.1:{server.port}"
        words = {"PORTAL": portal, "OUT": str(folder / "out"), "IMAGE": str(folder / "image")}
        words |= {f"URL{lun}": f"{portal}/{server.iqn}/{lun}" for lun in (0, 1)}
        try:
            while done < LEAST or time.monotonic() < deadline:
                line, by = COMMANDS[done % len(COMMANDS)], random.choice(SIGNALS)
                command = [words.get(word, word) for word in line.split()]
                fault = interrupt(server, command, folder / "image", by, random)
                done += 1
                if fault:
                    faults.append(f"{line} after {by.name}: {fault}")
                    break
            sessions = server.events()["login"]
        finally:
            server.stop()
    if not sessions:
        faults.append("none had logged in")
    return [
        f"{done} commands were interrupted; they had logged in {sessions} times, and out as often"
    ], faults
