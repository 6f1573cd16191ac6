# -*- test-case-name: tests.target.test_reload,tests.target.test_reloadunits -*-
"""
What can fail when a service is to serve something else.

New devices are opened while the old targets serve.  A device that has to be closed before another can use
its files is closed while its unit holds commands back; should the other then not open, it is opened again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredList, ensureDeferred

from iscsi_twisted.config.steps import Steps
from iscsi_twisted.errors import ConfigurationError, ConfigurationErrors
from iscsi_twisted.interfaces import ISecretStore
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.storage.pending import ready
from iscsi_twisted.target.assembly import Discovery, Plan
from iscsi_twisted.target.building import Address, Place, gather
from iscsi_twisted.target.difference import Step, compare, postponed
from iscsi_twisted.target.farewell import end, within
from iscsi_twisted.target.mount import Mount
from iscsi_twisted.target.placed import rehearse, takeFaults
from iscsi_twisted.target.protocol import TargetProtocol
from iscsi_twisted.target.serving import Serving
from iscsi_twisted.target.slices import inSlices

GRACE: Final = 10.0
"""
Seconds for what is at work on a device that is to be exchanged: commands that come meanwhile wait, and an
initiator gives up on one after 30 seconds or more.
"""

Protocols = Callable[[], list[TargetProtocol]]


@attrs.frozen
class Wanted:
    """
    What is to be served.

    @ivar plans: all targets.
    @ivar secrets: the users that may log in; None if nobody is asked who they are.
    @ivar warnings: what is to be logged.
    @ivar discovery: who may ask for targets; None for all users.
    """

    plans: tuple[Plan, ...]
    secrets: ISecretStore | None = None
    warnings: tuple[str, ...] = ()
    discovery: Discovery | None = None


class Change:
    """
    One change, and all that is known of it until it is made.

    @ivar plans: all that is to be served, by name.
    @ivar steps: what has to be done.
    @ivar leaving: the LUNs that are not to be served any more.
    @ivar removed: the names of targets that are not.
    @ivar drafts: units as they are to be.
    @ivar mounts: the devices of these.
    @ivar held: LUNs that hold commands back; each fires when it is at rest.
    @ivar late: the steps that cannot be done now.
    """

    def __init__(self, serving: Serving, wanted: Wanted, protocols: Protocols) -> None:
        self.serving, self.protocols = serving, protocols
        self.secrets, self.discovery = wanted.secrets, wanted.discovery
        self._wanted = wanted.plans
        self.plans: dict[str, Plan] = {}
        self.steps: list[Step] = []
        self.leaving: dict[Address, Place] = {}
        self.removed: list[str] = []
        self.drafts: dict[Step, DiskUnit] = {}
        self.mounts: dict[Step, Mount] = {}
        self.held: dict[Place, Deferred[None]] = {}
        self._closed: list[Mount] = []
        self.late: set[Step] = set()

    async def prepare(self) -> set[str]:
        """
        Do all that can fail.

        @return: users of sessions that are none any more.
        @raise ConfigurationErrors: or L{LocalError}, if the change is impossible; nothing has changed then.
        """
        reactor = self.serving.reactor
        await inSlices(reactor, self._compare())
        await inSlices(reactor, self._draft())
        opened = [step for step in self.steps if step.source is None]
        crowded = [step for step in opened if step.needs]
        for step in crowded:
            rehearse(step.disk.device)
        faults = [fault for step in crowded for fault in takeFaults(step.disk.device)]
        if faults:
            raise ConfigurationErrors(faults)
        await self.serving.open((self.mounts[step] for step in opened if not step.needs), slices=True)
        try:
            await self._makeRoom()
            crowded = [step for step in crowded if step not in self.late]
            await self._exchange(crowded)
            self._checkFit()
            return await self._unknown()
        except BaseException as error:
            await self._undo(isinstance(error, CancelledError))
            raise

    def _compare(self) -> Steps[None]:
        """
        Find out what there is to do.

        @raise LocalError: if it makes no sense.
        """
        serving = self.serving
        for plan in self._wanted:
            gather(self.plans, plan, self.secrets is not None, serving.groups)
            yield
        difference = yield from compare(serving.places, self.plans.values())
        self.steps, self.leaving = difference.steps, difference.leaving
        self.removed = [name for name in serving.plans if name not in self.plans]

    def _draft(self) -> Steps[None]:
        """
        Make the units that there are to be.

        @raise ConfigurationErrors: if their options do not fit.
        """
        builder, faults = self.serving.builder, []
        for step in self.steps:
            yield
            if step.stays and not self._looksOther(step):
                continue
            lun = step.address[1]
            try:
                if step.old is None:
                    place = builder.place(step.plan, lun)
                    self.drafts[step], mount = place.unit, place.mount
                else:
                    unit = self.drafts[step] = builder.draft(step.plan, lun)
                    if type(unit) is not type(step.old.unit):
                        raise step.disk.where.error(
                            f"LUN {lun} of {step.plan.name} cannot become a {step.disk.options.type} while"
                            " it is served; give the new unit another LUN, or start the target again"
                        )
                    mount = builder.mount(step.disk, unit)
            except ConfigurationError as error:
                faults.append(error)
                continue
            self.mounts[step] = mount if step.source is None else step.source.mount
        if faults:
            raise ConfigurationErrors(faults)

    def _looksOther(self, step: Step) -> bool:
        """Whether a unit that keeps its device looks otherwise than before."""
        old, new = step.old, step.disk
        assert old is not None
        readOnly = new.readOnly or step.plan.readOnly
        look = old.disk.options, old.disk.blockSize, old.unit.wantsReadOnly
        return look != (new.options, new.blockSize, readOnly)

    async def _makeRoom(self) -> None:
        """Let units come to rest whose devices are to be closed or to serve others."""
        reactor = self.serving.reactor
        places = list(dict.fromkeys(place for step in self.steps for place in step.held))
        if not places:
            return
        await self._emptyTargets(places)
        # What is flushed now need not be while commands wait.
        await DeferredList([ensureDeferred(place.mount.flush()) for place in places])
        for place in places:
            idle: Deferred[None] = Deferred()
            self.held[place] = idle
            place.unit.hold(partial(idle.callback, None))
        await within(reactor, DeferredList(list(self.held.values())), reactor.seconds() + GRACE)
        busy = [place for place, idle in self.held.items() if not idle.called]
        self.late = postponed(self.steps, busy)
        resting = {place for step in self.steps if step not in self.late for place in step.held}
        for place in [place for place in places if place not in resting]:
            self.resume(place)
        await self.serving.close(
            self.mounts[step] for step in self.late if step.source is None and self.mounts[step].isOpen
        )

    async def _emptyTargets(self, places: list[Place]) -> None:
        """Say goodbye to the initiators of targets that go and whose devices others are to have."""
        wanted = set(places)
        names = {name for (name, _), place in self.leaving.items() if place in wanted}
        targets = [self.serving.node.targets[name] for name in names.intersection(self.removed)]
        for target in targets:
            target.leaving = True
        sessions = [session for target in targets for session in target.sessions.values()]
        await end(self.serving.reactor, self.protocols(), sessions, "the target is removed")

    async def _exchange(self, crowded: list[Step]) -> None:
        """Close what stands in the way, and open what is to be in its place."""
        closing = dict.fromkeys(place.mount for step in crowded for place in step.needs)
        self._closed += closing
        await DeferredList([ensureDeferred(mount.close()) for mount in closing])
        await self.serving.open(self.mounts[step] for step in crowded)

    def _checkFit(self) -> None:
        """
        Let the units that take over a device look at it.

        @raise LocalError: if it does not fit.
        """
        for step, unit in self.drafts.items():
            if step.source is not None and step not in self.late:
                unit.device = self.mounts[step].device
                unit.opened()

    async def _unknown(self) -> set[str]:
        """The users of sessions that are none any more."""
        secrets = self.secrets
        if secrets is None:
            return set()
        known: dict[str, bool] = {}
        # While a store takes its time others log in.
        while asked := self._users() - known.keys():
            for user in asked:
                known[user] = await ready(secrets.find(user)) is not None
        return {user for user in self._users() if not known[user]} - self._certified()

    def _users(self) -> set[str]:
        return {session.user for session in self.serving.node.sessions if session.user}

    def _certified(self) -> set[str | None]:
        """The users whom certificates prove that sessions have shown."""
        certified = getattr(self.secrets, "certified", lambda names: None)
        shown = {each.connection.peer.certificate for each in self.serving.node.sessions if each.connection}
        return {certified(names) for names in shown if names}

    async def _undo(self, stopping: bool) -> None:
        """Serve as before."""
        for name in self.removed:
            self.serving.node.targets[name].leaving = False
        opened = [self.mounts[step] for step in self.mounts if step.source is None]
        await self.serving.close(mount for mount in opened if mount in self.serving.mounts)
        if not stopping:
            for mount in self._closed:
                await mount.reopen()
        for place in list(self.held):
            self.resume(place)

    def forget(self) -> Steps[None]:
        """Let go of what was needed for this, a little at a time: there may be thousands of devices."""
        self._wanted = ()
        while self.steps:
            self.steps.pop()
            yield

    def resume(self, place: Place) -> None:
        """Let a LUN go on with what it has held back."""
        if self.held.pop(place, None) is not None:
            place.unit.resume()
