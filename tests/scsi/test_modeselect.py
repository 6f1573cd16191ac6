"""Tests for L{iscsi_twisted.scsi.modeselect}."""

import errno
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from iscsi_twisted.errors import WriteError
from iscsi_twisted.interfaces import Capabilities
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.modes import available
from tests.scsi.cases import BLOCK, BLOCKS, IDENTITY, DiskTests
from tests.scsi.devices import MemoryDisk, MemoryStore, PendingDisk
from tests.support.tasks import Nexus, Task

CACHING = bytes.fromhex("0812" + "04" + "00" * 17)
NO_CACHE = bytes.fromhex("0812" + "00" * 18)
PF = 0x10


def control(body: str) -> bytes:
    """The control mode page with these bytes at its beginning."""
    return bytes.fromhex("0a0a" + body).ljust(12, b"\0")


class SelectCase(DiskTests):
    """A disk and two nexuses."""

    def setUp(self) -> None:
        """A second nexus; nothing is remembered."""
        super().setUp()
        self.unit.nonvolatile = None
        self.other = Nexus()
        self.unit.nexusFound(self.other)
        self.unit.takeAttention(self.other)

    def six(self, pages: bytes, head: bytes = bytes(4), **fields: Any) -> Task:
        """Send pages with MODE SELECT (6)."""
        data = head + pages
        return self.command(cdb.MODE_SELECT_6, data, **{"flags": PF, "length": len(data), **fields})

    def ten(self, pages: bytes, head: bytes = bytes(8), **fields: Any) -> Task:
        """Send pages with MODE SELECT (10)."""
        data = head + pages
        return self.command(cdb.MODE_SELECT_10, data, **{"flags": PF, "length": len(data), **fields})

    def sense(self, page: int, subpage: int = 0) -> bytes:
        """What MODE SENSE gives."""
        return self.good(cdb.MODE_SENSE_10, page=page, subpage=subpage, flags=8, allocation=255)[8:]

    def assertInvalidParameter(self, task: Task, byte: int, bit: int | None = None) -> None:
        """The task was refused because of a byte of its parameter list."""
        code = codes.INVALID_FIELD_IN_PARAMETER_LIST
        self.assertSense(task, codes.ILLEGAL_REQUEST, code, (False, byte, bit))


class SelectTests(SelectCase):
    """MODE SELECT, SPC-4 6.11 and 6.12."""

    def test_bothForms(self) -> None:
        """A page that is selected is what is sensed afterwards."""
        for select in (self.six, self.ten):
            for page in (control("06160840"), control("02100000"), NO_CACHE, CACHING):
                self.assertEqual(select(page).status, codes.GOOD)
                self.assertEqual(self.sense(page[0]), page)

    def test_several(self) -> None:
        """A list may have several pages."""
        self.assertEqual(self.six(NO_CACHE + control("0610")).status, codes.GOOD)
        self.assertEqual(self.sense(8) + self.sense(10), NO_CACHE + control("0610"))

    def test_sentBack(self) -> None:
        """What MODE SENSE gives can be sent back as it is, descriptors and all; nobody is told."""
        for sense, select, flags in (
            (cdb.MODE_SENSE_6, cdb.MODE_SELECT_6, 0),
            (cdb.MODE_SENSE_10, cdb.MODE_SELECT_10, 0),
            (cdb.MODE_SENSE_10, cdb.MODE_SELECT_10, 0x10),
            (cdb.MODE_SENSE_10, cdb.MODE_SELECT_10, 0x08),
        ):
            data = self.good(sense, page=0x3F, subpage=0xFF, flags=flags, allocation=255)
            self.good(select, data, flags=PF, length=len(data))
        self.good(cdb.TEST_UNIT_READY, nexus=self.other)

    def test_attention(self) -> None:
        """The other nexuses are told that parameters have changed (SPC-4 5.10)."""
        self.six(control("0610"))
        self.good(cdb.TEST_UNIT_READY)
        task = self.command(cdb.TEST_UNIT_READY, nexus=self.other)
        self.assertEqual(task.sense[:4].hex(), "72062a01")

    def test_descriptorSense(self) -> None:
        """D_SENSE chooses the format of sense data (SPC-4 7.5.8)."""
        self.six(control("0610"))
        self.assertEqual(self.command(cdb.READ_10, lba=BLOCKS, length=1).sense[0], 0x72)
        self.six(control("0210"))
        self.assertEqual(self.command(cdb.READ_10, lba=BLOCKS, length=1).sense[0] & 0x7F, 0x70)

    def test_softwareProtected(self) -> None:
        """SWP protects the medium for everybody, after a flush, until it is cleared (SPC-4 7.5.8)."""
        self.six(control("02100800"))
        self.assertEqual(self.device.calls, [("flush",)])
        task = self.command(cdb.WRITE_10, bytes(BLOCK), length=1)
        self.assertSense(task, codes.DATA_PROTECT, codes.SOFTWARE_WRITE_PROTECTED)
        self.six(control("02100000"))
        self.good(cdb.WRITE_10, bytes(BLOCK), length=1)

    def test_writeCache(self) -> None:
        """Without WCE what was written is flushed at once, and what is written later at its end."""
        self.six(NO_CACHE)
        self.good(cdb.WRITE_10, bytes(BLOCK), length=1)
        self.assertEqual([call[0] for call in self.device.calls], ["flush", "write", "flush"])
        self.six(CACHING)
        self.good(cdb.WRITE_10, bytes(BLOCK), length=1)
        self.assertEqual([call[0] for call in self.device.calls], ["flush", "write", "flush", "write"])

    def test_unitSettings(self) -> None:
        """TAS, QERR and UA_INTLCK_CTRL reach the unit; there is no UA_INTLCK_CTRL of 01b (SPC-4 7.5.8)."""
        self.six(control("02163040"))
        self.assertEqual((self.unit.tellsAborted, self.unit.queueError, self.unit.interlock), (True, 3, 3))
        task = self.six(control("02161040"))
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.INVALID_FIELD_IN_PARAMETER_LIST)

    def test_reset(self) -> None:
        """A reset brings the defaults back (SPC-4 5.10)."""
        self.six(NO_CACHE + control("06100840"))
        self.unit.reset(codes.DEVICE_RESET_OCCURRED)
        self.assertEqual(self.command(cdb.TEST_UNIT_READY).sense[0], 0x70)
        self.assertEqual(self.sense(8) + self.sense(10), CACHING + control("0210"))
        self.assertFalse(self.unit.guarded)

    def test_flushFails(self) -> None:
        """If what was written cannot be made durable nothing changes."""
        self.device.error = WriteError()
        self.assertSense(self.six(NO_CACHE), codes.MEDIUM_ERROR, codes.WRITE_FAULT)
        self.assertEqual(self.sense(8), CACHING)

    def test_flushPending(self) -> None:
        """The status waits for the flush."""
        slow = PendingDisk(BLOCKS * BLOCK, Capabilities(volatileCache=True))
        task = self.six(NO_CACHE, unit=self.makeUnit(slow))
        self.assertIsNone(task.status)
        slow.fire()
        self.assertEqual(task.status, codes.GOOD)

    def test_noCache(self) -> None:
        """Where there is no cache WCE cannot be set."""
        unit = self.makeUnit(MemoryDisk(BLOCKS * BLOCK))
        self.assertInvalidParameter(self.six(CACHING, unit=unit), 6, 2)

    def test_nothing(self) -> None:
        """A list of no bytes, or of a head alone, is GOOD and changes nothing."""
        for task in (self.six(b"", length=0), self.ten(b"", length=0, flags=0), self.six(b""), self.ten(b"")):
            self.assertEqual(task.status, codes.GOOD)

    def test_flags(self) -> None:
        """Saving, and what is not in page format, are refused (SPC-4 6.11)."""
        for command in (cdb.MODE_SELECT_6, cdb.MODE_SELECT_10):
            self.assertInvalidField(self.command(command, bytes(8), flags=PF | 1, length=8), 1, 0)
            self.assertInvalidField(self.command(command, bytes(8), flags=0, length=8), 1, 4)

    def test_changes(self) -> None:
        """What cannot be changed is refused, and nothing of the list is applied (SPC-4 6.11)."""
        for page, byte, bit in (
            (control("0110"), 10, 1),
            (control("0220"), 11, 5),
            (control("02140000"), 11, 2),  # QERR 10b is reserved
            (control("021000000001"), 15, 0),
            (bytes.fromhex("1c0a") + bytes(10), 10, 3),
            (bytes.fromhex("010a80") + bytes(9), 10, 7),
        ):
            self.assertInvalidParameter(self.ten(page), byte, bit)
        task = self.ten(control("0610") + bytes.fromhex("010a80") + bytes(9))
        self.assertInvalidParameter(task, 22, 7)
        self.assertFalse(self.unit.descriptorSense)

    def test_pages(self) -> None:
        """Pages that are not there, and pages of another length, are refused."""
        self.assertInvalidParameter(self.six(bytes.fromhex("0316") + bytes(22)), 4, 5)
        self.assertInvalidParameter(self.six(bytes.fromhex("4a02001c") + bytes(28)), 4, 5)
        self.assertInvalidParameter(self.six(bytes.fromhex("4a00000a") + bytes(10)), 4, 5)
        self.assertInvalidParameter(self.six(bytes.fromhex("0a09") + bytes(9)), 5)
        self.assertInvalidParameter(self.six(bytes.fromhex("4a010020") + bytes(32)), 6)
        self.assertEqual(self.six(bytes.fromhex("4a01001c06") + bytes(27)).status, codes.GOOD)

    def test_descriptors(self) -> None:
        """A block descriptor may say what is so, and nothing else (SBC-3 6.5.2)."""
        for blocks in (0, BLOCKS, 0xFFFFFFFF):
            descriptor = blocks.to_bytes(4, "big") + BLOCK.to_bytes(4, "big")
            self.assertEqual(self.six(descriptor, head=b"\0\0\0\x08").status, codes.GOOD)
        for descriptor, byte in (("0000000100000200", 4), ("0000000000001000", 8)):
            self.assertInvalidParameter(self.six(bytes.fromhex(descriptor), head=b"\0\0\0\x08"), byte)
        long = bytes.fromhex("0000000000000040" + "00000000" + "00000200")
        head = bytes.fromhex("0000000001000010")
        self.assertEqual(self.ten(long, head=head).status, codes.GOOD)
        self.assertInvalidParameter(self.ten(long[:8] + bytes(8), head=head), 20)
        self.assertInvalidParameter(self.ten(long, head=bytes.fromhex("0000000000000010")), 6)
        self.assertInvalidParameter(self.six(bytes(4), head=b"\0\0\0\x04"), 3)
        self.assertInvalidParameter(self.six(b"", head=b"\0\x01\0\0"), 1)
        self.assertInvalidParameter(self.ten(b"", head=b"\0\0\x01\0\0\0\0\0"), 2)

    def test_cutOff(self) -> None:
        """A list that ends in the middle of something is refused, wherever that is (SPC-4 6.11)."""
        whole = b"\0\0\0\x08" + bytes.fromhex("0000004000000200") + control("0610") + NO_CACHE
        good = {4 + 8, 4 + 8 + 12, len(whole)}
        for length in range(1, len(whole)):
            if length not in good:
                for data, announced in ((whole, length), (whole[:length], len(whole))):
                    task = self.command(cdb.MODE_SELECT_6, data, flags=PF, length=announced)
                    code = codes.PARAMETER_LIST_LENGTH_ERROR
                    self.assertSense(task, codes.ILLEGAL_REQUEST, code)
        self.assertFalse(self.unit.descriptorSense)

    @given(st.binary(max_size=64))
    def test_any(self, data: bytes) -> None:
        """Whatever is sent is taken over or refused, and never a surprise."""
        task = self.ten(data)
        self.assertIn(task.status, (codes.GOOD, codes.CHECK_CONDITION))
        self.assertEqual(self.surprises, [])
        self.unit.adjust(self.unit.defaults)


class SavedTests(SelectCase):
    """Saved mode pages, SPC-4 5.10 and 6.11."""

    SP = 0x11

    def setUp(self) -> None:
        super().setUp()
        self.store = MemoryStore()
        self.unit.remember(self.store)

    def sense(self, page: int, subpage: int = 0) -> bytes:
        """What MODE SENSE gives, without PS, which MODE SELECT does not want."""
        data = super().sense(page, subpage)
        self.assertTrue(data[0] & 0x80)
        return bytes((data[0] & 0x7F,)) + data[1:]

    def again(self) -> DiskUnit:
        """Another unit with the same store, as after a loss of power."""
        unit = DiskUnit(self.device, identity=IDENTITY, report=self.surprise)
        unit.remember(self.store)
        unit.nexusFound(self.nexus)
        unit.opened()
        unit.takeAttention(self.nexus)
        return unit

    def test_saveable(self) -> None:
        """PS stands in the pages that can be saved, and in no other (SPC-4 7.5.7)."""
        data = self.good(cdb.MODE_SENSE_10, page=0x3F, subpage=0xFF, flags=8, allocation=0xFFFF)[8:]
        found = {}
        while data:
            size = 4 + int.from_bytes(data[2:4], "big") if data[0] & 0x40 else 2 + data[1]
            found[data[0] & 0x3F, data[1] if data[0] & 0x40 else 0] = bool(data[0] & 0x80)
            data = data[size:]
        saved = {page for page, saveable in found.items() if saveable}
        self.assertEqual(saved, {(page.code, page.subpage) for page in available(self.unit) if page.saveable})
        self.assertLess({(0x08, 0), (0x0A, 0)}, saved | {(-1, -1)})
        self.assertNotIn((0x1A, 0), saved)

    def test_saved(self) -> None:
        """With SP all saveable pages are saved and hold; after a reset or a loss of power they hold again."""
        for select in (self.six, self.ten):
            self.assertEqual(select(NO_CACHE + control("0610"), flags=self.SP).status, codes.GOOD)
            self.six(CACHING + control("0210"))
            self.assertEqual(self.sense(0xC8) + self.sense(0xCA), NO_CACHE + control("0610"))
            self.assertEqual(self.sense(0x88) + self.sense(0x8A), CACHING + control("0210"))
            self.assertEqual(self.sense(0x08) + self.sense(0x0A), CACHING + control("0210"))
            self.unit.reset(codes.DEVICE_RESET_OCCURRED)
            self.assertEqual(self.command(cdb.TEST_UNIT_READY).sense[0], 0x72)
            self.assertEqual(self.sense(0x08) + self.sense(0x0A), NO_CACHE + control("0610"))
            unit = self.again()
            self.assertTrue(unit.descriptorSense and unit.writeThrough)
            self.assertEqual(self.six(CACHING + control("0210"), flags=self.SP).status, codes.GOOD)

    def test_empty(self) -> None:
        """With SP and no list, what holds is saved."""
        self.six(control("0610"))
        self.assertEqual(self.command(cdb.MODE_SELECT_6, flags=self.SP).status, codes.GOOD)
        self.assertEqual(self.sense(0xCA), control("0610"))

    def test_failure(self) -> None:
        """What could not be saved does not hold (SPC-4 6.11), and the next attempt is a new one."""
        self.store.waiting = waiting = Deferred()
        task = self.six(control("0610"), flags=self.SP)
        self.assertIsNone(task.status)
        waiting.errback(OSError(errno.EIO, "no"))
        self.assertSense(task, codes.MEDIUM_ERROR, codes.WRITE_FAULT)
        self.assertEqual(self.sense(0x0A) + self.sense(0xCA), 2 * control("0210"))
        self.six(control("0210"), flags=self.SP)
        self.assertEqual(self.sense(0xCA), control("0210"))

    def test_waits(self) -> None:
        """The status waits until all is durable; the others are told then."""
        self.store.waiting = waiting = Deferred()
        task = self.ten(control("0610"), flags=self.SP)
        self.good(cdb.TEST_UNIT_READY, nexus=self.other)
        waiting.callback(None)
        self.assertEqual(task.status, codes.GOOD)
        self.assertEqual(self.command(cdb.TEST_UNIT_READY, nexus=self.other).sense[:4].hex(), "72062a01")

    def test_otherStorage(self) -> None:
        """What was saved and cannot be changed any more has its default; what has gone is left out."""
        self.six(CACHING + control("0610"), flags=self.SP)
        state = json.loads(self.store.states[-1])
        state["pages"]["08.00"] = NO_CACHE[2:].hex()
        state["pages"]["3e.01"] = state["pages"]["0a.00"] + "00"
        self.store.states.append(json.dumps(state).encode())
        self.device = MemoryDisk(BLOCKS * BLOCK, Capabilities())
        unit = self.again()
        self.assertEqual((unit.settings, unit.descriptorSense), (unit.lasting(), True))
        self.assertFalse(unit.settings.writeCache)
        state["pages"]["0a.00"] += "00"
        self.store.states.append(json.dumps(state).encode())
        self.assertFalse(self.again().descriptorSense)
