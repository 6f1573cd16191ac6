"""Turns, batches and backpressure of a connection."""

from __future__ import annotations

from typing import Any

from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.session.connection import BATCH, TURN
from iscsi_twisted.session.limits import NO_CHANGES
from iscsi_twisted.session.session import IMMEDIATE_TASKS
from iscsi_twisted.session.share import READING
from iscsi_twisted.wire import numbers
from tests.session.cases import BLOCKS, QUARTER, SIZE, ConnectionTests
from tests.support import pdus
from tests.support.devices import FakeDevice
from tests.support.wire import (
    INITIATOR,
    TEST_UNIT_READY,
    Line,
    read10,
)


class TurnTests(ConnectionTests):
    """What happens in one turn."""

    def test_batches(self) -> None:
        """A batch is sent when it is full, not only at the end of what was received."""
        self.core.receive(self.reads(10))
        self.assertEqual([size // QUARTER for size in self.sizes()], [4, 4, 2])

    def test_batchesOfShort(self) -> None:
        """What is put PDU by PDU is sent in batches as well."""
        ping = pdus.nopOut(bytes(8192))
        self.line.say(pdus.textRequest({"MaxRecvDataSegmentLength": "8192"}))
        self.core.receive(ping * 300)
        self.assertTrue(all(size <= BATCH + 9000 for size in self.sizes()))
        self.assertEqual(len(self.sizes()), 3)

    def test_share(self) -> None:
        """A turn sends its share; commands beyond it wait for the next, in order, and none is lost."""
        count = 4 * TURN + 10
        stream = self.reads(count)
        self.core.receive(stream)
        self.assertEqual((len(self.line.sent), self.line.turns), (TURN, 1))
        self.assertEqual(len(self.session.waiting), 10)
        first = self.line.take()
        self.line.turn()
        second = self.line.take()
        tags = [answer["itt"] for answer in first + second]
        self.assertEqual(tags, list(range(self.line.itt - count + 1, self.line.itt + 1)))
        self.assertEqual((self.line.turns, self.core.held), (0, False))

    def test_manyShares(self) -> None:
        """What is more than two turns' share takes as many turns as it needs."""
        self.core.receive(self.reads(3 * 4 * TURN))
        answers = self.line.take()
        turns = 0
        while self.line.turns:
            self.line.turn()
            turns += 1
            batch = self.line.take()
            self.assertLessEqual(len(batch), 4 * TURN)
            answers += batch
        self.assertEqual((len(answers), turns), (3 * 4 * TURN, 3))

    def test_betweenTurns(self) -> None:
        """Commands that come between two turns stand behind those that wait."""
        self.core.receive(self.reads(4 * TURN + 2))
        self.line.take()
        self.assertEqual(self.line.say(self.reads(1)), [])
        self.line.turn()
        tags = [answer["itt"] for answer in self.line.take()]
        self.assertEqual(tags, [self.line.itt - 2, self.line.itt - 1, self.line.itt])

    def test_window(self) -> None:
        """While commands wait the window does not go on: no more than its depth ever wait."""
        self.core.pause()
        first, depth = self.session.maxCmdSN, self.session.depth
        stream = b"".join(self.line.build(read10(0, 1), read=512) for _ in range(depth + 70))
        self.assertEqual(self.line.say(stream), [])
        self.assertEqual((self.session.maxCmdSN, len(self.session.waiting)), (first, depth))
        self.core.resume()
        self.assertEqual(len(self.line.take()), depth)
        self.assertEqual(self.session.maxCmdSN, first + depth)

    def test_immediateBound(self) -> None:
        """Immediate commands that wait have their bound as well."""
        self.core.pause()
        for _ in range(IMMEDIATE_TASKS + 5):
            self.line.command(read10(0, 1), read=512, immediate=True)
        self.assertEqual(len(self.session.waiting), IMMEDIATE_TASKS)


class ReadingTests(ConnectionTests):
    """Devices that take their time over long reads."""

    def setUp(self) -> None:
        super().setUp()
        self.slow = FakeDevice(64 << 20)
        self.unit: Any = self.session.target.units[0]  # type: ignore[union-attr]
        self.unit.device = self.slow
        self.slow.open(self.unit.changed)
        self.unit.changed()
        self.line.clearAttentions()

    def longReads(self, count: int, length: int = 16 << 20) -> None:
        """Send so many long reads."""
        for _ in range(count):
            self.assertEqual(self.line.command(read10(0, length // 512), read=length), [])

    def test_bound(self) -> None:
        """Devices read so many bytes at a time for one session; further commands wait, and all are served."""
        self.longReads(6)
        self.assertEqual((len(self.slow.operations), len(self.session.waiting)), (READING >> 24, 4))
        ended = []
        while self.slow.operations:
            self.assertLessEqual(len(self.slow.operations), READING >> 24)
            self.slow.operations[0].fire()
            ended += [answer["itt"] for answer in self.line.take() if answer["flags"] & 1]
        self.assertEqual(ended, list(range(self.line.itt - 5, self.line.itt + 1)))
        self.assertFalse(self.core.held)

    def test_short(self) -> None:
        """As many ordinary reads as a unit takes are not too much."""
        for _ in range(127):
            self.line.command(read10(0, BLOCKS), read=QUARTER)
        self.assertEqual((len(self.slow.operations), len(self.session.waiting)), (127, 0))
        self.slow.fire()
        for _ in range(3):
            self.line.command(read10(0, BLOCKS), read=QUARTER)
        self.assertEqual(len(self.slow.operations), 3)
        self.slow.fire()

    def test_aborted(self) -> None:
        """What is aborted makes room at once."""
        self.longReads(3)
        self.line.say(pdus.taskManagement(numbers.ABORT_TASK, referenced=self.line.itt - 2))
        self.assertEqual((len(self.slow.operations), len(self.session.waiting)), (3, 0))
        self.slow.fire()

    def test_abortedByAnother(self) -> None:
        """So does what another session's reset aborts; commands that come then are served."""
        other = Line(self.node)
        other.login(InitiatorName=INITIATOR + "2")
        self.longReads(3)
        other.say(pdus.taskManagement(numbers.LOGICAL_UNIT_RESET))
        self.slow.fire()
        self.assertEqual(self.line.take(), [])
        self.assertEqual(self.line.command(TEST_UNIT_READY)[0]["data"][14:16], b"\x29\3")
        self.assertFalse(self.core.held)

    def test_paused(self) -> None:
        """If the peer does not read meanwhile, those that waited go on when it does."""
        self.longReads(3)
        self.core.pause()
        self.slow.operations[0].fire()
        self.assertEqual(len(self.slow.operations), 1)
        self.core.resume()
        self.assertEqual(len(self.slow.operations), 2)
        self.slow.fire()

    def test_turns(self) -> None:
        """Neither a turn nor a peer that reads again makes room."""
        self.longReads(3)
        self.core.proceed()
        self.core.pause()
        self.core.resume()
        self.assertEqual((len(self.slow.operations), self.core.held), (2, True))
        self.slow.fire()

    def test_lost(self) -> None:
        """What waited when the transport went is never begun."""
        self.longReads(3)
        self.core.lost("gone")
        self.slow.fire()
        self.assertEqual(len(self.slow.history), 2)

    def test_text(self) -> None:
        """A text request meanwhile does not keep us from reading on."""
        self.longReads(3)
        (answer,) = self.line.say(pdus.textRequest({"X-a": "1"}) + pdus.nopOut())
        self.assertEqual((answer["opcode"], self.line.stalled), (numbers.TEXT_RESPONSE, True))
        self.line.turn()
        (answer,) = self.line.take()
        self.assertEqual((answer["opcode"], self.line.stalled), (numbers.NOP_IN, False))
        (answer,) = self.line.say(pdus.taskManagement(numbers.ABORT_TASK_SET))
        self.assertEqual(answer["response"], 0)
        self.slow.fire()


class CutTests(ConnectionTests):
    """Reads of which the initiator takes little."""

    def test_memory(self) -> None:
        """What is left out does not stay in memory until the rest is sent."""
        self.core.receive(self.line.build(read10(0, BLOCKS), read=512))
        (header, data), *_ = self.line.sent
        self.assertEqual((type(data), len(data)), (bytes, 512))
        self.assertEqual(len(header), 48)

    def test_turn(self) -> None:
        """What is left out counts for the turn."""
        for read in (512, None):
            stream = b"".join(self.line.build(read10(0, BLOCKS), read=read) for _ in range(4 * TURN + 3))
            answers = self.line.say(stream)
            self.assertEqual(self.line.turns, 1)
            self.assertTrue(4 * TURN - 2 <= len(answers) <= 4 * TURN + 1, len(answers))
            self.line.turn()
            self.assertEqual(len(answers) + len(self.line.take()), 4 * TURN + 3)

    def test_late(self) -> None:
        """A device that answers later takes nobody's turn."""
        slow = FakeDevice(SIZE)
        unit: Any = self.session.target.units[0]  # type: ignore[union-attr]
        unit.device = slow
        for _ in range(4 * TURN + 3):
            self.line.command(read10(0, BLOCKS), read=512)
        slow.fire()
        self.assertEqual((len(self.line.take()), self.line.turns), (4 * TURN + 3, 0))


class BackpressureTests(ConnectionTests):
    """A peer that does not read."""

    def test_commandsWait(self) -> None:
        """While the peer does not read no command begins; then all do, in order."""
        self.core.pause()
        self.assertEqual(self.line.say(self.reads(6)), [])
        self.core.proceed()
        self.assertEqual(self.line.take(), [])
        self.core.resume()
        self.assertEqual(len(self.line.take()), 6)
        self.assertEqual(len(self.line.say(self.reads(1))), 1)

    def test_pauseWhileSending(self) -> None:
        """A transport that is full in the middle of a turn stops it there."""
        send = self.core._send

        def full(buffers: list[Buffer]) -> None:
            send(buffers)
            self.core.pause()

        self.core._send = full
        self.core.receive(self.reads(12))
        self.assertEqual(len(self.line.take()), 4)
        for _ in range(2):
            self.core.resume()
            self.assertEqual(len(self.line.take()), 4)
        self.core.resume()
        self.assertEqual((self.line.take(), self.line.turns), ([], 0))

    def test_pauseBetweenTurns(self) -> None:
        """A turn that comes while the peer does not read does nothing; its commands are not lost."""
        self.core.receive(self.reads(4 * TURN + 2))
        self.line.take()
        self.core.pause()
        self.line.turn()
        self.assertEqual(self.line.take(), [])
        self.core.resume()
        self.assertEqual(len(self.line.take()), 2)

    def test_pauseDuringLogin(self) -> None:
        """A pause that ends before the login is complete leaves nothing behind."""
        line = Line(self.node)
        line.core.pause()
        line.core.resume()
        line.login(InitiatorName=INITIATOR + "2")
        self.assertEqual(line.command(TEST_UNIT_READY)[0]["status"], 0)

    def test_otherPDUs(self) -> None:
        """Pings and task management are answered while commands wait."""
        self.core.pause()
        self.core.receive(self.reads(2))
        kinds = [answer["opcode"] for answer in self.line.say(pdus.nopOut() + pdus.taskManagement(2))]
        self.assertEqual(kinds, [numbers.NOP_IN, numbers.TASK_MANAGEMENT_RESPONSE])
        self.core.resume()
        self.assertEqual(self.line.take(), [])

    def test_stall(self) -> None:
        """A flood of pings to a peer that does not read ends when we read no more: nothing is lost."""
        self.core.pause()
        ping = pdus.nopOut(bytes(65536))
        chunk = ping * 4
        sent = 0
        while not self.line.stalled:
            self.core.receive(chunk)
            sent += 4
            self.assertLess(sent * 65536, 2 * NO_CHANGES.queued)
        self.assertLessEqual(sum(self.sizes()), NO_CHANGES.queued + BATCH + len(chunk))
        answered = len(self.line.take())
        self.core.resume()
        self.assertFalse(self.line.stalled)
        answered += len(self.line.take())
        self.assertEqual(answered, sent)

    def test_stallInTheMiddle(self) -> None:
        """One chunk that causes more than we may queue is left in the middle, and gone on with later."""
        self.core.pause()
        count = 4 * NO_CHANGES.queued // 65584
        chunk = pdus.nopOut(bytes(65536)) * count
        self.core.receive(chunk)
        self.assertTrue(self.line.stalled)
        self.assertIsNone(self.core.wanted())
        self.assertLessEqual(sum(self.sizes()), NO_CHANGES.queued + 2 * BATCH)
        answered = len(self.line.take())
        while self.line.stalled:
            self.core.resume()
            self.core.pause()
            answered += len(self.line.take())
        self.assertEqual(answered, count)

    def test_stallTwice(self) -> None:
        """A peer that stops reading again at once stalls us again, with more to come kept."""
        self.core.pause()
        send = self.core._send

        def full(buffers: list[Buffer]) -> None:
            send(buffers)
            self.core.pause()

        self.core._send = full
        count = 4 * NO_CHANGES.queued // 65584
        self.core.receive(pdus.nopOut(bytes(65536)) * count)
        answered = len(self.line.take())
        for _ in range(100):
            self.core.resume()
            answered += len(self.line.take())
        self.assertEqual((answered, self.line.stalled), (count, False))

    def test_answersWhileStalled(self) -> None:
        """What devices end while we do not read is queued too; that stalls nothing twice."""
        device = FakeDevice(SIZE)
        unit: Any = self.session.target.units[0]  # type: ignore[union-attr]
        unit.device = device
        self.core.receive(self.reads(1))
        stalls: list[bool] = []
        self.core._stall = stalls.append
        self.core.pause()
        self.core.receive(pdus.nopOut(bytes(65536)) * 300)
        device.fire()
        self.core.resume()
        self.assertEqual((len(self.line.take()), stalls), (301, [True, False]))

    def test_refusedWhilePaused(self) -> None:
        """A command that is refused for its data is answered at once and does not wait."""
        self.core.pause()
        (answer,) = self.line.command(TEST_UNIT_READY, data=b"data")
        self.assertEqual((answer["status"], len(self.session.waiting)), (2, 0))

    def test_closedWhileStalled(self) -> None:
        """A connection that is closed while we do not read takes nothing more."""
        self.core.pause()
        self.core.receive(pdus.nopOut(bytes(65536)) * 300)
        self.line.take()
        self.core.abandon("enough")
        self.core.resume()
        self.core.receive(pdus.nopOut())
        self.assertEqual(self.line.take(), [])

    def test_notPaused(self) -> None:
        """A peer that reads gets any amount."""
        self.core.receive(pdus.nopOut(bytes(65536)) * 300)
        self.assertEqual((len(self.line.take()), self.line.stalled), (300, False))
