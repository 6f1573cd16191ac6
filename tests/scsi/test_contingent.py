"""Tests for L{iscsi_twisted.scsi.contingent}: auto contingent allegiance, SAM-5 5.9."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.cdb import Command
from iscsi_twisted.scsi.codes import ACA, HEAD_OF_QUEUE, ORDERED, SIMPLE
from iscsi_twisted.scsi.persistent import LIST
from tests.scsi.cases import BLOCK, BLOCKS, DiskTests
from tests.scsi.devices import THIN, PendingDisk
from tests.support.tasks import Nexus, Task, abort, run


class SlowDiskTests(DiskTests):
    """A disk that answers when it is told to, and two nexuses."""

    def setUp(self) -> None:
        super().setUp()
        self.slow = PendingDisk(BLOCKS * BLOCK, THIN)
        self.unit = self.makeUnit(self.slow)
        self.other = Nexus(isid=b"\x80\0\0\0\0\2")
        self.unit.nexusFound(self.other)
        self.unit.takeAttention(self.other)


class AllegianceTests(SlowDiskTests):
    """Tests of the condition."""

    def send(
        self,
        command: Command = cdb.TEST_UNIT_READY,
        attribute: int = SIMPLE,
        nexus: Nexus | None = None,
        data: bytes = b"",
        late: bool = False,
        **fields: int,
    ) -> Task:
        """Send a command."""
        task = Task(command.encode(**fields), nexus or self.nexus, data, late=late)
        task.flags = attribute
        return run(self.unit, task)

    def fault(self, attribute: int = SIMPLE, control: int = codes.NACA) -> None:
        """A command ends with CHECK CONDITION."""
        task = self.send(cdb.READ_10, attribute, lba=BLOCKS, length=1, control=control)
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.LBA_OUT_OF_RANGE)

    def active(self) -> bool:
        """Whether the condition holds."""
        return self.unit.allegiance.nexus is self.nexus

    def test_asked(self) -> None:
        """An error of a command without NACA establishes nothing; of one with it, the condition (5.9.2)."""
        self.fault(control=0)
        self.assertFalse(self.active() or self.unit._unusual)
        self.fault()
        self.assertTrue(self.active() and self.unit._unusual)

    def test_attention(self) -> None:
        """A unit attention is such an error as well."""
        self.unit.attention(codes.CAPACITY_CHANGED)
        self.assertEqual(self.send(control=codes.NACA).code, codes.CAPACITY_CHANGED)
        self.assertTrue(self.active())

    def test_none(self) -> None:
        """Without the condition there are no ACA tasks (8.6.5)."""
        task = self.send(attribute=ACA)
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.INVALID_MESSAGE)

    def test_others(self) -> None:
        """While it lasts only one ACA task of the faulted nexus may begin (table 35)."""
        self.fault()
        for attribute in (SIMPLE, ORDERED, HEAD_OF_QUEUE):
            for command in (cdb.TEST_UNIT_READY, cdb.INQUIRY):
                self.assertEqual(self.send(command, attribute).status, codes.ACA_ACTIVE)
        for attribute in (SIMPLE, ACA):
            self.assertEqual(self.send(attribute=attribute, nexus=self.other).status, codes.BUSY)
            task = self.send(attribute=attribute, nexus=self.other, control=codes.NACA)
            self.assertEqual(task.status, codes.ACA_ACTIVE)
        first = self.send(cdb.READ_10, ACA, length=1)
        self.assertEqual(self.send(attribute=ACA).status, codes.ACA_ACTIVE)
        self.slow.fire()
        self.assertEqual(first.status, codes.GOOD)
        self.assertEqual(self.send(attribute=ACA).status, codes.GOOD)
        self.assertTrue(self.active())

    def test_cleared(self) -> None:
        """CLEAR ACA of the faulted nexus ends it, and its ACA task; that of another does nothing (7.4)."""
        self.fault()
        task = self.send(cdb.READ_10, ACA, length=1)
        self.unit.clearACA(self.other)
        self.assertTrue(self.active())
        self.unit.clearACA(self.nexus)
        self.assertEqual((self.active(), task.aborted), (False, True))
        self.slow.fire()
        self.assertEqual((self.send().status, self.unit._unusual), (codes.GOOD, False))

    def test_blocked(self) -> None:
        """What had begun, or waited, goes on when it is over (8.5.4): reads, writes, and ORDERED tasks."""
        read = self.send(cdb.READ_10, length=1)
        write = self.send(cdb.WRITE_10, data=bytes(BLOCK), late=True, nexus=self.other, lba=1, length=1)
        ordered = self.send(attribute=ORDERED)
        self.fault(HEAD_OF_QUEUE)
        self.slow.fire()
        write.arrive(self.unit)
        self.assertEqual([task.status for task in (read, write, ordered)], [None] * 3)
        self.unit.clearACA(self.nexus)
        self.assertEqual([task.status for task in (read, write, ordered)], [codes.GOOD, None, None])
        self.slow.fire()
        self.assertEqual([task.status for task in (write, ordered)], [codes.GOOD] * 2)
        self.assertFalse(self.unit._unusual)

    def test_blockedAborted(self) -> None:
        """What is aborted meanwhile does not go on, and leaves nothing behind."""
        read = self.send(cdb.READ_10, length=1)
        write = self.send(cdb.WRITE_10, data=bytes(BLOCK), late=True, lba=1, length=1)
        self.fault()
        self.slow.fire()
        write.arrive(self.unit)
        abort(self.unit, read)
        abort(self.unit, write)
        self.unit.clearACA(self.nexus)
        self.assertEqual((read.status, read.released, write.status), (None, 1, None))
        self.assertEqual([call[0] for call in self.slow.calls], ["read"])
        self.assertEqual((self.unit.operations, self.unit.receiving, self.unit.fences), (set(), set(), []))

    def test_held(self) -> None:
        """While a unit is held, its device being exchanged, an ACA task does not begin either."""
        self.fault()
        self.unit.hold(lambda: None)
        self.assertEqual(self.send(cdb.READ_10, ACA, length=1).status, codes.BUSY)
        self.unit.resume()
        self.assertIsNone(self.send(cdb.READ_10, ACA, length=1).status)

    def test_error(self) -> None:
        """An ACA task that fails ends it, unless it asks for NACA too (5.9.4)."""
        self.fault()
        self.fault(ACA)
        self.assertTrue(self.active())
        self.fault(ACA, 0)
        self.assertFalse(self.active())

    def test_queueError(self) -> None:
        """With QERR of one nothing is left to go on (table 33)."""
        self.unit.queueError = 1
        read = self.send(cdb.READ_10, length=1)
        self.fault()
        self.assertTrue(read.aborted and self.active())

    def test_over(self) -> None:
        """A reset ends it, and the end of the faulted nexus; not that of another (5.9.5)."""
        self.fault()
        self.unit.reset(codes.DEVICE_RESET_OCCURRED)
        self.assertFalse(self.active())
        self.unit.takeAttention(self.nexus)
        self.fault()
        self.unit.nexusLost(self.other)
        self.assertTrue(self.active())
        self.unit.nexusLost(self.nexus)
        self.assertFalse(self.active() or self.unit._unusual)

    def test_preempted(self) -> None:
        """PREEMPT AND ABORT of another nexus goes through, and ends it if it preempts (SPC-4 5.13.11.2.5)."""
        for nexus, key in ((self.nexus, 7), (self.other, 9)):
            self.send(cdb.PR_REGISTER, nexus=nexus, data=LIST.pack(0, key, 0), length=24)
        self.fault()
        late = self.send(
            cdb.PR_PREEMPT_AND_ABORT, nexus=self.other, data=LIST.pack(9, 7, 0), length=24, type=1, late=True
        )
        late.arrive(self.unit)
        self.assertEqual((late.status, self.active()), (codes.GOOD, False))

    def test_absent(self) -> None:
        """INQUIRY tells that a unit knows it (NORMACA)."""
        self.assertEqual(self.send(cdb.INQUIRY, allocation=96).data[3], 0x32)


ACTIONS = st.one_of(
    st.tuples(
        st.just("send"), st.integers(0, 1), st.sampled_from((SIMPLE, ORDERED, HEAD_OF_QUEUE, ACA)),
        st.sampled_from(("read", "write", "ready", "wrong")), st.booleans(), st.integers(0, 3),
    ),
    st.tuples(st.sampled_from(("fire", "break", "arrive", "abort")), st.integers(0, 5)),
    st.tuples(st.just("clear"), st.integers(0, 1)),
    st.tuples(st.just("reset")),
    st.tuples(st.just("lose")),
    st.tuples(st.just("qerr"), st.sampled_from((0, 1, 3))),
)  # fmt: skip
"""What may happen to a unit."""


class AnythingTests(SlowDiskTests):
    """Whatever happens in whichever order, every task ends once, and nothing is left behind."""

    def setUp(self) -> None:
        super().setUp()
        self.tasks: list[Task] = []
        self.late: list[Task] = []

    def act(self, action: tuple[Any, ...]) -> None:
        """Let something happen."""
        getattr(self, f"do_{action[0]}")(*action[1:])

    def do_send(self, nexus: int, attribute: int, what: str, naca: bool, lba: int) -> None:
        """A command comes."""
        control = codes.NACA * naca
        command, data, fields = {
            "read": (cdb.READ_10, b"", {"lba": lba, "length": 1}),
            "write": (cdb.WRITE_10, bytes(BLOCK), {"lba": lba, "length": 1}),
            "ready": (cdb.TEST_UNIT_READY, b"", {}),
            "wrong": (cdb.READ_10, b"", {"lba": BLOCKS, "length": 1}),
        }[what]
        task = Task(
            command.encode(control=control, **fields), (self.nexus, self.other)[nexus], data, late=True
        )
        task.flags = attribute
        self.tasks.append(task)
        if data:
            self.late.append(task)
        run(self.unit, task)

    def do_fire(self, index: int) -> None:
        """A device operation ends."""
        if self.slow.pending:
            self.slow.fire(index % len(self.slow.pending))

    def do_break(self, index: int) -> None:
        """A device operation fails."""
        if self.slow.pending:
            self.slow.breakDown(OSError(5, "broken"), index % len(self.slow.pending))

    def do_arrive(self, index: int) -> None:
        """Data come that were asked for."""
        wanted = [task for task in self.late if task.wanted is not None and not task.aborted]
        if wanted:
            task = wanted[index % len(wanted)]
            self.late.remove(task)
            task.arrive(self.unit)

    def do_abort(self, index: int) -> None:
        """A task is aborted."""
        live = [task for task in self.tasks if task.status is None and not task.aborted]
        if live:
            abort(self.unit, live[index % len(live)])

    def do_clear(self, nexus: int) -> None:
        """CLEAR ACA."""
        self.unit.clearACA((self.nexus, self.other)[nexus])

    def do_reset(self) -> None:
        """LOGICAL UNIT RESET."""
        for _ in range(len(self.tasks)):
            self.do_abort(0)
        self.unit.reset(codes.DEVICE_RESET_OCCURRED)

    def do_lose(self) -> None:
        """The other nexus goes, and comes again."""
        for task in self.tasks:
            if task.nexus is self.other and task.status is None and not task.aborted:
                abort(self.unit, task)
        self.unit.nexusLost(self.other)
        self.unit.nexusFound(self.other)

    def do_qerr(self, value: int) -> None:
        """Another QERR."""
        self.unit.queueError = value

    @given(st.lists(ACTIONS, max_size=30))
    def test_anything(self, actions: list[tuple[Any, ...]]) -> None:
        """See the class."""
        self.setUp()
        for action in actions:
            self.act(action)
        for _ in range(3 * len(actions) + 3):
            self.do_clear(0)
            self.do_clear(1)
            self.do_arrive(0)
            self.do_fire(0)
        for task in self.tasks:
            self.assertLessEqual(task.released, 1)
            self.assertTrue(task.aborted or task.endings == 1, (task.cdb.hex(), task.flags, task.endings))
        unit = self.unit
        self.assertEqual(
            (unit.operations, unit.receiving, unit.fences, list(unit.order.dormant)), (set(), set(), [], [])
        )
        for nexus in (self.nexus, self.other):
            while unit.takeAttention(nexus) is not None:
                pass
        self.assertFalse(unit._unusual)
        self.assertEqual(self.surprises, [])


class InterlockTests(DiskTests):
    """UA_INTLCK_CTRL, SPC-4 7.5.8."""

    def test_cleared(self) -> None:
        """Ordinarily a unit attention is told once."""
        self.unit.attention(codes.CAPACITY_CHANGED)
        self.assertEqual(self.command(cdb.TEST_UNIT_READY).code, codes.CAPACITY_CHANGED)
        self.good(cdb.TEST_UNIT_READY)

    def test_kept(self) -> None:
        """With 10b it is told until REQUEST SENSE; a conflict establishes none."""
        self.unit.interlock = 2
        self.unit.attention(codes.CAPACITY_CHANGED)
        for _ in range(3):
            self.assertEqual(self.command(cdb.TEST_UNIT_READY).code, codes.CAPACITY_CHANGED)
        self.assertEqual(self.good(cdb.REQUEST_SENSE, allocation=18)[12:14].hex(), "2a09")
        self.good(cdb.TEST_UNIT_READY)
        self.unit.reserve(Nexus())
        self.assertEqual(self.command(cdb.READ_10, length=1).status, codes.RESERVATION_CONFLICT)
        self.assertIsNone(self.unit.takeAttention(self.nexus))

    def test_statuses(self) -> None:
        """With 11b BUSY, TASK SET FULL and RESERVATION CONFLICT establish one for the nexus that got them."""
        self.unit.interlock = 3
        for status, code in (
            (codes.BUSY, codes.PREVIOUS_BUSY),
            (codes.TASK_SET_FULL, codes.PREVIOUS_FULL),
            (codes.RESERVATION_CONFLICT, codes.PREVIOUS_CONFLICT),
        ):
            self.unit.turnAway(Task(bytes(6), self.nexus), status)
            self.assertEqual(self.unit.takeAttention(self.nexus), code)
        self.unit.turnAway(Task(bytes(6), self.nexus), codes.ACA_ACTIVE)
        self.assertIsNone(self.unit.takeAttention(self.nexus))
        self.unit.reserve(Nexus())
        self.assertEqual(self.command(cdb.READ_10, length=1).status, codes.RESERVATION_CONFLICT)
        self.assertEqual(self.unit.takeAttention(self.nexus), codes.PREVIOUS_CONFLICT)
