# -*- test-case-name: tests.scsi.test_modeselect,tests.scsi.test_logs,tests.scsi.test_selftest -*-
"""What a unit with a medium keeps about itself: modes, counters, tests, names and the time."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, time
from typing import Any, ClassVar, Final

import attrs

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import INexus, IStateStore, isPending
from iscsi_twisted.scsi import (
    buffers,
    cdb,
    codes,
    inquiry,
    inventory,
    logs,
    medium,
    modes,
    modeselect,
    naming,
    persistent,
    portgroups,
    primary,
    reservation,
    selftest,
    supported,
    timestamp,
)
from iscsi_twisted.scsi.cdb import Command
from iscsi_twisted.scsi.identity import Identity
from iscsi_twisted.scsi.modes import Settings
from iscsi_twisted.scsi.nonvolatile import Nonvolatile
from iscsi_twisted.scsi.room import QUEUE
from iscsi_twisted.scsi.selftest import SelfTest
from iscsi_twisted.scsi.table import CommandSet
from iscsi_twisted.scsi.unit import LogicalUnit, Report
from iscsi_twisted.scsi.work import Later, atOnce

SHARED: Final[tuple[CommandSet, ...]] = (
    primary.COMMANDS,
    inquiry.COMMANDS,
    inventory.COMMANDS,
    modes.COMMANDS,
    modeselect.COMMANDS,
    logs.COMMANDS,
    supported.COMMANDS,
    reservation.COMMANDS,
    persistent.COMMANDS,
    portgroups.COMMANDS,
    medium.COMMANDS,
    buffers.COMMANDS,
    naming.COMMANDS,
    timestamp.COMMANDS,
    selftest.COMMANDS,
)
"""The commands of all units with a medium, whatever that is."""

VERIFYING: Final = (cdb.VERIFY_10, cdb.VERIFY_12, cdb.VERIFY_16)


class Upkeep(LogicalUnit):
    """
    A unit with a medium, and what it keeps about itself.

    @cvar describesBlocks: whether mode parameters have block descriptors and a write protect bit.
    @cvar modePages: the mode pages that there may be.
    @cvar logPages: the log pages.
    @ivar settings: what initiators have set.
    @ivar defaults: what holds until then.
    @ivar nonvolatile: what outlives a loss of power, or None if nothing does.
    @ivar since: when it was made, by its clock.
    @ivar buffer: what WRITE BUFFER has put into the data buffer, as far as that goes.
    @ivar echoes: the echo buffers of those that have written theirs.
    @ivar testing: the self-test that is under way, or None.
    @ivar tests: those that have ended, the latest first.
    @ivar ahead: seconds that the timestamp is ahead of C{calendar}, or None if nobody has set it.
    @ivar logBase: by name, what counters were when LOG SELECT set them to zero.
    @ivar verifiedBytes: what VERIFY has looked at; C{verifyErrors}, how often it could not be read.
    @ivar starts: how often it was started after it had been stopped.
    @ivar loads: how often the medium was loaded after it had been ejected.
    @ivar stopped: START STOP UNIT has stopped it; that changes nothing.
    """

    describesBlocks = True
    modePages: ClassVar[tuple[modes.ModePage, ...]] = modes.PAGES
    logPages: ClassVar[tuple[logs.LogPage, ...]] = logs.PAGES

    def __init__(
        self,
        identity: Identity,
        report: Report,
        *,
        queue: int = QUEUE,
        clock: Callable[[], float] = perf_counter,
        calendar: Callable[[], float] = time,
        later: Later = atOnce,
    ) -> None:
        """@param calendar: tells the seconds since the beginning of 1970."""
        super().__init__(identity, report, queue=queue, clock=clock, later=later)
        self.settings = self.defaults = Settings()
        self.nonvolatile: Nonvolatile | None = None
        self.since = clock()
        self.buffer = bytearray()
        self.echoes: dict[INexus, bytes] = {}
        self.testing: SelfTest | None = None
        self.tests: list[SelfTest] = []
        self.calendar = calendar
        self.ahead: float | None = None
        self.logBase: dict[str, float] = {}
        self.verifiedBytes = self.verifyErrors = self.starts = self.loads = 0
        self.stopped = False

    # Modes

    def remember(self, store: IStateStore) -> None:
        """
        Take over what a store has kept, and keep there what outlives a loss of power.

        @raise ValueError: if what it has is damaged.
        """
        self.nonvolatile = Nonvolatile(store)
        self.starts, self.loads = self.nonvolatile.now.cycles
        self.adjust(self.lasting())

    def lasting(self) -> Settings:
        """The settings that hold after a loss of power or a reset (SPC-4 5.10)."""
        settings = attrs.evolve(self.defaults)
        if self.nonvolatile is not None:
            unit: Any = self  # pages are those of whole units
            for page in modes.available(unit):
                body = self.nonvolatile.now.pages.get((page.code, page.subpage))
                if body is not None:
                    page.restored(unit, settings, body)
        return settings

    def adjust(self, settings: Settings) -> None:
        """Let settings hold."""
        self.settings = settings
        self.descriptorSense = settings.descriptorSense
        self.tellsAborted = settings.tellsAborted
        self.queueError = settings.queueError
        self.interlock = settings.interlock

    def reset(self, code: int, but: INexus | None = None) -> None:
        """Logical unit reset (SAM-5 6.3.3): mode parameters are as saved, or have their defaults."""
        self.echoes.clear()
        if self.testing is not None:
            selftest.stop(self.testing, selftest.INTERRUPTED)
        self.adjust(self.lasting())
        super().reset(code, but)

    def nexusLost(self, nexus: INexus) -> None:
        """A session ended (SAM-5 6.3.4): its echo is forgotten."""
        self.echoes.pop(nexus, None)
        super().nexusLost(nexus)

    # Counters

    @property
    def upSeconds(self) -> float:
        """For how long it has been running."""
        return self.clock() - self.since

    def started(self, running: bool) -> None:
        """START STOP UNIT: whether it is to run."""
        if running and self.stopped:
            self.starts += 1
            self._countCycles()
        self.stopped = not running

    def countLoad(self) -> None:
        """The medium was loaded after it had been ejected."""
        self.loads += 1
        self._countCycles()

    def _countCycles(self) -> None:
        if self.nonvolatile is not None:
            saved = self.nonvolatile.change(cycles=(self.starts, self.loads))
            if isPending(saved):
                # Nobody waits for it, and the next one tells the same again.
                saved.addCallbacks(lambda _: None, lambda why: self._report(why.value, None))

    def tally(self, command: Command | None, condition: CheckCondition) -> None:
        """Count an error of a device; what VERIFY meets is counted apart from what READ does."""
        if command in VERIFYING and condition.key == codes.MEDIUM_ERROR:
            self.verifyErrors += 1
        else:
            super().tally(command, condition)

    def pendingCondition(self) -> CheckCondition | None:
        """See L{LogicalUnit}."""
        return super().pendingCondition() if self.testing is None else selftest.inProgress(self.testing)
