# -*- test-case-name: tests.scsi.test_disk -*-
"""A direct access block device: SCSI blocks over a block device's bytes (SBC-3)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from time import perf_counter
from typing import Final

from iscsi_twisted.errors import LocalError
from iscsi_twisted.interfaces import Capabilities, IBlockDevice, ITask
from iscsi_twisted.scsi import (
    cdb,
    codes,
    inquiry,
    inventory,
    lbastatus,
    modes,
    primary,
    provisioning,
    supported,
    transfer,
    vpd,
)
from iscsi_twisted.scsi.identity import Identity
from iscsi_twisted.scsi.table import CommandSet, CommandTable
from iscsi_twisted.scsi.unit import LogicalUnit, Report, reply

COMMANDS = CommandSet()

BLOCK_SIZES: Final = (512, 1024, 2048, 4096, 8192)

# Bounds of one command, in bytes; told to initiators in VPD page B0h.
TRANSFER_LIMIT: Final = 16 << 20
"""Of READ and WRITE: what one task may hold in memory."""
OPTIMAL_TRANSFER: Final = 1 << 20
SAME_LIMIT: Final = 32 << 20
"""Of WRITE SAME: a device that answers at once writes it in some milliseconds."""
UNMAP_LIMIT: Final = 512 << 20
"""Of UNMAP: punching holes costs time for each piece of the file; no initiator expects above 2**20 blocks."""
DESCRIPTOR_LIMIT: Final = 256
"""Descriptors of one UNMAP."""


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


class DiskUnit(LogicalUnit):
    """
    A disk.

    @ivar blockCount: logical blocks; what a device has beyond the last whole one is not exported.
    @ivar readOnly: nobody may write.
    @ivar thin: blocks can be unmapped.
    @ivar volatileCache: written blocks may be lost until they are flushed.
    @ivar unmappedZeroes: unmapped blocks read as zeros.
    @ivar transferLimit: blocks of one READ or WRITE.
    """

    table = CommandTable(
        primary.COMMANDS,
        inquiry.COMMANDS,
        inventory.COMMANDS,
        modes.COMMANDS,
        supported.COMMANDS,
        COMMANDS,
        transfer.COMMANDS,
        provisioning.COMMANDS,
        lbastatus.COMMANDS,
    )
    pages = vpd.DISK_PAGES

    def __init__(
        self,
        device: IBlockDevice,
        *,
        identity: Identity,
        report: Report,
        blockSize: int = 512,
        physicalBlockSize: int | None = None,
        readOnly: bool = False,
        thin: bool | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        """
        @param report: told of what nobody expected.
        @param blockSize: bytes of a logical block: 512, 1024, 2048, 4096 or 8192.
        @param physicalBlockSize: bytes that the medium is written by; a power of two times C{blockSize}.
        @param thin: whether blocks can be unmapped; None for whatever the device can do.
        @raise LocalError: if the sizes do not fit.
        """
        super().__init__(identity, report, clock=clock)
        physical = max(blockSize, 4096) if physicalBlockSize is None else physicalBlockSize
        ratio = physical // blockSize if blockSize in BLOCK_SIZES else 0
        if ratio * blockSize != physical or not ratio or ratio & (ratio - 1):
            raise LocalError(f"blocks of {blockSize} bytes on physical blocks of {physical} bytes")
        self.device = device
        self.blockSize = blockSize
        self.physicalBlockSize = physical
        self.transferLimit = TRANSFER_LIMIT // blockSize
        self.optimalTransfer = OPTIMAL_TRANSFER // blockSize
        self.sameLimit = SAME_LIMIT // blockSize
        self.unmapLimit = UNMAP_LIMIT // blockSize
        self.descriptorLimit = DESCRIPTOR_LIMIT
        self.blockCount = 0
        self._open = False
        self._wantsReadOnly = readOnly
        self._wantsThin = thin
        self._learn(Capabilities(readOnly=True))
        self._unready(codes.BECOMING_READY)

    # The device's life

    def opened(self) -> None:
        """
        The device is open: learn its size and what it can do, and be ready.

        @raise LocalError: if its blocks do not divide a logical block.
        """
        if self.blockSize % self.device.blockSize:
            raise LocalError(f"blocks of {self.blockSize} bytes on a device of {self.device.blockSize}")
        self._learn(self.device.capabilities())
        self._open = True
        self._measure()

    def closed(self) -> None:
        """The device is gone: refuse what needs it."""
        self._open = False
        self._unready(codes.NOT_READY_CAUSE_NOT_REPORTABLE)

    def changed(self) -> None:
        """The device's C{changed}: its size may be another one."""
        if self._open and self.device.size // self.blockSize != self.blockCount:
            self.capacityChanged()

    def capacityChanged(self) -> None:
        """Take over the device's size, and let every nexus know."""
        self._measure()
        self.attention(codes.CAPACITY_CHANGED)

    def _measure(self) -> None:
        self.blockCount = self.device.size // self.blockSize
        # A device without a single block has nothing to be ready with.
        self._unready(0 if self.blockCount else codes.NOT_READY_CAUSE_NOT_REPORTABLE)

    def _unready(self, why: int) -> None:
        self.notReady = why
        self.reconsider()

    def _learn(self, able: Capabilities) -> None:
        self.readOnly = self._wantsReadOnly or able.readOnly
        self.thin = able.discard if self._wantsThin is None else self._wantsThin
        self.volatileCache = able.volatileCache
        self.unmappedZeroes = able.discardZeroes
        self.cheapZeroes = able.zero
        self.tellsAllocation = able.allocated
        self.rotational = able.rotational
