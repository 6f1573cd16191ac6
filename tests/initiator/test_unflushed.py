"""What was acknowledged and is not durable yet."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.initiator.unflushed import DISCARD, WRITE, ZERO, Unflushed

SPACE = 64


def changes() -> st.SearchStrategy[list[tuple[int, int, bool]]]:
    """Where something is changed: the first byte, how many, and whether data are written."""
    change = st.tuples(st.integers(0, SPACE - 1), st.integers(1, SPACE), st.booleans())
    return st.lists(change, max_size=20)


class UnflushedTests(SynchronousTestCase):
    """Tests of L{Unflushed}."""

    @given(changes(), st.integers(0, 20), st.integers(0, SPACE), st.integers(0, SPACE))
    def test_model(self, made: list[tuple[int, int, bool]], flushed: int, start: int, stop: int) -> None:
        """It says of each byte how it was changed last, unless that is durable or was forgotten."""
        unflushed = Unflushed()
        model: dict[int, tuple[str, bytes, int]] = {}
        for number, (offset, length, written) in enumerate(made, 1):
            end = min(offset + length, SPACE)
            data = bytes([number]) * (end - offset) if written else b""
            how = WRITE if written else ZERO
            unflushed.put(offset, end, how, data, number)
            for place in range(offset, end):
                model[place] = how, data[:1], number
        self.compare(unflushed, model)
        unflushed.flushed(flushed)
        model = {place: value for place, value in model.items() if value[2] > flushed}
        self.compare(unflushed, model)
        unflushed.remove(start, max(start, stop))
        self.compare(unflushed, {place: model[place] for place in model if not start <= place < stop})

    def compare(self, unflushed: Unflushed, model: dict[int, tuple[str, bytes, int]]) -> None:
        """Its pieces are in order, do not overlap, and say what the model says."""
        found: dict[int, tuple[str, bytes, int]] = {}
        last = 0
        for piece in unflushed:
            self.assertTrue(last <= piece.offset < piece.end)
            self.assertEqual(piece.epoch, piece.number)
            last = piece.end
            for place in range(piece.offset, piece.end):
                there = bytes(piece.data)[place - piece.offset : place - piece.offset + 1]
                found[place] = piece.how, there, piece.number
        self.assertEqual(found, model)
        self.assertEqual(unflushed.size, sum(how == WRITE for how, _, _ in model.values()))

    def test_memory(self) -> None:
        """A small part does not keep the memory of the whole; a large one is not copied."""
        unflushed = Unflushed()
        whole = bytes(1000)
        unflushed.put(0, 1000, WRITE, whole, 0)
        unflushed.remove(0, 100)
        (piece,) = unflushed
        assert isinstance(piece.data, memoryview)
        self.assertIs(piece.data.obj, whole)
        unflushed.remove(200, 1000)
        (piece,) = unflushed
        self.assertIsInstance(piece.data, bytes)

    def test_bounds(self) -> None:
        """It is filling when half of the bytes or pieces are there, and full with all."""
        for most, data in ((100, b"x" * 10), (4, b"")):
            unflushed = Unflushed(40, most)
            states = []
            for place in range(0, 40, 10):
                unflushed.put(place, place + 10, WRITE if data else DISCARD, data, 0)
                states.append((unflushed.filling, unflushed.full))
            self.assertEqual(states, [(False, False), (True, False), (True, False), (True, True)])

    def test_before(self) -> None:
        """What an earlier start of the target had is known."""
        unflushed = Unflushed()
        unflushed.put(0, 10, ZERO, b"", 0)
        unflushed.put(5, 10, ZERO, b"", 1)
        self.assertEqual([(piece.offset, piece.end) for piece in unflushed.before(1)], [(0, 5)])
        self.assertEqual((len(unflushed.before(2)), len(unflushed.before(0)), len(unflushed)), (2, 0, 2))
