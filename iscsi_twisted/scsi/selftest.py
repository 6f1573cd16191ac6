# -*- test-case-name: tests.scsi.test_selftest -*-
"""
SEND DIAGNOSTIC and RECEIVE DIAGNOSTIC RESULTS: a unit tests itself (SPC-4 5.14, 6.29, 6.42).

A short test flushes and reads the first blocks, some in the middle and the last; an extended one flushes
and reads all blocks.  In the background it is done piece by piece beside other commands, and nobody waits
for it; in the foreground most other commands are refused until it has ended.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Final

import attrs

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import Buffer, ITask
from iscsi_twisted.scsi import cdb, codes, sense
from iscsi_twisted.scsi.cdbprimary import RECEIVE_DIAGNOSTIC, SEND_DIAGNOSTIC
from iscsi_twisted.scsi.closure import Closure
from iscsi_twisted.scsi.operation import Step
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.transfer import flushes
from iscsi_twisted.scsi.unit import reply
from iscsi_twisted.scsi.verify import comparing
from iscsi_twisted.scsi.work import Work

if TYPE_CHECKING:
    from iscsi_twisted.scsi.disk import DiskUnit

COMMANDS = CommandSet()

DEFAULT = 0
BACKGROUND_SHORT, BACKGROUND_EXTENDED, ABORT = 1, 2, 4
FOREGROUND_SHORT, FOREGROUND_EXTENDED = 5, 6
"""Self-test codes, SPC-4 table 293."""
PASSED, ABORTED, INTERRUPTED, UNKNOWN, FAILED = 0, 1, 2, 3, 7
IN_PROGRESS: Final = 15
"""Self-test results, SPC-4 table 432: the segment that failed is told by its address, not by a number."""
LATEST: Final = 20
"""Results that are kept; the log page has as many parameters."""
SAMPLE: Final = 1 << 16
"""Bytes that a short test reads at each of its places."""

_PF: Final = 0x10
_SELFTEST: Final = 0x04
_PCV: Final = 0x01
_SUPPORTED_PAGES: Final = 0x00
_NOWHERE: Final = (1 << 64) - 1
_HOUR: Final = 3600
_READING: Final = cdb.READ_16.encode()
"""What a test does to the device."""


@attrs.define(eq=False)
class SelfTest:
    """
    One self-test, under way or over.

    @ivar code: the self-test code.
    @ivar work: what does it.
    @ivar result: how it ended.
    @ivar hours: for how long the unit had been running then.
    @ivar condition: what went wrong.
    """

    code: int
    work: Work | None = None
    result: int = IN_PROGRESS
    hours: int = 0
    condition: CheckCondition | None = None

    @property
    def background(self) -> bool:
        """Whether nobody waits for its end."""
        return self.code in (BACKGROUND_SHORT, BACKGROUND_EXTENDED)

    def encode(self) -> bytes:
        """A parameter of the self-test results log page, without its head; SPC-4 7.3.16."""
        condition = self.condition
        if condition is None:
            return struct.pack(">BBHQ4x", self.code << 5 | self.result, 0, self.hours, _NOWHERE)
        place = _NOWHERE if condition.information is None else condition.information
        return struct.pack(
            ">BBHQBHx",
            self.code << 5 | self.result, 0, self.hours, place, condition.key, condition.code,
        )  # fmt: skip


def inProgress(test: SelfTest) -> CheckCondition:
    """What is told while a test is under way, with its progress (SPC-4 5.14.4)."""
    assert test.work is not None
    specific = sense.progress(test.work.progress)
    return CheckCondition(codes.NOT_READY, codes.SELF_TEST_IN_PROGRESS, specific=specific)


@COMMANDS.handles(SEND_DIAGNOSTIC)
def sendDiagnostic(unit: DiskUnit, task: ITask) -> None:
    """SEND DIAGNOSTIC; SPC-4 6.42.  Tests change nothing, so the OFFL bits do not matter."""
    _, flags, length, _ = SEND_DIAGNOSTIC.layout.unpack(task.cdb)
    code = flags >> 5
    if unit.testing is not None and code != ABORT:
        raise inProgress(unit.testing)
    if (code and flags & _SELFTEST) or code not in _SENT:
        raise unit.invalidField(task, "flags", 7)
    if length and (code or flags & _SELFTEST):
        raise unit.invalidField(task, "length")
    if code == ABORT:
        _abort(unit, task)
    elif code or flags & _SELFTEST:
        begin(unit, task, code)
    elif not length:
        task.complete()
    elif not flags & _PF:
        # What is not in page format would be vendor specific.
        raise unit.invalidField(task, "flags", 4)
    else:
        unit.receive(task, length, _pageReceived)


_SENT: Final = frozenset(
    (DEFAULT, BACKGROUND_SHORT, BACKGROUND_EXTENDED, ABORT, FOREGROUND_SHORT, FOREGROUND_EXTENDED)
)


def _pageReceived(task: ITask, data: Buffer) -> None:
    """Only the page that asks for the supported pages can be sent, and it says nothing (SPC-4 7.2.3)."""
    if len(data) < 4:
        raise CheckCondition(codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)
    for place, wrong in ((0, data[0] != _SUPPORTED_PAGES), (2, bytes(data[2:4]) != bytes(2))):
        if wrong:
            code = codes.INVALID_FIELD_IN_PARAMETER_LIST
            raise CheckCondition(codes.ILLEGAL_REQUEST, code, field=place, inData=True)
    task.complete()


def begin(unit: DiskUnit, task: ITask, code: int) -> None:
    """Begin a test.  In the background, the command that asked for it has ended then (SPC-4 5.14.4)."""
    if unit.closure is not None:
        # To test what has failed does not make it good.
        raise unit.closure.condition()
    if unit.notReady:
        raise CheckCondition(codes.NOT_READY, unit.notReady)
    test = unit.testing = SelfTest(code)
    size = unit.blockCount * unit.blockSize
    extended = code in (BACKGROUND_EXTENDED, FOREGROUND_EXTENDED)
    places = [(0, size)] if extended else samples(size, unit.blockSize)
    total = sum(length for _, length in places)
    asker = None if test.background else task
    test.work = Work(unit, _READING, total, partial(_ended, unit, test), asker=asker)
    if test.background:
        task.complete()
    else:
        unit.shut(Closure(codes.NOT_READY, codes.SELF_TEST_IN_PROGRESS, test.work))
    test.work.begin(_steps(unit, places))


def samples(size: int, blockSize: int) -> list[tuple[int, int]]:
    """The first blocks, some in the middle and the last; first byte and length of each."""
    length = min(size, max(SAMPLE, blockSize))
    middle = (size - length) // 2 // blockSize * blockSize
    return [(start, length) for start in sorted({0, middle, size - length})]


def _steps(unit: DiskUnit, places: list[tuple[int, int]]) -> Iterator[Step]:
    reading = (comparing(unit, start, length, None) for start, length in places)
    return chain(flushes(unit), chain.from_iterable(reading))


def _abort(unit: DiskUnit, task: ITask) -> None:
    test = unit.testing
    if test is None or not test.background:
        raise unit.invalidField(task, "flags", 7)
    stop(test, ABORTED)
    task.complete()


def stop(test: SelfTest, result: int) -> None:
    """Give a test up."""
    assert test.work is not None
    test.result = result
    test.work.stop()


def _ended(unit: DiskUnit, test: SelfTest, work: Work) -> None:
    """Keep the result; whoever waits is told no more than that it failed (SPC-4 5.14.4)."""
    unit.testing = None
    test.work = None
    if not test.background:
        unit.reopen()
    test.hours = min(0xFFFF, int(unit.upSeconds) // _HOUR)
    if work.condition is not None:
        test.condition = work.condition
        test.result = FAILED
        work.condition = CheckCondition(codes.HARDWARE_ERROR, codes.FAILED_SELF_TEST)
    elif test.result == IN_PROGRESS:
        test.result = INTERRUPTED if work.aborted else PASSED
    unit.tests.insert(0, test)
    del unit.tests[LATEST:]


@COMMANDS.handles(RECEIVE_DIAGNOSTIC)
def receiveDiagnostic(unit: DiskUnit, task: ITask) -> None:
    """RECEIVE DIAGNOSTIC RESULTS; SPC-4 6.29.  There is one page: which pages there are."""
    _, flags, page, allocation, _ = RECEIVE_DIAGNOSTIC.layout.unpack(task.cdb)
    if flags & _PCV and page != _SUPPORTED_PAGES:
        raise unit.invalidField(task, "page", 7)
    reply(task, struct.pack(">BxHB", _SUPPORTED_PAGES, 1, _SUPPORTED_PAGES), allocation)
