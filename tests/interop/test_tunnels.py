"""Stock initiators through stunnel and ssh, as the manual's page on TLS and tunnels tells."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred

from tests.support.certificates import Authority
from tests.support.clients import BASE, Serve, Served, Watched, good, run, watch

TARGETS = "extent0 %/a 0 20MB\ntarget0 extent0 any\n"
RUN_SSHD = Path("/run/sshd")
"""Where sshd, as root, shuts those in who have not proved yet who they are."""

Tunnel = Callable[..., Any]


def freePort() -> int:
    """A port of loopback that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        return int(made.getsockname()[1])


@pytest.fixture
def start() -> Iterator[Callable[..., Watched]]:
    """Start processes that end with the test."""
    started: list[Watched] = []

    def begin(tool: str, *arguments: str) -> Watched:
        watched = watch(tool, *arguments)
        started.append(watched)
        return watched

    yield begin
    for watched in reversed(started):
        if not watched.ended.called:
            pytest_twisted.blockon(Deferred.fromCoroutine(watched.interrupt()))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Signs all certificates of a test."""
    return Authority(str(tmp_path / "tls"))


@pytest.fixture
def stunnel(tmp_path: Path, start: Callable[..., Watched]) -> Tunnel:
    """Start a stunnel with one service."""

    async def begin(name: str, **words: object) -> None:
        lines = ["foreground = yes", "pid =", "syslog = no", "debug = 5", f"[{name}]"]
        lines += [f"{word} = {value}" for word, value in words.items()]
        path = tmp_path / f"{name}.conf"
        path.write_text("\n".join(lines) + "\n")
        await start("stunnel", str(path)).line(lambda line: "Configuration successful" in line)

    return begin


def tlsPortal(authority: Authority, words: str = "") -> str:
    """The description of a portal for C{san.example.com}."""
    certificate, key = authority.issue("san", "san.example.com")
    return f"iscsi-tls:0:key={key}:cert={certificate}:interface=127.0.0.1{words}"


async def used(served: Served, port: int, tmp_path: Path) -> None:
    """Discover, find the disk where discovery says that it is, write it and read it through a tunnel."""
    listed = await good("iscsi-ls", "-s", f"iscsi://127.0.0.1:{port}/")
    assert f"Target:{BASE}:target0 Portal:127.0.0.1:{port},1" in listed, listed
    assert "Lun:0 " in listed
    url = f"iscsi://127.0.0.1:{port}/{BASE}:target0/0"
    image = tmp_path / "image"
    image.write_bytes(os.urandom(20_000_000 // 512 * 512))
    with open(image, "ab") as file:
        file.truncate(20 << 20)
    await good("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(image), url)
    assert "identical" in await good("qemu-img", "compare", "-f", "raw", "-F", "raw", str(image), url)
    assert (tmp_path / "a").read_bytes() == image.read_bytes()
    assert served.service.journal.surprises == 0


@ensureDeferred
async def test_stunnelToPortal(serve: Serve, stunnel: Tunnel, authority: Authority, tmp_path: Path) -> None:
    """stunnel on the initiator's side speaks TLS with our portal, and checks whom it talks to."""
    port = freePort()
    served = await serve(TARGETS, listen=[tlsPortal(authority, f":advertise=127.0.0.1:{port}")])
    await stunnel(
        "iscsi", client="yes", accept=f"127.0.0.1:{port}", connect=served.portal(), CAfile=authority.path,
        verifyChain="yes", checkHost="san.example.com", sslVersionMin="TLSv1.3",
    )  # fmt: skip
    await used(served, port, tmp_path)


@ensureDeferred
async def test_stunnelCertificate(serve: Serve, stunnel: Tunnel, authority: Authority) -> None:
    """Where certificates are asked for, stunnel shows one for an initiator that knows nothing of them."""
    portal = tlsPortal(authority, f":clientCA={authority.path}")
    served = await serve(TARGETS + "extent1 %/b 0 1MB\ntarget1 extent1 any users=joe\n", listen=[portal],
                         users="agc:tls\njoe:tls:joe@example.com\n")  # fmt: skip
    words = {"client": "yes", "connect": served.portal(), "CAfile": authority.path, "verifyChain": "yes"}
    certificate, key = authority.issue("agc")
    known, unknown = freePort(), freePort()
    await stunnel("known", accept=f"127.0.0.1:{known}", cert=certificate, key=key, **words)
    await stunnel("unknown", accept=f"127.0.0.1:{unknown}", **words)
    listed = await good("iscsi-ls", f"iscsi://127.0.0.1:{known}/")
    assert f"{BASE}:target0 " in listed
    assert "target1" not in listed
    assert "CONNECTED" in await good("iscsi-inq", f"iscsi://127.0.0.1:{known}/{BASE}:target0/0")
    refused = await run("iscsi-inq", f"iscsi://127.0.0.1:{known}/{BASE}:target1/0")
    assert "Authorization failure(514)" in refused.text
    assert (await run("iscsi-ls", f"iscsi://127.0.0.1:{unknown}/")).status != 0


@ensureDeferred
async def test_stunnelBothSides(serve: Serve, stunnel: Tunnel, authority: Authority, tmp_path: Path) -> None:
    """stunnel on the target's side tells by the PROXY protocol from where initiators come."""
    near, far = freePort(), freePort()
    served = await serve(
        "extent0 %/a 0 20MB\nextent1 %/b 0 1MB\ntarget0 extent0 127.0.0.7\ntarget1 extent1 127.0.0.1\n",
        listen=[f"haproxy:tcp:0:interface=127.0.0.1:advertise=127.0.0.1:{near}"],
    )
    certificate, key = authority.issue("san", "san.example.com")
    mine, myKey = authority.issue("agc")
    await stunnel(
        "far", accept=f"127.0.0.1:{far}", connect=served.portal(), cert=certificate, key=key,
        CAfile=authority.path, verifyChain="yes", protocol="proxy",
    )  # fmt: skip
    await stunnel(
        "near", client="yes", accept=f"127.0.0.1:{near}", connect=f"127.0.0.1:{far}", local="127.0.0.7",
        CAfile=authority.path, verifyChain="yes", checkHost="san.example.com", cert=mine, key=myKey,
    )  # fmt: skip
    await used(served, near, tmp_path)
    assert "target1" not in await good("iscsi-ls", f"iscsi://127.0.0.1:{near}/")


@pytest.fixture
def ssh(tmp_path: Path, start: Callable[..., Watched]) -> Tunnel:
    """Start an sshd, and an ssh that forwards a port through it."""

    def keys(name: str) -> tuple[str, str]:
        path = str(tmp_path / name)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        return path, Path(f"{path}.pub").read_text()

    async def begin(forward: str) -> None:
        host, public = keys("host")
        mine, authorized = keys("mine")
        port = freePort()
        (tmp_path / "authorized").write_text(authorized)
        (tmp_path / "known").write_text(f"[127.0.0.1]:{port} {public}")
        config = tmp_path / "sshd_config"
        config.write_text(
            f"ListenAddress 127.0.0.1:{port}\nHostKey {host}\nAuthorizedKeysFile {tmp_path}/authorized\n"
            "PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitTTY no\n"
        )
        if os.geteuid() == 0:
            RUN_SSHD.mkdir(mode=0o755, exist_ok=True)
        await start("sshd", "-D", "-e", "-f", str(config)).line(lambda line: "listening on" in line)
        client = start(
            "ssh", "-v", "-N", "-F", "none", "-i", mine, "-p", str(port), "-L", forward,
            "-o", f"UserKnownHostsFile={tmp_path}/known", "-o", "StrictHostKeyChecking=yes",
            "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes", "-o", "IdentitiesOnly=yes", "127.0.0.1",
        )  # fmt: skip
        await client.line(lambda line: "Entering interactive session" in line)

    return begin


@ensureDeferred
async def test_ssh(serve: Serve, ssh: Tunnel, tmp_path: Path) -> None:
    """ssh forwards a port to a portal on the target's loopback, which advertises where that port is."""
    port = freePort()
    served = await serve(
        TARGETS.replace("any", "127.0.0.0/8"),
        listen=[f"tcp:0:interface=127.0.0.1:advertise=127.0.0.1:{port}"],
    )
    await ssh(f"127.0.0.1:{port}:{served.portal()}")
    await used(served, port, tmp_path)


@ensureDeferred
async def test_sshToSocket(serve: Serve, ssh: Tunnel, tmp_path: Path) -> None:
    """ssh forwards a port to a UNIX socket, which nobody else can reach."""
    port, path = freePort(), os.path.relpath(tmp_path / "socket")
    served = await serve(TARGETS, listen=[f"unix:{path}:mode=600:advertise=127.0.0.1:{port}"])
    await ssh(f"127.0.0.1:{port}:{tmp_path}/socket")
    await used(served, port, tmp_path)
