"""A session that behaves well, among thousands of connections and logins that do not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.bench.loads import perf
from tests.bench.servers import OursOf, fill
from tests.support.decoy import Decoy
from tests.support.flood import Process

SILENT = 5000
WRONG = 100
SETTLE = 5.0
"""Seconds in which what a flood has left behind is over: connections that wait, and their timers."""


class Guarded(OursOf):
    """The target of this project, with users."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "")
        self.file.write_text(f"extent0 {self.disk} 0 size\ntarget0 extent0 any\n")
        self.auths = self.folder / "auths"
        self.auths.write_text("joe:chap:correct-horse-battery\n")
        self.auths.chmod(0o600)

    @property
    def url(self) -> str:
        return super().url.replace("//", "//joe%correct-horse-battery@")

    def arguments(self) -> list[str]:
        return [*super().arguments(), "-a", str(self.auths)]


class Kind(NamedTuple):
    """
    What goes on beside the session.

    @ivar flood: which flood; empty for none.
    @ivar decoy: whether it attacks something else, which costs the machine as much and the target nothing.
    """

    title: str
    flood: str = ""
    number: int = 0
    decoy: bool = False


ALONE = Kind("alone")
CONTROL = Kind(f"{WRONG} wrong logins a second, elsewhere", "wrong", WRONG, True)
ATTACK = Kind(f"{WRONG} wrong logins a second", "wrong", WRONG)
KINDS = (ALONE, Kind(f"{SILENT} silent connections", "silent", SILENT), CONTROL, ATTACK)


class Run(NamedTuple):
    """
    What one run gave.

    @ivar rate: reads a second.
    @ivar cpu: microseconds of the target's CPU time for each.
    @ivar done: what the flood did.
    """

    rate: float
    cpu: float
    done: dict[str, int]


@contextmanager
def awake() -> Iterator[None]:
    """
    Keep every processor busy with what gives way to anything else.

    A processor that sleeps for a moment takes long to wake up, in a virtual machine above all: a flood that
    keeps it awake would make all others faster.
    """
    spinning = "import os; os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass"
    spinners = [subprocess.Popen([sys.executable, "-c", spinning]) for _ in os.sched_getaffinity(0)]
    try:
        for spinner, processor in zip(spinners, sorted(os.sched_getaffinity(0)), strict=True):
            os.sched_setaffinity(spinner.pid, {processor})
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


@contextmanager
def apart(pid: int) -> Iterator[str]:
    """
    Keep the target on one processor and all else that this process starts on the others, if there are two.

    Else a flood would take from the target what it takes from the machine, and how much is chance.
    """
    usual = os.sched_getaffinity(0)
    first, *others = sorted(usual)
    if not others:
        yield "one processor for all"
        return
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), {first})
    os.sched_setaffinity(0, others)
    try:
        yield "the target alone on its processor"
    finally:
        os.sched_setaffinity(0, usual)


def flood(folder: Path, seconds: float, rounds: int) -> Iterator[str]:
    """
    Reads a second of a good session, and the target's CPU time for each, alone and in two floods.

    The flood is a process of its own, which shares the processors with the client.  What it costs them is
    measured as well: the same flood attacks another process.
    """
    server = Guarded(folder)
    fill(server.disk, 64 << 20)
    server.start()
    assert server.process is not None
    runs: dict[Kind, list[Run]] = {kind: [] for kind in KINDS}
    try:
        with awake(), apart(server.process.pid) as where:
            yield f"floods: {where}; {server.rss():.1f} MiB before"
            for _ in range(rounds):
                for kind in KINDS:
                    runs[kind].append(_run(server, kind, seconds))
            yield from _figures(runs)
            yield f"a wrong login: {_each(server, seconds):.0f} us of CPU while nothing else goes on"
        yield f"floods: {server.rss():.1f} MiB afterwards"
    finally:
        server.stop()


def _run(server: Guarded, kind: Kind, seconds: float) -> Run:
    """One kind, once."""
    decoy = Decoy() if kind.decoy else None
    port = server.port if decoy is None else decoy.port
    other = Process(port, kind.flood, kind.number, seconds + 1) if kind.flood else None
    try:
        cpu = server.cpu()
        operations, taken = perf(32, 4096, True)(server, seconds)
        used = (server.cpu() - cpu) / operations
        done = other.end() if other is not None else {}
    finally:
        if other is not None:
            other.kill()
        if decoy is not None:
            decoy.stop()
    if kind.flood and not kind.decoy:
        time.sleep(SETTLE)
    return Run(operations / taken, used, done)


def _figures(runs: dict[Kind, list[Run]]) -> Iterator[str]:
    """A line for each kind, and what is the attack's alone."""
    rates = {kind: median(run.rate for run in each) for kind, each in runs.items()}
    costs = {kind: median(run.cpu for run in each) for kind, each in runs.items()}
    for kind, each in runs.items():
        done = ", ".join(f"{count} {what}" for what, count in each[-1].done.items() if what != "cpu")
        took = f", taking {each[-1].done['cpu']} ms of CPU" if kind.flood else ""
        yield (
            f"{kind.title}: {rates[kind]:,.0f} reads a second ({_change(rates[kind], rates[ALONE])}),"
            f" {costs[kind]:.1f} us of CPU each ({_change(costs[kind], costs[ALONE])})"
            + (f"; it did: {done}{took}" if done else "")
        )
    yield f"wrong logins, against the same elsewhere: {_change(rates[ATTACK], rates[CONTROL])}"


def _change(value: float, base: float) -> str:
    return f"{(value / base - 1) * 100:+.1f} %"


def _each(server: Guarded, seconds: float) -> float:
    """Microseconds of the target's CPU time for a wrong login, after the first few."""
    Process(server.port, "wrong", WRONG, 1).end()
    cpu = server.cpu()
    done = Process(server.port, "wrong", WRONG, max(seconds, 5.0)).end()
    time.sleep(1)
    return (server.cpu() - cpu) / done["opened"]
