"""Who may ask which targets there are."""

from __future__ import annotations

import os

from iscsi_twisted.auth.chap import Credentials
from iscsi_twisted.auth.verifier import Verifier
from iscsi_twisted.interfaces import Account, Asker, Grant
from iscsi_twisted.session.answers import LoginRefused
from iscsi_twisted.session.doors import Door
from iscsi_twisted.wire import numbers
from tests.auth.test_verifier import OTHER, SECRET, Store
from tests.support.initiator import InitiatorTests
from tests.support.wire import Anybody, Nobody


class Named(Anybody):
    """Lets initiators in by their names."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[Asker] = []

    def decide(self, asker: Asker) -> Grant | None:
        self.asked.append(asker)
        return Grant() if asker.initiatorName == self.name else None


class DiscoveryTests(InitiatorTests):
    """Tests of C{Node.door}."""

    def refused(self, **options: Credentials) -> None:
        """Discovery is refused, and a login to the target is not."""
        failure = self.fails(LoginRefused, self.initiator.discover(self.endpoint, **options))  # type: ignore[arg-type]
        self.assertEqual(failure.status, numbers.AUTHORIZATION_FAILURE)
        self.assertEqual(self.node.sessions, set())
        self.now(self.session().logout())

    def test_address(self) -> None:
        """A peer that is not let in is refused, and may still use targets."""
        self.node.door = Door("", Nobody())
        self.refused()

    def test_name(self) -> None:
        """A policy decides by the initiator's name; it is told of no target."""
        self.node.door = Door("", Named("iqn.x:other"))
        self.refused()
        policy = Named(self.initiator.name)
        self.node.door = Door("", policy)
        self.assertEqual(len(self.now(self.initiator.discover(self.endpoint))), 1)
        self.assertEqual({each.target for each in policy.asked}, {""})

    def test_users(self) -> None:
        """Of those who prove who they are, only some may be let in."""
        store = Store(me=Account(SECRET), you=Account(OTHER))
        self.node.authenticate = lambda: Verifier(store, os.urandom)
        self.node.door = Door("", Anybody(), frozenset(("me",)))
        self.refused(credentials=Credentials("you", OTHER))
        found = self.now(self.initiator.discover(self.endpoint, credentials=Credentials("me", SECRET)))
        self.assertEqual(len(found), 1)
