"""Tests for L{iscsi_twisted.scsi.reservation}."""

from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.paths import Paths
from tests.scsi.cases import BLOCK, DiskTests
from tests.support.tasks import Nexus, Task, run

RESERVES = (cdb.RESERVE_6, cdb.RESERVE_10)
RELEASES = (cdb.RELEASE_6, cdb.RELEASE_10)

ALLOWED = {
    "INQUIRY",
    "LOG SENSE",
    "PREVENT ALLOW MEDIUM REMOVAL",
    "READ CAPACITY (10)",
    "READ CAPACITY (16)",
    "RELEASE (10)",
    "RELEASE (6)",
    "REPORT IDENTIFYING INFORMATION",
    "REPORT TIMESTAMP",
    "REPORT LUNS",
    "REPORT SUPPORTED OPERATION CODES",
    "REPORT TARGET PORT GROUPS",
    "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
    "REQUEST SENSE",
}
"""What SPC-2 table 8 and SBC-2 table 7 allow to those who have not reserved the unit."""


class ReservationTests(DiskTests):
    """RESERVE and RELEASE, SPC-2 7.16 to 7.22."""

    def setUp(self) -> None:
        """A second nexus."""
        super().setUp()
        self.other = Nexus()
        self.unit.nexusFound(self.other)
        self.unit.takeAttention(self.other)

    def conflicts(self, nexus: Nexus) -> bool:
        """Whether a nexus meets a reservation."""
        task = self.command(cdb.TEST_UNIT_READY, nexus=nexus)
        self.assertIn(task.status, (codes.GOOD, codes.RESERVATION_CONFLICT))
        self.assertEqual(task.sense, b"")
        return task.status == codes.RESERVATION_CONFLICT

    def test_exclusive(self) -> None:
        """A reservation keeps all other nexuses out, until it is released."""
        for reserve, release in zip(RESERVES, RELEASES, strict=True):
            self.good(reserve)
            self.assertEqual((self.conflicts(self.nexus), self.conflicts(self.other)), (False, True))
            self.assertEqual(self.command(reserve, nexus=self.other).status, codes.RESERVATION_CONFLICT)
            self.good(release)
            self.assertFalse(self.conflicts(self.other))

    def test_again(self) -> None:
        """Whoever has reserved the unit may do so again (SPC-2 7.20)."""
        self.good(cdb.RESERVE_6)
        self.good(cdb.RESERVE_10)
        self.assertTrue(self.conflicts(self.other))

    def test_foreignRelease(self) -> None:
        """RELEASE of who has not reserved the unit is GOOD and changes nothing (SPC-2 7.16)."""
        self.good(cdb.RESERVE_6)
        for release in RELEASES:
            self.good(release, nexus=self.other)
        self.assertTrue(self.conflicts(self.other))

    def test_ends(self) -> None:
        """A reservation ends with its nexus, and with a reset; not with another nexus (SPC-2 5.5.1)."""
        self.good(cdb.RESERVE_6)
        self.unit.nexusLost(Nexus())
        self.assertTrue(self.conflicts(self.other))
        self.unit.nexusLost(self.nexus)
        self.assertFalse(self.conflicts(self.other))
        self.good(cdb.RESERVE_6)
        self.unit.reset(codes.DEVICE_RESET_OCCURRED)
        self.unit.takeAttention(self.other)
        self.assertFalse(self.conflicts(self.other))

    def test_allowed(self) -> None:
        """The commands of the standards' tables are allowed to others, and no others are."""
        self.unit.paths = Paths((1, 2))
        self.good(cdb.RESERVE_6)
        allowed = set()
        for command in DiskUnit.table:
            task = self.command(command, bytes(BLOCK), nexus=self.other, length=1, allocation=255)
            if task.status != codes.RESERVATION_CONFLICT:
                self.assertEqual(task.status, codes.GOOD, command.name)
                allowed.add(command.name)
            else:
                self.assertEqual((task.sense, task.wanted), (b"", None))
        self.assertEqual(allowed, ALLOWED)
        self.assertEqual(self.device.calls, [])

    def test_partly(self) -> None:
        """Starting, and allowing removal, are allowed to others; stopping and preventing are not."""
        self.good(cdb.RESERVE_6)
        for options, status in ((0x01, 0), (0x00, 0x18), (0x11, 0x18), (0x03, 0x05)):
            task = self.command(cdb.START_STOP_UNIT, nexus=self.other, options=options)
            self.assertEqual(task.status if not task.sense else task.key, status, options)
        self.good(cdb.PREVENT_ALLOW, nexus=self.other, options=0)
        task = self.command(cdb.PREVENT_ALLOW, nexus=self.other, options=1)
        self.assertEqual((task.status, self.unit.prevents), (codes.RESERVATION_CONFLICT, set()))

    def test_unknown(self) -> None:
        """A command that there is not is refused as such."""
        self.good(cdb.RESERVE_6)
        task = run(self.unit, Task(b"\x5c", self.other))
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.INVALID_OPCODE)

    def test_precedence(self) -> None:
        """News of a reset come before the conflict, other news after it (SAM-5 5.3.3)."""
        self.good(cdb.RESERVE_6)
        self.unit.attention(codes.NEXUS_LOSS_OCCURRED, self.other)
        self.unit.attention(codes.CAPACITY_CHANGED, self.other)
        task = self.command(cdb.TEST_UNIT_READY, nexus=self.other)
        self.assertSense(task, codes.UNIT_ATTENTION, codes.NEXUS_LOSS_OCCURRED)
        self.assertTrue(self.conflicts(self.other))
        self.good(cdb.RELEASE_6)
        task = self.command(cdb.TEST_UNIT_READY, nexus=self.other)
        self.assertSense(task, codes.UNIT_ATTENTION, codes.CAPACITY_CHANGED)

    def test_beforeNotReady(self) -> None:
        """A conflict comes before NOT READY (SAM-5 5.3.3)."""
        self.good(cdb.RESERVE_6)
        self.unit.closed()
        self.assertTrue(self.conflicts(self.other))

    def test_thirdParty(self) -> None:
        """Reservations for a third party, and of extents, are refused."""
        for command in RESERVES + RELEASES:
            for flag, bit in ((0x10, 4), (0x01, 0)):
                self.assertInvalidField(self.command(command, flags=flag), 1, bit)
        for command in (cdb.RESERVE_10, cdb.RELEASE_10):
            self.assertInvalidField(self.command(command, flags=0x02), 1, 1)
        self.assertIsNone(self.unit.holder)
