"""Tests for L{iscsi_twisted.scsi.formatting}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from iscsi_twisted.errors import WriteError
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.cdblong import FORMAT_UNIT, SANITIZE_EXIT_FAILURE_MODE
from iscsi_twisted.scsi.cdbprimary import SEND_DIAGNOSTIC
from iscsi_twisted.scsi.provisioning import SLICE
from tests.scsi.cases import BLOCK, BLOCKS
from tests.scsi.devices import THIN, MemoryDisk, PendingDisk
from tests.scsi.test_sanitize import SanitizeCases
from tests.support.tasks import Task, abort

LONG, DATA, COMPLETE = 0x20, 0x10, 0x08
VALID, PATTERN, IMMED = 0x80, 0x08, 0x02


class FormatTests(SanitizeCases):
    """FORMAT UNIT, SBC-3 5.3."""

    def format(self, data: bytes = b"", flags: int = DATA, **fields: int) -> Task:
        """Begin one."""
        return self.command(FORMAT_UNIT, data, flags=flags, **fields)

    def test_thin(self) -> None:
        """A thin unit's blocks are deallocated; all read as zeros."""
        self.finish(FORMAT_UNIT)
        self.assertEqual(bytes(self.device.content), bytes(self.size))
        self.assertEqual(self.device.calls, [("zero", 0, self.size, True), ("flush",)])

    def test_thick(self) -> None:
        """Any other unit's blocks are made zeros, and keep their storage; a fast format leaves them."""
        device = MemoryDisk(BLOCK * BLOCKS)
        device.content[:] = b"s" * len(device.content)
        unit = self.makeUnit(device)
        self.finish(FORMAT_UNIT, unit=unit, fast=1)
        self.assertEqual(device.calls, [])
        self.finish(FORMAT_UNIT, unit=unit)
        self.assertEqual(device.calls, [("zero", 0, BLOCK * BLOCKS, False)])

    def test_pattern(self) -> None:
        """With an initialization pattern descriptor every block begins with that (SBC-3 5.3.2.3)."""
        for head, flags in (
            (bytes((0, VALID | PATTERN, 0, 0)), 0),
            (bytes((0, VALID | PATTERN)) + bytes(6), LONG),
        ):
            task = self.format(head + b"\0\1\0\2xy", DATA | flags)
            self.turns.all()
            self.assertEqual((task.status, task.sense), (codes.GOOD, b""))
            self.assertEqual(bytes(self.device.content), b"xy" * (self.size // 2))
            self.finish(FORMAT_UNIT)
        self.format(head + bytes(4), DATA | LONG)
        self.assertEqual(bytes(self.device.content), bytes(self.size))

    def test_immediate(self) -> None:
        """With IMMED the status comes at once, and others are told how far it is."""
        task = self.format(bytes((0, VALID | PATTERN | IMMED, 0, 0)) + b"\0\1\0\1x")
        self.assertEqual(task.status, codes.GOOD)
        self.assertEqual(self.senseNow(), (codes.NOT_READY, "0404", 65536 // 3))
        self.assertSense(self.command(cdb.READ_10, length=1), codes.NOT_READY, codes.FORMAT_IN_PROGRESS)
        self.turns.all()
        self.assertEqual(bytes(self.device.content), b"x" * self.size)
        self.good(cdb.READ_10, length=1)

    def test_refused(self) -> None:
        """What is not supported is refused, and nothing is changed."""
        for flags, bit in ((0x40, 7), (0x80, 7), (COMPLETE, 3), (4, 2)):
            self.assertInvalidField(self.format(flags=flags), 1, bit)
        self.assertInvalidField(self.format(flags=0, fast=2), 4, 1)
        for data, flags, place, bit in (
            ("01000000", DATA, 0, 2),  # protection information
            ("00400000", DATA, 1, 6),  # DPRY without FOV
            ("00080000", DATA, 1, 3),
            ("00000004" + "00" * 4, DATA, 2, None),  # a defect
            ("0000001000000000", DATA | LONG, 3, 7),
            ("0000000000000004", DATA | LONG, 4, None),
            ("0088000040000000", DATA, 4, 7),  # LBAs in the pattern
            ("0088000000020000", DATA, 5, None),
            ("0088000000010000", DATA, 6, None),  # no pattern
            ("0088000000010201" + "00" * 0x201, DATA, 6, None),
        ):
            task = self.format(bytes.fromhex(data), flags)
            code = codes.INVALID_FIELD_IN_PARAMETER_LIST
            self.assertSense(task, codes.ILLEGAL_REQUEST, code, (False, place, bit))
        for data in ("000000", "008800000001", "0088000000010002ff", ""):
            task = self.format(bytes.fromhex(data))
            self.assertSense(task, codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)
        self.assertEqual((self.device.calls, self.store.states), ([], []))

    @given(st.binary(max_size=600), st.booleans())
    def test_any(self, data: bytes, long: bool) -> None:
        """Whatever comes, it is done or refused."""
        task = self.format(data, DATA | LONG * long)
        self.turns.all()
        self.assertEqual((task.endings, self.surprises, self.unit.closure), (1, [], None))
        if task.status != codes.GOOD:
            self.assertEqual(task.key, codes.ILLEGAL_REQUEST)

    def test_bounded(self) -> None:
        """No more is fetched than the largest list that makes sense."""
        task = self.format(bytes(1 << 20))
        self.assertEqual(task.wanted, 4 + 4 + BLOCK)

    def test_options(self) -> None:
        """What is about defects is accepted, with an empty list: there are none."""
        for data in ("00f00000", "00000000"):
            self.finish(FORMAT_UNIT, bytes.fromhex(data), flags=DATA)
        self.finish(FORMAT_UNIT, bytes(4), flags=DATA | COMPLETE)

    def test_failed(self) -> None:
        """If it fails, what needs the medium is refused until a format succeeds; nothing else is."""
        task = self.format(bytes((0, VALID | PATTERN, 0, 0)) + b"\0\1\0\1x")
        self.device.error = WriteError(offset=SLICE)
        self.turns.all()
        self.device.error = None
        self.assertSense(task, codes.MEDIUM_ERROR, codes.FORMAT_CORRUPTED)
        self.unit = self.remake()
        self.assertSense(self.command(cdb.READ_10, length=1), codes.MEDIUM_ERROR, codes.FORMAT_CORRUPTED)
        self.good(cdb.MODE_SENSE_6, page=0x3F, allocation=255)
        self.good(SANITIZE_EXIT_FAILURE_MODE)
        self.assertSense(self.command(cdb.READ_10, length=1), codes.MEDIUM_ERROR, codes.FORMAT_CORRUPTED)
        self.finish(FORMAT_UNIT)
        self.good(cdb.READ_10, length=1)

    def test_abortedBefore(self) -> None:
        """If it is aborted before anything was done the disk is as it was."""
        slow = PendingDisk(self.size, THIN)
        self.device = slow
        self.unit = self.remake()
        reading = self.command(cdb.READ_10, length=1)
        task = self.format(flags=0)
        self.assertEqual(self.senseNow()[:2], (codes.NOT_READY, "0404"))
        abort(self.unit, task)
        slow.fire()
        self.turns.all()
        self.assertEqual((reading.status, task.released, self.unit.closure), (codes.GOOD, 1, None))
        self.assertEqual(([call[0] for call in slow.calls], self.store.load()), (["read"], b""))

    def test_failedTested(self) -> None:
        """A self-test does not make a unit good whose format has failed."""
        self.format(bytes((0, VALID | PATTERN, 0, 0)) + b"\0\1\0\1x")
        self.device.error = WriteError(offset=SLICE)
        self.turns.all()
        self.device.error = None
        for flags in (0x04, 0x20, 0xA0):
            task = self.command(SEND_DIAGNOSTIC, flags=flags)
            self.turns.all()
            self.assertSense(task, codes.MEDIUM_ERROR, codes.FORMAT_CORRUPTED)
        self.assertSense(self.command(cdb.READ_10, length=1), codes.MEDIUM_ERROR, codes.FORMAT_CORRUPTED)

    def test_aborted(self) -> None:
        """If it is aborted, or its process is killed, it has failed."""
        for kill in (False, True):
            task = self.format(bytes((0, VALID | PATTERN, 0, 0)) + b"\0\1\0\1x")
            if kill:
                self.turns.waiting.clear()
                self.unit = self.remake()
            else:
                abort(self.unit, task)
                self.assertEqual(task.released, 1)
                self.turns.all()
            self.assertEqual(self.senseNow()[:2], (codes.MEDIUM_ERROR, "3100"))
            self.finish(FORMAT_UNIT)
