# -*- test-case-name: tests.target.test_assembly -*-
"""A configuration becomes devices; devices with options become logical units."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final, NoReturn, Protocol

import attrs
from twisted.python.failure import Failure

from iscsi_twisted.config.filters import SECTORS, CryptSettings
from iscsi_twisted.config.model import (
    NOWHERE,
    Configuration,
    Device,
    Extent,
    Filtered,
    Storage,
    Target,
    Where,
    numbers,
)
from iscsi_twisted.config.options import CDROM, DISK, NO_UNIT_OPTIONS, UnitOptions
from iscsi_twisted.config.steps import Steps, whole
from iscsi_twisted.errors import ConfigurationError, ConfigurationErrors, DeviceError, LocalError
from iscsi_twisted.interfaces import IAccessPolicy, IBlockDevice, Pending, TargetPort
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.identity import Identity
from iscsi_twisted.scsi.optical import BLOCK, OpticalUnit
from iscsi_twisted.scsi.paths import BOTH, NONE, Paths
from iscsi_twisted.scsi.room import QUEUE
from iscsi_twisted.scsi.unit import Report
from iscsi_twisted.scsi.work import Later, atOnce
from iscsi_twisted.storage import Concatenation, FileExtent, Filter, Mirror, Stripe
from iscsi_twisted.storage.members import Composition
from iscsi_twisted.storage.patience import SECONDS
from iscsi_twisted.storage.pending import call
from iscsi_twisted.target.access import linePolicy
from iscsi_twisted.target.identity import Installation, UnitIdentity, identify
from iscsi_twisted.target.kinds import Kind, kindOf
from iscsi_twisted.target.placed import Placed, PlacedFilter, faulty, makeFilter, takeFaults

VENDOR: Final = "TWISTED"
PRODUCT: Final = "iSCSI disk"
PRODUCTS: Final = {DISK: PRODUCT, CDROM: "iSCSI DVD-ROM"}
REVISION: Final = "0.1"
DAY: Final = 86400.0


class Remote(Protocol):
    """Makes a block device of a range of another target's unit; opening it logs in."""

    def __call__(
        self, url: str, start: int, length: int | None, *, readOnly: bool, writeCache: bool
    ) -> IBlockDevice: ...


@attrs.frozen(eq=False)
class Disk:
    """
    A device that is to be served as a logical unit.

    @ivar blockSize: bytes of a logical block.
    @ivar where: the line that defines it, if one does.
    @ivar kind: what the device was made of: one with the same can go on in its place.
    """

    device: IBlockDevice
    options: UnitOptions = NO_UNIT_OPTIONS
    blockSize: int = 512
    readOnly: bool = False
    where: Where = NOWHERE
    kind: Kind = attrs.field()

    @kind.default
    def _itself(self) -> Kind:
        return Kind(self.device, self.device)


@attrs.frozen(eq=False)
class Plan:
    """
    A target that is to be served: its disks are LUN 0, 1, 2 and so on, unless their options say otherwise.

    @ivar policy: who may come.
    @ivar guarded: whether initiators have to authenticate themselves, where there are users.
    @ivar users: those that may log in; None for all that there are.
    @ivar portals: tags of the portal groups through which it is reached; None for all.
    @ivar access: the access states of portal groups that are not active/optimized.
    @ivar preferred: tags of the portal groups that are marked as preferred.
    @ivar tpgs: who may change access states; None for both, if there is anything to change.
    @ivar luns: the disks by their numbers.
    """

    name: str
    disks: tuple[Disk, ...]
    policy: IAccessPolicy
    alias: str = ""
    readOnly: bool = False
    guarded: bool = True
    users: frozenset[str] | None = None
    portals: frozenset[int] | None = None
    access: Mapping[int, int] = attrs.field(factory=dict)
    preferred: frozenset[int] = frozenset()
    tpgs: int | None = None
    luns: dict[int, Disk] = attrs.field(init=False)

    @luns.default
    def _numbered(self) -> dict[int, Disk]:
        found = dict(zip(numbers(each.options for each in self.disks), self.disks, strict=True))
        if len(found) < len(self.disks):
            raise LocalError(f"target {self.name!r}: two units have the same number (lun=)")
        return found

    def ports(self, groups: Iterable[int]) -> tuple[TargetPort, ...]:
        """
        Its target ports.

        @param groups: all portal groups that there are.
        """
        return tuple(
            TargetPort(self.name, group) for group in groups if self.portals is None or group in self.portals
        )

    def paths(self, ports: tuple[TargetPort, ...]) -> Paths:
        """
        How a unit of it is reached through its ports.

        @raise LocalError: if access states are given to groups that do not lead to it.
        """
        tpgs = self.tpgs
        if tpgs is None:
            tpgs = BOTH if len(ports) > 1 or self.access or self.preferred else NONE
        return Paths((port.group for port in ports), self.access, self.preferred, tpgs)


@attrs.frozen
class Discovery:
    """
    Who may ask which targets there are.

    @ivar policy: who may come.
    @ivar guarded: whether initiators have to authenticate themselves; None for where there are users.
    @ivar users: those that may ask; None for all that there are.
    """

    policy: IAccessPolicy
    guarded: bool | None = None
    users: frozenset[str] | None = None


def discovery(configuration: Configuration) -> Discovery | None:
    """What a configuration says of it; None for nothing."""
    line = configuration.discovery
    return None if line is None else Discovery(linePolicy(line), line.options.auth, line.options.users)


class PlacedExtent(Placed, FileExtent):
    """An extent of a targets file."""

    def open(self, changed: Callable[[], None]) -> None:
        """See L{IBlockDevice}."""
        try:
            super().open(changed)
        except DeviceError as error:
            raise self.misplaced(error) from error

    def rehearse(self) -> None:
        """See L{FileExtent}."""
        try:
            super().rehearse()
        except DeviceError as error:
            raise self.misplaced(error) from error


class PlacedRemote(Placed, Filter):
    """An extent of a targets file that is a unit of another target."""

    def open(self, changed: Callable[[], None]) -> Pending:
        """See L{IBlockDevice}."""
        return call(self.member.open, changed).addErrback(self._misplace)

    def _misplace(self, why: Failure) -> NoReturn:
        error = why.value if isinstance(why.value, DeviceError) else DeviceError(why.getErrorMessage())
        raise self.misplaced(error) from why.value


class PlacedComposition(Placed, Composition):
    """What the devices of a targets file have in common."""

    def __str__(self) -> str:
        return self.title

    def opened(self) -> None:
        """See L{Composition}."""
        try:
            super().opened()
        except DeviceError as error:
            raise self.misplaced(error) from error


class PlacedConcatenation(PlacedComposition, Concatenation):
    """A RAID0 device of a targets file."""


class PlacedMirror(PlacedFilter, Mirror):
    """A RAID1 device of a targets file."""

    async def openPlaced(self, changed: Callable[[], None]) -> None:
        """See L{PlacedFilter}."""
        await super().openPlaced(changed)
        # It serves without the members that have faults.
        takeFaults(self)

    def told(self, error: DeviceError) -> bool:
        """See L{PlacedFilter}; a mirror does without some members, whatever their faults are."""
        return str(error) in (str(each.fault) for each in faulty(self))


class PlacedStripe(PlacedComposition, Stripe):
    """A RAID0 device of a targets file that has a chunk size."""


def plans(configuration: Configuration, **terms: Any) -> list[Plan]:
    """What a configuration wants to be served, found out at once; otherwise as L{planning}."""
    return whole(planning(configuration, **terms))


def planning(
    configuration: Configuration,
    *,
    base: str,
    blockSize: int,
    reactor: Any,
    remote: Remote | None = None,
    trusted: Collection[str] = (),
) -> Steps[list[Plan]]:
    """
    What a configuration wants to be served, step by step.  Nothing is opened.

    @param base: what the names of targets begin with that have no IQN of their own.
    @param remote: makes the extents that are units of other targets.
    @param trusted: names of members of mirrors that hold the truth at the next start.
    @raise ConfigurationErrors: for what cannot be served yet.
    """
    faults: list[ConfigurationError] = []
    for target in configuration.targets:
        for storage in target.storages:
            faults += _blockFaults(storage, blockSizeOf(storage.options, blockSize))
        yield
    if faults:
        raise ConfigurationErrors(sorted(faults, key=lambda fault: fault.line or 0))
    maker, made = _Maker(reactor, remote, trusted), []
    for target in configuration.targets:
        disks = []
        for storage in target.storages:
            disks.append(maker.disk(storage, target.readOnly, blockSize))
            yield
        made.append(_plan(target, tuple(disks), base))
    return made


def _plan(target: Target, disks: tuple[Disk, ...], base: str) -> Plan:
    options = target.options
    return Plan(
        target.targetName(base),
        disks,
        linePolicy(target),
        options.alias or "",
        target.readOnly,
        options.auth is not False,
        options.users,
        options.portals,
        dict(options.alua or ()),
        options.preferred or frozenset(),
        options.tpgs,
    )


class _Maker:
    """Makes devices of what a configuration says; opens none."""

    def __init__(self, reactor: Any, remote: Remote | None, trusted: Collection[str]) -> None:
        self._reactor = reactor
        self._trusted = trusted
        self._remote = remote

    def disk(self, storage: Storage, readOnly: bool, blockSize: int) -> Disk:
        """What a target serves."""
        options = storage.options
        readOnly = readOnly or options.readonly or options.type == CDROM
        device = self._device(storage, readOnly, options.writecache)
        block = blockSizeOf(options, blockSize)
        return Disk(device, options, block, readOnly, storage.where, kindOf(storage, readOnly))

    def _device(self, storage: Storage, readOnly: bool, writeCache: bool) -> Any:
        made: Placed
        if isinstance(storage, Device):
            made = self._composition(storage, readOnly, writeCache)
        elif isinstance(storage, Filtered):
            made = self._filter(storage, readOnly, writeCache)
        elif storage.url is None:
            made = PlacedExtent(
                storage.path,
                storage.start,
                storage.length,
                readOnly=readOnly,
                writeCache=writeCache,
                direct=storage.own.direct,
                reactor=self._reactor,
            )
        else:
            made = self._reach(storage, storage.url, readOnly, writeCache)
        made.where = storage.where
        made.title = storage.name
        return made

    def _composition(self, device: Device, readOnly: bool, writeCache: bool) -> Placed:
        members = [self._member(each, readOnly, writeCache) for each in device.members]
        if device.level == 1:
            trusted = [
                made for made, each in zip(members, device.members, strict=True) if each.name in self._trusted
            ]
            patience, scrub = device.own.patience, device.own.scrub
            return PlacedMirror(
                members,
                reactor=self._reactor,
                trusted=trusted[0] if trusted else None,
                patience=SECONDS if patience is None else patience,
                scrubbing=None if scrub is None else scrub * DAY,
            )
        return PlacedConcatenation(members) if device.chunk is None else PlacedStripe(members, device.chunk)

    def _filter(self, storage: Filtered, readOnly: bool, writeCache: bool) -> Placed:
        below = readOnly or storage.word in ("READONLY", "OVERLAY")
        members = [self._member(each, below, writeCache) for each in storage.members]
        return makeFilter(storage, members, self._reactor, readOnly, writeCache)

    def _member(self, storage: Storage, readOnly: bool, writeCache: bool) -> Any:
        options = storage.options
        return self._device(storage, readOnly or options.readonly, writeCache and options.writecache)

    def _reach(self, extent: Extent, url: str, readOnly: bool, writeCache: bool) -> PlacedRemote:
        if self._remote is None:
            raise LocalError(f"{extent.path}: nobody here can reach another target")
        return PlacedRemote(
            self._remote(url, extent.start, extent.length, readOnly=readOnly, writeCache=writeCache)
        )


def unitIdentity(installation: Installation, target: str, lun: int, options: UnitOptions) -> UnitIdentity:
    """The identity of a unit with these options."""
    return identify(installation, target, lun, options.serial, options.naa)


def makeUnit(
    plan: Plan, lun: int, installation: Installation, report: Report, later: Later = atOnce
) -> DiskUnit:
    """
    The logical unit for one disk of a plan; its device is not open yet.

    @param later: calls something in another turn of the reactor.

    @raise ConfigurationError: if its options do not fit one another.
    """
    disk = plan.luns[lun]
    options = disk.options
    names = unitIdentity(installation, plan.name, lun, options)
    identity = Identity(
        vendor=options.vendor or VENDOR,
        product=options.product or PRODUCTS[options.type],
        revision=options.revision or REVISION,
        serial=names.serial,
        naa=names.naa,
        deviceName=names.designator,
    )
    if not _fits(options, disk.blockSize):
        raise _tooSmall(options, disk.blockSize, disk.where)
    if options.type == CDROM:
        return OpticalUnit(
            disk.device, identity=identity, report=report, later=later, queue=options.queue or QUEUE
        )
    return DiskUnit(
        disk.device,
        identity=identity,
        report=report,
        blockSize=disk.blockSize,
        physicalBlockSize=options.physical,
        readOnly=disk.readOnly or plan.readOnly,
        thin=options.thin,
        removable=options.removable,
        rotation=options.rotation,
        sameZero=options.samezero,
        threshold=options.threshold,
        later=later,
        queue=options.queue or QUEUE,
    )


def blockSizeOf(options: UnitOptions, otherwise: int) -> int:
    """Bytes of a logical block of a unit with these options."""
    return BLOCK if options.type == CDROM else options.block or otherwise


def _blockFaults(storage: Storage, blockSize: int) -> Iterator[ConfigurationError]:
    """What does not go together with the logical blocks of a unit."""
    if not _fits(storage.options, blockSize):
        yield _tooSmall(storage.options, blockSize, storage.where)
    if storage.size is not None and storage.size < blockSize:
        yield storage.where.error(
            f"{storage.name} has {storage.size} bytes, and not one block of {blockSize}; make it larger, or"
            " its blocks smaller (block=)"
        )
    for sector in _sectors(storage):
        if blockSize % sector:
            yield storage.where.error(
                f"blocks of {blockSize} bytes are smaller than sectors of {sector}; write block=4K, or"
                f" sector={SECTORS[0]} on the line of the CRYPT"
            )


def _sectors(storage: Storage) -> set[int]:
    """Bytes that a storage encrypts together, wherever it does so."""
    below = {size for each in getattr(storage, "members", ()) for size in _sectors(each)}
    settings = storage.settings if isinstance(storage, Filtered) else None
    return below | {settings.sector} if isinstance(settings, CryptSettings) else below


def _fits(options: UnitOptions, blockSize: int) -> bool:
    return options.physical is None or options.physical >= blockSize


def _tooSmall(options: UnitOptions, blockSize: int, where: Where) -> ConfigurationError:
    return where.error(
        f"physical={options.physical} is less than the block size; a multiple of {blockSize} is wanted"
    )


def absentIdentity(target: str) -> Identity:
    """What answers for LUNs that are not there (INQUIRY is answered for those too)."""
    return Identity(
        vendor=VENDOR,
        product=PRODUCT,
        revision=REVISION,
        serial="0",
        naa=bytes.fromhex("3000000000000000"),
        deviceName=target,
    )
