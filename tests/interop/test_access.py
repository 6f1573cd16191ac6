"""Real initiators before targets that ask who they are."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

from pytest_twisted import ensureDeferred

from iscsi_twisted.auth.chap import STRONGEST_FIRST, Credentials
from iscsi_twisted.initiator import Initiator
from tests.support.clients import BASE, Serve, Served, good, run

USERS = "agc:chap:correct-horse-battery:it:secret-of-target\njoe:chap:another-secret-12\n"
TARGETS = "extent0 %/a 0 20MB\nextent1 %/b 0 20MB\ntarget0 extent0 any\ntarget1 extent1 any users=joe\n"
MAIN = "from iscsi_twisted.cli.harness import main; main()"
AGC, JOE, WRONG = "agc%correct-horse-battery@", "joe%another-secret-12@", "agc%wrong-horse-battery@"


def url(served: Served, user: str, target: str = "target0") -> str:
    """Where a user goes."""
    return f"iscsi://{user}{served.portal()}/{BASE}:{target}/0"


@ensureDeferred
async def test_discovery(serve: Serve) -> None:
    """iscsi-ls is refused without a user, and with one shown what that user may use."""
    served = await serve(TARGETS, users=USERS)
    refused = await run("iscsi-ls", f"iscsi://{served.portal()}/")
    assert refused.status != 0
    assert "Authentication failure(513)" in refused.text
    listed = await good("iscsi-ls", "-s", f"iscsi://{AGC}{served.portal()}/")
    assert f"{BASE}:target0 " in listed
    assert "target1" not in listed
    assert f"{BASE}:target1 " in await good("iscsi-ls", "-s", f"iscsi://{JOE}{served.portal()}/")


@ensureDeferred
async def test_refused(serve: Serve) -> None:
    """libiscsi and qemu are told why they are refused."""
    served = await serve(TARGETS, users=USERS)
    for tool in (("iscsi-inq",), ("qemu-img", "info")):
        for user, target, why in (
            ("", "target0", "Authentication failure(513)"),
            (WRONG, "target0", "Authentication failure(513)"),
            ("nobody%another-secret-12@", "target0", "Authentication failure(513)"),
            (AGC, "target1", "Authorization failure(514)"),
        ):
            refused = await run(*tool, url(served, user, target))
            assert refused.status != 0, (tool, user, target)
            assert why in refused.text, (tool, user, target, refused.text)


@ensureDeferred
async def test_used(serve: Serve) -> None:
    """With the right secret they are served: one-way, and mutual with libiscsi."""
    served = await serve(TARGETS, users=USERS)
    assert "20 MiB" in await good("qemu-img", "info", url(served, JOE, "target1"))
    mutual = "?target_user=it&target_password=secret-of-target"
    for where in (url(served, JOE, "target1"), url(served, AGC) + mutual):
        await good("iscsi-test-cu", "-d", "-t", "ALL.Read10", where)


@ensureDeferred
async def test_ours(serve: Serve) -> None:
    """Our initiator, with every hash, one-way and mutual."""
    from twisted.internet import reactor

    served = await serve(TARGETS, users=USERS)
    initiator = Initiator(reactor)
    for algorithm in STRONGEST_FIRST:
        for theirs in (("", b""), ("it", b"secret-of-target")):
            session = await initiator.login(
                served.portal(), f"{BASE}:target0", algorithms=(algorithm,),
                credentials=Credentials("agc", b"correct-horse-battery", *theirs),
            )  # fmt: skip
            assert await session.ping(b"here") == b"here"
            await session.logout()


@ensureDeferred
async def test_harness(serve: Serve, tmp_path: Path) -> None:
    """The harness as the FAQ's question 9 tells of it, with and without an entry for who runs it."""
    name = getpass.getuser()
    served = await serve(TARGETS, users=f"{name}:chap:correct-horse-battery\n")
    auths = tmp_path / "auths"
    harness = ("-c", MAIN, "-n", "3", "-h", "localhost", "-p", str(served.port))
    auths.write_text("somebody:chap:correct-horse-battery\n")
    failed = await run(sys.executable, *harness, "-a", "chap", "--auths", str(auths))
    assert failed.status != 0
    assert f"No matching user configuration entry for `{name}' was found" in failed.text
    assert f"Please add an entry for `{name}' to `{auths}'" in failed.text
    auths.write_text(f"{name}:chap:correct-horse-battery\n")
    passed = await good(sys.executable, *harness, "--auths", str(auths))
    assert passed.count("##END DEVICE-SPECIFIC TESTS") == 3
    assert "all tests were completed successfully" in passed


@ensureDeferred
async def test_harnessMutual(serve: Serve, tmp_path: Path) -> None:
    """The harness with every hash alone, where the target proves who it is; it stays with no other."""
    auths = tmp_path / "auths"
    for algorithm in STRONGEST_FIRST:
        served = await serve(TARGETS.replace("%/", f"%/{algorithm}"), users=USERS, algorithms=(algorithm,))
        harness = (
            "-c",
            MAIN,
            "-n",
            "1",
            "-h",
            "localhost",
            "-p",
            str(served.port),
            "-u",
            "agc",
            "-a",
            "chap",
        )
        auths.write_text(USERS)
        await good(sys.executable, *harness, "--auths", str(auths))
        auths.write_text(USERS.replace("secret-of-target", "secret-of-others"))
        failed = await run(sys.executable, *harness, "--auths", str(auths))
        assert failed.status != 0
        assert "the target did not prove who it is" in failed.text


@ensureDeferred
async def test_environment(serve: Serve) -> None:
    """libiscsi with users and secrets of its environment, for one direction and for both."""
    served = await serve(TARGETS, users=USERS)
    one = "LIBISCSI_CHAP_USERNAME=agc", "LIBISCSI_CHAP_PASSWORD=correct-horse-battery"
    both = *one, "LIBISCSI_CHAP_TARGET_USERNAME=it", "LIBISCSI_CHAP_TARGET_PASSWORD=secret-of-target"
    for settings in (one, both):
        assert "CONNECTED" in await good("env", *settings, "iscsi-inq", url(served, ""))
        assert "target0" in await good("env", *settings, "iscsi-ls", f"iscsi://{served.portal()}/")
    wrong = (*one[:1], "LIBISCSI_CHAP_PASSWORD=wrong-horse-battery")
    refused = await run("env", *wrong, "iscsi-inq", url(served, ""))
    assert "Authentication failure(513)" in refused.text
    deceived = await run(
        "env", *both[:3], "LIBISCSI_CHAP_TARGET_PASSWORD=another", "iscsi-inq", url(served, "")
    )
    assert deceived.status != 0


@ensureDeferred
async def test_qemuSecret(serve: Serve) -> None:
    """qemu's own options for a user and a secret, right and wrong."""
    served = await serve(TARGETS, users=USERS)
    for secret, fine in (("correct-horse-battery", True), ("wrong-horse-battery", False)):
        image = f"{served.qemu()},file.user=agc,file.password-secret=sec0"
        asked = await run(
            "qemu-img", "info", "--object", f"secret,id=sec0,data={secret}", "--image-opts", image
        )  # fmt: skip
        assert (asked.status == 0) is fine, asked
        assert ("20 MiB" if fine else "Authentication failure(513)") in asked.text
    io = ("qemu-io", "--object", "secret,id=sec0,data=correct-horse-battery", "--image-opts")
    written = await good(*io, "-c", "write -P 7 4k 64k", "-c", "read -P 7 4k 64k", image)
    assert "read 65536/65536" in written


@ensureDeferred
async def test_masked(serve: Serve) -> None:
    """An initiator sees the LUNs that are meant for it, and cannot write where it may only read."""
    served = await serve(
        "extent0 %/a 0 20MB\nextent1 %/b 0 20MB\n"
        "target0 extent0 extent1 any luns=iqn.2007-10.*:1;iqn.x.*:0 readers=iqn.2007-10.*\n"
    )
    listed = await good("iscsi-ls", "-s", f"iscsi://{served.portal()}/")
    assert "Lun:1 " in listed
    assert "Lun:0 " not in listed
    assert "LOGICAL_UNIT_NOT_SUPPORTED" in (await run("iscsi-inq", url(served, ""))).text
    there = f"iscsi://{served.portal()}/{BASE}:target0/1"
    assert "CONNECTED" in await good("iscsi-inq", there)


@ensureDeferred
async def test_discoveryLine(serve: Serve) -> None:
    """Where a line says who may ask for targets, others may still use those that they know."""
    lines = "extent0 %/a 0 20MB\ntarget0 extent0 any\ndiscovery any {}\n"
    for words in ("users=joe", "initiators=iqn.x.*", "auth=none initiators=iqn.x.*"):
        served = await serve(lines.format(words).replace("%/", f"%/{len(words)}"), users=USERS)
        refused = await run("iscsi-ls", f"iscsi://{AGC}{served.portal()}/")
        assert "Authorization failure(514)" in refused.text
        assert "CONNECTED" in await good("iscsi-inq", url(served, AGC))
    served = await serve(lines.format("auth=none"), users=USERS)
    assert "target0" in await good("iscsi-ls", f"iscsi://{served.portal()}/")


@ensureDeferred
async def test_initiators(serve: Serve) -> None:
    """A target for other initiators is not listed, and logins to it are refused."""
    served = await serve("extent0 %/a 0 20MB\ntarget0 extent0 any initiators=iqn.1999-01.org.example:*\n")
    assert "target0" not in await good("iscsi-ls", f"iscsi://{served.portal()}/")
    assert "Authorization failure(514)" in (await run("iscsi-inq", url(served, ""))).text


@ensureDeferred
async def test_groups(serve: Serve) -> None:
    """A target of one portal group is listed and found there, and not elsewhere."""
    lines = "extent0 %/a 0 20MB\nextent1 %/b 0 20MB\ntarget0 extent0 any portals=2\ntarget1 extent1 any\n"
    served = await serve(lines, tags=(1, 2))
    first, second = (f"iscsi://{served.portal(family)}" for family in (4, 6))
    listed = await good("iscsi-ls", first + "/")
    assert "target0" not in listed
    assert f"target1 Portal:{served.portal()},1\n" in listed
    assert f"target1 Portal:{served.portal(6)},2\n" in listed
    listed = await good("iscsi-ls", "-s", second + "/")
    assert f"target0 Portal:{served.portal(6)},2\n" in listed
    assert f"target0 Portal:{served.portal()}" not in listed
    assert "CONNECTED" in await good("iscsi-inq", f"{second}/{BASE}:target0/0")
    assert "Target not found(515)" in (await run("iscsi-inq", f"{first}/{BASE}:target0/0")).text


@ensureDeferred
async def test_excluded(serve: Serve) -> None:
    """A host that no target admits is cut off."""
    served = await serve("extent0 %/a 0 20MB\ntarget0 extent0 any,!127.0.0.0/8\n")
    refused = await run("iscsi-ls", f"iscsi://{served.portal()}/")
    assert refused.status != 0
