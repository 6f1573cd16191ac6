# -*- test-case-name: tests.wire.test_dump -*-
"""A PDU's header as one line of text."""

from __future__ import annotations

from typing import Final

from iscsi_twisted.wire import layout, numbers
from iscsi_twisted.wire.layout import Layout

_NAMES: Final = (
    "NOP_OUT", "SCSI_COMMAND", "TASK_MANAGEMENT_REQUEST", "LOGIN_REQUEST", "TEXT_REQUEST", "DATA_OUT",
    "LOGOUT_REQUEST", "SNACK_REQUEST", "NOP_IN", "SCSI_RESPONSE", "TASK_MANAGEMENT_RESPONSE",
    "LOGIN_RESPONSE", "TEXT_RESPONSE", "DATA_IN", "LOGOUT_RESPONSE", "R2T", "ASYNC_MESSAGE", "REJECT",
)  # fmt: skip

_LAYOUTS: Final[dict[int, tuple[str, Layout]]] = {
    getattr(numbers, name): (name, getattr(layout, name)) for name in _NAMES
}


def dump(header: bytes) -> str:
    """The fields of a header (RFC 7143 chapter 11), numbers in hexadecimal."""
    opcode = header[0] & numbers.OPCODE_MASK
    name, record = _LAYOUTS.get(opcode, (f"opcode {opcode:#04x}", None))
    if record is None:
        return f"{name} {header.hex()}"
    fields = record.asDict(header)
    lengths = fields.pop("lengths")
    immediate = " immediate" if fields.pop("opcode") & numbers.IMMEDIATE else ""
    shown = " ".join(f"{field}={_text(value)}" for field, value in fields.items())
    return f"{name}{immediate} {shown} ahs={(lengths >> 24) * 4} data={lengths & 0xFFFFFF}"


def _text(value: int | bytes) -> str:
    return value.hex() if isinstance(value, bytes) else f"{value:#x}"
