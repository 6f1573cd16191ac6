"""What those are told who are not let in, by a target that listens."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from iscsi_twisted.session.limits import Limits
from tests.interop.test_attacks import FULL, ME, NAME, TO_OPERATIONAL, Intruder, Status, attacked
from tests.support.clients import BASE, Serve
from tests.support.rawclient import LOGIN, SCSI_COMMAND, header


@ensureDeferred
async def test_enumeration(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """
    A user that is not there gets the same bytes as a wrong secret; how long both take is reported.

    (That the work is the same is counted in C{tests.auth.test_verifier}.)
    """
    served = await attacked(serve)

    def run() -> dict[str, tuple[set[str], list[float]]]:
        told: dict[str, tuple[set[str], list[float]]] = {"agc": (set(), []), "nobody": (set(), [])}
        for _ in range(60):
            for user, (answers, times) in told.items():
                with Intruder(served.port) as it:
                    it.begin()
                    it.expStatSN = 0
                    began = time.perf_counter()
                    pairs = (("CHAP_N", user), ("CHAP_R", "0x" + "00" * 32))
                    answer = it.loginPDU(pairs, flags=TO_OPERATIONAL)
                    times.append(time.perf_counter() - began)
                    answers.add((answer.header[:16] + answer.header[36:] + answer.data).hex())
        return told

    told = await deferToThread(run)
    assert told["agc"][0] == told["nobody"][0]
    assert len(told["agc"][0]) == 1
    with capsys.disabled():
        for user, (_, times) in told.items():
            print(f"\nwrong login as {user}: median {statistics.median(times) * 1e6:.0f} us", end="")
        print()


def refusals(port: int) -> Iterator[tuple[str, Status]]:
    """One login for every status that this target has."""

    def tried(flags: int, *pairs: tuple[str, str], target: str = "") -> Status:
        with Intruder(port) as it:
            return it.say(flags, *pairs, target=target)

    open_ = f"{BASE}:target3"
    yield "initiator error", tried(0x88 | 3, target=open_)
    yield "authentication failure", tried(FULL, target=NAME)
    yield "authorization failure (netmask)", tried(FULL, target=f"{BASE}:target1")
    yield "not found", tried(FULL, target=f"{BASE}:none")
    yield "missing parameter", tried(FULL, ("TargetName", open_))
    yield "missing parameter", tried(FULL, ("InitiatorName", ME))
    yield "session type", tried(FULL, ("InitiatorName", ME), ("SessionType", "Other"))
    yield "authorization failure (name)", tried(FULL, target=f"{BASE}:target4")
    with Intruder(port) as it:
        yield "authorization failure (user)", it.prove(b"another-secret-12", user="joe")
    with Intruder(port) as it:
        answer = it.loginPDU([("InitiatorName", ME), ("TargetName", open_)], flags=FULL, tsih=0x1234)
        yield "no such session", int.from_bytes(answer.header[36:38], "big")
    with Intruder(port) as it:
        head = header(LOGIN, FULL, immediate=True)
        head[3] = 1  # Version-min
        it.sendPDU(head, f"InitiatorName={ME}\0TargetName={open_}\0".encode())
        yield "version", int.from_bytes(it.recvPDU().header[36:38], "big")
    with Intruder(port) as it:
        it.say(0x04, target=open_)
        it.sendPDU(header(SCSI_COMMAND, 0x80, at16=1, at20=0, at24=1, at28=0), b"")
        yield "during login", int.from_bytes(it.recvPDU().header[36:38], "big")
    with Intruder(port) as first, Intruder(port) as it:
        answer = first.loginPDU([("InitiatorName", ME), ("TargetName", open_)], flags=FULL)
        tsih = int.from_bytes(answer.header[14:16], "big")
        pairs = [("InitiatorName", ME), ("TargetName", open_)]
        answer = it.loginPDU(pairs, flags=FULL, tsih=tsih, cid=1)
        yield "too many connections", int.from_bytes(answer.header[36:38], "big")
        with Intruder(port) as more:
            answer = more.loginPDU(pairs, flags=FULL, isid=b"\x80\0\0\0\0\2")
            yield "out of resources", int.from_bytes(answer.header[36:38], "big")


@ensureDeferred
async def test_refusals(serve: Serve) -> None:
    """Every refusal has the class and the detail that RFC 7143 11.13.5 gives it."""
    served = await attacked(serve)
    served.service.node.limits = Limits(sessions=1)
    found = await deferToThread(lambda: list(refusals(served.port)))
    assert found == [
        ("initiator error", 0x0200), ("authentication failure", 0x0201),
        ("authorization failure (netmask)", 0x0202), ("not found", 0x0203), ("missing parameter", 0x0207),
        ("missing parameter", 0x0207), ("session type", 0x0209), ("authorization failure (name)", 0x0202),
        ("authorization failure (user)", 0x0202), ("no such session", 0x020A),
        ("version", 0x0205), ("during login", 0x020B), ("too many connections", 0x0206),
        ("out of resources", 0x0302),
    ]  # fmt: skip
