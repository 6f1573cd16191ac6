"""Tests for L{iscsi_twisted.scsi.vpd}."""

import struct
from typing import Any

import attrs

from iscsi_twisted.errors import LocalError
from iscsi_twisted.interfaces import Capabilities, TargetPort
from iscsi_twisted.scsi import cdb
from iscsi_twisted.scsi.luns import Inventory
from iscsi_twisted.scsi.paths import Paths
from iscsi_twisted.scsi.vpd import nameString
from tests.scsi.cases import BLOCK, BLOCKS, IDENTITY, DiskTests
from tests.scsi.devices import THIN, MemoryDisk
from tests.support.tasks import Nexus


class PageTests(DiskTests):
    """Vital product data, SPC-4 7.8 and SBC-3 6.6."""

    def page(self, code: int, **options: Any) -> bytes:
        """A page without its head, which is checked."""
        data = self.good(cdb.INQUIRY, flags=1, page=code, allocation=0xFFFF, **options)
        peripheral, page, length = struct.unpack_from(">BBH", data)
        self.assertEqual((peripheral, page, length), (0, code, len(data) - 4))
        return data[4:]

    def other(self, capabilities: Capabilities, **options: Any) -> Any:
        """A disk that can do something else."""
        return self.makeUnit(MemoryDisk(BLOCKS * BLOCK, capabilities), **options)

    def test_supported(self) -> None:
        """Page 00h lists the pages, ascending, and each of them is there (SPC-4 7.8.15)."""
        pages = self.page(0x00)
        self.assertEqual(pages.hex(), "00808386888fb0b1b2")
        for code in pages:
            self.page(code)

    def test_serial(self) -> None:
        """Page 80h holds the serial number (SPC-4 7.8.16)."""
        self.assertEqual(self.page(0x80), b"0123456789abcdef")

    def test_designators(self) -> None:
        """Page 83h names the unit, the port that was used, and the target (SPC-4 7.8.6)."""
        data = self.page(0x83, nexus=Nexus(targetName="iqn.2001-04.com.example:a", portalGroupTag=0x12))
        found = []
        while data:
            length = data[3]
            found.append((data[:2].hex(), data[4 : 4 + length]))
            data = data[4 + length :]
        self.assertEqual(
            found,
            [
                ("0103", bytes.fromhex("3000000012345678")),
                ("0201", b"EXAMPLE 0123456789abcdef"),
                ("0308", b"iqn.2001-04.com.example:disk,L,0x3000000012345678\0\0\0"),
                ("5194", b"\0\0\0\x12"),
                ("5398", b"iqn.2001-04.com.example:a,t,0x0012\0\0"),
                ("53a8", b"iqn.2001-04.com.example:a\0\0\0"),
            ],
        )

    def test_portGroup(self) -> None:
        """Where access states are told page 83h names the target port group as well (SPC-4 7.8.6.8)."""
        self.unit.paths = Paths((1, 0x12))
        data = self.page(0x83, nexus=Nexus(portalGroupTag=0x12))
        self.assertIn(bytes.fromhex("51940004000000125195000400000012"), data)

    def test_ports(self) -> None:
        """Page 88h has all ports of the target, each with its identifier and its name (SPC-4 7.8.14)."""
        unit = self.makeUnit(self.device)
        ports = tuple(TargetPort("iqn.2001-04.com.example:a", group) for group in (1, 0x12))
        unit.inventory = Inventory({0: unit}, ports)
        self.assertEqual(
            self.page(0x88, unit=unit),
            b"".join(
                b"\0\0" + number + b"\0\0\0\0\0\0\0\x28\x53\x98\0\x24iqn.2001-04.com.example:a,t,0x00" + name
                for number, name in ((b"\0\1", b"01\0\0"), (b"\0\x12", b"12\0\0"))
            ),
        )
        alone = self.page(0x88, nexus=Nexus(targetName="iqn.x", portalGroupTag=7))
        self.assertEqual((alone[2:4], alone[16:29]), (b"\0\7", b"iqn.x,t,0x000"))
        many = tuple(TargetPort("n" * 223, group) for group in range(1, 1000))
        unit.inventory = Inventory({0: unit}, many)
        self.assertLess(len(self.page(0x88, unit=unit)), 1 << 16)

    def test_longNames(self) -> None:
        """The longest names fit their designators."""
        unit = self.makeUnit(self.device)
        unit.identity = attrs.evolve(IDENTITY, serial="s" * 252, deviceName="n" * 223)
        self.page(0x83, unit=unit, nexus=Nexus(targetName="t" * 223))

    def test_nameString(self) -> None:
        """A name string ends with a NUL and is a multiple of four bytes (SPC-4 7.8.6.11)."""
        for length in range(1, 9):
            value = nameString("x" * length)
            self.assertEqual(value.rstrip(b"\0"), b"x" * length)
            self.assertTrue(value.endswith(b"\0"))
            self.assertEqual(len(value) % 4, 0)

    def test_extended(self) -> None:
        """Page 86h has 60 bytes: all task attributes but ACA, and a volatile cache or none (SPC-4 7.8.7)."""
        self.assertEqual(self.page(0x86), bytes([0, 7, 1]) + bytes(57))
        self.assertEqual(self.page(0x86, unit=self.other(Capabilities())), bytes([0, 7, 0]) + bytes(57))

    def test_limits(self) -> None:
        """Page B0h tells the bounds that are enforced (SBC-3 6.6.4)."""
        values = struct.unpack(">BBHIIIIIIIQ20x", self.page(0xB0))
        self.assertEqual(values, (1, 255, 8, 32768, 2048, 32768, 1048576, 256, 8, 0x80000000, 32768))
        values = struct.unpack(">BBHIIIIIIIQ20x", self.page(0xB0, unit=self.other(Capabilities())))
        self.assertEqual(values, (1, 255, 8, 32768, 2048, 32768, 0, 0, 0, 0, 32768))

    def test_blockSize(self) -> None:
        """Limits are counted in logical blocks."""
        unit = self.makeUnit(self.device, blockSize=4096)
        values = struct.unpack(">BBHIIIIIIIQ20x", self.page(0xB0, unit=unit))
        self.assertEqual(values, (1, 255, 1, 4096, 256, 4096, 131072, 256, 1, 0x80000000, 4096))

    def test_rotation(self) -> None:
        """Page B1h tells how fast the medium rotates, if it does and somebody said (SBC-3 6.6.2)."""
        self.assertEqual(self.page(0xB1), b"\0\1\0\x40" + bytes(56))
        turning = Capabilities(rotational=True)
        self.assertEqual(self.page(0xB1, unit=self.other(turning)), bytes(60))
        self.assertEqual(self.page(0xB1, unit=self.other(turning, rotation=1)), b"\0\1" + bytes(58))
        self.assertEqual(self.page(0xB1, unit=self.other(THIN, rotation=7200)), b"\x1c\x20\0\x40" + bytes(56))
        for rate in (0, 2, 1024, 65535):
            with self.assertRaises(LocalError):
                self.other(THIN, rotation=rate)

    def test_provisioning(self) -> None:
        """Page B2h goes with what the device can do (SBC-3 6.6.6)."""
        self.assertEqual(self.page(0xB2).hex(), "00e40200")
        self.assertEqual(self.page(0xB2, unit=self.other(Capabilities(discard=True))).hex(), "00e00200")
        self.assertEqual(self.page(0xB2, unit=self.other(Capabilities())).hex(), "00000000")
        self.assertEqual(self.page(0xB2, unit=self.other(Capabilities(), thin=True)).hex(), "00e00200")
        self.assertEqual(
            self.page(0xB2, unit=self.other(Capabilities(discard=True), thin=False)).hex(), "00000000"
        )
