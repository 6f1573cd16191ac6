# -*- test-case-name: tests.scsi.test_optical -*-
"""
The shape of the commands of optical units (MMC-6): as in L{iscsi_twisted.scsi.cdb}.
"""

from __future__ import annotations

from iscsi_twisted.scsi.cdb import EXEMPT, MEDIUM, READS, declare

READ_TOC = declare(
    0x43,
    "READ TOC/PMA/ATIP",
    "opcode:B flags:B format:B _:3x track:B allocation:H control:B",
    "43 02 0F 00 00 00 FF FF FF C4",
    READS,
)
GET_CONFIGURATION = declare(
    0x46,
    "GET CONFIGURATION",
    "opcode:B type:B start:H _:3x allocation:H control:B",
    "46 03 FF FF 00 00 00 FF FF 04",
    EXEMPT,
)
GET_EVENT_STATUS = declare(
    0x4A,
    "GET EVENT STATUS NOTIFICATION",
    "opcode:B flags:B _:2x classes:B _:2x allocation:H control:B",
    "4A 01 00 00 FF 00 00 FF FF 04",
    EXEMPT,
)
READ_DISC_INFORMATION = declare(
    0x51,
    "READ DISC INFORMATION",
    "opcode:B type:B _:5x allocation:H control:B",
    "51 07 00 00 00 00 00 FF FF 04",
    MEDIUM,
)
READ_DISC_STRUCTURE = declare(
    0xAD,
    "READ DISC STRUCTURE",
    "opcode:B media:B address:I layer:B format:B allocation:H _:x control:B",
    "AD 0F 00 00 00 00 FF FF FF FF 00 04",
    MEDIUM,
)
MECHANISM_STATUS = declare(
    0xBD,
    "MECHANISM STATUS",
    "opcode:B _:7x allocation:H _:x control:B",
    "BD 00 00 00 00 00 00 00 FF FF 00 04",
)
