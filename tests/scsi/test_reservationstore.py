"""Persistent reservations that outlive the unit: what is kept of them, and what if that is lost."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from iscsi_twisted.interfaces import IReservationStore
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.registrations import portOf
from tests.scsi.persisting import ALWAYS, PersistentCases

DAMAGED = (
    b"x",
    b"{}",
    b"[]",
    b'{"keys": [1], "type": 1, "holder": 0}',
    b'{"keys": [], "type": 1, "holder": 0}',
    b'{"keys": [], "type": 2, "holder": null}',
    b'{"keys": [["a", "00", 1, 18446744073709551616]], "type": 0, "holder": null}',
    b'{"keys": [["a", "00", 1, 0]], "type": 0, "holder": null}',
)


@implementer(IReservationStore)
class Store:
    """
    Keeps everything that it is given.

    @ivar waiting: what the next call of C{save} returns.
    """

    def __init__(self) -> None:
        self.states: list[bytes] = []
        self.waiting: Deferred[None] | None = None

    def load(self) -> bytes:
        """The last one."""
        return self.states[-1] if self.states else b""

    def save(self, state: bytes) -> Any:
        """One more."""
        self.states.append(state)
        return self.waiting


class StoreTests(PersistentCases):
    """Units whose reservations are kept."""

    def test_kept(self) -> None:
        """With APTPL the state is kept before the command ends, and comes back; without, nothing is."""
        store = Store()
        self.unit.keep(store)
        self.assertEqual(self.good(cdb.REPORT_CAPABILITIES, allocation=8).hex(), "00089d80ea010000")
        self.ok(cdb.PR_REGISTER, 0, 7)
        self.assertEqual(store.states, [])
        store.waiting = Deferred()
        task = self.out(cdb.PR_REGISTER, 7, 8, flags=0x01)
        self.assertIsNone(task.status)
        store.waiting.callback(None)
        self.assertEqual(task.status, codes.GOOD)
        store.waiting = None
        self.ok(cdb.PR_RESERVE, 8, 0, 5)
        self.assertEqual(self.good(cdb.REPORT_CAPABILITIES, allocation=8).hex(), "00089d81ea010000")
        again = self.makeUnit(self.device)
        again.keep(store)
        state = again.registrations
        port = portOf(self.nexus)
        self.assertEqual((state.keys, state.type, state.holder, state.kept), ({port: 8}, 5, port, True))
        self.ok(cdb.PR_REGISTER, 8, 9)
        self.assertEqual(store.states[-1], b"")
        count = len(store.states)
        self.ok(cdb.PR_CLEAR, 9)
        self.assertEqual(len(store.states), count)

    def test_notKept(self) -> None:
        """A state that cannot be kept is an error of the command."""
        store = Store()
        self.unit.keep(store)
        store.waiting = Deferred()
        task = self.out(cdb.PR_REGISTER, 0, 7, flags=0x01)
        store.waiting.errback(OSError(5, "broken"))
        self.assertEqual(task.status, codes.CHECK_CONDITION)
        self.assertEqual(self.unit.registrations.keys, {portOf(self.nexus): 7})

    def test_keptLater(self) -> None:
        """What could not be kept is not said to be, and is kept as soon as it can be."""
        store = Store()
        self.unit.keep(store)
        waiting = store.waiting = Deferred()
        self.out(cdb.PR_REGISTER, 0, 7, flags=0x01)
        self.assertEqual(self.good(cdb.REPORT_CAPABILITIES, allocation=8)[3], 0x80)
        waiting.errback(OSError(5, "broken"))
        self.assertEqual(self.good(cdb.REPORT_CAPABILITIES, allocation=8)[3], 0x80)
        waiting = store.waiting = Deferred()
        self.unit.watch()
        self.unit.watch()
        self.assertEqual(len(store.states), 2)
        waiting.errback(OSError(5, "broken"))
        store.waiting = None
        self.unit.watch()
        self.assertEqual(self.good(cdb.REPORT_CAPABILITIES, allocation=8)[3], 0x81)
        again = self.makeUnit(self.device)
        again.keep(store)
        self.assertEqual(again.registrations.keys, {portOf(self.nexus): 7})
        self.unit.watch()
        self.assertEqual((len(store.states), self.surprises), (3, []))

    def test_notForgotten(self) -> None:
        """A state that could not be taken out of the store is taken out the next time."""
        store = Store()
        self.unit.keep(store)
        self.ok(cdb.PR_REGISTER, 0, 7, flags=0x01)
        store.waiting = Deferred()
        task = self.out(cdb.PR_REGISTER, 7, 8)
        store.waiting.errback(OSError(5, "broken"))
        self.assertEqual(task.status, codes.CHECK_CONDITION)
        store.waiting = None
        self.ok(cdb.PR_REGISTER, 8, 9)
        self.assertEqual(store.states[1:], [b"", b""])

    def test_damaged(self) -> None:
        """A state that is none is refused as a whole."""
        for state in DAMAGED:
            store = Store()
            store.states.append(state)
            unit = self.makeUnit(self.device)
            self.assertRaises(ValueError, unit.keep, store)
            self.assertEqual((unit.registrations.keys, unit.registrations.type), ({}, 0))

    def lose(self) -> Store:
        """The unit's store turns out to be damaged."""
        store = Store()
        store.states.append(b"x")
        self.assertRaises(ValueError, self.unit.keep, store)
        return store

    def test_lost(self) -> None:
        """Until it is replaced, what a reservation may forbid is refused, and reservations are not told."""
        self.lose()
        for command in self.unit.table:
            if command.name in ALWAYS or command.name.startswith("PERSISTENT"):
                continue
            task = self.command(command)
            self.assertSense(task, codes.HARDWARE_ERROR, codes.RESERVATIONS_LOST)
        for command in (cdb.READ_KEYS, cdb.READ_RESERVATION, cdb.READ_FULL_STATUS):
            task = self.command(command, allocation=255)
            self.assertSense(task, codes.HARDWARE_ERROR, codes.RESERVATIONS_LOST)
        for command in (cdb.PR_REGISTER, cdb.PR_REGISTER_IGNORING, cdb.PR_CLEAR):
            task = self.out(command, 0, 7)
            self.assertSense(task, codes.HARDWARE_ERROR, codes.RESERVATIONS_LOST)
        for command in (cdb.TEST_UNIT_READY, cdb.INQUIRY, cdb.REPORT_CAPABILITIES):
            self.good(command)

    def test_replaced(self) -> None:
        """Who replaces it is registered, holds the reservation, and others are kept out."""
        store = self.lose()
        for key, new, kind, flags in ((1, 7, 5, 0), (0, 0, 5, 0), (0, 7, 5, 8), (0, 7, 2, 0)):
            self.assertEqual(self.out(cdb.PR_REPLACE_LOST, key, new, kind, flags).key, codes.ILLEGAL_REQUEST)
        self.ok(cdb.PR_REPLACE_LOST, 0, 7, 5, 1)
        state = self.unit.registrations
        self.assertEqual((state.keys, state.type, state.lost), ({portOf(self.nexus): 7}, 5, False))
        self.assertEqual(store.states[-1], state.dump())
        self.assertFalse(self.refused(cdb.WRITE_10, self.nexus))
        self.assertTrue(self.refused(cdb.WRITE_10, self.other))

    def test_replacedUnkept(self) -> None:
        """What is replaced without APTPL leaves nothing in the store."""
        store = self.lose()
        self.ok(cdb.PR_REPLACE_LOST, 0, 7, 5)
        self.assertEqual(store.states[-1], b"")
