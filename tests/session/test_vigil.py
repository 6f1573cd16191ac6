"""Tests for L{iscsi_twisted.session.vigil}: what happens because time passes."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.session.dataout import MOVED
from iscsi_twisted.session.session import Session
from iscsi_twisted.session.vigil import DEAF, PATIENCE
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import numbers
from tests.support import pdus
from tests.support.wire import R2T, TEST_UNIT_READY, Diary, Line, makeNode, makeTarget, write10


class VigilTests(SynchronousTestCase):
    """
    A session whose node has the timeouts that it has unless told otherwise.

    @ivar line: its connection.
    """

    def setUp(self) -> None:
        self.login()

    def login(self, keys: dict[str, str] | None = None, **options: Any) -> None:
        """Log in anew, to a node with these options."""
        self.device = MemoryDevice(64 << 20)
        self.diary: Diary
        self.node, self.diary = makeNode(makeTarget(self.device), **options)
        self.line = Line(self.node)
        self.line.login(**(keys or {}))
        self.line.core.tick(0.0)
        self.diary.entries.clear()

    @property
    def session(self) -> Session:
        """The session at the other end."""
        assert self.line.core.session is not None
        return self.line.core.session


class PingTests(VigilTests):
    """Keep-alive by NOP-In (RFC 7143 11.19)."""

    def test_ping(self) -> None:
        """After 30 silent seconds the initiator is asked once; the question takes no StatSN."""
        self.assertEqual(self.line.wait(25), [])
        statSN = self.line.core.statSN
        (ping,) = self.line.wait(5)
        self.assertEqual(
            (ping["opcode"], ping["itt"], ping["statSN"]), (numbers.NOP_IN, numbers.NO_TAG, statSN)
        )
        self.assertNotEqual(ping["ttt"], numbers.NO_TAG)
        self.assertEqual((ping["flags"], ping["lun"], ping["data"]), (0x80, bytes(8), b""))
        self.assertEqual(self.line.core.statSN, statSN)
        self.assertEqual(self.line.wait(20), [])

    def test_answered(self) -> None:
        """An initiator that answers each question, and does nothing else, is never dropped."""
        self.line.wait(35)
        for _ in range(100):
            answer = bytearray(pdus.nopOut(itt=numbers.NO_TAG))
            self.assertEqual(self.line.say(bytes(answer)), [])
            (ping,) = self.line.wait(35)
            self.assertEqual(ping["opcode"], numbers.NOP_IN)
        self.assertFalse(self.line.closed)

    def test_dead(self) -> None:
        """One that sends nothing for 30 seconds more is dropped, and that is told."""
        self.line.wait(55)
        self.assertFalse(self.line.closed)
        self.line.wait(5)
        self.assertTrue(self.line.closed)
        self.assertEqual(self.diary.entries, [("lost", "no answer to a ping within 30 seconds")])
        self.assertEqual(self.node.sessions, set())
        self.assertEqual(self.line.wait(100), [])

    def test_busy(self) -> None:
        """One that sends anything else instead of an answer, were it half a PDU, lives."""
        self.line.wait(35)
        stream = self.line.build(write10(0, 128), write=65536, data=bytes(65536))
        parts = iter([stream[:100], *(stream[n : n + 1000] for n in range(100, len(stream), 1000))])
        answers = self.line.wait(5 * 70, lambda: self.line.core.receive(next(parts, b"")))
        self.assertEqual([answer["status"] for answer in answers], [0])
        self.assertFalse(self.line.closed)

    def test_working(self) -> None:
        """While commands come no question is asked."""
        answers = self.line.wait(300, lambda: self.line.core.receive(self.line.build(TEST_UNIT_READY)))
        self.assertEqual({answer["opcode"] for answer in answers}, {numbers.SCSI_RESPONSE})

    def test_asleep(self) -> None:
        """If this process itself stood still for an hour, nobody is blamed for it."""
        self.line.wait(35)
        self.line.core.tick(self.line.now + 3600)
        self.assertFalse(self.line.closed)

    def test_parameters(self) -> None:
        """Interval and timeout are the node's; without an interval there are no questions."""
        self.login(pingInterval=10.0, pingTimeout=15.0)
        self.assertEqual(len(self.line.wait(15)), 1)
        self.line.wait(15)
        self.assertTrue(self.line.closed)
        self.login(pingInterval=0.0)
        self.assertEqual(self.line.wait(86400), [])
        self.assertFalse(self.line.closed)

    def test_discovery(self) -> None:
        """A discovery session is watched as well."""
        line = Line(self.node)
        line.login(SessionType="Discovery")
        line.wait(100)
        self.assertTrue(line.closed)

    def test_notReading(self) -> None:
        """While the peer does not read it is asked nothing, and has ten minutes to take something."""
        self.line.core.pause()
        self.assertEqual(self.line.wait(DEAF - 5), [])
        self.assertFalse(self.line.closed)
        self.line.wait(5)
        self.assertEqual(self.diary.entries, [("lost", "the initiator has read nothing for 600 seconds")])

    def test_slowReader(self) -> None:
        """One that takes a little now and then is not given up."""
        self.line.core.pause()

        def command() -> None:
            self.line.core.resume()
            self.line.core.receive(self.line.build(TEST_UNIT_READY))
            self.line.core.pause()

        for _ in range(5):
            self.line.wait(5, command)
            self.line.wait(DEAF - 100)
        self.assertFalse(self.line.closed)

    def test_readsAgain(self) -> None:
        """The time in which it did not read is forgotten when it does."""
        for _ in range(3):
            self.line.core.pause()
            self.line.wait(DEAF - 100)
            self.line.core.resume()
            self.line.wait(5, lambda: self.line.core.receive(pdus.nopOut()))
        self.assertFalse(self.line.closed)

    def test_closed(self) -> None:
        """A connection that is closing is left alone."""
        self.line.say(pdus.logoutRequest())
        self.diary.entries.clear()
        self.assertEqual((self.line.wait(1000), self.diary.entries), ([], []))


class DataTests(VigilTests):
    """Data-Out that were asked for and do not come."""

    LONG = 16 << 20

    def setUp(self) -> None:
        self.login({"InitialR2T": "Yes", "ImmediateData": "No", "MaxBurstLength": "65536"}, pingInterval=0.0)

    def write(self, length: int = LONG) -> dict[str, Any]:
        """Begin a write; its R2T."""
        (r2t,) = self.line.command(write10(0, length // 512), write=length)
        self.assertEqual(r2t["opcode"], R2T)
        return r2t

    def answer(self, r2t: dict[str, Any], length: int, number: int = 0) -> list[Any]:
        """Send one of the Data-Out that an R2T asks for, all of this length."""
        offset = r2t["bufferOffset"] + number * length
        final = offset + length == r2t["bufferOffset"] + r2t["desiredLength"]
        return self.line.say(
            pdus.dataOut(
                bytes(length), itt=r2t["itt"], ttt=r2t["ttt"], offset=offset, dataSN=number, final=final
            )
        )

    def test_never(self) -> None:
        """After a minute without them their tasks end, and what they had reserved is given back."""
        first, second = self.write(), self.write()
        self.assertEqual(self.node.solicited.used, 2 * self.LONG)
        self.assertEqual(self.line.wait(60), [])
        answers = self.line.wait(5)
        self.assertEqual([answer["itt"] for answer in answers], [first["itt"], second["itt"]])
        for answer in answers:
            self.assertEqual((answer["status"], answer["data"][4] & 15), (2, 0xB))
            self.assertEqual(answer["data"][14:16].hex(), "4b06")
        self.assertEqual((self.node.solicited.used, self.session.tasks), (0, {}))

    def test_late(self) -> None:
        """Data that come after that are dropped, and the session goes on."""
        r2t = self.write()
        self.line.wait(65)
        self.assertEqual(self.answer(r2t, 65536), [])
        self.assertEqual(self.line.command(TEST_UNIT_READY)[0]["status"], 0)

    def test_making(self) -> None:
        """A waiting write of another session is asked when a stopped one is given up."""
        self.node.solicited.limit = self.LONG
        self.write()
        other = Line(self.node)
        other.login(InitiatorName="iqn.2001-04.com.example:other", ImmediateData="No")
        self.assertEqual(other.command(write10(0, 32768), write=self.LONG), [])
        self.line.wait(65)
        (r2t,) = other.take()
        self.assertEqual(r2t["opcode"], R2T)

    def test_slow(self) -> None:
        """A write that goes on slowly is not given up."""
        r2t = self.write(65536)
        for number in range(16):
            self.assertEqual(self.line.wait(55), [])
            answers = self.answer(r2t, MOVED, number)
        self.assertEqual([answer["status"] for answer in answers], [0])

    def test_drops(self) -> None:
        """A byte now and then is not enough."""
        r2t = self.write(65536)
        numbered = iter(range(100))
        answers: list[Any] = []
        self.line.wait(75, lambda: answers.extend(self.answer(r2t, 1, next(numbered))))
        (answer,) = answers
        self.assertEqual(answer["status"], 2)

    def test_queue(self) -> None:
        """While other writes of the session go on, one that waits has ten minutes."""
        stopped = self.write(65536)["itt"]
        going = self.write(65536)

        def goOn() -> None:
            nonlocal going
            self.answer(going, 32768, 1)
            going = self.write(65536)
            self.answer(going, 32768, 0)

        self.answer(going, 32768, 0)
        self.line.wait(60 * PATIENCE, goOn)
        self.assertIn(stopped, self.session.tasks)
        answers = self.line.wait(5, goOn)
        self.assertEqual([answer["itt"] for answer in answers], [stopped])

    def test_unsolicited(self) -> None:
        """Unsolicited data that were announced and do not come end their task too."""
        self.login({"InitialR2T": "No"})
        self.assertEqual(self.line.command(write10(0, 16), write=8192, final=False), [])
        answers = self.line.wait(65, lambda: self.line.core.receive(pdus.nopOut(itt=numbers.NO_TAG)))
        self.assertEqual([answer["status"] for answer in answers], [2])

    def test_notAsked(self) -> None:
        """A write that waits for its turn to be asked is not to blame."""
        for _ in range(2):
            self.write()
        self.assertEqual(self.line.command(write10(0, 1), write=512), [])
        waiting = self.line.itt
        answers = self.line.wait(65)
        self.assertNotIn(waiting, [answer["itt"] for answer in answers if answer["opcode"] != R2T])
        self.assertIn(waiting, [answer["itt"] for answer in answers if answer["opcode"] == R2T])
