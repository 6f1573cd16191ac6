# -*- test-case-name: tests.initiator.test_session -*-
"""Bytes between a transport and the initiator's core."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.interfaces import IAddress, ITCPTransport
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure

from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.session.client import ClientConnection
from iscsi_twisted.transport import Vectored, writeBytes


class InitiatorProtocol(Protocol):
    """
    iSCSI, the initiator's side, on one transport.

    @ivar core: the connection.
    """

    def __init__(self, make: Callable[[Callable[[list[Buffer]], None], Callable[[], None]], Any]) -> None:
        """
        @param make: called with what sends and what closes; gives the core.
        """
        self._write: Callable[[list[Buffer]], None] = partial(writeBytes, self)
        self.core: ClientConnection = make(self._send, self._close)
        self.dataReceived = self.core.receive  # type: ignore[method-assign]
        self.wanted = self.core.wanted
        self.filled = self.core.filled

    def connectionMade(self) -> None:
        """Begin the login."""
        transport: Any = self.transport
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        if isinstance(transport, Vectored):
            # Endpoints put a protocol of theirs between, which is of no use any more.
            transport.protocol = self
            self._write = transport.writeSequence
        self.core.start()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The transport is gone."""
        self.connected = 0
        why = getattr(self.transport, "why", None)
        self.core.lost((why and why(reason)) or reason.getErrorMessage())

    def _send(self, buffers: list[Buffer]) -> None:
        if self.connected:
            self._write(buffers)

    def _close(self) -> None:
        if self.connected:
            self.transport.loseConnection()  # type: ignore[union-attr]


class InitiatorFactory(ClientFactory):
    """Makes one protocol."""

    noisy = False

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> InitiatorProtocol:
        """The connection."""
        return InitiatorProtocol(self._make)
