"""Tests for L{iscsi_twisted.scsi.optical} and L{iscsi_twisted.scsi.disc}."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi import cdboptical as optical
from iscsi_twisted.scsi.cdb import Command
from iscsi_twisted.scsi.disc import CD_BLOCKS
from iscsi_twisted.scsi.optical import BLOCK, OpticalUnit
from iscsi_twisted.scsi.supported import exists
from tests.scsi.cases import IDENTITY, DiskTests
from tests.scsi.devices import MemoryDisk, MemoryStore
from tests.support.tasks import Nexus, Task, run

BLOCKS = 200
EJECT, LOAD = 2, 3
MEDIA = 1 << 4


class OpticalCase(DiskTests):
    """A drive with a small image."""

    unit: OpticalUnit  # type: ignore[assignment]

    def setUp(self) -> None:
        super().setUp()
        self.device = MemoryDisk(BLOCKS * BLOCK + 700)
        self.device.content[:] = bytes(place // BLOCK % 251 for place in range(len(self.device.content)))
        self.unit = self.drive(self.device)

    def drive(self, device: Any) -> OpticalUnit:
        """A drive that is ready."""
        unit = OpticalUnit(device, identity=IDENTITY, report=self.surprise)
        unit.remember(MemoryStore())
        unit.opened()
        unit.nexusFound(self.nexus)
        unit.takeAttention(self.nexus)
        return unit

    def large(self, blocks: int) -> OpticalUnit:
        """A drive with so many blocks."""
        unit = self.drive(self.device)
        unit.blockCount = blocks
        return unit


class DriveTests(OpticalCase):
    """What an optical unit is, and what it shares with disks."""

    def test_inquiry(self) -> None:
        """It is a removable unit of type 5, of MMC-6; it has the VPD pages of every type (SPC-4 6.6)."""
        data = self.good(cdb.INQUIRY, allocation=255)
        self.assertEqual(data[:2].hex(), "0580")
        self.assertEqual(data[58:66].hex(), "00a00960046004e0")
        pages = self.good(cdb.INQUIRY, flags=1, allocation=255)
        self.assertEqual(pages.hex(), "05000004" + "00808388")

    def test_capacity(self) -> None:
        """READ CAPACITY tells the last whole block of 2,048 bytes (MMC-6 6.19)."""
        self.assertEqual(struct.unpack(">II", self.good(cdb.READ_CAPACITY_10)), (BLOCKS - 1, BLOCK))

    def test_read(self) -> None:
        """READ (10) and (12) give blocks (MMC-6 6.17, 6.18)."""
        for command in (cdb.READ_10, cdb.READ_12):
            data = self.good(command, lba=7, length=2)
            self.assertEqual(data, bytes((7,)) * BLOCK + bytes((8,)) * BLOCK)
        task = self.command(cdb.READ_10, lba=BLOCKS, length=1)
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.LBA_OUT_OF_RANGE)

    def test_commands(self) -> None:
        """What changes a medium does not exist; every command has an answer."""
        self.assertEqual(
            [each.name for each in OpticalUnit.table if each.access & cdb.WRITES == cdb.WRITES], []
        )
        for command in (cdb.WRITE_10, cdb.UNMAP, cdb.READ_16, cdb.READ_CAPACITY_16, cdb.SYNCHRONIZE_CACHE_10):
            task = (
                self.command(command, bytes(BLOCK), length=1)
                if command is cdb.WRITE_10
                else run(self.unit, Task(command.encode(), self.nexus))
            )
            self.assertEqual(task.key, codes.ILLEGAL_REQUEST, command.name)
        for command in OpticalUnit.table:
            if exists(self.unit, command):
                task = run(self.unit, Task(command.encode(), self.nexus))
                self.assertEqual(task.endings, 1, command.name)
        self.assertEqual(self.surprises, [])

    def test_supported(self) -> None:
        """The list of commands has those of MMC and none of disks (SPC-4 6.35)."""
        data = self.good(cdb.REPORT_OPCODES, allocation=0xFFFF)
        listed = {each[0] for each in struct.iter_unpack(">B7x", data[4:])}
        self.assertLess({0x43, 0x46, 0x4A, 0x51, 0xAD, 0xBD, 0x25, 0x28, 0xA8, 0x1B, 0x1E, 0x5A}, listed)
        self.assertFalse({0x2A, 0x8A, 0x42, 0x93, 0x88, 0x04, 0x48, 0x35} & listed)

    def test_modes(self) -> None:
        """Mode parameters have no block descriptors; page 2Ah tells what the drive can (MMC-3 5.5.10)."""
        data = self.good(cdb.MODE_SENSE_10, page=0x2A, allocation=255)
        self.assertEqual(data.hex(), "0026000000000000" + "2a1e" + "0b000000" + "2900" + "00" * 24)
        data = self.good(cdb.MODE_SENSE_6, page=0x3F, allocation=255)
        self.assertEqual((data[0], data[1:4]), (len(data) - 1, bytes(3)))
        self.assertInvalidField(self.command(cdb.MODE_SENSE_10, page=0x08, allocation=255), 2, 5)

    def test_tray(self) -> None:
        """The disc can be ejected and loaded, unless somebody prevents it (SBC-3 5.14, MMC-6 6.42)."""
        self.good(cdb.PREVENT_ALLOW, options=1)
        task = self.command(cdb.START_STOP_UNIT, options=EJECT)
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.MEDIUM_REMOVAL_PREVENTED)
        self.good(cdb.PREVENT_ALLOW, options=0)
        self.good(cdb.START_STOP_UNIT, options=EJECT)
        for command in (cdb.TEST_UNIT_READY, cdb.READ_10, cdb.READ_CAPACITY_10, optical.READ_TOC):
            self.assertSense(self.command(command), codes.NOT_READY, codes.MEDIUM_NOT_PRESENT)
        self.good(cdb.START_STOP_UNIT, options=LOAD)
        self.good(cdb.TEST_UNIT_READY)

    def test_logs(self) -> None:
        """Its log pages are those that fit (SPC-4 7.3)."""
        self.assertEqual(self.good(cdb.LOG_SENSE, allocation=255)[4:].hex(), "00030506" + "0e1019")

    @given(st.sampled_from([
        (optical.READ_TOC, {}),
        (optical.READ_TOC, {"format": 1}),
        (optical.READ_TOC, {"format": 2}),
        (optical.GET_CONFIGURATION, {}),
        (optical.GET_EVENT_STATUS, {"flags": 1, "classes": 0xFF}),
        (optical.READ_DISC_INFORMATION, {}),
        (optical.MECHANISM_STATUS, {}),
    ]), st.integers(0, 300))  # fmt: skip
    def test_allocation(self, asked: tuple[Command, dict[str, int]], length: int) -> None:
        """Answers are cut to the allocation length (SPC-4 4.2.5.6)."""
        command, fields = asked
        whole = self.good(command, allocation=0xFFFF, **fields)
        self.assertEqual(self.good(command, allocation=length, **fields), whole[:length])


class DiscTests(OpticalCase):
    """What is told of the disc."""

    def toc(self, **fields: int) -> str:
        """READ TOC/PMA/ATIP."""
        return self.good(optical.READ_TOC, allocation=255, **fields).hex()

    def test_contents(self) -> None:
        """There is one data track, and the lead-out behind it (MMC-6 6.25.3)."""
        track, out = "0014010000000000", "0014aa00000000c8"
        for number in (0, 1):
            self.assertEqual(self.toc(track=number), "00120101" + track + out)
        self.assertEqual(self.toc(track=0xAA), "000a0101" + out)
        self.assertInvalidField(self.command(optical.READ_TOC, track=2, allocation=255), 6)

    def test_time(self) -> None:
        """Addresses can be had in minutes, seconds and frames, and begin at 2 seconds (MMC-6 4.3.6)."""
        self.assertEqual(self.toc(flags=2), "00120101" + "0014010000000200" + "0014aa0000000432")
        unit = self.large(1 << 31)
        data = self.good(optical.READ_TOC, unit=unit, flags=2, track=0xAA, allocation=255)
        self.assertEqual(data[-4:].hex(), "00ff3b4a")

    def test_sessions(self) -> None:
        """The first session is the last; old initiators ask in the CONTROL byte (MMC-6 6.25.3.3)."""
        self.assertEqual(self.toc(format=1), "000a0101" + "0014010000000000")
        self.assertEqual(self.toc(control=0x40), "000a0101" + "0014010000000000")
        self.assertEqual(self.toc(format=1, flags=2), "000a0101" + "0014010000000200")

    def test_raw(self) -> None:
        """The raw table has first and last track, lead-out and track in time (MMC-6 6.25.3.4)."""
        self.assertEqual(
            self.toc(format=2),
            "002e0101"
            + "011400a000000000010000"
            + "011400a100000000010000"
            + "011400a200000000000432"
            + "0114000100000000000200",
        )

    def test_otherFormats(self) -> None:
        """PMA, ATIP and CD-TEXT are refused: an image has none."""
        for form in (3, 4, 5, 15):
            self.assertInvalidField(self.command(optical.READ_TOC, format=form, allocation=255), 2, 3)

    def test_information(self) -> None:
        """The disc is complete, and nothing can be added (MMC-6 6.22.3)."""
        data = self.good(optical.READ_DISC_INFORMATION, allocation=255)
        self.assertEqual(data.hex(), "00200e01010101200000000000000000" + "ff" * 8 + "00" * 10)
        self.assertInvalidField(self.command(optical.READ_DISC_INFORMATION, type=1, allocation=255), 1, 2)

    def test_structure(self) -> None:
        """Of a DVD, format and copyright are told; a CD has no such structures (MMC-6 6.23)."""
        task = self.command(optical.READ_DISC_STRUCTURE, allocation=255)
        self.assertInvalidField(task, 7, 7)
        unit = self.large(CD_BLOCKS + 1)
        data = self.good(optical.READ_DISC_STRUCTURE, unit=unit, allocation=0xFFFF)
        self.assertEqual((len(data), data[:4].hex()), (2052, "08020000"))
        self.assertEqual(struct.unpack_from(">II", data, 8), (0x30000, 0x30000 + CD_BLOCKS))
        data = self.good(optical.READ_DISC_STRUCTURE, unit=unit, format=1, allocation=255)
        self.assertEqual(data.hex(), "0006000000000000")
        for fields, byte, bit in (({"format": 9}, 7, 7), ({"layer": 1}, 6, 7), ({"media": 1}, 1, 3)):
            task = self.command(optical.READ_DISC_STRUCTURE, unit=unit, allocation=255, **fields)
            self.assertInvalidField(task, byte, bit)


class ConfigurationTests(OpticalCase):
    """GET CONFIGURATION, MMC-6 6.6 and 5.3."""

    def features(self, unit: OpticalUnit | None = None, **fields: int) -> tuple[int, dict[int, bytes]]:
        """The current profile; features by code, from the third byte on."""
        data = self.good(optical.GET_CONFIGURATION, unit=unit or self.unit, allocation=0xFFFF, **fields)
        length, profile = struct.unpack_from(">I2xH", data)
        self.assertEqual(length, len(data) - 4)
        data, found = data[8:], {}
        while data:
            size = 4 + data[3]
            found[int.from_bytes(data[:2], "big")] = data[2:size]
            data = data[size:]
        return profile, found

    def test_all(self) -> None:
        """Features come in ascending order; those of the disc that is in are current."""
        for blocks, profile, current in (
            (BLOCKS, 0x08, {0x1E}), (CD_BLOCKS, 0x08, {0x1E}), (CD_BLOCKS + 1, 0x10, {0x1F}),
        ):  # fmt: skip
            told, found = self.features(self.large(blocks))
            self.assertEqual((told, list(found)), (profile, [0, 1, 3, 0x10, 0x1E, 0x1F, 0x100]))
            on = {code for code, data in found.items() if data[0] & 1}
            self.assertEqual(on, {0, 1, 3, 0x10, 0x100} | current)
        self.assertEqual(found[0].hex(), "0308" + "00100100" + "00080000")
        self.assertEqual(found[0x10].hex(), "0108" + "00000800" + "00100000")
        self.assertEqual(found[0x03].hex(), "0304" + "29000000")

    def test_empty(self) -> None:
        """Without a disc there is no profile, and the command is answered all the same."""
        self.unit.eject()
        profile, found = self.features()
        self.assertEqual((profile, found[0x10][0] & 1, found[0x1E][0] & 1), (0, 0, 0))

    def test_types(self) -> None:
        """From a feature on, the current ones alone, and one (MMC-6 6.6.2)."""
        self.assertEqual(list(self.features(start=0x11)[1]), [0x1E, 0x1F, 0x100])
        self.assertEqual(list(self.features(type=1)[1]), [0, 1, 3, 0x10, 0x1E, 0x100])
        self.assertEqual(list(self.features(type=2, start=0x1F)[1]), [0x1F])
        self.assertEqual(list(self.features(type=2, start=0x1D)[1]), [])
        self.assertInvalidField(self.command(optical.GET_CONFIGURATION, type=3, allocation=255), 1, 1)


class EventTests(OpticalCase):
    """GET EVENT STATUS NOTIFICATION and MECHANISM STATUS, MMC-6 6.7 and 6.11."""

    def event(self, classes: int = MEDIA, nexus: Nexus | None = None, allocation: int = 8) -> str:
        """What is told."""
        return self.good(
            optical.GET_EVENT_STATUS, flags=1, classes=classes, allocation=allocation, nexus=nexus
        ).hex()

    def test_media(self) -> None:
        """Ejecting and loading are told once to everybody, whatever else they ask for."""
        other = Nexus()
        self.unit.nexusFound(other)
        self.unit.takeAttention(other)
        self.assertEqual(self.event(), "00060456" + "00020000")
        self.good(cdb.START_STOP_UNIT, options=EJECT)
        self.good(cdb.START_STOP_UNIT, options=EJECT)
        self.assertEqual(self.event(0xFF), "00060456" + "03010000")
        self.assertEqual(self.event(), "00060456" + "00010000")
        self.good(cdb.START_STOP_UNIT, options=LOAD)
        self.assertEqual(self.event(), "00060456" + "02020000")
        self.assertEqual(self.event(nexus=other), "00060456" + "02020000")
        self.assertEqual(self.event(), "00060456" + "00020000")

    def test_replaced(self) -> None:
        """Another image in the drive is a new disc."""
        other = OpticalUnit(MemoryDisk(50 * BLOCK), identity=IDENTITY, report=self.surprise)
        other.opened()
        self.unit.become(other, replaced=True)
        self.assertEqual(self.event(), "00060456" + "02020000")
        task = self.command(cdb.READ_CAPACITY_10)
        self.assertSense(task, codes.UNIT_ATTENTION, codes.MEDIUM_MAY_HAVE_CHANGED)
        self.unit.takeAttention(self.nexus)
        while self.unit.takeAttention(self.nexus) is not None:
            pass
        self.assertEqual(struct.unpack(">II", self.good(cdb.READ_CAPACITY_10)), (49, BLOCK))

    def test_room(self) -> None:
        """Whoever has no room for an event is told it later."""
        self.unit.eject()
        self.assertEqual(self.event(allocation=4), "00060456")
        self.assertEqual(self.event(), "00060456" + "03010000")

    def test_classes(self) -> None:
        """The lowest class that is asked for is told; classes that there are not are not (MMC-6 6.7.2)."""
        self.assertEqual(self.event(0xFF), "00060156" + "00000000")
        self.assertEqual(self.event(0x54), "00060256" + "00010000")
        self.assertEqual(self.event(0x40), "00060656" + "00000000")
        self.assertEqual(self.event(0x28), "00028056")

    def test_waiting(self) -> None:
        """Nobody waits for an event (MMC-6 6.7.2.2)."""
        self.assertInvalidField(self.command(optical.GET_EVENT_STATUS, classes=0x10, allocation=8), 1, 0)

    def test_attention(self) -> None:
        """Events and the configuration are told although a unit attention is pending (MMC-6 4.1.6)."""
        self.unit.attention(codes.MEDIUM_MAY_HAVE_CHANGED)
        self.event()
        self.good(optical.GET_CONFIGURATION, allocation=8)
        task = self.command(cdb.TEST_UNIT_READY)
        self.assertSense(task, codes.UNIT_ATTENTION, codes.MEDIUM_MAY_HAVE_CHANGED)

    def test_gone(self) -> None:
        """What a nexus was to be told is forgotten with it."""
        self.unit.eject()
        self.unit.nexusLost(self.nexus)
        self.assertEqual(self.unit.events, {})

    def test_mechanism(self) -> None:
        """The tray is closed, or open; there is no changer."""
        self.assertEqual(self.good(optical.MECHANISM_STATUS, allocation=255), bytes(8))
        self.unit.eject()
        self.assertEqual(self.good(optical.MECHANISM_STATUS, allocation=255).hex(), "0010" + "00" * 6)
