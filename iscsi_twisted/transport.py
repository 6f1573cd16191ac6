# -*- test-case-name: tests.test_transport,tests.target.test_portals -*-
"""
A TCP transport that sends lists of buffers without joining or copying them, for both roles.

Twisted's own queues what it is given, sends it one turn of the reactor later and joins all of it.
L{Vectored} hands the list to C{sendmsg} at once, and keeps what the kernel did not take as it
is.  All else is as Twisted's L{ITransport<twisted.internet.interfaces.ITransport>} promises.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable
from errno import EAGAIN, ENOBUFS, EWOULDBLOCK
from itertools import islice
from typing import Any, NoReturn, Protocol

from twisted.internet import main, tcp
from twisted.internet.interfaces import IConnector, IProtocol
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.protocol import BaseProtocol
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

from iscsi_twisted.interfaces import Buffer

IOV_MAX = 1024
"""Buffers that one C{sendmsg} takes: Linux's UIO_MAXIOV, and no less elsewhere."""

_FULL = frozenset((EAGAIN, EWOULDBLOCK, ENOBUFS))


class Filling(Protocol):
    """
    What a protocol offers that wants large payloads to be received into memory of its own.

    It is asked before each receive; while C{wanted} answers None, C{dataReceived} is called as ever.
    """

    def wanted(self) -> memoryview | list[memoryview] | None:
        """Where the next bytes of the stream belong, in one buffer or several; the first is never empty."""

    def filled(self, count: int) -> None:
        """The first C{count} bytes of what C{wanted} returned have arrived; at least one."""


class Vectored(tcp.Connection):
    """
    A TCP connection with vectored sends, to be mixed into one of Twisted's.

    Buffers may be C{bytes} or anything that has a flat buffer of single bytes; they must not change
    until they are sent.  TLS cannot be started on it.

    @cvar bufferSize: bytes queued beyond which a streaming producer is paused.
    @cvar receiveSize: bytes received in one call.  With 1 MiB, writes of 64 and 256 KiB mostly arrive whole
        and are used as they lie; with 256 KiB they cost 1.5 to 2 times the CPU time, with 2 MiB no less.
        The headers of four PDUs of 256 KiB have to fit too, or the end of the fourth is always missing.
    @cvar SEND_LIMIT: bytes after which no more buffers are added to one C{sendmsg}: as much as
        Linux lets a socket's send buffer grow to by itself, so more would never be taken.
    """

    bufferSize = 256 * 1024
    receiveSize = 1024 * 1024 + 4096
    SEND_LIMIT = 4 * 1024 * 1024

    _failed = False
    _reader: IProtocol | None = None
    _wanted: Callable[[], memoryview | list[memoryview] | None] | None = None

    def __init__(self, *arguments: Any) -> None:
        self._queue: deque[memoryview] = deque()
        self._queued = 0
        super().__init__(*arguments)

    def startTLS(self, ctx: object, normal: bool = True) -> NoReturn:
        """
        Refuse: use an endpoint that speaks TLS.

        @raise NotImplementedError: always.
        """
        raise NotImplementedError("TLS cannot be started on a vectored transport")

    # Sending

    def write(self, data: Buffer) -> None:
        """Send one buffer, or queue it behind what is queued."""
        self.writeSequence([data])

    def writeSequence(self, iovec: Iterable[Buffer]) -> None:
        """
        Send buffers in order; what the socket does not take now is sent when it can.

        @raise TypeError: if one of them is not a buffer; then none is sent.
        """
        if not self.connected or self._writeDisconnected or self._aborting:
            return
        buffers: list[Buffer] = iovec if type(iovec) is list else list(iovec)
        if self._queue or len(buffers) > IOV_MAX:
            self._enqueue(buffers, 0)
            return
        # A failed send is left to the reactor, whose next doWrite meets it again: the caller is in
        # the midst of something and must not be told here that its connection is lost.
        sent = max(self._send(buffers), 0)
        if sent != sum(map(len, buffers)):
            self._enqueue(buffers, sent)
        elif self.producer is not None and not self.streamingProducer:
            self.startWriting()  # doWrite then asks a pull producer for more

    def _send(self, buffers: list[Buffer] | list[memoryview]) -> int:
        """
        Give the socket what it takes at once.

        @return: bytes taken; -1 if the connection is broken.
        """
        try:
            return self.socket.sendmsg(buffers)
        except OSError as error:
            if error.errno in _FULL:
                return 0
            self._failed = True
            return -1

    def _enqueue(self, buffers: list[Buffer], sent: int) -> None:
        """Queue what follows the first C{sent} bytes, and arm the reactor."""
        views = [memoryview(buffer) for buffer in buffers]
        for view in views:
            size = len(view)
            if size > sent:
                self._queue.append(view[sent:] if sent else view)
                self._queued += size - sent
                sent = 0
            else:
                sent -= size
        if self._queue:
            self._maybePauseProducer()
            self.startWriting()

    def _isSendBufferFull(self) -> bool:
        return self._queued > self.bufferSize

    def doWrite(self) -> Exception | None:  # type: ignore[override]  # abortConnection replaces it
        """
        The socket is writable: send from the queue.

        @return: None, or the reason why the connection ends.
        """
        if self._queue:
            sent = self._send(self._head())
            if sent < 0:
                return main.CONNECTION_LOST
            self._drop(sent)
        return None if self._queue else self._drained()

    def _head(self) -> list[memoryview]:
        """The front of the queue, as much of it as one call may take."""
        head: list[memoryview] = []
        room = self.SEND_LIMIT
        for view in islice(self._queue, IOV_MAX):
            head.append(view)
            room -= len(view)
            if room <= 0:
                break
        return head

    def _drop(self, sent: int) -> None:
        """Forget the first bytes of the queue."""
        queue = self._queue
        self._queued -= sent
        while sent:
            size = len(queue[0])
            if size > sent:
                queue[0] = queue[0][sent:]
                return
            queue.popleft()
            sent -= size

    def _drained(self) -> Exception | None:
        """Nothing is queued any more: ask for more, or close as was asked."""
        self.stopWriting()
        if self.producer is not None and (self.producerPaused or not self.streamingProducer):
            self.producerPaused = False
            self.producer.resumeProducing()  # type: ignore[attr-defined]  # both kinds have it
        elif self.disconnecting:
            return main.CONNECTION_DONE
        elif self._writeDisconnecting:
            # First, since the protocol may call loseConnection when it is told.
            self._writeDisconnected = True
            self._closeWriteConnection()
        return None

    @property
    def sent(self) -> bool:
        """Whether nothing is queued: the kernel has all that was written."""
        return not self._queue

    def loseConnection(self, *reason: Failure) -> None:
        """Close when all is sent: if that is so already, without asking whether more could be."""
        if self._queue or self.producer is not None or self._writeDisconnected or not self.connected:
            super().loseConnection(*reason)
        elif not self.disconnecting:
            self.stopReading()
            self.disconnecting = True
            self.reactor.callLater(0, self._finish)  # type: ignore[attr-defined]  # it has a clock too

    def _finish(self) -> None:
        # What was written meanwhile goes first; what sends it then closes.
        if not self._queue:
            self.connectionLost(Failure(main.CONNECTION_DONE))

    # Receiving

    def doRead(self) -> Exception | None:  # type: ignore[override]  # abortConnection replaces it
        """
        The socket is readable: receive once, to where the protocol wants it.

        @return: None, or the reason why the connection ends.
        """
        if self._reader is not self.protocol:
            self._reader = self.protocol
            self._wanted = getattr(self._reader, "wanted", None)
        view = self._wanted() if self._wanted is not None else None
        try:
            if view is None:
                data = self.socket.recv(self.receiveSize)
            elif type(view) is list:
                count = self.socket.recvmsg_into(view)[0]
            else:
                count = self.socket.recv_into(view)  # type: ignore[arg-type]  # it is no list
        except OSError as error:
            return None if error.errno == EWOULDBLOCK else main.CONNECTION_LOST
        if view is None and data:
            self.protocol.dataReceived(data)
        elif view is not None and count:
            self.protocol.filled(count)  # type: ignore[attr-defined]
        else:
            # The error of a failed send is told once; a receive then sees a clean end.
            return main.CONNECTION_LOST if self._failed else main.CONNECTION_DONE
        return None

    def connectionLost(self, reason: Failure) -> None:
        """The connection has ended: let go of what was not sent."""
        self._queue.clear()
        self._queued = 0
        self._reader = self._wanted = None
        super().connectionLost(reason)


def writeBytes(protocol: BaseProtocol, buffers: Iterable[Buffer]) -> None:
    """Send buffers over a transport of Twisted's own, which takes C{bytes} alone."""
    made = [each if type(each) is bytes else bytes(each) for each in buffers]
    protocol.transport.writeSequence(made)  # type: ignore[union-attr]


class VectorServer(Vectored, tcp.Server):
    """
    The server's side of a TCP connection.

    @cvar inherits: it has the options of the socket that listens, so they need not be set.
    """

    inherits = sys.platform == "linux"


class VectorClient(Vectored, tcp.Client):
    """The client's side of a TCP connection."""


class VectorConnector(tcp.Connector):
    """Makes a L{VectorClient}."""

    def _makeTransport(self) -> VectorClient:
        return VectorClient(self.host, self.port, self.bindAddress, self, self.reactor)


class _Vectoring:
    """A reactor whose TCP clients are vectored; all else is the reactor's own."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> IConnector:
        """As L{IReactorTCP<twisted.internet.interfaces.IReactorTCP>} says."""
        made = VectorConnector(host, port, factory, timeout, bindAddress, self._reactor)
        made.connect()
        return made


def vectoring(reactor: Any) -> Any:
    """
    The same reactor, with vectored TCP clients where that can be.

    To be given to endpoints: those that connect by TCP then do it so.
    """
    # IReactorFDSet would not do: in-memory reactors provide that too, yet poll no sockets.
    return _Vectoring(reactor) if isinstance(reactor, PosixReactorBase) else reactor


_MALLOPT = (
    (-1, 256 * 1024 * 1024),  # M_TRIM_THRESHOLD
    (-3, 32 * 1024 * 1024),  # M_MMAP_THRESHOLD
    (-2, 16 * 1024 * 1024),  # M_TOP_PAD
)


def tuneMalloc() -> bool:
    """
    Have glibc keep freed memory, so that large payloads do not fault in new pages each time.

    @return: whether that was done; False where there is no glibc.
    """
    mallopt = _glibc("mallopt")
    return mallopt is not None and all([mallopt(parameter, value) == 1 for parameter, value in _MALLOPT])


def trimMalloc() -> bool:
    """
    Give back what L{tuneMalloc} has kept.

    @return: whether that was done; False where there is no glibc.
    """
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(ctypes.c_size_t(0))
    return trim is not None


def _glibc(name: str) -> Any:
    """A function of glibc's; None where there is none."""
    try:
        if not (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
            return None
        return getattr(ctypes.CDLL(None), name)
    except (ValueError, OSError, AttributeError):
        return None
