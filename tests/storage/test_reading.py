"""
Tests for L{iscsi_twisted.storage.reading}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import ReadError, WriteError
from iscsi_twisted.storage import Mirror
from iscsi_twisted.storage.legs import IN_SYNC
from iscsi_twisted.storage.patience import READS, SECONDS, SHUNNED
from tests.support.devices import FakeDevice
from tests.support.mirrors import opened

SOON = SECONDS / READS + SECONDS / 10


class KnownDevice(FakeDevice):
    """A device that can be told from others."""

    def fingerprint(self) -> str:
        return f"device {id(self)}"


class ReadingTests(SynchronousTestCase):
    """Reads that are not answered."""

    def setUp(self) -> None:
        """An open mirror whose members wait for the test."""
        self.clock = Clock()
        self.members = [KnownDevice(100, synchronous=True) for _ in range(3)]
        self.mirror = opened(Mirror(self.members, reactor=self.clock))
        self.clock.pump([1] * 3)
        for number, member in enumerate(self.members):
            member.contents[:] = bytes([65 + number]) * 100
            member.synchronous = False
        self.assertEqual([leg.state for leg in self.mirror.legs], [IN_SYNC] * 3)

    def read(self) -> tuple[Any, KnownDevice]:
        """Begin a read: the result, and whom it asks."""
        before = [len(member.operations) for member in self.members]
        result = self.mirror.read(0, 3)
        (asked,) = [
            member
            for member, count in zip(self.members, before, strict=True)
            if len(member.operations) > count
        ]
        return result, asked

    def advance(self, seconds: float) -> None:
        """Time goes by."""
        self.clock.pump([0.5] * round(seconds * 2))

    def others(self, asked: KnownDevice) -> list[KnownDevice]:
        """Those that wait, but for this one."""
        return [member for member in self.members if member is not asked and member.operations]

    def letter(self, member: KnownDevice) -> bytes:
        """What a member holds."""
        return bytes(member.contents[:3])

    def test_inTime(self) -> None:
        """Nobody else is asked while there is time."""
        result, asked = self.read()
        self.advance(SECONDS / READS - 1)
        self.assertEqual(self.others(asked), [])
        asked.fire()
        self.assertEqual(self.successResultOf(result), self.letter(asked))

    def test_another(self) -> None:
        """After a while another is asked, and the first answer counts; the late one is left alone."""
        result, asked = self.read()
        self.advance(SOON)
        (other,) = self.others(asked)
        self.assertNoResult(result)
        other.fire()
        self.assertEqual(self.successResultOf(result), self.letter(other))
        self.assertEqual(asked.operations[0].cancelled, 1)
        self.assertEqual(sum(member.hanging for member in self.mirror.status().members), 1)
        asked.fire()
        self.assertEqual(sum(member.hanging for member in self.mirror.status().members), 0)
        self.assertEqual([member.state for member in self.mirror.status().members], [IN_SYNC] * 3)

    def test_cancelledAtOnce(self) -> None:
        """One that is late may end at once when it is told that it is not needed."""
        result, asked = self.read()
        self.advance(SOON)
        operation = asked.operations[0]
        operation.cancel = lambda: operation.errback(CancelledError())
        (other,) = self.others(asked)
        other.fire()
        self.assertEqual(self.successResultOf(result), self.letter(other))
        self.assertIsNone(self.successResultOf(operation))
        self.assertEqual(sum(member.hanging for member in self.mirror.status().members), 0)

    def test_afterAll(self) -> None:
        """If the first one is quicker after all it counts."""
        result, asked = self.read()
        self.advance(SOON)
        asked.fire()
        self.assertEqual(self.successResultOf(result), self.letter(asked))

    def test_shunned(self) -> None:
        """One that did not answer is not read for a while, even where a stream was."""
        result, asked = self.read()
        self.advance(SOON)
        self.others(asked)[0].fire()
        self.successResultOf(result)
        for _ in range(6):
            _, member = self.read()
            self.assertIsNot(member, asked)
            member.fire()
        asked.fire()
        for _ in range(6):
            _, member = self.read()
            self.assertIsNot(member, asked)
            member.fire()
        self.advance(SHUNNED + 5)
        self.assertIn(asked, [self.read()[1] for _ in range(6)])

    def test_nobody(self) -> None:
        """If nobody answers whoever does so first is right."""
        result, _ = self.read()
        self.advance(SECONDS * 4)
        self.assertEqual([len(member.operations) for member in self.members], [1, 1, 1])
        self.members[1].fire()
        self.assertEqual(self.successResultOf(result), b"BBB")

    def test_otherFails(self) -> None:
        """If the others fail the one that hangs is waited for, and they get what they could not read."""
        result, asked = self.read()
        self.advance(SOON)
        for _ in range(2):
            (other,) = self.others(asked)
            other.operations[0].fail(ReadError("bad", 0))
        self.assertNoResult(result)
        asked.operations[0].fire()
        self.assertEqual(self.successResultOf(result), self.letter(asked))
        for member in self.members * 3:
            member.fire()
        others = [member for member in self.members if member is not asked]
        self.assertEqual([self.letter(member) for member in others], [self.letter(asked)] * 2)

    def test_cancelled(self) -> None:
        """A read that was aborted is not tried elsewhere, and its place is not taken for ever."""
        result, asked = self.read()
        self.advance(1)
        result.cancel()
        self.assertNoResult(result)
        self.advance(SOON)
        self.failureResultOf(result, CancelledError)
        self.assertEqual(self.others(asked), [])
        asked.fire()

    def test_cancelledFails(self) -> None:
        """What is asked of an aborted read's member may fail: the mirror does not say that it cannot read."""
        result, asked = self.read()
        result.cancel()
        asked.operations[0].fail(ReadError("bad", 0))
        self.failureResultOf(result, CancelledError)
        self.assertEqual((self.others(asked), self.mirror.errors), ([], 0))

    def test_cancelledWrong(self) -> None:
        """What is wrong with a device's code is told even then."""
        result, asked = self.read()
        result.cancel()
        asked.operations[0].fail(ZeroDivisionError())
        self.failureResultOf(result, ZeroDivisionError)

    def test_cancelledLate(self) -> None:
        """If all that were asked hang already an aborted read has ended."""
        result, _ = self.read()
        self.advance(SECONDS * 2)
        result.cancel()
        self.failureResultOf(result, CancelledError)
        for member in self.members:
            member.fire()
        self.assertEqual([member.hanging for member in self.mirror.status().members], [0, 0, 0])

    def test_leftOut(self) -> None:
        """When a member is left out its reads are asked of another soon."""
        result, asked = self.read()
        writing: Any = self.mirror.write(50, b"x")
        for member in self.members:
            if member is not asked:
                member.fire()
        asked.operations[1].fail(WriteError("bad"))
        self.successResultOf(writing)
        self.assertEqual(self.others(asked), [])
        self.advance(SECONDS / 10)
        (other,) = self.others(asked)
        other.fire()
        self.assertEqual(self.successResultOf(result), self.letter(other))
        asked.fire()
        self.assertEqual([leg.busy for leg in self.mirror.legs], [0, 0, 0])

    def test_doubtful(self) -> None:
        """Where nobody knows who is right, and one does not answer, the read fails in the end."""
        mirror = opened(Mirror(self.members, reactor=self.clock))
        result: Any = mirror.read(0, 3)
        for member in self.members[1:]:
            member.fire()
        self.advance(SECONDS * 1.2)
        self.failureResultOf(result, ReadError)

    def test_allocated(self) -> None:
        """If nobody says where data are, all are data."""
        result: Any = self.mirror.allocated(0, 100)
        self.advance(SECONDS * 1.2)
        self.assertEqual(self.successResultOf(result), [(100, True)])
