"""Tests for L{iscsi_twisted.session.dataout}: the initiator's data, and the budget of what is solicited."""

from __future__ import annotations

import sys
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.session.dataout import CRUMB, CRUMBS
from iscsi_twisted.session.session import SOLICITED, Session
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import numbers
from tests.support import pdus
from tests.support.devices import FakeDevice
from tests.support.wire import (
    R2T,
    SCSI_RESPONSE,
    TEST_UNIT_READY,
    Line,
    loggedIn,
    makeNode,
    makeTarget,
    write10,
)

LONGEST = 16 << 20
"""Bytes of the longest write."""


def sessionOf(line: Line) -> Session:
    """The session at the other end."""
    assert line.core.session is not None
    return line.core.session


def sense(answer: dict[str, Any]) -> tuple[int, str]:
    """Status, and additional sense code and qualifier."""
    return answer["status"], answer["data"][14:16].hex()


class SequenceTests(SynchronousTestCase):
    """Sequences of Data-Out PDUs."""

    def setUp(self) -> None:
        self.device = MemoryDevice(1 << 20)
        self.data = bytes(range(256)) * 32

    def solicited(self, **pairs: str) -> Line:
        """A session in which all data are asked for."""
        return loggedIn(self.device, InitialR2T="Yes", ImmediateData="No", **pairs)

    def dataOut(self, line: Line, begin: int, end: int, ttt: int, dataSN: int = 0, **more: Any) -> list[Any]:
        """Send part of the data; what comes back."""
        part = self.data[begin:end]
        return line.say(pdus.dataOut(part, itt=line.itt, ttt=ttt, dataSN=dataSN, offset=begin, **more))

    def untouched(self) -> None:
        """Nothing was written."""
        self.assertEqual(self.device.read(0, 8192), bytes(8192))

    @settings(deadline=None, max_examples=60)
    @given(st.data())
    def test_anyWay(self, data: Any) -> None:
        """However a write is negotiated and cut up, the device gets what was sent, in one piece."""
        pairs = {
            "InitialR2T": data.draw(st.sampled_from(["Yes", "No"])),
            "ImmediateData": data.draw(st.sampled_from(["Yes", "No"])),
            "FirstBurstLength": str(data.draw(st.integers(512, 9000))),
            "MaxBurstLength": str(data.draw(st.integers(512, 9000))),
            "MaxOutstandingR2T": str(data.draw(st.integers(1, 5))),
        }
        line = loggedIn(self.device, **pairs)
        parameters = sessionOf(line).parameters
        self.device.write(0, bytes(8192))
        immediate = data.draw(st.integers(0, parameters.firstBurst)) if parameters.immediateData else 0
        immediate = min(immediate, 8192)
        answers = []
        more = not parameters.initialR2T and immediate < min(parameters.firstBurst, 8192)
        answers += line.command(write10(0, 16), write=8192, data=self.data[:immediate], final=not more)
        if more:
            end = data.draw(st.integers(immediate, min(parameters.firstBurst, 8192)))
            answers += self.burst(line, data, immediate, end, numbers.NO_TAG)
        while answers and answers[0]["opcode"] == R2T:
            r2t = answers.pop(0)
            self.assertLessEqual(len(answers), parameters.maxOutstandingR2T)
            begin = r2t["bufferOffset"]
            answers += self.burst(line, data, begin, begin + r2t["desiredLength"], r2t["ttt"])
        (answer,) = answers
        self.assertEqual((answer["opcode"], answer["status"], answer["residual"]), (SCSI_RESPONSE, 0, 0))
        self.assertEqual(self.device.read(0, 8192), self.data)
        self.assertEqual(sessionOf(line).solicited.used, 0)

    def burst(self, line: Line, data: Any, begin: int, end: int, ttt: int) -> list[Any]:
        """Send a sequence in any number of PDUs; what comes back."""
        cuts = sorted(data.draw(st.lists(st.integers(begin, end), max_size=3)))
        edges = [begin, *cuts, end]
        answers = []
        for number in range(len(edges) - 1):
            final = number == len(edges) - 2
            answers += self.dataOut(line, edges[number], edges[number + 1], ttt, number, final=final)
        return answers

    def test_unsolicitedTooMuch(self) -> None:
        """Unsolicited data beyond FirstBurstLength end the task, when all of them have come."""
        line = loggedIn(self.device, InitialR2T="No", FirstBurstLength="1024")
        line.command(write10(0, 16), write=8192, final=False)
        self.assertEqual(self.dataOut(line, 0, 2048, numbers.NO_TAG, final=False), [])
        (answer,) = self.dataOut(line, 2048, 3072, numbers.NO_TAG, 1)
        self.assertEqual(sense(answer), (2, "0c0d"))
        self.untouched()

    def test_immediateTooMuch(self) -> None:
        """Immediate data beyond FirstBurstLength, or beyond what was announced, end the task."""
        line = loggedIn(self.device, FirstBurstLength="1024")
        (answer,) = line.command(write10(0, 16), write=8192, data=self.data[:1025])
        self.assertEqual(sense(answer), (2, "0c0d"))
        (answer,) = line.command(write10(0, 1), write=512, data=self.data[:513])
        self.assertEqual(sense(answer), (2, "0c0d"))
        self.untouched()

    def test_tagAfterRefusal(self) -> None:
        """A write that is refused before its data came is answered behind the last; its tag is free then."""
        line = loggedIn(self.device, InitialR2T="No")
        self.assertEqual(line.command(write10(99999, 16), write=8192, final=False), [])
        self.assertEqual(self.dataOut(line, 0, 4096, numbers.NO_TAG, final=False), [])
        (answer,) = self.dataOut(line, 4096, 8192, numbers.NO_TAG, 1)
        self.assertEqual(sense(answer), (2, "2100"))
        self.assertEqual((answer["flags"], answer["residual"]), (0x80 | numbers.UNDERFLOW, 8192))
        self.assertEqual(line.command(write10(0, 16), write=8192, itt=line.itt, final=False), [])
        (answer,) = self.dataOut(line, 0, 8192, numbers.NO_TAG)
        self.assertEqual((answer["status"], self.device.read(0, 8192)), (0, self.data))

    def refused(self, **options: Any) -> Line:
        """A session with a refused write whose answer waits for data."""
        line = loggedIn(self.device, InitialR2T="No", **options)
        self.assertEqual(line.command(write10(99999, 16), write=8192, final=False), [])
        return line

    def test_refusalWithoutData(self) -> None:
        """If the data of a refused write do not come, the answer does not wait for ever."""
        line = self.refused()
        answers = line.wait(70, lambda: line.core.receive(pdus.nopOut(itt=numbers.NO_TAG)))
        self.assertEqual([sense(answer) for answer in answers], [(2, "2100")])
        self.assertEqual(sessionOf(line).tasks, {})

    def test_refusalAborted(self) -> None:
        """A refused write whose answer waits can be aborted, and gives its place back."""
        line = self.refused()
        room = sessionOf(line).maxCmdSN
        (answer,) = line.say(pdus.taskManagement(numbers.ABORT_TASK, referenced=line.itt))
        self.assertEqual(answer["response"], numbers.FUNCTION_COMPLETE)
        self.assertEqual((sessionOf(line).tasks, sessionOf(line).maxCmdSN), ({}, room + 1))
        self.assertEqual(self.dataOut(line, 0, 8192, numbers.NO_TAG), [])

    def test_immediateTooMuchBefore(self) -> None:
        """Too much immediate data are answered behind the unsolicited data that were announced as well."""
        line = loggedIn(self.device, InitialR2T="No", FirstBurstLength="1024")
        for held in (False, True):
            if held:
                line.core.pause()
            self.assertEqual(line.command(write10(0, 16), write=8192, data=self.data[:2048], final=False), [])
            (answer,) = self.dataOut(line, 2048, 2048, numbers.NO_TAG)
            self.assertEqual(sense(answer), (2, "0c0d"))
        line.core.resume()
        self.assertEqual(line.take(), [])
        self.untouched()

    def test_endsWithoutData(self) -> None:
        """A command that takes no data, though some were announced, is answered behind them too."""
        line = loggedIn(self.device, InitialR2T="No")
        self.assertEqual(line.command(TEST_UNIT_READY, write=8192, final=False), [])
        (answer,) = self.dataOut(line, 0, 8192, numbers.NO_TAG)
        self.assertEqual((answer["status"], answer["residual"]), (0, 8192))

    def test_wrongTag(self) -> None:
        """Data with a tag that no R2T of this task has are dropped, and the task goes on."""
        line = self.solicited()
        (r2t,) = line.command(write10(0, 16), write=8192)
        for ttt in (r2t["ttt"] + 1, 0, numbers.NO_TAG):
            self.assertEqual(self.dataOut(line, 0, 8192, ttt), [])
        (answer,) = self.dataOut(line, 0, 8192, r2t["ttt"])
        self.assertEqual(answer["status"], 0)

    def test_usedTag(self) -> None:
        """The tag of a sequence that is complete is no tag any more."""
        line = self.solicited(MaxBurstLength="4096")
        (first,) = line.command(write10(0, 16), write=8192)
        (second,) = self.dataOut(line, 0, 4096, first["ttt"])
        self.assertEqual(self.dataOut(line, 4096, 8192, first["ttt"]), [])
        (answer,) = self.dataOut(line, 4096, 8192, second["ttt"])
        self.assertEqual((answer["status"], self.device.read(0, 8192)), (0, self.data))

    def test_otherTask(self) -> None:
        """Data with the tag of another task's R2T, or of another session's, are dropped."""
        line = self.solicited()
        (one,) = line.command(write10(0, 16), write=8192)
        (two,) = line.command(write10(0, 16), write=8192)
        self.assertEqual(line.say(pdus.dataOut(self.data, itt=one["itt"], ttt=two["ttt"])), [])
        other = Line(line.node)
        other.login(InitiatorName="iqn.2001-04.com.example:other", InitialR2T="Yes", ImmediateData="No")
        (three,) = other.command(write10(0, 16), write=8192, itt=0x5555)
        self.assertEqual(line.say(pdus.dataOut(self.data, itt=0x5555, ttt=three["ttt"])), [])
        self.untouched()
        (answer,) = other.say(pdus.dataOut(self.data, itt=0x5555, ttt=three["ttt"]))
        self.assertEqual(answer["status"], 0)
        (answer,) = line.say(pdus.dataOut(self.data, itt=two["itt"], ttt=two["ttt"]))
        self.assertEqual((answer["itt"], answer["status"]), (two["itt"], 0))

    def test_wrongOrder(self) -> None:
        """Sequences that are not answered in their order end the task when all have come."""
        line = self.solicited(MaxBurstLength="4096", MaxOutstandingR2T="2")
        one, two = line.command(write10(0, 16), write=8192)
        self.assertEqual(self.dataOut(line, 4096, 8192, two["ttt"]), [])
        (answer,) = self.dataOut(line, 0, 4096, one["ttt"])
        self.assertEqual(sense(answer), (2, "4705"))
        self.untouched()

    def test_wrongOffset(self) -> None:
        """Data that do not join those before end the task when the sequence is complete."""
        line = self.solicited()
        (r2t,) = line.command(write10(0, 16), write=8192)
        self.assertEqual(self.dataOut(line, 0, 1024, r2t["ttt"], final=False), [])
        self.assertEqual(self.dataOut(line, 2048, 4096, r2t["ttt"], 1, final=False), [])
        (answer,) = self.dataOut(line, 4096, 8192, r2t["ttt"], 2)
        self.assertEqual(sense(answer), (2, "4705"))
        self.untouched()

    def test_lessThanWanted(self) -> None:
        """If the initiator has less than the CDB says, what it has is written, and the rest told."""
        line = self.solicited()
        (r2t,) = line.command(write10(0, 16), write=4096)
        self.assertEqual(r2t["desiredLength"], 4096)
        (answer,) = self.dataOut(line, 0, 4096, r2t["ttt"])
        self.assertEqual((answer["status"], answer["flags"]), (0, 0x80 | numbers.OVERFLOW))
        self.assertEqual(answer["residual"], 4096)
        self.assertEqual(self.device.read(0, 8192), self.data[:4096] + bytes(4096))

    def test_onlyWanted(self) -> None:
        """If the initiator has more than the CDB says, only what is wanted is asked for."""
        line = self.solicited()
        (r2t,) = line.command(write10(0, 2), write=8192)
        self.assertEqual(r2t["desiredLength"], 1024)
        (answer,) = self.dataOut(line, 0, 1024, r2t["ttt"])
        self.assertEqual((answer["flags"], answer["residual"]), (0x80 | numbers.UNDERFLOW, 7168))

    def test_spoiltUnsolicited(self) -> None:
        """An unsolicited Data-Out that fails its digest ends its task, and no other."""
        line = loggedIn(self.device, InitialR2T="No", DataDigest="CRC32C")
        line.command(write10(0, 16), write=8192, final=False)
        stream = bytearray(pdus.dataOut(self.data, itt=line.itt, digests=line.digests))
        stream[-1] ^= 1
        reject, answer = line.say(bytes(stream))
        self.assertEqual((reject["opcode"], reject["reason"]), (numbers.REJECT, numbers.REASON_DATA_DIGEST))
        self.assertEqual(sense(answer), (2, "4705"))
        self.untouched()

    def test_spoiltOfNobody(self) -> None:
        """A Data-Out that fails its digest and belongs to no task, or to one without data, is rejected."""
        line = loggedIn(FakeDevice(), DataDigest="CRC32C")
        line.command(b"\x28" + bytes(7) + b"\1\0", read=512)
        for itt in (line.itt, 0x777):
            stream = bytearray(pdus.dataOut(b"data", itt=itt, digests=line.digests))
            stream[-1] ^= 1
            (reject,) = line.say(bytes(stream))
            self.assertEqual(reject["reason"], numbers.REASON_DATA_DIGEST)

    def test_forRead(self) -> None:
        """Data for a task that reads are dropped."""
        device = FakeDevice()
        line = loggedIn(device)
        line.command(b"\x28" + bytes(7) + b"\1\0", read=512)
        self.assertEqual(line.say(pdus.dataOut(self.data, itt=line.itt)), [])
        device.fire()
        self.assertEqual(len(line.take()), 1)

    def test_withoutWriteFlag(self) -> None:
        """A write without the W bit gets no data, and writes nothing."""
        line = loggedIn(self.device)
        (answer,) = line.command(write10(0, 1))
        self.assertEqual((answer["status"], answer["residual"]), (0, 0))
        self.untouched()

    def test_heldMeanwhile(self) -> None:
        """Data may come while the command still waits for the connection, right ones and wrong ones."""
        line = loggedIn(self.device, InitialR2T="No", FirstBurstLength="8192")
        line.core.pause()
        for first in (0, 512):
            line.command(write10(0, 16), write=8192, final=False)
            data = self.data[first:] + bytes(first)
            self.assertEqual(line.say(pdus.dataOut(data, itt=line.itt, offset=first)), [])
        line.core.resume()
        good, bad = line.take()
        self.assertEqual((good["status"], sense(bad)), (0, (2, "4705")))
        self.assertEqual(self.device.read(0, 8192), self.data)

    def test_crumbs(self) -> None:
        """Data in the smallest pieces take hardly more memory than they are, and arrive in order."""
        line = self.solicited()
        count = 20 * CRUMBS
        data = bytes(range(256)) * (count // 128)
        (r2t,) = line.command(write10(0, 20), write=2 * count)
        for number in range(count - 1):
            part = data[2 * number : 2 * number + 2]
            line.core.receive(
                pdus.dataOut(
                    part, itt=line.itt, ttt=r2t["ttt"], dataSN=number, offset=2 * number, final=False
                )
            )
        (task,) = sessionOf(line).tasks.values()
        pieces: Any = task.dataOut._pieces  # type: ignore[union-attr]
        self.assertLess(sum(map(sys.getsizeof, pieces)), 2 * count + 2 * CRUMBS * 60)
        last = 2 * count - 2
        (answer,) = line.say(
            pdus.dataOut(data[last:], itt=line.itt, ttt=r2t["ttt"], dataSN=count - 1, offset=last)
        )
        self.assertEqual((answer["status"], self.device.read(0, 2 * count)), (0, data))
        self.assertLess(2, CRUMB)


class BudgetTests(SynchronousTestCase):
    """What may be solicited at one time."""

    def setUp(self) -> None:
        self.device = MemoryDevice(64 << 20)
        self.node, self.diary = makeNode(makeTarget(self.device))
        self.line = self.another(1)

    def another(self, number: int) -> Line:
        """One session more."""
        line = Line(self.node)
        keys = {"InitialR2T": "Yes", "ImmediateData": "No", "MaxBurstLength": str(1 << 20)}
        line.login(InitiatorName=f"iqn.2001-04.com.example:host{number}", **keys)
        return line

    def large(self, line: Line) -> list[dict[str, Any]]:
        """Begin the longest write."""
        return line.command(write10(0, LONGEST // 512), write=LONGEST)

    def test_session(self) -> None:
        """A session is asked for so many bytes at a time; further writes wait, and go on in order."""
        self.assertEqual(SOLICITED, 2 * LONGEST)
        self.assertEqual(len(self.large(self.line) + self.large(self.line)), 2)
        first = self.line.itt - 1
        self.assertEqual(self.large(self.line), [])
        self.assertEqual(self.line.command(write10(0, 1), write=512), [])
        self.line.say(pdus.taskManagement(numbers.ABORT_TASK, referenced=first))
        self.assertEqual(sessionOf(self.line).solicited.used, 2 * LONGEST)

    def test_asksLater(self) -> None:
        """The R2T of a write that had to wait is sent when another write has ended."""
        tags = []
        for _ in range(3):
            self.large(self.line)
            tags.append(self.line.itt)
        response, r2t = self.line.say(pdus.taskManagement(numbers.ABORT_TASK, referenced=tags[0]))
        if response["opcode"] == R2T:
            response, r2t = r2t, response
        self.assertEqual((r2t["opcode"], r2t["itt"]), (R2T, tags[2]))
        self.assertEqual(response["response"], numbers.FUNCTION_COMPLETE)

    def test_waitingAborted(self) -> None:
        """A write that is aborted while it waits for its turn leaves nothing behind."""
        for _ in range(3):
            self.large(self.line)
        self.line.say(pdus.taskManagement(numbers.ABORT_TASK, referenced=self.line.itt))
        budget = sessionOf(self.line).solicited
        self.assertEqual((budget.used, budget._waiting), (2 * LONGEST, {}))

    def test_all(self) -> None:
        """All sessions together have a bound too; who waits for it is asked when another session ends."""
        self.node.solicited.limit = 2 * LONGEST
        other, third = self.another(2), self.another(3)
        for line in (self.line, other):
            self.assertEqual(len(self.large(line)), 1)
        self.assertEqual(self.large(third), [])
        self.assertEqual(self.node.solicited.used, 2 * LONGEST)
        other.core.lost("gone")
        (r2t,) = third.take()
        self.assertEqual(r2t["opcode"], R2T)
        for line in (self.line, third):
            line.core.lost("gone")
        self.assertEqual(self.node.solicited.used, 0)

    def test_gone(self) -> None:
        """A session that ends while its writes wait is never asked for anything."""
        for _ in range(3):
            self.large(self.line)
        session = sessionOf(self.line)
        self.line.core.lost("gone")
        self.assertEqual((session.solicited.used, session.solicited._waiting), (0, {}))
        self.assertEqual((self.line.take(), self.node.solicited.used), ([], 0))

    def test_oneSessionAlone(self) -> None:
        """A session with a window full of the longest writes leaves room for all others."""
        for _ in range(100):
            self.large(self.line)
        self.assertEqual(self.node.solicited.used, SOLICITED)
        self.assertEqual(len(self.large(self.another(2))), 1)

    def test_immediateCosts(self) -> None:
        """Writes whose data came with them need no budget."""
        for _ in range(3):
            self.large(self.line)
        plain = loggedIn(self.device)
        (answer,) = plain.command(write10(0, 1), write=512, data=bytes(512))
        self.assertEqual(answer["status"], 0)
        self.assertEqual(plain.command(TEST_UNIT_READY)[0]["status"], 0)
