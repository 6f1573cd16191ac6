# -*- test-case-name: tests.target.test_service -*-
"""Plans become targets with their units."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any

import attrs
from twisted.logger import Logger

from iscsi_twisted.config.options import MAX_LUN, UnitOptions
from iscsi_twisted.errors import ConfigurationError, ConfigurationErrors, LocalError
from iscsi_twisted.interfaces import IBlockDevice
from iscsi_twisted.scsi.disk import BLOCK_SIZES, DiskUnit
from iscsi_twisted.scsi.inventory import furnish
from iscsi_twisted.scsi.lun import decodeLUN
from iscsi_twisted.scsi.unit import Report
from iscsi_twisted.session.names import complaint, normalise
from iscsi_twisted.session.target import Target
from iscsi_twisted.storage import asDevice
from iscsi_twisted.target.assembly import Disk, Plan, absentIdentity, blockSizeOf, makeUnit
from iscsi_twisted.target.identity import Installation
from iscsi_twisted.target.keeping import keep
from iscsi_twisted.target.mirrors import MirrorFiles, adopt, names
from iscsi_twisted.target.mount import Mount


@attrs.define(eq=False)
class Place:
    """
    A LUN of a target that is served.

    @ivar disk: what it was made of.
    @ivar mount: its device.
    """

    disk: Disk
    unit: DiskUnit
    mount: Mount


Address = tuple[str, int]
"""A target's name and a LUN."""


def disks(
    devices: Iterable[Any] | Mapping[int, Any], options: UnitOptions, blockSize: int, readOnly: bool
) -> tuple[Disk, ...]:
    """
    What an application's devices are served as.

    @param devices: in the order of their LUNs, or by LUN.
    @raise LocalError: for blocks of an impossible size, or an impossible LUN.
    """
    if blockSize not in BLOCK_SIZES:
        raise LocalError(f"blocks of {blockSize} bytes; {', '.join(map(str, BLOCK_SIZES))} are possible")
    size = blockSizeOf(options, blockSize)
    if not isinstance(devices, Mapping):
        return tuple(Disk(asDevice(device), options, size, readOnly) for device in devices)
    for lun in devices:
        if not 0 <= lun <= MAX_LUN:
            raise LocalError(f"LUN {lun} is not in 0 to {MAX_LUN}")
    return tuple(
        Disk(asDevice(device), attrs.evolve(options, lun=lun), size, readOnly)
        for lun, device in devices.items()
    )


def gather(plans: dict[str, Plan], plan: Plan, secrets: bool, groups: Collection[int]) -> None:
    """
    Add a plan to others.

    @param plans: by name.
    @param secrets: whether there are users.
    @param groups: the tags of the portal groups that there are.
    @raise LocalError: for a name that is none or is there already, users or portals that there are not.
    """
    name = normalise(plan.name)
    wrong = complaint(plan.name)
    if wrong is None and name in plans:
        wrong = "there is a target of this name already"
    if wrong is not None:
        raise LocalError(f"target {plan.name!r}: {wrong}")
    if plan.users is not None and not (secrets and plan.guarded):
        raise LocalError(f"target {plan.name!r} is for some users, and nobody asks who they are")
    missing = sorted((plan.portals or frozenset()).difference(groups))
    if missing:
        raise LocalError(f"target {plan.name!r}: no listener belongs to portal group {missing[0]}")
    try:
        plan.paths(plan.ports(groups))
    except LocalError as error:
        raise LocalError(f"target {plan.name!r}: {error}") from None
    # Identities derive from the name: one spelling, one disk.
    plans[name] = attrs.evolve(plan, name=name)


class Builder:
    """Makes units and targets; opens nothing."""

    log = Logger(namespace="iscsi_twisted")

    def __init__(
        self, stateDirectory: str | None, reactor: Any, report: Report, groups: Collection[int]
    ) -> None:
        """
        @param stateDirectory: keeps identities, reservations and records of mirrors; None for none of these.
        @param report: told of what nobody expected.
        @param groups: the tags of the portal groups that there are, in order.
        @raise ConfigurationError: if what the directory keeps cannot be read.
        """
        self._stateDirectory, self._reactor, self._report = stateDirectory, reactor, report
        self._groups = groups
        self._mirrors = None if stateDirectory is None else MirrorFiles(stateDirectory, reactor)
        if stateDirectory is not None:
            self._installation = Installation.load(stateDirectory)
        else:
            self._installation = Installation(os.urandom(16))

    def draft(self, plan: Plan, lun: int) -> DiskUnit:
        """
        A unit, without the reservations that it may have.

        @raise ConfigurationError: if its options do not fit one another.
        """
        later = partial(self._reactor.callLater, 0)
        unit = makeUnit(plan, lun, self._installation, self._report, later)
        unit.paths = plan.paths(plan.ports(self._groups))
        return unit

    def place(self, plan: Plan, lun: int) -> Place:
        """
        A LUN, with a device that is not open.

        @raise ConfigurationError: if its options do not fit one another, or its reservations cannot be read.
        """
        disk, unit = plan.luns[lun], self.draft(plan, lun)
        self._keep(unit)
        return Place(disk, unit, self.mount(disk, unit))

    def mount(self, disk: Disk, unit: DiskUnit) -> Mount:
        """The device of a disk, which is not open, for a unit."""
        adopt(disk.device, self._mirrors, self._reactor)
        return Mount(disk.device, unit)

    def opened(self, devices: Iterable[IBlockDevice]) -> None:
        """All devices are open."""
        if self._mirrors is None:
            return
        used = {name for device in devices for name in names(device)}
        try:
            self._mirrors.tidy(used)
        except OSError as error:
            self.log.warn("records of mirrors cannot be looked at: {error}", event="record", error=str(error))

    def close(self) -> None:
        """All devices are closed."""
        if self._mirrors is not None:
            self._mirrors.stop()

    def target(self, plan: Plan, units: dict[int, DiskUnit]) -> Target:
        """A target with these units; who may log in is still to be said."""
        made: dict[int, Any] = {**units}
        absent, wellKnown = furnish(made, plan.ports(self._groups), absentIdentity(plan.name), self._report)
        return Target(plan.name, plan.policy, made, absent, decodeLUN, wellKnown=wellKnown)

    def _keep(self, unit: DiskUnit) -> None:
        """
        Take over what was kept of a unit, where there is a place to keep it.

        @raise ConfigurationError: if it cannot be read.
        """
        if self._stateDirectory is None:
            return
        lost = keep(unit, self._stateDirectory, self._reactor)
        if lost is not None:
            path, error = lost
            self.log.error(
                "{path}: damaged ({error}); until it is removed, or a host replaces the reservation that is"
                " lost (sg_persist --out --replace), the disk refuses whatever a reservation may forbid",
                path=path, error=error, event="reservations",
            )  # fmt: skip


def build(builder: Builder, plans: Iterable[Plan]) -> dict[Address, Place]:
    """
    All LUNs of these plans.

    @raise ConfigurationErrors: all that is wrong with them.
    """
    places: dict[Address, Place] = {}
    faults = []
    for plan in plans:
        for lun in plan.luns:
            try:
                places[plan.name, lun] = builder.place(plan, lun)
            except ConfigurationError as error:
                faults.append(error)
    if faults:
        raise ConfigurationErrors(faults)
    return places
