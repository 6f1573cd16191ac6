# -*- test-case-name: tests.scsi.test_cdb -*-
"""
The shape of every command that is understood, declared once.

A declaration gives the fields of the CDB in wire order, which bits of it are looked at (the CDB
usage data of REPORT SUPPORTED OPERATION CODES, SPC-4 6.35.3), and what the command does to the
medium.  What a command means is written where its handler is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

import attrs

CDB_SIZES: Final = {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}
"""Group code (the three upper bits of the operation code) to bytes of the CDB; SPC-4 4.2.5.1."""

EXEMPT: Final = 1
"""Answered although a unit attention condition is pending (SAM-5 5.14), or a reservation."""
MEDIUM: Final = 2
"""Needs a unit that is ready."""
LOOKS: Final = 4
READS: Final = LOOKS | MEDIUM
"""Looks at what is stored."""
WRITES: Final = 8 | MEDIUM
"""Changes what is stored."""
SHARED: Final = 16
"""Allowed although another nexus has reserved the unit (SPC-2 table 8, SBC-2 table 7)."""
PUBLIC: Final = 32
"""Allowed although another nexus holds a persistent reservation; so is what is L{SHARED} (SPC-4 table 68)."""
STEERS: Final = 64
"""Changes what others find, or keeps them out, but nothing that is stored: not for who may only read."""


class Layout:
    """
    The fields of one CDB, declared once and compiled once.

    The spec is C{"name:format"} pairs in wire order; C{_} is reserved space.

    @ivar offsets: the first byte of each field.
    @ivar unpack: C{unpack(cdb)} gives the fields' values in order.
    @ivar pack: the other way round.
    """

    __slots__ = ("fields", "offsets", "pack", "size", "unpack")

    def __init__(self, spec: str) -> None:
        self.offsets: dict[str, int] = {}
        codes = ">"
        for item in spec.split():
            name, _, code = item.partition(":")
            if name != "_":
                self.offsets[name] = struct.calcsize(codes)
            codes += code
        compiled = struct.Struct(codes)
        self.fields = tuple(self.offsets)
        self.size = compiled.size
        self.unpack: Callable[..., tuple[Any, ...]] = compiled.unpack_from
        self.pack: Callable[..., bytes] = compiled.pack


@attrs.frozen(eq=False)
class Command:
    """
    The declaration of one command.

    @ivar name: its name in the standard.
    @ivar opcode: its operation code.
    @ivar layout: its fields.
    @ivar usage: CDB usage data: a one for each bit that is evaluated, the operation code and the
        service action as they are.
    @ivar access: L{EXEMPT}, L{READS}, L{WRITES}, L{MEDIUM}, L{SHARED}, L{PUBLIC}, L{STEERS}, or 0 for none
        of them.
    @ivar serviceAction: which of those that share the operation code, or None.
    @ivar condition: name of the unit's attribute that must be true for the command to exist, or None.
    @ivar fast: it is on the data path, and checks the CONTROL byte itself.
    """

    name: str
    opcode: int
    layout: Layout
    usage: bytes
    access: int
    serviceAction: int | None
    condition: str | None
    fast: bool

    def encode(self, **values: int) -> bytes:
        """A CDB with these fields; those that are not given are zero.  Not for the data path."""
        values["opcode"] = self.opcode
        if self.serviceAction is not None:
            # What shares its byte may be given with it.
            values["action"] = values.get("action", 0) | self.serviceAction
        return self.layout.pack(*(values.pop(name, 0) for name in self.layout.fields)).ljust(16, b"\0")


def declare(
    opcode: int,
    name: str,
    spec: str,
    usage: str,
    access: int = 0,
    *,
    serviceAction: int | None = None,
    condition: str | None = None,
    fast: bool = False,
) -> Command:
    """
    Declare a command.

    @param spec: as for L{Layout}.
    @param usage: the usage data, in hexadecimal.
    @raise ValueError: if the sizes are not those of the operation code's group.
    """
    layout, mask, size = Layout(spec), bytes.fromhex(usage), CDB_SIZES[opcode >> 5]
    if not layout.size == len(mask) == size or mask[0] != opcode:
        raise ValueError(f"{name} has a CDB of {size} bytes, not {layout.size} (usage data: {len(mask)})")
    return Command(name, opcode, layout, mask, access, serviceAction, condition, fast)


# Primary commands

TEST_UNIT_READY = declare(
    0x00, "TEST UNIT READY", "opcode:B _:4x control:B", "00 00 00 00 00 04", MEDIUM | PUBLIC
)
REQUEST_SENSE = declare(
    0x03, "REQUEST SENSE", "opcode:B flags:B _:2x allocation:B control:B", "03 01 00 00 FF 04", EXEMPT
)
INQUIRY = declare(
    0x12, "INQUIRY", "opcode:B flags:B page:B allocation:H control:B", "12 01 FF FF FF 04", EXEMPT
)
MODE_SENSE_6 = declare(
    0x1A,
    "MODE SENSE (6)",
    "opcode:B flags:B page:B subpage:B allocation:B control:B",
    "1A 08 FF FF FF 04",
)
MODE_SENSE_10 = declare(
    0x5A,
    "MODE SENSE (10)",
    "opcode:B flags:B page:B subpage:B _:3x allocation:H control:B",
    "5A 18 FF FF 00 00 00 FF FF 04",
)
REPORT_LUNS = declare(
    0xA0,
    "REPORT LUNS",
    "opcode:B _:x select:B _:3x allocation:I _:x control:B",
    "A0 00 FF 00 00 00 FF FF FF FF 00 04",
    EXEMPT,
)
REPORT_OPCODES = declare(
    0xA3,
    "REPORT SUPPORTED OPERATION CODES",
    "opcode:B action:B options:B requested:B requestedAction:H allocation:I _:x control:B",
    "A3 0C 87 FF FF FF FF FF FF FF 00 04",
    SHARED,
    serviceAction=0x0C,
)
REPORT_TASK_MANAGEMENT = declare(
    0xA3,
    "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
    "opcode:B action:B options:B _:3x allocation:I _:x control:B",
    "A3 0D 80 00 00 00 FF FF FF FF 00 04",
    SHARED,
    serviceAction=0x0D,
)
REPORT_TARGET_PORT_GROUPS = declare(
    0xA3,
    "REPORT TARGET PORT GROUPS",
    "opcode:B action:B _:4x allocation:I _:x control:B",
    "A3 EA 00 00 00 00 FF FF FF FF 00 04",
    SHARED,
    serviceAction=0x0A,
    condition="asymmetric",
)
SET_TARGET_PORT_GROUPS = declare(
    0xA4,
    "SET TARGET PORT GROUPS",
    "opcode:B action:B _:4x length:I _:x control:B",
    "A4 0A 00 00 00 00 FF FF FF FF 00 04",
    STEERS,
    serviceAction=0x0A,
    condition="explicit",
)
MODE_SELECT_6 = declare(
    0x15, "MODE SELECT (6)", "opcode:B flags:B _:2x length:B control:B", "15 11 00 00 FF 04", STEERS
)
MODE_SELECT_10 = declare(
    0x55,
    "MODE SELECT (10)",
    "opcode:B flags:B _:5x length:H control:B",
    "55 11 00 00 00 00 00 FF FF 04",
    STEERS,
)
LOG_SENSE = declare(
    0x4D,
    "LOG SENSE",
    "opcode:B flags:B page:B subpage:B _:x parameter:H allocation:H control:B",
    "4D 01 FF FF 00 FF FF FF FF 04",
    SHARED,
)
LOG_SELECT = declare(
    0x4C,
    "LOG SELECT",
    "opcode:B flags:B page:B subpage:B _:3x length:H control:B",
    "4C 03 FF FF 00 00 00 FF FF 04",
    STEERS,
)
RESERVE_6 = declare(0x16, "RESERVE (6)", "opcode:B flags:B _:3x control:B", "16 11 00 00 00 04", STEERS)
RELEASE_6 = declare(0x17, "RELEASE (6)", "opcode:B flags:B _:3x control:B", "17 11 00 00 00 04", SHARED)
RESERVE_10 = declare(
    0x56, "RESERVE (10)", "opcode:B flags:B _:7x control:B", "56 13 00 00 00 00 00 00 00 04", STEERS
)
RELEASE_10 = declare(
    0x57, "RELEASE (10)", "opcode:B flags:B _:7x control:B", "57 13 00 00 00 00 00 00 00 04", SHARED
)


def _persistent(action: int, name: str, outward: bool = False, access: int = PUBLIC) -> Command:
    """A service action of PERSISTENT RESERVE IN or OUT; SPC-4 6.15, 6.16."""
    if outward:
        spec, usage = (
            "opcode:B action:B type:B _:2x length:I control:B",
            f"5F {action:02X} FF 00 00 FF FF FF FF 04",
        )
    else:
        spec, usage = (
            "opcode:B action:B _:5x allocation:H control:B",
            f"5E {action:02X} 00 00 00 00 00 FF FF 04",
        )
    title = f"PERSISTENT RESERVE {'OUT' if outward else 'IN'} ({name})"
    return declare(0x5F if outward else 0x5E, title, spec, usage, access, serviceAction=action)


READ_KEYS = _persistent(0, "READ KEYS")
READ_RESERVATION = _persistent(1, "READ RESERVATION")
REPORT_CAPABILITIES = _persistent(2, "REPORT CAPABILITIES")
READ_FULL_STATUS = _persistent(3, "READ FULL STATUS")
PR_REGISTER = _persistent(0, "REGISTER", True)
PR_RESERVE = _persistent(1, "RESERVE", True, PUBLIC | STEERS)
PR_RELEASE = _persistent(2, "RELEASE", True, PUBLIC | STEERS)
PR_CLEAR = _persistent(3, "CLEAR", True, PUBLIC | STEERS)
PR_PREEMPT = _persistent(4, "PREEMPT", True, PUBLIC | STEERS)
PR_PREEMPT_AND_ABORT = _persistent(5, "PREEMPT AND ABORT", True, PUBLIC | STEERS)
PR_REGISTER_IGNORING = _persistent(6, "REGISTER AND IGNORE EXISTING KEY", True)
PR_REGISTER_AND_MOVE = _persistent(7, "REGISTER AND MOVE", True, PUBLIC | STEERS)
PR_REPLACE_LOST = _persistent(8, "REPLACE LOST RESERVATION", True, PUBLIC | STEERS)

# Block commands

READ_CAPACITY_10 = declare(
    0x25,
    "READ CAPACITY (10)",
    "opcode:B _:8x control:B",
    "25 00 00 00 00 00 00 00 00 04",
    MEDIUM | SHARED,
)
READ_CAPACITY_16 = declare(
    0x9E,
    "READ CAPACITY (16)",
    "opcode:B action:B _:8x allocation:I _:x control:B",
    "9E 10 00 00 00 00 00 00 00 00 FF FF FF FF 00 04",
    MEDIUM | SHARED,
    serviceAction=0x10,
)
GET_LBA_STATUS = declare(
    0x9E,
    "GET LBA STATUS",
    "opcode:B action:B lba:Q allocation:I _:x control:B",
    "9E 12 FF FF FF FF FF FF FF FF FF FF FF FF 00 04",
    READS,
    serviceAction=0x12,
)
READ_DEFECT_DATA_10 = declare(
    0x37,
    "READ DEFECT DATA (10)",
    "opcode:B _:x lists:B _:4x allocation:H control:B",
    "37 00 1F 00 00 00 00 FF FF 04",
    READS,
)
READ_DEFECT_DATA_12 = declare(
    0xB7,
    "READ DEFECT DATA (12)",
    "opcode:B lists:B _:4x allocation:I _:x control:B",
    "B7 1F 00 00 00 00 FF FF FF FF 00 04",
    READS,
)
READ_6 = declare(
    0x08, "READ (6)", "opcode:B lba:B low:H length:B control:B", "08 1F FF FF FF 04", READS, fast=True
)
READ_10 = declare(
    0x28,
    "READ (10)",
    "opcode:B flags:B lba:I group:B length:H control:B",
    "28 F8 FF FF FF FF 00 FF FF 04",
    READS,
    fast=True,
)
READ_12 = declare(
    0xA8,
    "READ (12)",
    "opcode:B flags:B lba:I length:I group:B control:B",
    "A8 F8 FF FF FF FF FF FF FF FF 00 04",
    READS,
    fast=True,
)
READ_16 = declare(
    0x88,
    "READ (16)",
    "opcode:B flags:B lba:Q length:I group:B control:B",
    "88 F8 FF FF FF FF FF FF FF FF FF FF FF FF 00 04",
    READS,
    fast=True,
)
WRITE_6 = declare(
    0x0A, "WRITE (6)", "opcode:B lba:B low:H length:B control:B", "0A 1F FF FF FF 04", WRITES, fast=True
)
WRITE_10 = declare(
    0x2A,
    "WRITE (10)",
    "opcode:B flags:B lba:I group:B length:H control:B",
    "2A F8 FF FF FF FF 00 FF FF 04",
    WRITES,
    fast=True,
)
WRITE_12 = declare(
    0xAA,
    "WRITE (12)",
    "opcode:B flags:B lba:I length:I group:B control:B",
    "AA F8 FF FF FF FF FF FF FF FF 00 04",
    WRITES,
    fast=True,
)
WRITE_16 = declare(
    0x8A,
    "WRITE (16)",
    "opcode:B flags:B lba:Q length:I group:B control:B",
    "8A F8 FF FF FF FF FF FF FF FF FF FF FF FF 00 04",
    WRITES,
    fast=True,
)
SYNCHRONIZE_CACHE_10 = declare(
    0x35,
    "SYNCHRONIZE CACHE (10)",
    "opcode:B flags:B lba:I group:B length:H control:B",
    "35 02 FF FF FF FF 00 FF FF 04",
    MEDIUM,
)
SYNCHRONIZE_CACHE_16 = declare(
    0x91,
    "SYNCHRONIZE CACHE (16)",
    "opcode:B flags:B lba:Q length:I group:B control:B",
    "91 02 FF FF FF FF FF FF FF FF FF FF FF FF 00 04",
    MEDIUM,
)
WRITE_SAME_10 = declare(
    0x41,
    "WRITE SAME (10)",
    "opcode:B flags:B lba:I group:B length:H control:B",
    "41 FE FF FF FF FF 00 FF FF 04",
    WRITES,
)
WRITE_SAME_16 = declare(
    0x93,
    "WRITE SAME (16)",
    "opcode:B flags:B lba:Q length:I group:B control:B",
    "93 FF FF FF FF FF FF FF FF FF FF FF FF FF 00 04",
    WRITES,
)
UNMAP = declare(
    0x42,
    "UNMAP",
    "opcode:B flags:B _:4x group:B length:H control:B",
    "42 01 00 00 00 00 00 FF FF 04",
    WRITES,
    condition="thin",
)
VERIFY_10 = declare(
    0x2F,
    "VERIFY (10)",
    "opcode:B flags:B lba:I group:B length:H control:B",
    "2F F6 FF FF FF FF 00 FF FF 04",
    READS,
)
VERIFY_12 = declare(
    0xAF,
    "VERIFY (12)",
    "opcode:B flags:B lba:I length:I group:B control:B",
    "AF F6 FF FF FF FF FF FF FF FF 00 04",
    READS,
)
VERIFY_16 = declare(
    0x8F,
    "VERIFY (16)",
    "opcode:B flags:B lba:Q length:I group:B control:B",
    "8F F6 FF FF FF FF FF FF FF FF FF FF FF FF 00 04",
    READS,
)
WRITE_AND_VERIFY_10 = declare(
    0x2E,
    "WRITE AND VERIFY (10)",
    "opcode:B flags:B lba:I group:B length:H control:B",
    "2E F6 FF FF FF FF 00 FF FF 04",
    WRITES,
)
WRITE_AND_VERIFY_12 = declare(
    0xAE,
    "WRITE AND VERIFY (12)",
    "opcode:B flags:B lba:I length:I group:B control:B",
    "AE F6 FF FF FF FF FF FF FF FF 00 04",
    WRITES,
)
WRITE_AND_VERIFY_16 = declare(
    0x8E,
    "WRITE AND VERIFY (16)",
    "opcode:B flags:B lba:Q length:I group:B control:B",
    "8E F6 FF FF FF FF FF FF FF FF FF FF FF FF 00 04",
    WRITES,
)
PREFETCH_10 = declare(
    0x34,
    "PRE-FETCH (10)",
    "opcode:B flags:B lba:I group:B length:H control:B",
    "34 02 FF FF FF FF 00 FF FF 04",
    READS,
)
PREFETCH_16 = declare(
    0x90,
    "PRE-FETCH (16)",
    "opcode:B flags:B lba:Q length:I group:B control:B",
    "90 02 FF FF FF FF FF FF FF FF FF FF FF FF 00 04",
    READS,
)
ORWRITE_16 = declare(
    0x8B,
    "ORWRITE (16)",
    "opcode:B flags:B lba:Q length:I group:B control:B",
    "8B F8 FF FF FF FF FF FF FF FF FF FF FF FF 00 04",
    WRITES,
)
COMPARE_AND_WRITE = declare(
    0x89,
    "COMPARE AND WRITE",
    "opcode:B flags:B lba:Q _:3x length:B group:B control:B",
    "89 F8 FF FF FF FF FF FF FF FF 00 00 00 FF 00 04",
    WRITES,
)
START_STOP_UNIT = declare(
    0x1B,
    "START STOP UNIT",
    "opcode:B flags:B _:x modifier:B options:B control:B",
    "1B 01 00 0F F7 04",
    SHARED,
)
PREVENT_ALLOW = declare(
    0x1E, "PREVENT ALLOW MEDIUM REMOVAL", "opcode:B _:3x options:B control:B", "1E 00 00 00 03 04", SHARED
)
