# -*- test-case-name: tests.storage.test_muster -*-
"""
What the members of a mirror are worth when it starts: who is current, who is behind where, and what nobody
knows.

Members are known by their fingerprints.  Nothing is asked of them here, and nothing written.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

import attrs

from iscsi_twisted.errors import NotReady
from iscsi_twisted.storage.legs import Leg
from iscsi_twisted.storage.record import MemberRecord, Record
from iscsi_twisted.storage.regions import Regions


@attrs.frozen(eq=False)
class Verdict:
    """
    How a mirror starts.

    @ivar unverified: regions of which nobody knows who is right.
    @ivar warnings: what is to be told loudly.
    @ivar old: members of the record that are not among those here.
    @ivar void: regions that nobody has; another mirror does, of which this one is a member.
    """

    unverified: Regions
    warnings: tuple[str, ...] = ()
    old: tuple[MemberRecord, ...] = ()
    void: Regions = attrs.field(factory=lambda: Regions(0))


def choose(records: Iterable[Record], legs: Iterable[Leg], size: int, shift: int) -> Record | None:
    """The newest record that knows one of these members, and a mirror of this size."""
    prints = {leg.fingerprint for leg in legs if leg.isOpen and leg.fingerprint is not None}
    fitting = [
        record
        for record in records
        if record.size == size
        and record.shift == shift
        and any(member.fingerprint in prints for member in record.members)
    ]
    return max(fitting, key=lambda record: record.generation, default=None)


def muster(
    legs: Sequence[Leg],
    record: Record | None,
    count: int,
    trusted: Leg | None,
    changed: Sequence[Leg] = (),
    *,
    permitVoid: bool = False,
) -> Verdict:
    """
    Find out where each member is behind, and set its C{behind}; members that are not open are behind as far
    as the record knows them.

    @param count: regions of the mirror.
    @param trusted: the member that holds the truth because somebody says so.
    @param changed: members that do not hold what they held.
    @param permitVoid: whether it may start without what no member has, here or elsewhere.
    @raise NotReady: if the mirror must not start.
    """
    if trusted is not None and not _isCurrent(trusted, legs, record, count):
        return _trusting(trusted, legs, count)
    for leg in legs:
        leg.behind, leg.rival = Regions(count, full=True), Regions(count)
    if record is None:
        return _unknown(legs, count, "nothing is known of its members", alone=True)
    known = {member.fingerprint: member for member in record.members}
    matched = {leg: known[leg.fingerprint] for leg in legs if leg.isOpen and leg.fingerprint in known}
    doubt = _doubt(matched, record)
    if record.void and not permitVoid:
        raise NotReady(
            "it lacks what only that mirror has of which it was a member.  Make it a member of that one"
            " again, or say with --force-member which of its own members holds the truth"
        )
    if doubt:
        others = any(member.present for member in record.members if member not in matched.values())
        return attrs.evolve(_unknown(legs, count, doubt, alone=not others), void=record.void.copy())
    for leg, member in matched.items():
        leg.behind = member.behind.copy()
        if not member.present:
            leg.behind.update(record.marked)
            if member.stamp and leg.stamp and member.stamp != leg.stamp:
                # It was changed elsewhere since.
                leg.behind.add(0, count - 1)
        if leg in changed:
            leg.behind.add(0, count - 1)
        leg.behind.update(leg.void)
    lacking = _lacking(matched, count)
    if lacking and not (permitVoid and not _elsewhere(lacking, matched, record)):
        raise NotReady(_stale(legs, record))
    void = Regions(count)
    void.update(record.void)
    if lacking:
        # Nobody reads it before it has been written; but they have to be equal there.
        min(matched, key=lambda leg: len(leg.behind)).behind.subtract(lacking)
        void.update(lacking)
    here = {leg.fingerprint for leg in matched}
    absent = wanted(record.members, here, record.unverified)
    if absent:
        raise NotReady(absent)
    _settle(matched, record)
    old = tuple(_gone(member, record) for member in record.members if member.fingerprint not in here)
    return Verdict(record.unverified.copy(), tuple(_changes(legs, matched)), old, void)


def wanted(members: Iterable[MemberRecord], here: Container[str | None], doubt: Regions) -> str:
    """
    Why a mirror must not start without some that are not here: they may be right in what is in doubt, and if
    others were written there nobody could have both any more.

    @param members: all that are known.
    @param here: the fingerprints of those that are here.
    @param doubt: the regions that are in doubt.
    @return: empty if it may.
    """
    titles = []
    for member in members:
        may = doubt.copy()
        may.subtract(member.behind)
        if may and member.fingerprint not in here:
            titles.append(member.title)
    if not titles:
        return ""
    return (
        f"nobody knows which member is right, and {' and '.join(titles)} may be, which"
        f" {'is' if len(titles) == 1 else 'are'} not there.  Bring that back, or say with --force-member"
        " which member holds the truth"
    )


def _gone(member: MemberRecord, record: Record) -> MemberRecord:
    """A member that is not here: it lacks what may have been under way, and what is written from now on."""
    behind = member.behind.copy()
    behind.update(record.marked)
    stamp = member.stamp if not (member.present and behind) else ()
    return MemberRecord(member.fingerprint, member.title, False, behind, stamp)


def _lacking(matched: Iterable[Leg], count: int) -> Regions:
    """The regions that all of these lack."""
    lacking = Regions(count, full=True)
    for leg in matched:
        lacking.intersect(leg.behind)
    return lacking


def _elsewhere(lacking: Regions, matched: dict[Leg, MemberRecord], record: Record) -> bool:
    """Whether a member that is not here has any of these regions, so that it must not count as lost."""
    here = {member.fingerprint for member in matched.values()}
    for member in record.members:
        if member.fingerprint not in here:
            has = lacking.copy()
            has.subtract(_gone(member, record).behind if not member.present else member.behind)
            if has:
                return True
    return False


def _settle(matched: Iterable[Leg], record: Record) -> None:
    """
    Where writes may have been under way members may differ: the first that has a region keeps it, and all
    others lack it, though what they have is as good.  Those that do not know how new they are come last:
    what they stand on may have been started anew.  What nobody knows will be compared in any case.
    """
    differing = record.marked.copy()
    differing.subtract(record.unverified)
    left = differing.copy()
    for leg in sorted(matched, key=lambda leg: not leg.stamp):
        kept = left.copy()
        kept.subtract(leg.behind)
        left.subtract(kept)
        lost = differing.copy()
        lost.subtract(kept)
        leg.rival = lost.copy()
        leg.rival.subtract(leg.behind)
        leg.behind.update(lost)


def _isCurrent(trusted: Leg, legs: Sequence[Leg], record: Record | None, count: int) -> bool:
    """Whether a member is known to have everything, so that nobody has to believe it."""
    try:
        verdict = muster(legs, record, count, None)
    except NotReady:
        return False
    return trusted.isOpen and not trusted.behind and not verdict.unverified


def _trusting(trusted: Leg, legs: Sequence[Leg], count: int) -> Verdict:
    if not trusted.isOpen:
        raise NotReady(f"{trusted.name} is to hold the truth, but is not there: {trusted.reason}")
    if trusted.void:
        raise NotReady(f"{trusted.name} is to hold the truth, but none of its own members has all of it")
    for leg in legs:
        leg.behind, leg.rival = Regions(count, full=True), Regions(count)
    trusted.behind.clear()
    return Verdict(
        Regions(count),
        (f"{trusted.name} holds the truth, as somebody says; all other members are overwritten with it",),
    )


def _unknown(legs: Sequence[Leg], count: int, why: str, *, alone: bool) -> Verdict:
    """
    All members are equal in rank, until they have been compared.

    @param alone: if there is one member, nobody ever knew of others that may hold the truth.
    """
    if len(legs) == 1 and not alone:
        raise NotReady(
            f"{why}, and there were other members.  Bring one back, or say with --force-member that"
            f" {legs[0].name} holds the truth"
        )
    absent = [f"{leg.name} is not there: {leg.reason}" for leg in legs if not leg.isOpen]
    absent += [f"none of the members of {leg.name} has all of it" for leg in legs if leg.void]
    if absent:
        raise NotReady(
            f"{why}, and {'; '.join(absent)}.  Bring back what is missing, or say with --force-member"
            " which member holds the truth"
        )
    for leg in legs:
        leg.behind.clear()
    if len(legs) == 1:
        # There is nothing that it could differ from.
        return Verdict(Regions(count))
    return Verdict(
        Regions(count, full=True),
        (f"{why}: the members are compared, and only what is equal can be read until then",),
    )


def _doubt(matched: dict[Leg, MemberRecord], record: Record) -> str:
    """Why the record is not to be believed; empty if it is."""
    if not matched:
        return "the record of its members knows none of these"
    for leg, member in matched.items():
        if leg.witness > record.generation:
            return f"the record of the mirror's members is old: {leg.name} knows of a newer one"
        if not member.present or member.behind:
            continue
        if len(leg.stamp) != len(member.stamp):
            continue
        if any(now < then for now, then in zip(leg.stamp, member.stamp, strict=True)):
            return f"{leg.name} is older than the record of the mirror's members"
        if leg.stamp != member.stamp and not record.marked:
            return f"{leg.name} was changed while the mirror did not serve"
    return ""


def _stale(legs: Sequence[Leg], record: Record) -> str:
    """Nobody here is current."""
    wanted = [member.title for member in record.members if member.present and not member.behind]
    here = [leg.name for leg in legs if leg.isOpen]
    return (
        f"{' and '.join(here)} lack{'s' if len(here) == 1 else ''} what was written last; "
        + (f"that is on {' and '.join(wanted)}" if wanted else "nobody has all of it")
        + ".  Bring that back, or say with --force-member which member holds the truth"
    )


def _changes(legs: Sequence[Leg], matched: dict[Leg, MemberRecord]) -> Iterable[str]:
    for leg in legs:
        if not leg.isOpen:
            yield f"it is degraded: {leg.name} is not there: {leg.reason}"
        elif leg not in matched:
            yield f"{leg.name} is a new member, and all is copied to it"
