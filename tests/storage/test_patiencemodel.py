"""
The model of L{iscsi_twisted.storage.Mirror} with members that hang: what they do late harms nothing.

C{python -m tests.long --only hangingmodel} runs them for longer, and not the same way each time.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from twisted.trial.unittest import SynchronousTestCase

from tests.storage import test_mirrormodel as model
from tests.support.mirrormachine import FIRST, WHICH, MirrorMachine
from tests.support.platters import SECTOR, PlatterDisk, PlatterOperation


class HangingMachine(MirrorMachine):
    """Operations of members hang, and end at some time."""

    patience = 2.0

    def __init__(self) -> None:
        super().__init__()
        self.stuck: list[PlatterOperation] = []

    def hangs(self, disk: PlatterDisk) -> bool:
        """Whether any operation of a disk hangs."""
        return any(operation.disk is disk for operation in self.stuck)

    def complete(self, disk: PlatterDisk) -> bool:
        return super().complete(disk) and not self.hangs(disk)

    @precondition(lambda self: self.pending())
    @rule(data=st.data(), count=st.integers(1, 3))
    def hang(self, data: st.DataObject, count: int) -> None:
        """Let operations of one member hang."""
        operation = data.draw(st.sampled_from(self.pending()))
        disk = operation.disk
        if not self.dispensable(disk):
            return
        self.stick(disk.operations[-count:])

    def stick(self, operations: list[PlatterOperation]) -> None:
        """These hang."""
        for one in operations:
            one.disk.operations.remove(one)
            self.stuck.append(one)

    @precondition(lambda self: self.stuck)
    @rule()
    def release(self) -> None:
        """What hung goes on."""
        stuck, self.stuck = self.stuck, []
        for operation in stuck:
            operation.disk.operations.append(operation)

    @rule(which=WHICH, first=FIRST, seconds=st.sampled_from([0.0, 5.0, 90.0]), ends=st.booleans())
    def straggle(self, which: int, first: int, seconds: float, ends: bool) -> None:
        """A member does not end a write in time; others do, and write there again before it ends at last."""
        disk = self.disk(which)
        self.write(first, 1, "w")
        for _ in range(5):
            late = [one for one in disk.operations if (one.name, one.offset) == ("write", first * SECTOR)]
            if late:
                break
            self.fireAll()
        if self.dispensable(disk):
            self.stick(late)
        self.wait(5.0)
        self.commit(first, 1)
        self.wait(seconds)
        if ends:
            self.release()
            self.fireAll()

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 5.0, 90.0]))
    def wait(self, seconds: float) -> None:
        """Time goes by; whoever does not hang is quick."""
        for _ in range(round(seconds * 4) or 1):
            self.clock.advance(min(seconds, 0.25))
            self.fireAll()

    @rule(seconds=st.sampled_from([15, 30, 45]))
    def idle(self, seconds: int) -> None:
        """Time goes by, and whoever does not hang has time enough."""
        self.wait(float(seconds))

    def calm(self) -> None:
        self.release()
        super().calm()

    def lose(self, seed: int, power: bool, away: int) -> None:
        self.release()
        super().lose(seed, power, away)

    def stop(self) -> None:
        self.release()
        super().stop()

    def teardown(self) -> None:
        self.release()
        if self.began and not self.faults:
            # Nobody else hangs because time goes by.
            self.calm()
        super().teardown()


class HangingThreeMachine(HangingMachine):
    """The same with three members."""

    disksOf = 3


class HangingModelTests(SynchronousTestCase):
    """The machines whose members hang."""

    setUp = model.ModelTests.setUp
    run_ = model.ModelTests.run_

    def test_two(self) -> None:
        """Two members."""
        self.run_(HangingMachine, 25)

    def test_three(self) -> None:
        """Three members."""
        self.run_(HangingThreeMachine, 25)
