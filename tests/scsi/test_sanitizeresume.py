"""How L{iscsi_twisted.scsi.sanitize} goes on after a stop or a crash."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from iscsi_twisted.errors import DeviceError, LocalError, WriteError
from iscsi_twisted.interfaces import Capabilities
from iscsi_twisted.scsi import cdb, codes, overhaul
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.overhaul import Plan
from iscsi_twisted.scsi.provisioning import SLICE
from tests.scsi.cases import BLOCK
from tests.scsi.devices import THIN
from tests.scsi.test_origin import Known
from tests.scsi.test_sanitize import IMMED, SanitizeCases


class ResumeTests(SanitizeCases):
    """A sanitize goes on after the process has ended, however it did."""

    def test_killed(self) -> None:
        """What was noted is taken up again at the start, and nobody can use the disk before it is done."""
        self.overwrite(b"abc", 2, IMMED | 1)
        self.turns.turn()
        self.turns.waiting.clear()
        self.unit = self.remake()
        self.assertSense(self.command(cdb.READ_10, length=1), codes.NOT_READY, codes.SANITIZE_IN_PROGRESS)
        self.turns.all()
        block = (b"abc" * BLOCK)[:BLOCK]
        self.assertEqual(bytes(self.device.content), block * (self.size // BLOCK))
        self.assertEqual(self.store.load(), b"")

    def test_stopped(self) -> None:
        """One that was going on when the service stopped is not failed."""
        self.overwrite(action=IMMED | 1)
        self.unit.closed()
        self.turns.all()
        self.assertEqual(Plan.decode(self.store.load()).failed, False)
        self.unit = self.remake()
        self.turns.all()
        self.assertEqual(bytes(self.device.content), b"x" * self.size)

    def test_checkpoints(self) -> None:
        """How far it is, is noted now and then, after a flush, and what is done is not done again."""
        self.patch(overhaul, "CHECKPOINT", SLICE)
        self.overwrite(b"x", 1, IMMED | 1)
        self.turns.turn()
        self.assertEqual([call[0] for call in self.device.calls], ["write", "flush", "write"])
        self.turns.waiting.clear()
        self.device.calls.clear()
        self.unit = self.remake()
        self.turns.all()
        self.assertEqual(self.device.calls[0], ("write", SLICE, SLICE))
        self.assertEqual(bytes(self.device.content), b"x" * self.size)

    def test_resumedUnnoted(self) -> None:
        """One that goes on, and cannot be noted anew, has begun: if it fails it has failed."""
        for size in (self.size, 7):
            plan = Plan("sanitize", "write", b"x", size=size)
            self.store.states.append(plan.encode())
            self.store.waiting = waiting = Deferred()
            self.unit = self.remake()
            self.assertEqual(self.store.waiting is None, size == 7)
            self.device.error = WriteError(offset=0)
            waiting.errback(DeviceError())
            self.turns.all()
            self.device.error = None
            self.assertEqual(self.senseNow()[:2], (codes.MEDIUM_ERROR, "3103"))

    def test_otherSize(self) -> None:
        """On a medium of another size it begins anew."""
        self.store.states.append(Plan("sanitize", "erase", size=7, done=7).encode())
        self.unit = self.remake()
        self.turns.all()
        self.assertEqual(bytes(self.device.content), bytes(self.size))

    def test_otherMedium(self) -> None:
        """Nothing is done to another medium that is there in its place; nor is that served."""
        device = self.device = Known(self.size, THIN)
        device.content[:] = b"s" * self.size
        self.unit = self.remake()
        self.overwrite(action=IMMED | 1)
        self.turns.waiting.clear()
        device.name = "inode 8 bytes 0 to 512"
        device.content[:] = b"s" * self.size
        error = self.assertRaises(LocalError, self.remake)
        self.assertIn("another file or disk (inode 7 bytes 0)", str(error))
        self.turns.all()
        self.assertEqual(bytes(device.content), b"s" * self.size)
        device.name = "inode 7 bytes 0 to 1024"
        self.unit = self.remake()
        self.turns.all()
        self.assertEqual(bytes(device.content), b"x" * self.size)

    def test_replaced(self) -> None:
        """If another medium comes after a failure, that lasts, also over a restart."""
        self.overwrite()
        self.device.error = WriteError(offset=SLICE)
        self.turns.all()
        self.device = Known(self.size, THIN)
        other = DiskUnit(self.device, identity=self.unit.identity, report=self.surprise)
        other.opened()
        self.unit.become(other, replaced=True)
        self.unit = self.remake()
        self.assertEqual(self.senseNow()[:2], (codes.MEDIUM_ERROR, "3103"))

    def test_readOnly(self) -> None:
        """Where it cannot go on, as the disk is read-only now, it has failed."""
        self.store.states.append(Plan("sanitize", "erase").encode())
        self.device._capabilities = Capabilities(readOnly=True)
        self.unit = self.remake()
        self.assertEqual(self.senseNow()[:2], (codes.MEDIUM_ERROR, "3103"))

    def test_damaged(self) -> None:
        """What is no plan is refused at the start."""
        for state in (b"x", b"[]", b"{}", b'{"pattern": "0g"}', Plan("sanitize", "erase").encode()[:-2]):
            self.store.states.append(state)
            self.assertRaises(ValueError, self.remake)
        good = Plan("sanitize", "write", b"ab", 3, True, True, 9, 4, True)
        self.assertEqual(Plan.decode(good.encode()), good)
        for old, new in (
            (b'"sanitize"', b'"other"'),
            (b'"passes": 3', b'"passes": 0'),
            (b'"done": 4', b'"done": -1'),
        ):
            self.assertRaises(ValueError, Plan.decode, good.encode().replace(old, new))
