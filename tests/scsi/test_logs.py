"""Tests for L{iscsi_twisted.scsi.logs}."""

from __future__ import annotations

import struct
from typing import Any

from twisted.internet.defer import Deferred

from iscsi_twisted.errors import ReadError, WriteError
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.cdb import Command
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.logs import PAGES
from tests.scsi.cases import BLOCK, BLOCKS, IDENTITY, DiskTests
from tests.scsi.devices import THIN, MemoryStore, PendingDisk
from tests.support.tasks import Nexus, Task

ONES = "f" * 16
ZERO = "0" * 16

LAYOUTS: list[tuple[str, int, int, list[tuple[int, int, int]]]] = [
    ("SPC-4 7.3.21 write error counters", 0x02, 0, [(5, 2, 8), (6, 2, 8)]),
    ("SPC-4 7.3.14 read error counters", 0x03, 0, [(5, 2, 8), (6, 2, 8)]),
    ("SPC-4 7.3.20 verify error counters", 0x05, 0, [(5, 2, 8), (6, 2, 8)]),
    ("SPC-4 7.3.10 non-medium errors", 0x06, 0, [(0, 2, 8)]),
    ("SPC-4 7.3.19 temperature", 0x0D, 0, [(0, 3, 2)]),
    ("SPC-4 7.3.17 start-stop cycle counter", 0x0E, 0, [(4, 3, 4), (6, 3, 4)]),
    ("SPC-4 7.3.16 self-test results", 0x10, 0, [(number, 3, 16) for number in range(1, 21)]),
    ("SBC-3 6.4.2 background scan results", 0x15, 0, [(0, 3, 12)]),
    ("SPC-4 7.3.8 general statistics and performance", 0x19, 0, [(1, 3, 64), (2, 3, 8), (3, 3, 8)]),
    ("SPC-4 7.3.5 cache memory statistics", 0x19, 0x20, [(1, 2, 8), (2, 2, 8)]),
    ("SPC-4 7.3.9 informational exceptions", 0x2F, 0, [(0, 3, 4)]),
]
"""Section and name, page, subpage; of each parameter the code, the control byte and the length."""


class LogCase(DiskTests):
    """A disk and ways to ask for its log pages."""

    def log(self, page: int, subpage: int = 0, parameter: int = 0, **options: Any) -> bytes:
        """A page without its head, which is checked."""
        fields = {"page": page, "subpage": subpage, "parameter": parameter}
        data = self.good(cdb.LOG_SENSE, allocation=0xFFFF, **fields, **options)
        self.assertEqual(data[0], page & 0x3F | (0x40 if subpage else 0))
        self.assertEqual((data[1], int.from_bytes(data[2:4], "big")), (subpage, len(data) - 4))
        return data[4:]

    def parameters(self, page: int, subpage: int = 0, control: int = 1) -> dict[int, bytes]:
        """The values of a page by their codes."""
        data = self.log(control << 6 | page, subpage)
        found = {}
        while data:
            found[int.from_bytes(data[:2], "big")] = data[4 : 4 + data[3]]
            data = data[4 + data[3] :]
        return found

    def counts(self, page: int, subpage: int = 0) -> dict[int, int]:
        """The values of a page as numbers."""
        return {code: int.from_bytes(value, "big") for code, value in self.parameters(page, subpage).items()}

    def read(self, device: Any = None, **how: Any) -> Task:
        """A READ of one block."""
        return self.command(cdb.READ_10, length=1, **how)


class LogSenseTests(LogCase):
    """LOG SENSE, SPC-4 6.7 and 7.3."""

    def test_layouts(self) -> None:
        """Every page has the parameters of its table, each with its format and length."""
        self.assertEqual([(page, subpage) for _, page, subpage, _ in LAYOUTS], [
            (page.code, page.subpage) for page in PAGES if page.condition is None
        ])  # fmt: skip
        for name, page, subpage, wanted in LAYOUTS:
            data, found = self.log(page, subpage), []
            while data:
                code, control, length = struct.unpack_from(">HBB", data)
                found.append((code, control, length))
                data = data[4 + length :]
            self.assertEqual(found, wanted, name)

    def test_supported(self) -> None:
        """Page 00h lists the pages, ascending, and each of them is there (SPC-4 7.3)."""
        pages = self.log(0x00)
        self.assertEqual(pages.hex(), "00020305060d0e1015192f")
        for page in pages:
            self.log(page)

    def test_supportedSubpages(self) -> None:
        """Subpage FFh lists pages and subpages, of one page or all, and each is there (SPC-4 7.3)."""
        pages = self.log(0x00, 0xFF)
        self.assertEqual(
            pages.hex(), "000000ff" + "020003000500" + "06000d000e00" + "10001500" + "1900192019ff" + "2f00"
        )
        for page, subpage in struct.iter_unpack("BB", pages):
            self.log(page, subpage)
        self.assertEqual(self.log(0x19, 0xFF).hex(), "1900192019ff")
        self.assertEqual(self.log(0x02, 0xFF).hex(), "020002ff")

    def test_bytes(self) -> None:
        """Pages 02h, 03h and 05h hold the unit's own counters of bytes (SPC-4 7.3)."""
        self.good(cdb.WRITE_10, bytes(3 * BLOCK), length=3)
        self.good(cdb.READ_10, length=2)
        self.good(cdb.VERIFY_10, length=5)
        self.assertEqual(self.log(0x42).hex()[:24], "00050208" + f"{3 * BLOCK:016x}")
        self.assertEqual([self.counts(page)[5] // BLOCK for page in (2, 3, 5)], [3, 2, 5])

    def test_errors(self) -> None:
        """What a device could not do is counted where it belongs, and nowhere else."""
        tried: list[tuple[Command, BaseException, bytes]] = [
            (cdb.WRITE_10, WriteError(), bytes(BLOCK)),
            (cdb.SYNCHRONIZE_CACHE_10, WriteError(), b""),
            (cdb.READ_10, ReadError(), b""),
            (cdb.VERIFY_10, ReadError(), b""),
            (cdb.VERIFY_16, ReadError(), b""),
            (cdb.VERIFY_12, ReadError(), b""),
            (cdb.READ_16, TimeoutError(110, "late"), b""),
            (cdb.READ_16, ZeroDivisionError(), b""),
        ]
        for command, error, data in tried:
            self.device.error = error
            self.command(command, data, length=1)
        self.device.error = None
        self.assertInvalidField(self.command(cdb.READ_10, length=1, flags=0x20), 1, 7)
        self.assertEqual([self.counts(page)[6] for page in (2, 3, 5)], [2, 1, 3])
        self.assertEqual(self.counts(0x06), {0: 2})

    def test_temperature(self) -> None:
        """No temperature is known, and pages 0Dh and 2Fh say so (SPC-4 7.3)."""
        self.assertEqual(self.log(0x0D).hex(), "00000302" + "00ff")
        self.assertEqual(self.log(0x2F).hex(), "00000304" + "0000ff00")

    def test_cycles(self) -> None:
        """Page 0Eh counts starts after stops, and loads after ejects, through losses of power (SPC-4 7.3)."""
        store = MemoryStore()
        self.unit.remember(store)
        self.unit.removable = True
        for options in (0, 0, 1, 1, 2, 3, 3, 2, 3, 0, 1):
            self.command(cdb.START_STOP_UNIT, options=options)
        self.assertEqual(self.counts(0x0E), {4: 2, 6: 2})
        other = DiskUnit(self.device, identity=IDENTITY, report=self.surprise)
        other.remember(store)
        self.assertEqual((other.starts, other.loads), (2, 2))

    def test_cyclesLost(self) -> None:
        """What could not be kept is reported, and the command ends well."""
        store = MemoryStore()
        self.unit.remember(store)
        store.waiting = waiting = Deferred()
        for options in (0, 1):
            self.good(cdb.START_STOP_UNIT, options=options)
        waiting.errback(OSError("no"))
        self.assertEqual([str(each) for each in self.surprises], ["no"])

    def test_cyclesLate(self) -> None:
        """They are kept beside other commands, of which nobody is told."""
        store = MemoryStore()
        self.unit.remember(store)
        store.waiting = waiting = Deferred()
        for options in (0, 1):
            self.good(cdb.START_STOP_UNIT, options=options)
        waiting.callback(None)
        self.assertIsNone(self.successResultOf(waiting))

    def test_scans(self) -> None:
        """Page 15h says since when the unit runs, in minutes, and that it scans nothing (SBC-3 6.4.2)."""
        now = 1000.0
        unit = self.makeUnit(self.device, clock=lambda: now)
        now += 150
        self.assertEqual(self.log(0x15, unit=unit).hex(), "0000030c" + "00000002" + "00" * 8)

    def test_statistics(self) -> None:
        """Page 19h has commands, blocks and microseconds of reads and writes (SPC-4 7.3)."""
        times = iter([0.0, 1.0, 1.5, 2.0, 2.25, 5.0])
        unit = self.makeUnit(self.device, clock=lambda: next(times))
        self.good(cdb.WRITE_10, bytes(3 * BLOCK), length=3, unit=unit)
        self.good(cdb.READ_10, length=2, unit=unit)
        data = self.log(0x19, unit=unit)
        self.assertEqual(data[:4].hex(), "00010340")
        self.assertEqual(struct.unpack_from(">8Q", data, 4), (1, 1, 3, 2, 250000, 500000, 2, 750000))
        idle = 5000000 - 750000
        self.assertEqual(data[68:].hex(), f"00020308{idle:016x}" + "00030308" + "0000000600000001")

    def test_cache(self) -> None:
        """Page 19h, subpage 20h, tells reads that had to wait from those that had not (SPC-4 7.3)."""
        slow = PendingDisk(BLOCKS * BLOCK, THIN)
        self.unit = self.makeUnit(slow)
        self.read()
        slow.fire()
        self.unit.device = self.device
        self.read()
        self.read()
        self.assertEqual(self.counts(0x19, 0x20), {1: 2, 2: 1})

    def test_control(self) -> None:
        """Counters have a value, a greatest value as threshold, and zero as default; lists are the same."""
        self.read()
        for page, subpage in ((0x03, 0), (0x19, 0x20)):
            for control, value in ((0, ONES), (2, ONES), (3, ZERO)):
                found = self.parameters(page, subpage, control).values()
                self.assertEqual({each.hex() for each in found}, {value})
        for control in range(4):
            for page in (0x2F, 0x0D, 0x0E):
                self.assertEqual(self.log(control << 6 | page), self.log(0x40 | page))

    def test_pointer(self) -> None:
        """The parameter pointer leaves out what is before it; beyond the last is refused (SPC-4 6.7)."""
        self.assertEqual(self.log(0x02, parameter=5), self.log(0x02))
        self.assertEqual(self.log(0x02, parameter=6), self.log(0x02)[12:])
        for page, subpage, parameter in (
            (0x02, 0, 7),
            (0x2F, 0, 1),
            (0, 0, 1),
            (0, 0xFF, 1),
            (0x19, 0xFF, 1),
        ):
            task = self.command(
                cdb.LOG_SENSE, page=page, subpage=subpage, parameter=parameter, allocation=255
            )
            self.assertInvalidField(task, 5)

    def test_refused(self) -> None:
        """Saving, and pages and subpages that are not there, are refused."""
        self.assertInvalidField(self.command(cdb.LOG_SENSE, flags=1, allocation=255), 1, 0)
        self.assertInvalidField(self.command(cdb.LOG_SENSE, page=0x0B, allocation=255), 2, 5)
        self.assertInvalidField(self.command(cdb.LOG_SENSE, page=0x11, allocation=255), 2, 5)
        self.assertInvalidField(self.command(cdb.LOG_SENSE, page=0x0B, subpage=0xFF, allocation=255), 2, 5)
        self.assertInvalidField(self.command(cdb.LOG_SENSE, page=0x2F, subpage=1, allocation=255), 3, 7)
        self.assertInvalidField(self.command(cdb.LOG_SENSE, page=0x00, subpage=1, allocation=255), 3, 7)


class LogSelectTests(LogCase):
    """LOG SELECT, SPC-4 6.6."""

    def setUp(self) -> None:
        """A disk that was written and read, and another nexus."""
        super().setUp()
        self.other = Nexus()
        self.unit.nexusFound(self.other)
        self.unit.takeAttention(self.other)
        self.good(cdb.WRITE_10, bytes(BLOCK), length=1)
        self.read()

    def test_page(self) -> None:
        """PCR sets the counters of a page to zero, and the others are told; then they go on."""
        self.good(cdb.LOG_SELECT, flags=2, page=0x42)
        self.assertEqual((self.counts(0x02), self.counts(0x03)[5]), ({5: 0, 6: 0}, BLOCK))
        self.good(cdb.TEST_UNIT_READY)
        task = self.command(cdb.TEST_UNIT_READY, nexus=self.other)
        self.assertSense(task, codes.UNIT_ATTENTION, codes.LOG_PARAMETERS_CHANGED)
        self.good(cdb.WRITE_10, bytes(BLOCK), length=1)
        self.assertEqual(self.counts(0x02), {5: BLOCK, 6: 0})
        self.assertEqual(self.unit.snapshot().writtenBytes, 2 * BLOCK)

    def test_subpage(self) -> None:
        """A subpage alone, or all subpages of a page, can be reset."""
        self.good(cdb.LOG_SELECT, flags=2, page=0x59, subpage=0x20)
        self.assertEqual(self.counts(0x19, 0x20), {1: 0, 2: 0})
        self.good(cdb.LOG_SELECT, flags=2, page=0x59, subpage=0xFF)
        self.assertEqual(self.parameters(0x19)[1], bytes(64))

    def test_all(self) -> None:
        """PCR without a page, and default values for all of them, set all counters to zero."""
        for fields in ({"flags": 2}, {"page": 0xC0}, {"flags": 2, "subpage": 0xFF}):
            self.read()
            self.assertNotEqual(self.counts(0x03)[5], 0)
            self.good(cdb.LOG_SELECT, **fields)
            for page in (0x02, 0x03, 0x05, 0x06):
                self.assertEqual(set(self.counts(page).values()), {0})

    def test_nothing(self) -> None:
        """Without PCR and a list nothing changes, and nobody is told; thresholds are as they are."""
        for control in (0, 1, 2):
            self.good(cdb.LOG_SELECT, page=control << 6 | 0x03)
        self.assertEqual(self.counts(0x03)[5], BLOCK)
        self.good(cdb.TEST_UNIT_READY, nexus=self.other)

    def test_refused(self) -> None:
        """Saving, lists, and pages that are not there are refused, and nothing is reset."""
        self.assertInvalidField(self.command(cdb.LOG_SELECT, flags=3), 1, 0)
        self.assertInvalidField(self.command(cdb.LOG_SELECT, bytes(4), flags=2, length=4), 7)
        self.assertInvalidField(self.command(cdb.LOG_SELECT, flags=2, page=0x4B), 2, 5)
        self.assertInvalidField(self.command(cdb.LOG_SELECT, flags=2, page=0x43, subpage=3), 3, 7)
        self.assertEqual(self.counts(0x03)[5], BLOCK)
