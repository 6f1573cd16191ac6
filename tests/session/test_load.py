# -*- test-case-name: tests.session.test_load -*-
"""All sessions together: what they read, how many connections there are."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.session.limits import Limits
from iscsi_twisted.session.node import Node
from iscsi_twisted.session.vigil import DEAF, PRESSED
from iscsi_twisted.wire import numbers
from tests.support import pdus
from tests.support.devices import FakeDevice
from tests.support.wire import INITIATOR, TARGET, Diary, Line, makeNode, makeTarget, read10

MIB = 1 << 20


class LoadTests(SynchronousTestCase):
    """Two sessions, each with a slow disk of its own, may read 4 MiB together."""

    def setUp(self) -> None:
        self.devices = FakeDevice(8 * MIB, synchronous=True), FakeDevice(8 * MIB, synchronous=True)
        names = ("iqn.2001-04.com.example:a", "iqn.2001-04.com.example:b")
        targets = [makeTarget(each, name=name) for each, name in zip(self.devices, names, strict=True)]
        self.node, self.diary = makeNode(*targets, limits=Limits(reading=4 * MIB))
        self.lines = [Line(self.node) for _ in names]
        for line, name in zip(self.lines, names, strict=True):
            line.login(TargetName=name, InitiatorName=INITIATOR)
        self.slow(True)

    def slow(self, slow: bool) -> None:
        """Whether disks take their time."""
        for each in self.devices:
            each.synchronous = not slow

    def read(self, index: int, count: int = 1) -> None:
        """Some READs of one MiB on a line."""
        for _ in range(count):
            self.lines[index].command(read10(0, 2048), read=MIB)

    def begun(self) -> list[int]:
        """READs that the disks work on."""
        return [len(each.operations) for each in self.devices]

    def test_bound(self) -> None:
        """Beyond the bound commands wait; a session that has none begins one; they go on as others end."""
        self.read(0, 8)
        self.assertEqual(self.begun(), [4, 0])
        self.read(1, 3)
        self.assertEqual(self.begun(), [4, 1])
        self.devices[0].operations[0].fire()
        self.assertEqual(self.begun(), [3, 1])
        self.devices[0].operations[0].fire()
        self.assertEqual(sum(self.begun()), 4)
        for _ in range(20):
            for each in self.devices:
                if each.operations:
                    each.operations[0].fire()
        self.assertEqual((self.begun(), self.node.load.waiting), ([0, 0], {}))
        self.assertEqual([len(each.history) for each in self.devices], [8, 3])
        self.assertFalse(self.node.load.reached())

    def test_unread(self) -> None:
        """What an initiator does not take counts, until it takes it or is gone."""
        for end in (lambda line: line.core.resume(), lambda line: line.core.lost("gone")):
            self.setUp()
            self.read(0, 4)
            self.lines[0].core.pause()
            self.devices[0].fire()
            self.read(1, 3)
            self.assertEqual(self.begun(), [0, 1])
            end(self.lines[0])
            self.assertEqual(self.begun(), [0, 3])

    def test_pressed(self) -> None:
        """An initiator that takes nothing while others wait has less time."""
        self.read(0, 4)
        self.lines[0].core.pause()
        self.devices[0].fire()
        self.lines[0].wait(PRESSED + 20)
        self.assertFalse(self.lines[0].closed)
        self.read(1, 2)
        self.lines[0].wait(5)
        self.assertTrue(self.lines[0].closed)
        self.assertLess(PRESSED, DEAF)
        self.assertEqual(self.begun(), [0, 2])

    def test_aborted(self) -> None:
        """A session that ends with commands that wait leaves nothing behind."""
        self.read(0, 8)
        self.lines[0].core.lost("gone")
        self.devices[0].fire()
        self.assertEqual((self.node.load.waiting, self.node.load.reached()), ({}, False))


class AnswerTests(SynchronousTestCase):
    """Answers that need no disk, of three sessions that do not read; 1 MiB may wait of all."""

    def setUp(self) -> None:
        self.node, _ = makeNode(makeTarget(FakeDevice(MIB, synchronous=True)), limits=Limits(reading=MIB))
        self.lines = [Line(self.node) for _ in range(3)]
        for number, line in enumerate(self.lines):
            line.login(InitiatorName=f"{INITIATOR}{number}")

    def ping(self, line: Line, times: int = 1) -> None:
        """So many pings of 8 KiB."""
        for _ in range(times):
            line.core.receive(pdus.nopOut(bytes(8192)))

    def fill(self) -> None:
        """Two sessions have half as much again as may wait."""
        for line, times in zip(self.lines, (70, 140), strict=False):
            line.core.pause()
            line.core.receive(pdus.nopOut(bytes(8192)) * times)
        self.assertGreater(self.node.load.unread, 3 * MIB // 2)

    def states(self) -> list[tuple[bool, bool]]:
        """Of each line whether the target reads no more, or little at a time."""
        return [(line.stalled, line.narrow) for line in self.lines]

    def test_all(self) -> None:
        """Where too much waits, whoever adds to it is read from no more, and the others little at a time."""
        for line in self.lines[:2]:
            line.core.pause()
            self.ping(line, 60)
        self.assertEqual(self.states(), [(False, False)] * 3)
        self.ping(self.lines[0], 10)
        self.assertEqual(self.states(), [(True, True), (False, True), (False, True)])
        self.ping(self.lines[1])
        self.ping(self.lines[2])
        self.assertEqual(self.states(), [(True, True), (True, True), (False, True)])
        late = Line(self.node)
        late.login(InitiatorName=f"{INITIATOR}late")
        self.assertTrue(late.narrow)

    def test_relieved(self) -> None:
        """When some of it was read, or whoever did not read is gone, all goes on as before."""
        for end in (lambda line: line.core.resume(), lambda line: line.core.lost("gone")):
            self.setUp()
            for line in self.lines[:2]:
                line.core.pause()
                self.ping(line, 70)
            self.assertEqual(self.states()[2], (False, True))
            self.assertTrue(self.node.load.pressed)
            end(self.lines[1])
            self.assertFalse(self.node.load.pressed)
            self.assertEqual(self.states()[2], (False, False))
            self.assertFalse(self.lines[0].narrow)
            self.lines[0].core.resume()
            self.assertFalse(self.lines[0].stalled)

    def test_barred(self) -> None:
        """Where half as much again waits nobody begins a command, new sessions too, until some was read."""
        self.fill()
        late = Line(self.node)
        late.say(pdus.loginRequest({"InitiatorName": f"{INITIATOR}late", "TargetName": TARGET}))
        for line in (self.lines[2], late):
            self.assertEqual(line.command(bytes(6)), [])
            self.assertEqual(line.command(bytes(6)), [])
        self.assertEqual(self.lines[2].say(pdus.nopOut(b"ping"))[0]["data"], b"ping")
        self.lines[1].core.resume()
        for line in (self.lines[2], late):
            self.assertEqual([each["opcode"] for each in line.take()], [numbers.SCSI_RESPONSE] * 2)
        self.assertFalse(self.node.load.barred)

    def test_barredForGood(self) -> None:
        """Who reads nothing while others wait is cut off, and they go on."""
        self.fill()
        self.assertEqual(self.lines[2].command(bytes(6)), [])
        for line in self.lines[:2]:
            line.wait(PRESSED + 5)
            self.assertTrue(line.closed)
            line.core.lost("cut")
        self.assertEqual([each["opcode"] for each in self.lines[2].take()], [numbers.SCSI_RESPONSE])
        load = self.node.load
        self.assertEqual((load.unread, load.pressed, load.barred, load.waiting), (0, False, False, {}))

    def test_again(self) -> None:
        """A transport that says again that it is full does not make what waits forgotten."""
        line = self.lines[0]
        for _ in range(140):
            line.core.pause()
            self.ping(line)
        self.assertTrue(line.stalled)


class RoomTests(SynchronousTestCase):
    """Tests of L{Node.makesRoom}; there may be three connections."""

    def setUp(self) -> None:
        self.diary = Diary()
        self.node = Node(self.diary, limits=Limits(connections=3))
        self.node.add(makeTarget(FakeDevice(512, synchronous=True)))

    def test_oldest(self) -> None:
        """The oldest that is logging in makes room, whatever has a session stays."""
        first = Line(self.node)
        first.login()
        oldest, other = Line(self.node), Line(self.node)
        self.assertTrue(self.node.makesRoom())
        self.assertEqual((first.closed, oldest.closed, other.closed), (False, True, False))

    def test_silent(self) -> None:
        """One that has begun to log in stays rather than one that has not, though it is older."""
        for _ in range(2):
            pairs = {"InitiatorName": INITIATOR, "TargetName": TARGET}
            older, silent, last = (Line(self.node) for _ in range(3))
            for line in (older, last):
                line.say(pdus.loginRequest(pairs, stage=0, following=None))
            self.assertTrue(self.node.makesRoom())
            self.assertEqual((older.closed, silent.closed, last.closed), (False, True, False))
            self.assertTrue(self.node.makesRoom())
            self.assertEqual((older.closed, last.closed), (True, False))
            for line in (older, silent, last):
                line.core.lost("gone")
            self.assertEqual((self.node.silent, self.node.unfinished), ({}, {}))

    def test_full(self) -> None:
        """If all have sessions there is none; a connection that ends leaves some."""
        lines = [Line(self.node) for _ in range(3)]
        for number, line in enumerate(lines):
            line.login(InitiatorName=f"{INITIATOR}{number}")
        self.assertFalse(self.node.makesRoom())
        lines[1].core.lost("gone")
        self.assertTrue(self.node.makesRoom())
        self.assertFalse(any(line.closed for line in lines))
