# -*- test-case-name: tests.session.test_dataout -*-
"""The initiator's data: immediate, unsolicited and solicited (RFC 7143 4.2.5.2, 11.7, 11.8)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.wire import layout, numbers

if TYPE_CHECKING:
    from iscsi_twisted.session.task import Task

CRUMB: Final = 512
"""A Data-Out with fewer bytes costs a Python object that is larger than they are ..."""

CRUMBS: Final = 256
"""... so after this many of them they are joined."""


MOVED: Final = 4096
"""Bytes that must come for a task to be said to go on; a byte now and then does not hold a reservation."""


class Burst:
    """
    A sequence of Data-Out PDUs that is still to come.

    @ivar tag: its target transfer tag; the reserved one for unsolicited data.
    @ivar end: the buffer offset at which it ends.
    @ivar dataSN: of the next PDU in it.
    """

    __slots__ = ("dataSN", "end", "tag")

    def __init__(self, tag: int, end: int) -> None:
        self.tag = tag
        self.end = end
        self.dataSN = 0


class DataOut:
    """Collects the data of one task, in order, and asks for what does not come by itself."""

    __slots__ = (
        "_arguments",
        "_asked",
        "_bursts",
        "_crumbs",
        "_ending",
        "_fault",
        "_noted",
        "_pieces",
        "_queued",
        "_r2tSN",
        "_received",
        "_reserved",
        "_target",
        "_task",
        "_then",
        "_waited",
    )

    def __init__(self, task: Task, immediate: Buffer) -> None:
        self._task = task
        self._pieces: list[Buffer] = [immediate] if immediate else []
        self._received = len(immediate)
        self._asked = self._received
        self._bursts: deque[Burst] = deque()
        self._fault: int | None = None
        self._crumbs = 0
        self._r2tSN = 0
        self._reserved = 0
        self._queued = False
        self._target = 0
        self._then: Callable[..., None] | None = None
        self._arguments: tuple[Any, ...] = ()
        self._ending: tuple[int, Buffer, bytes] | None = None
        self._noted = -MOVED
        self._waited = 0.0

    def expectUnsolicited(self, limit: int) -> None:
        """Unsolicited Data-Out follow the command, up to this buffer offset."""
        self._bursts.append(Burst(numbers.NO_TAG, limit))

    def want(self, length: int, then: Callable[..., None], arguments: tuple[Any, ...]) -> bool:
        """See L{iscsi_twisted.interfaces.ITask.receive}."""
        task = self._task
        task.wanted = length
        self._target = min(length, task.expected) if task.flags & numbers.WRITE else 0
        if self._received == self._target and not self._bursts and self._fault is None:
            # All of it came with the command.
            pieces = self._pieces
            then(task, pieces[0] if pieces else b"", *arguments)
            return False
        self._then, self._arguments = then, arguments
        if not self._bursts:
            self._solicit()
        return self._then is not None

    @property
    def expecting(self) -> bool:
        """Whether the task waits for data that the initiator is to send now."""
        return bool(self._bursts) and (self._then is not None or self._ending is not None)

    @property
    def draining(self) -> bool:
        """Whether the task has ended and its answer waits for data."""
        return self._ending is not None

    def drain(self, status: int, data: Buffer, sense: bytes) -> bool:
        """
        The task ends; while the initiator is to send data, the answer waits for the last of them
        (RFC 7143 11.4.2), which are dropped.

        @return: whether it waits.
        """
        if not self._bursts:
            return False
        self._ending = status, data, sense
        self._fault = self._fault or numbers.INCORRECT_AMOUNT_OF_DATA
        self._pieces.clear()
        return True

    def _conclude(self) -> None:
        ending, self._ending = self._ending, None
        assert ending is not None
        self._task.conclude(*ending)

    def waited(self, passed: float) -> float:
        """
        Seconds for which hardly anything has come; 0 if something has.

        @param passed: how long it is since this was last asked.
        """
        if self._received - self._noted >= MOVED:
            self._noted = self._received
            self._waited = 0.0
        else:
            self._waited += passed
        return self._waited

    def expire(self) -> None:
        """The initiator has had time enough: end the task, and drop what may still come."""
        self._bursts.clear()
        if self._ending is not None:
            self._conclude()
        else:
            self.refuse(numbers.INITIATOR_RESPONSE_TIMEOUT)

    def refuse(self, code: int) -> None:
        """End the task with this iSCSI condition, before anything was asked for."""
        self._fault = code
        self._deliver()

    def data(self, ttt: int, flags: int, dataSN: int, offset: int, data: Buffer) -> None:
        """A Data-Out PDU for this task."""
        burst = next((b for b in self._bursts if b.tag == ttt), None)
        if burst is None:
            # Not a sequence that is open.  An initiator that is right never sends this; drop it.
            return
        if burst is not self._bursts[0] or dataSN != burst.dataSN or offset != self._received:
            # A PDU is missing or out of order (RFC 7143 7.9); data in order were negotiated.
            self._fault = self._fault or numbers.PROTOCOL_SERVICE_CRC_ERROR
        elif offset + len(data) > burst.end:
            self._fault = self._fault or numbers.INCORRECT_AMOUNT_OF_DATA
        burst.dataSN = dataSN + 1
        if self._fault is None and data:
            self._pieces.append(data)
            self._received += len(data)
            if len(data) < CRUMB:
                self._sweep()
        if flags & numbers.FINAL:
            self._finished(burst)

    def _sweep(self) -> None:
        self._crumbs += 1
        if self._crumbs == CRUMBS:
            self._crumbs = 0
            self._pieces[-CRUMBS:] = [b"".join(self._pieces[-CRUMBS:])]

    def spoilt(self, ttt: int, flags: int, dataSN: int) -> None:
        """A Data-Out PDU for this task failed its data digest (RFC 7143 7.8)."""
        self._fault = numbers.PROTOCOL_SERVICE_CRC_ERROR
        self._pieces.clear()
        self.data(ttt, flags, dataSN, 0, b"")

    def _finished(self, burst: Burst) -> None:
        """The last PDU of a sequence has come."""
        self._bursts.remove(burst)
        if burst.tag == numbers.NO_TAG:
            self._asked = self._received
        elif self._received != burst.end:
            self._fault = self._fault or numbers.INCORRECT_AMOUNT_OF_DATA
        if self._ending is not None:
            if not self._bursts:
                self._conclude()
        elif self._then is not None and (self._fault is not None or self._received >= self._target):
            if not self._bursts:
                self._deliver()
        elif not self._task.aborted and self._then is not None:
            self._solicit()

    def _solicit(self) -> None:
        """Ask for what is missing, as soon as there is room for it."""
        if self._fault is not None or self._received >= self._target:
            self._deliver()
            return
        if not self._reserved:
            count = self._target - self._received
            self._queued = True
            if not self._task.session.share(self._task.unit).take(count, self._reservedLater):
                return
            self._queued = False
            self._reserved = count
        self._ask()

    def _reservedLater(self) -> None:
        self._queued = False
        self._reserved = self._target - self._received
        self._ask()
        if not self._task.connection.corked:
            self._task.connection.flush()

    def _ask(self) -> None:
        """Send as many R2Ts as may be outstanding (RFC 7143 11.8)."""
        task = self._task
        connection, session = task.connection, task.session
        parameters = session.parameters
        while self._asked < self._target and len(self._bursts) < parameters.maxOutstandingR2T:
            length = min(parameters.maxBurst, self._target - self._asked)
            tag = connection.nextTransferTag()
            header = layout.R2T.pack(
                numbers.R2T, numbers.FINAL, 0, task.lunField, task.itt, tag, connection.statSN,
                session.expCmdSN, session.maxCmdSN, self._r2tSN, self._asked, length,
            )  # fmt: skip
            connection.put(header)
            self._r2tSN += 1
            self._asked += length
            self._bursts.append(Burst(tag, self._asked))

    def _deliver(self) -> None:
        """All is there, or something went wrong with it: over to the unit."""
        task, then, arguments = self._task, self._then, self._arguments
        self._then = None
        pieces, self._pieces = self._pieces, []
        try:
            if self._fault is not None:
                raise CheckCondition(numbers.ABORTED_COMMAND, self._fault)
            assert then is not None
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if len(data) > self._target:
                data = memoryview(data)[: self._target]
            then(task, data, *arguments)
        except Exception as error:
            task.unit.failed(task, error)

    def give(self) -> None:
        """The task has ended: return what it had reserved."""
        self._pieces.clear()
        self._ending = None
        self._then = None
        reserved, self._reserved = self._reserved, 0
        if reserved:
            self._task.session.share(self._task.unit).give(reserved)
        elif self._queued:
            self._queued = False
            self._task.session.share(self._task.unit).forget(self._reservedLater)
