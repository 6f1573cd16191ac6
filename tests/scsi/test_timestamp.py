"""Tests for L{iscsi_twisted.scsi.timestamp}."""

from __future__ import annotations

from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.cdbprimary import REPORT_TIMESTAMP, SET_TIMESTAMP
from tests.scsi.cases import DiskTests
from tests.support.tasks import Nexus, Task


class TimestampTests(DiskTests):
    """REPORT and SET TIMESTAMP, SPC-4 5.2, 6.37 and 6.45."""

    def setUp(self) -> None:
        """A unit with a calendar."""
        super().setUp()
        self.now = 1_000_000_000.25
        self.unit = self.makeUnit(self.device, calendar=lambda: self.now)
        self.other = Nexus()
        self.unit.nexusFound(self.other)
        self.unit.takeAttention(self.other)

    def set(self, milliseconds: int) -> Task:
        """Set another time."""
        data = bytes(4) + milliseconds.to_bytes(6, "big") + bytes(2)
        return self.command(SET_TIMESTAMP, data, length=len(data))

    def report(self) -> tuple[int, int]:
        """Origin and time."""
        data = self.good(REPORT_TIMESTAMP, allocation=255)
        self.assertEqual((len(data), data[:2].hex(), data[3], data[10:]), (12, "000a", 0, b"\0\0"))
        return data[2], int.from_bytes(data[4:10], "big")

    def test_machine(self) -> None:
        """The time is that of the machine at first, and its origin says so (SPC-4 table 44)."""
        self.assertEqual(self.report(), (3, 1_000_000_000_250))
        self.now += 1
        self.assertEqual(self.report(), (3, 1_000_000_001_250))

    def test_set(self) -> None:
        """What is set goes on from there, whatever is reset (SPC-4 5.2)."""
        self.assertEqual(self.set(86_400_000).status, codes.GOOD)
        self.now += 2.5
        self.assertEqual(self.report(), (2, 86_402_500))
        self.unit.reset(codes.DEVICE_RESET_OCCURRED)
        self.unit.takeAttention(self.nexus)
        self.assertEqual(self.report(), (2, 86_402_500))

    def test_wraps(self) -> None:
        """The greatest time that can be told is followed by zero."""
        self.set((1 << 48) - 1)
        self.now += 1
        self.assertLess(self.report()[1], 2000)

    def test_attention(self) -> None:
        """The others are told (SPC-4 6.45)."""
        self.set(1)
        self.report()
        task = self.command(REPORT_TIMESTAMP, nexus=self.other)
        self.assertSense(task, codes.UNIT_ATTENTION, codes.TIMESTAMP_CHANGED)

    def test_short(self) -> None:
        """Lists that are too short are refused; none at all sets nothing."""
        self.assertEqual(self.command(SET_TIMESTAMP).status, codes.GOOD)
        task = self.command(SET_TIMESTAMP, bytes(11), length=11)
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR, (True, 6, None))
        task = self.command(SET_TIMESTAMP, bytes(11), length=12)
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)
        self.assertEqual(self.report()[0], 3)
