# -*- test-case-name: tests.session.test_node -*-
"""The target side's standing objects: the node with its targets, and nexuses (RFC 7143 4.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs
from zope.interface import implementer

from iscsi_twisted.errors import CheckCondition, LocalError, LoginError
from iscsi_twisted.interfaces import Grant, IAccessPolicy, ILogicalUnit, INexus, Pending
from iscsi_twisted.session import notices
from iscsi_twisted.session.budget import Budget
from iscsi_twisted.session.doors import Door, together
from iscsi_twisted.session.limits import NO_CHANGES, Limits
from iscsi_twisted.session.load import Load
from iscsi_twisted.session.names import normalise
from iscsi_twisted.session.portals import Portal
from iscsi_twisted.wire import numbers

if TYPE_CHECKING:
    from iscsi_twisted.session.connection import Connection
    from iscsi_twisted.session.session import Session
    from iscsi_twisted.session.verdicts import Verdicts

LUNS_CACHED: Final = 256
"""Forms of LUN fields that a session remembers; any more are decoded each time."""

MODE_CHANGED: Final = 0x2A01
"""Unit attention: mode parameters have changed (SPC-4 6.11): here that the nexus may write, or may not."""

LUNS_CHANGED: Final = 0x3F0E
"""Unit attention: reported LUNs data has changed (SPC-4 6.33)."""

LOOKS: Final = 64
"""Targets that are asked whether they are for somebody before that is counted."""

GONE: Final = 4096
"""Names of removed targets that are remembered, to tell those who come back that it is for good."""


class Events(Protocol):
    """What the sans-IO core tells of: the life of connections, never a single I/O."""

    def loggedIn(self, connection: Connection) -> None: ...

    def loggedOut(self, connection: Connection) -> None: ...

    def lost(self, connection: Connection, reason: str) -> None: ...

    def refused(self, connection: Connection, status: int, reason: str) -> None: ...

    def unknownUser(self, connection: Connection, user: str) -> None: ...

    def turnedAway(self, peer: Peer) -> None: ...

    def crowded(self, peer: Peer) -> None: ...

    def reset(self, session: Session, function: str, lun: int | None) -> None: ...

    def handshakeFailed(self, peer: Peer, reason: str) -> None: ...

    def surprise(self, error: BaseException, doing: str) -> None: ...


class Authenticator(Protocol):
    """
    One authentication of an initiator, the target's side (RFC 7143 12.1).

    @ivar methods: values of AuthMethod that are accepted.
    @ivar user: who has proved to be there; empty until then.
    """

    methods: tuple[str, ...]
    user: str

    def answer(self, pairs: Mapping[str, str]) -> list[tuple[str, str]] | Pending:
        """
        What is said to what the initiator has said.

        @raise LoginError: if it does not authenticate itself as it should.
        @raise RemoteError: if it breaks the protocol.
        """

    def complete(self) -> bool:
        """Whether the initiator has proved who it is."""


Authenticate = Callable[[], Authenticator]


@attrs.frozen
class Peer:
    """
    Where a connection comes from, as the transport tells it.

    @ivar address: IPv4 or IPv6 address, or None (a UNIX socket).
    @ivar text: for people.
    @ivar local: C{host:port} of our end, IPv6 in brackets; None where that means nothing.
    @ivar certificate: the names in the TLS certificate that was shown and verified; empty if there is none.
    """

    address: str | None
    text: str
    local: str | None
    certificate: tuple[str, ...] = ()


@implementer(INexus)
class Nexus:
    """See L{INexus}."""

    __slots__ = ("initiatorName", "isid", "luns", "portalGroupTag", "readOnly", "targetName")

    def __init__(
        self,
        initiatorName: str,
        isid: bytes,
        targetName: str,
        tag: int,
        readOnly: bool,
        luns: frozenset[int] | None = None,
    ) -> None:
        self.initiatorName = initiatorName
        self.isid = isid
        self.targetName = targetName
        self.portalGroupTag = tag
        self.readOnly = readOnly
        self.luns = luns

    @property
    def key(self) -> tuple[str, bytes, int]:
        """What makes two sessions the same nexus of one target (RFC 7143 4.4.3)."""
        return self.initiatorName, self.isid, self.portalGroupTag


class Target(Door):
    """
    One iSCSI target: its name, its units, its sessions.

    @ivar name: iSCSI name, in normal form.
    @ivar alias: TargetAlias, or an empty string.
    @ivar readOnly: nexuses of this target may not write.
    @ivar authenticate: begins an authentication; None if initiators need none.
    @ivar leaving: it is served no more, and nobody may log in.
    @ivar units: logical units by number.
    @ivar wellKnown: well known logical units by number; every nexus sees them.
    @ivar absent: answers for numbers that have no unit.
    @ivar sessions: normal sessions by nexus.
    """

    def __init__(
        self,
        name: str,
        policy: IAccessPolicy,
        units: dict[int, Any],
        absent: Any,
        decodeLUN: Callable[[bytes], int],
        *,
        alias: str = "",
        readOnly: bool = False,
        authenticate: Authenticate | None = None,
        users: frozenset[str] | None = None,
        groups: frozenset[int] | None = None,
        wellKnown: dict[int, Any] | None = None,
    ) -> None:
        """
        @param decodeLUN: from the eight bytes of a LUN field to a number; raises
            L{CheckCondition} for addressing methods that are not understood.
        """
        super().__init__(normalise(name), policy, users)
        self.alias = alias
        self.readOnly = readOnly
        self.authenticate = authenticate
        self._groups = groups
        self.leaving = False
        self.units: dict[int, ILogicalUnit] = units
        self.wellKnown: dict[int, ILogicalUnit] = wellKnown or {}
        self.absent: ILogicalUnit = absent
        self.sessions: dict[tuple[str, bytes, int], Session] = {}
        self._decodeLUN = decodeLUN
        self._lastTSIH = 0

    @property
    def groups(self) -> frozenset[int] | None:
        """Tags of the portal groups through which it is reached; None for all."""
        return self._groups

    @groups.setter
    def groups(self, groups: frozenset[int] | None) -> None:
        self._groups = groups
        self.changed()

    def reachedBy(self, portal: Portal) -> bool:
        """Whether a portal belongs to a group of the target's."""
        return self._groups is None or portal.tag in self._groups

    def grant(self, peer: Peer, initiatorName: str, user: str) -> Grant | None:
        """See L{Door}."""
        return None if self.leaving else super().grant(peer, initiatorName, user)

    def servers(self) -> list[ILogicalUnit]:
        """All logical units, the well known ones too."""
        return [*self.units.values(), *self.wellKnown.values()]

    def regrant(self, session: Session, grant: Grant) -> bool:
        """
        Let a session go on with what it may do now; it is told what has changed.

        @return: whether it sees other LUNs than before.
        """
        nexus: Any = session.nexus
        readOnly = self.readOnly or grant.readOnly
        if readOnly != nexus.readOnly:
            nexus.readOnly = readOnly
            if readOnly:
                for task in [each for each in session.tasks.values() if each.flags & numbers.WRITE]:
                    task.abort(tell=True)
            for unit in self.units.values():
                if grant.readOnly:
                    # Whoever may only read must not keep others out: not by what it holds, either.
                    unit.nexusLost(nexus)
                    unit.nexusFound(nexus)
                unit.attention(MODE_CHANGED, nexus=nexus)
        if grant.luns == nexus.luns:
            return False
        before = {lun for lun in self.units if self.sees(session, lun)}
        nexus.luns = grant.luns
        session.forgetUnits()
        after = {lun for lun in self.units if self.sees(session, lun)}
        for lun in before - after:
            # What it holds there it could never give back.
            session.abortUnit(lun, tell=True)
            self.units[lun].nexusLost(nexus)
        for lun in after - before:
            self.units[lun].nexusFound(nexus)
        if after == before:
            return False
        self._tellOthers([nexus])
        return True

    def sees(self, session: Session, lun: int) -> bool:
        """Whether a session sees a LUN of this target."""
        nexus = session.nexus
        return nexus is not None and lun in self.units and (nexus.luns is None or lun in nexus.luns)

    def addUnit(self, lun: int, unit: ILogicalUnit) -> None:
        """
        Serve one unit more; those who see it are told, by the others, that there are others.

        @raise LocalError: if the number is taken.
        """
        if lun in self.units:
            raise LocalError(f"{self.name} has a LUN {lun} already")
        nexuses = self._seeing(lun)
        for session in self.sessions.values():
            if session.nexus is not None:
                unit.nexusFound(session.nexus)
        self._tellOthers(nexuses)
        self.units[lun] = unit

    def removeUnit(self, lun: int) -> ILogicalUnit:
        """
        Serve a unit no more; those who saw it are told by the others.

        Its tasks end with TASK ABORTED.  A device may still work for some of them.

        @return: the unit.
        @raise LocalError: if there is none.
        """
        unit = self.units.pop(lun, None)
        if unit is None:
            raise LocalError(f"{self.name} has no LUN {lun}")
        for session in list(self.sessions.values()):
            session.forgetUnits()
            session.abortUnit(lun, tell=True)
            if session.nexus is not None:
                unit.nexusLost(session.nexus)
        self._tellOthers(self._seeing(lun))
        return unit

    def _seeing(self, lun: int) -> list[INexus]:
        """The nexuses that may see this number."""
        nexuses = [session.nexus for session in self.sessions.values() if session.nexus is not None]
        return [nexus for nexus in nexuses if nexus.luns is None or lun in nexus.luns]

    def _tellOthers(self, nexuses: list[INexus]) -> None:
        """Let each of these nexuses be told, by every unit that it sees, that there are others now."""
        for nexus in nexuses:
            for lun, unit in self.units.items():
                if nexus.luns is None or lun in nexus.luns:
                    unit.attention(LUNS_CHANGED, nexus=nexus)
            for unit in self.wellKnown.values():
                unit.attention(LUNS_CHANGED, nexus=nexus)

    def addressed(self, field: bytes, nexus: INexus) -> tuple[int, ILogicalUnit]:
        """The number and the unit that the LUN field of a PDU names, if the nexus sees it."""
        try:
            lun = self._decodeLUN(field)
        except CheckCondition:
            return -1, self.absent
        if lun in self.wellKnown:
            return lun, self.wellKnown[lun]
        seen = nexus.luns is None or lun in nexus.luns
        return lun, self.units.get(lun, self.absent) if seen else self.absent

    def reportEvent(self, field: bytes, sense: bytes) -> int:
        """
        Tell all initiators of a SCSI event (RFC 7143 11.9.1).

        @param field: the unit that reports it, as eight bytes.
        @return: how many were told.
        """
        told = [
            each.connection
            for each in self.sessions.values()
            if each.connection is not None and each.nexus is not None and self._sees(each.nexus, field)
        ]
        for connection in told:
            notices.reportEvent(connection, field, sense)
        return len(told)

    def _sees(self, nexus: INexus, field: bytes) -> bool:
        return nexus.luns is None or self.addressed(field, nexus)[1] is not self.absent

    def nextTSIH(self) -> int:
        """
        A session handle that none of this target's sessions has, never 0 (RFC 7143 4.4.3.2).

        @raise LoginError: if all are taken.
        """
        self._lastTSIH = _freeHandle(self.sessions.values(), self._lastTSIH)
        return self._lastTSIH


def _freeHandle(sessions: Iterable[Session], last: int) -> int:
    """The next session handle after the last one that none of these sessions has."""
    taken = {session.tsih for session in sessions}
    if len(taken) >= 0xFFFF:
        raise LoginError(numbers.OUT_OF_RESOURCES, "all session handles are in use")
    while True:
        last = last % 0xFFFF + 1
        if last not in taken:
            return last


class Node:
    """
    All targets of one network entity, and the bounds that its sessions share.

    @ivar targets: by name.
    @ivar portals: where it listens.
    @ivar gone: names of targets that were served and are no more.
    @ivar authenticate: begins an authentication for discovery; None if that needs none.
    @ivar door: who may ask for targets; None for whoever can be authenticated.
    @ivar certified: the user whom the names in a certificate prove; None for nobody.
    @ivar verdicts: holds attempts to authenticate back if need be; None for judging all at once.
    @ivar limits: what all initiators may cost together.
    @ivar load: bounds what all sessions together read and have not been sent.
    @ivar depth: commands that one session may have outstanding (its CmdSN window): more than a unit takes,
        so that one unit that hangs leaves room for the others.
    @ivar solicited: bounds what all sessions together have solicited.
    @ivar sessions: all sessions, discovery too.
    @ivar discoveries: discovery sessions by initiator name, ISID, portal group tag and, if one was named,
        target.
    @ivar unfinished: connections whose login is not complete, oldest first.
    @ivar silent: those of them that have not sent a whole request.
    @ivar connections: how many there are.
    @ivar pingInterval: seconds of silence after which an initiator is asked whether it is there; 0 for never.
    @ivar pingTimeout: seconds that it then has to send anything at all.
    @ivar dataTimeout: seconds in which some of the data that a session was asked for must come.
    """

    def __init__(
        self,
        events: Events,
        *,
        limits: Limits = NO_CHANGES,
        depth: int = 192,
        pingInterval: float = 30.0,
        pingTimeout: float = 30.0,
        dataTimeout: float = 60.0,
    ) -> None:
        self.targets: dict[str, Target] = {}
        self.portals: tuple[Portal, ...] = ()
        self.gone: set[str] = set()
        self.events = events
        self.authenticate: Authenticate | None = None
        self.door: Door | None = None
        self.certified: Callable[[tuple[str, ...]], str | None] | None = None
        self.verdicts: Verdicts | None = None
        self.limits = limits
        self.depth = depth
        self.solicited = Budget(limits.solicited)
        self.sessions: set[Session] = set()
        self.load = Load(limits.reading, self.sessions)
        self.connections = 0
        self.discoveries: dict[tuple[str, bytes, int, str], Session] = {}
        self.unfinished: dict[Connection, None] = {}
        self.silent: dict[Connection, None] = {}
        self.pingInterval = pingInterval
        self.pingTimeout = pingTimeout
        self.dataTimeout = dataTimeout
        self._lastTSIH = 0
        # Who may come to any of the targets that are reached through a portal group, by its tag.
        self._entrances: dict[int, tuple[IAccessPolicy, ...]] = {}

    def came(self, connection: Connection) -> None:
        """A connection began."""
        if len(self.unfinished) >= self.limits.halfOpen:
            self._giveUp("too many logins are not complete, and this is the oldest")
        self.unfinished[connection] = None
        self.silent[connection] = None
        self.connections += 1

    def makesRoom(self) -> bool:
        """
        Make room for one connection more, by giving up the oldest that is logging in if need be.

        @return: whether there is room; not if all that there may be have sessions.
        """
        if self.connections < self.limits.connections:
            return True
        return self._giveUp("there are too many connections, and this is the oldest without a session")

    def _giveUp(self, why: str) -> bool:
        """
        Drop the oldest connection that is logging in; if any have not even begun, the oldest of those.

        Else a flood of such could keep those out whose login takes a little longer.

        @return: whether there was one.
        """
        for oldest in (*islice(self.silent, 1), *islice(self.unfinished, 1)):
            oldest.abandon(why)
            return True
        return False

    def spoke(self, connection: Connection) -> None:
        """A login has begun."""
        self.silent.pop(connection, None)

    def finished(self, connection: Connection) -> None:
        """A login is complete, or given up."""
        self.silent.pop(connection, None)
        self.unfinished.pop(connection, None)

    def nextTSIH(self) -> int:
        """
        A session handle for a discovery session.

        @raise LoginError: if all are taken.
        """
        self._lastTSIH = _freeHandle(self.discoveries.values(), self._lastTSIH)
        return self._lastTSIH

    def add(self, target: Target) -> None:
        """Serve one target more."""
        self.targets[target.name] = target
        target.changed = self._entrances.clear
        self._entrances.clear()
        self.gone.discard(target.name)

    def remove(self, name: str) -> Target:
        """
        Serve a target no more: nobody can log in to it; the sessions that there are may go on.

        @return: the target.
        """
        target = self.targets.pop(name)
        self._entrances.clear()
        target.leaving = True
        if len(self.gone) < GONE:
            self.gone.add(name)
        return target

    def clear(self) -> None:
        """Serve nothing, and remember nothing that was served."""
        self.targets.clear()
        self.gone.clear()
        self._entrances.clear()

    def find(self, name: str, peer: Peer, portal: Portal) -> Target:
        """
        The target that a login names.

        @raise LoginError: if there is none, or not for this peer or through this portal.
        """
        target = self.targets.get(normalise(name))
        if target is None and normalise(name) in self.gone:
            raise LoginError(numbers.TARGET_REMOVED, "the target is not served any more")
        if target is None:
            raise LoginError(numbers.NOT_FOUND, "there is no such target")
        if not target.reachedBy(portal):
            raise LoginError(
                numbers.NOT_FOUND, f"{target.name} is not reached through portal group {portal.tag}"
            )
        if not target.policy.admits(peer.address):
            raise LoginError(numbers.AUTHORIZATION_FAILURE, f"the netmask of {target.name} does not admit it")
        return target

    def admits(self, address: str | None, portal: Portal) -> bool:
        """Whether there is anything at this portal for a peer at this address."""
        policies = self._entrances.get(portal.tag)
        if policies is None:
            reached = (each.policy for each in self.targets.values() if each.reachedBy(portal))
            policies = self._entrances[portal.tag] = together(reached)
        return not policies or any(policy.admits(address) for policy in policies)

    def visible(
        self,
        peer: Peer,
        portal: Portal,
        user: str = "",
        initiatorName: str = "",
        looked: Callable[[int], None] | None = None,
    ) -> Iterator[Target]:
        """
        The targets that this initiator may log in to through this portal, as this user.

        @param looked: told before so many more are asked whether he may.
        """
        # They may be taken one by one over some time, in which targets come and go.
        targets = [each for each in self.targets.values() if each.reachedBy(portal)]
        for start in range(0, len(targets), LOOKS):
            some = targets[start : start + LOOKS]
            if looked is not None:
                looked(len(some))
            for each in some:
                if each.grant(peer, initiatorName, user) is not None:
                    yield each
