# -*- test-case-name: tests.scsi.test_optical -*-
"""A read-only optical unit: a CD or DVD drive whose disc is an image (MMC-6)."""

from __future__ import annotations

from typing import Any, Final

from iscsi_twisted.interfaces import IBlockDevice, INexus
from iscsi_twisted.scsi import (
    capacity,
    cdb,
    disc,
    inquiry,
    logs,
    modes,
    transfer,
    verify,
    vpd,
)
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.modes import ModePage, Settings, fixed
from iscsi_twisted.scsi.table import CommandTable
from iscsi_twisted.scsi.upkeep import SHARED

BLOCK: Final = 2048
"""Bytes of a block of data."""
MULTI_MEDIA: Final = 0x05
"""Peripheral device type, SPC-4 table 138."""
VERSIONS: Final = (*inquiry.PRIMARY_VERSIONS, 0x04E0)
"""The last is MMC-6; no version claimed."""

_ABILITIES: Final = bytes(
    (
        0x0B,  # reads CD-R, CD-RW and DVD-ROM
        0,  # writes nothing
        0, 0,  # plays nothing
        0x29,  # a tray that can be ejected and locked
        0,
    )
)  # fmt: skip


def abilities(settings: Settings) -> bytes:
    """C/DVD capabilities and mechanical status; MMC-3 5.5.10, which initiators go on asking for."""
    return _ABILITIES.ljust(30, b"\0")


MODE_PAGES: Final[tuple[ModePage, ...]] = (
    fixed(0x01, 10),  # read error recovery, MMC-6 7.3: a device does what it can by itself
    *(
        page
        for page in modes.PAGES
        if (page.code, page.subpage) in ((0x0A, 0), (0x0A, 1), (0x1A, 0), (0x1C, 0))
    ),
    ModePage(0x2A, 0, abilities, lambda unit: bytes(30)),
)
"""In ascending order."""

LOG_PAGES: Final = tuple(page for page in logs.PAGES if page.code in (0x03, 0x05, 0x06, 0x0E, 0x10, 0x19))


class OpticalUnit(DiskUnit):
    """
    A drive with an image in it.

    @ivar events: what happened to the medium that a nexus has not been told yet.
    """

    peripheral = MULTI_MEDIA
    versions = VERSIONS
    describesBlocks = False
    copyable = False
    table = CommandTable(
        *SHARED,
        capacity.COMMANDS.only(cdb.READ_CAPACITY_10),
        transfer.COMMANDS.only(cdb.READ_10, cdb.READ_12),
        verify.COMMANDS.only(cdb.VERIFY_10),
        disc.COMMANDS,
    )
    pages = vpd.PRIMARY_PAGES
    modePages = MODE_PAGES
    logPages = LOG_PAGES

    def __init__(self, device: IBlockDevice, **how: Any) -> None:
        """@param how: as for L{DiskUnit}, but what an optical unit cannot be."""
        self.events: dict[INexus, int] = {}
        super().__init__(
            device, blockSize=BLOCK, physicalBlockSize=BLOCK, readOnly=True, thin=False, removable=True, **how
        )

    @property
    def profile(self) -> int:
        """What is in it; MMC-6 5.3.1."""
        if self.notReady:
            return disc.NO_PROFILE
        return disc.CD_ROM if self.blockCount <= disc.CD_BLOCKS else disc.DVD_ROM

    def eject(self) -> None:
        """See L{DiskUnit}; the event is told as well."""
        if not self.ejected:
            self._happened(disc.MEDIA_REMOVAL)
        super().eject()

    def load(self, nexus: INexus) -> None:
        """See L{DiskUnit}; the event is told as well."""
        if self.ejected:
            self._happened(disc.NEW_MEDIA)
        super().load(nexus)

    def become(self, other: DiskUnit, *, replaced: bool = False) -> list[int]:
        """See L{DiskUnit}; another image is another disc."""
        if replaced and not self.ejected:
            self._happened(disc.NEW_MEDIA)
        return super().become(other, replaced=replaced)

    def _happened(self, event: int) -> None:
        for nexus in self._attentions.known:
            self.events[nexus] = event

    def nexusLost(self, nexus: INexus) -> None:
        """See L{DiskUnit}."""
        self.events.pop(nexus, None)
        super().nexusLost(nexus)
