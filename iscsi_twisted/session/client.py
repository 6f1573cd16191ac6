# -*- test-case-name: tests.session.test_client,tests.session.test_clientanswers -*-
"""
One iSCSI connection, the initiator's side: bytes in, bytes out, no I/O (RFC 7143).

Like the target's L{iscsi_twisted.session.connection}, it is fed, and calls back; what a target does wrong
ends the connection with an error that says what that was, and every command with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from iscsi_twisted.errors import HeaderDigestError, ISCSIError, LocalError, RemoteError, TextError
from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.session import asking, responses
from iscsi_twisted.session.answers import ConnectionEnded, Event
from iscsi_twisted.session.command import Command
from iscsi_twisted.session.gaps import Gaps
from iscsi_twisted.session.parameters import Parameters
from iscsi_twisted.session.request import MAX_RECEIVE, OPEN, Authentication, Negotiator, Wish
from iscsi_twisted.wire import layout, numbers
from iscsi_twisted.wire.digest import digest
from iscsi_twisted.wire.framer import Framer
from iscsi_twisted.wire.serial import MASK, distance

SEND: Final = 1 << 20
"""Bytes that are queued before they are sent, though more may come in the same turn."""

EARLY: Final = 12
"""
Buffers after which that is done, too: answers come in batches, and the target should be at work on new
commands before all of a batch have been looked at.  With 32 reads of 4 KiB outstanding on two cores, 8 to 16
gave 1.4 times the rate of sending once for each batch.
"""

DROPPED: Final = 1024
"""Aborted commands of which late PDUs are still known: more than a target has room for."""

_BEHIND: Final = 0x80000000
"""The bit of a difference of two serial numbers (L{distance}) that is set if it is negative."""
_PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")
_NO_TAG: Final = numbers.NO_TAG
_OPCODE: Final = numbers.OPCODE_MASK
_LAST_TAG: Final = 0x7FFFFFFF
_SCSI_COMMAND: Final = numbers.SCSI_COMMAND
_FINAL: Final = numbers.FINAL
_FINAL_READ: Final = numbers.FINAL | numbers.READ

_packCommand = layout.SCSI_COMMAND.pack


class Owner(Protocol):
    """Whom a connection tells."""

    def loggedIn(self, connection: ClientConnection) -> None:
        """The full feature phase has begun."""

    def told(self, event: Event) -> None:
        """An asynchronous message came."""

    def ended(self, error: ISCSIError) -> None:
        """The connection is over; all commands have been told before."""


class ClientConnection:
    """
    The initiator's end of one connection, which is its session too.

    @ivar parameters: what was agreed upon; C{maxSegment} is the longest data segment that the target takes.
    @ivar declared: what the target declared in the login, as C{TargetAlias}.
    @ivar tsih: the session's handle.
    @ivar commands: those that were sent and have not ended, by initiator task tag.
    @ivar dropped: initiator task tags of some that were aborted: a target may have sent something for them.
    @ivar gaps: numbers of statuses that the target leaves out.
    @ivar cmdSN: the number of the next command.
    @ivar waiting: those that the window has no room for yet.
    @ivar full: whether requests may be sent.
    @ivar leaving: whether a logout was asked for.
    @ivar clogged: 0 while the target reads what is sent; else 1, and 1 more for each of its pings since then.
    @ivar bytesIn: bytes received; C{bytesOut} sent.
    """

    def __init__(
        self,
        owner: Owner,
        wish: Wish,
        authentication: Authentication | None = None,
        *,
        send: Callable[[list[Buffer]], None],
        close: Callable[[], None],
    ) -> None:
        """
        @param send: called with the buffers of whole PDUs.
        @param close: ends the transport, when all is sent.
        """
        self.owner, self.wish, self._send, self._close = owner, wish, send, close
        self.negotiator: Negotiator | None = Negotiator(
            wish, OPEN if authentication is None else authentication
        )
        self.framer = Framer(self._deliver, self._spoilt, partial(responses.place, self))
        self.framer.maxSegment = MAX_RECEIVE
        self.parameters = Parameters()
        self.declared: dict[str, str] = {}
        self.tsih = 0
        self.commands: dict[int, Command] = {}
        self.dropped: dict[int, None] = {}
        self.waiting: deque[Command] = deque()
        self.bytesIn = self.bytesOut = 0
        self.error: ISCSIError | None = None
        self.full = False
        self.callbacks: dict[int, asking.Callback] = {}
        self.texts: dict[int, asking.Text] = {}
        self._out: list[Buffer] = []
        self._queued = 0
        self._corked = False
        self.cmdSN = 1
        self._maxCmdSN = 1
        self._handlers = responses.LOGIN
        self.expStatSN = 0
        self.gaps = Gaps()
        self._tag = 0
        self.leaving = False
        self.clogged = 0
        self.headerDigest = self.dataDigest = False
        self.loginText = bytearray()
        self.loginTag = 0

    def begin(self, handlers: dict[int, responses.Handler]) -> None:
        """The login is complete, and the full feature phase begins."""
        self._handlers = handlers
        self.full = True

    # From the glue

    def start(self) -> None:
        """The transport is there: begin the login."""
        assert self.negotiator is not None
        self.loginTag = self._nextTag()
        asking.sendLogin(self, self.negotiator.first())
        self.flush()

    def receive(self, data: bytes) -> None:
        """Bytes from the target.  Never raises."""
        self.bytesIn += len(data)
        self._work(self.framer.feed, data)

    def wanted(self) -> memoryview | list[memoryview] | None:
        """Where to receive the next bytes instead, or None."""
        return self.framer.wanted()

    def filled(self, count: int) -> None:
        """So many bytes are in what L{wanted} returned.  Never raises."""
        self.bytesIn += count
        self._work(self.framer.filled, count)

    def lost(self, reason: str) -> None:
        """The transport is gone."""
        self.end(ConnectionEnded(f"the connection was lost: {reason}"))

    def end(self, error: ISCSIError) -> None:
        """Nothing more happens here: every command is told why, then the owner."""
        if self.error is not None:
            return
        self.error = error
        self.full = False
        self.framer.stopped = True
        self._out.clear()
        self._close()
        commands = (*self.commands.values(), *self.waiting)
        self.commands.clear()
        self.waiting.clear()
        for command in commands:
            command.lost(error)
        callbacks = [*self.callbacks.values(), *(each.done for each in self.texts.values())]
        self.callbacks.clear()
        self.texts.clear()
        for done in callbacks:
            done(error)
        self.owner.ended(error)

    # Requests

    def execute(self, command: Command) -> None:
        """
        Send a command as soon as the window has room for it (RFC 7143 4.2.2.1).

        @raise LocalError: if there is no session, or no more.
        """
        if not self.full:
            self.usable()
        if self.waiting or self._maxCmdSN - self.cmdSN & _BEHIND:
            self.waiting.append(command)
            return
        self._issue(command)
        if not self._corked:
            self.flush()

    def forget(self, command: Command) -> bool:
        """
        Take back a command that has not been sent.

        @return: whether it was so; else it is to be aborted.
        """
        if command not in self.waiting:
            return False
        self.waiting.remove(command)
        return True

    def release(self, command: Command) -> None:
        """What comes for a command from now on is not for the caller's buffer."""
        command.into = None
        self.framer.divert()

    def drop(self, command: Command) -> None:
        """The target has aborted a command: nothing more is told of it, though some targets still send it."""
        if self.commands.pop(command.itt, None) is not None:
            self.dropped[command.itt] = None
            if len(self.dropped) > DROPPED:
                del self.dropped[next(iter(self.dropped))]

    # Sending

    def flush(self) -> None:
        """Send what is queued."""
        if self._out:
            out, self._out = self._out, []
            self.bytesOut += self._queued
            self._queued = 0
            self._send(out)

    def pushed(self) -> None:
        """What is queued need not wait for more, unless more is being received."""
        if not self._corked:
            self.flush()

    def put(self, header: bytes, data: Buffer = b"") -> None:
        """Queue one PDU; the length of the data segment is filled in."""
        out, length = self._out, len(data)
        if length:
            header = header[:4] + length.to_bytes(4, "big") + header[8:]
        out.append(header + digest(header) if self.headerDigest else header)
        if length:
            padding = _PADDING[length & 3]
            out.append(data)
            if self.dataDigest:
                out.append(padding + digest(data, padding))
            elif padding:
                out.append(padding)
        self._queued += length + 48
        if self._queued >= SEND or len(out) >= EARLY:
            self.flush()

    def _issue(self, command: Command) -> None:
        """Send a command, and what of its data need not be asked for (RFC 7143 4.2.5.2)."""
        data = command.data
        tag = self._tag + 1
        if tag > _LAST_TAG or tag in self.commands:
            tag = self._nextTag()
        command.itt = self._tag = tag
        command.cmdSN = cmdSN = self.cmdSN
        self.cmdSN = (cmdSN + 1) & MASK
        self.commands[tag] = command
        length = len(data)
        if not length and not self.headerDigest:
            # As below, for what has no data segment.
            expected = command.expected
            out = self._out
            out.append(
                _packCommand(
                    _SCSI_COMMAND, (_FINAL_READ if expected else _FINAL) | command.attribute, 0,
                    command.lunField, tag, expected, cmdSN, self.expStatSN, command.cdb,
                )
            )  # fmt: skip
            self._queued += 48
            if len(out) >= EARLY:
                self.flush()
            return
        parameters = self.parameters
        immediate = unsolicited = 0
        flags = numbers.FINAL | command.flags
        if length:
            first = min(length, parameters.firstBurst)
            if parameters.immediateData:
                immediate = min(first, parameters.maxSegment)
            if not parameters.initialR2T and immediate < first:
                unsolicited = first
                flags &= ~numbers.FINAL
            command.due = length - (unsolicited or immediate)
        header = layout.SCSI_COMMAND.pack(
            numbers.SCSI_COMMAND, flags, 0, command.lunField, tag, command.expected or length, cmdSN,
            self.expStatSN, command.cdb,
        )  # fmt: skip
        view = memoryview(data) if immediate < length else data
        self.put(header, view[:immediate] if immediate < length else data)
        if unsolicited:
            self.dataOut(command, _NO_TAG, immediate, unsolicited)

    def dataOut(self, command: Command, ttt: int, offset: int, end: int) -> None:
        """A sequence of Data-Out PDUs (RFC 7143 11.7)."""
        view = memoryview(command.data)
        step = self.parameters.maxSegment
        for number, place in enumerate(range(offset, end, step)):
            behind = min(place + step, end)
            header = layout.DATA_OUT.pack(
                numbers.DATA_OUT, numbers.FINAL if behind == end else 0, 0, command.lunField, command.itt,
                ttt, self.expStatSN, number, place,
            )  # fmt: skip
            self.put(header, view[place:behind])

    # Receiving

    def _work(self, function: Callable[[Any], None], argument: Any) -> None:
        if self.error is not None:
            return
        self._corked = True
        try:
            function(argument)
        except (RemoteError, TextError, HeaderDigestError) as error:
            self.end(error)
        finally:
            self._corked = False
        if self.error is None:
            self.flush()

    def _deliver(self, chunk: Buffer, offset: int, ahs: Buffer, data: Buffer) -> None:
        # Once the connection has ended, the framer delivers nothing more.
        handler = self._handlers.get(chunk[offset] & _OPCODE)
        if handler is None:
            raise RemoteError(f"a PDU with opcode {chunk[offset] & _OPCODE:02x}h, which has no place here")
        handler(self, chunk, offset, data)

    def _spoilt(self, chunk: Buffer, offset: int) -> None:
        """At recovery level 0 nothing can be asked for again (RFC 7143 7.8)."""
        raise RemoteError("a data segment does not match its digest")

    def numbered(self, statSN: int, expCmdSN: int, maxCmdSN: int, counts: bool = True) -> None:
        """
        Take the numbers of a PDU (RFC 7143 4.2.2).

        @param counts: whether it has a StatSN of its own.
        """
        if (statSN == self.expStatSN or self.gaps.skip(self.expStatSN, statSN)) and counts:
            self.expStatSN = (statSN + 1) & MASK
        self.window(expCmdSN, maxCmdSN)

    def late(self, statSN: int, expCmdSN: int, maxCmdSN: int) -> None:
        """Take the numbers of a status of an aborted task, which others may have overtaken."""
        if distance(self.expStatSN, statSN) >= 0:
            self.numbered(statSN, expCmdSN, maxCmdSN)
        else:
            self.window(expCmdSN, maxCmdSN)

    def window(self, expCmdSN: int, maxCmdSN: int) -> None:
        """Take the ends of the command window; mostly they are where they were."""
        if maxCmdSN == self._maxCmdSN or maxCmdSN - self._maxCmdSN & _BEHIND:
            return
        if maxCmdSN - expCmdSN + 1 & _BEHIND:
            # No window at all (RFC 7143 4.2.2.1).
            return
        self._maxCmdSN = maxCmdSN
        while self.waiting and not self.leaving and distance(self.cmdSN, maxCmdSN) >= 0:
            self._issue(self.waiting.popleft())

    def begins(self, done: asking.Callback | None) -> int:
        """
        A tag for a request other than a SCSI command.

        @param done: called with its answer; None if it is kept elsewhere.
        @raise LocalError: if there is no session, or no more.
        """
        self.usable()
        tag = self._nextTag()
        if done is not None:
            self.callbacks[tag] = done
        return tag

    def usable(self) -> None:
        """@raise LocalError: if there is no session, or no more."""
        if self.error is not None or not self.full:
            why = "we are logging out" if self.leaving else "the login is not complete"
            raise LocalError(f"there is no session: {self.error or why}")

    def _nextTag(self) -> int:
        self._tag = tag = self._tag + 1 & _LAST_TAG
        while tag in self.commands:
            self._tag = tag = self._tag + 1 & _LAST_TAG
        return tag
