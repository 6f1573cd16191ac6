# -*- test-case-name: tests.scsi.test_disk -*-
"""A direct access block device: SCSI blocks over a block device's bytes (SBC-3)."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, time
from typing import Final

import attrs

from iscsi_twisted.errors import DeviceError, LocalError
from iscsi_twisted.interfaces import Capabilities, IBlockDevice, INexus, IStateStore, Space
from iscsi_twisted.scsi import (
    atomic,
    capacity,
    codes,
    copying,
    copyresults,
    defects,
    formatting,
    lbastatus,
    persistent,
    provisioning,
    sanitize,
    thresholds,
    transfer,
    untorn,
    verify,
    vpd,
)
from iscsi_twisted.scsi.closure import Closure
from iscsi_twisted.scsi.identity import Identity
from iscsi_twisted.scsi.modes import Settings
from iscsi_twisted.scsi.origin import mediumOf
from iscsi_twisted.scsi.overhaul import Plan, forget, goOn
from iscsi_twisted.scsi.room import QUEUE
from iscsi_twisted.scsi.table import CommandTable
from iscsi_twisted.scsi.unit import Report
from iscsi_twisted.scsi.untorn import ATOMIC_LIMIT, Journal
from iscsi_twisted.scsi.upkeep import SHARED, Upkeep
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


def _physical(blockSize: int, wanted: int | None) -> int:
    """
    Bytes of a physical block.

    @raise LocalError: if there are no such blocks.
    """
    physical = max(blockSize, 4096) if wanted is None else wanted
    ratio = physical // blockSize if blockSize in BLOCK_SIZES else 0
    if ratio * blockSize != physical or not ratio or ratio & (ratio - 1):
        raise LocalError(f"blocks of {blockSize} bytes on physical blocks of {physical} bytes")
    return physical


def _checkRotation(rotation: int | None) -> None:
    """@raise LocalError: for what VPD page B1h cannot tell (SBC-3 6.6.2)."""
    if rotation is not None and rotation != 1 and not MIN_ROTATION <= rotation <= MAX_ROTATION:
        raise LocalError(f"a medium that rotates {rotation} times a minute")


class DiskUnit(Upkeep):
    """
    A disk.

    @ivar blockCount: logical blocks; what a device has beyond the last whole one is not exported.
    @ivar readOnly: nobody may write.
    @ivar wantsReadOnly: nobody may, whatever the device can do.
    @ivar thin: blocks can be unmapped.
    @ivar volatileCache: written blocks may be lost until they are flushed.
    @ivar unmappedZeroes: unmapped blocks read as zeros.
    @ivar transferLimit: blocks of one READ or WRITE.
    @ivar sameZero: WRITE SAME of no blocks means all up to the last (WSNZ is zero; SBC-3 6.6.4).
    @ivar rotation: revolutions per minute, 1 for what does not rotate, None for what the device says.
    @ivar writeThrough: every write is made durable, as WCE is zero.
    @ivar guarded: whether writes need a closer look: nobody may write, or not so simply.
    @ivar ejected: the medium of a removable unit is out.
    @ivar journal: keeps a WRITE ATOMIC that is under way; None if there is no such command.
    @ivar atomicLimit: blocks of one WRITE ATOMIC.
    @ivar forgets: what is overwritten is gone, as far as the device can tell.
    @ivar rekeys: the device can forget the key of all that it holds.
    @ivar unfinished: keeps what remakes the whole medium, or failed to; None where nothing does.
    @ivar medium: which one it has, as far as its open device can tell.
    @ivar failedPlan: what has failed to remake the whole medium.
    @ivar isClosing: the device goes, and what is being done goes on at the next start.
    @ivar tellsSpace: it is thin, and its device tells how much space there is.
    @ivar space: what it told when it was asked last; None if it did not know.
    @ivar reached: the numbers of the thresholds that have been reached, and told.
    @ivar copies: what is known of copies, by nexus and list identifier.
    @ivar copying: copies that are under way.
    @ivar prevents: the nexuses that prevent the removal of the medium.
    """

    table = CommandTable(
        *SHARED,
        capacity.COMMANDS,
        transfer.COMMANDS,
        provisioning.COMMANDS,
        lbastatus.COMMANDS,
        defects.COMMANDS,
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
        super().__init__(identity, report, queue=queue, clock=clock, calendar=calendar, later=later)
        _checkRotation(rotation)
        self.device = device
        self.blockSize = blockSize
        self.physicalBlockSize = _physical(blockSize, physicalBlockSize)
        self.sameZero, self.removable, self.rotation = sameZero, removable, rotation
        self.wantsReadOnly, self._wantsThin, self._threshold = readOnly, thin, threshold
        self._bound()
        self._blank()
        self._learn(Capabilities(readOnly=True))
        self._unready(codes.BECOMING_READY)

    def _bound(self) -> None:
        """The bounds of one command, in blocks."""
        self.transferLimit = TRANSFER_LIMIT // self.blockSize
        self.optimalTransfer = OPTIMAL_TRANSFER // self.blockSize
        self.sameLimit = SAME_LIMIT // self.blockSize
        self.unmapLimit = UNMAP_LIMIT // self.blockSize
        self.descriptorLimit = DESCRIPTOR_LIMIT
        self.compareLimit = COMPARE_LIMIT
        self.atomicLimit = 0

    def _blank(self) -> None:
        """What a disk is before its device is open, and before anybody has used it."""
        self.blockCount = 0
        self._open = self.isClosing = self.ejected = self.rekeys = self.tellsSpace = False
        self.space: Space | None = None
        self.reached: frozenset[int] = frozenset()
        self.journal: Journal | None = None
        self.medium: str | None = None
        self.unfinished: IStateStore | None = None
        self.failedPlan: Plan | None = None
        self._resumed: Plan | None = None
        self.copies: dict[tuple[INexus, int], copying.CopyRecord] = {}
        self.copying = 0
        self.prevents: set[INexus] = set()

    # The device's life

    def opened(self) -> None:
        """
        The device is open: learn its size and what it can do, and be ready.

        @raise LocalError: if its blocks do not divide a logical block, or what was kept is of another medium.
        """
        if self.blockSize % self.device.blockSize:
            raise LocalError(f"blocks of {self.blockSize} bytes on a device of {self.device.blockSize}")
        self.medium = mediumOf(self.device)
        self._learn(self.device.capabilities())
        self._open = True
        self.isClosing = False
        self._measure()
        if self._resumed is not None:
            goOn(self, self._resumed)

    def keepWrites(self, store: IStateStore) -> None:
        """Have WRITE ATOMIC, with a place that keeps each until it is durable on the medium."""
        self.journal = Journal(store, self._guard, self.journal is not None and self.journal.stale)
        self._permitAtomic()

    def _permitAtomic(self) -> None:
        # What is kept is not encrypted: a disk that is does without.
        able = self.journal is not None and not self.rekeys
        self.atomicLimit = min(ATOMIC_LIMIT // self.blockSize, self.transferLimit) if able else 0

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
        self.medium = mediumOf(self.device)
        if self.failedPlan is not None:
            # Still nobody may use it, after a restart too.
            forget(self.unfinished, attrs.evolve(self.failedPlan, medium=self.medium).encode())
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
    def sanitizes(self) -> bool:
        """Whether there is any SANITIZE."""
        return self.forgets or self.rekeys

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
            self.countLoad()
            self._unready(self._why)
            self.attention(codes.MEDIUM_MAY_HAVE_CHANGED, but=nexus)

    def watch(self) -> None:
        """Look at what nobody tells of by itself; to be called now and then.  It never raises."""
        try:
            persistent.keepAgain(self)
            if self.journal is not None and self.journal.stale:
                self.journal.forget()
            thresholds.watch(self)
        except (DeviceError, OSError):
            pass  # what cannot be known now may be known later
        except Exception as error:
            self._report(error, None)

    def adjust(self, settings: Settings) -> None:
        """Let settings hold."""
        super().adjust(settings)
        self.reached = frozenset()
        self.writeThrough = self.volatileCache and not settings.writeCache
        self._guard()

    def _guard(self) -> None:
        """Find out whether writes need a closer look."""
        stale = self.journal is not None and self.journal.stale
        self.guarded = self.readOnly or self.settings.softwareProtected or self.writeThrough or stale

    def reset(self, code: int, but: INexus | None = None) -> None:
        """Logical unit reset (SAM-5 6.3.3): nothing is kept in it any more."""
        self.prevents.clear()
        self.copies.clear()
        super().reset(code, but)

    def nexusLost(self, nexus: INexus) -> None:
        """A session ended (SAM-5 6.3.4): it prevents nothing any more."""
        self.prevents.discard(nexus)
        for key in [each for each in self.copies if each[0] is nexus]:
            del self.copies[key]
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
        self.rekeys = able.rekey
        self._permitAtomic()
        self.tellsSpace = self.thin and able.space
        self.defaults = Settings(writeCache=able.volatileCache)
        if self.tellsSpace and self._threshold is not None:
            self.defaults.reportsThresholds = True
            self.defaults.thresholds = thresholds.warning(self._threshold)
        self.adjust(self.lasting())
