# -*- test-case-name: tests.scsi.test_cdb -*-
"""
The shape of the commands that take long, or take care: as in L{iscsi_twisted.scsi.cdb}.
"""

from __future__ import annotations

from iscsi_twisted.scsi.cdb import WRITES, declare

WRITE_ATOMIC_16 = declare(
    0x9C,
    "WRITE ATOMIC (16)",
    "opcode:B flags:B lba:Q boundary:H length:H group:B control:B",
    "9C F8 FF FF FF FF FF FF FF FF FF FF FF FF 00 04",
    WRITES,
    condition="atomicLimit",
)
