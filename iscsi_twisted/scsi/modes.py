# -*- test-case-name: tests.scsi.test_modes -*-
"""
Mode parameters (SPC-4 7.5, SBC-3 6.5): MODE SENSE and the pages of a disk.

MODE SELECT is in L{iscsi_twisted.scsi.modeselect}.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import attrs

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import ITask
from iscsi_twisted.scsi import cdb, codes, thresholds
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.thresholds import Fault
from iscsi_twisted.scsi.unit import reply

if TYPE_CHECKING:
    from iscsi_twisted.scsi.disk import DiskUnit

COMMANDS = CommandSet()

CURRENT, CHANGEABLE, DEFAULT, SAVED = range(4)
"""Page control, SPC-4 6.13.1."""
ALL_PAGES: Final = 0x3F
ALL_SUBPAGES: Final = 0xFF

_PS: Final = 0x80
_SPF: Final = 0x40
_DBD: Final = 0x08
_LLBAA: Final = 0x10
_WP: Final = 0x80
_QERR_RESERVED: Final = 2
_INTERLOCK_RESERVED: Final = 1
_DPOFUA: Final = 0x10


# What MODE SELECT can change, as it stands in the bodies of the pages.
WCE: Final = 0x04
D_SENSE: Final = 0x04
QERR: Final = 0x06
UA_INTLCK: Final = 0x30
SWP: Final = 0x08
TAS: Final = 0x40
LBPERE: Final = 0x80


@attrs.define
class Settings:
    """
    What initiators have set, for all of them together (SPC-4 5.10: shared mode pages).

    @ivar writeCache: WCE: written data may be lost until they are flushed.
    @ivar descriptorSense: D_SENSE: sense data have descriptor format.
    @ivar queueError: QERR: which tasks a CHECK CONDITION aborts: 0 none, 1 all, 3 those of its nexus.
    @ivar interlock: UA_INTLCK_CTRL: whether unit attentions stay until REQUEST SENSE: 0 no, 2 yes, 3 and
        statuses that turn a command away establish one.
    @ivar softwareProtected: SWP: nobody may write.
    @ivar tellsAborted: TAS: a task that another nexus aborts ends with TASK ABORTED.
    @ivar reportsThresholds: LBPERE: initiators are told when a threshold is reached.
    @ivar tellsOne: SITUA: one of them is enough.
    @ivar thresholds: of the space for a thin unit.
    """

    writeCache: bool = False
    descriptorSense: bool = False
    queueError: int = 0
    interlock: int = 0
    softwareProtected: bool = False
    tellsAborted: bool = False
    reportsThresholds: bool = False
    tellsOne: bool = False
    thresholds: tuple[thresholds.Threshold, ...] = thresholds.NONE


def _nothing(settings: Settings, body: bytes) -> None:
    """What MODE SELECT does with a page of which nothing can be changed."""


def _faultless(settings: Settings) -> Fault | None:
    """What is wrong with settings where nothing can be."""
    return None


def _sameMask(mask: bytes) -> Callable[[DiskUnit], bytes]:
    return lambda unit: mask


@attrs.frozen
class ModePage:
    """
    One mode page.

    @ivar code: page code.
    @ivar subpage: subpage code; 0 for a page in page_0 format (SPC-4 7.5.7).
    @ivar body: the parameters that go with settings, without the head of the page.
    @ivar changeable: ones where MODE SELECT may change the body.
    @ivar apply: puts a body into settings.
    @ivar condition: name of the unit's attribute that must be true for the page to exist, or None.
    @ivar fault: where in the body something is that makes no sense, after C{apply}.
    """

    code: int
    subpage: int
    body: Callable[[Settings], bytes]
    changeable: Callable[[DiskUnit], bytes]
    apply: Callable[[Settings, bytes], None] = _nothing
    condition: str | None = None
    fault: Callable[[Settings], Fault | None] = _faultless

    @property
    def saveable(self) -> bool:
        """Whether there is something in it to be saved."""
        return self.apply is not _nothing

    def encode(self, unit: DiskUnit, control: int) -> bytes:
        """The whole page, for one of the page controls."""
        if control == CHANGEABLE:
            body = self.changeable(unit)
        else:
            body = self.body((unit.settings, unit.settings, unit.defaults, unit.lasting())[control])
        return self.head(len(body), _PS if self.saveable and unit.nonvolatile is not None else 0) + body

    def head(self, length: int, saveable: int) -> bytes:
        """The page code, the subpage code if there is one, and the length."""
        if self.subpage:
            return struct.pack(">BBH", saveable | _SPF | self.code, self.subpage, length)
        return bytes((saveable | self.code, length))

    def restored(self, unit: DiskUnit, settings: Settings, body: bytes) -> None:
        """
        Put a body that was saved into settings.

        What cannot be changed any more, as the storage is another one, is as it is by default.
        """
        mask, default = self.changeable(unit), self.body(settings)
        if len(body) == len(mask):
            kept = (old & ~bits | new & bits for new, old, bits in zip(body, default, mask, strict=True))
            self.apply(settings, bytes(kept))


def fixed(code: int, size: int, start: bytes = b"", subpage: int = 0) -> ModePage:
    """A page of which nothing can be changed; what C{start} leaves out is zeros."""
    body = start.ljust(size, b"\0")
    return ModePage(code, subpage, lambda settings: body, _sameMask(bytes(size)))


def recovery(settings: Settings) -> bytes:
    """Read-write error recovery: a device does what it can by itself; SBC-3 6.5.8."""
    return bytes((0, 0, 0, 0, 0, LBPERE * settings.reportsThresholds)) + bytes(4)


def recoveryMask(unit: DiskUnit) -> bytes:
    """LBPERE can be changed where there are thresholds."""
    return bytes((0, 0, 0, 0, 0, LBPERE * unit.tellsSpace)) + bytes(4)


def applyRecovery(settings: Settings, body: bytes) -> None:
    """See L{Settings}."""
    settings.reportsThresholds = bool(body[5] & LBPERE)


def caching(settings: Settings) -> bytes:
    """Caching; SBC-3 6.5.5."""
    return bytes((WCE * settings.writeCache,)) + bytes(17)


def cachingMask(unit: DiskUnit) -> bytes:
    """WCE can be changed where there is a cache to be used or not."""
    return bytes((WCE * unit.volatileCache,)) + bytes(17)


def applyCaching(settings: Settings, body: bytes) -> None:
    """See L{Settings}."""
    settings.writeCache = bool(body[0] & WCE)


def control(settings: Settings) -> bytes:
    """Control: no log parameters are saved (GLTSD), SIMPLE commands in any order; SPC-4 7.5.8."""
    return bytes(
        (
            D_SENSE * settings.descriptorSense | 0x02,
            0x10 | settings.queueError << 1,
            settings.interlock << 4 | SWP * settings.softwareProtected,
            TAS * settings.tellsAborted,
        )
    ) + bytes(6)


def applyControl(settings: Settings, body: bytes) -> None:
    """See L{Settings}."""
    settings.descriptorSense = bool(body[0] & D_SENSE)
    settings.queueError = (body[1] & QERR) >> 1
    settings.interlock = (body[2] & UA_INTLCK) >> 4
    settings.softwareProtected = bool(body[2] & SWP)
    settings.tellsAborted = bool(body[3] & TAS)


def controlFault(settings: Settings) -> Fault | None:
    """A value of QERR is reserved, and one of UA_INTLCK_CTRL."""
    if settings.queueError == _QERR_RESERVED:
        return 1, 2
    return (2, 5) if settings.interlock == _INTERLOCK_RESERVED else None


PAGES: Final = (
    ModePage(0x01, 0, recovery, recoveryMask, applyRecovery),
    fixed(0x02, 14),  # disconnect-reconnect, SPC-4 7.5.11: the session's keys decide
    fixed(0x07, 10),  # verify error recovery, SBC-3 6.5.9
    ModePage(0x08, 0, caching, cachingMask, applyCaching),
    ModePage(
        0x0A,
        0,
        control,
        _sameMask(bytes((D_SENSE, QERR, UA_INTLCK | SWP, TAS)) + bytes(6)),
        applyControl,
        fault=controlFault,
    ),
    fixed(0x0A, 28, b"\x06", subpage=1),  # control extension, SPC-4 7.5.9: the timestamp (TCMOS, SCSIP)
    fixed(0x1A, 38),  # power condition, SPC-4 7.5.13: no timers
    fixed(0x1C, 10, b"\x08"),  # informational exceptions control, SBC-3 6.5.6: none are reported (DEXCPT)
    ModePage(
        0x1C,
        2,
        thresholds.page,
        _sameMask(thresholds.MASK),
        thresholds.apply,
        condition="tellsSpace",
        fault=thresholds.fault,
    ),
)
"""In ascending order, as page code 3Fh wants them."""


def available(unit: DiskUnit) -> list[ModePage]:
    """The pages that this very unit has."""
    return [page for page in unit.modePages if page.condition is None or getattr(unit, page.condition)]


def _chosen(unit: DiskUnit, task: ITask, code: int, subpage: int) -> list[ModePage]:
    """The pages that a page code and subpage code ask for."""
    ofCode = [page for page in available(unit) if code in (page.code, ALL_PAGES)]
    if not ofCode:
        raise unit.invalidField(task, "page", 5)
    chosen = [page for page in ofCode if subpage in (page.subpage, ALL_SUBPAGES)]
    if not chosen or (code == ALL_PAGES and subpage not in (0, ALL_SUBPAGES)):
        raise unit.invalidField(task, "subpage", 7)
    return chosen


def _pages(unit: DiskUnit, task: ITask, page: int, subpage: int) -> bytes:
    pageControl = page >> 6
    if pageControl == SAVED and unit.nonvolatile is None:
        raise CheckCondition(codes.ILLEGAL_REQUEST, codes.SAVING_NOT_SUPPORTED, field=2, bit=7)
    return b"".join(each.encode(unit, pageControl) for each in _chosen(unit, task, page & 0x3F, subpage))


def _blockDescriptor(unit: DiskUnit) -> bytes:
    """Short LBA mode parameter block descriptor; SBC-3 6.5.2.2."""
    return struct.pack(">II", min(unit.blockCount, 0xFFFFFFFF), unit.blockSize)


def _longDescriptor(unit: DiskUnit) -> bytes:
    """Long LBA mode parameter block descriptor; SBC-3 6.5.2.3."""
    return struct.pack(">Q4xI", unit.blockCount, unit.blockSize)


def _specific(unit: DiskUnit, task: ITask) -> int:
    """The device-specific parameter: WP and DPOFUA; SBC-3 6.5.1.  Optical units have none (MMC-6 7.2)."""
    if not unit.describesBlocks:
        return 0
    protected = unit.readOnly or task.nexus.readOnly or unit.settings.softwareProtected
    return _DPOFUA | (_WP if protected else 0)


@COMMANDS.handles(cdb.MODE_SENSE_6)
def modeSense6(unit: DiskUnit, task: ITask) -> None:
    """MODE SENSE (6); SPC-4 6.13."""
    _, flags, page, subpage, allocation, _ = cdb.MODE_SENSE_6.layout.unpack(task.cdb)
    pages = _pages(unit, task, page, subpage)
    descriptor = b"" if flags & _DBD or not unit.describesBlocks else _blockDescriptor(unit)
    length = 3 + len(descriptor) + len(pages)
    head = bytes((length, 0, _specific(unit, task), len(descriptor)))
    reply(task, head + descriptor + pages, allocation)


@COMMANDS.handles(cdb.MODE_SENSE_10)
def modeSense10(unit: DiskUnit, task: ITask) -> None:
    """MODE SENSE (10); SPC-4 6.14."""
    _, flags, page, subpage, allocation, _ = cdb.MODE_SENSE_10.layout.unpack(task.cdb)
    pages = _pages(unit, task, page, subpage)
    without = bool(flags & _DBD) or not unit.describesBlocks
    long = bool(flags & _LLBAA) and not without
    descriptor = b"" if without else _longDescriptor(unit) if long else _blockDescriptor(unit)
    length = 6 + len(descriptor) + len(pages)
    head = struct.pack(">HBBBxH", length, 0, _specific(unit, task), long, len(descriptor))
    reply(task, head + descriptor + pages, allocation)
