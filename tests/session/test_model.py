"""
Sessions against a model: whatever was negotiated and in whatever order data come, what was written is read.

The model is a bytearray; an initiator with several writes outstanding answers R2Ts of any of them in any
order that the standard allows, in Data-Out of any length, and reads with any expected length.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import numbers
from tests.support import pdus
from tests.support.wire import DATA_IN, R2T, SCSI_RESPONSE, loggedIn, read10, write10

BLOCK = 512
BLOCKS = 64

yesNo = st.sampled_from(["Yes", "No"])
lengths = st.one_of(st.sampled_from([512, 1024, 4096, 16384]), st.integers(512, 20000)).map(str)
parameters = st.fixed_dictionaries(
    {
        "InitialR2T": yesNo,
        "ImmediateData": yesNo,
        "FirstBurstLength": lengths,
        "MaxBurstLength": lengths,
        "MaxOutstandingR2T": st.integers(1, 4).map(str),
        "MaxRecvDataSegmentLength": lengths,
        "HeaderDigest": st.sampled_from(["None", "CRC32C"]),
        "DataDigest": st.sampled_from(["None", "CRC32C"]),
    }
)


class Write:
    """
    A write that has not ended.

    @ivar length: bytes that its CDB wants.
    @ivar data: what the initiator says it has, which may be less or more.
    @ivar bursts: sequences that the target waits for, in order: tag, offset, end.
    """

    def __init__(self, lba: int, blocks: int, data: bytes) -> None:
        self.lba = lba
        self.length = blocks * BLOCK
        self.data = data
        self.bursts: list[tuple[int, int, int]] = []
        self.answer: dict[str, Any] | None = None


class Initiator:
    """Writes, several at a time, as one session with any parameters."""

    def __init__(self, draw: Any, device: MemoryDevice, keys: dict[str, str]) -> None:
        self.draw = draw
        self.line = loggedIn(device, **keys)
        session = self.line.core.session
        assert session is not None
        self.session = session
        self.agreed = session.parameters
        self.writes: dict[int, Write] = {}

    def begin(self, write: Write) -> None:
        """Send the command, with as much data as is drawn and allowed."""
        agreed, have = self.agreed, len(write.data)
        first = min(agreed.firstBurst, have)
        immediate = self.draw(st.integers(0, first)) if agreed.immediateData else 0
        unsolicited = not agreed.initialR2T and self.draw(st.booleans())
        if unsolicited:
            write.bursts.append((numbers.NO_TAG, immediate, first))
        command = self.line.build(
            write10(write.lba, write.length // BLOCK), write=have, data=write.data[:immediate],
            final=not unsolicited,
        )  # fmt: skip
        self.writes[self.line.itt] = write
        self.take(self.line.say(command))

    def take(self, answers: list[dict[str, Any]]) -> None:
        """R2Ts and responses."""
        for answer in answers:
            write = self.writes[answer["itt"]]
            if answer["opcode"] == R2T:
                begin = answer["bufferOffset"]
                assert 0 < answer["desiredLength"] <= self.agreed.maxBurst
                write.bursts.append((answer["ttt"], begin, begin + answer["desiredLength"]))
                solicited = [tag for tag, _, _ in write.bursts if tag != numbers.NO_TAG]
                assert len(solicited) <= self.agreed.maxOutstandingR2T
            else:
                assert (answer["opcode"], write.bursts) == (SCSI_RESPONSE, [])
                write.answer = answer
                del self.writes[answer["itt"]]

    def goOn(self) -> bool:
        """Send one sequence of any write that is asked for one; whether there was any."""
        asked = [itt for itt, write in self.writes.items() if write.bursts]
        if not asked:
            return False
        itt = self.draw(st.sampled_from(asked))
        write = self.writes[itt]
        ttt, begin, end = write.bursts.pop(0)
        cuts = sorted(self.draw(st.lists(st.integers(begin, end), max_size=3)))
        edges = [begin, *cuts, end]
        for number in range(len(edges) - 1):
            stream = pdus.dataOut(
                write.data[edges[number] : edges[number + 1]], itt=itt, ttt=ttt, dataSN=number,
                offset=edges[number], final=number == len(edges) - 2, digests=self.line.digests,
            )  # fmt: skip
            self.take(self.line.say(stream))
        return True


class ModelTests(SynchronousTestCase):
    """All combinations of parameters."""

    @settings(deadline=None, max_examples=150)
    @given(parameters, st.data())
    def test_writes(self, keys: dict[str, str], data: Any) -> None:
        """Writes that overlap in time, not in place, leave what a model says, and residuals are exact."""
        device, model = MemoryDevice(BLOCKS * BLOCK), bytearray(BLOCKS * BLOCK)
        initiator = Initiator(data.draw, device, keys)
        places = data.draw(st.lists(st.integers(1, BLOCKS - 1), max_size=4, unique=True).map(sorted))
        begun = []
        for number, (lba, end) in enumerate(zip([0, *places], [*places, BLOCKS], strict=True)):
            blocks = data.draw(st.integers(1, end - lba))
            have = data.draw(st.sampled_from([blocks, max(blocks - 1, 1), blocks + 2]))
            write = Write(lba, blocks, bytes([number + 1]) * (have * BLOCK))
            begun.append(write)
            initiator.begin(write)
            if data.draw(st.booleans()):
                initiator.goOn()
        while initiator.goOn():
            pass
        self.assertEqual((initiator.writes, initiator.session.tasks), ({}, {}))
        self.assertEqual(initiator.session.solicited.used, 0)
        for write in begun:
            moved = min(write.length, len(write.data))
            model[write.lba * BLOCK : write.lba * BLOCK + moved] = write.data[:moved]
            assert write.answer is not None
            self.assertEqual(write.answer["status"], 0)
            self.assertResidual(write.answer, write.length, len(write.data))
        self.assertEqual(bytes(device.read(0, BLOCKS * BLOCK)), bytes(model))
        self.assertReads(initiator, bytes(model), data)

    def assertReads(self, initiator: Initiator, model: bytes, data: Any) -> None:
        """Reads of any length, with any expected length, return what the model holds."""
        line, agreed = initiator.line, initiator.agreed
        lba = data.draw(st.integers(0, BLOCKS - 1))
        blocks = data.draw(st.integers(1, BLOCKS - lba))
        length = blocks * BLOCK
        expected = data.draw(st.one_of(st.just(length), st.integers(1, 2 * length)))
        answers = line.command(read10(lba, blocks), read=expected)
        got = b"".join(answer["data"] for answer in answers)
        self.assertEqual(got, model[lba * BLOCK :][: min(length, expected)])
        offset = burst = 0
        for number, answer in enumerate(answers):
            self.assertEqual(
                (answer["opcode"], answer["dataSN"], answer["bufferOffset"]), (DATA_IN, number, offset)
            )
            self.assertLessEqual(len(answer["data"]), agreed.maxSegment)
            offset += len(answer["data"])
            burst += len(answer["data"])
            self.assertLessEqual(burst, agreed.maxBurst)
            self.assertEqual(answer["flags"] & 1, answer is answers[-1])
            if answer["flags"] & numbers.FINAL:
                burst = 0
        self.assertEqual(burst, 0)
        self.assertResidual(answers[-1], length, expected)

    def assertResidual(self, answer: dict[str, Any], length: int, expected: int) -> None:
        """Underflow and overflow are exact (RFC 7143 11.4.5)."""
        flags = numbers.OVERFLOW if length > expected else numbers.UNDERFLOW if length < expected else 0
        told = answer["flags"] & (numbers.OVERFLOW | numbers.UNDERFLOW)
        self.assertEqual((told, answer["residual"]), (flags, abs(length - expected)))
