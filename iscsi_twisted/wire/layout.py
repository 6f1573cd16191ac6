# -*- test-case-name: tests.wire.test_layout -*-
"""Fixed-size records, and those of iSCSI (RFC 7143 chapter 11)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any


class Layout:
    """
    One fixed-size big-endian record, declared once and compiled once.

    The declaration is C{name:format} pairs in wire order; the name C{_} is reserved space.

    @ivar fields: the names, in the order in which C{unpack} returns and C{pack} takes the values.
    @ivar unpack: C{unpack(buffer, offset=0)} -> tuple of values.
    @ivar pack: C{pack(*values)} -> bytes; reserved space becomes zeros.
    @ivar size: bytes.
    """

    __slots__ = ("fields", "pack", "size", "unpack")

    def __init__(self, declaration: str, *, size: int) -> None:
        pairs = [item.partition(":")[::2] for item in declaration.split()]
        compiled = struct.Struct(">" + "".join(code for _, code in pairs))
        if compiled.size != size:
            raise ValueError(f"the layout is {compiled.size} bytes, not {size}")
        self.fields = tuple(name for name, _ in pairs if name != "_")
        self.unpack: Callable[..., tuple[Any, ...]] = compiled.unpack_from
        self.pack: Callable[..., bytes] = compiled.pack
        self.size = size

    def asDict(self, data: bytes, offset: int = 0) -> dict[str, Any]:
        """The record by field name: for tests, logs and dumps, never for the data path."""
        return dict(zip(self.fields, self.unpack(data, offset), strict=True))


BHS_LENGTH = 48
"""Bytes of a Basic Header Segment (RFC 7143 11.2.1)."""

# 'lengths' is TotalAHSLength (in four-byte words) << 24 | DataSegmentLength (in bytes).

SCSI_COMMAND = Layout(
    "opcode:B flags:B _:2x lengths:I lun:8s itt:I expectedLength:I cmdSN:I expStatSN:I cdb:16s", size=48
)
SCSI_RESPONSE = Layout(
    "opcode:B flags:B response:B status:B lengths:I _:8x itt:I snackTag:I statSN:I expCmdSN:I maxCmdSN:I"
    " expDataSN:I bidiResidual:I residual:I",
    size=48,
)
TASK_MANAGEMENT_REQUEST = Layout(
    "opcode:B flags:B _:2x lengths:I lun:8s itt:I referencedTag:I cmdSN:I expStatSN:I refCmdSN:I"
    " expDataSN:I _:8x",
    size=48,
)
TASK_MANAGEMENT_RESPONSE = Layout(
    "opcode:B flags:B response:B _:x lengths:I _:8x itt:I _:4x statSN:I expCmdSN:I maxCmdSN:I _:12x", size=48
)
DATA_OUT = Layout(
    "opcode:B flags:B _:2x lengths:I lun:8s itt:I ttt:I _:4x expStatSN:I _:4x dataSN:I bufferOffset:I _:4x",
    size=48,
)
DATA_IN = Layout(
    "opcode:B flags:B _:x status:B lengths:I lun:8s itt:I ttt:I statSN:I expCmdSN:I maxCmdSN:I"
    " dataSN:I bufferOffset:I residual:I",
    size=48,
)
R2T = Layout(
    "opcode:B flags:B _:2x lengths:I lun:8s itt:I ttt:I statSN:I expCmdSN:I maxCmdSN:I"
    " r2tSN:I bufferOffset:I desiredLength:I",
    size=48,
)
ASYNC_MESSAGE = Layout(
    "opcode:B flags:B _:2x lengths:I lun:8s itt:I _:4x statSN:I expCmdSN:I maxCmdSN:I"
    " event:B vendorCode:B parameter1:H parameter2:H parameter3:H _:4x",
    size=48,
)
TEXT_REQUEST = Layout("opcode:B flags:B _:2x lengths:I lun:8s itt:I ttt:I cmdSN:I expStatSN:I _:16x", size=48)
TEXT_RESPONSE = Layout(
    "opcode:B flags:B _:2x lengths:I lun:8s itt:I ttt:I statSN:I expCmdSN:I maxCmdSN:I _:12x", size=48
)
LOGIN_REQUEST = Layout(
    "opcode:B flags:B versionMax:B versionMin:B lengths:I isid:6s tsih:H itt:I cid:H _:2x"
    " cmdSN:I expStatSN:I _:16x",
    size=48,
)
LOGIN_RESPONSE = Layout(
    "opcode:B flags:B versionMax:B versionActive:B lengths:I isid:6s tsih:H itt:I _:4x"
    " statSN:I expCmdSN:I maxCmdSN:I status:H _:10x",
    size=48,
)
LOGOUT_REQUEST = Layout(
    "opcode:B flags:B _:2x lengths:I _:8x itt:I cid:H _:2x cmdSN:I expStatSN:I _:16x", size=48
)
LOGOUT_RESPONSE = Layout(
    "opcode:B flags:B response:B _:x lengths:I _:8x itt:I _:4x statSN:I expCmdSN:I maxCmdSN:I _:4x"
    " time2Wait:H time2Retain:H _:4x",
    size=48,
)
SNACK_REQUEST = Layout(
    "opcode:B flags:B _:2x lengths:I lun:8s itt:I ttt:I _:4x expStatSN:I _:8x begRun:I runLength:I", size=48
)
REJECT = Layout(
    "opcode:B flags:B reason:B _:x lengths:I _:8x itt:I _:4x statSN:I expCmdSN:I maxCmdSN:I dataSN:I _:8x",
    size=48,
)
NOP_OUT = Layout("opcode:B flags:B _:2x lengths:I lun:8s itt:I ttt:I cmdSN:I expStatSN:I _:16x", size=48)
NOP_IN = Layout(
    "opcode:B flags:B _:2x lengths:I lun:8s itt:I ttt:I statSN:I expCmdSN:I maxCmdSN:I _:12x", size=48
)
