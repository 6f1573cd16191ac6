"""
Floods of a target, from a process of their own: C{python -m tests.support.flood PORT KIND NUMBER SECONDS}.

C{silent}: NUMBER connections that never log in; those that the target ends are opened anew some time after.

C{wrong}: NUMBER logins a second begin, with a secret that is wrong.

Prints C{ready} when all is under way, and at the end what it did, as JSON: also the milliseconds of CPU time
that it took.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from iscsi_twisted.wire import numbers
from tests.support import pdus

ROOT = Path(__file__).resolve().parents[2]
TARGET = "iqn.1994-04.org.netbsd.iscsi-target:target0"
NAME = "iqn.2001-04.com.example:flood"
AGAIN = 30
"""Seconds after which a connection that was ended is opened anew, as an initiator may do."""
AT_ONCE = 200
"""Connections that are being opened at a time: no more than what a listening socket queues."""


class Flood:
    """
    What the two kinds have in common.

    @ivar done: how often what happened.
    """

    def __init__(self, port: int, number: int) -> None:
        self.port, self.number = port, number
        self.done: dict[str, int] = {"opened": 0, "ended": 0, "failed": 0}
        self.before = 0.0
        self.gate = asyncio.Semaphore(AT_ONCE)

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """One more connection."""
        async with self.gate:
            streams = await asyncio.open_connection("127.0.0.1", self.port)
        self.done["opened"] += 1
        return streams

    async def run(self, seconds: float) -> None:
        """Do it for so long."""
        tasks = [asyncio.create_task(each) for each in self.parts(seconds)]
        await self.underway()
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.before = used.ru_utime + used.ru_stime
        print("ready", flush=True)
        await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.done["cpu"] = round(1000 * (used.ru_utime + used.ru_stime - self.before))
        print(json.dumps(self.done), flush=True)

    def parts(self, seconds: float) -> list[Any]:
        """What goes on side by side."""
        raise NotImplementedError

    async def underway(self) -> None:
        """Wait until all is."""


class Silent(Flood):
    """Connections that never log in."""

    def parts(self, seconds: float) -> list[Any]:
        return [self.hold() for _ in range(self.number)]

    async def underway(self) -> None:
        while self.done["opened"] < self.number:
            await asyncio.sleep(0.05)

    async def hold(self) -> None:
        """One place, filled again and again."""
        while True:
            try:
                reader, writer = await self.open()
                try:
                    await reader.read(1)
                    self.done["ended"] += 1
                finally:
                    writer.close()
            except OSError:
                self.done["failed"] += 1
            await asyncio.sleep(AGAIN)


class Wrong(Flood):
    """Logins with wrong secrets."""

    def parts(self, seconds: float) -> list[Any]:
        self.done["refused"] = 0
        return [self.begin()]

    async def begin(self) -> None:
        """Begin so many a second, whether or not the earlier ones have ended."""
        loop, tasks, due = asyncio.get_running_loop(), set(), 0.0
        start = loop.time()
        try:
            while True:
                task = asyncio.create_task(self.attempt())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                due += 1 / self.number
                await asyncio.sleep(max(0.0, start + due - loop.time()))
        finally:
            for task in list(tasks):
                task.cancel()

    async def attempt(self) -> None:
        """One login, as far as the target lets it."""
        writer = None
        try:
            reader, writer = await self.open()
            names = {
                "InitiatorName": "iqn.2001-04.com.example:flood",
                "TargetName": TARGET,
                "AuthMethod": "CHAP",
            }
            for pairs in (names, {"CHAP_A": "7"}, {"CHAP_N": "joe", "CHAP_R": "0x" + "00" * 32}):
                writer.write(pdus.loginRequest(pairs, stage=0, following=1))
                if await self.answer(reader):
                    self.done["refused"] += 1
                    break
        except (OSError, asyncio.IncompleteReadError):
            self.done["ended"] += 1
        finally:
            if writer is not None:
                writer.close()

    async def answer(self, reader: asyncio.StreamReader) -> int:
        """The status of a Login Response."""
        head = await reader.readexactly(48)
        await reader.readexactly(-(-int.from_bytes(head[5:8], "big") // 4) * 4)
        assert head[0] == numbers.LOGIN_RESPONSE
        return int.from_bytes(head[36:38], "big")


class Process:
    """
    A flood, seen from who started it.

    @ivar done: what it did, when it has ended.
    """

    def __init__(self, port: int, kind: str, number: int, seconds: float) -> None:
        command = [sys.executable, "-m", __name__, str(port), kind, str(number), str(seconds)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._output = self._process.stdout
        if self._output.readline() != "ready\n":
            raise AssertionError(f"the flood has not begun: {command}")

    def end(self) -> dict[str, int]:
        """Wait for its end; what it did."""
        with self._output:
            done: dict[str, int] = json.loads(self._output.readline())
        self._process.wait()
        return done

    def kill(self) -> None:
        """End it if it still runs."""
        with suppress(OSError):
            self._process.kill()
        self._process.wait()


def main() -> None:
    """See above."""
    port, kind, number, seconds = sys.argv[1:]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    flood = {"silent": Silent, "wrong": Wrong}[kind]

    async def run() -> None:
        await flood(int(port), int(number)).run(float(seconds))

    asyncio.run(run())


if __name__ == "__main__":
    main()
