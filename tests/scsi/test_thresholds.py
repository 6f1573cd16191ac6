"""Tests for L{iscsi_twisted.scsi.thresholds}."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from iscsi_twisted.errors import NotReady
from iscsi_twisted.interfaces import Capabilities, Space
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.thresholds import MASK, Threshold, percentage, sets
from tests.scsi.cases import BLOCK, BLOCKS, DiskTests
from tests.scsi.devices import MemoryDisk, MemoryStore
from tests.support.tasks import Nexus, Task

ABLE = Capabilities(discard=True, discardZeroes=True, space=True)
MIB = 1 << 20
PF, SP = 0x10, 0x01
REPORTING = bytes.fromhex("010a" + "0000000000" + "80" + "00000000")
"""Read-write error recovery with LBPERE."""
AVAILABLE, USED, LEFT = (0, 0, 1), (0, 1, 2), (1, 0, 3)
"""Type, arming and resource (SBC-3 6.5.7)."""


def descriptor(what: tuple[int, int, int], count: int, enabled: bool = True) -> bytes:
    """A threshold descriptor."""
    kind, arming, resource = what
    return struct.pack(">BBxxI", enabled << 7 | kind << 3 | arming, resource, count)


def raising(error: Exception) -> None:
    """Raise it."""
    raise error


def page(*descriptors: bytes, one: bool = False) -> bytes:
    """The mode page."""
    head = bytes.fromhex("5c02002c") + bytes((one,)) + bytes(11)
    return head + b"".join(descriptors) + bytes(8) * (4 - len(descriptors))


class ThresholdCase(DiskTests):
    """A thin disk whose device tells what space there is, and two nexuses."""

    def setUp(self) -> None:
        super().setUp()
        self.device = MemoryDisk(BLOCKS * BLOCK, ABLE)
        self.unit = self.makeUnit(self.device)
        self.other = Nexus(initiatorName="iqn.2001-04.com.example:other")
        self.unit.nexusFound(self.other)
        self.unit.takeAttention(self.other)
        self.space(0, 100 * MIB)

    def space(self, used: int, available: int) -> None:
        """How much there is from now on."""
        self.device.spare = Space(used, available)

    def select(self, pages: bytes, flags: int = PF) -> Task:
        """MODE SELECT (10)."""
        return self.command(cdb.MODE_SELECT_10, bytes(8) + pages, flags=flags, length=8 + len(pages))

    def watched(self, *descriptors: bytes, one: bool = False) -> None:
        """Set thresholds, and have them reported."""
        self.assertEqual(self.select(REPORTING + page(*descriptors, one=one)).status, codes.GOOD)
        self.unit.takeAttention(self.other)

    def told(self) -> tuple[bool, bool]:
        """Whether each nexus is told of a threshold, after a look."""
        self.unit.watch()
        codesTold = [self.unit.takeAttention(nexus) for nexus in (self.nexus, self.other)]
        self.assertLessEqual(set(codesTold), {None, codes.SOFT_THRESHOLD_REACHED})
        return codesTold[0] is not None, codesTold[1] is not None


class ReachedTests(ThresholdCase):
    """When thresholds are told, SBC-3 4.7.3.7."""

    def test_available(self) -> None:
        """A threshold of what is available is told once when it is reached, to all."""
        self.watched(descriptor(AVAILABLE, 10))
        self.assertEqual(self.told(), (False, False))
        self.space(0, 11 * MIB)
        self.assertEqual(self.told(), (False, False))
        self.space(0, 11 * MIB - 1)
        self.assertEqual(self.told(), (True, True))
        self.space(0, 5 * MIB)
        self.assertEqual(self.told(), (False, False))

    def test_again(self) -> None:
        """It is told again if there was more in the meantime."""
        self.watched(descriptor(AVAILABLE, 10))
        for available, told in ((5, True), (20, False), (10, True)):
            self.space(0, available * MIB)
            self.assertEqual(self.told(), (told, told))

    def test_used(self) -> None:
        """A threshold of what is used is reached from below; a set that is begun is used."""
        self.watched(descriptor(USED, 3))
        self.space(2 * MIB, MIB)
        self.assertEqual(self.told(), (False, False))
        self.space(2 * MIB + 1, MIB)
        self.assertEqual(self.told(), (True, True))

    def test_percentage(self) -> None:
        """A percentage is of all that there is for the unit."""
        self.watched(descriptor(LEFT, 20))
        self.space(75, 25)
        self.assertEqual(self.told(), (False, False))
        self.space(80, 20)
        self.assertEqual(self.told(), (True, True))

    def test_several(self) -> None:
        """Each threshold is told by itself, those that are disabled not at all."""
        self.watched(
            descriptor(AVAILABLE, 50), descriptor(AVAILABLE, 70, enabled=False), descriptor(AVAILABLE, 10)
        )
        for available, told in ((60, False), (50, True), (30, False), (10, True), (1, False)):
            self.space(0, available * MIB)
            self.assertEqual(self.told(), (told, told), available)

    def test_one(self) -> None:
        """With SITUA one initiator is told, and always the same (SBC-3 6.5.7)."""
        self.watched(descriptor(AVAILABLE, 10), one=True)
        for _ in range(2):
            self.space(0, 0)
            self.assertEqual(self.told(), (True, False))
            self.space(0, 100 * MIB)
            self.assertEqual(self.told(), (False, False))

    def test_nobody(self) -> None:
        """With SITUA and nobody there nobody is told, and nothing breaks."""
        self.watched(descriptor(AVAILABLE, 10), one=True)
        for nexus in (self.nexus, self.other):
            self.unit.nexusLost(nexus)
        self.space(0, 0)
        self.unit.watch()
        self.unit.nexusFound(self.nexus)
        self.assertEqual(self.unit.takeAttention(self.nexus), codes.NEXUS_LOSS_OCCURRED)

    def test_disabled(self) -> None:
        """Without LBPERE nothing is told, and the device is not asked (SBC-3 6.5.8)."""
        self.select(page(descriptor(AVAILABLE, 10)))
        self.unit.takeAttention(self.other)
        self.device.space = lambda: self.fail("asked")  # type: ignore[method-assign]
        self.assertEqual(self.told(), (False, False))

    def test_later(self) -> None:
        """A device may answer later, or with an error, which nobody is told."""
        self.watched(descriptor(AVAILABLE, 10))
        self.device.spare = waiting = Deferred()
        self.unit.watch()
        waiting.callback(Space(0, 0))
        self.device.spare = failing = Deferred()
        self.assertEqual(self.told(), (True, True))
        failing.errback(OSError("no"))
        self.device.spare = None
        self.assertEqual(self.told(), (False, False))

    def test_raising(self) -> None:
        """Errors of a device end no look; what nobody expected is reported."""
        self.watched(descriptor(AVAILABLE, 10))
        for error, reported in ((NotReady(), 0), (OSError("no"), 0), (ZeroDivisionError(), 1)):
            self.device.space = lambda error=error: raising(error)  # type: ignore[misc]
            self.unit.watch()
            self.assertEqual(len(self.surprises), reported)

    def test_reset(self) -> None:
        """What holds still after a reset is told again."""
        self.watched(descriptor(AVAILABLE, 10))
        self.select(REPORTING, flags=PF | SP)
        self.space(0, 0)
        self.assertEqual(self.told(), (True, True))
        self.unit.reset(codes.DEVICE_RESET_OCCURRED)
        for nexus in (self.nexus, self.other):
            self.unit.takeAttention(nexus)
        self.assertEqual(self.told(), (True, True))

    def test_notReady(self) -> None:
        """A unit without its device is not looked at."""
        self.watched(descriptor(AVAILABLE, 10))
        self.space(0, 0)
        self.unit.closed()
        self.assertEqual(self.told(), (False, False))

    def test_configured(self) -> None:
        """A threshold of the configuration is the default one; initiators may change it."""
        self.unit = self.makeUnit(self.device, threshold=10)
        self.unit.nexusFound(self.other)
        self.unit.takeAttention(self.other)
        data = self.good(cdb.MODE_SENSE_10, page=0x9C, subpage=2, flags=8, allocation=255)[8:]
        self.assertEqual(data[1:], page(descriptor(LEFT, 10))[1:])
        self.space(95, 5)
        self.assertEqual(self.told(), (True, True))
        self.watched()
        self.assertEqual(self.told(), (False, False))


class PageTests(ThresholdCase):
    """The mode page, SBC-3 6.5.7, and the log page, SBC-3 6.4.5."""

    def sense(self, control: int = 0) -> bytes:
        """MODE SENSE of the page, without PS."""
        data = self.good(cdb.MODE_SENSE_10, page=control << 6 | 0x1C, subpage=2, flags=8, allocation=255)[8:]
        return bytes((data[0] & 0x7F,)) + data[1:]

    def test_selected(self) -> None:
        """What is selected is sensed, saved and restored; the default is that nothing is watched."""
        store = MemoryStore()
        self.unit.remember(store)
        wanted = page(descriptor(AVAILABLE, 10), descriptor(USED, 7), descriptor(LEFT, 3), one=True)
        self.assertEqual(self.select(wanted, flags=PF | SP).status, codes.GOOD)
        self.assertEqual((self.sense(0), self.sense(3), self.sense(2)), (wanted, wanted, page()))
        self.assertEqual(self.sense(1)[4:], MASK)
        unit = self.makeUnit(self.device)
        unit.remember(store)
        self.assertEqual(unit.settings.thresholds[1], Threshold(True, 0, 1, 2, 7))

    def test_refused(self) -> None:
        """What makes no sense is refused, and points at the field; if it is disabled it may stand."""
        senseless: list[tuple[bytes, int, int | None]] = [
            (descriptor((0, 0, 0), 1), 1, 7),
            (descriptor((0, 0, 4), 1), 1, 7),
            (descriptor((1, 0, 1), 1), 0, 5),
            (descriptor((0, 0, 3), 1), 0, 5),
            (descriptor((0, 1, 1), 1), 0, 2),
            (descriptor((0, 0, 2), 1), 0, 2),
            (descriptor((1, 0, 3), 101), 4, None),
        ]
        code = codes.INVALID_FIELD_IN_PARAMETER_LIST
        for wrong, byte, bit in senseless:
            for place in range(4):
                task = self.select(page(*[bytes(8)] * place, wrong))
                where = 8 + 4 + 12 + 8 * place + byte
                self.assertSense(task, codes.ILLEGAL_REQUEST, code, (False, where, bit))
            self.assertEqual(self.select(page(bytes((wrong[0] & 0x7F,)) + wrong[1:])).status, codes.GOOD)

    def test_absent(self) -> None:
        """A unit that is not thin, or whose device tells nothing, has none of this."""
        units: list[DiskUnit] = [
            self.makeUnit(MemoryDisk(BLOCKS * BLOCK, ABLE._replace(space=False))),
            self.makeUnit(MemoryDisk(BLOCKS * BLOCK, ABLE), thin=False, threshold=10),
        ]
        for unit in units:
            task = self.command(cdb.MODE_SENSE_10, unit=unit, page=0x1C, subpage=2, allocation=255)
            self.assertInvalidField(task, 3, 7)
            self.assertInvalidField(self.command(cdb.LOG_SENSE, unit=unit, page=0x4C, allocation=255), 2, 5)
            data = self.good(cdb.INQUIRY, unit=unit, flags=1, page=0xB2, allocation=255)
            self.assertEqual((data[4], data[7]), (0, 0))
            mask = self.good(cdb.MODE_SENSE_10, unit=unit, page=0x41, flags=8, allocation=255)
            self.assertEqual(mask[10:], bytes(10))

    def test_exponent(self) -> None:
        """VPD page B2h says how many blocks a threshold set has (SBC-3 6.6.6)."""
        for block, exponent in ((512, 11), (2048, 9), (4096, 8)):
            unit = self.makeUnit(self.device, blockSize=block)
            data = self.good(cdb.INQUIRY, unit=unit, flags=1, page=0xB2, allocation=255)
            self.assertEqual((data[4], block << data[4], data[7]), (exponent, MIB, 1))

    def test_log(self) -> None:
        """The log page has what is available and used, in threshold sets, and the percentage left."""
        self.space(3 * MIB + 1, 12 * MIB - 1)
        wanted = "00010308" + "0000000b02000000" + "00020308" + "0000000401000000" + "00030304" + "004f0000"
        data = self.good(cdb.LOG_SENSE, page=0x4C, allocation=255)
        self.assertEqual(data.hex(), "0c000020" + wanted)
        self.device.spare = None
        self.assertEqual(self.good(cdb.LOG_SENSE, page=0x4C, allocation=255).hex(), "0c000000")
        self.assertInvalidField(self.command(cdb.LOG_SENSE, page=0x4C, parameter=1, allocation=255), 5)
        self.device.spare = waiting = Deferred()
        task = self.command(cdb.LOG_SENSE, page=0x4C, parameter=3, allocation=255)
        self.assertIsNone(task.status)
        waiting.callback(Space(0, 0))
        self.assertEqual(task.data.hex(), "0c000008" + "00030304" + "00640000")

    @given(st.integers(0, 1 << 70), st.integers(0, 1 << 70))
    def test_numbers(self, used: int, available: int) -> None:
        """Whatever the space, the numbers fit, and no more is called available than there is."""
        space = Space(used, available)
        free, taken = sets(space)
        self.assertLessEqual(free * MIB, available)
        self.assertTrue(taken * MIB >= used or taken == 0xFFFFFFFF)
        self.assertTrue(0 <= percentage(space) <= 100)
