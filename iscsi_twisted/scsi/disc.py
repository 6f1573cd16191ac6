# -*- test-case-name: tests.scsi.test_optical -*-
"""
What an optical unit tells of its disc and of itself (MMC-6).

An image is one complete session with one data track, on a CD if it is small enough for one, else on a DVD.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from iscsi_twisted.interfaces import ITask
from iscsi_twisted.scsi import cdboptical as cdb
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.unit import reply

if TYPE_CHECKING:
    from iscsi_twisted.scsi.optical import OpticalUnit

COMMANDS = CommandSet()

CD_BLOCKS: Final = 80 * 60 * 75
"""Blocks of the largest CD."""
NO_PROFILE, CD_ROM, DVD_ROM = 0x0000, 0x0008, 0x0010
"""Profiles, MMC-6 table 95."""

_MSF: Final = 0x02
_DATA_TRACK: Final = 0x14
"""ADR 1, and a data track that was recorded uninterrupted."""
_LEAD_OUT: Final = 0xAA
_TRACK: Final = 1


# The table of contents


def place(lba: int, inTime: bool) -> bytes:
    """An address, as a number of blocks or as minutes, seconds and frames; MMC-6 4.3.6."""
    if not inTime:
        return lba.to_bytes(4, "big")
    return bytes((0, *_time(lba)))


def _time(lba: int) -> tuple[int, int, int]:
    seconds, frames = divmod(lba + 150, 75)
    minutes, seconds = divmod(seconds, 60)
    # Behind what three fields can say stands the last thing that they can.
    return (minutes, seconds, frames) if minutes < 256 else (255, 59, 74)


@COMMANDS.handles(cdb.READ_TOC)
def readTOC(unit: OpticalUnit, task: ITask) -> None:
    """READ TOC/PMA/ATIP; MMC-6 6.25.  Old initiators give the format in the CONTROL byte."""
    _, flags, form, track, allocation, control = cdb.READ_TOC.layout.unpack(task.cdb)
    build = _FORMATS.get(form & 0x0F or control >> 6)
    if build is None:
        raise unit.invalidField(task, "format", 3)
    reply(task, build(unit, task, track, bool(flags & _MSF)), allocation)


def _contents(unit: OpticalUnit, task: ITask, track: int, inTime: bool) -> bytes:
    """Formatted TOC: the tracks from one on, and the lead-out."""
    if track > _TRACK and track != _LEAD_OUT:
        raise unit.invalidField(task, "track")
    found = (
        [(_LEAD_OUT, unit.blockCount)] if track == _LEAD_OUT else [(_TRACK, 0), (_LEAD_OUT, unit.blockCount)]
    )
    body = b"".join(struct.pack(">xBBx4s", _DATA_TRACK, number, place(lba, inTime)) for number, lba in found)
    return struct.pack(">HBB", len(body) + 2, _TRACK, _TRACK) + body


def _sessions(unit: OpticalUnit, task: ITask, track: int, inTime: bool) -> bytes:
    """Multi-session information: the first and last session is the only one."""
    return struct.pack(">HBBxBBx4s", 10, 1, 1, _DATA_TRACK, _TRACK, place(0, inTime))


def _raw(unit: OpticalUnit, task: ITask, track: int, inTime: bool) -> bytes:
    """Raw TOC: the first and last track, the lead-out and the track; always in time."""
    points = (
        (0xA0, (_TRACK, 0, 0)),
        (0xA1, (_TRACK, 0, 0)),
        (0xA2, _time(unit.blockCount)),
        (_TRACK, _time(0)),
    )
    body = b"".join(struct.pack(">BBBB4xBBB", 1, _DATA_TRACK, 0, point, *time) for point, time in points)
    return struct.pack(">HBB", len(body) + 2, 1, 1) + body


_FORMATS: Final = {0: _contents, 1: _sessions, 2: _raw}


# The disc


@COMMANDS.handles(cdb.READ_DISC_INFORMATION)
def readDiscInformation(unit: OpticalUnit, task: ITask) -> None:
    """READ DISC INFORMATION; MMC-6 6.22: one complete session, and nothing to be written."""
    _, kind, allocation, _ = cdb.READ_DISC_INFORMATION.layout.unpack(task.cdb)
    if kind & 0x07:
        raise unit.invalidField(task, "type", 2)
    data = struct.pack(
        ">HBBBBBBB3x4xII8xxx",
        32,
        0x0E,  # neither erasable nor appendable
        _TRACK, 1, _TRACK, _TRACK,
        0x20,  # for unrestricted use
        0,  # CD-DA or CD-ROM
        0xFFFFFFFF, 0xFFFFFFFF,
    )  # fmt: skip
    reply(task, data, allocation)


@COMMANDS.handles(cdb.READ_DISC_STRUCTURE)
def readDiscStructure(unit: OpticalUnit, task: ITask) -> None:
    """READ DISC STRUCTURE; MMC-6 6.23: of a DVD with one layer, and without copy protection."""
    _, media, _, layer, form, allocation, _ = cdb.READ_DISC_STRUCTURE.layout.unpack(task.cdb)
    if media & 0x0F:
        raise unit.invalidField(task, "media", 3)
    if form not in (0, 1) or unit.profile != DVD_ROM:
        raise unit.invalidField(task, "format", 7)
    if layer:
        raise unit.invalidField(task, "layer", 7)
    if form == 1:
        body = bytes(4)
    else:
        first = 0x030000
        # Part version 1 of DVD-ROM, 120 mm, no maximum rate; one embossed layer.
        body = struct.pack(">BBBBII", 0x01, 0x0F, 0x01, 0, first, first + unit.blockCount - 1).ljust(
            2048, b"\0"
        )
    reply(task, struct.pack(">Hxx", len(body) + 2) + body, allocation)


# The drive


def features(unit: OpticalUnit) -> Iterator[tuple[int, int, bytes, bool]]:
    """Code, version, data, and whether it is current; the last is None where it always is.  MMC-6 5.3."""
    profile = unit.profile
    present = profile != NO_PROFILE
    profiles = b"".join(struct.pack(">HBx", each, each == profile) for each in (DVD_ROM, CD_ROM))
    blocking = 16 if profile == DVD_ROM else 1
    yield 0x0000, 0, profiles, True
    yield 0x0001, 2, struct.pack(">IB3x", 1, 0x01), True  # core: a SCSI interface, busy events
    yield 0x0003, 0, bytes((0x29, 0, 0, 0)), True  # removable medium: a tray, ejected and locked
    yield 0x0010, 0, struct.pack(">IHxx", unit.blockSize, blocking), present  # random readable
    yield 0x001E, 2, bytes(4), profile == CD_ROM
    yield 0x001F, 0, b"", profile == DVD_ROM
    yield 0x0100, 0, b"", True  # power management


_PERSISTENT: Final = frozenset((0x0000, 0x0001, 0x0003, 0x0100))
ALL, CURRENT, ONE = range(3)
"""Requested type, MMC-6 6.6.2.1."""


@COMMANDS.handles(cdb.GET_CONFIGURATION)
def getConfiguration(unit: OpticalUnit, task: ITask) -> None:
    """GET CONFIGURATION; MMC-6 6.6."""
    _, kind, start, allocation, _ = cdb.GET_CONFIGURATION.layout.unpack(task.cdb)
    kind &= 0x03
    if kind > ONE:
        raise unit.invalidField(task, "type", 1)
    body = b"".join(
        struct.pack(">HBB", code, version << 2 | (code in _PERSISTENT) << 1 | current, len(data)) + data
        for code, version, data, current in features(unit)
        if (code == start if kind == ONE else code >= start) and (current or kind != CURRENT)
    )
    reply(task, struct.pack(">IxxH", len(body) + 4, unit.profile) + body, allocation)


_POLLED: Final = 0x01
OPERATIONAL, POWER, MEDIA, BUSY = 1, 2, 4, 6
"""Event classes, MMC-6 table 320."""
NEW_MEDIA, MEDIA_REMOVAL = 2, 3
_SUPPORTED: Final = 1 << OPERATIONAL | 1 << POWER | 1 << MEDIA | 1 << BUSY
_NO_EVENT: Final = 0x80
_ACTIVE: Final = 1
_PRESENT, _OPEN = 0x02, 0x01


@COMMANDS.handles(cdb.GET_EVENT_STATUS)
def getEventStatus(unit: OpticalUnit, task: ITask) -> None:
    """GET EVENT STATUS NOTIFICATION; MMC-6 6.7: asked for, never waited for."""
    _, flags, classes, allocation, _ = cdb.GET_EVENT_STATUS.layout.unpack(task.cdb)
    if not flags & _POLLED:
        raise unit.invalidField(task, "flags", 0)
    asked = classes & _SUPPORTED
    if not asked:
        reply(task, struct.pack(">HBB", 2, _NO_EVENT, _SUPPORTED), allocation)
        return
    kind = (asked & -asked).bit_length() - 1
    if asked & 1 << MEDIA and task.nexus in unit.events:
        # What has happened comes before what has not.
        kind = MEDIA
    # An event is told once, to whom has room for it.
    event = _event(unit, task, kind, allocation >= 5)
    reply(task, struct.pack(">HBB", len(event) + 2, kind, _SUPPORTED) + event, allocation)


def _event(unit: OpticalUnit, task: ITask, kind: int, taken: bool) -> bytes:
    if kind == MEDIA:
        code = unit.events.pop(task.nexus, 0) if taken else 0
        return bytes((code, _OPEN if unit.ejected else _PRESENT, 0, 0))
    return bytes((0, _ACTIVE if kind == POWER else 0, 0, 0))


@COMMANDS.handles(cdb.MECHANISM_STATUS)
def mechanismStatus(unit: OpticalUnit, task: ITask) -> None:
    """MECHANISM STATUS; MMC-6 6.11: a drive without a changer."""
    _, allocation, _ = cdb.MECHANISM_STATUS.layout.unpack(task.cdb)
    reply(task, bytes((0, 0x10 if unit.ejected else 0, 0, 0, 0, 0, 0, 0)), allocation)
