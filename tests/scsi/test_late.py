"""
Nothing that has ended, or was aborted, is written over what came after it: whatever is aborted, reset and
lost, in whatever order devices answer.
"""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from iscsi_twisted.scsi import cdb, codes, copying, provisioning
from iscsi_twisted.scsi.cdb import Command
from iscsi_twisted.scsi.cdblong import EXTENDED_COPY, WRITE_ATOMIC_16
from iscsi_twisted.scsi.disk import DiskUnit
from tests.scsi.cases import BLOCK
from tests.scsi.copies import CopyCases, PendingCopier, copyList, segment, target
from tests.scsi.devices import MemoryStore
from tests.support.tasks import Nexus, Task, run

PLACES = 4
"""Blocks that are written."""


class Written:
    """
    What is written to some blocks.

    @ivar begun: when; C{ended}, when it had ended, or was aborted.
    @ivar letters: what is then in each block.
    """

    def __init__(self, task: Task, begun: int, letters: dict[int, int]) -> None:
        self.task, self.begun, self.letters = task, begun, letters
        self.ended: int | None = None


class LateTests(CopyCases):
    """Unit 1 is written, and copied to from unit 0, by two nexuses."""

    kind = PendingCopier

    def setUp(self) -> None:
        super().setUp()
        self.patch(copying, "SLICE", BLOCK)
        self.patch(copying, "OFFLOAD_SLICE", BLOCK)
        self.patch(provisioning, "SLICE", BLOCK)
        self.written: list[Written] = []
        self.now = 0
        self.letter = 0
        self.unit = self.units[1]
        self.unit.keepWrites(MemoryStore())
        self.nexuses = [self.nexus, Nexus("iqn.2001-04.com.example:other")]
        self.found(self.nexuses[1])

    def found(self, nexus: Nexus) -> None:
        """A session begins."""
        for unit in self.units.values():
            unit.nexusFound(nexus)
            while unit.takeAttention(nexus) is not None:
                pass

    def begin(self, random: Random) -> None:
        """Write some blocks in some way."""
        self.letter += 1
        first = random.randrange(PLACES)
        count = random.randint(1, PLACES - first)
        letters = dict.fromkeys(range(first, first + count), self.letter)
        command: Command = random.choice((cdb.WRITE_10, cdb.WRITE_SAME_10, WRITE_ATOMIC_16, EXTENDED_COPY))
        unit: DiskUnit = self.unit
        fields = {"lba": first, "length": count}
        data = bytes((self.letter,)) * BLOCK * (1 if command is cdb.WRITE_SAME_10 else count)
        if command is EXTENDED_COPY:
            unit = random.choice((self.units[0], self.units[1]))
            place = self.letter % 50
            letters = {first + each: 128 + place + each for each in range(count)}
            parts = [segment(0, 1, count, place, first)]
            data = copyList([target(self.naa(0)), target(self.naa(1))], parts, self.letter % 256)
            fields = {"length": len(data)}
        task = Task(command.encode(**fields), random.choice(self.nexuses), data, late=random.random() < 0.3)
        self.written.append(Written(task, self.now, letters))
        run(unit, task)

    def source(self) -> bytes:
        """What unit 0 holds: each block another letter than any that is written."""
        return b"".join(bytes((128 + number,)) * BLOCK for number in range(64))

    def live(self) -> list[Written]:
        """What has not ended."""
        return [each for each in self.written if each.ended is None]

    def goOn(self, random: Random) -> None:
        """Something happens to what was begun."""
        kind = random.random()
        pending = [device for device in self.devices if device.pending]  # type: ignore[attr-defined]
        if kind < 0.55 and pending:
            device = random.choice(pending)
            device.fire(random.randrange(len(device.pending)))  # type: ignore[attr-defined]
        elif kind < 0.75:
            self.turns.turn()
        elif kind < 0.85:
            late = [each.task for each in self.live() if each.task.late and each.task.wanted is not None]
            if late:
                task = random.choice(late)
                task.late = False
                assert task.unit is not None
                task.arrive(task.unit)
        elif kind < 0.93 and self.live():
            random.choice(self.live()).task.abort()
        else:
            self.misfortune(random)

    def misfortune(self, random: Random) -> None:
        """A reset, or the end of a session."""
        if random.random() < 0.5:
            for each in self.live():
                # The other unit's copies to this one end as well, though they are answered later.
                each.ended = self.now
                if each.task.unit is self.unit:
                    each.task.abort()
            self.unit.reset(codes.DEVICE_RESET_OCCURRED)
        else:
            place = random.randrange(2)
            old = self.nexuses[place]
            for each in self.live():
                if each.task.nexus is old:
                    each.task.abort()
            for unit in self.units.values():
                unit.nexusLost(old)
            self.nexuses[place] = Nexus(old.initiatorName, old.isid)
            self.found(self.nexuses[place])
        for nexus in self.nexuses:
            while self.unit.takeAttention(nexus) is not None:
                pass

    def look(self) -> None:
        """Note what has ended."""
        self.now += 1
        for each in self.live():
            if each.task.aborted or each.task.status is not None:
                each.ended = self.now

    def settle(self, random: Random) -> None:
        """Let everything come to its end."""
        for each in self.live():
            if each.task.late and each.task.wanted is not None:
                each.task.late = False
                assert each.task.unit is not None
                each.task.arrive(each.task.unit)
        for _ in range(2000):
            for device in self.devices:
                while device.pending:  # type: ignore[attr-defined]
                    device.fire(random.randrange(len(device.pending)))  # type: ignore[attr-defined]
            if not self.turns.waiting:
                break
            self.turns.turn()
        self.look()

    @given(st.integers(0, 1 << 32))
    def test_order(self, seed: int) -> None:
        """What a block holds at the end is not older than anything that was answered well."""
        self.setUp()
        random = Random(seed)
        self.devices[0].content[:] = self.source()
        for device in self.devices:
            device.cancellable = random.random() < 0.5  # type: ignore[attr-defined]
        for _ in range(random.randint(4, 60)):
            self.begin(random) if random.random() < 0.3 else self.goOn(random)
            self.look()
        self.settle(random)
        for place in range(PLACES):
            (letter,) = set(self.devices[1].content[place * BLOCK : (place + 1) * BLOCK])
            whose = [each for each in self.written if each.letters.get(place) == letter]
            since = max((each.ended or 0 for each in whose), default=0)
            newer = [
                each.task.cdb.hex()
                for each in self.written
                if place in each.letters and each.task.status == codes.GOOD and each.begun >= since
                and each not in whose
            ]  # fmt: skip
            self.assertEqual(newer, [], f"block {place} holds {letter}")
        self.assertEqual(self.surprises, [])
