# -*- test-case-name: tests.scsi.test_copylist -*-
"""The parameter list of EXTENDED COPY (LID1): what is to be copied from where to where (SPC-3 6.3)."""

from __future__ import annotations

import struct
from typing import Final

import attrs

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.scsi import codes

HEADER: Final = 16
TARGET: Final = 32
"""Bytes of a target descriptor."""
SEGMENT: Final = 28
"""Bytes of a block to block segment descriptor, its head of four among them."""
IDENTIFICATION: Final = 0xE4
BLOCK_TO_BLOCK: Final = 0x02

TARGET_LIMIT: Final = 16
SEGMENT_LIMIT: Final = 64
"""Descriptors of each kind in one list."""
LIST_LIMIT: Final = TARGET_LIMIT * TARGET + SEGMENT_LIMIT * SEGMENT
"""Bytes of all descriptors of a list."""

HELD, _, DISCARDED, NONE = range(4)
"""LIST ID USAGE, SPC-4 6.4.3.2: results are kept under the identifier, are not, or there is no identifier."""

_DESIGNATOR: Final = 20
"""Bytes that there are for a designator."""

_HEADER = struct.Struct(">BBH4xII")
_TARGET = struct.Struct(">BBHBBxB20sB3s")
_SEGMENT = struct.Struct(">BBHHH2xHQQ")


@attrs.frozen
class CopyTarget:
    """
    An identification descriptor target descriptor (SPC-4 6.4.5.2); LU ID TYPE does not matter in one, and
    NUL is obsolete.

    @ivar peripheral: the device type that the initiator takes it for.
    @ivar kind: designator type.
    @ivar designator: which unit it is.
    @ivar pad: PAD: a last block that is not full is filled up with zeros.
    @ivar blockSize: what the initiator takes for the size of a block; 0 if it does not say.
    """

    peripheral: int
    kind: int
    designator: bytes
    pad: bool
    blockSize: int


@attrs.frozen
class Segment:
    """
    A block to block segment descriptor (SPC-3 6.3.7.5).

    @ivar source: index of a target descriptor; C{destination} too.
    @ivar byDestination: DC: blocks are counted in those of the destination.
    @ivar concatenates: CAT: what is left over belongs to the next segment.
    """

    source: int
    destination: int
    blocks: int
    sourceBlock: int
    destinationBlock: int
    byDestination: bool
    concatenates: bool


@attrs.frozen
class CopyList:
    """
    What is to be copied.

    @ivar identifier: the list identifier.
    @ivar usage: L{HELD}, L{DISCARDED} or L{NONE}.
    """

    identifier: int
    usage: int
    targets: tuple[CopyTarget, ...]
    segments: tuple[Segment, ...]


def refusal(code: int, place: int | None = None, bit: int | None = None) -> CheckCondition:
    """ILLEGAL REQUEST, pointing at a byte of the list."""
    return CheckCondition(codes.ILLEGAL_REQUEST, code, field=place, bit=bit, inData=True)


def tooShort() -> CheckCondition:
    """The list is cut off."""
    return CheckCondition(codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)


def parse(data: bytes) -> CopyList:
    """
    What a list says.

    @raise CheckCondition: if it is cut off, or holds too much, or what nobody here understands.
    """
    if len(data) < HEADER:
        raise tooShort()
    identifier, flags, targets, segments, inline = _HEADER.unpack_from(data)
    usage = flags >> 3 & 0x03
    if usage not in (HELD, DISCARDED, NONE):
        raise refusal(codes.INVALID_FIELD_IN_PARAMETER_LIST, 1, 4)
    if usage == NONE and identifier:
        raise refusal(codes.INVALID_FIELD_IN_PARAMETER_LIST, 0)
    if targets + segments > LIST_LIMIT or len(data) < HEADER + targets + segments:
        raise tooShort()
    if targets % TARGET:
        raise refusal(codes.INVALID_FIELD_IN_PARAMETER_LIST, 2)
    if targets // TARGET > TARGET_LIMIT:
        raise refusal(codes.TOO_MANY_TARGETS, 2)
    if inline:
        raise refusal(codes.INLINE_DATA_TOO_LONG, 12)
    first = HEADER + targets
    return CopyList(
        identifier,
        usage,
        tuple(_target(data, place) for place in range(HEADER, first, TARGET)),
        tuple(_segments(data, first, first + segments)),
    )


def _target(data: bytes, place: int) -> CopyTarget:
    kind, flags, _, _, designation, length, designator, specific, size = _TARGET.unpack_from(data, place)
    if kind != IDENTIFICATION:
        raise refusal(codes.UNSUPPORTED_TARGET, place)
    if designation & 0x30:
        # ASSOCIATION: a port or a device, not a unit.
        raise refusal(codes.INVALID_FIELD_IN_PARAMETER_LIST, place + 5, 5)
    if length > _DESIGNATOR:
        raise refusal(codes.INVALID_FIELD_IN_PARAMETER_LIST, place + 7)
    return CopyTarget(
        peripheral=flags & 0x1F,
        kind=designation & 0x0F,
        designator=designator[:length],
        pad=bool(specific & 0x04),
        blockSize=int.from_bytes(size, "big"),
    )


def _segments(data: bytes, place: int, end: int) -> list[Segment]:
    found: list[Segment] = []
    while place < end:
        if data[place] != BLOCK_TO_BLOCK:
            raise refusal(codes.UNSUPPORTED_SEGMENT, place)
        if end - place < SEGMENT:
            raise tooShort()
        _, flags, length, source, destination, blocks, read, written = _SEGMENT.unpack_from(data, place)
        if length != SEGMENT - 4:
            raise refusal(codes.INVALID_FIELD_IN_PARAMETER_LIST, place + 2)
        if len(found) == SEGMENT_LIMIT:
            raise refusal(codes.TOO_MANY_SEGMENTS, 8)
        found.append(
            Segment(source, destination, blocks, read, written, bool(flags & 0x02), bool(flags & 0x01))
        )
        place += SEGMENT
    return found
