# -*- test-case-name: tests.target.test_reload -*-
"""What sessions learn of a change: what they may do from now on, and what is no longer as it was."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.logger import Logger

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.scsi.codes import LUNS_CHANGED, UNIT_ATTENTION
from iscsi_twisted.scsi.lun import encodeLUN
from iscsi_twisted.scsi.sense import encode
from iscsi_twisted.session import notices
from iscsi_twisted.session.connection import Connection
from iscsi_twisted.session.node import Node
from iscsi_twisted.session.session import Session
from iscsi_twisted.session.target import Target

_log = Logger(namespace="iscsi_twisted")


class Told:
    """
    Asynchronous messages that are sent when all is done (RFC 7143 11.9.1, event 0).

    Units have established unit attention conditions by themselves; a message lets an initiator know that
    does nothing at the moment.

    @ivar names: of targets that have changed.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._units: list[tuple[Target, int, list[int]]] = []
        self._luns: dict[Session, None] = {}

    def unit(self, target: Target, lun: int, conditions: list[int]) -> None:
        """A unit is another than it was."""
        if conditions:
            self.names.add(target.name)
            self._units.append((target, lun, conditions))

    def luns(self, target: Target, lun: int) -> None:
        """A unit came or went."""
        self.names.add(target.name)
        for session in target.sessions.values():
            if session.nexus is not None and (session.nexus.luns is None or lun in session.nexus.luns):
                self._luns[session] = None

    def masked(self, session: Session) -> None:
        """A session sees other units than before."""
        self._luns[session] = None

    def send(self) -> None:
        """Tell them."""
        for session in self._luns:
            target, connection = session.target, session.connection
            if target is None or connection is None:
                continue
            seen = sorted(lun for lun in target.units if target.sees(session, lun))
            notices.reportEvent(connection, encodeLUN(seen[0] if seen else 0), _sense(LUNS_CHANGED))
        for target, lun, conditions in self._units:
            for condition in conditions:
                target.reportEvent(encodeLUN(lun), _sense(condition))


def _sense(code: int) -> bytes:
    return encode(CheckCondition(UNIT_ATTENTION, code))


def regrant(node: Node, names: Iterable[str], gone: set[str], told: Told) -> list[Session]:
    """
    Let sessions go on with what they may do now.

    @param names: the targets that there were before, and still are.
    @param gone: users that are none any more.
    @return: the sessions that may not go on at all; why is logged.
    """
    ending = []
    for session in list(node.discoveries.values()):
        why = _identity(session, node.authenticate, gone) or _unasked(node, session)
        if why is not None:
            ending.append(session)
            _say(session, "discovery", why)
    for target in [node.targets[name] for name in names]:
        for session in list(target.sessions.values()):
            why = _identity(session, target.authenticate, gone) or _regrant(node, target, session, told)
            if why is not None:
                ending.append(session)
                _say(session, target.name, why)
    return ending


def _unasked(node: Node, session: Session) -> str | None:
    """Why a discovery session may ask no more, if so."""
    connection, door = session.connection, node.door
    assert connection is not None
    try:
        if not node.admits(connection.peer.address, connection.portal):
            return "no target admits it any more"
        if door is None or door.grant(connection.peer, session.initiatorName, session.user) is not None:
            return None
    except Exception as error:
        node.events.surprise(error, "asking a policy")
        return "whether it may could not be found out"
    return "it is none of those that may ask for targets"


def _identity(session: Session, authenticate: Any, gone: set[str]) -> str | None:
    """What is wrong with who is there."""
    if session.user in gone:
        return f"there is no user {session.user!r} any more"
    if authenticate is not None and not session.user:
        return "it has not said who it is, and has to now"
    return None


def _regrant(node: Node, target: Target, session: Session, told: Told) -> str | None:
    """Let a session do what it may; why it may do nothing, if so."""
    connection = session.connection
    assert connection is not None
    try:
        why = _refusal(target, session, connection)
        grant = target.grant(connection.peer, session.initiatorName, session.user)
    except Exception as error:
        node.events.surprise(error, "asking a policy")
        return "whether it may could not be found out"
    if why is None and grant is None:
        return "it is none of the initiators that may"
    if why is not None or grant is None:
        return why
    if target.regrant(session, grant):
        told.masked(session)
    return None


def _refusal(target: Target, session: Session, connection: Connection) -> str | None:
    if not target.allows(session.user):
        return f"the user {session.user!r} may not any more"
    if not target.policy.admits(connection.peer.address):
        return "the netmask does not admit it any more"
    if not target.reachedBy(connection.portal):
        return f"portal group {connection.portal.tag} does not lead to it any more"
    return None


def _say(session: Session, what: str, why: str) -> None:
    connection = session.connection
    _log.warn(
        "! {initiator} on {address} may not use {target} any more: {why}", event="revoked",
        initiator=session.initiatorName, target=what, why=why,
        address=connection.peer.text if connection is not None else "",
    )  # fmt: skip
