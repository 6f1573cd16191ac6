# -*- test-case-name: tests.scsi.test_cdb -*-
"""
The shape of commands of every device type that are seldom sent: as in L{iscsi_twisted.scsi.cdb}.
"""

from __future__ import annotations

from iscsi_twisted.scsi.cdb import SHARED, STEERS, declare

_BUFFER = "opcode:B mode:B buffer:B offsetHigh:B offset:H {0}High:B {0}:H control:B"

WRITE_BUFFER = declare(
    0x3B, "WRITE BUFFER", _BUFFER.format("length"), "3B 1F FF FF FF FF FF FF FF 04", STEERS
)
READ_BUFFER = declare(0x3C, "READ BUFFER (10)", _BUFFER.format("allocation"), "3C 1F FF FF FF FF FF FF FF 04")
REPORT_IDENTIFYING = declare(
    0xA3,
    "REPORT IDENTIFYING INFORMATION",
    "opcode:B action:B _:4x allocation:I type:B control:B",
    "A3 05 00 00 00 00 FF FF FF FF FE 04",
    SHARED,
    serviceAction=0x05,
    condition="nonvolatile",
)
REPORT_TIMESTAMP = declare(
    0xA3,
    "REPORT TIMESTAMP",
    "opcode:B action:B _:4x allocation:I _:x control:B",
    "A3 0F 00 00 00 00 FF FF FF FF 00 04",
    SHARED,
    serviceAction=0x0F,
)
SET_IDENTIFYING = declare(
    0xA4,
    "SET IDENTIFYING INFORMATION",
    "opcode:B action:B _:4x length:I type:B control:B",
    "A4 06 00 00 00 00 FF FF FF FF FE 04",
    STEERS,
    serviceAction=0x06,
    condition="nonvolatile",
)
SET_TIMESTAMP = declare(
    0xA4,
    "SET TIMESTAMP",
    "opcode:B action:B _:4x length:I _:x control:B",
    "A4 0F 00 00 00 00 FF FF FF FF 00 04",
    STEERS,
    serviceAction=0x0F,
)
RECEIVE_DIAGNOSTIC = declare(
    0x1C,
    "RECEIVE DIAGNOSTIC RESULTS",
    "opcode:B flags:B page:B allocation:H control:B",
    "1C 01 FF FF FF 04",
)
SEND_DIAGNOSTIC = declare(
    0x1D, "SEND DIAGNOSTIC", "opcode:B flags:B _:x length:H control:B", "1D F7 00 FF FF 04", STEERS
)
