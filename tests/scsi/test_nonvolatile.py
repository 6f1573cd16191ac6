"""What a unit remembers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.scsi.nonvolatile import Nonvolatile, Remembered
from tests.scsi.devices import MemoryStore

DAMAGED = (
    b"x",
    b"[]",
    b"{}",
    b'{"pages": {}}',
    b'{"pages": {"08": 1}, "information": {}, "cycles": [0, 0]}',
    b'{"pages": {"8.0": "0"}, "information": {}, "cycles": [0, 0]}',
    b'{"pages": {"": ""}, "information": {}, "cycles": [0, 0]}',
    b'{"pages": {}, "information": {"a": ""}, "cycles": [0, 0]}',
    b'{"pages": [], "information": {}, "cycles": [0, 0]}',
    b"\xff",
    b'{"pages": {}, "information": {}, "cycles": [0]}',
    b'{"pages": {}, "information": {}, "cycles": 1}',
)


class NonvolatileTests(SynchronousTestCase):
    """Tests of L{Nonvolatile}."""

    @given(
        st.dictionaries(st.tuples(st.integers(0, 0x3F), st.integers(0, 0xFF)), st.binary()),
        st.dictionaries(st.integers(0, 127), st.binary()),
        st.tuples(st.integers(0), st.integers(0)),
    )
    def test_roundTrip(
        self, pages: dict[tuple[int, int], bytes], information: dict[int, bytes], cycles: tuple[int, int]
    ) -> None:
        """What is remembered is understood again."""
        state = Remembered(pages, information, cycles)
        self.assertEqual(Remembered.parse(state.dump()), state)

    def test_nothing(self) -> None:
        """Nothing to remember is nothing to keep."""
        self.assertEqual(Remembered().dump(), b"")

    def test_damaged(self) -> None:
        """What is no state is an error, and only one."""
        for state in DAMAGED:
            store = MemoryStore()
            store.save(state)
            self.assertRaises(ValueError, Nonvolatile, store)

    def test_several(self) -> None:
        """Changes of different things that wait for the store do not undo one another."""
        store = MemoryStore()
        memory = Nonvolatile(store)
        store.waiting = first = Deferred()
        memory.inform(0, b"name")
        store.waiting = second = Deferred()
        memory.change(pages={(8, 0): b"x"})
        self.assertEqual(memory.now, Remembered())
        first.callback(None)
        second.callback(None)
        self.assertEqual(memory.now, Remembered({(8, 0): b"x"}, {0: b"name"}))
        self.assertEqual(Nonvolatile(store).now, memory.now)

    def test_lost(self) -> None:
        """What could not be kept is not taken up by the next change."""
        store = MemoryStore()
        memory = Nonvolatile(store)
        store.waiting = lost = Deferred()
        memory.inform(0, b"name")
        lost.errback(OSError("no"))
        self.failureResultOf(lost, OSError)
        memory.inform(2, b"text")
        self.assertEqual(memory.now, Remembered(information={2: b"text"}))
        memory.inform(2, b"")
        self.assertEqual((memory.now, store.states[-1]), (Remembered(), b""))
