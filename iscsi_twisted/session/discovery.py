# -*- test-case-name: tests.session.test_discovery -*-
"""Text keys in full feature phase, SendTargets first of all (RFC 7143 appendix C)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Final

from iscsi_twisted.errors import TextError
from iscsi_twisted.session.keys import KEYS, NOT_UNDERSTOOD, REJECT
from iscsi_twisted.session.names import normalise
from iscsi_twisted.session.parameters import MAX_RECEIVE
from iscsi_twisted.session.portals import addresses
from iscsi_twisted.session.target import Target

if TYPE_CHECKING:
    from iscsi_twisted.session.connection import Connection

LOOKED: Final = 2048
"""
Bytes that could be sent in the time of asking whether a target is for somebody: a microsecond or two.  The
answer may be short all the same, and the next request is there already.
"""

Pair = tuple[str, str]
Pairs = list[Pair]


def answer(connection: Connection, pairs: Pairs) -> Iterator[Pair]:
    """
    The answer to the pairs of one text request.

    Targets are looked up as they are taken from it: there may be thousands, and asking costs the
    initiator nothing.

    @raise TextError: if a key is given twice (RFC 7143 6.2).
    """
    if len(dict(pairs)) < len(pairs):
        raise TextError("a key is given twice")
    answers: list[Iterable[Pair]] = []
    for name, value in pairs:
        if name == "SendTargets":
            answers.append(_sendTargets(connection, value))
        elif name == "MaxRecvDataSegmentLength":
            answers.append(_segment(connection, value))
        elif name not in KEYS:
            answers.append([(name, NOT_UNDERSTOOD)])
        elif KEYS[name].forTarget or not KEYS[name].fullFeature:
            answers.append([(name, REJECT)])
    return chain.from_iterable(answers)


def _segment(connection: Connection, value: str) -> Pairs:
    """The initiator declares anew how much it takes at a time (13.12)."""
    length = KEYS["MaxRecvDataSegmentLength"].parse(value)
    if length is None or connection.session is None:
        return [("MaxRecvDataSegmentLength", REJECT)]
    connection.maxSegment = int(length)
    connection.framer.maxSegment = MAX_RECEIVE
    if connection.single:
        connection.single = min(connection.maxSegment, connection.session.parameters.maxBurst)
    return [("MaxRecvDataSegmentLength", str(MAX_RECEIVE))]


def _sendTargets(connection: Connection, value: str) -> Iterable[Pair]:
    """
    The targets that were asked for: C{All} (in a discovery session only), a name, or nothing for
    the session's own target.
    """
    session = connection.session
    assert session is not None
    if value == "All":
        if not session.discovery:
            return [("SendTargets", REJECT)]
        visible = connection.node.visible(
            connection.peer, connection.portal, session.user, session.initiatorName, _costly(connection)
        )
        return chain.from_iterable(_record(connection, target) for target in visible)
    wanted = normalise(value) if value else session.target.name if session.target else None
    if wanted is None:
        return [("SendTargets", REJECT)]
    if session.target is not None and wanted != session.target.name:
        return []
    target = connection.node.targets.get(wanted)
    if target is None or not target.reachedBy(connection.portal):
        return []
    if target.grant(connection.peer, session.initiatorName, session.user) is None:
        return []
    return _record(connection, target)


def _costly(connection: Connection) -> Callable[[int], None]:
    """Let what is asked of targets count for the turn."""
    return lambda targets: connection.costs(LOOKED * targets)


def _record(connection: Connection, target: Target) -> Iterator[Pair]:
    """One target and where it is reached.  (Not its alias: some initiators stop at any further key.)"""
    yield "TargetName", target.name
    portals, here = connection.node.portals, connection.peer.local
    for address, tag in addresses(portals, target.groups, connection.portal, here):
        yield "TargetAddress", f"{address},{tag}"
