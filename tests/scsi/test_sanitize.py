"""Tests for L{iscsi_twisted.scsi.sanitize}, and for L{iscsi_twisted.scsi.overhaul} beneath it."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from iscsi_twisted.errors import DeviceError, WriteError
from iscsi_twisted.interfaces import Capabilities
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.cdb import Command
from iscsi_twisted.scsi.cdblong import (
    FORMAT_UNIT,
    SANITIZE_BLOCK_ERASE,
    SANITIZE_CRYPTO_ERASE,
    SANITIZE_EXIT_FAILURE_MODE,
    SANITIZE_OVERWRITE,
)
from iscsi_twisted.scsi.cdbprimary import SEND_DIAGNOSTIC
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.overhaul import Plan
from iscsi_twisted.scsi.provisioning import SLICE
from iscsi_twisted.scsi.selftest import INTERRUPTED
from iscsi_twisted.scsi.work import WHOLE
from tests.scsi.cases import BLOCK, BLOCKS, DiskTests
from tests.scsi.devices import THIN, MemoryDisk, MemoryStore, PendingDisk, Turns
from tests.support.tasks import Nexus, Task, abort, run

IMMED, ZNR, AUSE = 0x80, 0x40, 0x20

ALWAYS = {
    "INQUIRY", "REPORT LUNS", "REQUEST SENSE", "REPORT SUPPORTED OPERATION CODES",
    "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
}  # fmt: skip
"""What is answered while a unit is sanitized (SBC-4 4.11.2)."""


class SanitizeCases(DiskTests):
    """A disk of three slices."""

    size = 3 * SLICE

    def setUp(self) -> None:
        """Make it, with a store and turns."""
        super().setUp()
        self.turns, self.store = Turns(), MemoryStore()
        self.device = MemoryDisk(self.size, THIN)
        self.device.content[:] = b"s" * self.size
        self.unit = self.remake()

    def remake(self) -> DiskUnit:
        """The unit as it is after a start."""
        unit = DiskUnit(
            self.device, identity=self.unit.identity, report=self.surprise, later=self.turns.later
        )
        unit.keepPlans(self.store)
        unit.opened()
        unit.inventory = self.unit.inventory
        unit.nexusFound(self.nexus)
        unit.takeAttention(self.nexus)
        return unit

    def finish(self, command: Command, dataOut: bytes = b"", **fields: int) -> None:
        """Execute a command that ends well when its work has ended."""
        task = self.command(command, dataOut, **fields)
        self.turns.all()
        self.assertEqual((task.status, task.endings), (codes.GOOD, 1), task.sense.hex())

    def overwrite(self, pattern: bytes = b"x", options: int = 1, action: int = 1, **more: Any) -> Task:
        """Begin an OVERWRITE."""
        data = struct.pack(">BxH", options, len(pattern)) + pattern
        return self.command(SANITIZE_OVERWRITE, data, action=action, length=len(data), **more)

    def senseNow(self) -> tuple[int, str, int]:
        """Sense key, code and progress that REQUEST SENSE tells."""
        data = self.good(cdb.REQUEST_SENSE, allocation=18)
        return data[2], data[12:14].hex(), int.from_bytes(data[16:18], "big") if data[15] else -1


class OverwriteTests(SanitizeCases):
    """SANITIZE (OVERWRITE), SBC-4 5.30.2."""

    def test_written(self) -> None:
        """Every block begins with the pattern, over and over; that is made durable, then forgotten."""
        task = self.overwrite(b"abc")
        self.turns.all()
        self.assertEqual((task.status, task.endings), (codes.GOOD, 1), task.sense.hex())
        block = (b"abc" * BLOCK)[:BLOCK]
        self.assertEqual(bytes(self.device.content), block * (self.size // BLOCK))
        self.assertEqual(self.device.calls[-1], ("flush",))
        self.assertEqual([bool(state) for state in self.store.states], [True, False])
        self.assertEqual((self.unit.works, self.unit.fences, self.unit.closure), (set(), [], None))
        self.good(cdb.READ_10, length=1)

    def test_passes(self) -> None:
        """It is written as often as was asked for, if so every second time inverted, and flushed."""
        self.overwrite(b"\x0f", 0x80 | 2)
        self.turns.all()
        self.assertEqual(bytes(self.device.content), b"\xf0" * self.size)
        writes = [call[0] for call in self.device.calls]
        self.assertEqual(writes, ["write", "write", "write", "flush"] * 2)

    def test_refused(self) -> None:
        """What SBC-4 5.30 does not allow is refused, and nothing is destroyed."""
        for length in (0, 4, BLOCK + 5):
            self.assertInvalidField(
                self.command(SANITIZE_OVERWRITE, bytes(BLOCK + 5), action=1, length=length), 7
            )
        self.assertInvalidField(self.overwrite(action=1 | ZNR), 1, 6)
        for place in range(2, 7):
            reserved = bytearray(SANITIZE_OVERWRITE.encode(length=5))
            reserved[place] = 1
            task = run(self.unit, Task(bytes(reserved), self.nexus, bytes((1, 0, 0, 1, 0))))
            self.assertInvalidField(task, place, 7)
        for options in (0, 0x21, 0x41):
            task = self.overwrite(options=options)
            bit = 6 if options else 4
            code = codes.INVALID_FIELD_IN_PARAMETER_LIST
            self.assertSense(task, codes.ILLEGAL_REQUEST, code, (False, 0, bit))
        wrong = struct.pack(">BxH", 1, 2) + b"x"
        task = self.command(SANITIZE_OVERWRITE, wrong, action=1, length=len(wrong))
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.INVALID_FIELD_IN_PARAMETER_LIST, (False, 2, None))
        task = self.command(SANITIZE_OVERWRITE, wrong, action=1, length=len(wrong) + 1)
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)
        self.assertEqual((self.device.calls, self.store.states), ([], []))

    @given(st.binary(max_size=BLOCK + 5))
    def test_any(self, data: bytes) -> None:
        """Whatever comes, it is done or refused."""
        task = self.command(SANITIZE_OVERWRITE, data, length=len(data))
        self.turns.all()
        self.assertEqual((task.endings, self.surprises, self.unit.closure), (1, [], None))
        if task.status != codes.GOOD:
            self.assertEqual(task.key, codes.ILLEGAL_REQUEST)

    def test_crypto(self) -> None:
        """There is no key to change: CRYPTOGRAPHIC ERASE is refused, and not told of."""
        self.assertInvalidField(run(self.unit, Task(b"\x48\x03", self.nexus)), 1, 4)
        data = self.good(cdb.REPORT_OPCODES, options=2, requested=0x48, requestedAction=3, allocation=64)
        self.assertEqual(data[1] & 7, 1)
        self.assertEqual(self.good(cdb.INQUIRY, flags=1, page=0xB1, allocation=64)[7] & 0x30, 0)

    def test_progress(self) -> None:
        """REQUEST SENSE and refused commands tell how far it is (SBC-4 4.11.2)."""
        task = self.overwrite()
        for number in (1, 2):
            progress = number * WHOLE // 3
            self.assertEqual(self.senseNow(), (codes.NOT_READY, "041b", progress))
            refused = self.command(cdb.TEST_UNIT_READY)
            self.assertSense(refused, codes.NOT_READY, codes.SANITIZE_IN_PROGRESS)
            self.assertEqual(refused.sense[15:18].hex(), f"80{progress:04x}")
            self.turns.turn()
        self.unit.descriptorSense = True
        self.assertEqual(self.command(cdb.READ_10, length=1).sense[8:13].hex(), "0206000080")
        self.turns.all()
        self.assertEqual(task.status, codes.GOOD)

    def test_immediate(self) -> None:
        """With IMMED the status comes when it is durably noted."""
        noted = self.store.waiting = Deferred()
        task = self.overwrite(action=IMMED | 1)
        self.assertIsNone(task.status)
        noted.callback(None)
        self.assertEqual((task.status, self.senseNow()[1]), (codes.GOOD, "041b"))
        self.turns.all()
        self.assertEqual((task.endings, self.senseNow()[:2]), (1, (codes.NO_SENSE, "0000")))
        self.assertEqual(bytes(self.device.content), b"x" * self.size)

    def test_others(self) -> None:
        """All commands but a few are refused meanwhile, another SANITIZE and START STOP UNIT among them."""
        self.overwrite()
        answered = set()
        for command in DiskUnit.table:
            task = self.command(command, bytes(BLOCK), length=1, allocation=64)
            if task.status == codes.GOOD:
                answered.add(command.name)
            elif command in (SANITIZE_OVERWRITE, SANITIZE_BLOCK_ERASE, SANITIZE_EXIT_FAILURE_MODE):
                pass
            elif command.condition is None or getattr(self.unit, command.condition):
                self.assertSense(task, codes.NOT_READY, codes.SANITIZE_IN_PROGRESS)
        self.assertEqual(answered, ALWAYS)
        self.assertSense(self.overwrite(), codes.NOT_READY, codes.SANITIZE_IN_PROGRESS)
        temperature = self.command(cdb.LOG_SENSE, page=0x4D, allocation=64)
        self.assertNotEqual(temperature.key if temperature.sense else 0, codes.NOT_READY)
        self.turns.all()
        self.assertEqual(bytes(self.device.content), b"x" * self.size)

    def test_lasts(self) -> None:
        """Neither an abort, nor a reset, nor the end of the session stops it (SBC-4 4.11.2)."""
        task = self.overwrite()
        abort(self.unit, task)
        self.assertEqual((task.released, task.endings), (1, 0))
        self.unit.reset(codes.DEVICE_RESET_OCCURRED)
        self.unit.nexusLost(self.nexus)
        self.turns.all()
        self.assertEqual((bytes(self.device.content), self.unit.closure), (b"x" * self.size, None))

    def test_protected(self) -> None:
        """Who may not write may not sanitize; nor may others beside a reservation."""
        task = self.overwrite(nexus=Nexus(readOnly=True))
        self.assertSense(task, codes.DATA_PROTECT, codes.WRITE_PROTECTED)
        other = Nexus()
        self.unit.nexusFound(other)
        self.unit.takeAttention(other)
        self.good(cdb.RESERVE_6)
        for command in (SANITIZE_OVERWRITE, SANITIZE_BLOCK_ERASE, SANITIZE_EXIT_FAILURE_MODE):
            self.assertEqual(self.command(command, nexus=other).status, codes.RESERVATION_CONFLICT)

    def test_retained(self) -> None:
        """A device that keeps what was overwritten has no SANITIZE (an overlay)."""
        unit = self.makeUnit(MemoryDisk(BLOCK * BLOCKS, THIN._replace(retains=True)))
        for command in (SANITIZE_OVERWRITE, SANITIZE_BLOCK_ERASE, SANITIZE_EXIT_FAILURE_MODE):
            self.assertInvalidField(self.command(command, unit=unit), 1, 4)


class BlockEraseTests(SanitizeCases):
    """SANITIZE (BLOCK ERASE), SBC-4 5.30.3."""

    def test_erased(self) -> None:
        """Storage is given back, and all blocks read as zeros; page B1h says that they can be read."""
        self.finish(SANITIZE_BLOCK_ERASE)
        self.assertEqual(bytes(self.device.content), bytes(self.size))
        self.assertEqual(self.device.calls, [("zero", 0, self.size, True), ("flush",)])
        self.assertEqual(self.good(cdb.INQUIRY, flags=1, page=0xB1, allocation=64)[7], 0x40)

    def test_refused(self) -> None:
        """Parameters are refused, and a device that cannot give storage back has it not."""
        self.assertInvalidField(self.command(SANITIZE_BLOCK_ERASE, bytes(8), length=8), 7)
        unit = self.makeUnit(MemoryDisk(BLOCK * BLOCKS))
        self.assertInvalidField(self.command(SANITIZE_BLOCK_ERASE, unit=unit), 1, 4)
        self.assertEqual(self.device.calls, [])


class CryptographicEraseTests(SanitizeCases):
    """SANITIZE (CRYPTOGRAPHIC ERASE), SBC-4 5.30.4."""

    def setUp(self) -> None:
        """An encrypted disk, which remembers what overhauls it."""
        super().setUp()
        self.device = MemoryDisk(self.size, THIN._replace(rekey=True))
        self.unit = self.remake()

    def test_erased(self) -> None:
        """What is cached goes to the medium first; then the key is forgotten, and that is durable."""
        self.finish(SANITIZE_CRYPTO_ERASE)
        self.assertEqual(self.device.calls, [("flush",), ("rekey",), ("flush",)])
        self.assertEqual([bool(state) for state in self.store.states], [True, False])
        self.assertEqual(self.good(cdb.INQUIRY, flags=1, page=0xB1, allocation=64)[7], 0x50)
        data = self.good(cdb.REPORT_OPCODES, options=2, requested=0x48, requestedAction=3, allocation=64)
        self.assertEqual(data[1] & 7, 3)

    def test_refused(self) -> None:
        """It has no parameters, and is for those who may write."""
        self.assertInvalidField(self.command(SANITIZE_CRYPTO_ERASE, bytes(8), length=8), 7)
        task = self.command(SANITIZE_CRYPTO_ERASE, nexus=Nexus(readOnly=True))
        self.assertSense(task, codes.DATA_PROTECT, codes.WRITE_PROTECTED)
        self.assertEqual(self.device.calls, [])

    def test_interrupted(self) -> None:
        """What a crash has cut short is done at the next start: there was a key, perhaps another one."""
        self.command(SANITIZE_CRYPTO_ERASE, action=IMMED | 3)
        unit = self.remake()
        unit.keepPlans(self.store)
        unit.opened()
        self.turns.all()
        self.assertIn(("rekey",), self.device.calls)
        self.assertEqual((unit.closure, self.store.states[-1]), (None, b""))

    def test_failed(self) -> None:
        """A key that cannot be changed is a sanitize that has failed; another one makes it good."""
        self.device.error = WriteError("no")
        task = self.command(SANITIZE_CRYPTO_ERASE)
        self.turns.all()
        self.assertSense(task, codes.MEDIUM_ERROR, codes.SANITIZE_FAILED)
        self.device.error = None
        self.assertSense(self.command(cdb.READ_10, length=1), codes.MEDIUM_ERROR, codes.SANITIZE_FAILED)
        self.finish(SANITIZE_CRYPTO_ERASE)
        self.good(cdb.READ_10, length=1)

    def test_alone(self) -> None:
        """It is the only kind over a device that keeps what was overwritten."""
        unit = self.makeUnit(MemoryDisk(BLOCK * BLOCKS, THIN._replace(retains=True, rekey=True)))
        for command in (SANITIZE_OVERWRITE, SANITIZE_BLOCK_ERASE):
            self.assertInvalidField(self.command(command, unit=unit), 1, 4)
        self.good(SANITIZE_EXIT_FAILURE_MODE, unit=unit)

    def test_untorn(self) -> None:
        """WRITE ATOMIC would keep data that are not encrypted, so there is none."""
        self.unit.keepWrites(MemoryStore())
        self.assertEqual(self.unit.atomicLimit, 0)


class FailureTests(SanitizeCases):
    """When it fails, SBC-4 4.11.4."""

    def fail(self, action: int = 1) -> Task:
        """An OVERWRITE fails in its second slice."""
        task = self.overwrite(action=action)
        self.device.error = WriteError(offset=SLICE)
        self.turns.all()
        self.device.error = None
        return task

    def test_told(self) -> None:
        """The command says so, and so do others until a sanitize succeeds, after a restart too."""
        self.assertSense(self.fail(), codes.MEDIUM_ERROR, codes.SANITIZE_FAILED)
        for again in (False, True):
            if again:
                self.unit = self.remake()
            self.assertSense(self.command(cdb.READ_10, length=1), codes.MEDIUM_ERROR, codes.SANITIZE_FAILED)
            self.assertEqual(self.senseNow(), (codes.MEDIUM_ERROR, "3103", -1))
        self.overwrite()
        self.turns.all()
        self.good(cdb.READ_10, length=1)
        self.assertEqual(self.store.load(), b"")

    def test_restricted(self) -> None:
        """Without AUSE there is no way out but another SANITIZE without AUSE."""
        self.fail()
        task = self.command(SANITIZE_EXIT_FAILURE_MODE)
        self.assertInvalidField(task, 1, 4)
        self.assertInvalidField(self.overwrite(action=AUSE | 1), 1, 5)
        self.assertSense(self.command(cdb.READ_10, length=1), codes.MEDIUM_ERROR, codes.SANITIZE_FAILED)

    def test_unrestricted(self) -> None:
        """With AUSE, EXIT FAILURE MODE gives the disk back as it is, for good."""
        self.fail(AUSE | 1)
        self.unit = self.remake()
        self.assertInvalidField(self.command(SANITIZE_EXIT_FAILURE_MODE, length=1), 7)
        self.good(SANITIZE_EXIT_FAILURE_MODE)
        self.good(cdb.READ_10, length=1)
        self.assertEqual(self.store.load(), b"")

    def test_unrestrictedKept(self) -> None:
        """The failure has ended when it is known that the next start goes on with nothing."""
        self.fail(AUSE | 1)
        waiting = self.store.waiting = Deferred()
        task = self.command(SANITIZE_EXIT_FAILURE_MODE)
        self.assertEqual((task.status, self.store.load()), (None, b""))
        self.assertEqual(self.senseNow()[:2], (codes.MEDIUM_ERROR, "3103"))
        waiting.errback(OSError(5, "broken"))
        self.assertEqual(task.status, codes.CHECK_CONDITION)
        self.assertEqual(self.senseNow()[:2], (codes.MEDIUM_ERROR, "3103"))
        self.good(SANITIZE_EXIT_FAILURE_MODE)
        self.good(cdb.READ_10, length=1)

    def test_selfTest(self) -> None:
        """It interrupts a self-test in the background."""
        self.good(SEND_DIAGNOSTIC, flags=0x40)
        self.overwrite(b"x", 1, IMMED | 1)
        self.assertEqual(self.senseNow()[:2], (codes.NOT_READY, "041b"))
        self.turns.all()
        self.assertEqual([each.result for each in self.unit.tests], [INTERRUPTED])

    def test_notNoted(self) -> None:
        """If it cannot be noted nothing is done, and the disk is as it was; one that had failed still has."""
        for failed in (False, True):
            waiting = self.store.waiting = Deferred()
            task = self.overwrite(action=IMMED | 1)
            self.assertEqual(self.senseNow()[:2], (codes.NOT_READY, "041b"))
            waiting.errback(DeviceError())
            self.assertSense(task, codes.HARDWARE_ERROR, codes.INTERNAL_TARGET_FAILURE)
            self.assertEqual(set(self.device.calls), {("write", 0, SLICE)} if failed else set())
            if failed:
                self.assertEqual(self.senseNow()[:2], (codes.MEDIUM_ERROR, "3103"))
                self.assertTrue(Plan.decode(self.store.load()).failed)
            else:
                self.assertEqual((self.good(cdb.READ_10, length=1), self.store.load()), (b"s" * BLOCK, b""))
                self.device.calls.clear()
                self.fail()
                self.device.calls[1:] = []

    def test_notForgotten(self) -> None:
        """If that cannot even be taken back it has failed: else it would begin at the next start."""
        waiting = self.store.waiting = Deferred()
        task = self.overwrite(action=IMMED | 1)
        self.store.waiting = again = Deferred()
        waiting.errback(DeviceError())
        self.assertEqual(self.senseNow()[:2], (codes.NOT_READY, "041b"))
        again.errback(DeviceError())
        self.assertEqual(task.status, codes.CHECK_CONDITION)
        self.assertEqual(self.senseNow()[:2], (codes.MEDIUM_ERROR, "3103"))

    def test_noFailure(self) -> None:
        """Where nothing has failed EXIT FAILURE MODE changes nothing."""
        self.good(SANITIZE_EXIT_FAILURE_MODE)
        self.assertEqual(self.store.states, [])


class BesideTests(SanitizeCases):
    """What was under way when it began."""

    def test_before(self) -> None:
        """It begins when what came before has ended; a WRITE whose data come later is written after it."""
        slow = PendingDisk(BLOCK * BLOCKS, Capabilities())
        self.unit = unit = self.makeUnit(slow)
        unit.unfinished = None
        reading = self.command(cdb.READ_10, length=1)
        writing = self.command(cdb.WRITE_10, b"w" * BLOCK, length=1, late=True)
        task = self.overwrite()
        self.assertEqual([call[0] for call in slow.calls], ["read"])
        writing.arrive(unit)
        slow.fire()
        self.assertEqual((reading.status, [call[0] for call in slow.calls]), (codes.GOOD, ["read", "write"]))
        slow.fire()
        self.assertEqual((task.status, writing.status), (codes.GOOD, None))
        slow.fire()
        self.assertEqual(writing.status, codes.GOOD)
        self.assertEqual(bytes(slow.content), b"w" * BLOCK + b"x" * (BLOCKS - 1) * BLOCK)

    def test_format(self) -> None:
        """No FORMAT UNIT begins meanwhile."""
        self.overwrite()
        self.assertSense(self.command(FORMAT_UNIT), codes.NOT_READY, codes.SANITIZE_IN_PROGRESS)
