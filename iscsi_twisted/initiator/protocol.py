# -*- test-case-name: tests.initiator.test_protocol -*-
"""Bytes between a transport and the initiator's core."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.interfaces import IAddress, IPushProducer, ITCPTransport
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.session.client import ClientConnection
from iscsi_twisted.transport import Vectored, writeBytes


@implementer(IPushProducer)
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
        transport.registerProducer(self, True)
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
        transport: Any = self.transport
        if not self.connected:
            return
        transport.unregisterProducer()
        if self.core.clogged:
            # Whoever does not read would keep the connection, and all that waits for it, for ever.
            transport.abortConnection()
        else:
            transport.loseConnection()

    # As the producer of what is sent: commands have their window, answers to pings have not.

    def pauseProducing(self) -> None:
        """The target does not read as fast as we write."""
        self.core.clogged = self.core.clogged or 1

    def resumeProducing(self) -> None:
        """It has read what was written."""
        self.core.clogged = 0

    def stopProducing(self) -> None:
        """The transport is gone, as it tells by C{connectionLost} too."""


class InitiatorFactory(ClientFactory):
    """Makes one protocol."""

    noisy = False

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> InitiatorProtocol:
        """The connection."""
        return InitiatorProtocol(self._make)
