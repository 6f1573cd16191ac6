"""Real processes in tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import ProcessProtocol

ROOT = Path(__file__).resolve().parent.parent.parent

TWISTD = ("-c", "from twisted.scripts.twistd import run; run()")

HELD = 3
"""A descriptor that a process and its descendants hold until they end."""


class Python(ProcessProtocol):
    """
    A Python process.

    @ivar output: what it has written, standard output and error.
    @ivar errors: the standard error alone.
    @ivar exited: fires with its reason when it has exited.
    @ivar ended: fires when its descendants have too.
    @ivar silenced: fires when nobody holds its standard error any more.
    """

    def __init__(self, *arguments: str, directory: str, environment: dict[str, str] | None = None) -> None:
        from twisted.internet import reactor

        self.output = self.errors = ""
        self.exited: Deferred[Any] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self.silenced: Deferred[None] = Deferred()
        self._awaited: list[tuple[str, Deferred[str]]] = []
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        settings = {"PYTHONPATH": path, "HOME": os.path.abspath(directory), "PYTHONUNBUFFERED": "1"}
        descriptors = {0: "w", 1: "r", 2: "r", HELD: "r"}
        self.process = reactor.spawnProcess(  # type: ignore[attr-defined]
            self, sys.executable, [sys.executable, *arguments],
            env={**os.environ, **settings, **(environment or {})}, path=directory, childFDs=descriptors,
        )  # fmt: skip

    def line(self, part: str) -> Deferred[str]:
        """
        Wait for a line.

        @return: fires with the first line of the output that holds this, once it is complete; fails if the
            process exits before.
        """
        waiting: Deferred[str] = Deferred()
        self._awaited.append((part, waiting))
        self._look()
        return waiting

    def _look(self) -> None:
        for part, waiting in list(self._awaited):
            for line in self.output.splitlines(keepends=True):
                if part in line and line.endswith("\n"):
                    self._awaited.remove((part, waiting))
                    waiting.callback(line.rstrip("\n"))
                    break

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Keep what it writes."""
        self.output += data.decode()
        if childFD == 2:
            self.errors += data.decode()
        self._look()

    def childConnectionLost(self, childFD: int) -> None:
        """A descriptor was closed by all who held it."""
        if childFD == 2:
            self.silenced.callback(None)

    def processExited(self, reason: Any) -> None:
        """It has exited."""
        self.exited.callback(reason.value)
        for part, waiting in self._awaited:
            waiting.errback(AssertionError(f"there was no {part!r} in {self.output!r}"))
        self._awaited.clear()

    def processEnded(self, reason: Any) -> None:
        """It has exited, and all who held one of its descriptors."""
        self.ended.callback(None)

    def stop(self) -> Deferred[None]:
        """End it if it still runs; for the end of a test."""
        if self.ended.called:
            return succeed(None)
        if not self.exited.called:
            self.process.signalProcess("KILL")
        return self.ended


def twistd(*arguments: str, directory: str, environment: dict[str, str] | None = None) -> Python:
    """A twistd that runs C{iscsi} or another file or plugin."""
    return Python(*TWISTD, *arguments, directory=directory, environment=environment)


def portIn(line: str) -> int:
    """The number at the end of a line such as C{listening on 127.0.0.1:3260}."""
    return int(line.rstrip("/").rpartition(":")[2])


def read(directory: str, name: str) -> str:
    """A file of a directory."""
    return Path(directory, name).read_text()
