# -*- test-case-name: tests.cli.test_streams -*-
"""Standard input and output of a command, without keeping the reactor from its work."""

from __future__ import annotations

import os
import select
import stat
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

ATOMIC: Final = select.PIPE_BUF
"""Bytes that a pipe or terminal takes without waiting when it is writable."""


@implementer(IReadDescriptor, IWriteDescriptor)
class Stream:
    """
    A descriptor that is read or written in order.

    It stays in the mode that it is in, which it may share with other processes: nothing is asked of it
    for which it would have to wait.
    """

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self._reactor, self._fd = reactor, descriptor
        self._waiting: Deferred[None] | None = None
        self._prompt = stat.S_ISREG(os.fstat(descriptor).st_mode) or not IReactorFDSet.providedBy(reactor)

    async def read(self, view: memoryview) -> int:
        """Some bytes; none at the end."""
        if not self._prompt:
            await self._await(self._reactor.addReader, self._reactor.removeReader)
        return os.readv(self._fd, (view,))

    async def write(self, data: memoryview) -> None:
        """All bytes."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        while len(data):
            if self._prompt:
                data = data[os.write(self._fd, data) :]
            elif poll.poll(0):
                data = data[os.write(self._fd, data[:ATOMIC]) :]
            else:
                await self._await(self._reactor.addWriter, self._reactor.removeWriter)

    def _await(self, add: Any, remove: Any) -> Deferred[None]:
        waiting: Deferred[None] = Deferred(lambda _: remove(self))
        self._waiting = waiting
        add(self)
        return waiting.addCallback(lambda _: remove(self))

    # What a reactor calls

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def logPrefix(self) -> str:
        """What it is called in logs."""
        return "stream"

    def doRead(self) -> None:
        """It is ready."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)

    doWrite = doRead

    def connectionLost(self, reason: Failure) -> None:
        """The other end is closed, as the next read or write will see."""
        self.doRead()
