# -*- test-case-name: tests.scsi.test_modeselect -*-
"""MODE SELECT: initiators change mode parameters, all that a list holds or none (SPC-4 6.11, 6.12)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import attrs

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import Buffer, ITask, isPending
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.modes import CURRENT, ModePage, Settings, available
from iscsi_twisted.scsi.operation import Sequence
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.transfer import flushes

if TYPE_CHECKING:
    from iscsi_twisted.scsi.disk import DiskUnit

COMMANDS = CommandSet()

_PF: Final = 0x10
_SP: Final = 0x01
_SPF: Final = 0x40
_LONG_LBA: Final = 0x01
_SAME: Final = {8: (0, 0xFFFFFFFF), 16: (0, (1 << 64) - 1)}
"""By the size of the block descriptor: numbers of blocks that mean 'as it is' (SBC-3 6.5.2)."""


@COMMANDS.handles(cdb.MODE_SELECT_6)
def modeSelect6(unit: DiskUnit, task: ITask) -> None:
    """MODE SELECT (6); SPC-4 6.11."""
    _, flags, length, _ = cdb.MODE_SELECT_6.layout.unpack(task.cdb)
    _select(unit, task, flags, length, 4)


@COMMANDS.handles(cdb.MODE_SELECT_10)
def modeSelect10(unit: DiskUnit, task: ITask) -> None:
    """MODE SELECT (10); SPC-4 6.12."""
    _, flags, length, _ = cdb.MODE_SELECT_10.layout.unpack(task.cdb)
    _select(unit, task, flags, length, 8)


def _select(unit: DiskUnit, task: ITask, flags: int, length: int, head: int) -> None:
    saving = bool(flags & _SP)
    if saving and unit.nonvolatile is None:
        raise unit.invalidField(task, "flags", 0)
    if not length:
        _save(unit, task, unit.settings) if saving else task.complete()
    elif not flags & _PF:
        # What is not in page format would be vendor specific.
        raise unit.invalidField(task, "flags", 4)
    elif length < head:
        raise unit.refusal(task, codes.PARAMETER_LIST_LENGTH_ERROR, "length")
    else:
        unit.receive(task, length, _selectReceived, unit, head, saving)


def _selectReceived(task: ITask, data: Buffer, unit: DiskUnit, head: int, saving: bool) -> None:
    settings = parseList(unit, bytes(data), head)
    if saving:
        _save(unit, task, settings)
    else:
        _change(unit, task, settings)


def _save(unit: DiskUnit, task: ITask, settings: Settings) -> None:
    """Save all pages that can be (SPC-4 6.11), then let them hold: what cannot be saved does not."""
    assert unit.nonvolatile is not None
    pages = {(page.code, page.subpage): page.body(settings) for page in available(unit) if page.saveable}
    saved = unit.nonvolatile.change(pages=pages)
    if isPending(saved):
        unit.pend(task, saved, 0, 0, True, _saved, unit, task, settings)
    else:
        _change(unit, task, settings)


def _saved(_: None, unit: DiskUnit, task: ITask, settings: Settings) -> None:
    _change(unit, task, settings)


def _change(unit: DiskUnit, task: ITask, settings: Settings) -> None:
    """Let settings hold, and end the task."""
    before = unit.settings
    if settings == before:
        task.complete()
        return
    # What was written with a cache has to be durable before writing without it, or not at all, begins.
    lessens = before.writeCache and (settings.softwareProtected or not settings.writeCache)
    steps = flushes(unit) if lessens else iter(())
    Sequence(unit, task, steps, _changed, unit, task, settings).proceed()


def _changed(_: None, unit: DiskUnit, task: ITask, settings: Settings) -> None:
    unit.adjust(settings)
    unit.attention(codes.MODE_PARAMETERS_CHANGED, but=task.nexus)
    task.complete()


def _invalid(place: int, bit: int | None = None) -> CheckCondition:
    return CheckCondition(
        codes.ILLEGAL_REQUEST, codes.INVALID_FIELD_IN_PARAMETER_LIST, field=place, bit=bit, inData=True
    )


def _tooShort() -> CheckCondition:
    return CheckCondition(codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)


def parseList(unit: DiskUnit, data: bytes, head: int) -> Settings:
    """
    The settings that a mode parameter list asks for (SPC-4 7.5.5).

    What MODE SENSE gives may be sent back as it is: the fields that are reserved here are ignored.

    @param head: bytes of the mode parameter header.
    @raise CheckCondition: if the list is cut off, or would change what cannot be changed.
    """
    if len(data) < head:
        raise _tooShort()
    place = _descriptor(unit, data, head)
    settings = attrs.evolve(unit.settings)
    while place < len(data):
        place = _page(unit, data, place, settings)
    return settings


def _descriptor(unit: DiskUnit, data: bytes, head: int) -> int:
    """Check medium type and block descriptor; where the first page begins."""
    if data[1 if head == 4 else 2]:
        raise _invalid(1 if head == 4 else 2)
    length = data[3] if head == 4 else struct.unpack_from(">H", data, 6)[0]
    if length == 0:
        return head
    if length != (16 if head == 8 and data[4] & _LONG_LBA else 8):
        raise _invalid(head - 1 if head == 4 else 6)
    if len(data) < head + length:
        raise _tooShort()
    blocks, blockSize = struct.unpack_from(">II" if length == 8 else ">Q4xI", data, head)
    if blocks not in (*_SAME[length], unit.blockCount):
        raise _invalid(head)
    if blockSize & 0xFFFFFF != unit.blockSize:
        raise _invalid(head + length - 4)
    return head + length


def _page(unit: DiskUnit, data: bytes, place: int, settings: Settings) -> int:
    """Apply the page at a place of the list; where the next one begins."""
    long = bool(data[place] & _SPF)
    if len(data) < place + (4 if long else 2):
        raise _tooShort()
    code, subpage = data[place] & 0x3F, data[place + 1] if long else 0
    length = struct.unpack_from(">H", data, place + 2)[0] if long else data[place + 1]
    page = next((each for each in available(unit) if (each.code, each.subpage) == (code, subpage)), None)
    if page is None or (long and not subpage):
        raise _invalid(place, 5)
    start = place + (4 if long else 2)
    if length != len(page.changeable(unit)):
        raise _invalid(place + (2 if long else 1))
    if len(data) < start + length:
        raise _tooShort()
    body = data[start : start + length]
    _refuseChanges(unit, page, body, start)
    page.apply(settings, body)
    fault = page.fault(settings)
    if fault is not None:
        raise _invalid(start + fault[0], fault[1])
    return start + length


def _refuseChanges(unit: DiskUnit, page: ModePage, body: bytes, start: int) -> None:
    """Refuse to change what cannot be changed."""
    current = page.encode(unit, CURRENT)[-len(body) :]
    for place, (new, old, mask) in enumerate(zip(body, current, page.changeable(unit), strict=True)):
        wrong = (new ^ old) & ~mask
        if wrong:
            raise _invalid(start + place, wrong.bit_length() - 1)
