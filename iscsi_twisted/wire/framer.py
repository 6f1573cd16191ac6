# -*- test-case-name: tests.wire.test_framer -*-
"""
The framer: a stream of bytes becomes PDUs (RFC 7143 11.2).

Small PDUs are taken straight out of what was received; a large one that is not complete yet gets
a buffer of its own, which the transport may fill directly (L{Framer.wanted}).  Whoever takes the PDUs may
have the data segment of such a one put where it belongs at once.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from iscsi_twisted.errors import FramingError, HeaderDigestError
from iscsi_twisted.wire.digest import crc32c

Buffer = bytes | bytearray | memoryview

LOGIN_SEGMENT: Final = 8192
"""The longest data segment before anything else was declared (RFC 7143 13.12)."""

COPIED: Final = 16384
"""
Up to this many bytes a data segment is copied out of the chunk that it came in.  Of a longer one copying
costs more than a view does.
"""

KEPT_ALIVE: Final = 16
"""A view may keep alive a chunk of so many times its own size: a slow device holds many views for long."""

FILLED: Final = 8192
"""An incomplete PDU of at least this many bytes gets a buffer of its own."""

TAIL: Final = 4096
"""Bytes behind a data segment that was given a place: the next header comes with the end of the segment."""

_lengths = struct.Struct(">I").unpack_from
_digest = struct.Struct("<I").unpack_from


class Framer:
    """
    Cuts a stream into PDUs.

    @ivar maxSegment: the longest data segment accepted, in bytes; what this side declared as its
        MaxRecvDataSegmentLength.
    @ivar headerDigest: headers are followed by a CRC32C.
    @ivar dataDigest: data segments are followed by a CRC32C.
    @ivar stopped: set by whoever takes the PDUs, to have no more of them.  Bytes that come are kept;
        once this is unset again, L{feed} goes on with them, even if it is given nothing.
    """

    __slots__ = (
        "_deliver",
        "_fill",
        "_filled",
        "_head",
        "_left",
        "_place",
        "_spoilt",
        "_tail",
        "dataDigest",
        "headerDigest",
        "maxSegment",
        "stopped",
    )

    def __init__(
        self,
        deliver: Callable[[Buffer, int, Buffer, Buffer], None],
        spoilt: Callable[[Buffer, int], None],
        place: Callable[[Buffer, int, int], memoryview | None] | None = None,
    ) -> None:
        """
        @param deliver: called with the buffer and the offset of the header in it, the additional header
            segments and the data segment (without padding) for each PDU.
        @param spoilt: called with the buffer and the offset of the header of a PDU whose data segment
            does not match its digest.
        @param place: called with the buffer and the offset of the header of a PDU that is not complete, and
            the length of its data segment: where that is to be received, or None.  The same view is
            delivered as its data then; until then it may be told to L{divert} what is still to come.
        """
        self._deliver = deliver
        self._spoilt = spoilt
        self._place = place
        self._tail = memoryview(bytearray(TAIL if place is not None else 0))
        self._head = b""
        self._left = b""
        self._fill: bytearray | memoryview | None = None
        self._filled = 0
        self.maxSegment = LOGIN_SEGMENT
        self.headerDigest = False
        self.dataDigest = False
        self.stopped = False

    def feed(self, chunk: bytes) -> None:
        """
        Take bytes from the stream.

        @raise FramingError: if they cannot be the next PDU.
        @raise HeaderDigestError: if a header does not match its digest.
        """
        if self._fill is not None:
            chunk = self._pour(chunk)
        if self._left:
            chunk = self._left + chunk
            self._left = b""
        offset, end = 0, len(chunk)
        while end - offset >= 48 and not self.stopped:
            if not self.headerDigest:
                lengths = _lengths(chunk, offset + 4)[0]
                if not lengths:
                    self._deliver(chunk, offset, b"", b"")
                    offset += 48
                    continue
                start = offset + 48
                behind = start + (lengths + 3 & ~3)
                if lengths <= self.maxSegment and behind <= end and not self.dataDigest:
                    # Neither digests nor additional header segments: the ordinary PDU with data.
                    self._deliver(chunk, offset, b"", self._segment(chunk, start, lengths))
                    offset = behind
                    continue
            size = self._measure(chunk, offset, end)
            if size > end - offset:
                self._keep(chunk, offset, size)
                return
            self._take(chunk, offset)
            offset += size
        if offset < end:
            self._left = chunk[offset:]

    def end(self) -> None:
        """No more PDUs are wanted: let go of whoever took them, and of what is left."""
        self.stopped = True
        self._deliver = self._spoilt = _ignored
        self._left = b""
        self._fill = None

    def observe(self, observer: Callable[[Buffer, int, Buffer, Buffer], None]) -> None:
        """Show every PDU to an observer before it is delivered."""
        deliver = self._deliver

        def both(chunk: Buffer, offset: int, ahs: Buffer, data: Buffer) -> None:
            observer(chunk, offset, ahs, data)
            deliver(chunk, offset, ahs, data)

        self._deliver = both

    def wanted(self) -> memoryview | list[memoryview] | None:
        """Where the next bytes of the stream may be received directly; None to use L{feed}."""
        if self._fill is None or self.stopped:
            return None
        rest = memoryview(self._fill)[self._filled :]
        return [rest, self._tail] if self._head else rest

    def filled(self, count: int) -> None:
        """So many bytes were received into what L{wanted} returned.  Raises what L{feed} raises."""
        self._filled += count
        fill = self._fill
        if fill is None or self.stopped or self._filled < len(fill):
            return
        self._fill = None
        head, self._head = self._head, b""
        if head:
            words = head[4]
            self._deliver(head, 0, head[48 : 48 + words * 4] if words else b"", fill)
        else:
            self._take(fill, 0)
        behind = self._filled - len(fill)
        if behind:
            self.feed(bytes(self._tail[:behind]))

    def divert(self) -> None:
        """A data segment that was given a place loses it: what has come and what comes is as of any other."""
        if self._head and self._fill is not None:
            self._fill = memoryview(bytearray(self._fill))

    def _measure(self, chunk: bytes, offset: int, end: int) -> int:
        """The size of the PDU on the wire, in bytes; of its header alone while that is incomplete."""
        lengths = _lengths(chunk, offset + 4)[0]
        segment = lengths & 0xFFFFFF
        if segment > self.maxSegment:
            raise FramingError(
                f"a data segment of {segment} bytes, where at most {self.maxSegment} were declared"
            )
        size: int = 48 + (lengths >> 24) * 4
        if self.headerDigest:
            if end - offset < size + 4:
                return size + 4
            # Before its lengths are trusted any further.
            if crc32c(memoryview(chunk)[offset : offset + size]) != _digest(chunk, offset + size)[0]:
                raise HeaderDigestError("a header does not match its digest")
            size += 4
        if segment:
            size += (segment + 3) & ~3
            if self.dataDigest:
                size += 4
        return size

    def _take(self, chunk: Buffer, offset: int) -> None:
        """Deliver the complete PDU at this offset."""
        lengths = _lengths(chunk, offset + 4)[0]
        start = offset + 48
        ahs: Buffer = b""
        if lengths > 0xFFFFFF:
            words = lengths >> 24
            ahs = bytes(chunk[start : start + words * 4])
            start += words * 4
        if self.headerDigest:
            start += 4
        segment = lengths & 0xFFFFFF
        if not segment:
            self._deliver(chunk, offset, ahs, b"")
            return
        if self.dataDigest:
            padded = start + ((segment + 3) & ~3)
            if crc32c(memoryview(chunk)[start:padded]) != _digest(chunk, padded)[0]:
                self._spoilt(chunk, offset)
                return
        self._deliver(chunk, offset, ahs, self._segment(chunk, start, segment))

    def _segment(self, chunk: Buffer, start: int, length: int) -> Buffer:
        """A data segment, as a copy or as a view."""
        if length <= COPIED or length * KEPT_ALIVE < len(chunk):
            return chunk[start : start + length]
        return memoryview(chunk)[start : start + length]

    def _keep(self, chunk: bytes, offset: int, size: int) -> None:
        """Remember the beginning of a PDU that goes on in a later chunk."""
        if size < FILLED:
            self._left = chunk[offset:]
            return
        # The header is checked if it has a digest: only the data segment can be this long.
        segment = _lengths(chunk, offset + 4)[0] & 0xFFFFFF
        fill: bytearray | memoryview | None = None
        # Of additional header segments without a digest a part may be missing.
        whole = offset + size - segment <= len(chunk)
        if self._place is not None and not self.dataDigest and not segment & 3 and whole:
            fill = self._place(chunk, offset, segment)
        if fill is None:
            fill = bytearray(size)
        else:
            start = offset + size - segment
            self._head, offset = bytes(chunk[offset:start]), start
        self._fill = fill
        self._filled = len(chunk) - offset
        fill[: self._filled] = memoryview(chunk)[offset:]

    def _pour(self, chunk: bytes) -> bytes:
        """Put bytes of a chunk into the buffer that is being filled; return the rest."""
        assert self._fill is not None
        part = min(len(chunk), len(self._fill) - self._filled)
        self._fill[self._filled : self._filled + part] = memoryview(chunk)[:part]
        self.filled(part)
        return chunk[part:]


def _ignored(*pdu: object) -> None:
    """What takes PDUs that nobody wants."""
