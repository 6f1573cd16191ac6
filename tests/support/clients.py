"""Real initiators of other projects, run as processes."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure

from iscsi_twisted.target.service import TargetService

BASE = "iqn.1994-04.org.netbsd.iscsi-target"

PATIENCE = 60.0
"""Seconds after which a client that says nothing is a failure."""

TOOLS = (
    "iscsi-ls", "iscsi-inq", "iscsi-readcapacity16", "iscsi-perf", "iscsi-test-cu", "qemu-img", "qemu-io",
    "qemu-nbd", "sg_inq", "sg_vpd", "cc", "tshark", "stunnel", "ssh", "sshd", "openssl",
)  # fmt: skip


@attrs.frozen
class Outcome:
    """How a client ended."""

    status: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


async def run(tool: str, *arguments: str) -> Outcome:
    """Run a client to its end."""
    path = shutil.which(tool)
    assert path is not None, f"{tool} is not installed"
    result = getProcessOutputAndValue(path, arguments, os.environ)
    # One that a signal ended fails with a tuple, which is no exception.
    result.addErrback(lambda failure: (failure.value[0], failure.value[1], -failure.value[2]))
    out, err, status = await result
    return Outcome(status, out.decode(errors="replace"), err.decode(errors="replace"))


async def good(tool: str, *arguments: str) -> str:
    """Run a client that must succeed; what it printed."""
    outcome = await run(tool, *arguments)
    assert outcome.status == 0, f"{tool} {arguments}: status {outcome.status}\n{outcome.text}"
    return outcome.text


class Watched(ProcessProtocol):
    """
    A process that is watched line by line.

    @ivar lines: what it printed.
    @ivar ended: fires when it has ended.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.ended: Deferred[None] = Deferred()
        self._rest = ""
        self._waiting: list[tuple[Callable[[str], Any], Deferred[str]]] = []

    def outReceived(self, data: bytes) -> None:
        *lines, self._rest = re.split(r"[\r\n]+", self._rest + data.decode(errors="replace"))
        for line in lines:
            self.lines.append(line)
            for waiting in [w for w in self._waiting if w[0](line)]:
                self._waiting.remove(waiting)
                waiting[1].callback(line)

    errReceived = outReceived

    def line(self, wanted: Callable[[str], Any]) -> Deferred[str]:
        """The first line that is wanted, seen already or still to come."""
        from twisted.internet import reactor

        result: Deferred[str] = Deferred()
        seen = next((line for line in self.lines if wanted(line)), None)
        if seen is not None:
            result.callback(seen)
        else:
            self._waiting.append((wanted, result))
            result.addTimeout(PATIENCE, reactor)
        return result

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)
        for _, result in [w for w in self._waiting if not w[1].called]:
            result.errback(RuntimeError("the process ended:\n" + "\n".join(self.lines[-30:])))

    async def interrupt(self) -> None:
        """End it as Ctrl-C does."""
        self.transport.signalProcess(signal.SIGINT.name[3:])
        await self.ended


def watch(tool: str, *arguments: str, path: str | None = None, env: dict[str, str] | None = None) -> Watched:
    """Start a process."""
    watched = Watched()
    program = shutil.which(tool)
    assert program is not None, f"{tool} is not installed"
    from twisted.internet import reactor

    reactor.spawnProcess(watched, program, [program, *arguments], env or dict(os.environ), path)
    return watched


@attrs.frozen
class Served:
    """
    A running service.

    @ivar port: TCP port on 127.0.0.1.
    @ivar port6: TCP port on ::1.
    """

    service: TargetService
    port: int
    port6: int

    def portal(self, family: int = 4) -> str:
        """HOST:PORT as in a URL."""
        return f"127.0.0.1:{self.port}" if family == 4 else f"[::1]:{self.port6}"

    def url(self, target: str = "target0", lun: int = 0, *, family: int = 4, digest: bool = False) -> str:
        """The URL of a LUN, as libiscsi and qemu write it."""
        query = "?header_digest=crc32c" if digest else ""
        return f"iscsi://{self.portal(family)}/{BASE}:{target}/{lun}{query}"

    def qemu(self, target: str = "target0", *, family: int = 4, digest: bool = False) -> str:
        """
        The options of LUN 0 for qemu's C{--image-opts}.

        (Its URLs know no header digest: the query makes qemu 7.2 crash before it connects.)
        """
        return (
            f"driver=raw,file.driver=iscsi,file.transport=tcp,file.portal={self.portal(family)},"
            f"file.target={BASE}:{target},file.lun=0,"
            f"file.header-digest={'crc32c' if digest else 'none'}"
        )


Serve = Callable[..., Any]
"""C{await serve(text of a targets file)} -> L{Served}."""
