"""Bytes between a transport and the initiator's core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.initiator.protocol import InitiatorProtocol
from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.session.answers import ConnectionEnded
from iscsi_twisted.session.client import ClientConnection
from iscsi_twisted.session.request import Wish


class Alone:
    """The owner of a connection to whom nothing matters."""

    def loggedIn(self, connection: ClientConnection) -> None:
        """Not here."""

    def told(self, event: object) -> None:
        """Not here."""

    def ended(self, error: object) -> None:
        """It is over."""


class ProtocolTests(SynchronousTestCase):
    """A connection on a transport."""

    def setUp(self) -> None:
        def make(send: Callable[[list[Buffer]], None], close: Callable[[], None]) -> ClientConnection:
            wish = Wish("iqn.2001-04.com.example:a", "iqn.2001-04.com.example:b", bytes(6))
            return ClientConnection(Alone(), wish, send=send, close=close)

        self.transport: Any = StringTransport()
        self.protocol = InitiatorProtocol(make)
        self.protocol.makeConnection(self.transport)

    def test_producer(self) -> None:
        """The core is told when the target does not read, and when it reads again."""
        core = self.protocol.core
        self.assertEqual(core.clogged, 0)
        self.transport.producer.pauseProducing()
        self.assertEqual(core.clogged, 1)
        core.clogged = 5
        self.transport.producer.pauseProducing()
        self.assertEqual(core.clogged, 5)
        self.transport.producer.resumeProducing()
        self.assertEqual(core.clogged, 0)

    def test_closed(self) -> None:
        """At the end what was written is still sent."""
        self.protocol.core.end(ConnectionEnded("enough"))
        self.assertTrue(self.transport.disconnecting)
        self.assertFalse(self.transport.disconnected)
        self.assertIsNone(self.transport.producer)

    def test_cut(self) -> None:
        """A connection whose target does not read is cut: what waits for it would stay for ever."""
        self.transport.producer.pauseProducing()
        self.protocol.core.end(ConnectionEnded("enough"))
        self.assertTrue(self.transport.disconnected)
