# -*- test-case-name: tests.session.test_task -*-
"""A SCSI task in a session: from the command PDU to its response (RFC 7143 11.3, 11.4, 11.7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from iscsi_twisted.interfaces import Buffer, ILogicalUnit, INexus, ITask
from iscsi_twisted.session import datain
from iscsi_twisted.session.dataout import DataOut
from iscsi_twisted.wire import layout, numbers
from iscsi_twisted.wire.serial import MASK

if TYPE_CHECKING:
    from iscsi_twisted.session.connection import Connection
    from iscsi_twisted.session.session import Session

_packDataIn = layout.DATA_IN.pack
_packResponse = layout.SCSI_RESPONSE.pack
_DATA_IN = numbers.DATA_IN
_SCSI_RESPONSE = numbers.SCSI_RESPONSE
_FINAL = numbers.FINAL
_GOOD_AND_FINAL = numbers.FINAL | numbers.STATUS
_NO_TAG = numbers.NO_TAG
_READ = numbers.READ
_DIRECTION = numbers.READ | numbers.WRITE
_TASK_ABORTED = 0x40
"""SCSI status; SAM-5 5.3.1."""


@implementer(ITask)
class Task:
    """
    See L{ITask}.

    @ivar itt: initiator task tag.
    @ivar flags: the second byte of the command PDU.
    @ivar expected: the expected data transfer length of the PDU, in bytes.
    @ivar immediate: the command was outside the CmdSN window.
    @ivar data: the initiator's data where all of it came with the command.
    @ivar dataOut: what has come of the initiator's data where not.
    @ivar wanted: bytes of Data-Out that the unit asked for (the initiator may have less, or more).
    @ivar done: the unit has ended it.
    """

    __slots__ = (
        "aborted",
        "cdb",
        "connection",
        "data",
        "dataOut",
        "done",
        "expected",
        "flags",
        "immediate",
        "itt",
        "lun",
        "lunField",
        "nexus",
        "operation",
        "session",
        "unit",
        "wanted",
    )

    def __init__(
        self,
        connection: Connection,
        session: Session,
        immediate: bool,
        flags: int,
        lunField: bytes,
        itt: int,
        expected: int,
        cdb: bytes,
        lun: int,
        unit: ILogicalUnit,
    ) -> None:
        self.connection = connection
        self.session = session
        self.nexus: INexus = session.nexus  # type: ignore[assignment]
        self.immediate = immediate
        self.flags = flags
        self.lunField = lunField
        self.itt = itt
        self.expected = expected
        self.cdb = cdb
        self.lun = lun
        self.unit = unit
        self.aborted = False
        self.done = False
        self.operation: Any = None
        self.data: Buffer = b""
        self.dataOut: DataOut | None = None
        self.wanted = 0

    @property
    def attribute(self) -> int:
        """Task attribute (RFC 7143 11.3.1)."""
        return self.flags & numbers.ATTRIBUTE_MASK

    def start(self) -> None:
        """Let the unit begin."""
        try:
            self.unit.execute(self)
        except Exception as error:
            self.unit.failed(self, error)
        if not self.done and self.flags & _READ:
            connection = self.connection
            connection.share.pends(connection, self.expected)

    def complete(self, data: Buffer = b"") -> None:
        """End with GOOD status and this Data-In."""
        connection = self.connection
        length = len(data)
        if (
            length != self.expected
            or not 0 < length <= connection.single
            or length & 3
            or self.flags & _DIRECTION != _READ
            or self.aborted
            or self.immediate
        ):
            if length or self.wanted != self.expected or self.aborted or self.immediate:
                self._end(0, data, b"")
            else:
                self._good()
            return
        # The ordinary read: one Data-In that carries all the data and the status.
        session = self.session
        self.done = True
        del session.tasks[self.itt]
        session.maxCmdSN = maxCmdSN = (session.maxCmdSN + 1) & MASK
        statSN = connection.statSN
        connection.statSN = (statSN + 1) & MASK
        header = _packDataIn(
            _DATA_IN,
            _GOOD_AND_FINAL,
            0,
            length,
            self.lunField,
            self.itt,
            _NO_TAG,
            statSN,
            session.expCmdSN,
            maxCmdSN,
            0,
            0,
            0,
        )
        connection.out += (header, data)
        connection.pdusOut += 1
        connection.queued += length + 48
        if not connection.corked:
            connection.answered()
        elif connection.queued > 0xFFFFF:
            connection.push()

    def _good(self) -> None:
        """The ordinary end of a write, and of whatever moves no data: GOOD, and nothing else to say."""
        if self.done:
            return
        self.done = True
        connection, session = self.connection, self.session
        del session.tasks[self.itt]
        session.maxCmdSN = maxCmdSN = (session.maxCmdSN + 1) & MASK
        statSN = connection.statSN
        connection.statSN = (statSN + 1) & MASK
        header = _packResponse(
            _SCSI_RESPONSE, _FINAL, 0, 0, 0, self.itt, 0, statSN, session.expCmdSN, maxCmdSN, 0, 0, 0
        )
        connection.put(header)
        dataOut = self.dataOut
        if dataOut is not None:
            # It knows its task: let go, so that both are freed now.
            self.dataOut = None
            dataOut.give()
        if not connection.corked:
            connection.answered()

    def fail(self, status: int, sense: bytes = b"") -> None:
        """End with another status, and sense data for CHECK CONDITION."""
        self._end(status, b"", sense)

    def receive(self, length: int, then: Callable[..., None], *arguments: Any) -> bool:
        """Fetch the Data-Out; see L{ITask.receive}."""
        dataOut = self.dataOut
        if dataOut is None:
            if length == self.expected == len(self.data):
                self.wanted = length
                then(self, self.data, *arguments)
                return False
            dataOut = self.dataOut = DataOut(self, self.data)
        return dataOut.want(length, then, arguments)

    def _end(self, status: int, data: Buffer, sense: bytes) -> None:
        """Every way to end but the ordinary read."""
        if self.done:
            return
        self.done = True
        dataOut = self.dataOut
        if dataOut is None or self.aborted or not dataOut.drain(status, data, sense):
            self.conclude(status, data, sense)

    def conclude(self, status: int, data: Buffer, sense: bytes) -> None:
        """Answer, and leave the session."""
        dataOut = self.dataOut
        if not self.immediate:
            self.session.release()
        else:
            self.session.immediates -= 1
        if not self.aborted:
            del self.session.tasks[self.itt]
            if status:
                self.session.errors += 1
            datain.respond(self, status, data, sense)
        if dataOut is not None:
            self.dataOut = None
            dataOut.give()
        if not self.connection.corked:
            self.connection.answered()

    def abort(self, tell: bool = False) -> None:
        """
        Send nothing more for this task.

        If its device is still at work, its place in the window is given back when that ends.

        @param tell: but one thing: that it was aborted.
        """
        draining = self.dataOut is not None and self.dataOut.draining
        if self.aborted or (self.done and not draining):
            return
        if tell:
            datain.respond(self, _TASK_ABORTED, b"", b"")
        self.aborted = True
        session = self.session
        session.aborts += 1
        session.tasks.pop(self.itt, None)
        if self in session.waiting:
            session.waiting.remove(self)
        if draining:
            self.conclude(0, b"", b"")
            return
        self.unit.abort(self)
        if self.operation is None:
            self._end(0, b"", b"")
        elif tell and not self.connection.corked:
            self.connection.answered()
