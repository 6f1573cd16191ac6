# -*- test-case-name: tests.session.test_connection,tests.session.test_turns -*-
"""
A connection of a target, without I/O (RFC 7143 4.2).

Bytes go in by L{Connection.receive}; buffers come out through C{send}, once for all that one receive
caused.  While C{receive} is on the stack the connection is I{corked}; a device that answers later
completes its task and flushes the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from iscsi_twisted.errors import RejectError, RemoteError
from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.session import fullfeature, notices
from iscsi_twisted.session.doors import Peer
from iscsi_twisted.session.login import Login
from iscsi_twisted.session.node import Node
from iscsi_twisted.session.portals import Portal
from iscsi_twisted.session.share import Share
from iscsi_twisted.session.vigil import Vigil
from iscsi_twisted.wire import numbers
from iscsi_twisted.wire.digest import digest
from iscsi_twisted.wire.framer import Framer
from iscsi_twisted.wire.serial import MASK

if TYPE_CHECKING:
    from iscsi_twisted.session.session import Session

BATCH: Final = 1 << 20
"""Bytes queued before a batch is sent though the turn is not over: what stays in a processor's cache."""

TURN: Final = 8
"""Batches sent in one turn; about four milliseconds, then other connections have theirs."""

_PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")


def _nowhere(what: object) -> None:
    """What stands for a transport that is gone."""


def _nothing() -> None:
    """See L{_nowhere}."""


class Connection:
    """
    One connection, from its first byte to its end.

    @ivar out: buffers to be sent.
    @ivar queued: how many bytes these are (estimated without digests and padding).
    @ivar corked: more may be queued before C{send}.
    @ivar held: SCSI commands, or those for some units, wait in the session: the peer does not read, this
        turn had its share, or devices have enough to read.
    @ivar paused: the peer has to read before it is sent anything more.
    @ivar backlog: bytes that wait for that.
    @ivar share: what devices may read for it.
    @ivar single: the longest Data-In that is one PDU without digests; 0 if there are digests.
    @ivar initiator: the initiator's name as it was given, once it proved to be a name.
    @ivar session: None until the login is complete.
    @ivar began: when, by the clock that C{tick} gets.
    """

    def __init__(
        self,
        node: Node,
        portal: Portal,
        peer: Peer,
        *,
        send: Callable[[list[Buffer]], None],
        close: Callable[[], None],
        stall: Callable[[bool], None],
        later: Callable[[], None],
        narrow: Callable[[bool], None] = _nowhere,
        now: float = 0.0,
    ) -> None:
        """
        @param send: sends these buffers, in order, without joining them.
        @param close: closes the connection once everything has been sent.
        @param stall: True to read no more from the peer, False to go on.
        @param later: calls L{proceed} in a later turn of the reactor.
        @param narrow: True to receive little at a time, False for as much as usual.
        """
        self.node = node
        self.portal = portal
        self.peer = peer
        self._send, self._close, self._stall, self._later = send, close, stall, later
        self.narrow = narrow
        self.share = Share()
        self.framer = Framer(self._deliver, self._spoilt)
        self.login: Login | None = Login(self)
        self.session: Session | None = None
        self.initiator = ""
        self.cid = 0
        self.statSN = 1
        self.out: list[Buffer] = []
        self.queued = 0
        self.corked = False
        self.held = False
        self.closing = False
        self.ended = False
        self.maxSegment = 8192
        self.single = 0
        self.headerDigest = False
        self.dataDigest = False
        self.text: fullfeature.Text | None = None
        self.began = now
        self.bytesIn = self.bytesOut = self.pdusIn = self.pdusOut = self.rejects = 0
        self._handlers = fullfeature.LOGIN_HANDLERS
        self.paused = False
        self.backlog = 0
        self._stalled = False
        self._turn = TURN
        self._rests = False
        self._cost = 0
        self._transferTag = 0
        self._vigil: Vigil | None = None
        node.came(self)

    # From the glue

    def receive(self, data: bytes) -> None:
        """Bytes from the peer.  Never raises."""
        self.bytesIn += len(data)
        if not self.closing:
            self._work(self.framer.feed, data)

    def wanted(self) -> memoryview | list[memoryview] | None:
        """Where to receive the next bytes instead, or None."""
        return self.framer.wanted()

    def filled(self, count: int) -> None:
        """So many bytes are in what L{wanted} returned.  Never raises."""
        self.bytesIn += count
        if not self.closing:
            self._work(self.framer.filled, count)

    def pause(self) -> None:
        """The peer does not read as fast as we send; a transport may say so again and again."""
        self.paused = self.held = True

    def resume(self) -> None:
        """All has been sent."""
        self.paused = False
        self._taken()
        self.proceed()
        if self.node.load.waiting:
            self.node.load.relieve()

    def proceed(self) -> None:
        """Begin the commands that had to wait, and go on with what was read and left."""
        if self.paused:
            return
        if self.session is None:
            self.held = self._rests = False
        elif not self.closing:
            self._work(self._begin, self.session)
        if self._stalled:
            self._unstall()

    def tick(self, now: float) -> None:
        """Time passes; called every few seconds."""
        if self._vigil is not None:
            self._vigil.tick(now)
        elif now - self.began > self.node.limits.loginTime and not self.closing:
            self.abandon(f"no login within {self.node.limits.loginTime:g} seconds")

    @property
    def stopped(self) -> bool:
        """Whether no command begins: the peer does not read, or this turn had its share."""
        return self.paused or self._rests

    def lost(self, reason: str) -> None:
        """The transport is gone; devices may still work for what came through it."""
        self._send = _nowhere
        self.out.clear()
        self.paused = False
        self._taken()
        self.node.connections -= 1
        if not self.ended:
            self._end()
            self.node.events.lost(self, reason)
        # Nothing that this holds leads back to it, so it goes at once and not when cycles are looked for.
        self._close = self._later = _nothing
        self._stall = self.narrow = _nowhere
        self.framer.end()
        self.login = self._vigil = None

    def abandon(self, reason: str) -> None:
        """Close because something is wrong: what was queued is still sent."""
        if not self.ended:
            self._end()
            self.node.events.lost(self, reason)
        self.finish()

    def dismiss(self) -> None:
        """Close a connection that has no session, of which has been told why."""
        self.ended = True
        self.finish()

    # For the handlers of PDUs

    def put(self, header: bytes, data: Buffer = b"") -> None:
        """Queue one PDU: its header, its data segment, and their digests."""
        out = self.out
        length = len(data)
        out.append(header + digest(header) if self.headerDigest else header)
        if length:
            padding = _PADDING[length & 3]
            out.append(data)
            if self.dataDigest:
                out.append(padding + digest(data, padding))
            elif padding:
                out.append(padding)
        self.pdusOut += 1
        self.queued += length + 48
        if self.queued >= BATCH:
            self.push()

    def push(self) -> None:
        """Send before the turn is over."""
        self.flush()
        # A device that has answered later has a turn of its own.
        if self.corked:
            self._spend(1)

    def costs(self, count: int) -> None:
        """Something took as long as so many bytes that are sent, and counts for the turn as they do."""
        self._cost += count
        batches, self._cost = divmod(self._cost, BATCH)
        if batches and self.corked:
            self._spend(batches)

    def _spend(self, batches: int) -> None:
        self._turn -= batches
        if self._turn <= 0 and not self._rests:
            self.held = self._rests = True
            self._later()

    def answered(self) -> None:
        """A device that took its time has ended an operation: send, and begin what waited for that."""
        self.flush()
        if self.share.full:
            self.share.refill(self)
        if self.node.load.waiting:
            self.node.load.relieve()

    def flush(self) -> None:
        """Send all that is queued."""
        out = self.out
        if not out:
            return
        self.out = []
        queued, self.queued = self.queued, 0
        self.bytesOut += queued
        self._send(out)
        if self.paused:
            self.backlog += queued
            if self.node.load.queue(queued) or self.backlog > self.node.limits.queued:
                self.rest()

    def _taken(self) -> None:
        """Nothing waits for the peer any more."""
        count, self.backlog = self.backlog, 0
        if count:
            self.node.load.taken(count)

    def rest(self) -> None:
        """Read no more, and leave what has been read, until L{proceed}."""
        if not self._stalled:
            self._stalled = self.framer.stopped = True
            self._stall(True)

    def breathe(self) -> None:
        """Leave what has been read for a later turn."""
        self.rest()
        self._later()

    def nextStatSN(self) -> int:
        """The StatSN for a response."""
        number = self.statSN
        self.statSN = (number + 1) & MASK
        return number

    def nextTransferTag(self) -> int:
        """A target transfer tag, never the reserved one."""
        self._transferTag = (self._transferTag + 1) % numbers.NO_TAG
        return self._transferTag

    def loggedIn(self, session: Session) -> None:
        """The login is complete: from the next PDU on, the full feature phase."""
        parameters = session.parameters
        self.session = session
        self._vigil = Vigil(self, session)
        self.login = None
        self.node.finished(self)
        self.maxSegment = parameters.maxSegment
        self.headerDigest = self.framer.headerDigest = parameters.headerDigest
        self.dataDigest = self.framer.dataDigest = parameters.dataDigest
        self.single = min(parameters.maxSegment, parameters.maxBurst)
        if self.headerDigest or self.dataDigest:
            self.single = 0
        self._handlers = fullfeature.DISCOVERY_HANDLERS if session.discovery else fullfeature.HANDLERS
        if self.node.load.pressed:
            self.narrow(True)
        if self.node.load.barred:
            self.share.bar(self)
        self.node.events.loggedIn(self)

    def finish(self) -> None:
        """Take no more PDUs, and close when all is sent."""
        self.node.finished(self)
        self.closing = self.framer.stopped = True
        if self.login is not None:
            self.login.abandon()
        self.flush()
        self._close()

    def loggedOut(self) -> None:
        """The initiator has said good-bye and been answered."""
        self._end()
        self.node.events.loggedOut(self)
        self.finish()

    def observe(self, observer: Callable[[list[Buffer]], None]) -> None:
        """Show what is sent to an observer."""
        send = self._send

        def both(buffers: list[Buffer]) -> None:
            observer(buffers)
            send(buffers)

        self._send = both

    # Inside

    def _work(self, what: Callable[..., None], argument: object) -> None:
        """Do a turn's work, then send once."""
        self.corked = True
        self._turn = TURN
        try:
            what(argument)
        except RemoteError as error:
            self.abandon(str(error))
        except Exception as error:
            self.node.events.surprise(error, "serving a PDU")
            self.abandon("internal error")
        self.corked = False
        if self.out:
            self.flush()
        if self.share.full:
            self.share.refill(self)

    def _deliver(self, chunk: Buffer, offset: int, ahs: Buffer, data: Buffer) -> None:
        """One PDU."""
        self.pdusIn += 1
        try:
            self._handlers[chunk[offset] & 0x3F](self, chunk, offset, ahs, data)
        except RejectError as error:
            notices.reject(self, error.reason, chunk, offset)
            if self.session is not None and self.session.early:
                # It had its number, so it may be the next one's turn.
                fullfeature.catchUp(self)

    def _spoilt(self, chunk: Buffer, offset: int) -> None:
        """A PDU whose data segment failed its digest (RFC 7143 7.8)."""
        self.pdusIn += 1
        notices.reject(self, numbers.REASON_DATA_DIGEST, chunk, offset)
        if chunk[offset] & 0x3F == numbers.DATA_OUT:
            fullfeature.spoiltDataOut(self, chunk, offset)

    def _unstall(self) -> None:
        """The peer reads again: go on with what it had sent, then read more."""
        self._stalled = False
        self.framer.stopped = self.closing
        self._work(self.framer.feed, b"")
        if not self._stalled:
            self._stall(False)

    def _begin(self, session: Session) -> None:
        self._rests = False
        self.held = bool(self.share.full)
        waiting = session.waiting
        while waiting and not self.held:
            waiting.popleft().start()
        if self.share.full:
            self.share.begin(self, waiting)
        if waiting:
            self.held = True

    def _end(self) -> None:
        """Whatever the reason: nothing more happens here."""
        self.node.finished(self)
        self.ended = self.closing = self.framer.stopped = True
        if self.login is not None:
            self.login.abandon()
        session = self.session
        if session is not None and session.connection is self:
            session.end()
        load = self.node.load
        load.waiting.pop(self, None)
        if load.waiting:
            load.relieve()
