# -*- test-case-name: tests.scsi.test_logs -*-
"""
LOG SENSE (SPC-4 6.7, 7.3): pages of what a unit really knows of itself.

There is no sensor and no medium behind a unit, so there are no pages of temperatures or of media errors.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from iscsi_twisted.interfaces import ITask
from iscsi_twisted.scsi import cdb
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.unit import reply

if TYPE_CHECKING:
    from iscsi_twisted.scsi.disk import DiskUnit

COMMANDS = CommandSet()

Parameter: TypeAlias = tuple[int, bytes]
"""Its code and its value."""

SUBPAGES: Final = 0xFF
_SP: Final = 0x01
_SPF: Final = 0x40
_COUNTER: Final = 0x02
_LIST: Final = 0x03
"""FORMAT AND LINKING of a counter that stops at its greatest value, and of a binary list; SPC-4 7.3.2."""
_TOTAL_BYTES: Final = 0x0005
_UNKNOWN_TEMPERATURE: Final = 0xFF


def written(unit: DiskUnit) -> list[Parameter]:
    """Write error counters: how much was written; SPC-4 7.3."""
    return [(_TOTAL_BYTES, unit.writtenBytes.to_bytes(8, "big"))]


def read(unit: DiskUnit) -> list[Parameter]:
    """Read error counters: how much was read; SPC-4 7.3."""
    return [(_TOTAL_BYTES, unit.readBytes.to_bytes(8, "big"))]


def exceptions(unit: DiskUnit) -> list[Parameter]:
    """Informational exceptions: there are none; SPC-4 7.3."""
    return [(0x0000, bytes((0, 0, _UNKNOWN_TEMPERATURE, 0)))]


PAGES: Final[dict[int, Callable[[DiskUnit], list[Parameter]]]] = {
    0x02: written,
    0x03: read,
    0x2F: exceptions,
}
"""By page code; none has subpages."""


def supported() -> bytes:
    """Page 00h: which pages there are; SPC-4 7.3."""
    return bytes((0x00, *sorted(PAGES)))


def supportedSubpages() -> bytes:
    """Page 00h, subpage FFh: which pages and subpages there are; SPC-4 7.3."""
    return b"".join(
        bytes(each) for each in ((0x00, 0x00), (0x00, SUBPAGES), *((p, 0) for p in sorted(PAGES)))
    )


@COMMANDS.handles(cdb.LOG_SENSE)
def logSense(unit: DiskUnit, task: ITask) -> None:
    """LOG SENSE; SPC-4 6.7.  The threshold and default values are those of the page: there are no others."""
    _, flags, page, subpage, pointer, allocation, _ = cdb.LOG_SENSE.layout.unpack(task.cdb)
    if flags & _SP:
        raise unit.invalidField(task, "flags", 0)
    code = page & 0x3F
    if code == 0x00 and subpage in (0, SUBPAGES):
        if pointer:
            raise unit.invalidField(task, "parameter")
        body = supportedSubpages() if subpage else supported()
    elif code not in PAGES:
        raise unit.invalidField(task, "page", 5)
    elif subpage:
        raise unit.invalidField(task, "subpage", 7)
    else:
        body = _parameters(unit, task, PAGES[code](unit), pointer)
    head = struct.pack(">BBH", (_SPF if subpage else 0) | code, subpage, len(body))
    reply(task, head + body, allocation)


def _parameters(unit: DiskUnit, task: ITask, found: list[Parameter], pointer: int) -> bytes:
    """Parameters from the one that the parameter pointer names on."""
    if pointer > found[-1][0]:
        raise unit.invalidField(task, "parameter")
    return b"".join(
        struct.pack(">HBB", code, _COUNTER if code == _TOTAL_BYTES else _LIST, len(value)) + value
        for code, value in found
        if code >= pointer
    )
