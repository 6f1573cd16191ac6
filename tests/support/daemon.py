"""C{twistd iscsi} as a process, to be used by real initiators."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.support.clients import BASE, good
from tests.support.processes import Python, portIn, twistd


class Daemon:
    """C{twistd iscsi} in a directory of its own."""

    process: Python
    port: int

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment: dict[str, str] = {}
        self.process = None  # type: ignore[assignment]

    def write(self, targets: str, users: str | None = None) -> None:
        """Make the files."""
        (self.directory / "targets").write_text(targets)
        if users is not None:
            auths = self.directory / "auths"
            auths.write_text(users)
            auths.chmod(0o600)

    async def start(self, targets: str, users: str | None = None, *more: str) -> None:
        """Serve, with more options."""
        self.write(targets, users)
        auths = ["-a", "auths"] if users is not None else []
        self.process = twistd(
            "-n", "--pidfile=", "iscsi", "-f", "targets", *auths, "--state", "state",
            "-l", "tcp:0:interface=127.0.0.1", *more,
            directory=str(self.directory), environment=self.environment,
        )  # fmt: skip
        self.port = portIn(await self.process.line("listening on"))

    async def reload(self, targets: str, users: str | None = None, *, until: str = "reloaded: ") -> str:
        """Change the files, send SIGHUP, and wait for a line of the log."""
        self.write(targets, users)
        # Only what is logged from now on counts.
        self.process.output = ""
        os.kill(self.process.process.pid, signal.SIGHUP)
        return await self.process.line(until)

    @property
    def portal(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, target: str = "target0", lun: int = 0, user: str = "") -> str:
        """As libiscsi writes it."""
        return f"iscsi://{user}{self.portal}/{BASE}:{target}/{lun}"

    async def capacity(self, target: str) -> str:
        """What READ CAPACITY (16) says, as text."""
        return await good("iscsi-readcapacity16", self.url(target))
