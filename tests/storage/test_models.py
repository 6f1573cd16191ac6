"""
Devices made of devices against a plain list of blocks.

Members complete in any order, and fail.  What a read may give is what its block held at some time between its
beginning and its end; a write that failed may have happened or not, block by block.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
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
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import DeviceError, ReadError, WriteError
from iscsi_twisted.interfaces import isPending
from iscsi_twisted.storage import Concatenation, Delay, Fault, Faults, Overlay, Rate, Slice, Stripe
from tests.support.devices import FakeDevice, FakeOperation

BLOCK = 4096
"""Of the overlay, so that a block of the model is never half of one."""


class Block:
    """
    What one block may hold.

    @ivar values: the letters.
    @ivar writers: writes of it that have not ended.
    @ivar mixed: of those, or of those before them, some ran side by side.
    """

    def __init__(self) -> None:
        self.values = {0}
        self.writers = 0
        self.mixed = False


class Call:
    """
    An operation that was begun.

    @ivar first: its first block; C{count}, how many.
    @ivar letter: what is written; None for a read.
    @ivar allowed: of a read, what each block may be.
    @ivar outcome: the list is empty until it has ended.
    """

    def __init__(self, first: int, count: int, letter: int | None) -> None:
        self.first, self.count, self.letter = first, count, letter
        self.allowed: list[set[int]] = []
        self.outcome: list[Any] = []

    def blocks(self) -> range:
        """The numbers of its blocks."""
        return range(self.first, self.first + self.count)


class Model(RuleBasedStateMachine):
    """A device whose members are L{FakeDevice}s, and what it has to be."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.fakes: list[FakeDevice] = []
        self.device = self.make()
        assert not isPending(self.device.open(lambda: None))
        for fake in self.fakes:
            fake.synchronous = False
        self.blocks = [Block() for _ in range(self.device.size // BLOCK)]
        self.calls: list[Call] = []
        self.letter = 0

    def make(self) -> Any:
        """The device."""
        raise NotImplementedError

    def fake(self, size: int) -> FakeDevice:
        """A member, which answers at once until the device is open."""
        fake = FakeDevice(size, synchronous=True)
        self.fakes.append(fake)
        return fake

    def begin(self, first: int, count: int, letter: int | None, method: Callable[..., Any]) -> None:
        """Begin an operation on a range that is cut to what there is."""
        first %= len(self.blocks)
        call = Call(first, min(count, len(self.blocks) - first), letter)
        if letter is None:
            call.allowed = [set(self.blocks[number].values) for number in call.blocks()]
        else:
            self.writing(call, letter)
        self.calls.append(call)
        self.ask(call, method, call.first * BLOCK, call.count * BLOCK)

    def ask(self, call: Call, method: Callable[..., Any], *arguments: int) -> None:
        """Call the device, and wait for what it answers."""
        try:
            result = method(*arguments)
        except DeviceError as error:
            call.outcome.append(error)
        else:
            if isPending(result):
                result.addCallbacks(call.outcome.append, lambda failure: call.outcome.append(failure.value))
            else:
                call.outcome.append(result)

    def writing(self, call: Call, letter: int) -> None:
        """From now on its blocks may hold that."""
        for number in call.blocks():
            block = self.blocks[number]
            block.mixed = block.mixed or block.writers > 0
            block.writers += 1
            block.values.add(letter)
        for other in self.calls:
            if other.letter is None:
                for number in set(call.blocks()) & set(other.blocks()):
                    other.allowed[number - other.first].add(letter)

    @rule(first=st.integers(0, 99), count=st.integers(1, 12))
    def read(self, first: int, count: int) -> None:
        """Begin a read."""
        self.begin(first, count, None, self.device.read)

    @rule(first=st.integers(0, 99), count=st.integers(1, 12))
    def write(self, first: int, count: int) -> None:
        """Begin a write."""
        self.letter = letter = self.letter % 255 + 1
        self.begin(
            first, count, letter, lambda offset, length: self.device.write(offset, bytes([letter]) * length)
        )

    @rule(first=st.integers(0, 99), count=st.integers(1, 12), unmap=st.booleans())
    def zero(self, first: int, count: int, unmap: bool) -> None:
        """Begin to zero a range."""
        self.begin(first, count, 0, lambda offset, length: self.device.zero(offset, length, unmap))

    @rule()
    def flush(self) -> None:
        """Begin a flush, of which nothing is to be seen."""
        call = Call(0, 0, -1)
        self.calls.append(call)
        self.ask(call, self.device.flush)

    def waiting(self) -> list[FakeOperation]:
        """What members have not answered."""
        return [operation for fake in self.fakes for operation in fake.operations]

    @precondition(lambda self: self.waiting())
    @rule(which=st.integers(0, 99))
    def complete(self, which: int) -> None:
        """Let any of them happen."""
        waiting = self.waiting()
        waiting[which % len(waiting)].fire()
        self.settle()

    @precondition(lambda self: self.waiting())
    @rule(which=st.integers(0, 99), silent=st.booleans())
    def fail(self, which: int, silent: bool) -> None:
        """Let any of them fail."""
        waiting = self.waiting()
        operation = waiting[which % len(waiting)]
        kind = ReadError if operation.name == "read" else WriteError
        place = None if silent or not operation.arguments else operation.arguments[0]
        operation.fail(kind("bad", place))
        self.settle()

    def settle(self) -> None:
        """Let time pass, and look at what has ended."""
        self.clock.advance(1)

    @invariant()
    def look(self) -> None:
        """What has ended has ended as it may."""
        for call in [each for each in self.calls if each.outcome]:
            self.calls.remove(call)
            (outcome,) = call.outcome
            failed = isinstance(outcome, Exception)
            if failed:
                self.failed(call, outcome)
            elif call.letter is None:
                self.found(call, bytes(outcome))
            if call.letter is not None:
                self.written(call, call.letter, failed)

    def found(self, call: Call, data: bytes) -> None:
        """A read has given this."""
        assert len(data) == call.count * BLOCK
        for index in range(call.count):
            letters = set(data[index * BLOCK : (index + 1) * BLOCK])
            assert len(letters) == 1, f"block {call.first + index} holds {letters}"
            assert letters <= call.allowed[index], (call.first + index, letters, call.allowed[index])

    def written(self, call: Call, letter: int, failed: bool) -> None:
        """A write has ended."""
        for number in call.blocks():
            block = self.blocks[number]
            block.writers -= 1
            if not failed and not block.mixed:
                block.values = {letter}
            if not block.writers:
                block.mixed = False

    def failed(self, call: Call, error: Exception) -> None:
        """The error belongs to it: it is a device's, and lies within its range.  Flushes have none."""
        assert isinstance(error, DeviceError), repr(error)
        if error.offset is not None:
            assert call.count, error.offset
            assert call.first * BLOCK <= error.offset < (call.first + call.count) * BLOCK, error.offset

    def teardown(self) -> None:
        """In the end all that is pending ends, and everything reads as it may."""
        while self.waiting():
            self.waiting()[0].fire()
            self.settle()
        self.settle()
        self.look()
        assert not self.calls, "something never ended"
        for fake in self.fakes:
            fake.synchronous = True
        self.begin(0, len(self.blocks), None, self.device.read)
        self.settle()
        self.look()
        assert not self.calls
        self.closed()

    def closed(self) -> None:
        """At the very end."""


class ConcatenationModel(Model):
    """Members of different sizes, one of them a concatenation."""

    def make(self) -> Any:
        return Concatenation(
            [
                self.fake(5 * BLOCK),
                Concatenation([self.fake(1 * BLOCK), self.fake(7 * BLOCK)]),
                self.fake(3 * BLOCK),
            ]
        )


class StripeModel(Model):
    """Three members in chunks of two blocks, behind a plain one."""

    def make(self) -> Any:
        return Concatenation(
            [self.fake(3 * BLOCK), Stripe([self.fake(6 * BLOCK) for _ in range(3)], 2 * BLOCK)]
        )


class OverlayModel(Model):
    """A base that is never written, below a member for what is."""

    def make(self) -> Any:
        self.base = self.fake(14 * BLOCK)
        return Overlay(self.base, self.fake)

    def closed(self) -> None:
        """The base is as it was."""
        assert self.base.contents == bytes(len(self.base.contents))
        assert {name for name, _ in self.base.history} <= {"read", "allocated"}


class FiltersModel(Model):
    """Filters that delay, slow down and fail now and then, one above the other, switched at any time."""

    def make(self) -> Any:
        fault = Fault("error", probability=0.2)
        self.faults = Faults(
            Slice(self.fake(20 * BLOCK), 4 * BLOCK, 12 * BLOCK), [fault], self.clock, random=Random(5)
        )
        self.delay = Delay(self.faults, 0.5, self.clock, shape="exponential")
        self.rate = Rate(self.delay, self.clock, iops=5)
        return self.rate

    @rule(faults=st.booleans(), delay=st.booleans(), rate=st.booleans())
    def switch(self, faults: bool, delay: bool, rate: bool) -> None:
        """Switch them."""
        self.faults.active, self.delay.active, self.rate.active = faults, delay, rate
        self.settle()

    def teardown(self) -> None:
        """What is delayed has its time, and nothing fails at the end."""
        self.switch(False, False, False)
        for _ in range(100):
            self.settle()
            for operation in self.waiting():
                operation.fire()
        super().teardown()

    def closed(self) -> None:
        """What is not of the slice is as it was."""
        contents = self.fakes[0].contents
        assert contents[: 4 * BLOCK] == bytes(4 * BLOCK) == contents[16 * BLOCK :]


class ModelTests(SynchronousTestCase):
    """Runs of the models."""

    def explore(self, model: type[Model]) -> None:
        """Run one."""
        run_state_machine_as_test(
            model, settings=settings(max_examples=40, stateful_step_count=40, deadline=None)
        )

    def test_concatenation(self) -> None:
        """A concatenation."""
        self.explore(ConcatenationModel)

    def test_stripe(self) -> None:
        """A stripe."""
        self.explore(StripeModel)

    def test_overlay(self) -> None:
        """An overlay."""
        self.explore(OverlayModel)

    def test_filters(self) -> None:
        """A pile of filters."""
        self.explore(FiltersModel)
