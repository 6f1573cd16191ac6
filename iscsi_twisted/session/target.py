# -*- test-case-name: tests.session.test_node,tests.session.test_units -*-
"""One target of a node: its units, its sessions, and the nexuses that these are (RFC 7143 4.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from zope.interface import implementer

from iscsi_twisted.errors import CheckCondition, LocalError, LoginError
from iscsi_twisted.interfaces import Grant, IAccessPolicy, ILogicalUnit, INexus, Pending
from iscsi_twisted.session import notices
from iscsi_twisted.session.doors import Door, Peer
from iscsi_twisted.session.names import normalise
from iscsi_twisted.session.portals import Portal
from iscsi_twisted.wire import numbers

if TYPE_CHECKING:
    from iscsi_twisted.session.session import Session

MODE_CHANGED: Final = 0x2A01
"""Unit attention: mode parameters have changed (SPC-4 6.11): here that the nexus may write, or may not."""

LUNS_CHANGED: Final = 0x3F0E
"""Unit attention: reported LUNs data has changed (SPC-4 6.33)."""


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
        self._lastTSIH = freeHandle(self.sessions.values(), self._lastTSIH)
        return self._lastTSIH


def freeHandle(sessions: Iterable[Session], last: int) -> int:
    """The next session handle after the last one that none of these sessions has."""
    taken = {session.tsih for session in sessions}
    if len(taken) >= 0xFFFF:
        raise LoginError(numbers.OUT_OF_RESOURCES, "all session handles are in use")
    while True:
        last = last % 0xFFFF + 1
        if last not in taken:
            return last
