"""
What initiators ask of a disk before they use it, and want to find: who has which demand, asked on the wire.

The disks are as the targets file makes them without options.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.interfaces import Capabilities, Space
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.cdb import Command
from iscsi_twisted.scsi.lun import encodeLUN
from iscsi_twisted.session.portals import Portal
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.target import Listener, TargetService, VectorEndpoint
from tests.support import pdus
from tests.support.served import MemoryLine
from tests.support.wire import TARGET

MIB = 1 << 20
NAA, T10 = 3, 1
"""Designator types, SPC-4 table 531."""


class SparseMemory(MemoryDevice):
    """Memory that knows how much of it is used, and what is, as files do."""

    def capabilities(self) -> Capabilities:
        """See L{MemoryDevice}."""
        return super().capabilities()._replace(allocated=True, space=True, volatileCache=True)

    def space(self) -> Space:
        """Half of it."""
        return Space(self.size // 2, self.size // 2)


class Host:
    """
    A host with one session, which asks and notes what it is told.

    @ivar underflows: by how much the last answer was shorter than expected.
    """

    def __init__(self, line: MemoryLine) -> None:
        self._line = line
        self._sequence = 1
        self.underflows = 0
        line.login()
        for lun in range(2):
            self.ask(cdb.REQUEST_SENSE, 252, lun, allocation=252)

    def run(self, command: Command, read: int = 0, lun: int = 0, data: bytes = b"", **fields: int) -> Any:
        """Status, data, and sense data."""
        request = pdus.scsiCommand(
            command.encode(**fields)[: command.layout.size],
            itt=self._sequence, cmdSN=self._sequence, lun=encodeLUN(lun), read=read or None,
            write=len(data) or None, data=data,
        )  # fmt: skip
        self._sequence += 1
        answers = self._line.say(request)
        got = b"".join(each["data"] for each in answers if each["opcode"] & 0x3F == 0x25)
        last = answers[-1]
        self.underflows = last["residual"]
        return last["status"], got, last["data"][2:] if last["opcode"] & 0x3F == 0x21 else b""

    def ask(self, command: Command, read: int = 0, lun: int = 0, data: bytes = b"", **fields: int) -> bytes:
        """The data; the command must succeed."""
        status, got, sense = self.run(command, read, lun, data, **fields)
        assert status == codes.GOOD, (command.name, status, sense.hex())
        return bytes(got)

    def inquiry(self, lun: int = 0) -> bytes:
        """Standard INQUIRY data."""
        return self.ask(cdb.INQUIRY, 255, lun, allocation=255)

    def standards(self) -> set[int]:
        """The version descriptors of INQUIRY data."""
        return set(struct.unpack_from(">8H", self.inquiry(), 58))

    def page(self, code: int, lun: int = 0) -> bytes:
        """A VPD page."""
        return self.ask(cdb.INQUIRY, 255, lun, flags=1, page=code, allocation=255)

    def designators(self, kind: int, lun: int = 0) -> list[bytes]:
        """Those of page 83h that are of the unit and of this type."""
        data, found = self.page(0x83, lun)[4:], []
        while data:
            if data[1] & 0x3F == kind:
                found.append(data[4 : 4 + data[3]])
            data = data[4 + data[3] :]
        return found

    def knows(self, opcode: int, action: int | None = None) -> bool:
        """Whether REPORT SUPPORTED OPERATION CODES says so of a command."""
        options = 1 if action is None else 2
        data = self.ask(
            cdb.REPORT_OPCODES,
            64,
            options=options,
            requested=opcode,
            requestedAction=action or 0,
            allocation=64,
        )
        return data[1] & 7 == 3

    def mode(self, page: int) -> bytes:
        """A mode page, from its code on, as MODE SENSE (6) without block descriptors tells it."""
        return self.ask(cdb.MODE_SENSE_6, 255, flags=8, page=page, allocation=255)[4:]

    def capacity(self) -> tuple[int, int, int]:
        """Last block, bytes of a block, and the four bytes behind these; READ CAPACITY (16)."""
        data = self.ask(cdb.READ_CAPACITY_16, 32, allocation=32)
        return struct.unpack_from(">QII", data)

    def limit(self, place: int, size: int = 4) -> int:
        """A number of page B0h."""
        return int.from_bytes(self.page(0xB0)[place : place + size], "big")


def reserves(host: Host) -> bool:
    """RESERVE (6) and RELEASE (6) end well."""
    host.ask(cdb.RESERVE_6)
    host.ask(cdb.RELEASE_6)
    return True


def cluster(host: Host) -> bool:
    """What the validation of a failover cluster does, and that the holder is told."""

    def out(command: Command, *keys: int, **fields: int) -> None:
        host.ask(command, data=struct.pack(">QQ8x", *keys), length=24, **fields)

    out(cdb.PR_REGISTER_IGNORING, 0, 0xA)
    out(cdb.PR_RESERVE, 0xA, 0, type=5)
    held = host.ask(cdb.READ_RESERVATION, 64, allocation=64)
    keys = host.ask(cdb.READ_KEYS, 64, allocation=64)
    out(cdb.PR_CLEAR, 0xA, 0)
    return held[8:16] == keys[8:16] == (0xA).to_bytes(8, "big") and held[21] == 5


Demand = Callable[[Host], object]

DEMANDS: list[tuple[str, str, Demand]] = [
    ("all", "page 00h lists pages in ascending order",
        lambda it: list(it.page(0)[4:]) == sorted(it.page(0)[4:])),
    ("all", "every page that is listed is there",
        lambda it: all(it.page(code)[1] == code for code in it.page(0)[4:])),
    ("all", "the vendor is eight characters, the product sixteen",
        lambda it: it.inquiry()[8:36].isascii() and it.inquiry()[8:36].decode().isprintable()),
    ("all", "a serial number is told", lambda it: it.page(0x80)[4:].strip().isalnum()),
    ("all", "residual counts are exact",
        lambda it: it.inquiry() and it.underflows == 255 - len(it.inquiry())),
    ("Linux", "VPD pages are asked for: the version is SPC-3 or later", lambda it: it.inquiry()[2] >= 5),
    ("Linux", "pages 80h, 83h, B0h, B1h and B2h",
        lambda it: {0x80, 0x83, 0xB0, 0xB1, 0xB2} <= set(it.page(0)[4:])),
    ("Linux", "a long page B0h goes with SBC-3's version descriptor",
        lambda it: it.page(0xB0)[3] == 0x3C and it.standards() & set(range(0x04C0, 0x0500))),
    ("Linux", "WRITE SAME (16) is told of", lambda it: it.knows(0x93)),
    ("Linux", "the caching page says whether to flush",
        lambda it: it.mode(0x08)[0] & 0x3F == 0x08 and it.mode(0x08)[2] & 4),
    ("Linux", "commands can be queued", lambda it: it.inquiry()[7] & 2),
    ("Linux", "SYNCHRONIZE CACHE (10) ends well", lambda it: it.ask(cdb.SYNCHRONIZE_CACHE_10) == b""),
    ("Linux", "it may unmap: LBPME, LBPU or LBPWS, limits",
        lambda it: it.capacity()[2] >> 15 & 1 and it.page(0xB2)[5] & 0xC0 and it.limit(20) and it.limit(24)),
    ("Linux", "what is unmapped reads as zeros",
        lambda it: it.capacity()[2] >> 14 & 1 and it.page(0xB2)[5] & 4),
    ("Linux", "the physical block is told, and a partition can be aligned to it",
        lambda it: it.capacity()[2] >> 16 & 0xF == 3 and not it.capacity()[2] & 0x3FFF),
    ("Linux", "whether it rotates is told", lambda it: it.page(0xB1)[4:6] == b"\0\1"),
    ("VMware", "an NAA identifier, of a format that there is",
        lambda it: [each[0] >> 4 for each in it.designators(NAA)] in ([2], [3], [5], [6])),
    ("VMware", "page 86h", lambda it: 0x86 in it.page(0)[4:]),
    ("VMware", "ATS: COMPARE AND WRITE of a block", lambda it: it.knows(0x89) and it.limit(5, 1) >= 1),
    ("VMware", "Clone: EXTENDED COPY and its operating parameters",
        lambda it: it.inquiry()[5] & 8 and it.knows(0x83, 0) and it.knows(0x84, 3)),
    ("VMware", "Clone: both disks have one vendor and product",
        lambda it: it.inquiry(0)[8:32] == it.inquiry(1)[8:32]),
    ("VMware", "Zero: WRITE SAME (16) of 1 MiB", lambda it: it.knows(0x93) and it.limit(36, 8) * 512 >= MIB),
    ("VMware", "Delete: UNMAP in pieces of 1 MiB",
        lambda it: it.knows(0x42) and not MIB % (it.limit(28) * 512)),
    ("VMware", "RESERVE and RELEASE do no harm", reserves),
    ("VMware", "paths of one disk: the NAA identifier of others is another one",
        lambda it: it.designators(NAA, 0) != it.designators(NAA, 1)),
    ("VMware", "REPORT TARGET PORT GROUPS", lambda it: it.inquiry()[5] & 0x30 and it.knows(0xA3, 0x0A)),
    ("Windows", "pages 80h, 83h, B0h and B2h", lambda it: {0x80, 0x83, 0xB0, 0xB2} <= set(it.page(0)[4:])),
    ("Windows", "MODE SENSE of all pages", lambda it: it.mode(0x08) in it.mode(0x3F)),
    ("Windows", "a T10 vendor identifier as well",
        lambda it: it.designators(T10)[0][:8] == it.inquiry()[8:16]),
    ("Windows", "clusters reserve, and the holder is told", cluster),
    ("Windows", "page 0Ch tells of thin provisioning, and thresholds can be set",
        lambda it: 0x0C in it.ask(cdb.LOG_SENSE, 64, page=0x40, allocation=64)[4:] and it.page(0xB2)[4]),
    ("Windows", "copies with tokens are refused, so that it copies by itself",
        lambda it: not it.knows(0x83, 0x10) and not it.knows(0x83, 0x11)),
    ("QEMU", "GET LBA STATUS",
        lambda it: it.knows(0x9E, 0x12) and len(it.ask(cdb.GET_LBA_STATUS, 64, allocation=64)) >= 24),
    ("QEMU", "MODE SENSE (6) of all pages tells whether it may write",
        lambda it: not it.ask(cdb.MODE_SENSE_6, 255, page=0x3F, allocation=255)[2] & 0x80),
    ("FreeBSD", "REPORT LUNS tells of LUN 0, and both READ CAPACITY agree",
        lambda it: it.ask(cdb.REPORT_LUNS, 64, allocation=64)[8:24] == encodeLUN(0) + encodeLUN(1)
        and it.capacity()[:2] == struct.unpack(">II", it.ask(cdb.READ_CAPACITY_10, 8))),
    ("macOS", "page 83h is there for INQUIRY data of any length",
        lambda it: len(it.ask(cdb.INQUIRY, 36, flags=1, page=0x83, allocation=36)) == 36),
    ("firmware", "LUN 0 is a disk of 512 byte blocks, and READ (10) reads one",
        lambda it: not it.inquiry()[0] and len(it.ask(cdb.READ_10, 512, length=1)) == it.capacity()[1]),
    ("firmware", "short INQUIRY data are enough",
        lambda it: len(it.ask(cdb.INQUIRY, 36, allocation=36)) == 36),
]  # fmt: skip
"""Who, what, and how to find out."""


class DemandTests(SynchronousTestCase):
    """Two disks behind two portal groups."""

    def setUp(self) -> None:
        """Serve them."""
        reactor = MemoryReactorClock()
        listeners = [Listener(VectorEndpoint(reactor, 3260 + tag), Portal(tag)) for tag in (1, 2)]
        self.service = TargetService(reactor, listeners)
        self.service.addTarget(TARGET, [SparseMemory(64 * MIB), SparseMemory(32 * MIB)])
        self.service.privilegedStartService()
        self.service.startService()
        self.addCleanup(self.service.stopService)
        self.hosts = [Host(MemoryLine(factory)) for factory in self.service.factories]

    def test_demands(self) -> None:
        """Each initiator finds what it wants, on both paths."""
        for number, host in enumerate(self.hosts):
            for who, what, holds in DEMANDS:
                self.assertTrue(holds(host), f"{who}, path {number}: {what}")

    def test_paths(self) -> None:
        """The two paths lead to one disk, at two ports."""
        first, second = self.hosts
        for kind in (NAA, T10):
            self.assertEqual(first.designators(kind), second.designators(kind))
        self.assertEqual(first.page(0x80), second.page(0x80))
        self.assertNotEqual(first.page(0x83), second.page(0x83))
