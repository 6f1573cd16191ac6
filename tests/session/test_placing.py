"""Data-In that are received where their command wants them, by the initiator's core."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from iscsi_twisted.session.command import Command
from iscsi_twisted.wire import numbers
from iscsi_twisted.wire.framer import FILLED
from tests.session.test_client import SessionTestCase, Told
from tests.support import pdus

SIZE = 5 * FILLED


class PlacingTests(SessionTestCase):
    """Long Data-In that come in pieces."""

    def filled(self, data: bytes) -> int:
        """
        Receive by the buffers that the core wants filled, where it does.

        @return: how many bytes came by them.
        """
        count = 0
        while data:
            wanted = self.core.wanted()
            if wanted is None:
                self.core.receive(data[:1000])
                data = data[1000:]
                continue
            taken = pdus.pour(data, wanted)
            data = data[taken:]
            self.core.filled(taken)
            count += taken
        return count

    def asking(self, into: Any = None) -> Command:
        """A command that reads."""
        command = Told(self.results, expected=SIZE, into=into)
        self.core.execute(command)
        return command

    def both(self, itt: int, data: bytes) -> bytes:
        """Two Data-In, the second with the status."""
        self.statSN += 1
        last: dict[str, Any] = {"flags": numbers.FINAL | numbers.STATUS, "statSN": self.statSN - 1}
        first = 2 * FILLED
        return self.dataIn(itt, data[:first]) + self.dataIn(
            itt, data[first:], dataSN=1, bufferOffset=first, **last
        )

    def test_into(self) -> None:
        """They go into the caller's buffer, nearly all of them without a copy."""
        into, data = bytearray(SIZE), os.urandom(SIZE)
        self.assertGreater(self.filled(self.both(self.asking(into).itt, data)), SIZE - 2000)
        (outcome,) = self.results
        self.assertEqual((into, outcome.received, bytes(outcome.data)), (data, SIZE, b""))

    @settings(deadline=None)
    @given(st.booleans(), st.lists(st.integers(0, SIZE + 96), max_size=8), st.booleans())
    def test_anyCut(self, into: bool, cuts: list[int], ahead: bool) -> None:
        """However they come, the same bytes are there at the end, in a buffer of the caller's or another."""
        self.setUp()
        buffer, data = bytearray(SIZE) if into else None, os.urandom(SIZE)
        stream = self.both(self.asking(buffer).itt, data)
        for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(stream)], strict=True):
            if ahead:
                self.core.receive(stream[begin:end])
            else:
                self.filled(stream[begin:end])
        (outcome,) = self.results
        self.assertEqual(buffer if buffer is not None else bytes(outcome.data), data)

    def test_released(self) -> None:
        """From the moment that nobody waits any more, nothing is written into the caller's buffer."""
        into, data = bytearray(SIZE), os.urandom(SIZE)
        command = self.asking(into)
        stream = self.both(command.itt, data)
        self.filled(stream[:5000])
        before = bytes(into)
        self.assertEqual(before[:1000], data[:1000])
        self.core.release(command)
        self.filled(stream[5000:])
        self.assertEqual(into, before)
        self.assertEqual((len(self.results), self.core.error), (1, None))

    def test_wrong(self) -> None:
        """What is not due has no place, and ends the connection once it is complete."""
        for fields in ({"bufferOffset": 4}, {"dataSN": 1}, {"bufferOffset": SIZE}):
            self.setUp()
            into = bytearray(SIZE)
            command = self.asking(into)
            self.filled(self.dataIn(command.itt, b"x" * 2 * FILLED, **fields))
            self.assertBroken("Data-In")
            self.assertEqual(into, bytes(SIZE))

    def test_others(self) -> None:
        """Long segments of other PDUs, and of tasks that there are not, go nowhere."""
        into = bytearray(SIZE)
        command = self.asking(into)
        self.filled(self.dataIn(command.itt + 1, b"x" * 2 * FILLED))
        self.assertBroken("which there is not")
        self.assertEqual(into, bytes(SIZE))
