"""The commands of this package over TLS, and OpenSSL's own client."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.logger import capturedLogs

from tests.support.certificates import YEAR, Authority
from tests.support.clients import BASE, Serve, Served, good, run, watch
from tests.support.processes import TWISTD, portIn

HARNESS = "from iscsi_twisted.cli.harness import main; main()"
TOOL = "from iscsi_twisted.cli.tool import main; main()"
TARGETS = "extent0 %/a 0 20MB\ntarget0 extent0 any\n"


async def secured(serve: Serve, authority: Authority, words: str = "", **options: Any) -> Served:
    """A target that is reached over TLS alone."""
    certificate, key = authority.issue("localhost", "localhost")
    portal = f"iscsi-tls:0:key={key}:cert={certificate}:interface=127.0.0.1{words}"
    served: Served = await serve(TARGETS, listen=[portal], **options)
    return served


@ensureDeferred
async def test_harness(serve: Serve, tmp_path: Path) -> None:
    """The harness passes over TLS, and with a certificate where one is asked for; without one it fails."""
    authority = Authority(str(tmp_path / "tls"))
    served = await secured(serve, authority, f":clientCA={authority.path}", users="agc:tls\n")
    certificate, key = authority.issue("agc")
    where = ("-4", "-p", str(served.port), "--ca", authority.path)
    harness = (sys.executable, "-c", HARNESS, "-h", "localhost", *where)
    refused = await run(*harness)
    assert refused.status == 1
    assert "TLS: the other side refuses it: certificate required" in refused.text
    passed = await good(*harness, "--cert", certificate, "--key", key)
    assert "all tests were completed successfully" in passed
    wrong = await run(sys.executable, "-c", HARNESS, "-h", "127.0.0.1", *where)
    assert "TLS: the certificate of the target is for localhost, and not for 127.0.0.1" in wrong.text


@ensureDeferred
async def test_tool(serve: Serve, tmp_path: Path) -> None:
    """The tool lists and copies over TLS, and says in one line why it does not talk to somebody."""
    authority = Authority(str(tmp_path / "tls"))
    served = await secured(serve, authority)
    where = f"iscsis://localhost:{served.port}"
    listed = await good(sys.executable, "-c", TOOL, "ls", f"{where}?ca={authority.path}")
    assert f"{BASE}:target0  127.0.0.1:{served.port},1\n  LUN 0" in listed
    image, back = tmp_path / "image", tmp_path / "back"
    image.write_bytes(os.urandom(20 << 20))
    unit = f"{where}/{BASE}:target0/0?ca={authority.path}"
    await good(sys.executable, "-c", TOOL, "copy", "--verify", str(image), unit)
    await good(sys.executable, "-c", TOOL, "copy", unit, str(back))
    assert back.read_bytes() == image.read_bytes() == (tmp_path / "a").read_bytes()
    other = Authority(str(tmp_path / "other"), age=2 * YEAR)
    for words, why in (
        ("", "the certificate of localhost: its issuer is not known here"),
        ("?ca=/nonexistent", "/nonexistent: No such file or directory"),
        (f"?ca={other.path}", "the certificate of authority has expired"),
        (f"?ca={authority.path}&name=san.example.com", "is for localhost, and not for san.example.com"),
    ):
        failed = await run(sys.executable, "-c", TOOL, "ls", where + words)
        assert failed.status == 1
        assert why in failed.err
        assert len(failed.err.splitlines()) == 1, failed.err


@ensureDeferred
async def test_openssl(serve: Serve, tmp_path: Path) -> None:
    """OpenSSL's client agrees upon TLS 1.3, verifies the certificate, and gets nothing older."""
    authority = Authority(str(tmp_path / "tls"))
    served = await secured(serve, authority)
    # It ends when it has nothing to send.
    client = ("-c", 'exec openssl s_client "$@" </dev/null', "sh", "-connect", served.portal(), "-servername",
              "localhost", "-CAfile", authority.path)  # fmt: skip
    told = (await run("sh", *client, "-verify_return_error", "-verify_hostname", "localhost")).text
    assert "New, TLSv1.3, Cipher is TLS_" in told
    assert "Verify return code: 0 (ok)" in told
    for version in ("-tls1_2", "-tls1_1"):
        refused = await run("sh", *client, version)
        assert refused.status != 0
        assert "Cipher is (NONE)" in refused.text


@ensureDeferred
async def test_keyUpdates(serve: Serve, tmp_path: Path) -> None:
    """A client that does nothing but change keys, and would never read the answers, is cut off."""
    authority = Authority(str(tmp_path / "tls"))
    served = await secured(serve, authority)
    client = watch("openssl", "s_client", "-connect", served.portal())
    await client.line(lambda line: "Verify return code" in line)
    updates = 0

    async def update() -> None:
        nonlocal updates
        while updates < 1000:
            updates += 1
            client.transport.write(b"K\n")
            await client.line(lambda _, updates=updates: client.lines.count("KEYUPDATE") == updates)

    with capturedLogs() as events, pytest.raises(RuntimeError, match="the process ended"):
        await update()
    assert 20 < updates < 200
    (event,) = [each for each in events if each.get("event") == "handshakeFailed"]
    assert event["reason"] == "TLS: it does nothing but change keys"


@ensureDeferred
async def test_extent(serve: Serve, tmp_path: Path) -> None:
    """A unit of another target, reached over TLS, is served on to a stock initiator."""
    authority = Authority(str(tmp_path / "tls"))
    served = await secured(serve, authority)
    url = f"iscsis://localhost:{served.port}/{BASE}:target0/0?ca={authority.path}"
    (tmp_path / "targets").write_text(f"extent0 {url} 0 20MB\ntarget1 extent0 any\n")
    image = tmp_path / "image"
    image.write_bytes(os.urandom(20 << 20))
    front = watch(
        sys.executable, *TWISTD, "-n", "--pidfile=", "iscsi", "-f", "targets", "--state", "front",
        "-l", "tcp:0:interface=127.0.0.1", path=str(tmp_path),
    )  # fmt: skip
    try:
        port = portIn(await front.line(lambda line: "listening on 127.0.0.1" in line))
        there = f"iscsi://127.0.0.1:{port}/{BASE}:target1/0"
        await good("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(image), there)
        assert "identical" in await good("qemu-img", "compare", "-f", "raw", "-F", "raw", str(image), there)
    finally:
        await front.interrupt()
    assert (tmp_path / "a").read_bytes() == image.read_bytes()
