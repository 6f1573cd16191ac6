"""A unit whose target loses what it has not flushed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import WriteError, WriteProtected
from iscsi_twisted.initiator.replaying import Replaying

SIZE = 16
ROOM = 6
"""Bytes in the model: so few that its changes meet."""


class Step:
    """
    What a unit was asked to do and has not answered.

    @ivar stop: the byte after the last that it is about.
    @ivar data: what these bytes are to be.
    """

    def __init__(
        self, unit: VolatileUnit, name: str, offset: int, length: int, data: bytes | None, fua: bool
    ) -> None:
        self.unit, self.name, self.offset, self.stop = unit, name, offset, offset + length
        self.data, self.fua = data, fua
        self.answer: Deferred[Any] = Deferred()

    def carryOut(self) -> Any:
        """Do it, without an answer."""
        unit, place = self.unit, slice(self.offset, self.stop)
        if self.name == "read":
            return bytes(unit.contents[place])
        if self.name == "flush":
            unit.medium[:] = unit.contents
            return None
        unit.contents[place] = self.data or b""
        if self.fua:
            unit.medium[place] = self.data or b""
        return None

    def end(self) -> None:
        """Do it, and answer."""
        self.unit.steps.remove(self)
        self.answer.callback(self.carryOut())

    def fail(self, error: Exception) -> None:
        """Do not do it, and answer that."""
        self.unit.steps.remove(self)
        self.answer.errback(error)


class VolatileUnit:
    """
    A unit with a write cache, which can be lost.

    @ivar contents: as they are read.
    @ivar medium: what is durable.
    @ivar steps: what it was asked to do, oldest first.
    """

    def __init__(self, size: int = SIZE, forced: bool = True, cached: bool = True) -> None:
        self.size, self.forced, self.cached = size, forced, cached
        self.contents, self.medium = bytearray(size), bytearray(size)
        self.steps: list[Step] = []

    def _step(self, name: str, offset: int, length: int, data: bytes | None = None, fua: bool = False) -> Any:
        step = Step(self, name, offset, length, data, fua)
        self.steps.append(step)
        return step.answer

    def read(self, offset: int, length: int) -> Any:
        return self._step("read", offset, length)

    def write(self, offset: int, data: Any, *, fua: bool = False) -> Any:
        return self._step("write", offset, len(data), bytes(data), fua)

    def flush(self) -> Any:
        return self._step("flush", 0, self.size)

    def discard(self, offset: int, length: int) -> Any:
        return self._step("discard", offset, length, bytes(length))

    def zero(self, offset: int, length: int, unmap: bool = False) -> Any:
        return self._step("unmap" if unmap else "zero", offset, length, bytes(length))

    def lose(self, keep: Callable[[int], bool] = lambda place: False) -> None:
        """The target is started anew; of what was not flushed it has only those bytes."""
        for place in range(self.size):
            if keep(place):
                self.medium[place] = self.contents[place]
        self.contents[:] = self.medium

    def settle(self) -> None:
        """Answer all."""
        while self.steps:
            self.steps[0].end()


class ReplayingTests(SynchronousTestCase):
    """Tests of L{Replaying}."""

    def make(self, **how: Any) -> tuple[VolatileUnit, Replaying]:
        """A unit, and what speaks to it."""
        unit = VolatileUnit(forced=how.pop("forced", True), cached=how.pop("cached", True))
        return unit, Replaying(unit, "iscsi://h/t/0", **how)

    def done(self, unit: VolatileUnit, waiting: Deferred[Any]) -> Any:
        """The result of what the unit can do now."""
        unit.settle()
        return self.successResultOf(waiting)

    def names(self, unit: VolatileUnit) -> list[tuple[str, int, int]]:
        """What the unit was asked to do."""
        return [(step.name, step.offset, step.stop) for step in unit.steps]

    def test_again(self) -> None:
        """What was lost is written again, each in its way, before anything else happens."""
        unit, disk = self.make()
        self.done(unit, disk.write(0, b"aaaa"))
        for change in (disk.zero(1, 1, False), disk.zero(4, 2, True), disk.discard(6, 2)):
            self.done(unit, change)
        unit.lose()
        disk.restarted()
        reading, writing = disk.read(0, 4), disk.write(12, b"z")
        self.assertEqual(
            self.names(unit),
            [("write", 0, 1), ("zero", 1, 2), ("write", 2, 4), ("unmap", 4, 6), ("discard", 6, 8)],
        )
        self.assertEqual(self.done(unit, reading), b"a\0aa")
        self.successResultOf(writing)

    def test_flushed(self) -> None:
        """What was flushed is not written again."""
        unit, disk = self.make()
        self.done(unit, disk.write(0, b"a"))
        flushing = disk.flush()
        late = disk.write(1, b"b")
        unit.steps[1].end()
        self.successResultOf(late)
        self.done(unit, flushing)
        disk.restarted()
        self.assertEqual(self.names(unit), [("write", 1, 2)])

    def test_nothing(self) -> None:
        """Where nothing can be lost nothing is done."""
        for how in ({"cached": False}, {"durable": True}):
            unit, disk = self.make(**how)
            self.done(unit, disk.write(0, b"a"))
            self.assertEqual(disk.kept, 0)
            disk.restarted()
            self.assertEqual(unit.steps, [])

    def test_durable(self) -> None:
        """Changes are durable before they end where they have to be, also without FUA."""
        for forced in (True, False):
            unit, disk = self.make(durable=True, forced=forced)
            unit.contents[:] = unit.medium[:] = b"x" * SIZE
            for change in (disk.write(0, b"a"), disk.zero(1, 1, False)):
                self.done(unit, change)
                self.assertEqual(unit.medium, unit.contents)
            self.assertEqual(unit.medium[:3], b"a\0x")

    def test_lostBeforeFlush(self) -> None:
        """What was lost before it could be made durable is written again first."""
        unit, disk = self.make(durable=True, forced=False)
        writing = disk.write(0, b"a")
        unit.steps[0].end()
        self.assertEqual(self.names(unit), [("flush", 0, SIZE)])
        unit.lose()
        disk.restarted()
        unit.steps[0].end()
        self.assertNoResult(writing)
        self.done(unit, writing)
        self.assertEqual((unit.medium[:1], disk.kept), (b"a", 0))

    def test_duringFlush(self) -> None:
        """A flush meanwhile is answered when what was lost is durable."""
        unit, disk = self.make()
        self.done(unit, disk.write(0, b"a"))
        flushing = disk.flush()
        unit.lose()
        disk.restarted()
        unit.steps[0].end()
        self.assertNoResult(flushing)
        self.done(unit, flushing)
        self.assertEqual(unit.medium[:1], b"a")

    def test_staleRead(self) -> None:
        """What was read just before the news came is read again."""
        unit, disk = self.make()
        self.done(unit, disk.write(0, b"a"))
        reading = disk.read(0, 1)
        unit.lose()
        disk.restarted()
        unit.steps[0].end()
        self.assertEqual(self.done(unit, reading), b"a")

    def test_newer(self) -> None:
        """A write that was under way is not undone by what is older."""
        unit, disk = self.make()
        self.done(unit, disk.write(0, b"aaa"))
        writing = disk.write(1, b"b")
        unit.lose()
        disk.restarted()
        self.assertEqual(self.names(unit), [("write", 1, 2)])
        self.done(unit, writing)
        self.assertEqual(unit.contents[:3], b"aba")

    def test_full(self) -> None:
        """Half full, a flush begins; when there is no more room, changes are durable before they end."""
        for forced in (True, False):
            unit, disk = self.make(limit=8, forced=forced)
            for offset in (0, 4):
                writing = disk.write(offset, b"aaaa")
                unit.steps[-1].end()
                self.successResultOf(writing)
            self.assertEqual(self.names(unit), [("flush", 0, SIZE)])
            writing = disk.write(8, b"bbbb")
            discarding = disk.discard(0, 2)
            while len(unit.steps) > 1:
                unit.steps[1].end()
            self.successResultOf(writing)
            self.successResultOf(discarding)
            self.assertEqual((unit.medium[:4], unit.medium[8:12]), (b"\0\0aa", b"bbbb"))
            unit.settle()
            self.assertEqual(disk.kept, 0)

    def test_badFlush(self) -> None:
        """What a flush in the background failed with the next one that is asked for fails with, once."""
        unit, disk = self.make(limit=8)
        writing = disk.write(0, b"aaaa")
        unit.steps[0].end()
        self.successResultOf(writing)
        unit.steps[0].fail(WriteError("bad"))
        self.done(unit, disk.write(0, b"aaaa"))
        self.assertRaises(WriteError, disk.flush)
        self.assertEqual(disk.kept, 4)
        self.done(unit, disk.flush())
        self.assertEqual(disk.kept, 0)

    def test_refused(self) -> None:
        """While it cannot be written again all fails and says why; then it is tried again."""
        unit, disk = self.make()
        self.done(unit, disk.write(0, b"a"))
        unit.lose()
        disk.restarted()
        for ask in (lambda: disk.read(0, 1), lambda: disk.write(1, b"b"), disk.flush):
            waiting = ask()
            (step,) = unit.steps
            step.fail(WriteProtected("the medium is locked"))
            self.assertIn("locked", self.failureResultOf(waiting, WriteError).getErrorMessage())
            self.assertEqual(unit.steps, [])
        self.assertEqual(self.done(unit, disk.read(0, 1)), b"a")

    def test_twice(self) -> None:
        """A target that is started again meanwhile gets all of it again; one failure waits for the others."""
        unit, disk = self.make()
        self.done(unit, disk.write(0, b"a"))
        self.done(unit, disk.write(2, b"b"))
        disk.restarted()
        unit.steps[0].end()
        unit.lose()
        disk.restarted()
        unit.steps[0].end()
        self.assertEqual(self.names(unit), [("write", 0, 1), ("write", 2, 3)])
        unit.steps[0].fail(WriteError("no"))
        reading = disk.read(0, 1)
        self.assertEqual(self.names(unit), [("write", 2, 3)])
        unit.steps[0].end()
        self.failureResultOf(reading, WriteError)


def forget(those: list[Any], one: Any) -> None:
    """Take this one out, not another that is equal."""
    those[:] = [each for each in those if each is not one]


class Machine(RuleBasedStateMachine):
    """
    Whatever is acknowledged is read from then on, and what was flushed is durable.

    Bytes have the values that concurrent changes may leave.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unit = VolatileUnit(ROOM)
        self.disk = Replaying(self.unit, "unit", limit=5)
        self.may: list[set[int]] = [{0} for _ in range(ROOM)]
        self.changing: list[tuple[int, bytes]] = []
        self.watching: list[tuple[list[set[int]], int]] = []
        self.flushing: list[dict[int, int]] = []
        self.wrong: list[str] = []
        self.told = True
        self.value = self.count = 0
        self.latest = [0] * ROOM

    places = st.tuples(st.integers(0, ROOM - 1), st.integers(1, 3))

    def begin(self, offset: int, data: bytes, waiting: Deferred[Any]) -> None:
        """A change has begun."""
        change = offset, data
        self.changing.append(change)
        self.count += 1
        number = self.count
        for place, value in enumerate(data, offset):
            self.may[place].add(value)

        def done(_: Any) -> None:
            forget(self.changing, change)
            for place, value in enumerate(data, offset):
                if number < self.latest[place]:
                    # One that was durable first has ended late.
                    continue
                self.latest[place] = number
                others = [
                    other[place - start]
                    for start, other in self.changing
                    if start <= place < start + len(other)
                ]
                # Changes of the same bytes are made in the order in which they came.
                self.may[place] = {value, *others}

        waiting.addCallback(done)

    @rule(place=places)
    def write(self, place: tuple[int, int]) -> None:
        offset, length = place
        self.value = self.value % 255 + 1
        data = bytes([self.value]) * min(length, ROOM - offset)
        self.begin(offset, data, self.disk.write(offset, data))

    @rule(place=places, how=st.integers(0, 2))
    def clear(self, place: tuple[int, int], how: int) -> None:
        offset, length = place[0], min(place[1], ROOM - place[0])
        disk = self.disk
        waiting = disk.discard(offset, length) if how == 2 else disk.zero(offset, length, bool(how))
        self.begin(offset, bytes(length), waiting)

    @rule(place=places)
    def read(self, place: tuple[int, int]) -> None:
        offset, length = place[0], min(place[1], ROOM - place[0])
        # What a read may give grows while it is under way.
        may = [set(values) for values in self.may[offset : offset + length]]
        watched = may, offset
        self.watching.append(watched)

        def done(data: bytes) -> None:
            forget(self.watching, watched)
            if not all(map(set.__contains__, may, data)):
                self.wrong.append(f"at {offset} {data!r} was read instead of one of {may}")

        self.disk.read(offset, length).addCallback(done)

    @rule()
    def flush(self) -> None:
        # Nothing that was acknowledged by now may be older than this in what is durable then.
        fixed = {place: next(iter(values)) for place, values in enumerate(self.may) if len(values) == 1}
        self.flushing.append(fixed)

        def done(_: Any) -> None:
            forget(self.flushing, fixed)
            lost = {place for place in fixed if self.unit.medium[place] != fixed[place]}
            if lost:
                self.wrong.append(f"{lost} are not {fixed} after a flush")

        self.disk.flush().addCallback(done)

    @invariant()
    def concede(self) -> None:
        """What a change touches may be that, in reads and in what flushes leave."""
        for offset, data in self.changing:
            for place, value in enumerate(data, offset):
                for may, start in self.watching:
                    if start <= place < start + len(may):
                        may[place - start].add(value)
                for fixed in self.flushing:
                    fixed.pop(place, None)

    @invariant()
    def right(self) -> None:
        assert not self.wrong, self.wrong

    @precondition(lambda self: self.unit.steps)
    @rule(which=st.integers(0, 99))
    def answer(self, which: int) -> None:
        self.tell()
        steps = self.unit.steps
        if steps:
            steps[which % len(steps)].end()

    @rule(done=st.integers(0, 255), kept=st.sampled_from([0, 0, 0b010101, 0b110000]))
    def restart(self, done: int, kept: int) -> None:
        for index, step in enumerate(self.unit.steps):
            if done >> index & 1:
                # Its answer is lost, and it is sent again.
                step.carryOut()
        self.unit.lose(lambda place: bool(kept >> place & 1))
        self.told = False

    @rule()
    def tell(self) -> None:
        """The unit attention comes before the first answer."""
        if not self.told:
            self.told = True
            self.disk.restarted()

    def teardown(self) -> None:
        self.tell()
        self.unit.settle()
        self.flush()
        for place in range(0, ROOM, 2):
            self.read((place, 2))
        self.unit.settle()
        self.right()
        assert not (self.changing or self.watching or self.flushing)
        assert not self.disk.kept


class ModelTests(SynchronousTestCase):
    """Random changes, answers and restarts."""

    def test_model(self) -> None:
        """No byte that was acknowledged is lost."""
        run_state_machine_as_test(Machine, settings=settings(max_examples=200, stateful_step_count=30))
