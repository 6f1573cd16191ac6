# -*- test-case-name: tests.session.test_node -*-
"""All targets of one network entity, and what its connections and sessions share (RFC 7143 4.1, 4.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

from iscsi_twisted.errors import LoginError
from iscsi_twisted.interfaces import IAccessPolicy
from iscsi_twisted.session.budget import Budget
from iscsi_twisted.session.doors import Door, Peer, together
from iscsi_twisted.session.limits import NO_CHANGES, Limits
from iscsi_twisted.session.load import Load
from iscsi_twisted.session.names import normalise
from iscsi_twisted.session.portals import Portal
from iscsi_twisted.session.target import Authenticate, Target, freeHandle
from iscsi_twisted.wire import numbers

if TYPE_CHECKING:
    from iscsi_twisted.session.connection import Connection
    from iscsi_twisted.session.session import Session
    from iscsi_twisted.session.verdicts import Verdicts

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
        self._lastTSIH = freeHandle(self.discoveries.values(), self._lastTSIH)
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
