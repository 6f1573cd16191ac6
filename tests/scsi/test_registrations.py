"""The state of persistent reservations."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.registrations import (
    FOR_REGISTRANTS,
    HELD_BY_ALL,
    MOST,
    TYPES,
    Conflict,
    Full,
    Port,
    Registrations,
)

A, B, C = (Port(f"iqn.2001-04.com.example:{name}", bytes(6), 1) for name in "abc")


class RegistrationsTests(SynchronousTestCase):
    """Tests of L{Registrations}."""

    def setUp(self) -> None:
        self.state = Registrations()
        for port, key in ((A, 1), (B, 2), (C, 3)):
            self.state.register(port, 0, key)

    def test_keys(self) -> None:
        """A registration is made, changed and removed by who knows the key; each change counts."""
        state = self.state
        self.assertEqual((state.generation, list(state.keys.values())), (3, [1, 2, 3]))
        self.assertRaises(Conflict, state.register, A, 0, 9)
        self.assertRaises(Conflict, state.register, A, 2, 9)
        state.register(A, 1, 9)
        state.register(B, None, 8)
        state.register(C, 3, 0)
        self.assertEqual((state.generation, state.keys), (6, {A: 9, B: 8}))

    def test_ports(self) -> None:
        """Another session of the same ports is the same registrant; another target port is not."""
        self.assertEqual(self.state.keys[Port(A.initiatorName, bytes(6), 1)], 1)
        self.assertNotIn(Port(A.initiatorName, bytes(6), 2), self.state.keys)

    def test_bound(self) -> None:
        """There is a bound of registrations, and those that are there go on."""
        for number in range(MOST - 3):
            self.state.register(Port("x", number.to_bytes(6, "big"), 1), 0, 7)
        stranger = Port("y", bytes(6), 1)
        self.assertRaises(Full, self.state.register, stranger, 0, 7)
        self.state.register(A, 1, 5)
        self.state.reserve(A, 5, 1)
        self.assertRaises(Full, self.state.move, A, 5, stranger, 7, True)
        self.state.move(A, 5, B, 7, True)
        self.assertRaises(Full, self.state.register, stranger, 0, 7, [A])
        self.assertEqual(len(self.state.keys), MOST - 1)

    def test_several(self) -> None:
        """Several ports register at once, or none does; and unregister."""
        state = self.state
        more = [A._replace(tag=2), A._replace(tag=3)]
        state.register(more[0], 0, 7)
        self.assertRaises(Conflict, state.register, A, 1, 5, more)
        self.assertEqual(state.keys[A], 1)
        state.register(A, None, 5, more)
        self.assertEqual([state.keys[port] for port in (A, *more)], [5, 5, 5])
        state.reserve(A, 5, 5)
        told = state.register(A, 5, 0, more)
        self.assertEqual(set(state.keys), {B, C})
        self.assertEqual(told, dict.fromkeys((B, C), codes.RESERVATIONS_RELEASED))

    def test_allPorts(self) -> None:
        """A registration without an ISID is that of every port of its initiator that has none of its own."""
        state = self.state
        every, own = Port("z", b"", 1), Port("z", bytes(6), 1)
        ports = [Port("z", bytes((number,)) * 6, 1) for number in range(1, 4)]
        state.register(own, 0, 4)
        state.register(every, 0, 9)
        self.assertEqual([state.keyOf(port) for port in (own, *ports)], [4, 9, 9, 9])
        state.reserve(ports[0], 9, 3)
        self.assertEqual(
            [state.restricts(port) for port in (own, *ports, Port("z", ports[0].isid, 2))],
            [True, False, False, False, True],
        )
        told = state.preempt(B, 2, 9, 3)
        self.assertEqual(
            [state.codeFor(told, port) for port in (own, *ports, B)],
            [None, *[codes.REGISTRATIONS_PREEMPTED] * 3, None],
        )
        self.assertEqual([state.isTaken(port) for port in (every, own, ports[0])], [True, True, False])

    def test_reserve(self) -> None:
        """Whoever has registered reserves what is free; once more in the same way is no error."""
        for kind in TYPES:
            self.setUp()
            self.assertRaises(Conflict, self.state.reserve, A, 9, kind)
            self.state.reserve(A, 1, kind)
            self.state.reserve(A, 1, kind)
            other = next(iter(TYPES - {kind}))
            self.assertRaises(Conflict, self.state.reserve, A, 1, other)
            if kind in HELD_BY_ALL:
                self.state.reserve(B, 2, kind)
            else:
                self.assertRaises(Conflict, self.state.reserve, B, 2, kind)
            stranger = Port("z", bytes(6), 1)
            self.assertEqual(
                [self.state.restricts(port) for port in (A, B, stranger)],
                [False, kind not in FOR_REGISTRANTS, True],
            )

    def test_release(self) -> None:
        """The holder releases; others are told where they lose what they were allowed."""
        for kind in TYPES:
            self.setUp()
            self.state.reserve(A, 1, kind)
            if kind not in HELD_BY_ALL:
                self.assertEqual(self.state.release(B, 2, kind), {})
                self.assertTrue(self.state.type)
            self.assertIsNone(self.state.release(A, 1, next(iter(TYPES - {kind}))))
            told = self.state.release(A, 1, kind)
            wanted = {B: codes.RESERVATIONS_RELEASED, C: codes.RESERVATIONS_RELEASED}
            self.assertEqual(told, wanted if kind in FOR_REGISTRANTS else {})
            self.assertEqual(self.state.type, 0)

    def test_unregisteredHolder(self) -> None:
        """With the holder's registration the reservation goes; where all hold it, with the last."""
        for kind in TYPES:
            self.setUp()
            self.state.reserve(A, 1, kind)
            self.state.register(A, 1, 0)
            if kind in HELD_BY_ALL:
                self.assertTrue(self.state.type)
                self.state.register(B, 2, 0)
                self.state.register(C, 3, 0)
            self.assertEqual(self.state.type, 0)

    def test_clear(self) -> None:
        """Everything goes, and all others are told."""
        self.state.reserve(A, 1, 5)
        told = self.state.clear(B, 2)
        self.assertEqual(told, dict.fromkeys((A, C), codes.RESERVATIONS_PREEMPTED))
        self.assertEqual((self.state.keys, self.state.type), ({}, 0))

    def test_preemptHolder(self) -> None:
        """Preempting the holder's key takes the reservation over."""
        self.state.reserve(A, 1, 5)
        told = self.state.preempt(B, 2, 1, 6)
        self.assertEqual(told, {A: codes.REGISTRATIONS_PREEMPTED, C: codes.RESERVATIONS_RELEASED})
        self.assertEqual((self.state.keys, self.state.holder, self.state.type), ({B: 2, C: 3}, B, 6))

    def test_preemptKey(self) -> None:
        """Preempting another key removes its registrations alone; a key that nobody has is a conflict."""
        self.state.reserve(A, 1, 1)
        self.assertEqual(self.state.preempt(B, 2, 3, 1), {C: codes.REGISTRATIONS_PREEMPTED})
        self.assertEqual((self.state.keys, self.state.holder), ({A: 1, B: 2}, A))
        self.assertRaises(Conflict, self.state.preempt, B, 2, 77, 1)
        self.assertRaises(Conflict, self.state.preempt, B, 77, 1, 1)

    def test_preemptSelf(self) -> None:
        """A holder that preempts its own key keeps its registration, and may change the type."""
        self.state.reserve(A, 1, 1)
        wanted = {B: codes.RESERVATIONS_RELEASED, C: codes.RESERVATIONS_RELEASED}
        self.assertEqual(self.state.preempt(A, 1, 1, 3), wanted)
        self.assertEqual((self.state.keys[A], self.state.holder, self.state.type), (1, A, 3))

    def test_preemptType(self) -> None:
        """Whoever keeps its registration is told of another type, whatever the type was before."""
        for before in sorted(TYPES - HELD_BY_ALL):
            for after in sorted(TYPES):
                self.setUp()
                self.state.reserve(A, 1, before)
                told = self.state.preempt(B, 2, 1, after)
                wanted = {} if after == before else {C: codes.RESERVATIONS_RELEASED}
                self.assertEqual(told, wanted | {A: codes.REGISTRATIONS_PREEMPTED}, (before, after))

    def test_preemptAll(self) -> None:
        """Where all hold it, key zero removes all others; another key removes registrations alone."""
        self.state.reserve(A, 1, 7)
        self.assertEqual(self.state.preempt(B, 2, 3, 1), {C: codes.REGISTRATIONS_PREEMPTED})
        self.assertEqual(self.state.type, 7)
        self.assertEqual(self.state.preempt(B, 2, 0, 3), {A: codes.REGISTRATIONS_PREEMPTED})
        self.assertEqual((self.state.keys, self.state.holder, self.state.type), ({B: 2}, B, 3))

    def test_move(self) -> None:
        """The holder gives the reservation to another port, which is registered thereby."""
        self.state.reserve(A, 1, 1)
        self.assertRaises(Conflict, self.state.move, B, 2, A, 5, False)
        new = Port("new", bytes(6), 2)
        self.state.move(A, 1, new, 9, True)
        self.assertEqual((self.state.keys, self.state.holder), ({B: 2, C: 3, new: 9}, new))

    @given(st.lists(st.tuples(
        st.sampled_from(["register", "ignore", "reserve", "release", "clear", "preempt", "move"]),
        st.sampled_from([A, B, C]), st.sampled_from([A, B, C]), st.integers(0, 3), st.integers(0, 3),
        st.sampled_from(sorted(TYPES)),
    ), max_size=30))  # fmt: skip
    def test_consistent(self, steps: list[tuple[str, Port, Port, int, int, int]]) -> None:
        """Whatever is asked: a holder has registered, a reservation has a holder."""
        state = Registrations()
        for what, port, to, key, new, kind in steps:
            before = state.generation
            calls = {
                "register": lambda p=port, k=key, n=new: state.register(p, k, n),
                "ignore": lambda p=port, n=new: state.register(p, None, n),
                "reserve": lambda p=port, k=key, t=kind: state.reserve(p, k, t),
                "release": lambda p=port, k=key, t=kind: state.release(p, k, t),
                "clear": lambda p=port, k=key: state.clear(p, k),
                "preempt": lambda p=port, k=key, n=new, t=kind: state.preempt(p, k, n, t),
                "move": lambda p=port, k=key, o=to, n=new: state.move(p, k, o, n or 1, False),
            }
            try:
                calls[what]()
            except Conflict:
                self.assertEqual(state.generation, before)
            self.assertGreaterEqual(state.generation, before)
            self.assertNotIn(0, state.keys.values())
            if state.type:
                self.assertTrue(state.keys)
                self.assertEqual(state.holder is None, state.type in HELD_BY_ALL)
                self.assertTrue(state.holder is None or state.holder in state.keys)
            else:
                self.assertIsNone(state.holder)
