# -*- test-case-name: tests.scsi.test_cdb -*-
"""
The shape of the commands that take long, or take care: as in L{iscsi_twisted.scsi.cdb}.
"""

from __future__ import annotations

from iscsi_twisted.scsi.cdb import STEERS, WRITES, Command, declare

WRITE_ATOMIC_16 = declare(
    0x9C,
    "WRITE ATOMIC (16)",
    "opcode:B flags:B lba:Q boundary:H length:H group:B control:B",
    "9C F8 FF FF FF FF FF FF FF FF FF FF FF FF 00 04",
    WRITES,
    condition="atomicLimit",
)


def _sanitize(action: int, name: str, usage: str, access: int, condition: str) -> Command:
    """A service action of SANITIZE; SBC-4 5.30."""
    return declare(
        0x48,
        f"SANITIZE ({name})",
        "opcode:B action:B _:5x length:H control:B",
        usage,
        access,
        serviceAction=action,
        condition=condition,
    )


SANITIZE_OVERWRITE = _sanitize(0x01, "OVERWRITE", "48 A1 00 00 00 00 00 FF FF 04", WRITES, "forgets")
SANITIZE_BLOCK_ERASE = _sanitize(0x02, "BLOCK ERASE", "48 A2 00 00 00 00 00 FF FF 04", WRITES, "erases")
SANITIZE_CRYPTO_ERASE = _sanitize(
    0x03, "CRYPTOGRAPHIC ERASE", "48 A3 00 00 00 00 00 FF FF 04", WRITES, "rekeys"
)
SANITIZE_EXIT_FAILURE_MODE = _sanitize(
    0x1F, "EXIT FAILURE MODE", "48 9F 00 00 00 00 00 FF FF 04", STEERS, "sanitizes"
)
FORMAT_UNIT = declare(
    0x04, "FORMAT UNIT", "opcode:B flags:B _:2x fast:B control:B", "04 FF 00 00 03 04", WRITES
)


EXTENDED_COPY = declare(
    0x83,
    "EXTENDED COPY (LID1)",
    "opcode:B action:B _:8x length:I _:x control:B",
    "83 00 00 00 00 00 00 00 00 00 FF FF FF FF 00 04",
    serviceAction=0x00,
)


def _receive(action: int, name: str, usage: str) -> Command:
    """A service action of RECEIVE COPY RESULTS; SPC-3 6.18."""
    return declare(
        0x84,
        f"RECEIVE COPY RESULTS ({name})",
        "opcode:B action:B list:B _:7x allocation:I _:x control:B",
        usage,
        serviceAction=action,
    )


COPY_STATUS = _receive(0x00, "COPY STATUS", "84 00 FF 00 00 00 00 00 00 00 FF FF FF FF 00 04")
RECEIVE_DATA = _receive(0x01, "RECEIVE DATA", "84 01 FF 00 00 00 00 00 00 00 FF FF FF FF 00 04")
OPERATING_PARAMETERS = _receive(
    0x03, "OPERATING PARAMETERS", "84 03 FF 00 00 00 00 00 00 00 FF FF FF FF 00 04"
)
FAILED_SEGMENT_DETAILS = _receive(
    0x04, "FAILED SEGMENT DETAILS", "84 04 FF 00 00 00 00 00 00 00 FF FF FF FF 00 04"
)
