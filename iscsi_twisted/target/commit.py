# -*- test-case-name: tests.target.test_reload,tests.target.test_reloadunits -*-
"""What can no longer fail when a service is to serve something else; it is done in one go."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.logger import Logger

from iscsi_twisted.config.steps import Steps
from iscsi_twisted.scsi.codes import ACCESS_CHANGED, CAPACITY_CHANGED
from iscsi_twisted.session.session import Session
from iscsi_twisted.session.target import Target
from iscsi_twisted.target.assembly import Plan
from iscsi_twisted.target.building import Address, Place
from iscsi_twisted.target.change import GRACE, Change
from iscsi_twisted.target.difference import Step
from iscsi_twisted.target.farewell import end, within
from iscsi_twisted.target.mount import Mount
from iscsi_twisted.target.tell import Told, regrant
from iscsi_twisted.target.upkeep import rescan


@attrs.frozen
class Changes:
    """
    What has changed.

    @ivar added: names of targets.
    @ivar removed: names of targets.
    @ivar changed: names of targets whose units are others, or others than before.
    @ivar ended: sessions that have to end, removed targets' among them.
    @ivar postponed: what could not be done because a device was at work too long; the next try may do it.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    ended: int = 0
    postponed: tuple[str, ...] = ()


class Commit:
    """Makes one change."""

    log = Logger(namespace="iscsi_twisted")

    def __init__(self, change: Change, leave: Callable[[Deferred[Any]], None]) -> None:
        """@param leave: told of what goes on after the change has been made."""
        self._change, self._serving, self._leave = change, change.serving, leave
        self._added: list[str] = []
        self._names: set[str] = set()
        self._ended = 0

    def perform(self, gone: set[str]) -> None:
        """Make the change; C{gone} are users that are none any more."""
        change, serving, told = self._change, self._serving, Told()
        before, mounts = serving.plans, dict(self._mountsInUse())
        self._ask()
        targets = [serving.node.remove(name) for name in change.removed]
        self._withdraw(told)
        for step in change.steps:
            if step not in change.late:
                self._take(step, told)
        for name, plan in change.plans.items():
            if name not in before:
                serving.add(plan, self._placesOf(plan))
                continue
            self._adapt(serving.node.targets[name], before[name], plan, told)
            if self._stays(before[name], plan):
                # Thousands of new objects would all have to be looked at by whoever looks for garbage.
                change.plans[name] = before[name]
        serving.plans = change.plans
        kept = [name for name in change.plans if name in before]
        ending = regrant(serving.node, kept, gone, told)
        ending += [session for target in targets for session in target.sessions.values()]
        for place in list(change.held):
            change.resume(place)
        told.send()
        for protocol in change.protocols():
            protocol.reconsider()
        used = set(self._mountsInUse())
        spare = [each for each in mounts if each not in used]
        self._leave(ensureDeferred(self._finish(ending, spare)))
        self._added = [name for name in change.plans if name not in before]
        self._names, self._ended = told.names, len(ending)

    def measure(self) -> Steps[Changes]:
        """
        Let the devices that stay have a look at themselves, one after another; they may have grown.

        @return: all that has changed.
        """
        change, told, added = self._change, Told(), set(self._added)
        for step in change.steps:
            place = self._serving.places.get(step.address)
            if place is not None and place is step.old and not (step in change.drafts or step in change.late):
                self._measure(step.address, place, told)
                yield
        told.send()
        names = self._names | told.names
        return Changes(
            tuple(self._added),
            tuple(change.removed),
            tuple(name for name in change.plans if name in names and name not in added),
            self._ended,
            tuple(map(_whyLate, change.late)),
        )

    def _mountsInUse(self) -> dict[Mount, None]:
        return dict.fromkeys(place.mount for place in self._serving.places.values())

    def _ask(self) -> None:
        """Let the new users be those that may log in."""
        serving = self._serving
        wanted = self._change.secrets, self._change.discovery
        if (serving.secrets, serving.discovery) == wanted:
            return
        serving.ask(*wanted)
        for connection in list(serving.node.unfinished):
            if connection.login is not None and connection.login.authenticating:
                connection.abandon("the users have changed while it logged in")

    def _withdraw(self, told: Told) -> None:
        """Take away the LUNs that are not to be."""
        for (name, lun), place in self._change.leaving.items():
            del self._serving.places[name, lun]
            target = self._serving.node.targets.get(name)
            if target is not None:
                target.removeUnit(lun)
                told.luns(target, lun)
            if place in self._change.held:
                # Another has its device, or will have its files.
                place.unit.closed()

    def _take(self, step: Step, told: Told) -> None:
        """Let a LUN be what it is to be."""
        old, (name, lun) = step.old, step.address
        unit = self._change.drafts.get(step)
        if old is not None and unit is None:
            if old.disk.where != step.disk.where:
                old.disk = step.disk
            return
        assert unit is not None
        mount, target = self._change.mounts[step], self._serving.node.targets.get(name)
        if old is None:
            mount.unit = unit
            self._serving.places[step.address] = Place(step.disk, unit, mount)
            if target is not None:
                unit.inventory = target.absent.inventory  # type: ignore[attr-defined]
                target.addUnit(lun, unit)
                told.luns(target, lun)
            return
        assert target is not None
        unit.device = mount.device
        mount.unit = old.unit
        content = old.disk.kind.content, step.disk.kind.content
        replaced = mount is not old.mount and content[0] != content[1]
        told.unit(target, lun, old.unit.become(unit, replaced=replaced))
        old.mount, old.disk = mount, step.disk

    def _measure(self, address: Address, place: Place, told: Told) -> None:
        """Let a device that may have grown have a look at itself."""
        blocks = place.unit.blockCount
        rescan([place.mount.device])
        if place.unit.blockCount != blocks:
            told.unit(self._serving.node.targets[address[0]], address[1], [CAPACITY_CHANGED])

    def _stays(self, before: Plan, plan: Plan) -> bool:
        """Whether a plan says what the one before did, and the same lines of the file say it."""
        places = self._serving.places
        return (
            before.luns.keys() == plan.luns.keys()
            and before.policy == plan.policy
            and (before.alias, before.readOnly, before.guarded) == (plan.alias, plan.readOnly, plan.guarded)
            and before.users == plan.users
            and _reachedAlike(before, plan)
            and all(places[before.name, lun].disk is disk for lun, disk in before.luns.items())
        )

    def _placesOf(self, plan: Plan) -> dict[int, Place]:
        found = {lun: self._serving.places.get((plan.name, lun)) for lun in plan.luns}
        return {lun: place for lun, place in found.items() if place is not None}

    def _adapt(self, target: Target, before: Plan, plan: Plan, told: Told) -> None:
        """Let a target be for whom it is to be, and reached as it is to be."""
        self._serving.admit(target, plan)
        if _reachedAlike(before, plan):
            return
        ports = plan.ports(self._serving.groups)
        target.absent.inventory.ports = ports  # type: ignore[attr-defined]
        for lun, place in self._placesOf(plan).items():
            place.unit.paths = plan.paths(ports)
            place.unit.attention(ACCESS_CHANGED)
            told.unit(target, lun, [ACCESS_CHANGED])

    async def _finish(self, ending: list[Session], mounts: list[Mount]) -> None:
        """End the sessions that may not go on, and close the devices that nobody has any more."""
        reactor = self._serving.reactor
        await end(reactor, self._change.protocols(), ending, "it may not use the target any more")
        staying = {place.unit for place in self._serving.places.values()}
        resting: dict[Mount, Deferred[Any]] = {}
        for mount in mounts:
            if not mount.isOpen:
                self._serving.mounts.discard(mount)
                continue
            idle = resting[mount] = Deferred()
            if mount.unit in staying:
                # The unit has another device since it was at rest.
                idle.callback(None)
            else:
                mount.unit.closed()
                mount.unit.hold(partial(idle.callback, None))
        await within(reactor, DeferredList(list(resting.values())), reactor.seconds() + GRACE)
        for mount, idle in resting.items():
            if not idle.called:
                self.log.warn(
                    "{device} is not served any more, but still at work; it is closed when that ends",
                    device=str(mount.device), event="lingering",
                )  # fmt: skip
            idle.addCallback(partial(self._close, mount))
        await DeferredList(list(resting.values()))

    def _close(self, mount: Mount, _: None) -> Deferred[None]:
        return ensureDeferred(self._serving.close([mount]))


def _reachedAlike(one: Plan, other: Plan) -> bool:
    return (
        one.portals == other.portals
        and one.access == other.access
        and one.preferred == other.preferred
        and one.tpgs == other.tpgs
    )


def _whyLate(step: Step) -> str:
    name, lun = step.address
    return (
        f"{name} LUN {lun} stays as it was: a device that it depends on has been at work for more than"
        f" {GRACE:g} seconds; reload again"
    )
