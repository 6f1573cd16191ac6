# -*- test-case-name: tests.target.test_journal -*-
"""
The life of sessions as structured log events.

Every event carries C{event} (one of C{login}, C{logout}, C{lost}, C{refused}, C{unknownUser}, C{turnedAway},
C{crowded}, C{handshakeFailed}, C{repeated}, C{reset}, C{surprise}) and its facts by name.  I/O is never
logged.  Of what somebody can cause without a session, again and again, the first few of each minute are.
"""

from __future__ import annotations

from twisted.logger import Logger
from twisted.python.failure import Failure

from iscsi_twisted.session.connection import Connection
from iscsi_twisted.session.doors import Peer
from iscsi_twisted.session.names import printable
from iscsi_twisted.session.session import Session
from iscsi_twisted.target.repeats import WINDOW, Repeats

_KINDS = {
    "lost": "connections lost before a login",
    "refused": "logins refused",
    "turnedAway": "connections cut that no target admits",
    "handshakeFailed": "connections without a handshake",
}
"""What is repeated, and what it is called where it is not told one by one."""

NAMES = 10
"""Names of a certificate that an event carries: there may be thousands."""


class Journal:
    """
    Provides L{iscsi_twisted.session.node.Events}.

    @ivar logins: sessions that began.
    @ivar refusals: logins that were refused, and connections that were.
    @ivar losses: connections that ended without a logout.
    @ivar surprises: failures of our own code.
    """

    log = Logger(namespace="iscsi_twisted")

    def __init__(self, auths: str = "/etc/iscsi/auths") -> None:
        """@param auths: the file in which users are looked for."""
        self.auths = auths
        self.logins = self.refusals = self.losses = self.surprises = self.crowds = 0
        self._repeats = {event: Repeats() for event in _KINDS}
        self._settled: float | None = None

    def tick(self, now: float) -> None:
        """Time passes; called every few seconds.  Tell once a minute what was not told one by one."""
        if self._settled is None:
            self._settled = now
        elif now - self._settled >= WINDOW:
            self._settled = now
            for event, repeats in self._repeats.items():
                for address, count in repeats.settle():
                    self.log.warn(
                        "! {count} more {kind} on {address} in the last minute",
                        event="repeated", of=event, count=count, kind=_KINDS[event],
                        address=address or "these and other addresses",
                    )  # fmt: skip

    def _worth(self, event: str, address: str) -> bool:
        return self._repeats[event].passes(address)

    def loggedIn(self, connection: Connection) -> None:
        """A session began."""
        self.logins += 1
        self.log.info("> {kind} login from {initiator} on {address}", event="login", **_facts(connection))

    def loggedOut(self, connection: Connection) -> None:
        """A session ended as it should."""
        self.log.info("< {kind} logout from {initiator} on {address}", event="logout", **_facts(connection))

    def lost(self, connection: Connection, reason: str) -> None:
        """A connection ended otherwise."""
        if connection.session is None and connection.pdusIn == 0:
            return
        self.losses += 1
        if connection.session is None and not self._worth("lost", connection.peer.text):
            return
        self.log.warn(
            "< {kind} connection lost from {initiator} on {address}: {reason}",
            event="lost",
            reason=printable(reason),
            **_facts(connection),
        )

    def refused(self, connection: Connection, status: int, reason: str) -> None:
        """A login was refused."""
        self.refusals += 1
        if not self._worth("refused", connection.peer.text):
            return
        self.log.warn(
            "! {kind} login refused to {initiator} on {address}: {reason} (status {status})",
            event="refused",
            status=f"{status >> 8:02x}{status & 255:02x}h",
            reason=printable(reason),
            **_facts(connection),
        )

    def unknownUser(self, connection: Connection, user: str) -> None:
        """A login gave a user's name that nobody has; that it was refused is told as well."""
        if not self._repeats["refused"].would(connection.peer.text):
            return
        for line in (
            "No matching user configuration entry for `{user}' was found",
            "Please add an entry for `{user}' to `{path}'",
        ):
            self.log.warn(line, event="unknownUser", user=printable(user), path=self.auths)

    def turnedAway(self, peer: Peer) -> None:
        """No target admits an address, so its connection was cut."""
        self.refusals += 1
        if not self._worth("turnedAway", peer.text):
            return
        self.log.warn(
            "! connection from {address} cut: no target admits it", event="turnedAway", address=peer.text
        )

    def handshakeFailed(self, peer: Peer, reason: str) -> None:
        """A connection ended before TLS was agreed upon."""
        self.refusals += 1
        if not self._worth("handshakeFailed", peer.text):
            return
        self.log.warn(
            "! connection from {address} failed: {reason}",
            event="handshakeFailed",
            address=peer.text,
            reason=printable(reason),
        )

    def crowded(self, peer: Peer) -> None:
        """All the connections that there may be have sessions, so one more was cut."""
        self.refusals += 1
        self.crowds += 1
        # A flood must not fill the log.
        if not self.crowds & self.crowds - 1:
            self.log.warn(
                "! connection from {address} cut: there are all that there may be, and all have sessions"
                " ({times} times so far)",
                event="crowded", address=peer.text, times=self.crowds,
            )  # fmt: skip

    def reset(self, session: Session, function: str, lun: int | None) -> None:
        """An initiator reset something."""
        target = session.target.name if session.target is not None else ""
        self.log.warn(
            "! {function} of {target}{unit} from {initiator}",
            event="reset",
            function=function,
            target=target,
            lun=lun,
            unit="" if lun is None else f" LUN {lun}",
            initiator=session.initiatorName,
        )

    def surprise(self, error: BaseException, doing: str) -> None:
        """A failure of our own, which ended one task or connection and nothing else."""
        self.surprises += 1
        self.log.failure(
            "unexpected failure while {doing}",
            Failure(error, type(error), error.__traceback__),
            event="surprise",
            doing=doing,
        )


def _facts(connection: Connection) -> dict[str, str]:
    """Who and where, as may stand in a log."""
    session = connection.session
    initiator = connection.initiator
    if session is not None:
        kind = "Discovery" if session.discovery else "Normal"
    else:
        kind = connection.login.kind if connection.login is not None else "Normal"
    target = session.target.name if session is not None and session.target is not None else ""
    return {
        "kind": kind,
        "initiator": printable(initiator) or "(unnamed)",
        "address": connection.peer.text,
        "target": target,
        "user": printable(session.user) if session is not None else "",
        "certificate": ",".join(map(printable, connection.peer.certificate[:NAMES])),
    }
