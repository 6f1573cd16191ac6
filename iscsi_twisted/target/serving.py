# -*- test-case-name: tests.target.test_service,tests.target.test_reload -*-
"""What a service serves at a time: targets, their units, and who may log in."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import CancelledError, DeferredList, ensureDeferred

from iscsi_twisted.auth.verifier import Verifier
from iscsi_twisted.errors import ConfigurationErrors, LocalError
from iscsi_twisted.interfaces import ISecretStore
from iscsi_twisted.session.doors import Door
from iscsi_twisted.session.node import Node
from iscsi_twisted.session.target import Authenticator, Target
from iscsi_twisted.session.verdicts import Verdicts
from iscsi_twisted.target.assembly import Discovery, Plan
from iscsi_twisted.target.building import Address, Builder, Place, build
from iscsi_twisted.target.journal import Journal
from iscsi_twisted.target.mount import Mount, Mounting
from iscsi_twisted.target.slices import inSlices


class Serving:
    """
    The targets of one service.

    @ivar node: what initiators see.
    @ivar plans: by name, what is served.
    @ivar places: the LUNs that there are.
    @ivar mounts: all devices that are open, those too whose LUN is on its way out.
    @ivar secrets: the users; None if nobody is asked who they are.
    @ivar discovery: who may ask for targets; None for all users.
    """

    def __init__(
        self,
        reactor: Any,
        journal: Journal,
        node: Node,
        *,
        stateDirectory: str | None,
        secrets: ISecretStore | None,
        algorithms: tuple[int, ...],
        openDiscovery: bool,
        groups: Collection[int],
        discovery: Discovery | None = None,
    ) -> None:
        """
        @param openDiscovery: whether discovery asks nobody who they are, even if there are users.
        @param groups: the tags of the portal groups that there are, in order.
        @param discovery: who may ask for targets; it goes before C{openDiscovery}.
        """
        self.reactor, self.journal, self.node = reactor, journal, node
        self.plans: dict[str, Plan] = {}
        self.places: dict[Address, Place] = {}
        self.mounts: set[Mount] = set()
        self.secrets: ISecretStore | None = None
        self.discovery: Discovery | None = None
        self._stateDirectory, self._algorithms, self._openDiscovery = (
            stateDirectory,
            algorithms,
            openDiscovery,
        )
        self.groups = groups
        self._builder: Builder | None = None
        self._opening: Mounting | None = None
        self._verdicts = Verdicts(reactor.seconds, reactor.callLater, node.limits.loginTime)
        node.verdicts = self._verdicts
        self.ask(secrets, discovery)

    # Who may log in

    def ask(self, secrets: ISecretStore | None, discovery: Discovery | None = None) -> None:
        """
        From now on these are the users, for logins that begin.

        @param discovery: who may ask for targets.
        """
        self.secrets, self.discovery = secrets, discovery
        asks = secrets is not None and not self._openDiscovery
        if discovery is not None and discovery.guarded is not None:
            asks = discovery.guarded
        self.node.door = None if discovery is None else Door("", discovery.policy, discovery.users)
        self.node.authenticate = self._verifier if asks else None
        self.node.certified = getattr(secrets, "certified", None)

    def _verifier(self) -> Authenticator:
        assert self.secrets is not None
        return Verifier(self.secrets, os.urandom, self._algorithms)

    def admit(self, target: Target, plan: Plan) -> None:
        """Let a target be for whom a plan says."""
        target.policy, target.users = plan.policy, plan.users
        target.alias, target.readOnly = plan.alias, plan.readOnly
        target.groups = plan.portals
        target.authenticate = self._verifier if plan.guarded and self.secrets is not None else None

    def tick(self) -> None:
        """Time passes; called every few seconds."""
        self._verdicts.tick()
        for mount in self.mounts:
            mount.unit.watch()

    # What there is

    def start(self) -> None:
        """
        Make units and targets of the plans.

        @raise ConfigurationError: or L{ConfigurationErrors}, if that is impossible.
        """
        self.places = build(self.renew(), self.plans.values())
        for plan in self.plans.values():
            self.add(plan, {lun: self.places[plan.name, lun] for lun in plan.luns})

    def renew(self) -> Builder:
        """A builder for a service that starts; it reads the state directory once."""
        self._builder = Builder(self._stateDirectory, self.reactor, self._report, self.groups)
        return self._builder

    @property
    def builder(self) -> Builder:
        """Makes the units of this service."""
        assert self._builder is not None
        return self._builder

    def _report(self, error: BaseException, task: object) -> None:
        self.journal.surprise(error, "serving a command")

    def add(self, plan: Plan, places: dict[int, Place]) -> Target:
        """Serve a target more."""
        target = self.builder.target(plan, {lun: place.unit for lun, place in places.items()})
        self.admit(target, plan)
        self.node.add(target)
        return target

    async def open(self, mounts: Iterable[Mount], *, slices: bool = False) -> None:
        """
        Open devices: all of them, or none.

        @param slices: others are served meanwhile.
        @raise ConfigurationErrors: all that is wrong with them.
        """
        mounts = list(mounts)
        self.mounts.update(mounts)
        opening = self._opening = Mounting(mounts, self.journal)
        try:
            if slices:
                with suppress(CancelledError):
                    await inSlices(self.reactor, opening.begin())
            faults = await opening.open()
        finally:
            self._opening = None
        if faults or opening.abandoned:
            await self.close(mounts)
        if opening.abandoned:
            raise LocalError("the service was stopped while it opened devices")
        if faults:
            raise ConfigurationErrors(faults)

    def abandon(self) -> None:
        """Let devices that are being opened give up."""
        if self._opening is not None:
            self._opening.abandon()

    async def close(self, mounts: Iterable[Mount]) -> None:
        """Flush and close devices as far as they are open; failures are logged."""
        await DeferredList([ensureDeferred(self._close(mount)) for mount in list(mounts)])

    async def _close(self, mount: Mount) -> None:
        self.mounts.discard(mount)
        if mount.isOpen:
            await mount.flush()
            await mount.close()

    async def closeAll(self) -> None:
        """Serve nothing any more."""
        self._verdicts.end()
        self.node.clear()
        for place in self.places.values():
            place.unit.closed()
        self.places = {}
        await self.close(self.mounts)
        if self._builder is not None:
            self._builder.close()
