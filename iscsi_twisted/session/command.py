# -*- test-case-name: tests.session.test_client -*-
"""A SCSI command as the initiator sees it, from its CDB to its outcome (RFC 7143 4.2, 11.3 to 11.8)."""

from __future__ import annotations

from typing import Final, NamedTuple

from iscsi_twisted.errors import ISCSIError, LocalError, RemoteError
from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.wire import numbers

SIMPLE: Final = 1
"""Task attribute; RFC 7143 11.3.1."""


class Outcome(NamedTuple):
    """
    How a command ended.

    @ivar status: SCSI status (SAM-5 5.3.1).
    @ivar sense: sense data; empty if there are none.
    @ivar data: the Data-In that came; empty where the caller gave a buffer for them.
    @ivar received: bytes of Data-In.
    @ivar residual: bytes by which the transfer was shorter than the initiator expected (RFC 7143 11.4.5);
        negative for what did not fit into that.
    """

    status: int
    sense: Buffer
    data: Buffer
    received: int
    residual: int


class Command:
    """
    One command; whoever sends it says in a subclass what becomes of its outcome.

    One of L{ended}, L{failed} and L{lost} is called, once.

    @ivar cdb: 6 to 16 bytes.
    @ivar lunField: the logical unit number, as eight bytes.
    @ivar expected: bytes of Data-In that there is room for.
    @ivar data: the Data-Out; they must not change until the command has ended.
    @ivar into: where the Data-In go; if None, memory is made for them.
    @ivar due: bytes of the Data-Out that the target may still ask for, once it was sent.
    @ivar itt: its initiator task tag, once it was sent.
    """

    __slots__ = (
        "_dataSN",
        "_placed",
        "_whole",
        "attribute",
        "cdb",
        "cmdSN",
        "data",
        "due",
        "expected",
        "into",
        "itt",
        "lunField",
        "r2tSN",
        "received",
    )

    def __init__(
        self,
        lunField: bytes,
        cdb: bytes,
        expected: int = 0,
        data: Buffer = b"",
        into: bytearray | memoryview | None = None,
        attribute: int = SIMPLE,
    ) -> None:
        """
        @raise LocalError: for a CDB of another length, data in both directions, or too small a buffer.
        """
        if not 6 <= len(cdb) <= 16:
            raise LocalError(f"a CDB of {len(cdb)} bytes: 6 to 16 are supported")
        if expected and len(data):
            raise LocalError("a command has Data-In or Data-Out, not both")
        self.lunField = lunField
        self.cdb = cdb
        self.expected = expected
        self.data = data
        self.into: memoryview | None = None
        if into is not None:
            if len(into) < expected:
                raise LocalError(f"a buffer of {len(into)} bytes for {expected} bytes of Data-In")
            self.into = memoryview(into).cast("B")
        self.attribute = attribute
        self.itt = self.cmdSN = -1
        self.received = self.r2tSN = self.due = self._dataSN = 0
        self._whole: Buffer | None = None
        self._placed: memoryview | None = None

    def restart(self) -> None:
        """Forget what has come, to be sent again."""
        if self.into is self._whole:
            self.into = None
        self.itt = self.cmdSN = -1
        self.received = self.r2tSN = self._dataSN = 0
        self._whole = self._placed = None

    @property
    def flags(self) -> int:
        """Direction and attribute, as in the second byte of the PDU."""
        if self.expected:
            return numbers.READ | self.attribute
        return numbers.WRITE | self.attribute if len(self.data) else self.attribute

    def room(self, dataSN: int, offset: int, length: int) -> memoryview | None:
        """
        Where so many bytes of Data-In are to be received.

        @return: None if they are not due, or all come at once, so that their own buffer will do.
        """
        if dataSN != self._dataSN or offset != self.received or offset + length > self.expected:
            return None
        if self.into is None:
            if length == self.expected:
                return None
            self.into = self._whole = memoryview(bytearray(self.expected))
        self._placed = self.into[offset : offset + length]
        return self._placed

    def dataIn(self, dataSN: int, offset: int, data: Buffer) -> None:
        """
        Data-In came (RFC 7143 11.7).

        @raise RemoteError: if they are out of order, or more than was asked for.
        """
        length = len(data)
        if dataSN != self._dataSN:
            raise RemoteError(f"Data-In with DataSN {dataSN} where {self._dataSN} is due")
        if offset != self.received or offset + length > self.expected:
            raise RemoteError(
                f"{length} bytes of Data-In at offset {offset}: {self.received} of {self.expected} have come"
            )
        self._dataSN = dataSN + 1
        if length == self.expected and self.into is None:
            # All at once: nobody copies.
            self._whole = data
        elif length and data is not self._placed:
            if self.into is None:
                self.into = memoryview(bytearray(self.expected))
                self._whole = self.into
            self.into[offset : offset + length] = data
        self.received += length

    def whole(self) -> Buffer:
        """The Data-In that came; empty where the caller gave a buffer for them."""
        data = self._whole
        if data is None:
            return b""
        return data if self.received == len(data) else data[: self.received]

    def outcome(self, status: int, sense: Buffer, residual: int) -> Outcome:
        """All that is known of how it ended."""
        return Outcome(status, sense, self.whole(), self.received, residual)

    # What the connection calls

    def ended(self, status: int, sense: Buffer, residual: int) -> None:
        """The target has answered it; see L{Outcome}."""
        raise NotImplementedError

    def failed(self, error: ISCSIError) -> None:
        """The target has refused it."""
        raise NotImplementedError

    def lost(self, error: ISCSIError) -> None:
        """The connection has ended before it was answered, or before it was sent."""
        raise NotImplementedError
