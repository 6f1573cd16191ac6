"""Tests for L{iscsi_twisted.scsi.inventory}."""

from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.inventory import AbsentUnit, furnish
from iscsi_twisted.scsi.lun import REPORT_LUNS_UNIT
from iscsi_twisted.scsi.luns import Inventory
from tests.scsi.cases import IDENTITY, DiskTests
from tests.support.tasks import Nexus, Task, run


class ReportLUNsTests(DiskTests):
    """REPORT LUNS, SPC-4 6.33."""

    def setUp(self) -> None:
        """A target with three units."""
        super().setUp()
        self.others = [self.makeUnit(self.device) for _ in range(2)]
        self.unit.inventory = Inventory(dict(zip((300, 0, 5), (self.unit, *self.others), strict=True)))

    def test_all(self) -> None:
        """All LUNs that this nexus may see are listed, ascending."""
        for select in (0, 2):
            self.assertEqual(
                self.good(cdb.REPORT_LUNS, select=select, allocation=4096).hex(),
                "0000001800000000" + "0000000000000000" + "0005000000000000" + "412c000000000000",
            )
        masked = Nexus()
        masked.luns = frozenset((5, 7))
        self.assertEqual(
            self.good(cdb.REPORT_LUNS, nexus=masked, allocation=4096).hex(),
            "00000008000000000005000000000000",
        )

    def test_wellKnown(self) -> None:
        """The well known unit is in the lists that it belongs to, for everybody."""
        masked = Nexus()
        masked.luns = frozenset((5,))
        absent, wellKnown = furnish(self.unit.inventory.units, (), IDENTITY, self.surprise)
        for unit in (self.unit, absent, *wellKnown.values()):
            unit.nexusFound(masked)
            unit.takeAttention(masked)
            for select, luns in ((0, "0005"), (1, "c101"), (2, "0005 c101"), (0x11, "0005")):
                data = self.good(cdb.REPORT_LUNS, unit=unit, nexus=masked, select=select, allocation=4096)
                self.assertEqual(
                    [data[place : place + 2].hex() for place in range(8, len(data), 8)], luns.split()
                )

    def test_conglomerates(self) -> None:
        """There are no administrative logical units; what belongs to no conglomerate is all."""
        for select in (0x10, 0x12):
            self.assertEqual(self.good(cdb.REPORT_LUNS, select=select, allocation=4096), bytes(8))
        self.assertEqual(
            self.good(cdb.REPORT_LUNS, select=0x11, allocation=4096),
            self.good(cdb.REPORT_LUNS, select=0, allocation=4096),
        )

    def test_numbers(self) -> None:
        """Each number is told in the shortest addressing method that can say it."""
        units = dict.fromkeys((0, 255, 256, 16383, 16384, (1 << 24) - 1), self.unit)
        self.unit.inventory = Inventory(units)
        data = self.good(cdb.REPORT_LUNS, allocation=4096)
        self.assertEqual(
            [data[place : place + 8].hex() for place in range(8, len(data), 8)],
            [
                "0000000000000000", "00ff000000000000", "4100000000000000",
                "7fff000000000000", "d200400000000000", "d2ffffff00000000",
            ],
        )  # fmt: skip

    def test_truncated(self) -> None:
        """A short allocation length does not change the list's length."""
        data = self.good(cdb.REPORT_LUNS, allocation=16)
        self.assertEqual((len(data), data[3]), (16, 0x18))

    def test_refused(self) -> None:
        """Another SELECT REPORT, and less than 16 bytes, are refused."""
        for select in (3, 0x0F, 0x13, 0xFF):
            self.assertInvalidField(self.command(cdb.REPORT_LUNS, select=select, allocation=4096), 2, 7)
        self.assertInvalidField(self.command(cdb.REPORT_LUNS, allocation=15), 6, 7)

    def test_attention(self) -> None:
        """The list clears the news that it has changed, of all units, and no other news (SAM-5 5.14)."""
        for unit in (self.unit, *self.others):
            unit.attention(codes.LUNS_CHANGED)
        self.unit.attention(codes.CAPACITY_CHANGED)
        self.good(cdb.REPORT_LUNS, allocation=4096)
        self.good(cdb.TEST_UNIT_READY, unit=self.others[0])
        self.assertSense(self.command(cdb.TEST_UNIT_READY), codes.UNIT_ATTENTION, codes.CAPACITY_CHANGED)
        self.good(cdb.TEST_UNIT_READY)


class AbsentUnitTests(DiskTests):
    """What answers for LUNs behind which there is nothing, SAM-5 4.8.3."""

    def setUp(self) -> None:
        """Such a unit."""
        super().setUp()
        self.absent = AbsentUnit(IDENTITY, self.surprise)
        self.absent.inventory = Inventory({1: self.unit})
        self.absent.nexusFound(self.nexus)
        self.absent.attention(codes.LUNS_CHANGED)

    def test_inquiry(self) -> None:
        """INQUIRY says that there is no device (SPC-4 6.6.2)."""
        data = self.good(cdb.INQUIRY, unit=self.absent, allocation=255)
        self.assertEqual((data[0], len(data)), (0x7F, 96))

    def test_pages(self) -> None:
        """There is one VPD page, and it says so."""
        data = self.good(cdb.INQUIRY, unit=self.absent, flags=1, allocation=255)
        self.assertEqual(data.hex(), "7f00000100")
        self.assertInvalidField(
            self.command(cdb.INQUIRY, unit=self.absent, flags=1, page=0x83, allocation=255), 2, 7
        )

    def test_reportLUNs(self) -> None:
        """REPORT LUNS works at any LUN."""
        data = self.good(cdb.REPORT_LUNS, unit=self.absent, allocation=255)
        self.assertEqual(data.hex(), "00000008000000000001000000000000")

    def test_requestSense(self) -> None:
        """REQUEST SENSE gives the refusal as data, with GOOD status (SPC-4 6.39)."""
        data = self.good(cdb.REQUEST_SENSE, unit=self.absent, allocation=252)
        self.assertEqual((data[2], data[12:14].hex()), (5, "2500"))
        data = self.good(cdb.REQUEST_SENSE, unit=self.absent, flags=1, allocation=252)
        self.assertEqual(data.hex(), "7205250000000000")

    def test_others(self) -> None:
        """Every other command is refused for its LUN, even one that nobody knows."""
        for opcode in set(range(256)) - {0x03, 0x12, 0xA0}:
            task = run(self.absent, Task(bytes([opcode]), self.nexus))
            self.assertSense(task, codes.ILLEGAL_REQUEST, codes.LUN_NOT_SUPPORTED)


class WellKnownUnitTests(DiskTests):
    """The REPORT LUNS well known logical unit, SPC-4 8.2."""

    def setUp(self) -> None:
        """Such a unit, which a nexus has found."""
        super().setUp()
        _, wellKnown = furnish({0: self.unit}, (), IDENTITY, self.surprise)
        self.wellKnown = wellKnown[REPORT_LUNS_UNIT]
        self.wellKnown.nexusFound(self.nexus)

    def test_inquiry(self) -> None:
        """INQUIRY says what it is; its names are those of the target and the port alone (SPC-4 7.8.6.2)."""
        data = self.good(cdb.INQUIRY, unit=self.wellKnown, allocation=255)
        self.assertEqual((data[0], len(data), data[58:66].hex()), (0x1E, 96, "00a0096004600000"))
        data = self.good(cdb.INQUIRY, unit=self.wellKnown, flags=1, allocation=255)
        self.assertEqual(data.hex(), "1e0000020083")
        data = self.good(cdb.INQUIRY, unit=self.wellKnown, flags=1, page=0x83, allocation=255)
        self.assertEqual((data[0], data[5] >> 4 & 3), (0x1E, 1))
        self.assertIn(self.nexus.targetName.encode(), data)
        self.assertNotIn(IDENTITY.naa, data)

    def test_attention(self) -> None:
        """It has unit attentions of its own."""
        task = self.command(cdb.TEST_UNIT_READY, unit=self.wellKnown)
        self.assertSense(task, codes.UNIT_ATTENTION, codes.POWER_ON)
        self.good(cdb.TEST_UNIT_READY, unit=self.wellKnown)
        self.assertEqual(self.good(cdb.REQUEST_SENSE, unit=self.wellKnown, allocation=18)[2], 0)
        self.wellKnown.attention(codes.LUNS_CHANGED)
        self.good(cdb.REPORT_LUNS, allocation=16)
        self.good(cdb.TEST_UNIT_READY, unit=self.wellKnown)

    def test_commands(self) -> None:
        """It knows what it has to and tells what that is; there is nothing to read."""
        self.wellKnown.takeAttention(self.nexus)
        data = self.good(cdb.REPORT_OPCODES, unit=self.wellKnown, allocation=4096)
        self.assertEqual({data[place] for place in range(4, len(data), 8)}, {0x00, 0x03, 0x12, 0xA0, 0xA3})
        task = self.command(cdb.READ_10, unit=self.wellKnown, length=1)
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.INVALID_OPCODE)
