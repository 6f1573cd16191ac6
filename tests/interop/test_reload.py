"""A running daemon reads its files anew, while real initiators use it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred

from iscsi_twisted.initiator import LUN, Initiator
from tests.support.clients import BASE, good, run, watch
from tests.support.daemon import Daemon

ONE = "extent0 a 0 32MB\ntarget0 extent0 any\n"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """One that is not started yet."""
    made = Daemon(tmp_path)
    yield made
    if made.process is not None:
        pytest_twisted.blockon(made.process.stop())


@ensureDeferred
async def test_untouched(daemon: Daemon) -> None:
    """While iscsi-perf works on a target others come, grow and go, and a broken file changes nothing."""
    await daemon.start(ONE)
    log: list[str] = []
    perf = watch(
        "iscsi-perf",
        "-i",
        "iqn.2001-04.com.example:busy",
        "-m",
        "16",
        "-r",
        "-t",
        "14",
        daemon.url("target0"),
    )
    await daemon.process.line("Normal login from iqn.2001-04.com.example:busy")
    other = "extent1 b 0 1MB\ntarget1 extent1 any\n"
    assert "added" in await daemon.reload(ONE + other)
    assert "target1" in await good("iscsi-ls", f"iscsi://{daemon.portal}/")
    assert "Total size:1048576" in await daemon.capacity("target1")
    log.append(daemon.process.output)
    await daemon.reload(ONE + other.replace("1MB", "3MB"))
    assert "Total size:3145728" in await daemon.capacity("target1")
    log.append(daemon.process.output)
    await daemon.reload(ONE + other + "target2 extent9 any\nnonsense\n", until="nothing was changed")
    assert "targets:5: " in daemon.process.output
    assert "targets:6: " in daemon.process.output
    assert "Total size:3145728" in await daemon.capacity("target1")
    log.append(daemon.process.output)
    assert "removed" in await daemon.reload(ONE)
    assert "target1" not in await good("iscsi-ls", f"iscsi://{daemon.portal}/")
    assert "(516)" in (await run("iscsi-inq", daemon.url("target1"))).text
    log.append(daemon.process.output)
    await perf.ended
    busy = [line for line in "".join(log).splitlines() if "com.example:busy" in line]
    assert busy == [], busy
    text = "\n".join(perf.lines)
    assert "iops average" in text
    assert "error" not in text.lower()


@ensureDeferred
async def test_removed(daemon: Daemon) -> None:
    """libiscsi logs out when its target is removed, and is told that it is gone when it comes back."""
    other = "extent1 b 0 8MB\ntarget1 extent1 any\n"
    await daemon.start(ONE + other)
    perf = watch(
        "iscsi-perf", "-i", "iqn.2001-04.com.example:busy", "-x", "1", "-t", "20", daemon.url("target1")
    )
    await daemon.process.line("Normal login from iqn.2001-04.com.example:busy")
    assert "1 sessions end" in await daemon.reload(ONE)
    await daemon.process.line("< Normal logout from iqn.2001-04.com.example:busy")
    await daemon.process.line("(status 0204h)")
    if not perf.ended.called:
        await perf.interrupt()
    # The file is free: another target may have it.
    assert "added" in await daemon.reload(ONE + other.replace("target1", "target2"))
    assert "Total size:8388608" in await daemon.capacity("target2")


@ensureDeferred
async def test_moved(daemon: Daemon) -> None:
    """A file goes from one target to another in one go, with what is in it."""
    two = "extent0 a 0 8MB\nextent1 b 0 16MB\n"
    await daemon.start(two + "target0 extent0 any\ntarget1 extent1 any\n")
    await good("qemu-io", "-f", "raw", "-c", "write -P 7 0 64k", daemon.url("target0"))
    await daemon.reload(two + "target0 extent1 any\ntarget2 extent0 any\n")
    await good("qemu-io", "-f", "raw", "-c", "read -P 7 0 64k", daemon.url("target2"))
    assert "Total size:16777216" in await daemon.capacity("target0")


@ensureDeferred
async def test_mirror(daemon: Daemon) -> None:
    """A mirror gets another member while it serves, and its data are there."""
    three = "extent0 a 0 8MB\nextent1 b 0 8MB\nextent2 c 0 8MB\n"
    await daemon.start(three + "device0 RAID1 extent0 extent1\ntarget0 device0 any\n")
    await good("qemu-io", "-f", "raw", "-c", "write -P 7 0 64k", daemon.url("target0"))
    await daemon.reload(three + "device0 RAID1 extent0 extent2\ntarget0 device0 any\n")
    await good(
        "qemu-io", "-f", "raw", "-c", "read -P 7 0 64k", "-c", "write -P 8 64k 64k", daemon.url("target0")
    )
    assert not any(word in daemon.process.output for word in ("Traceback", "unexpected failure"))


@ensureDeferred
async def test_attention(daemon: Daemon) -> None:
    """A session that lasts learns of another size by a unit attention, and of LUNs that have come."""
    from twisted.internet import reactor

    await daemon.start(ONE)
    session = await Initiator(reactor).login(daemon.portal, f"{BASE}:target0")
    lun = LUN(session, 0)
    changed: list[bool] = []
    await lun.open(lambda: changed.append(True))
    assert lun.size == 32 << 20
    await daemon.reload("extent0 a 0 64MB\nextent1 c 0 1MB\ntarget0 extent0 extent1 any\n")
    await lun.read(0, 512)
    assert changed
    capacity = await lun.capacity()
    assert capacity.blocks * 512 == 64 << 20
    second = LUN(session, 1)
    await second.open(lambda: None)
    assert second.size == 1 << 20
    await session.logout()


@ensureDeferred
async def test_users(daemon: Daemon) -> None:
    """New users and secrets hold at once; a user that is gone is asked to go."""
    await daemon.start(ONE, "agc:chap:correct-horse-battery\njoe:chap:another-secret-12\n")
    agc, joe = "agc%correct-horse-battery@", "joe%another-secret-12@"
    perf = watch(
        "iscsi-perf",
        "-i",
        "iqn.2001-04.com.example:busy",
        "-x",
        "1",
        "-t",
        "20",
        daemon.url("target0", 0, joe),
    )
    await daemon.process.line("Normal login from iqn.2001-04.com.example:busy")
    await good("iscsi-inq", daemon.url("target0", 0, agc))
    await daemon.reload(ONE, "agc:chap:changed-horse-battery\nann:chap:third-secret-123\n")
    assert "there is no user 'joe' any more" in daemon.process.output
    await daemon.process.line("< Normal logout from iqn.2001-04.com.example:busy")
    for user, status in (
        (agc, False),
        (joe, False),
        ("agc%changed-horse-battery@", True),
        ("ann%third-secret-123@", True),
    ):
        assert ((await run("iscsi-inq", daemon.url("target0", 0, user))).status == 0) is status
    if not perf.ended.called:
        await perf.interrupt()


def spoilers(daemon: Daemon) -> Iterator[Callable[[], None]]:
    """Everything that may have become of the two files, and lets nobody in."""
    targets, auths = daemon.directory / "targets", daemon.directory / "auths"
    yield lambda: targets.write_text("nonsense\n")  # type: ignore[return-value]
    yield lambda: auths.write_text("agc:chap:one:two\n")  # type: ignore[return-value]
    yield lambda: auths.write_text("")  # type: ignore[return-value]
    yield lambda: auths.chmod(0o666)
    yield lambda: targets.write_bytes(bytes(65 << 20))  # type: ignore[return-value]
    for path in (targets, auths):

        def replace(make: Callable[[Path], Any], path: Path = path) -> Callable[[], None]:
            return lambda: (path.unlink(), make(path))  # type: ignore[func-returns-value,return-value]

        yield replace(Path.mkdir)
        yield replace(os.mkfifo)
        yield replace(lambda path: path.symlink_to("/dev/zero"))
        yield replace(lambda path: path.symlink_to(path))
        yield replace(lambda path: None)


def clear(path: Path) -> None:
    """Whatever it is, it goes."""
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


@ensureDeferred
async def test_storm(daemon: Daemon) -> None:
    """
    Signals in hundreds, with good files and with all kinds of broken ones, while iscsi-perf works on and
    others log in: nobody is let in who should not be, nobody is kept out, nothing is left behind.
    """
    users = "agc:chap:correct-horse-battery\n"
    agc = "agc%correct-horse-battery@"
    two = ONE + "extent1 b 0 1MB\ntarget1 extent1 any\n"
    await daemon.start(two, users)
    pid = daemon.process.process.pid

    def hangUp(times: int) -> None:
        for _ in range(times):
            os.kill(pid, signal.SIGHUP)

    perf = watch(
        "iscsi-perf", "-i", "iqn.2001-04.com.example:busy", "-m", "16", "-r", "-t", "15",
        daemon.url("target0", 0, agc),
    )  # fmt: skip
    await daemon.process.line("Normal login from iqn.2001-04.com.example:busy")
    await daemon.reload(two, users)
    kept = len(os.listdir(f"/proc/{pid}/fd"))
    log = ""
    for spoil in spoilers(daemon):
        daemon.process.output = ""
        spoil()
        hangUp(3)
        clients = [
            run("iscsi-inq", daemon.url("target1", 0, agc)),
            run("iscsi-ls", f"iscsi://{agc}{daemon.portal}/"),
            run("iscsi-inq", daemon.url("target1")),
            run("iscsi-ls", f"iscsi://{daemon.portal}/"),
        ]
        outcomes = [await each for each in map(Deferred.fromCoroutine, clients)]
        assert [each.status == 0 for each in outcomes] == [True, True, False, False], outcomes
        assert "Authentication failure(513)" in outcomes[2].text
        await daemon.process.line("nothing was changed")
        log += daemon.process.output
        for path in ("targets", "auths"):
            clear(daemon.directory / path)
        await daemon.reload(two, users)
    daemon.process.output = ""
    hangUp(100)
    await daemon.process.line("reloaded: no changes")
    assert len(os.listdir(f"/proc/{pid}/fd")) <= kept + 2
    await perf.ended
    text = "\n".join(perf.lines)
    assert "iops average" in text
    assert "error" not in text.lower()
    assert not [line for line in log.splitlines() if "com.example:busy" in line or "Traceback" in line]
    hangUp(5)
    os.kill(pid, signal.SIGTERM)
    for _ in range(20):
        hangUp(1)
    ended = await daemon.process.exited
    # twistd ends by the signal that it was told to end with.
    assert ended.signal == signal.SIGTERM, ended


@ensureDeferred
async def test_secrets(daemon: Daemon) -> None:
    """A daemon that traces all, and our tools, show no secret, whatever goes wrong with it."""
    canary, back = "yellow-canary-sings", "green-canary-whistles"
    good_ = f"agc:chap:{canary}:it:{back}\n"
    auths = daemon.directory / "auths"
    auths.write_text(good_)
    auths.chmod(0o600)
    await daemon.start(ONE, good_, "-v", "all")
    mutual = daemon.url("target0", 0, f"agc%{canary}@")
    shown = [await good("iscsi-inq", f"{mutual}?target_user=it&target_password={back}")]
    tool, harness = (f"from iscsi_twisted.cli.{name} import main; main()" for name in ("tool", "harness"))
    for user in ("agc%{}", "nobody%{}", "agc%{}x"):
        url = daemon.url("target0", 0, user.format(canary) + "@")
        shown += [
            (await run("iscsi-inq", url)).text,
            (await run(sys.executable, "-c", tool, "inq", url)).text,
        ]
    options = ("-n", "1", "-h", "127.0.0.1", "-p", str(daemon.port), "-u", "nobody", "--auths", str(auths))
    shown.append((await run(sys.executable, "-c", harness, *options)).text)
    shown.append(daemon.process.output)
    for wrong in (f"agc:chap:{canary}:it:{canary}\n", f"agc:chp:{canary}\n", f"agc:chap:{canary}:x:y:z\n"):
        await daemon.reload(ONE, wrong, until="nothing was changed")
        shown.append(daemon.process.output)
    await daemon.reload(ONE, good_.replace("agc", "joe"))
    shown.append(daemon.process.output)
    text = "\n".join(shown)
    assert "CHAP_" not in text
    for said in (canary, back, canary.encode().hex(), back.encode().hex()):
        assert said not in text
    assert "No matching user configuration entry for `nobody' was found" in text
    assert f"Please add an entry for `nobody' to `{auths}'" in text
