"""Tests for L{iscsi_twisted.scsi.naming}."""

from __future__ import annotations

import errno

from twisted.internet.defer import Deferred

from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.cdbprimary import REPORT_IDENTIFYING, SET_IDENTIFYING
from tests.scsi.cases import DiskTests
from tests.scsi.devices import MemoryStore
from tests.support.tasks import Nexus, Task


class IdentifyingTests(DiskTests):
    """REPORT and SET IDENTIFYING INFORMATION, SPC-4 6.32 and 6.43."""

    def setUp(self) -> None:
        """A unit that remembers, and another nexus."""
        super().setUp()
        self.store = MemoryStore()
        self.unit.remember(self.store)
        self.other = Nexus()
        self.unit.nexusFound(self.other)
        self.unit.takeAttention(self.other)

    def set(self, value: bytes, kind: int = 0) -> Task:
        """Name the unit."""
        return self.command(SET_IDENTIFYING, value, length=len(value), type=kind << 1)

    def report(self, kind: int = 0) -> bytes:
        """What it is called, without the head, which is checked."""
        data = self.good(REPORT_IDENTIFYING, allocation=0xFFFF, type=kind << 1)
        self.assertEqual((data[:2], int.from_bytes(data[2:4], "big")), (b"\0\0", len(data) - 4))
        return data[4:]

    def test_set(self) -> None:
        """What is set is reported, each type by itself, and outlives a loss of power."""
        self.assertEqual((self.report(0), self.report(2)), (b"", b""))
        self.assertEqual(self.set(b"\xff\x00x").status, codes.GOOD)
        self.assertEqual(self.set("gr\u00f6\u00dfe".encode(), 2).status, codes.GOOD)
        self.assertEqual((self.report(0), self.report(2)), (b"\xff\x00x", "gr\u00f6\u00dfe".encode()))
        self.unit = self.makeUnit(self.device)
        self.unit.remember(self.store)
        self.assertEqual((self.report(0), self.report(2)), (b"\xff\x00x", "gr\u00f6\u00dfe".encode()))

    def test_none(self) -> None:
        """No list takes the information away."""
        self.set(b"x")
        self.assertEqual(self.set(b"").status, codes.GOOD)
        self.assertEqual(self.report(), b"")
        self.assertEqual(self.store.load(), b"")

    def test_attention(self) -> None:
        """The others are told that it has changed (SPC-4 6.43)."""
        self.set(b"x")
        self.good(REPORT_IDENTIFYING, allocation=4)
        task = self.command(REPORT_IDENTIFYING, nexus=self.other)
        self.assertSense(task, codes.UNIT_ATTENTION, codes.DEVICE_IDENTIFIER_CHANGED)

    def test_supported(self) -> None:
        """Type 1111111b lists the types, and how long each may be."""
        self.assertEqual(self.report(0x7F).hex(), "00000200" + "04000100")

    def test_longest(self) -> None:
        """The longest that is told is accepted, and more is refused before it is fetched."""
        for kind, most in ((0, 512), (2, 256)):
            self.assertEqual(self.set(b"x" * most, kind).status, codes.GOOD)
            self.assertEqual(len(self.report(kind)), most)
            task = self.set(b"x" * (most + 1), kind)
            self.assertInvalidField(task, 6)
            self.assertIsNone(task.wanted)

    def test_text(self) -> None:
        """Text that is not UTF-8 is refused (SPC-4 4.3.2)."""
        task = self.set(b"ab\xff", 2)
        code = codes.INVALID_FIELD_IN_PARAMETER_LIST
        self.assertSense(task, codes.ILLEGAL_REQUEST, code, (False, 2, None))

    def test_types(self) -> None:
        """Other types are refused."""
        for kind in (1, 3, 0x7E):
            self.assertInvalidField(self.command(REPORT_IDENTIFYING, type=kind << 1), 10, 7)
        for kind in (1, 3, 0x7F):
            self.assertInvalidField(self.set(b"x", kind), 10, 7)

    def test_durable(self) -> None:
        """The status waits until it is durable; what cannot be kept is an error, and nothing has changed."""
        self.set(b"old")
        self.store.waiting = waiting = Deferred()
        task = self.set(b"new")
        self.assertEqual((task.status, self.report()), (None, b"old"))
        waiting.callback(None)
        self.assertEqual((task.status, self.report()), (codes.GOOD, b"new"))
        self.store.waiting = waiting = Deferred()
        task = self.set(b"lost")
        waiting.errback(OSError(errno.ENOSPC, "full"))
        self.assertSense(task, codes.DATA_PROTECT, codes.SPACE_ALLOCATION_FAILED)
        self.assertEqual(self.report(), b"new")

    def test_nowhere(self) -> None:
        """Where nothing is kept there are no such commands."""
        self.unit.nonvolatile = None
        self.assertInvalidField(self.command(REPORT_IDENTIFYING), 1, 4)
        self.assertInvalidField(self.set(b"x"), 1, 4)
