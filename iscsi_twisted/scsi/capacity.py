# -*- test-case-name: tests.scsi.test_disk -*-
"""READ CAPACITY: how many blocks there are, and how large they are (SBC-3 5.15, 5.16)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from iscsi_twisted.interfaces import ITask
from iscsi_twisted.scsi import cdb
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.unit import reply

if TYPE_CHECKING:
    from iscsi_twisted.scsi.disk import DiskUnit

COMMANDS = CommandSet()


@COMMANDS.handles(cdb.READ_CAPACITY_10)
def readCapacity10(unit: DiskUnit, task: ITask) -> None:
    """READ CAPACITY (10); SBC-3 5.15.  The obsolete PMI and LBA are ignored."""
    task.complete(struct.pack(">II", min(unit.blockCount - 1, 0xFFFFFFFF), unit.blockSize))


@COMMANDS.handles(cdb.READ_CAPACITY_16)
def readCapacity16(unit: DiskUnit, task: ITask) -> None:
    """READ CAPACITY (16); SBC-3 5.16."""
    _, _, allocation, _ = cdb.READ_CAPACITY_16.layout.unpack(task.cdb)
    exponent = (unit.physicalBlockSize // unit.blockSize).bit_length() - 1
    provisioned = (0x8000 if unit.thin else 0) | (0x4000 if unit.thin and unit.unmappedZeroes else 0)
    data = struct.pack(">QIxBH16x", unit.blockCount - 1, unit.blockSize, exponent, provisioned)
    reply(task, data, allocation)
