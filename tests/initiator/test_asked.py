"""What a unit may still lose, and answers that are no errors of the command."""

from __future__ import annotations

from typing import Any

from iscsi_twisted.errors import CheckCondition, WriteError
from iscsi_twisted.initiator import LUN, RemoteExtent
from iscsi_twisted.initiator.asked import Flushed, Reading
from iscsi_twisted.interfaces import Capabilities
from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.client import RecoveredError
from iscsi_twisted.storage import MemoryDevice, Mirror
from iscsi_twisted.storage.legs import IN_SYNC
from tests.support.devices import FakeDevice
from tests.support.initiator import SIZE, InitiatorTests
from tests.support.wire import TARGET

URL = f"iscsi://10.4.0.9/{TARGET}/0"
RECOVERED = bytes((0x70, 0, 1, *bytes(15)))
LATE = CheckCondition(codes.MEDIUM_ERROR, codes.WRITE_FAULT)


class VolatileTestCase(InitiatorTests):
    """A unit with a volatile cache."""

    def makeDevice(self) -> FakeDevice:
        """It has to be flushed."""
        return FakeDevice(SIZE, capabilities=Capabilities(volatileCache=True), synchronous=True)

    def restart(self, code: int = codes.POWER_ON) -> None:
        """As the unit tells after that."""
        self.target.units[0].attention(code)


class LossTests(VolatileTestCase):
    """What was acknowledged and not flushed is not taken for durable when the unit was started anew."""

    def test_lost(self) -> None:
        """The next flush fails, and says why; the one after it is as good as any."""
        for code in (codes.POWER_ON, codes.POWER_ON_OCCURRED, codes.DEVICE_INTERNAL_RESET):
            lun = self.lun()
            self.now(lun.write(0, b"x" * 512))
            self.restart(code)
            self.now(lun.read(0, 512))
            error = self.fails(WriteError, lun.flush())
            self.assertEqual(
                str(error),
                f"LUN 0 of {TARGET} was started anew: what was written before, and not flushed, may be lost",
            )
            self.assertEqual(lun.restarts, 1)
            self.now(lun.flush())
            self.now(lun.write(0, b"x" * 512))
            self.now(lun.flush())

    def test_byFlush(self) -> None:
        """So it is if it is the flush that is told of it; and all flushes fail that were under way."""
        lun = self.lun()
        self.now(lun.zero(0, 512))
        self.restart()
        one, other = lun.flush(), lun.flush()
        self.fails(WriteError, one)
        self.fails(WriteError, other)
        self.now(lun.flush())

    def test_nothing(self) -> None:
        """Nothing is lost that was flushed, or written through; by a reset, or a session that ended."""
        lun = self.lun()
        self.now(lun.write(0, b"x" * 512))
        self.now(lun.flush())
        self.now(lun.write(0, b"x" * 512, fua=True))
        self.restart()
        self.now(lun.flush())
        for code in (codes.DEVICE_RESET_OCCURRED, codes.NEXUS_LOSS_OCCURRED, codes.LUNS_CHANGED):
            self.now(lun.write(0, b"x" * 512))
            self.restart(code)
            self.now(lun.flush())
        self.assertEqual(lun.restarts, 1)

    def test_later(self) -> None:
        """What is written while a flush is under way is not covered by it."""
        lun = self.lun()
        self.now(lun.write(0, b"x" * 512))
        self.device.synchronous = False
        flushing = lun.flush()
        self.turn()
        self.device.synchronous = True
        self.now(lun.write(512, b"y" * 512))
        self.device.operations[0].fire()
        self.now(flushing)
        self.restart()
        self.fails(WriteError, lun.flush())

    def test_connection(self) -> None:
        """A connection that is lost alone makes nobody doubt, as this target tells."""
        lun = LUN(self.session(lasting=True))
        self.now(lun.open())
        self.now(lun.write(0, b"x" * 512))
        self.endpoint.transports[-1].abortConnection()
        self.clock.advance(1)
        told: list[int] = []
        lun.attention = lambda condition: told.append(condition.code)
        self.now(lun.flush())
        self.assertEqual(told, [codes.NEXUS_LOSS_OCCURRED])

    def test_close(self) -> None:
        """Closing makes all durable, also what the unit has lost."""
        extent = RemoteExtent(self.initiator, URL, endpoint=self.endpoint)
        self.now(extent.open(lambda: None))
        self.now(extent.write(0, b"x" * 512))
        self.device.perform("write", 0, bytes(512))
        self.restart()
        self.now(extent.close())
        self.assertEqual(self.target.sessions, {})
        self.assertEqual(bytes(self.device.perform("read", 0, 512)), b"x" * 512)


class DurableTests(InitiatorTests):
    """A unit whose writes are durable."""

    def makeDevice(self) -> FakeDevice:
        """It has no volatile cache."""
        return FakeDevice(SIZE, capabilities=Capabilities(volatileCache=False), synchronous=True)

    def test_nothing(self) -> None:
        """It has lost nothing when it was started anew."""
        lun = self.lun()
        self.assertFalse(lun.capabilities().volatileCache)
        self.now(lun.write(0, b"x" * 512))
        self.target.units[0].attention(codes.POWER_ON)
        self.now(lun.flush())
        self.assertEqual(lun.restarts, 1)


class BelatedTests(VolatileTestCase):
    """Errors of commands that were answered before (SPC-4 4.5.7)."""

    def test_belated(self) -> None:
        """They are not those of the command that they come with, which is sent again; the flush fails."""
        lun = self.lun()
        unit: Any = self.target.units[0]
        (nexus,) = unit._attentions.known
        unit.belate(nexus, LATE)
        self.assertEqual(bytes(self.now(lun.read(0, 512))), bytes(512))
        error = self.fails(WriteError, lun.flush())
        self.assertIn("has failed belatedly", str(error))
        self.assertEqual(error.__cause__.code, LATE.code)
        self.now(lun.flush())

    def test_recovered(self) -> None:
        """One that was recovered has lost nothing."""
        lun = self.lun()
        unit: Any = self.target.units[0]
        (nexus,) = unit._attentions.known
        unit.belate(nexus, CheckCondition(1, 0))
        self.now(lun.flush())

    def test_present(self) -> None:
        """A command of which something was recovered has succeeded (SPC-4 table 52)."""
        reading = Reading(bytes(8), bytes(10), 512)
        reading.dataIn(0, 0, b"r" * 512)
        self.assertEqual(bytes(reading.convert(2, RECOVERED, 0)), b"r" * 512)
        writing = Flushed(bytes(8), bytes(10))
        self.assertIsNone(writing.convert(2, RECOVERED, 0))
        self.assertRaises(RecoveredError, writing.convert, 2, b"\x71" + RECOVERED[1:], 0)


class MirrorTests(VolatileTestCase):
    """Members of mirrors."""

    def mirror(self, *others: Any) -> Mirror:
        """One with the unit."""
        remote = RemoteExtent(self.initiator, URL, endpoint=self.endpoint)
        mirror = Mirror([remote, *others], reactor=self.clock)
        self.now(mirror.open(lambda: None))
        self.clock.pump([1] * 20)
        self.turn()
        return mirror

    def test_other(self) -> None:
        """What another member has is written again: nobody is told, and no member is left out."""
        mirror = self.mirror(MemoryDevice(SIZE))
        self.now(mirror.write(0, b"x" * 4096))
        # The unit has lost it.
        self.device.perform("write", 0, bytes(4096))
        self.restart()
        self.now(mirror.flush())
        self.assertNotIn("failed", [leg.state for leg in mirror.legs])
        self.clock.pump([1] * 30)
        self.turn()
        self.assertEqual([leg.state for leg in mirror.legs], [IN_SYNC, IN_SYNC])
        self.assertEqual(bytes(self.device.perform("read", 0, 4096)), b"x" * 4096)

    def test_direct(self) -> None:
        """So it is with a unit that is a member itself."""
        lun = LUN(self.session())
        mirror = Mirror([lun, MemoryDevice(SIZE)], reactor=self.clock)
        self.now(mirror.open(lambda: None))  # type: ignore[arg-type]
        self.clock.pump([1] * 20)
        self.turn()
        self.now(mirror.write(0, b"x" * 4096))
        self.device.perform("write", 0, bytes(4096))
        self.restart()
        self.now(mirror.flush())
        self.clock.pump([1] * 30)
        self.turn()
        self.assertEqual(bytes(self.device.perform("read", 0, 4096)), b"x" * 4096)

    def test_last(self) -> None:
        """What no other member has, the extent itself has."""
        other = FakeDevice(SIZE, synchronous=True)
        mirror = self.mirror(other)
        other.error = WriteError("broken")
        self.now(mirror.write(0, b"x" * 4096))
        self.device.perform("write", 0, bytes(4096))
        self.restart()
        self.now(mirror.flush())
        self.assertEqual(bytes(self.device.perform("read", 0, 4096)), b"x" * 4096)
