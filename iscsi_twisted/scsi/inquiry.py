# -*- test-case-name: tests.scsi.test_inquiry -*-
"""INQUIRY: what a unit is (SPC-4 6.6).  Its VPD pages are in L{iscsi_twisted.scsi.vpd}."""

from __future__ import annotations

import struct
from typing import Final

from iscsi_twisted.interfaces import ITask
from iscsi_twisted.scsi import cdb
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.unit import LogicalUnit, reply

COMMANDS = CommandSet()

STANDARD_SIZE: Final = 96
SPC_4: Final = 0x06
HISUP_FORMAT_2: Final = 0x12
"""LUNs as SAM says, response data format 2."""
NORMACA: Final = 0x20
"""Commands may ask for auto contingent allegiance (SAM-5 5.9)."""
THIRD_PARTY_COPY: Final = 0x08
"""3PC: there is EXTENDED COPY."""
CMDQUE: Final = 0x02
"""Commands are queued (SAM-5 full task management model)."""
PRIMARY_VERSIONS: Final = (0x00A0, 0x0960, 0x0460)
"""SAM-5, iSCSI, SPC-4; no version claimed."""

_STANDARD = struct.Struct(">BBBBBBBB8s16s4s22x8H22x")

_EVPD: Final = 0x01
_CMDDT: Final = 0x02
"""Obsolete since SPC-3: command support data."""


RMB: Final = 0x80
"""The medium can be taken out."""


def standardData(unit: LogicalUnit) -> bytes:
    """The 96 bytes of standard INQUIRY data."""
    identity = unit.identity
    names = (identity.vendor.ljust(8), identity.product.ljust(16), identity.revision.ljust(4))
    versions = unit.versions + (0,) * (8 - len(unit.versions))
    return _STANDARD.pack(
        unit.peripheral,
        RMB if unit.removable else 0,
        SPC_4,
        HISUP_FORMAT_2 | (NORMACA if unit.normalACA else 0),
        STANDARD_SIZE - 5,
        unit.paths.tpgs << 4 | (THIRD_PARTY_COPY if unit.copyable else 0),
        0,
        CMDQUE,
        *(name.encode("ascii") for name in names),
        *versions,
    )


@COMMANDS.handles(cdb.INQUIRY)
def inquiry(unit: LogicalUnit, task: ITask) -> None:
    """INQUIRY; SPC-4 6.6."""
    _, flags, page, allocation, _ = cdb.INQUIRY.layout.unpack(task.cdb)
    if flags & _CMDDT:
        raise unit.invalidField(task, "flags", 1)
    if flags & _EVPD:
        build = unit.pages.get(page)
        if build is None:
            raise unit.invalidField(task, "page", 7)
        data = build(unit, task)
        head = struct.pack(">BBH", unit.peripheral, page, len(data))
        reply(task, head + data, allocation)
    elif page:
        raise unit.invalidField(task, "page", 7)
    else:
        reply(task, standardData(unit), allocation)
