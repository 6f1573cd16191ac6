# -*- test-case-name: tests.scsi.test_modes -*-
"""Mode parameters (SPC-4 7.5, SBC-3 6.5): MODE SENSE and the pages of a disk."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import attrs

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import ITask
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.unit import reply

if TYPE_CHECKING:
    from iscsi_twisted.scsi.disk import DiskUnit

COMMANDS = CommandSet()

CURRENT, CHANGEABLE, DEFAULT, SAVED = range(4)
"""Page control, SPC-4 6.13.1."""
ALL_PAGES: Final = 0x3F
ALL_SUBPAGES: Final = 0xFF

_DBD: Final = 0x08
_LLBAA: Final = 0x10
_WP: Final = 0x80
_DPOFUA: Final = 0x10


@attrs.frozen
class ModePage:
    """
    One mode page.

    @ivar code: page code.
    @ivar body: the current parameters of a unit, without the two bytes of the head.
    @ivar changeable: ones where MODE SELECT may change the body.
    """

    code: int
    body: Callable[[DiskUnit], bytes]
    changeable: bytes

    def encode(self, unit: DiskUnit, control: int) -> bytes:
        """The whole page, for one of the page controls."""
        # While nothing can be changed the default values are the current ones.
        body = self.changeable if control == CHANGEABLE else self.body(unit)
        return bytes((self.code, len(body))) + body


def caching(unit: DiskUnit) -> bytes:
    """Caching: WCE says whether written data may be in a volatile cache; SBC-3 6.5.5."""
    return bytes((0x04 if unit.volatileCache else 0x00,)) + bytes(17)


def control(unit: DiskUnit) -> bytes:
    """Control: D_SENSE, no log parameters, commands in any order; SPC-4 7.5.8."""
    return bytes((0x04 * unit.descriptorSense | 0x02, 0x10)) + bytes(8)


def informationalExceptions(unit: DiskUnit) -> bytes:
    """Informational exceptions control: none are reported (DEXCPT); SBC-3 6.5.8."""
    return bytes((0x08,)) + bytes(9)


PAGES: Final = (
    ModePage(0x08, caching, bytes(18)),
    ModePage(0x0A, control, bytes(10)),
    ModePage(0x1C, informationalExceptions, bytes(10)),
)
"""In ascending order, as page code 3Fh wants them."""


def _chosen(unit: DiskUnit, task: ITask, code: int, subpage: int) -> Iterator[ModePage]:
    """The pages that a page code and subpage code ask for."""
    wanted = [page for page in PAGES if code in (page.code, ALL_PAGES)]
    if not wanted:
        raise unit.invalidField(task, "page", 5)
    if subpage not in (0, ALL_SUBPAGES):
        raise unit.invalidField(task, "subpage", 7)
    yield from wanted


def _pages(unit: DiskUnit, task: ITask, page: int, subpage: int) -> bytes:
    pageControl = page >> 6
    if pageControl == SAVED:
        raise CheckCondition(codes.ILLEGAL_REQUEST, codes.SAVING_NOT_SUPPORTED, field=2, bit=7)
    return b"".join(each.encode(unit, pageControl) for each in _chosen(unit, task, page & 0x3F, subpage))


def _blockDescriptor(unit: DiskUnit) -> bytes:
    """Short LBA mode parameter block descriptor; SBC-3 6.5.2.2."""
    return struct.pack(">II", min(unit.blockCount, 0xFFFFFFFF), unit.blockSize)


def _longDescriptor(unit: DiskUnit) -> bytes:
    """Long LBA mode parameter block descriptor; SBC-3 6.5.2.3."""
    return struct.pack(">Q4xI", unit.blockCount, unit.blockSize)


def _specific(unit: DiskUnit, task: ITask) -> int:
    """The device-specific parameter: WP and DPOFUA; SBC-3 6.5.1."""
    return _DPOFUA | (_WP if unit.readOnly or task.nexus.readOnly else 0)


@COMMANDS.handles(cdb.MODE_SENSE_6)
def modeSense6(unit: DiskUnit, task: ITask) -> None:
    """MODE SENSE (6); SPC-4 6.13."""
    _, flags, page, subpage, allocation, _ = cdb.MODE_SENSE_6.layout.unpack(task.cdb)
    pages = _pages(unit, task, page, subpage)
    descriptor = b"" if flags & _DBD else _blockDescriptor(unit)
    length = 3 + len(descriptor) + len(pages)
    head = bytes((length, 0, _specific(unit, task), len(descriptor)))
    reply(task, head + descriptor + pages, allocation)


@COMMANDS.handles(cdb.MODE_SENSE_10)
def modeSense10(unit: DiskUnit, task: ITask) -> None:
    """MODE SENSE (10); SPC-4 6.14."""
    _, flags, page, subpage, allocation, _ = cdb.MODE_SENSE_10.layout.unpack(task.cdb)
    pages = _pages(unit, task, page, subpage)
    long = bool(flags & _LLBAA) and not flags & _DBD
    descriptor = b"" if flags & _DBD else _longDescriptor(unit) if long else _blockDescriptor(unit)
    length = 6 + len(descriptor) + len(pages)
    head = struct.pack(">HBBBxH", length, 0, _specific(unit, task), long, len(descriptor))
    reply(task, head + descriptor + pages, allocation)
