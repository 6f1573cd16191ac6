"""Tests for L{iscsi_twisted.session.datain}: Data-In sequences, responses, residuals."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.interfaces import ITask
from iscsi_twisted.session.session import Session
from iscsi_twisted.session.task import Task
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import numbers
from tests.support.devices import FakeDevice
from tests.support.wire import DATA_IN, SCSI_RESPONSE, Line, loggedIn, read10, write10

CONTENT = bytes(range(251)) * 300


class SequenceTests(SynchronousTestCase):
    """Data-In of any length for any initiator."""

    @settings(deadline=None, max_examples=60)
    @given(
        st.integers(512, 20000),
        st.integers(512, 40000),
        st.integers(0, 100),
        st.integers(0, 60000),
        st.sampled_from(["None", "CRC32C"]),
    )
    def test_anyLength(self, segment: int, burst: int, blocks: int, expected: int, digest: str) -> None:
        """PDUs are no longer than the initiator takes, bursts than agreed upon, and nothing is lost."""
        device = MemoryDevice(1 << 17)
        line = loggedIn(
            device, MaxRecvDataSegmentLength=str(segment), MaxBurstLength=str(burst), DataDigest=digest
        )
        device.write(0, CONTENT)
        answers = line.command(read10(0, blocks), read=expected)
        sent = min(blocks * 512, expected)
        dataIns = answers if sent else []
        self.assertEqual(b"".join(answer["data"] for answer in dataIns), CONTENT[:sent])
        offset = burstLength = 0
        for number, answer in enumerate(dataIns):
            self.assertEqual((answer["opcode"], answer["dataSN"]), (DATA_IN, number))
            self.assertEqual(answer["bufferOffset"], offset)
            self.assertLessEqual(len(answer["data"]), segment)
            offset += len(answer["data"])
            burstLength += len(answer["data"])
            last = answer is dataIns[-1]
            self.assertEqual(bool(answer["flags"] & numbers.FINAL), last or burstLength == burst)
            self.assertEqual(bool(answer["flags"] & numbers.STATUS), last)
            if burstLength == burst:
                burstLength = 0
            self.assertLess(burstLength, burst)
        final = answers[-1]
        self.assertEqual(final["residual"], abs(blocks * 512 - expected))
        self.assertEqual(bool(final["flags"] & numbers.OVERFLOW), blocks * 512 > expected)
        self.assertEqual(bool(final["flags"] & numbers.UNDERFLOW), blocks * 512 < expected)

    def test_statSN(self) -> None:
        """Only the PDU with the status takes a StatSN."""
        line = loggedIn(MaxRecvDataSegmentLength="512")
        first = line.core.statSN
        answers = line.command(read10(0, 3), read=1536)
        self.assertEqual([answer["statSN"] for answer in answers], [0, 0, first])
        self.assertEqual(line.core.statSN, first + 1)

    def test_views(self) -> None:
        """Long data are never copied: what is sent are views of what the device gave."""
        line = loggedIn(MaxRecvDataSegmentLength="512")
        line.core.receive(line.build(read10(0, 3), read=1536))
        payloads = line.sent[0][1::2]
        self.assertEqual({type(payload) for payload in payloads}, {memoryview})
        self.assertEqual(len({id(payload.obj) for payload in payloads}), 1)  # type: ignore[union-attr]

    def test_collapsedWithDigest(self) -> None:
        """With digests a read that fits is one PDU as well, padded if need be."""
        device = MemoryDevice(4096)
        line = loggedIn(device, DataDigest="CRC32C", HeaderDigest="CRC32C")
        device.write(0, b"abc")
        (answer,) = line.command(read10(0, 1), read=3)
        self.assertEqual((answer["data"], answer["flags"], answer["residual"]), (b"abc", 0x85, 509))


class DirectTests(SynchronousTestCase):
    """Endings that units of today never ask for, but may."""

    def setUp(self) -> None:
        self.line: Line = loggedIn(FakeDevice(), MaxRecvDataSegmentLength="512")
        self.session: Session = self.line.core.session  # type: ignore[assignment]

    def task(self, **options: Any) -> Task:
        """A task that has not ended."""
        self.line.command(read10(0, 1), **options)
        return self.session.tasks[self.line.itt]

    def test_fullDetails(self) -> None:
        """A task is what a unit wants to see."""
        task = self.task(read=512)
        self.assertTrue(ITask.providedBy(task))
        self.assertEqual((task.cdb[0], task.lun, task.nexus), (0x28, 0, self.session.nexus))

    def test_dataBeforeFailure(self) -> None:
        """Status other than GOOD stands in a response of its own behind the data."""
        task = self.task(read=1024)
        task._end(2, b"x" * 1024, b"\x70" + bytes(17))
        *dataIns, response = self.line.take()
        self.assertEqual([answer["flags"] for answer in dataIns], [0, 0x80])
        self.assertEqual((response["opcode"], response["status"]), (SCSI_RESPONSE, 2))
        self.assertEqual((response["expDataSN"], response["residual"]), (2, 0))

    def test_nothingExpected(self) -> None:
        """Where nothing is expected and nothing comes, there is no residual."""
        task = self.task()
        task.fail(0x18)
        (response,) = self.line.take()
        self.assertEqual((response["flags"], response["status"], response["residual"]), (0x80, 0x18, 0))

    def test_expectedWithoutDirection(self) -> None:
        """What was expected without a direction is an underflow."""
        header = bytearray(self.line.build(read10(0, 1), read=512))
        header[1] &= ~numbers.READ
        self.line.say(bytes(header))
        self.session.tasks[self.line.itt].complete()
        (response,) = self.line.take()
        self.assertEqual((response["flags"], response["residual"]), (0x82, 512))

    def test_writeBeforeData(self) -> None:
        """A write that is refused before it asked for data has moved nothing."""
        (response,) = self.line.command(write10(99999, 2), write=1024)
        self.assertEqual((response["status"], response["flags"], response["residual"]), (2, 0x82, 1024))
