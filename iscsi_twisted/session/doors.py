# -*- test-case-name: tests.session.test_doors -*-
"""Who may come in: to a target, or to ask which targets there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iscsi_twisted.interfaces import Asker, Grant, IAccessPolicy

if TYPE_CHECKING:
    from iscsi_twisted.session.node import Peer


class Door:
    """
    What decides about one login.

    @ivar name: of the target, in normal form; empty for discovery.
    @ivar policy: who may come.
    @ivar users: those that may come in; None for all that can be authenticated.
    """

    def __init__(self, name: str, policy: IAccessPolicy, users: frozenset[str] | None = None) -> None:
        self.name = name
        self.policy = policy
        self.users = users

    def allows(self, user: str) -> bool:
        """Whether a user may come in; one who has no name yet may try."""
        return self.users is None or not user or user in self.users

    def grant(self, peer: Peer, initiatorName: str, user: str) -> Grant | None:
        """What an initiator may do here; None for nothing."""
        if not self.allows(user) or not self.policy.admits(peer.address):
            return None
        # A policy that only admits, or does not, has nothing more to say.
        decide = getattr(self.policy, "decide", None)
        if decide is None:
            return Grant()
        grant: Grant | None = decide(Asker(peer.address, initiatorName, user, peer.certificate, self.name))
        return grant
