"""
Mirrors of real processes that are killed: what was flushed is there whoever serves it, and members are equal
in the end.
"""

from __future__ import annotations

import filecmp
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from iscsi_twisted.storage.record import Record
from tests.bench.servers import Ours, OursOf
from tests.long.changing import LIST
from tests.long.kill import BLOCKS, Writer, lost

PATIENCE = 60.0
"""Seconds in which members have to be in sync again."""

AWAY = 24.0
"""Seconds after which the session to a remote member has given up."""


class Mirrored(OursOf):
    """
    A target with a mirror of two files, or of a file and a unit of another target.

    @ivar members: the files that have to be equal in the end.
    """

    name = "mirrored"

    def __init__(self, folder: Path, other: Ours | None = None, options: str = "") -> None:
        size = BLOCKS * 512
        second = str(folder / self.name / "b") if other is None else other.url
        super().__init__(
            folder,
            f"extent0 {folder / self.name / 'a'} 0 {size}\nextent1 {second} 0 {size}\n"
            f"device0 RAID1 extent0 extent1 {options}\ntarget0 device0 any\n",
        )
        self.members = (self.folder / "a", self.folder / "b" if other is None else other.disk)

    def states(self) -> dict[str, str]:
        """The state of each member, as the log told it last."""
        found = {}
        for line in (self.folder / "log").read_text("utf-8", "replace").splitlines():
            if line.startswith('{"event": "member"'):
                event = json.loads(line)
                found[event["member"]] = event["state"]
        return found

    def wait(self, wanted: set[str]) -> list[str]:
        """Wait until there are no other states than these; a fault if that never comes."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if set(self.states().values()) == wanted:
                return []
            time.sleep(0.05)
        return [f"members are {self.states()}, and not {wanted}, after {PATIENCE} s"]

    def differences(self) -> list[str]:
        """Stop it, and compare the members."""
        faults = self.wait({"in sync"})
        self.stop()
        if not filecmp.cmp(*self.members, shallow=False):
            faults.append("members differ")
        return faults


def mirrors(seconds: float, seed: int) -> tuple[list[str], list[str]]:
    """
    Kill a target with a mirror and start it again for so long, three times at least; then a target that has
    one of its members; then let that hang and go on, and kill what has the mirror meanwhile; then one whose
    members come and go.

    @return: what was done, and what went wrong.
    """
    random = Random(seed)
    told: list[str] = []
    parts = (killed, severed, hung, stranded, changed)
    for part in parts:
        more, faults = part(seconds / len(parts), random)
        told += more
        if faults:
            break
    return told, faults


def killed(seconds: float, random: Random) -> tuple[list[str], list[str]]:
    """The target is killed; now and then a member is missing when it starts again."""
    deadline = time.monotonic() + seconds
    faults: list[str] = []
    acknowledged: dict[int, int] = {}
    kills = missing = 0
    with tempfile.TemporaryDirectory() as folder:
        victim = Mirrored(Path(folder))
        victim.start()
        away: Path | None = None
        while (kills < 3 or time.monotonic() < deadline) and not faults:
            writer = Writer(victim.port, random, acknowledged)
            writer.start()
            time.sleep(random.uniform(0.05, 1.0))
            if away is None and kills % 2:
                # It is killed while it resyncs, or when it has.
                faults += victim.wait({"in sync"})
                away = random.choice(victim.members)
                missing += 1
            victim.kill()
            writer.join()
            kills += 1
            if away is not None and away.exists():
                os.rename(away, f"{away}.away")
            elif away is not None:
                os.rename(f"{away}.away", away)
                away = None
            victim.start()
            faults += lost(victim.port, writer) + ([writer.fault] if writer.fault else [])
        if away is not None:
            victim.stop()
            os.rename(f"{away}.away", away)
            victim.start()
        faults += victim.differences()
    return [
        f"{kills} kills, {missing} with a member missing, {sum(acknowledged.values())} versions kept"
    ], faults


def severed(seconds: float, random: Random) -> tuple[list[str], list[str]]:
    """The target of one member is killed; the client notices nothing."""

    def cut(near: Mirrored, far: Ours, kills: int) -> list[str]:
        far.kill()
        if kills % 3:
            time.sleep(random.uniform(0.0, 1.0))
            far.start()
            return []
        time.sleep(AWAY)
        faults = []
        if "failed" not in near.states().values():
            faults.append(f"the remote member was away for {AWAY} s, and is {near.states()}")
        far.start()
        return faults + near.wait({"in sync"})

    kills, versions, faults = disturbed(seconds, random, "", cut)
    return [f"{kills} kills of a remote member, {versions} versions kept"], faults


def hung(seconds: float, random: Random) -> tuple[list[str], list[str]]:
    """
    The target of one member is stopped, and goes on later with what it was told before; the client notices
    nothing.
    """

    def stop(near: Mirrored, far: Ours, _: int) -> list[str]:
        assert far.process is not None
        far.process.send_signal(signal.SIGSTOP)
        faults = near.wait({"in sync", "failed"})
        time.sleep(random.uniform(0.0, 4.0))
        far.process.send_signal(signal.SIGCONT)
        return faults + near.wait({"in sync"})

    stops, versions, faults = disturbed(seconds, random, "patience=1", stop)
    return [f"a remote member hung {stops} times, {versions} versions kept"], faults


def stranded(seconds: float, random: Random) -> tuple[list[str], list[str]]:
    """
    The target of one member is stopped; that with the mirror is killed, and serves without the member, which
    later goes on with what it was told before.
    """
    deadline = time.monotonic() + seconds
    faults: list[str] = []
    acknowledged: dict[int, int] = {}
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        near, far = apart(Path(folder), "patience=1")
        while (count < 2 or time.monotonic() < deadline) and not faults:
            count += 1
            for hangs in (True, False):
                writer = Writer(near.port, random, acknowledged)
                writer.start()
                time.sleep(random.uniform(0.05, 1.0))
                assert far.process is not None
                if hangs:
                    far.process.send_signal(signal.SIGSTOP)
                    # It may have failed by then or not, and what is under way may be there or not.
                    time.sleep(random.uniform(0.0, 2.0))
                else:
                    far.process.send_signal(signal.SIGCONT)
                    faults += near.wait({"in sync"})
                near.kill()
                writer.join()
                near.start()
                faults += lost(near.port, writer) + ([writer.fault] if writer.fault else [])
        faults += ended(near, far)
    versions = sum(acknowledged.values())
    return [f"{count} kills while a remote member hung, {versions} versions kept"], faults


class Changing(Ours):
    """
    A target with a mirror whose members come and go.

    @ivar seed: how they do that; None for not at all.
    """

    name = "changing"
    seed: int | None = None

    def arguments(self) -> list[str]:
        seed = [] if self.seed is None else [str(self.seed)]
        return [sys.executable, "-m", "tests.long.changing", str(self.port), str(self.folder), *seed]

    def told(self, word: str) -> list[str]:
        """Its lines that begin so."""
        lines = (self.folder / "log").read_text("utf-8", "replace").splitlines()
        return [line for line in lines if line.startswith(word)]

    def settled(self) -> list[str]:
        """Start it with the members that it has, wait until they hold the same, stop it, and compare them."""
        self.seed = None
        self.start()
        deadline = time.monotonic() + PATIENCE
        while not self.told("settled:") and time.monotonic() < deadline:
            time.sleep(0.05)
        faults = self.told("surprise:")
        self.stop()
        numbers = json.loads((self.folder / LIST).read_text())
        if [f"settled: {' '.join(map(str, numbers))}"] != self.told("settled:"):
            return [*faults, f"members {numbers} do not come to hold the same: {self.told('settled:')}"]
        disks = [self.folder / f"disk{number}" for number in numbers]
        faults += [f"{disk} differs" for disk in disks[1:] if not filecmp.cmp(disks[0], disk, shallow=False)]
        return faults + self.recorded(disks)

    def recorded(self, disks: list[Path]) -> list[str]:
        """Whether its newest record knows just these members, and that none lacks anything."""
        records = [Record.decode(each.read_bytes()) for each in (self.folder / "state" / "mirrors").iterdir()]
        newest = max(records, key=lambda record: record.generation)
        behind = [member.title for member in newest.members if member.behind or not member.present]
        members = sorted(member.title for member in newest.members)
        if behind or newest.marked or newest.unverified or members != sorted(map(str, disks)):
            return [f"the record tells of {members}, of which {behind} lack something"]
        return []


def changed(seconds: float, random: Random) -> tuple[list[str], list[str]]:
    """The target is killed while members are added, replaced and removed under I/O."""
    deadline = time.monotonic() + seconds
    faults: list[str] = []
    acknowledged: dict[int, int] = {}
    kills = changes = 0
    with tempfile.TemporaryDirectory() as folder:
        victim = Changing(Path(folder))
        victim.seed = random.randrange(1 << 32)
        victim.start()
        while (kills < 3 or time.monotonic() < deadline) and not faults:
            writer = Writer(victim.port, random, acknowledged)
            writer.start()
            time.sleep(random.uniform(0.2, 2.0))
            if not writer.is_alive():
                faults.append(f"the client has ended: {writer.fault}")
            victim.kill()
            writer.join()
            kills += 1
            changes += len(victim.told("done:"))
            faults += victim.told("surprise:")
            victim.seed = random.randrange(1 << 32)
            victim.start()
            faults += lost(victim.port, writer) + ([writer.fault] if writer.fault else [])
        victim.stop()
        faults += victim.settled()
    versions = sum(acknowledged.values())
    return [f"{kills} kills while members came and went ({changes} times), {versions} versions kept"], faults


def disturbed(
    seconds: float, random: Random, options: str, disturb: Callable[[Mirrored, Ours, int], list[str]]
) -> tuple[int, int, list[str]]:
    """
    Do something to the target of one member again and again, while a client writes to the mirror.

    @param options: of the mirror.
    @param disturb: does it, and says what went wrong; given how often that is by now.
    @return: how often it was done, how many versions of blocks were kept, and what went wrong.
    """
    deadline = time.monotonic() + seconds
    faults: list[str] = []
    acknowledged: dict[int, int] = {}
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        near, far = apart(Path(folder), options)
        writer = Writer(near.port, random, acknowledged)
        writer.start()
        while (count < 3 or time.monotonic() < deadline) and writer.is_alive() and not faults:
            time.sleep(random.uniform(0.05, 1.0))
            count += 1
            faults += disturb(near, far, count)
        if not writer.is_alive():
            faults.append(f"the client has ended: {writer.fault}")
        faults += near.wait({"in sync"})
        near.kill()
        writer.join()
        near.start()
        faults += lost(near.port, writer) + ([writer.fault] if writer.fault else [])
        faults += ended(near, far)
    return count, sum(acknowledged.values()), faults


def apart(folder: Path, options: str) -> tuple[Mirrored, Ours]:
    """A target with a mirror of a file and of the unit of another, and that other; both serve."""
    far = Ours(folder)
    with open(far.disk, "wb") as file:
        file.truncate(BLOCKS * 512)
    far.start()
    near = Mirrored(folder, far, options)
    near.start()
    return near, far


def ended(near: Mirrored, far: Ours) -> list[str]:
    """Stop both, and compare the members."""
    faults = near.differences()
    far.stop()
    if not filecmp.cmp(*near.members, shallow=False):
        faults.append("the remote member differs")
    return faults
