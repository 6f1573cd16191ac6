# -*- test-case-name: tests.session.test_doors -*-
"""Who may come in: to a target, or to ask which targets there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs

from iscsi_twisted.interfaces import Asker, Grant, IAccessPolicy


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


def _nobody() -> None:
    """Who is told of changes where nobody wants to know."""


def together(policies: Iterable[IAccessPolicy]) -> tuple[IAccessPolicy, ...]:
    """The same policies, but as few as can be: those that can be asked together are."""
    kinds: dict[type, dict[int, IAccessPolicy]] = {}
    for policy in policies:
        kinds.setdefault(type(policy), {})[id(policy)] = policy
    found: list[IAccessPolicy] = []
    for kind, alike in kinds.items():
        join = getattr(kind, "together", None)
        found += alike.values() if join is None else [join(tuple(alike.values()))]
    return tuple(found)


class Door:
    """
    What decides about one login.

    @ivar name: of the target, in normal form; empty for discovery.
    @ivar users: those that may come in; None for all that can be authenticated.
    @ivar changed: called when another policy decides.
    """

    def __init__(self, name: str, policy: IAccessPolicy, users: frozenset[str] | None = None) -> None:
        self.changed: Callable[[], None] = _nobody
        self.name = name
        self._policy = policy
        self.users = users

    @property
    def policy(self) -> IAccessPolicy:
        """Who may come."""
        return self._policy

    @policy.setter
    def policy(self, policy: IAccessPolicy) -> None:
        self._policy = policy
        self.changed()

    def allows(self, user: str) -> bool:
        """Whether a user may come in; one who has no name yet may try."""
        return self.users is None or not user or user in self.users

    def grant(self, peer: Peer, initiatorName: str, user: str) -> Grant | None:
        """What an initiator may do here; None for nothing."""
        if not self.allows(user) or not self._policy.admits(peer.address):
            return None
        # A policy that only admits, or does not, has nothing more to say.
        decide = getattr(self._policy, "decide", None)
        if decide is None:
            return Grant()
        grant: Grant | None = decide(Asker(peer.address, initiatorName, user, peer.certificate, self.name))
        return grant
