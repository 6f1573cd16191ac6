"""Two paths to one disk: portals in two groups, multipath clients, and what others make of the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from iscsi_twisted.initiator import LUN, Initiator, Session
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.cdb import Command
from iscsi_twisted.scsi.client import UnitAttention, UnitNotReady
from iscsi_twisted.scsi.paths import OPTIMIZED, STANDBY
from tests.support.clients import BASE, Serve, Served, good, watch

TARGET = f"{BASE}:target0"
EVEN = "extent0 %/disk0 0 64MB\ntarget0 extent0 any\n"
UNEVEN = EVEN.replace("any", "any alua=2:standby preferred=1")


async def paths(served: Served) -> tuple[list[Session], list[LUN], list[int]]:
    """Both paths of one initiator: sessions, LUN 0, and the unit attentions that it will be told of."""
    from twisted.internet import reactor

    initiator = Initiator(reactor, isid=b"\x80\0\0\0\0\1")
    sessions = [await initiator.login(served.portal(family), TARGET) for family in (4, 6)]
    units = [LUN(session) for session in sessions]
    told: list[int] = []
    for unit in units:
        await ask(unit, cdb.REQUEST_SENSE, 252, allocation=252)
        unit.attention = lambda condition: told.append(condition.code)
    return sessions, units, told


async def ask(unit: LUN, command: Command, expected: int = 0, data: bytes = b"", **fields: int) -> bytes:
    """Execute any command; its Data-In."""
    cdbBytes = command.encode(**fields)[: command.layout.size]
    return bytes((await unit.execute(cdbBytes, expected=expected, data=data)).data)


async def states(unit: LUN) -> list[tuple[int, int]]:
    """Access states and preference of the groups 1 and 2, as REPORT TARGET PORT GROUPS tells them."""
    data = await ask(unit, cdb.REPORT_TARGET_PORT_GROUPS, 4096, allocation=4096)
    assert data[:4] == (24).to_bytes(4, "big")
    assert [(data[place + 3], data[place + 11]) for place in (4, 16)] == [(1, 1), (2, 2)]
    return [(data[place] & 15, data[place] >> 7) for place in (4, 16)]


@ensureDeferred
async def test_discovery(serve: Serve) -> None:
    """libiscsi is told of both portals with their tags."""
    served = await serve(EVEN, tags=(1, 2))
    for family in (4, 6):
        listed = await good("iscsi-ls", f"iscsi://{served.portal(family)}/")
        for portal in (f"{served.portal(4)},1", f"{served.portal(6)},2"):
            assert f"Target:{TARGET} Portal:{portal}" in listed, listed


@ensureDeferred
async def test_states(serve: Serve) -> None:
    """States of the targets file, of the service and of an initiator are told on both paths, and hold."""
    served = await serve(UNEVEN, tags=(1, 2))
    sessions, (one, two), told = await paths(served)
    for unit in (one, two):
        assert await states(unit) == [(OPTIMIZED, 1), (STANDBY, 0)]
    await ask(one, cdb.WRITE_10, data=b"x" * 512, length=1)
    with pytest.raises(UnitNotReady) as caught:
        await ask(two, cdb.READ_10, 512, length=1)
    assert caught.value.code == codes.IN_STANDBY
    served.service.setAccess(TARGET, {1: STANDBY, 2: OPTIMIZED})
    assert await ask(two, cdb.READ_10, 512, length=1) == b"x" * 512
    with pytest.raises(UnitNotReady):
        await ask(one, cdb.READ_10, 512, length=1)
    assert told == [codes.ACCESS_CHANGED] * 2
    wanted = bytes(4) + bytes((OPTIMIZED, 0, 0, 1, STANDBY, 0, 0, 2))
    await ask(one, cdb.SET_TARGET_PORT_GROUPS, data=wanted, length=len(wanted))
    assert await ask(one, cdb.READ_10, 512, length=1) == b"x" * 512
    assert await states(two) == [(OPTIMIZED, 1), (STANDBY, 0)]
    assert told == [codes.ACCESS_CHANGED] * 3
    for session in sessions:
        await session.logout()


@ensureDeferred
async def test_decoded(serve: Serve, tmp_path: Path) -> None:
    """sg3-utils find what they look for in INQUIRY data and in the device identification of each path."""
    served = await serve(UNEVEN, tags=(1, 2))
    sessions, units, _ = await paths(served)
    for number, unit in enumerate(units, 1):
        for tool, options, wanted in (
            ("sg_inq", {}, ("TPGS=3", "NormACA=1", "Vendor identification: TWISTED")),
            (
                "sg_vpd",
                {"flags": 1, "page": 0x83},
                (
                    f"Relative target port: {number:#x}",
                    f"Target port group: {number:#x}",
                    f"{TARGET},t,0x{number:04x}",
                ),
            ),
        ):
            data = await ask(unit, cdb.INQUIRY, 255, allocation=255, **options)  # type: ignore[arg-type]
            path = tmp_path / "data"
            path.write_text(data.hex(" "))
            text = await good(tool, f"--inhex={path}")
            for each in wanted:
                assert each in text, text
    for session in sessions:
        await session.logout()


@ensureDeferred
async def test_traced(serve: Serve) -> None:
    """tshark decodes both paths: the logins, the commands and the refusal through a standby port."""
    served = await serve(UNEVEN, tags=(1, 2))
    ports = (served.port, served.port6)
    fields = ("iscsi.opcode", "scsi.spc.opcode", "scsi.sns.ascascq", "_ws.malformed")
    tshark = watch(
        "tshark", "-l", "-n", "-i", "lo", "-f", " or ".join(f"tcp port {port}" for port in ports),
        *(part for port in ports for part in ("-d", f"tcp.port=={port},iscsi")), "-Y", "iscsi",
        "-T", "fields", "-E", "separator=|", *(part for field in fields for part in ("-e", field)),
    )  # fmt: skip
    await tshark.line(lambda line: "Capture started" in line)
    sessions, units, _ = await paths(served)
    await states(units[1])
    with pytest.raises(UnitNotReady):
        await ask(units[1], cdb.TEST_UNIT_READY)
    for session in sessions:
        await session.logout()
    for _ in sessions:
        await tshark.line(lambda line: line.startswith("0x26"))
    await tshark.interrupt()
    lines = [line.split("|") for line in tshark.lines if line.startswith("0x")]
    assert any(each[2] == "0x040b" for each in lines), lines
    assert not [each for each in lines if each[3]], lines


@ensureDeferred
async def test_multipath(serve: Serve) -> None:
    """libiscsi's tests with two paths pass over two groups, and its persistent reservations over one."""
    served = await serve(EVEN, tags=(1, 2))
    urls = [served.url(family=family) for family in (4, 6)]
    for suite, urls_ in (
        ("ALL.MultipathIO", urls),
        ("ALL.CompareAndWrite", urls),
        *(
            (f"ALL.{name}", urls[:1])
            for name in ("PrinReadKeys", "ProutReserve", "ProutPreempt", "ProutRegister")
        ),
    ):
        text = await good("iscsi-test-cu", "--dataloss", *urls_, "-t", suite)
        assert "SKIPPED" not in text and "FAILED" not in text, text


@ensureDeferred
async def test_inventory(serve: Serve) -> None:
    """A unit that comes and goes while an initiator is there: it is told, and the list has changed."""
    from twisted.internet import reactor

    served = await serve("extent0 %/a 0 1MB\nextent1 %/b 0 1MB\ntarget0 extent0 extent1 any\n")
    target: Any = served.service.node.targets[TARGET]
    session = await Initiator(reactor).login(served.portal(), TARGET)
    initiator = Initiator(reactor)
    assert [unit.number for unit in await initiator.units(session)] == [0, 1]
    one = LUN(session)
    told: list[UnitAttention] = []
    await one.ready()
    one.attention = told.append
    unit = target.removeUnit(1)
    await one.ready()
    assert [each.code for each in told] == [codes.LUNS_CHANGED]
    assert [each.number for each in await initiator.units(session)] == [0]
    target.addUnit(5, unit)
    assert [each.number for each in await initiator.units(session)] == [0, 5]
    await one.ready()
    assert len(told) == 1
    await session.logout()
    target.addUnit(1, target.removeUnit(5))
