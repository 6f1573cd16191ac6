"""Real clients against a real service on loopback: what the tests of this folder share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from iscsi_twisted.auth.chap import STRONGEST_FIRST
from iscsi_twisted.config.auths import parseAuths
from iscsi_twisted.config.targets import parse
from iscsi_twisted.session.names import complaint
from iscsi_twisted.session.portals import Portal
from iscsi_twisted.target import Listener, TargetService
from iscsi_twisted.target.assembly import discovery, plans
from iscsi_twisted.target.transport import VectorEndpoint
from iscsi_twisted.target.users import FileUsers
from tests.support.clients import BASE, TOOLS, Serve, Served


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Serve the text of a targets file; C{%} in it stands for the test's directory; C{listen=} says where."""
    from twisted.internet import reactor

    services: list[TargetService] = []

    async def start(text: str, **options: Any) -> Served:
        configuration = parse(text.replace("%", str(tmp_path)), None, complaint)
        places = zip(("127.0.0.1", "::1"), options.get("tags", (1, 1)), strict=True)
        listeners: list[Any] = options.get("listen") or [
            Listener(VectorEndpoint(reactor, 0, address), Portal(tag)) for address, tag in places
        ]
        users = options.get("users")
        service = TargetService(
            reactor, listeners, stateDirectory=str(tmp_path / "state"), stopTime=10.0,
            secrets=FileUsers(parseAuths(users, None)) if users else None,
            algorithms=options.get("algorithms", STRONGEST_FIRST), discovery=discovery(configuration),
        )  # fmt: skip
        for plan in plans(configuration, base=BASE, blockSize=options.get("blockSize", 512), reactor=reactor):
            service.addPlan(plan)
        service.privilegedStartService()
        service.startService()
        services.append(service)
        await service.whenReady()
        numbers = [getattr(port.getHost(), "port", 0) for port in service.ports]
        return Served(service, numbers[0], numbers[-1])

    yield start
    for service in services:
        assert service.journal.surprises == 0
        pytest_twisted.blockon(service.stopService())


@pytest.fixture(scope="session", autouse=True)
def tools() -> None:
    """A client that is missing is a failure, not a reason to skip."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    assert not missing, f"not installed: {', '.join(missing)}"
