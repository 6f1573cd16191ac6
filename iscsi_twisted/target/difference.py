# -*- test-case-name: tests.target.test_difference -*-
"""What has to be done to serve something else: which devices stay open, change hands, or are closed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from iscsi_twisted.config.steps import Steps
from iscsi_twisted.target.assembly import Disk, Plan
from iscsi_twisted.target.building import Address, Place


@attrs.define(eq=False)
class Step:
    """
    A LUN that is to be served.

    @ivar disk: what it is made of.
    @ivar old: the LUN of this number that there is.
    @ivar source: the LUN whose device goes on as this one's; None if a device has to be opened.
    @ivar needs: the LUNs whose devices use the same files, and so have to be closed before.
    """

    address: Address
    plan: Plan
    disk: Disk
    old: Place | None
    source: Place | None = None
    needs: list[Place] = attrs.field(factory=list)

    @property
    def stays(self) -> bool:
        """The LUN keeps its device."""
        return self.old is not None and self.source is self.old

    @property
    def held(self) -> list[Place]:
        """The LUNs that may not be at work while this is done."""
        if self.stays:
            return []
        return [place for place in (self.old, self.source, *self.needs) if place is not None]


@attrs.define(eq=False)
class Difference:
    """
    All that is to be done.

    @ivar steps: one for each LUN that is to be served.
    @ivar leaving: the LUNs that are not to be served any more.
    """

    steps: list[Step]
    leaving: dict[Address, Place]


def compare(places: Mapping[Address, Place], plans: Iterable[Plan]) -> Steps[Difference]:
    """
    What turns one into the other; found out step by step, while neither changes.

    @param places: the LUNs that there are.
    @param plans: all that is to be served.
    """
    steps = []
    for plan in plans:
        for lun, disk in plan.luns.items():
            step = Step((plan.name, lun), plan, disk, places.get((plan.name, lun)))
            if step.old is not None and step.old.disk.kind.definition == disk.kind.definition:
                step.source = step.old
            steps.append(step)
            yield
    staying = {id(step.old) for step in steps if step.stays}
    spare: dict[object, list[Place]] = {}
    for place in places.values():
        if id(place) not in staying:
            spare.setdefault(place.disk.kind.definition, []).append(place)
            yield
    for step in steps:
        if not step.stays and (found := spare.get(step.disk.kind.definition)):
            step.source = found.pop()
            yield
    yield from _findNeeds([step for step in steps if step.source is None], spare.values())
    wanted = {step.address for step in steps}
    return Difference(steps, {address: place for address, place in places.items() if address not in wanted})


def _findNeeds(opened: Iterable[Step], spare: Iterable[list[Place]]) -> Steps[None]:
    """Find out which devices have to be closed before these can be opened."""
    users: dict[str, list[Place]] = {}
    for places in spare:
        for place in places:
            for name in place.disk.kind.files:
                users.setdefault(name, []).append(place)
            yield
    for step in opened:
        found = [place for name in step.disk.kind.files for place in users.get(name, ())]
        step.needs = list(dict.fromkeys(found))
        yield


def postponed(steps: Iterable[Step], busy: Iterable[Place]) -> set[Step]:
    """
    The steps that cannot be done, because of LUNs that do not come to rest.

    What waits for a device that is not let go keeps its own, and so on.
    """
    steps, busy = list(steps), set(busy)
    late: set[Step] = set()
    while True:
        more = [step for step in steps if step not in late and not busy.isdisjoint(step.held)]
        if not more:
            return late
        late.update(more)
        busy.update(step.old for step in more if step.old is not None)
