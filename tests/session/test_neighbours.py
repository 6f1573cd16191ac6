"""A unit whose device hangs, and its neighbours in the same session."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.scsi.room import QUEUE
from iscsi_twisted.session.session import SOLICITED, SOLICITED_ALL, Session
from iscsi_twisted.session.share import READING, READING_ALL
from iscsi_twisted.wire import numbers
from tests.support import pdus
from tests.support.devices import FakeDevice
from tests.support.wire import R2T, Line, makeNode, makeTarget, read10, write10

LONG = 16 << 20
"""The longest read or write."""
TASK_SET_FULL = 0x28


class NeighbourTests(SynchronousTestCase):
    """Six units; what their devices are asked waits until the test lets it happen."""

    def setUp(self) -> None:
        self.devices = [FakeDevice(64 << 20, synchronous=True) for _ in range(6)]
        self.node, self.diary = makeNode(makeTarget(*self.devices))
        self.line = self.another(1)
        for device in self.devices:
            device.synchronous = False

    def another(self, number: int) -> Line:
        """One session more."""
        line = Line(self.node)
        keys = {"InitialR2T": "Yes", "ImmediateData": "No", "MaxBurstLength": str(LONG)}
        line.login(InitiatorName=f"iqn.2001-04.com.example:host{number}", **keys)
        return line

    @property
    def session(self) -> Session:
        """The session of the line."""
        session = self.line.core.session
        assert session is not None
        return session

    def read(self, lun: int, length: int = LONG, line: Line | None = None) -> list[dict[str, Any]]:
        """Begin a read."""
        field = bytes((0, lun)) + bytes(6)
        return (line or self.line).command(read10(0, length // 512), read=length, lun=field)

    def write(self, lun: int, length: int = LONG) -> list[dict[str, Any]]:
        """Begin a write without data."""
        field = bytes((0, lun)) + bytes(6)
        return self.line.command(write10(0, length // 512), write=length, lun=field)

    def begun(self) -> list[int]:
        """How many operations each device has under way."""
        return [len(device.operations) for device in self.devices]

    def finish(self, lun: int) -> list[int]:
        """Let a device end its oldest operation; the tags of the commands that ended."""
        self.devices[lun].operations[0].fire()
        return [answer["itt"] for answer in self.line.take() if answer["flags"] & 1]

    def test_reads(self) -> None:
        """A unit that has enough to read makes its own commands wait, and no others."""
        for _ in range(4):
            self.read(0)
        self.read(1)
        self.assertEqual(self.begun()[:2], [READING // LONG, 1])
        self.assertEqual(len(self.finish(1)), 1)
        for _ in range(40):
            self.read(1, 512)
            self.assertEqual(len(self.finish(1)), 1)
        self.assertEqual((self.begun()[0], len(self.session.waiting)), (2, 2))

    def test_inOrder(self) -> None:
        """The commands of a unit begin in their order, whatever those of others do meanwhile."""
        tags = []
        for _ in range(5):
            self.read(0)
            tags.append(self.line.itt)
            self.read(1, 512)
        ended = []
        while self.devices[0].operations:
            self.assertLessEqual(self.begun()[0], READING // LONG)
            ended += self.finish(0)
        self.assertEqual(ended, tags)
        self.assertEqual((self.begun()[1], self.line.core.held), (5, False))

    def test_bound(self) -> None:
        """All units of a session together have a bound as well; what waited goes on when one has ended."""
        for _ in range(2):
            for lun in range(6):
                self.read(lun)
        self.assertEqual(sum(self.begun()), READING_ALL // LONG)
        while any(self.begun()):
            self.assertLessEqual(sum(self.begun()), READING_ALL // LONG)
            self.finish(max(range(6), key=self.begun().__getitem__))
        self.assertEqual((self.session.tasks, self.line.core.held), ({}, False))

    def test_share(self) -> None:
        """Commands that go past those of a full unit have no more than their share of a turn."""
        for _ in range(3):
            self.read(0)
        self.devices[1].synchronous = True
        field = bytes((0, 1)) + bytes(6)
        stream = b"".join(self.line.build(read10(0, 512), read=262144, lun=field) for _ in range(60))
        answers = self.line.say(stream)
        self.assertEqual(self.line.turns, 1)
        while self.line.turns:
            self.line.turn()
            answers += self.line.take()
        tags = [answer["itt"] for answer in answers if answer["flags"] & 1]
        self.assertEqual(tags, list(range(self.line.itt - 59, self.line.itt + 1)))
        self.assertEqual(len(self.session.waiting), 1)

    def test_aborted(self) -> None:
        """When the commands of the full unit are aborted, those that waited behind them go on."""
        for _ in range(3):
            self.read(0)
        self.read(1, 512)
        self.line.say(pdus.taskManagement(numbers.ABORT_TASK, referenced=self.line.itt - 3))
        self.assertEqual((self.begun()[:2], len(self.session.waiting)), ([3, 1], 0))

    def test_writes(self) -> None:
        """Nor do writes that hang keep others from being asked for their data."""
        for _ in range(4):
            self.write(0)
        (r2t,) = self.write(1)
        self.assertEqual(r2t["opcode"], R2T)
        self.assertEqual(self.session.solicited.used, SOLICITED + LONG)
        for lun in range(1, 6):
            for _ in range(3):
                self.write(lun)
        self.assertEqual(self.session.solicited.used, SOLICITED_ALL)
        self.line.core.lost("gone")
        self.assertEqual((self.node.solicited.used, self.session.solicited._waiting), (0, {}))

    def test_writesAborted(self) -> None:
        """What waits for the bound of the session, or of all, and is aborted leaves nothing behind."""
        for limited in (self.session.solicited, self.node.solicited):
            before, limited.limit = limited.limit, LONG
            self.write(0)
            for lun in (1, 2):
                self.assertEqual(self.write(lun), [])
            for lun in (2, 1, 0):
                field = bytes((0, lun)) + bytes(6)
                tag = self.line.itt - 2 + lun
                self.line.say(pdus.taskManagement(numbers.ABORT_TASK, lun=field, referenced=tag))
            used = [self.session.share(unit).used for unit in self.session.target.units.values()]  # type: ignore[union-attr]
            self.assertEqual((used, self.session.solicited.used, self.node.solicited.used), ([0] * 6, 0, 0))
            limited.limit = before

    def test_window(self) -> None:
        """A unit that hangs takes no more than its queue of the window; the others are within reach."""
        answers = []
        for _ in range(QUEUE + 20):
            answers += self.read(0, 512)
        self.assertEqual([answer["status"] for answer in answers], [TASK_SET_FULL] * 20)
        self.assertEqual(self.begun()[0], QUEUE)
        self.assertEqual((self.read(1, 512), self.begun()[1]), ([], 1))

    def test_reconnecting(self) -> None:
        """Who logs in again and again while a device hangs gets BUSY, and not one operation more."""
        for number in range(2, 6):
            line = self.another(number)
            for _ in range(QUEUE // 2):
                self.read(0, 512, line)
            line.core.lost("gone")
        self.assertEqual(self.begun()[0], QUEUE)
        line = self.another(7)
        self.assertEqual(line.command(read10(0, 1), read=512)[0]["status"], 8)
        self.devices[0].fire()
        self.assertEqual(line.command(read10(0, 1), read=512), [])
        self.assertEqual(self.diary.entries[-1], ("loggedIn",))
