# -*- test-case-name: tests.scsi.test_logs -*-
"""
LOG SENSE and LOG SELECT (SPC-4 6.6, 6.7, 7.3): pages of what a unit really knows of itself.

What nobody here knows is left out, where the standard lets it be left out (the solid state media page,
errors that a medium has corrected), or is the standard's value for that (the temperature).  Counters begin
at zero when the unit does.  No thresholds can be set: RLEC of the control mode page is zero.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import attrs

from iscsi_twisted.interfaces import ITask, Space, isPending
from iscsi_twisted.scsi import cdb, codes, thresholds
from iscsi_twisted.scsi.selftest import LATEST
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.unit import reply

if TYPE_CHECKING:
    from iscsi_twisted.scsi.disk import DiskUnit

COMMANDS = CommandSet()


class Parameter(NamedTuple):
    """
    A log parameter.

    @ivar counter: whether it is a counter; else it is a binary list.
    """

    code: int
    value: bytes
    counter: bool = False


ALL_PAGES: Final = 0x00
SUBPAGES: Final = 0xFF
THRESHOLD, CUMULATIVE, DEFAULT_THRESHOLD, DEFAULT_CUMULATIVE = range(4)
"""Page control, SPC-4 6.7."""
_SP: Final = 0x01
_PCR: Final = 0x02
_SPF: Final = 0x40
_COUNTER: Final = 0x02
_LIST: Final = 0x03
"""FORMAT AND LINKING of a counter that stops at its greatest value, and of a binary list; SPC-4 7.3.2."""
_TOTAL_BYTES: Final = 0x0005
_UNCORRECTED: Final = 0x0006
_UNKNOWN_TEMPERATURE: Final = 0xFF
_MICROSECONDS: Final = (6, 1)
"""Exponent and integer of the time interval that times are counted in."""


@attrs.frozen
class LogPage:
    """
    One log page.

    @ivar code: page code.
    @ivar parameters: what stands in it now, in ascending order.
    @ivar counters: the unit's counters that a reset of this page sets to zero.
    @ivar subpage: subpage code.
    @ivar condition: name of the unit's attribute that must be true for the page to exist, or None.
    @ivar asks: whether the unit's C{space} has to be known.
    """

    code: int
    parameters: Callable[[DiskUnit], list[Parameter]]
    counters: tuple[str, ...] = ()
    subpage: int = 0
    condition: str | None = None
    asks: bool = False


def counted(unit: DiskUnit, name: str, factor: int = 1) -> bytes:
    """A counter of the unit since it was last reset, in eight bytes."""
    value = int((getattr(unit, name) - unit.logBase.get(name, 0)) * factor)
    return min(max(value, 0), (1 << 64) - 1).to_bytes(8, "big")


def _counters(code: int, **names: int) -> LogPage:
    """A page of nothing but counters: their names and parameter codes."""

    def parameters(unit: DiskUnit) -> list[Parameter]:
        return [Parameter(place, counted(unit, name), True) for name, place in names.items()]

    return LogPage(code, parameters, tuple(names))


def resources(unit: DiskUnit) -> list[Parameter]:
    """Logical block provisioning: space that is used and available, if that is known; SBC-3 6.4.5."""
    found = () if unit.space is None else thresholds.resources(unit.space)
    return [Parameter(code, value) for code, value in found]


def temperature(unit: DiskUnit) -> list[Parameter]:
    """Temperature: there is no sensor; SPC-4 7.3."""
    return [Parameter(0x0000, bytes((0, _UNKNOWN_TEMPERATURE)))]


def cycles(unit: DiskUnit) -> list[Parameter]:
    """Start-stop cycle counter: starts after a stop, and loads after an eject; SPC-4 7.3."""
    return [Parameter(code, value.to_bytes(4, "big")) for code, value in ((4, unit.starts), (6, unit.loads))]


def selfTests(unit: DiskUnit) -> list[Parameter]:
    """Self-test results: the latest first, zeros where there were no more; SPC-4 7.3.16."""
    found = [] if unit.testing is None else [unit.testing]
    results = [each.encode() for each in (*found, *unit.tests)]
    results += [bytes(16)] * (LATEST - len(results))
    return [Parameter(number, value) for number, value in enumerate(results[:LATEST], 1)]


def scans(unit: DiskUnit) -> list[Parameter]:
    """Background scan results: no scan is ever made; SBC-3 6.4.2."""
    minutes = int(unit.upSeconds) // 60
    return [Parameter(0x0000, struct.pack(">I8x", minutes & 0xFFFFFFFF))]


_ACCESS: Final = (
    ("reads", 1),
    ("writes", 1),
    ("writtenBytes", 0),
    ("readBytes", 0),
    ("readSeconds", 1000000),
    ("writeSeconds", 1000000),
)
"""The first six numbers of general access statistics, and what they are counted in; 0 stands for blocks."""


def statistics(unit: DiskUnit) -> list[Parameter]:
    """
    General statistics and performance; SPC-4 7.3.

    Commands have no priorities here, so the weighted numbers are plain sums: of commands, and of the time
    that each of them took.  What was not spent on reads and writes was idle time; where they overlapped
    there was more of it.
    """
    numbers = []
    for name, factor in _ACCESS:
        value = int.from_bytes(counted(unit, name, factor or 1), "big")
        numbers.append(value if factor else value // unit.blockSize)
    weighted = numbers[0] + numbers[1], numbers[4] + numbers[5]
    up = int.from_bytes(counted(unit, "upSeconds", 1000000), "big")
    return [
        Parameter(0x0001, struct.pack(">8Q", *numbers, *weighted)),
        Parameter(0x0002, max(0, up - weighted[1]).to_bytes(8, "big")),
        Parameter(0x0003, struct.pack(">II", *_MICROSECONDS)),
    ]


def cache(unit: DiskUnit) -> list[Parameter]:
    """
    Cache memory statistics: reads that did not have to wait for the medium, and those that did; SPC-4 7.3.

    What has once been read from the medium is in the cache.
    """
    hits = int.from_bytes(counted(unit, "reads"), "big") - int.from_bytes(counted(unit, "waitedReads"), "big")
    return [
        Parameter(0x0001, max(0, hits).to_bytes(8, "big"), True),
        Parameter(0x0002, counted(unit, "waitedReads"), True),
    ]


def exceptions(unit: DiskUnit) -> list[Parameter]:
    """Informational exceptions: there are none; SPC-4 7.3."""
    return [Parameter(0x0000, bytes((0, 0, _UNKNOWN_TEMPERATURE, 0)))]


PAGES: Final = (
    _counters(0x02, writtenBytes=_TOTAL_BYTES, writeErrors=_UNCORRECTED),
    _counters(0x03, readBytes=_TOTAL_BYTES, readErrors=_UNCORRECTED),
    _counters(0x05, verifiedBytes=_TOTAL_BYTES, verifyErrors=_UNCORRECTED),
    _counters(0x06, otherErrors=0x0000),
    LogPage(0x0C, resources, condition="tellsSpace", asks=True),
    LogPage(0x0D, temperature),
    LogPage(0x0E, cycles),
    LogPage(0x10, selfTests),
    LogPage(0x15, scans),
    LogPage(0x19, statistics, ("upSeconds", *(name for name, _ in _ACCESS))),
    LogPage(0x19, cache, ("reads", "waitedReads"), subpage=0x20),
    LogPage(0x2F, exceptions),
)
"""In ascending order."""


def available(unit: DiskUnit) -> list[LogPage]:
    """The pages that this very unit has."""
    return [page for page in unit.logPages if page.condition is None or getattr(unit, page.condition)]


def supported(unit: DiskUnit) -> bytes:
    """Page 00h: which pages there are; SPC-4 7.3."""
    return bytes(sorted({0x00, *(page.code for page in available(unit))}))


def supportedSubpages(unit: DiskUnit, code: int) -> bytes:
    """Subpage FFh: which pages and subpages there are, of one page or (page 00h) of all; SPC-4 7.3."""
    pages = [(page.code, page.subpage) for page in available(unit) if code in (ALL_PAGES, page.code)]
    heads = {(code, 0), (code, SUBPAGES)} | {(number, SUBPAGES) for number, subpage in pages if subpage}
    return b"".join(bytes(each) for each in sorted(heads | set(pages)))


@COMMANDS.handles(cdb.LOG_SENSE)
def logSense(unit: DiskUnit, task: ITask) -> None:
    """LOG SENSE; SPC-4 6.7."""
    _, flags, page, subpage, pointer, allocation, _ = cdb.LOG_SENSE.layout.unpack(task.cdb)
    if flags & _SP:
        raise unit.invalidField(task, "flags", 0)
    control, code = page >> 6, page & 0x3F
    if code != ALL_PAGES and not any(each.code == code for each in available(unit)):
        raise unit.invalidField(task, "page", 5)
    if subpage == SUBPAGES or (code == ALL_PAGES and not subpage):
        if pointer:
            raise unit.invalidField(task, "parameter")
        body = supportedSubpages(unit, code) if subpage else supported(unit)
    else:
        found = next((each for each in available(unit) if (each.code, each.subpage) == (code, subpage)), None)
        if found is None:
            raise unit.invalidField(task, "subpage", 7)
        arguments = unit, task, found, pointer, control, allocation
        if found.asks:
            _ask(*arguments)
        else:
            _answer(None, *arguments)
        return
    _reply(task, code, subpage, body, allocation)


def _ask(unit: DiskUnit, task: ITask, *arguments: Any) -> None:
    """Answer when the device has told how much space there is."""
    space: Any = unit.device.space()
    if isPending(space):
        unit.pend(task, space, 0, 0, False, _answer, unit, task, *arguments)
    else:
        _answer(space, unit, task, *arguments)


def _answer(
    space: Space | None,
    unit: DiskUnit,
    task: ITask,
    page: LogPage,
    pointer: int,
    control: int,
    allocation: int,
) -> None:
    if page.asks:
        unit.space = space
    body = _parameters(unit, task, page.parameters(unit), pointer, control)
    _reply(task, page.code, page.subpage, body, allocation)


def _reply(task: ITask, code: int, subpage: int, body: bytes, allocation: int) -> None:
    head = struct.pack(">BBH", (_SPF if subpage else 0) | code, subpage, len(body))
    reply(task, head + body, allocation)


def _parameters(unit: DiskUnit, task: ITask, found: list[Parameter], pointer: int, control: int) -> bytes:
    """Parameters from the one that the parameter pointer names on."""
    if pointer > (found[-1].code if found else 0):
        raise unit.invalidField(task, "parameter")
    return b"".join(_encode(each, control) for each in found if each.code >= pointer)


def _encode(parameter: Parameter, control: int) -> bytes:
    """
    One parameter.

    A counter begins at zero, and never comes to its threshold, the greatest value that there is.  Lists have
    neither.
    """
    value = parameter.value
    if parameter.counter and control != CUMULATIVE:
        value = (b"\0" if control == DEFAULT_CUMULATIVE else b"\xff") * len(value)
    kind = _COUNTER if parameter.counter else _LIST
    return struct.pack(">HBB", parameter.code, kind, len(value)) + value


@COMMANDS.handles(cdb.LOG_SELECT)
def logSelect(unit: DiskUnit, task: ITask) -> None:
    """
    LOG SELECT; SPC-4 6.6: counters are set to zero, those of one page or all.

    No parameter can be set to anything else, so no list is accepted.
    """
    _, flags, page, subpage, length, _ = cdb.LOG_SELECT.layout.unpack(task.cdb)
    if flags & _SP:
        raise unit.invalidField(task, "flags", 0)
    if length:
        raise unit.invalidField(task, "length")
    control, code = page >> 6, page & 0x3F
    pages = [
        each
        for each in available(unit)
        if (code == ALL_PAGES or code == each.code) and subpage in (each.subpage, SUBPAGES)
    ]
    if code == ALL_PAGES and not subpage:
        pages = available(unit)
    if not pages:
        known = any(each.code == code for each in available(unit))
        raise unit.invalidField(task, "subpage", 7) if known else unit.invalidField(task, "page", 5)
    if flags & _PCR or control == DEFAULT_CUMULATIVE:
        unit.logBase |= {name: getattr(unit, name) for each in pages for name in each.counters}
        unit.attention(codes.LOG_PARAMETERS_CHANGED, but=task.nexus)
    task.complete()
