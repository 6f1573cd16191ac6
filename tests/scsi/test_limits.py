"""VPD page B0h: what the initiators that there are want of the limits (SBC-3 6.6.4), for every block size."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from iscsi_twisted.scsi import cdb
from iscsi_twisted.scsi.disk import BLOCK_SIZES
from tests.scsi.cases import DiskTests
from tests.scsi.devices import THIN, MemoryDisk

MIB = 1 << 20
PAGE = 4096


class Limits(NamedTuple):
    """The page, in bytes where it counts blocks; and the sizes of blocks."""

    sameZero: int
    compare: int
    granularity: int
    transfer: int
    optimal: int
    prefetch: int
    unmap: int
    descriptors: int
    unmapGranularity: int
    alignment: int
    same: int
    block: int
    physical: int


WANTED: list[tuple[str, Callable[[Limits], bool]]] = [
    ("Linux: the optimal transfer is whole physical blocks", lambda it: it.optimal % it.physical == 0),
    ("Linux: the optimal transfer is a page at least", lambda it: it.optimal >= PAGE),
    ("Linux: the optimal transfer can be done", lambda it: it.optimal <= it.transfer),
    ("Linux: the longest transfer is whole physical blocks", lambda it: it.transfer % it.physical == 0),
    ("Linux: unmapping is possible", lambda it: it.unmap > 0 and it.descriptors > 0),
    ("Linux: unmapping does something below the limit", lambda it: it.unmap >= it.unmapGranularity),
    ("Linux: WRITE SAME (10) can say the limit, or (16) is tried", lambda it: it.same >= it.block),
    ("VMware: ATS needs one block", lambda it: it.compare >= it.block),
    ("VMware: VMFS frees pieces of 1 MiB", lambda it: MIB % it.unmapGranularity == 0),
    ("VMware: VMFS frees 1 MiB in one go", lambda it: it.unmap >= MIB),
    ("VMware: 1 MiB is cleared in one go", lambda it: it.same >= MIB),
    ("Windows: granularity is a power of two", lambda it: it.unmapGranularity.bit_count() == 1),
    ("Windows: its allocation unit of 64 KiB can be unmapped", lambda it: it.unmap >= 64 << 10),
    ("Windows: the alignment of what is unmapped is valid", lambda it: it.alignment == 0x80000000),
    ("QEMU: requests of 1 MiB are served", lambda it: it.transfer >= MIB),
    ("FreeBSD: transfers of 1 MiB are served", lambda it: it.transfer >= MIB),
    ("firmware: the smallest request is one block", lambda it: it.granularity <= it.transfer),
]
"""Who wants what."""


class LimitTests(DiskTests):
    """Limits for initiators."""

    def limits(self, block: int, physical: int) -> Limits:
        """What a unit with such blocks tells."""
        unit = self.makeUnit(MemoryDisk(64 * MIB, THIN), blockSize=block, physicalBlockSize=physical)
        data = self.good(cdb.INQUIRY, unit=unit, flags=1, page=0xB0, allocation=255)
        self.assertEqual(len(data), 64)
        found = list(struct.unpack_from(">BBHIIIIIIIQ", data, 4))
        for place in (1, 2, 3, 4, 5, 6, 8, 10):
            found[place] *= block
        return Limits(*found, block, physical)

    def test_wanted(self) -> None:
        """Whatever the blocks, each initiator finds what it wants (but VMFS, above blocks of 1 MiB)."""
        for block in BLOCK_SIZES:
            for physical in (block, 4096, 65536, MIB):
                if physical < block:
                    continue
                limits = self.limits(block, physical)
                wrong = [what for what, fits in WANTED if not fits(limits)]
                self.assertEqual(wrong, [], f"{block} on {physical}")
