"""Units: typed commands, errors with names, and the block device."""

from __future__ import annotations

import os
from typing import Any

from zope.interface.verify import verifyObject

from iscsi_twisted.errors import LocalError, NotReady, OutOfSpace, ReadError, WriteProtected
from iscsi_twisted.initiator import LUN
from iscsi_twisted.initiator.lun import LARGEST
from iscsi_twisted.interfaces import IBlockDevice
from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.client import (
    IllegalRequest,
    Miscompare,
    ReservationConflict,
    UnitAttention,
    UnitNotReady,
)
from iscsi_twisted.session.answers import FunctionRefused
from iscsi_twisted.storage import MemoryDevice, Mirror
from tests.support.devices import FakeDevice
from tests.support.initiator import SIZE, InitiatorTests
from tests.support.wire import makeTarget

BLOCK = 512
LARGE = 4 * LARGEST


class UnitTests(InitiatorTests):
    """A disk."""

    def makeDevice(self) -> MemoryDevice:
        """Large enough for several commands at once."""
        return MemoryDevice(LARGE)

    def test_open(self) -> None:
        """What the unit is and can do."""
        lun = self.lun()
        self.assertEqual((lun.size, lun.blockSize, lun.inquiry.vendor), (LARGE, BLOCK, "TEST"))
        able = lun.capabilities()
        self.assertFalse(able.readOnly)
        self.assertEqual(str(lun), f"LUN 0 of {self.target.name}")

    def test_units(self) -> None:
        """All units of a target."""
        session = self.session()
        self.assertEqual([unit.number for unit in self.now(self.initiator.units(session))], [0, 1])

    def test_resetRefused(self) -> None:
        """A reset that a target refuses says why; of a unit that is there it is done."""
        session = self.session()
        error = self.fails(FunctionRefused, LUN(session, 7).reset())
        self.assertIn("the unit does not exist", str(error))
        self.now(LUN(session, 0).reset())

    def test_absent(self) -> None:
        """A number without a unit."""
        self.assertIn("there is no unit LUN 7 of", str(self.fails(NotReady, LUN(self.session(), 7).open())))

    def test_readBack(self) -> None:
        """What is written is read, in one command or several, into memory of the caller's or new one."""
        lun = self.lun()
        for length in (BLOCK, 8 * BLOCK, LARGEST, LARGEST + BLOCK, 3 * LARGEST):
            data = os.urandom(length)
            self.now(lun.write(BLOCK, data))
            self.assertEqual(bytes(self.now(lun.read(BLOCK, length))), data)
            buffer = bytearray(length + 2)
            self.now(lun.readInto(BLOCK, memoryview(buffer)[1:-1]))
            self.assertEqual(buffer, b"\0" + data + b"\0")
        self.now(lun.write(0, b"x" * BLOCK, fua=True))
        self.now(lun.flush())
        self.assertEqual((self.now(lun.read(0, 0)), self.now(lun.write(0, b""))), (b"", None))

    def test_everyWay(self) -> None:
        """Data travel in every way that can be agreed upon."""
        data = os.urandom(100 * BLOCK)
        for initial in (True, False):
            for immediate in (True, False):
                for first, burst in ((512, 512), (4096, 8192), (65536, 65536), (8192, 1 << 20)):
                    keys = {
                        "InitialR2T": initial,
                        "ImmediateData": immediate,
                        "FirstBurstLength": first,
                        "MaxBurstLength": burst,
                    }
                    lun = LUN(self.session(keys=keys))
                    self.now(lun.open())
                    self.now(lun.zero(0, len(data)))
                    self.turn(400)
                    waiting = lun.write(0, data)
                    self.turn(800)
                    self.successResultOf(waiting)
                    self.assertEqual(bytes(self.now(lun.read(0, len(data)))), data)

    def test_outside(self) -> None:
        """Bytes that there are not, and parts of blocks, are the caller's fault."""
        lun = self.lun()
        for offset, length in ((LARGE, BLOCK), (-BLOCK, BLOCK), (1, BLOCK), (0, BLOCK - 1)):
            self.assertRaises(LocalError, lun.read, offset, length)
            self.assertRaises(LocalError, lun.write, offset, bytes(length))

    def test_compareAndWrite(self) -> None:
        """Bytes are written where others were, or nothing is."""
        lun = self.lun()
        self.now(lun.compareAndWrite(BLOCK, bytes(BLOCK), b"n" * BLOCK))
        error = self.fails(Miscompare, lun.compareAndWrite(BLOCK, b"n" * 7 + bytes(BLOCK - 7), bytes(BLOCK)))
        self.assertEqual(error.information, 7)
        self.assertEqual(bytes(self.now(lun.read(BLOCK, BLOCK))), b"n" * BLOCK)
        self.fails(LocalError, lun.compareAndWrite(0, bytes(BLOCK), b""))

    def test_reserve(self) -> None:
        """One session keeps another out, until it releases the unit."""
        mine, theirs = self.lun(), self.lun()
        self.now(mine.reserve())
        self.fails(ReservationConflict, theirs.ready())
        self.now(mine.release())
        self.now(theirs.ready())

    def test_reset(self) -> None:
        """A reset is told as a unit attention to others, who go on."""
        mine, theirs = self.lun(), self.lun()
        attentions: list[UnitAttention] = []
        theirs.attention = attentions.append
        self.now(mine.reset())
        self.now(theirs.ready())
        self.assertEqual([error.code for error in attentions], [codes.DEVICE_RESET_OCCURRED])

    def test_execute(self) -> None:
        """Any command, with errors that have names."""
        lun = self.lun()
        error = self.fails(IllegalRequest, lun.execute(b"\xff" + bytes(5)))
        self.assertEqual(error.code, codes.INVALID_OPCODE)
        page = self.now(lun.page(0x80))
        self.assertEqual(page[4:], b"serial0")
        self.fails(IllegalRequest, lun.page(0x99))
        self.assertRaises(LocalError, lun.execute, b"\0")

    def test_notReady(self) -> None:
        """A unit that is not ready says so."""
        lun = self.lun()
        unit = self.target.units[0]
        unit.closed()  # type: ignore[attr-defined]
        self.fails(UnitNotReady, lun.ready())
        self.fails(NotReady, lun.read(0, BLOCK))


class ErrorTests(InitiatorTests):
    """Errors of the device behind a unit, as the device at this end tells them."""

    def makeDevice(self) -> FakeDevice:
        """It fails when it is told to."""
        return FakeDevice(SIZE)

    def test_errors(self) -> None:
        """An error is the same on both sides of the wire, its place too."""
        lun = self.lun()
        for error, kind, place in (
            (ReadError(offset=3 * BLOCK), ReadError, 3 * BLOCK),
            (OutOfSpace(), OutOfSpace, None),
            (WriteProtected(), WriteProtected, None),
            (NotReady(), NotReady, None),
        ):
            waiting = lun.read(0, 8 * BLOCK)
            self.turn()
            self.device.operations[0].fail(error)
            self.turn()
            self.assertEqual(self.failureResultOf(waiting, kind).value.offset, place)


class DeviceTests(InitiatorTests):
    """A unit as a block device."""

    def test_servedAgain(self) -> None:
        """It is a member of a mirror, which is served by another target, and read through that."""
        lun = LUN(self.session())
        copy = MemoryDevice(SIZE)
        mirror = Mirror([lun, copy], reactor=self.clock)
        self.now(mirror.open(lambda: None))  # type: ignore[arg-type]
        target = makeTarget(copy, name="iqn.2001-04.com.example:again")
        unit: Any = target.units[0]
        unit.device = mirror
        self.node.add(target)
        again = LUN(self.now(self.initiator.login(self.endpoint, target.name)))
        self.now(again.open())
        data = os.urandom(8 * BLOCK)
        self.now(again.write(BLOCK, data))
        self.assertEqual(bytes(self.now(again.read(BLOCK, len(data)))), data)
        for device in (self.device, copy):
            self.assertEqual(bytes(device.read(BLOCK, len(data))), data)

    def test_interface(self) -> None:
        """It has all that a block device has."""
        self.assertTrue(verifyObject(IBlockDevice, self.lun()))

    def test_thin(self) -> None:
        """Discards, zeros and allocation go through, where the unit can do them."""
        target = makeTarget(FakeDevice(SIZE, synchronous=True), name="iqn.2001-04.com.example:thin")
        self.node.add(target)
        lun = LUN(self.now(self.initiator.login(self.endpoint, target.name)))
        self.now(lun.open())
        self.now(lun.write(0, b"x" * 4 * BLOCK))
        self.now(lun.zero(BLOCK, BLOCK, True))
        self.assertEqual(bytes(self.now(lun.read(0, 3 * BLOCK))), b"x" * BLOCK + bytes(BLOCK) + b"x" * BLOCK)
        self.now(lun.discard(0, 4 * BLOCK))
        runs = self.now(lun.allocated(0, SIZE))
        part = self.now(lun.allocated(0, 512))
        self.assertEqual(sum(length for length, _ in part), 512)
        self.assertEqual(sum(length for length, _ in runs), SIZE)
