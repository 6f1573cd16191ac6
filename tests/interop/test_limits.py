"""A daemon at its limits: what is too much is refused, and what there is goes on."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.task import deferLater

from tests.bench.servers import ticks
from tests.support.clients import BASE, good, run, watch
from tests.support.processes import Python, portIn

FEW = 60
LIMITED = (
    f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({FEW}, {FEW}));"
    " from twisted.scripts.twistd import run; run()"
)
BUSY = "iqn.2001-04.com.example:busy"


class Daemon:
    """C{twistd iscsi} with few file descriptors."""

    process: Python | None = None
    port: int

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    async def start(self, *options: str) -> None:
        """Serve a small disk."""
        self.process = Python(
            "-c", LIMITED, "-n", "--pidfile=", "iscsi", "--disk", "d:16MB", "--state", "state",
            "-l", "tcp:0:interface=127.0.0.1", *options, directory=str(self.directory),
        )  # fmt: skip
        self.port = portIn(await self.process.line("listening on"))

    @property
    def pid(self) -> int:
        assert self.process is not None
        return int(self.process.process.pid)

    @property
    def url(self) -> str:
        return f"iscsi://127.0.0.1:{self.port}/{BASE}:target0/0"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """One that is not started yet."""
    made = Daemon(tmp_path)
    yield made
    if made.process is not None:
        pytest_twisted.blockon(made.process.stop())


async def pause(seconds: float) -> None:
    """Let a process run."""
    from twisted.internet import reactor

    await deferLater(reactor, seconds)  # type: ignore[arg-type]


@ensureDeferred
async def test_descriptors(daemon: Daemon) -> None:
    """Without descriptors the daemon neither ends nor spins; its session goes on, and new ones come later."""
    await daemon.start()
    perf = watch("iscsi-perf", "-i", BUSY, "-m", "1", "-t", "8", daemon.url)
    assert daemon.process is not None
    await daemon.process.line(f"Normal login from {BUSY}")
    with ExitStack() as stack:
        for _ in range(2 * FEW):
            stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port), 5))
        await daemon.process.line("EMFILE")
        await perf.ended
        text = "\n".join(perf.lines)
        assert "iops average" in text, text
        assert len(os.listdir(f"/proc/{daemon.pid}/fd")) <= FEW
        before = ticks(daemon.pid)
        await pause(2)
        used = (ticks(daemon.pid) - before) / os.sysconf("SC_CLK_TCK")
        assert used < 0.5, f"{used} seconds of CPU time in two seconds without anything to do"
    await pause(1)
    assert "TWISTED" in await good("iscsi-inq", daemon.url)


@ensureDeferred
async def test_sessions(daemon: Daemon) -> None:
    """A session too many is refused as out of resources, and the one that there is goes on."""
    await daemon.start("-s", "1")
    perf = watch("iscsi-perf", "-i", BUSY, "-m", "1", "-t", "4", daemon.url)
    assert daemon.process is not None
    await daemon.process.line(f"Normal login from {BUSY}")
    refused = await run("iscsi-inq", daemon.url)
    assert refused.status != 0
    assert "(770)" in refused.text
    assert "status 0302h" in await daemon.process.line("login refused")
    await perf.ended
    assert "iops average" in "\n".join(perf.lines)
    await good("iscsi-inq", daemon.url)


@ensureDeferred
async def test_halfOpen(daemon: Daemon) -> None:
    """Of connections that never log in the oldest is dropped, and whoever logs in is served."""
    await daemon.start("--max-half-open", "5", "--max-connections", "8")
    with ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port), 5)) for _ in range(20)
        ]
        for _ in range(3):
            await good("iscsi-inq", daemon.url)
        for each in silent[:15]:
            assert each.recv(1) == b""
