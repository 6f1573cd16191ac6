"""Our initiator and its tool at targets that are reached by IPv6: ours, and those that others wrote."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from iscsi_twisted.initiator import LUN, Initiator, parseURL
from tests.bench.servers import PATIENCE, Istgt, Ours, Server, Tgt, fill
from tests.support.clients import good

SIZE = 4 << 20
TOOL = "from iscsi_twisted.cli.tool import main; main()"


class Six:
    """What makes a server listen on ::1."""

    port: int

    def _await(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with suppress(OSError):
                socket.create_connection(("::1", self.port), 1).close()
                return
            time.sleep(0.02)
        raise AssertionError("it does not listen")


class SixTgt(Six, Tgt):
    """tgt."""

    def arguments(self) -> list[str]:
        return [*super().arguments()[:-1], f"portal=[::1]:{self.port}"]


class SixIstgt(Six, Istgt):
    """istgt."""

    def arguments(self) -> list[str]:
        made = super().arguments()
        path = self.folder / "istgt.conf"
        text = path.read_text().replace(f"DA1 127.0.0.1:{self.port}", f"DA1 [::1]:{self.port}")
        path.write_text(text.replace('"ALL"\n  Netmask 127.0.0.1', '"ALL"\n  Netmask [::1]'))
        return made


class SixOurs(Six, Ours):
    """Ours."""

    def where(self) -> list[str]:
        return ["-l", rf"tcp6:{self.port}:interface=\:\:1", "--state", str(self.folder / "state")]


@pytest.fixture(params=[SixTgt, SixIstgt, SixOurs], ids=lambda kind: kind.name)
def server(request: Any, tmp_path: Path) -> Iterator[Server]:
    """A target at ::1."""
    made: Server = request.param(tmp_path)
    fill(made.disk, SIZE)
    made.start()
    yield made
    made.stop()


async def tool(*arguments: str) -> Any:
    """What our tool prints."""
    return json.loads(await good(sys.executable, "-c", TOOL, "--json", *arguments))


@ensureDeferred
async def test_addresses(server: Server) -> None:
    """Discovery tells addresses in brackets; each of them, and URLs with it, lead to the target."""
    from twisted.internet import reactor

    initiator = Initiator(reactor)
    portal = f"[::1]:{server.port}"
    found = {one.name: one.addresses for one in await initiator.discover(portal)}
    assert f"{portal},1" in found[server.iqn]
    url = f"iscsi://{portal}/{server.iqn}/{server.lun}"
    for where in (found[server.iqn][0].partition(",")[0], parseURL(url).description()):
        session = await initiator.login(where, server.iqn, headerDigest="prefer", dataDigest="prefer")
        lun = LUN(session, server.lun)
        await lun.open()
        data = os.urandom(1 << 20)
        await lun.write(0, data)
        assert bytes(await lun.read(0, len(data))) == data
        await session.logout()
    (target,) = await tool("ls", f"iscsi://{portal}")
    assert (target["name"], target["error"]) == (server.iqn, "")
    assert [unit["bytes"] for unit in target["units"] if unit["lun"] == server.lun] == [SIZE]
    assert (await tool("capacity", url))["bytes"] == SIZE
