"""Tests for L{iscsi_twisted.scsi.selftest}."""

from __future__ import annotations

import struct
from typing import Any

from iscsi_twisted.errors import ReadError
from iscsi_twisted.interfaces import Capabilities
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.cdbprimary import RECEIVE_DIAGNOSTIC, SEND_DIAGNOSTIC
from iscsi_twisted.scsi.selftest import SAMPLE, samples
from iscsi_twisted.scsi.verify import SLICE
from tests.scsi.cases import BLOCK, BLOCKS, DiskTests
from tests.scsi.devices import THIN, MemoryDisk, PendingDisk
from tests.support.tasks import Task, abort

SELFTEST = 0x04
SHORT, EXTENDED, ABORT, WAITED_SHORT, WAITED_EXTENDED = (code << 5 for code in (1, 2, 4, 5, 6))
OK, ABORTED, INTERRUPTED, FAILED, RUNNING = 0, 1, 2, 7, 15
NOWHERE = (1 << 64) - 1
SIZE = 3 * SLICE


class SelfTestCase(DiskTests):
    """A disk and ways to have it test itself."""

    def send(self, flags: int, **how: Any) -> Task:
        """SEND DIAGNOSTIC."""
        return self.command(SEND_DIAGNOSTIC, flags=flags, **how)

    def results(self) -> list[tuple[int, int]]:
        """Code and result of all tests in the log page; the latest first."""
        data = self.good(cdb.LOG_SENSE, page=0x50, allocation=0xFFFF)[4:]
        self.assertEqual(len(data), 20 * 20)
        found = [data[place + 4 : place + 20] for place in range(0, len(data), 20)]
        return [(each[0] >> 5, each[0] & 0x0F) for each in found if any(each)]

    def latest(self) -> tuple[Any, ...]:
        """All that the log page tells of the latest test."""
        data = self.good(cdb.LOG_SENSE, page=0x50, allocation=24)
        return struct.unpack_from(">BBHQBBB", data, 8)


class SelfTests(SelfTestCase):
    """Self-tests, SPC-4 5.14 and 6.42."""

    def setUp(self) -> None:
        """A disk of some slices."""
        super().setUp()
        self.device = MemoryDisk(SIZE, THIN)
        self.unit = self.makeUnit(self.device)

    def reads(self) -> list[tuple[int, int]]:
        """What was read."""
        return [call[1:] for call in self.device.calls if call[0] == "read"]

    def test_extended(self) -> None:
        """An extended test flushes and reads everything."""
        for number, flags in enumerate((EXTENDED, WAITED_EXTENDED), 1):
            self.device.calls.clear()
            self.assertEqual(self.send(flags).status, codes.GOOD)
            self.assertEqual(self.device.calls[0], ("flush",))
            self.assertEqual(self.reads(), [(place, SLICE) for place in range(0, SIZE, SLICE)])
            self.assertEqual(self.results(), [(6, OK), (2, OK)][-number:])

    def test_short(self) -> None:
        """A short test and the default one read the beginning, some of the middle and the end."""
        for flags, code in ((SHORT, 1), (WAITED_SHORT, 5), (SELFTEST, 0)):
            self.device.calls.clear()
            self.assertEqual(self.send(flags).status, codes.GOOD)
            middle = (SIZE - SAMPLE) // 2
            self.assertEqual(self.reads(), [(0, SAMPLE), (middle, SAMPLE), (SIZE - SAMPLE, SAMPLE)])
            if code:
                self.assertEqual(self.results()[0], (code, OK))

    def test_samples(self) -> None:
        """What is read is whole blocks of the disk, however small it is."""
        for size in (512, 1024, 4096, SAMPLE, SAMPLE + 512, 3 * SAMPLE + 512):
            for start, length in samples(size, 512):
                self.assertEqual((start % 512, length % 512), (0, 0))
                self.assertLessEqual(start + length, size)
        self.assertEqual(samples(8192, 8192), [(0, 8192)])

    def test_failure(self) -> None:
        """Who waits is told that the test failed; the log page says where and why (SPC-4 7.3.16)."""
        for flags in (WAITED_EXTENDED, WAITED_SHORT, SELFTEST, EXTENDED):
            self.device.error = ReadError(offset=5 * BLOCK)
            task = self.send(flags)
            self.device.error = None
            if flags == EXTENDED:
                self.assertEqual(task.status, codes.GOOD)
            else:
                self.assertSense(task, codes.HARDWARE_ERROR, codes.FAILED_SELF_TEST)
            expected = (flags & 0xE0) | FAILED, 0, 0, 5, codes.MEDIUM_ERROR, 0x11, 0x00
            self.assertEqual(self.latest(), expected)
        self.assertEqual(self.surprises, [])

    def test_hours(self) -> None:
        """The log page tells for how many hours the unit had been running."""
        now = 0.0
        self.unit = self.makeUnit(self.device, clock=lambda: now)
        now = 3 * 3600 + 5
        self.send(SHORT)
        self.assertEqual(self.latest(), (SHORT, 0, 3, NOWHERE, 0, 0, 0))
        now = 3600.0 * 0x20000
        self.send(SHORT)
        self.assertEqual(self.latest()[2], 0xFFFF)

    def test_latest(self) -> None:
        """Twenty results are kept, the latest first."""
        for _ in range(25):
            self.send(SHORT)
        self.send(EXTENDED)
        self.assertEqual(self.results(), [(2, OK)] + [(1, OK)] * 19)

    def test_notReady(self) -> None:
        """What is not ready is not tested."""
        self.unit.eject()
        task = self.send(SHORT)
        self.assertSense(task, codes.NOT_READY, codes.MEDIUM_NOT_PRESENT)
        self.assertEqual(self.results(), [])


class BackgroundTests(SelfTestCase):
    """Tests that take their time."""

    def setUp(self) -> None:
        """A slow disk."""
        super().setUp()
        self.slow = PendingDisk(4 * SLICE, Capabilities())
        self.unit = self.makeUnit(self.slow)

    def finish(self) -> None:
        """Let the device answer all."""
        while self.slow.pending:
            self.slow.fire()

    def progress(self) -> int | None:
        """The progress that REQUEST SENSE tells."""
        sense = self.good(cdb.REQUEST_SENSE, allocation=18)
        if sense[2] & 0x0F == codes.NO_SENSE:
            return None
        self.assertEqual((sense[2], sense[12:14].hex()), (codes.NOT_READY, "0409"))
        self.assertEqual(sense[15], 0x80)
        return int.from_bytes(sense[16:18], "big")

    def test_background(self) -> None:
        """Nobody waits for a background test; REQUEST SENSE tells how far it is, the log page the result."""
        self.assertEqual(self.send(EXTENDED).status, codes.GOOD)
        self.assertEqual((self.progress(), self.results()), (0, [(2, RUNNING)]))
        self.slow.fire()
        self.assertEqual(self.progress(), 1 << 14)
        self.slow.fire()
        self.assertEqual(self.progress(), 1 << 15)
        self.finish()
        self.assertEqual((self.progress(), self.results()), (None, [(2, OK)]))

    def test_beside(self) -> None:
        """Other commands are done beside it."""
        self.send(EXTENDED)
        self.good(cdb.TEST_UNIT_READY)
        task = self.command(cdb.READ_10, lba=0, length=1)
        self.finish()
        self.assertEqual(task.status, codes.GOOD)
        self.assertEqual(self.results(), [(2, OK)])

    def test_second(self) -> None:
        """While one is under way no other begins, and who asks is told how far it is (SPC-4 5.14.4)."""
        self.send(EXTENDED)
        for flags in (SHORT, EXTENDED, WAITED_SHORT, SELFTEST, 0x10):
            task = self.send(flags)
            self.assertSense(task, codes.NOT_READY, codes.SELF_TEST_IN_PROGRESS)
            self.assertEqual(task.sense[15:18].hex(), "800000")
        self.finish()
        self.assertEqual(self.send(SHORT).status, codes.GOOD)
        self.finish()

    def test_abort(self) -> None:
        """A background test can be aborted; a second time there is nothing to abort (SPC-4 6.42)."""
        self.send(EXTENDED)
        self.assertEqual(self.send(ABORT).status, codes.GOOD)
        self.finish()
        self.assertEqual(len([call for call in self.slow.calls if call[0] == "read"]), 1)
        self.assertEqual((self.progress(), self.results()), (None, [(2, ABORTED)]))
        self.assertInvalidField(self.send(ABORT), 1, 7)

    def test_foreground(self) -> None:
        """The status of a foreground test waits for its end; most others are refused (SPC-4 5.14.4.2)."""
        task = self.send(WAITED_EXTENDED)
        self.assertIsNone(task.status)
        self.slow.fire()
        for command in (SEND_DIAGNOSTIC, cdb.TEST_UNIT_READY, cdb.READ_10, cdb.MODE_SENSE_6):
            refused = self.command(command, flags=ABORT if command is SEND_DIAGNOSTIC else 0)
            self.assertSense(refused, codes.NOT_READY, codes.SELF_TEST_IN_PROGRESS)
            self.assertEqual(refused.sense[15:18].hex(), "804000")
        self.good(cdb.INQUIRY, allocation=96)
        self.assertEqual(self.progress(), 0x4000)
        self.finish()
        self.assertEqual((task.status, task.endings, self.results()), (codes.GOOD, 1, [(6, OK)]))
        self.good(cdb.TEST_UNIT_READY)
        self.assertIsNone(self.unit.closure)

    def test_taskAborted(self) -> None:
        """Whoever aborts the command aborts the test in the foreground."""
        task = self.send(WAITED_EXTENDED)
        abort(self.unit, task)
        self.finish()
        self.assertEqual((task.status, self.results()), (None, [(6, INTERRUPTED)]))
        self.assertEqual((self.unit.works, self.unit.operations), (set(), set()))

    def test_reset(self) -> None:
        """A reset ends a test (SPC-4 5.14)."""
        self.send(EXTENDED)
        self.unit.reset(codes.DEVICE_RESET_OCCURRED)
        self.finish()
        self.unit.takeAttention(self.nexus)
        self.assertEqual(self.results(), [(2, INTERRUPTED)])

    def test_closed(self) -> None:
        """A test ends when the device goes."""
        self.send(EXTENDED)
        self.unit.closed()
        self.finish()
        self.assertEqual(self.results(), [(2, INTERRUPTED)])


class DiagnosticTests(SelfTestCase):
    """Diagnostic pages, and what is refused (SPC-4 6.29, 6.42, 7.2)."""

    def test_pages(self) -> None:
        """The one page tells that it is the only one; no page means the one that was sent last."""
        for fields in ({}, {"flags": 1}, {"page": 0x40}):
            data = self.good(RECEIVE_DIAGNOSTIC, allocation=255, **fields)
            self.assertEqual(data.hex(), "0000000100")
        self.assertInvalidField(self.command(RECEIVE_DIAGNOSTIC, flags=1, page=0x40), 2, 7)

    def test_sent(self) -> None:
        """The page that asks for the list can be sent; it is empty, and so may be the whole list."""
        self.assertEqual(self.send(0x10, dataOut=bytes(4), length=4).status, codes.GOOD)
        self.assertEqual(self.send(0).status, codes.GOOD)
        self.assertEqual(self.results(), [])
        code = codes.INVALID_FIELD_IN_PARAMETER_LIST
        for data, place in ((b"\x40\0\0\0", 0), (b"\0\0\0\1x", 2)):
            task = self.send(0x10, dataOut=data, length=len(data))
            self.assertSense(task, codes.ILLEGAL_REQUEST, code, (False, place, None))
        task = self.send(0x10, dataOut=bytes(3), length=3)
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)

    def test_refused(self) -> None:
        """Codes that are reserved, tests with lists, and lists without pages are refused (SPC-4 6.42)."""
        for flags in (0x60, 0xE0, SHORT | SELFTEST, ABORT | SELFTEST):
            self.assertInvalidField(self.send(flags), 1, 7)
        for flags in (SHORT, EXTENDED, ABORT, WAITED_SHORT, WAITED_EXTENDED, SELFTEST):
            self.assertInvalidField(self.send(flags, dataOut=bytes(4), length=4), 3)
        self.assertInvalidField(self.send(0, dataOut=bytes(4), length=4), 1, 4)
        self.assertEqual((self.device.calls, BLOCKS), ([], BLOCKS))
