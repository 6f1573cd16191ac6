# -*- test-case-name: tests.scsi.test_disk -*-
"""A direct access block device: SCSI blocks over a block device's bytes (SBC-3)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import perf_counter, time
from typing import ClassVar, Final

import attrs

from iscsi_twisted.errors import CheckCondition, DeviceError, LocalError
from iscsi_twisted.interfaces import Capabilities, IBlockDevice, INexus, IStateStore, Space, isPending
from iscsi_twisted.scsi import (
    atomic,
    buffers,
    capacity,
    cdb,
    codes,
    copying,
    copyresults,
    defects,
    formatting,
    inquiry,
    inventory,
    lbastatus,
    logs,
    medium,
    modes,
    modeselect,
    naming,
    persistent,
    portgroups,
    primary,
    provisioning,
    reservation,
    sanitize,
    selftest,
    supported,
    thresholds,
    timestamp,
    transfer,
    untorn,
    verify,
    vpd,
)
from iscsi_twisted.scsi.cdb import Command
from iscsi_twisted.scsi.closure import Closure
from iscsi_twisted.scsi.identity import Identity
from iscsi_twisted.scsi.modes import Settings
from iscsi_twisted.scsi.nonvolatile import Nonvolatile
from iscsi_twisted.scsi.overhaul import Plan, goOn
from iscsi_twisted.scsi.room import QUEUE
from iscsi_twisted.scsi.selftest import SelfTest
from iscsi_twisted.scsi.table import CommandTable
from iscsi_twisted.scsi.unit import LogicalUnit, Report
from iscsi_twisted.scsi.untorn import ATOMIC_LIMIT, Journal
from iscsi_twisted.scsi.work import Later, atOnce

BLOCK_SIZES: Final = (512, 1024, 2048, 4096, 8192)
MIN_ROTATION, MAX_ROTATION = 0x0401, 0xFFFE
"""Revolutions per minute that VPD page B1h can tell; SBC-3 6.6.2."""

# Bounds of one command, in bytes; told to initiators in VPD page B0h.
TRANSFER_LIMIT: Final = 16 << 20
"""Of READ and WRITE: what one task may hold in memory."""
OPTIMAL_TRANSFER: Final = 1 << 20
SAME_LIMIT: Final = 16 << 20
"""Of WRITE SAME: as of a WRITE, which some initiators take for granted."""
UNMAP_LIMIT: Final = 512 << 20
"""Of UNMAP: punching holes costs time for each piece of the file; no initiator expects above 2**20 blocks."""
COMPARE_LIMIT: Final = 255
"""Blocks of one COMPARE AND WRITE: all that its CDB can say."""
DESCRIPTOR_LIMIT: Final = 256
"""Descriptors of one UNMAP."""

VERIFYING: Final = (cdb.VERIFY_10, cdb.VERIFY_12, cdb.VERIFY_16)
_DEFINITION: Final = (
    "_threshold",
    "_wantsThin",
    "blockSize",
    "device",
    "identity",
    "optimalTransfer",
    "physicalBlockSize",
    "removable",
    "rotation",
    "sameLimit",
    "sameZero",
    "transferLimit",
    "unmapLimit",
    "wantsReadOnly",
)
"""What a unit was made with."""


class DiskUnit(LogicalUnit):
    """
    A disk.

    @cvar describesBlocks: whether mode parameters have block descriptors and a write protect bit.
    @ivar blockCount: logical blocks; what a device has beyond the last whole one is not exported.
    @ivar readOnly: nobody may write.
    @ivar wantsReadOnly: nobody may, whatever the device can do.
    @ivar thin: blocks can be unmapped.
    @ivar volatileCache: written blocks may be lost until they are flushed.
    @ivar unmappedZeroes: unmapped blocks read as zeros.
    @ivar transferLimit: blocks of one READ or WRITE.
    @ivar sameZero: WRITE SAME of no blocks means all up to the last (WSNZ is zero; SBC-3 6.6.4).
    @ivar rotation: revolutions per minute, 1 for what does not rotate, None for what the device says.
    @ivar settings: what initiators have set.
    @ivar defaults: what holds until then.
    @ivar nonvolatile: what outlives a loss of power, or None if nothing does.
    @ivar writeThrough: every write is made durable, as WCE is zero.
    @ivar guarded: whether writes need a closer look: nobody may write, or not so simply.
    @ivar ejected: the medium of a removable unit is out.
    @ivar journal: keeps a WRITE ATOMIC that is under way; None if there is no such command.
    @ivar atomicLimit: blocks of one WRITE ATOMIC.
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
    @ivar forgets: what is overwritten is gone, as far as the device can tell.
    @ivar unfinished: keeps what remakes the whole medium, or failed to; None where nothing does.
    @ivar failedPlan: what has failed to remake the whole medium.
    @ivar isClosing: the device goes, and what is being done goes on at the next start.
    @ivar tellsSpace: it is thin, and its device tells how much space there is.
    @ivar space: what it told last.
    @ivar reached: the numbers of the thresholds that have been reached, and told.
    @ivar copies: what is known of copies, by nexus and list identifier.
    @ivar copying: copies that are under way.
    @ivar prevents: the nexuses that prevent the removal of the medium.
    """

    table = CommandTable(
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
        capacity.COMMANDS,
        transfer.COMMANDS,
        provisioning.COMMANDS,
        lbastatus.COMMANDS,
        defects.COMMANDS,
        buffers.COMMANDS,
        naming.COMMANDS,
        timestamp.COMMANDS,
        selftest.COMMANDS,
        verify.COMMANDS,
        atomic.COMMANDS,
        untorn.COMMANDS,
        sanitize.COMMANDS,
        formatting.COMMANDS,
        copying.COMMANDS,
        copyresults.COMMANDS,
    )
    pages = vpd.DISK_PAGES | {0x8F: copyresults.thirdPartyCopy}
    copyable = True
    describesBlocks = True
    modePages: ClassVar[tuple[modes.ModePage, ...]] = modes.PAGES
    logPages: ClassVar[tuple[logs.LogPage, ...]] = logs.PAGES

    def __init__(
        self,
        device: IBlockDevice,
        *,
        identity: Identity,
        report: Report,
        blockSize: int = 512,
        physicalBlockSize: int | None = None,
        readOnly: bool = False,
        thin: bool | None = None,
        removable: bool = False,
        rotation: int | None = None,
        sameZero: bool = False,
        queue: int = QUEUE,
        threshold: int | None = None,
        clock: Callable[[], float] = perf_counter,
        calendar: Callable[[], float] = time,
        later: Later = atOnce,
    ) -> None:
        """
        @param report: told of what nobody expected.
        @param blockSize: bytes of a logical block: 512, 1024, 2048, 4096 or 8192.
        @param physicalBlockSize: bytes that the medium is written by; a power of two times C{blockSize}.
        @param thin: whether blocks can be unmapped; None for whatever the device can do.
        @param removable: whether the medium can be ejected, and loaded again.
        @param rotation: revolutions per minute, or 1 for a medium that does not rotate.
        @param calendar: tells the seconds since the beginning of 1970.
        @param threshold: percentage of the space for a thin unit; when no more is left initiators are told.
        @param sameZero: whether WRITE SAME of no blocks means all blocks up to the last.
        @param queue: commands that the unit has at a time; see L{LogicalUnit}.
        @param later: calls something when others have had their turn.
        @raise LocalError: if the sizes do not fit, or there is no such rotation rate (SBC-3 6.6.2).
        """
        super().__init__(identity, report, queue=queue, clock=clock, later=later)
        physical = max(blockSize, 4096) if physicalBlockSize is None else physicalBlockSize
        ratio = physical // blockSize if blockSize in BLOCK_SIZES else 0
        if ratio * blockSize != physical or not ratio or ratio & (ratio - 1):
            raise LocalError(f"blocks of {blockSize} bytes on physical blocks of {physical} bytes")
        if rotation is not None and rotation != 1 and not MIN_ROTATION <= rotation <= MAX_ROTATION:
            raise LocalError(f"a medium that rotates {rotation} times a minute")
        self.device = device
        self.blockSize = blockSize
        self.physicalBlockSize = physical
        self.transferLimit = TRANSFER_LIMIT // blockSize
        self.optimalTransfer = OPTIMAL_TRANSFER // blockSize
        self.sameLimit = SAME_LIMIT // blockSize
        self.unmapLimit = UNMAP_LIMIT // blockSize
        self.descriptorLimit = DESCRIPTOR_LIMIT
        self.compareLimit = COMPARE_LIMIT
        self.sameZero = sameZero
        self._threshold = threshold
        self.tellsSpace = False
        self.space = Space(0, 0)
        self.reached: frozenset[int] = frozenset()
        self.journal: Journal | None = None
        self.atomicLimit = 0
        self.copies: dict[tuple[INexus, int], copying.CopyRecord] = {}
        self.copying = 0
        self.unfinished: IStateStore | None = None
        self.failedPlan: Plan | None = None
        self._resumed: Plan | None = None
        self.isClosing = False
        self.removable = removable
        self.rotation = rotation
        self.prevents: set[INexus] = set()
        self.since = clock()
        self.buffer = bytearray()
        self.echoes: dict[INexus, bytes] = {}
        self.testing: SelfTest | None = None
        self.tests: deque[SelfTest] = deque(maxlen=selftest.LATEST)
        self.calendar = calendar
        self.ahead: float | None = None
        self.logBase: dict[str, float] = {}
        self.verifiedBytes = self.verifyErrors = self.starts = self.loads = 0
        self.stopped = False
        self.nonvolatile: Nonvolatile | None = None
        self.blockCount = 0
        self._open = False
        self.ejected = False
        self.wantsReadOnly = readOnly
        self._wantsThin = thin
        self._learn(Capabilities(readOnly=True))
        self._unready(codes.BECOMING_READY)

    # The device's life

    def opened(self) -> None:
        """
        The device is open: learn its size and what it can do, and be ready.

        @raise LocalError: if its blocks do not divide a logical block.
        """
        if self.blockSize % self.device.blockSize:
            raise LocalError(f"blocks of {self.blockSize} bytes on a device of {self.device.blockSize}")
        self._learn(self.device.capabilities())
        self._open = True
        self.isClosing = False
        self._measure()
        if self._resumed is not None:
            goOn(self, self._resumed)

    def keepWrites(self, store: IStateStore) -> None:
        """Have WRITE ATOMIC, with a place that keeps each until it is durable on the medium."""
        self.journal = Journal(store)
        self.atomicLimit = min(ATOMIC_LIMIT // self.blockSize, self.transferLimit)

    def keepPlans(self, store: IStateStore) -> None:
        """
        Keep what remakes the whole medium, and take up what was kept when the device is open.

        @raise ValueError: if what was kept is damaged.
        """
        state = store.load()
        self._resumed = Plan.decode(state) if state else None
        self.unfinished = store

    def closed(self) -> None:
        """The device is gone: refuse what needs it."""
        self.isClosing = True
        for work in tuple(self.works):
            work.stop()
        self._open = False
        self._unready(codes.NOT_READY_CAUSE_NOT_REPORTABLE)

    def become(self, other: DiskUnit, *, replaced: bool = False) -> list[int]:
        """
        Be as another unit is, whose device is open and which serves nobody; nothing may be at work.

        What initiators have set and reserved stays.

        @param replaced: what the medium holds is something else now.
        @return: the unit attention conditions that were established for every nexus.
        """
        before, settings, cached = self._views(), self.settings, self.volatileCache
        for name in _DEFINITION:
            setattr(self, name, getattr(other, name))
        self.room.size = other.room.size
        self._open = True
        self._learn(self.device.capabilities())
        if self.journal is not None:
            self.keepWrites(self.journal.store)
        if cached != self.volatileCache:
            settings = attrs.evolve(settings, writeCache=self.volatileCache)
        self.adjust(settings)
        self.ejected = self.ejected and self.removable
        self._measure()
        told = [codes.MEDIUM_MAY_HAVE_CHANGED] if replaced else []
        told += [code for code, view in self._views().items() if view != before[code]]
        for code in told:
            self.attention(code)
        return told

    def _views(self) -> dict[int, object]:
        """What initiators may remember of the unit, by the condition that tells of its change."""
        provisioning = self.thin, self.unmappedZeroes, self.physicalBlockSize
        return {
            codes.CAPACITY_CHANGED: (self.blockCount, self.blockSize, *provisioning),
            codes.MODE_PARAMETERS_CHANGED: (self.readOnly, self.settings),
            codes.INQUIRY_CHANGED: (
                (self.identity, self.removable, self.rotation, self.rotational),
                (*provisioning, self.transferLimit, self.sameZero),
            ),
        }

    def changed(self) -> None:
        """The device's C{changed}: its size may be another one."""
        if self._open and self.device.size // self.blockSize != self.blockCount:
            self.capacityChanged()

    def capacityChanged(self) -> None:
        """Take over the device's size, and let every nexus know."""
        self._measure()
        self.attention(codes.CAPACITY_CHANGED)

    def _measure(self) -> None:
        self.blockCount = self.device.size // self.blockSize
        # A device without a single block has nothing to be ready with.
        self._unready(0 if self.blockCount else codes.NOT_READY_CAUSE_NOT_REPORTABLE)

    def _unready(self, why: int) -> None:
        self._why = why
        self.notReady = why or (codes.MEDIUM_NOT_PRESENT if self.ejected else 0)
        self.reconsider()

    @property
    def erases(self) -> bool:
        """Whether all blocks can be made zeros by giving their storage back."""
        return self.forgets and self.thin and self.cheapZeroes and self.unmappedZeroes

    @property
    def upSeconds(self) -> float:
        """For how long it has been running."""
        return self.clock() - self.since

    # What initiators do to it

    @property
    def isOverhauled(self) -> bool:
        """Whether the whole medium is being remade."""
        return self.closure is not None and self.closure.work is not None

    def shut(self, closure: Closure) -> None:
        """Refuse most commands."""
        self.closure = closure
        self.reconsider()

    def reopen(self) -> None:
        """Refuse commands no more."""
        self.closure = self.failedPlan = None
        self.reconsider()

    def eject(self) -> None:
        """Take the medium out."""
        self.ejected = True
        self._unready(self._why)

    def load(self, nexus: INexus) -> None:
        """Put the medium back; all but who did it are told that it may be another one (SBC-3 4.3)."""
        if self.ejected:
            self.ejected = False
            self.loads += 1
            self._countCycles()
            self._unready(self._why)
            self.attention(codes.MEDIUM_MAY_HAVE_CHANGED, but=nexus)

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
            for page in modes.available(self):
                body = self.nonvolatile.now.pages.get((page.code, page.subpage))
                if body is not None:
                    page.restored(self, settings, body)
        return settings

    def started(self, running: bool) -> None:
        """START STOP UNIT: whether it is to run."""
        if running and self.stopped:
            self.starts += 1
            self._countCycles()
        self.stopped = not running

    def _countCycles(self) -> None:
        if self.nonvolatile is not None:
            saved = self.nonvolatile.change(cycles=(self.starts, self.loads))
            if isPending(saved):
                # Nobody waits for it, and the next one tells the same again.
                saved.addCallbacks(None, lambda why: self._report(why.value, None))

    def pendingCondition(self) -> CheckCondition | None:
        """See L{LogicalUnit}."""
        return super().pendingCondition() if self.testing is None else selftest.inProgress(self)

    def tally(self, command: Command | None, condition: CheckCondition) -> None:
        """Count an error of a device; what VERIFY meets is counted apart from what READ does."""
        if command in VERIFYING and condition.key == codes.MEDIUM_ERROR:
            self.verifyErrors += 1
        else:
            super().tally(command, condition)

    def watch(self) -> None:
        """Look at what nobody tells of by itself; to be called now and then.  It never raises."""
        try:
            thresholds.watch(self)
        except (DeviceError, OSError):
            pass  # what cannot be known now may be known later
        except Exception as error:
            self._report(error, None)

    def adjust(self, settings: Settings) -> None:
        """Let settings hold."""
        self.settings = settings
        self.reached = frozenset()
        self.descriptorSense = settings.descriptorSense
        self.tellsAborted = settings.tellsAborted
        self.queueError = settings.queueError
        self.interlock = settings.interlock
        self.writeThrough = self.volatileCache and not settings.writeCache
        self.guarded = self.readOnly or settings.softwareProtected or self.writeThrough

    def reset(self, code: int, but: INexus | None = None) -> None:
        """Logical unit reset (SAM-5 6.3.3): mode parameters are as saved, or have their defaults."""
        self.prevents.clear()
        self.copies.clear()
        self.echoes.clear()
        if self.testing is not None:
            selftest.stop(self.testing, selftest.INTERRUPTED)
        self.adjust(self.lasting())
        super().reset(code, but)

    def nexusLost(self, nexus: INexus) -> None:
        """A session ended (SAM-5 6.3.4): it prevents nothing any more."""
        self.prevents.discard(nexus)
        for key in [each for each in self.copies if each[0] is nexus]:
            del self.copies[key]
        self.echoes.pop(nexus, None)
        super().nexusLost(nexus)

    def _learn(self, able: Capabilities) -> None:
        self.readOnly = self.wantsReadOnly or able.readOnly
        self.thin = able.discard if self._wantsThin is None else self._wantsThin
        self.volatileCache = able.volatileCache
        self.unmappedZeroes = able.discardZeroes
        self.cheapZeroes = able.zero
        self.tellsAllocation = able.allocated
        self.rotational = able.rotational
        self.forgets = not able.retains
        self.tellsSpace = self.thin and able.space
        self.defaults = Settings(writeCache=able.volatileCache)
        if self.tellsSpace and self._threshold is not None:
            self.defaults.reportsThresholds = True
            self.defaults.thresholds = thresholds.warning(self._threshold)
        self.adjust(self.lasting())
