"""PDUs as an initiator sends them, and those of a target taken apart: for tests of cores without I/O."""

from __future__ import annotations

from typing import Any

from iscsi_twisted.wire import layout, numbers, text
from iscsi_twisted.wire.digest import digest
from iscsi_twisted.wire.layout import Layout

LAYOUTS: dict[int, Layout] = {
    numbers.NOP_IN: layout.NOP_IN,
    numbers.SCSI_RESPONSE: layout.SCSI_RESPONSE,
    numbers.TASK_MANAGEMENT_RESPONSE: layout.TASK_MANAGEMENT_RESPONSE,
    numbers.LOGIN_RESPONSE: layout.LOGIN_RESPONSE,
    numbers.TEXT_RESPONSE: layout.TEXT_RESPONSE,
    numbers.DATA_IN: layout.DATA_IN,
    numbers.LOGOUT_RESPONSE: layout.LOGOUT_RESPONSE,
    numbers.R2T: layout.R2T,
    numbers.ASYNC_MESSAGE: layout.ASYNC_MESSAGE,
    numbers.REJECT: layout.REJECT,
}

NO_LUN = bytes(8)


def assemble(header: bytes, data: bytes = b"", *, digests: tuple[bool, bool] = (False, False)) -> bytes:
    """One PDU on the wire: header, data segment, padding and digests."""
    ahs = b""
    if len(header) > 48:
        header, ahs = header[:48], header[48:]
    lengths = (len(ahs) // 4) << 24 | len(data)
    header = header[:4] + lengths.to_bytes(4, "big") + header[8:] + ahs
    out = header + (digest(header) if digests[0] else b"")
    if data:
        padded = data + bytes(-len(data) % 4)
        out += padded + (digest(padded) if digests[1] else b"")
    return out


def loginRequest(
    pairs: dict[str, str] | bytes,
    *,
    stage: int = 1,
    following: int | None = 3,
    more: bool = False,
    isid: bytes = b"\x80\0\0\0\0\1",
    tsih: int = 0,
    itt: int = 1,
    cid: int = 0,
    cmdSN: int = 1,
    immediate: bool = True,
    versionMin: int = 0,
) -> bytes:
    """A Login Request."""
    flags = stage << 2
    if following is not None:
        flags |= 0x80 | following
    if more:
        flags |= 0x40
    data = pairs if isinstance(pairs, bytes) else text.encode(pairs.items())
    opcode = numbers.LOGIN_REQUEST | (numbers.IMMEDIATE if immediate else 0)
    header = layout.LOGIN_REQUEST.pack(opcode, flags, 0, versionMin, 0, isid, tsih, itt, cid, cmdSN, 0)
    return assemble(header, data)


def scsiCommand(
    cdb: bytes,
    *,
    itt: int,
    cmdSN: int,
    read: int | None = None,
    write: int | None = None,
    data: bytes = b"",
    final: bool = True,
    lun: bytes = NO_LUN,
    immediate: bool = False,
    attribute: int = 1,
    ahs: bytes = b"",
    digests: tuple[bool, bool] = (False, False),
) -> bytes:
    """A SCSI Command; C{read} and C{write} are expected data transfer lengths."""
    flags = attribute | (0x80 if final else 0)
    flags |= 0x40 if read is not None else 0
    flags |= 0x20 if write is not None else 0
    expected = write if write is not None else read or 0
    opcode = numbers.SCSI_COMMAND | (numbers.IMMEDIATE if immediate else 0)
    cdb = cdb.ljust(16, b"\0")[:16]
    header = layout.SCSI_COMMAND.pack(opcode, flags, 0, lun, itt, expected, cmdSN, 0, cdb)
    return assemble(header + ahs, data, digests=digests)


def dataOut(
    data: bytes,
    *,
    itt: int,
    ttt: int = numbers.NO_TAG,
    dataSN: int = 0,
    offset: int = 0,
    final: bool = True,
    digests: tuple[bool, bool] = (False, False),
) -> bytes:
    """A Data-Out."""
    flags = 0x80 if final else 0
    header = layout.DATA_OUT.pack(numbers.DATA_OUT, flags, 0, NO_LUN, itt, ttt, 0, dataSN, offset)
    return assemble(header, data, digests=digests)


def nopOut(data: bytes = b"", *, itt: int = 77, cmdSN: int = 1, immediate: bool = True) -> bytes:
    """A NOP-Out: a ping unless the task tag is the reserved one."""
    opcode = numbers.NOP_OUT | (numbers.IMMEDIATE if immediate else 0)
    return assemble(layout.NOP_OUT.pack(opcode, 0x80, 0, NO_LUN, itt, numbers.NO_TAG, cmdSN, 0), data)


def textRequest(
    pairs: dict[str, str] | bytes,
    *,
    itt: int = 5,
    ttt: int = numbers.NO_TAG,
    cmdSN: int = 1,
    final: bool = True,
    more: bool = False,
    immediate: bool = True,
) -> bytes:
    """A Text Request."""
    data = pairs if isinstance(pairs, bytes) else text.encode(pairs.items())
    flags = (0x80 if final else 0) | (0x40 if more else 0)
    opcode = numbers.TEXT_REQUEST | (numbers.IMMEDIATE if immediate else 0)
    return assemble(layout.TEXT_REQUEST.pack(opcode, flags, 0, NO_LUN, itt, ttt, cmdSN, 0), data)


def logoutRequest(*, reason: int = 0, cid: int = 0, itt: int = 9, cmdSN: int = 1) -> bytes:
    """A Logout Request, immediate."""
    opcode = numbers.LOGOUT_REQUEST | numbers.IMMEDIATE
    return assemble(layout.LOGOUT_REQUEST.pack(opcode, 0x80 | reason, 0, itt, cid, cmdSN, 0))


def taskManagement(
    function: int,
    *,
    lun: bytes = NO_LUN,
    referenced: int = numbers.NO_TAG,
    itt: int = 99,
    cmdSN: int = 1,
    refCmdSN: int = 0,
    immediate: bool = True,
) -> bytes:
    """A Task Management Function Request."""
    opcode = numbers.TASK_MANAGEMENT_REQUEST | (numbers.IMMEDIATE if immediate else 0)
    header = layout.TASK_MANAGEMENT_REQUEST.pack(
        opcode, 0x80 | function, 0, lun, itt, referenced, cmdSN, 0, refCmdSN, 0
    )
    return assemble(header)


def takeApart(stream: bytes, *, digests: tuple[bool, bool] = (False, False)) -> list[dict[str, Any]]:
    """
    The PDUs of a target, as fields by name plus C{data}.

    @raise AssertionError: if the stream is not whole PDUs with right digests and zero padding.
    """
    pdus = []
    position = 0
    while position < len(stream):
        header = stream[position : position + 48]
        fields = LAYOUTS[header[0] & 0x3F].asDict(header)
        length = fields["lengths"]
        position += 48
        if digests[0]:
            assert stream[position : position + 4] == digest(header), "header digest"
            position += 4
        padded = stream[position : position + (length + 3 & ~3)]
        assert len(padded) == (length + 3 & ~3), "the last PDU is cut short"
        assert not any(padded[length:]), "padding is not zero"
        position += len(padded)
        if length and digests[1]:
            assert stream[position : position + 4] == digest(padded), "data digest"
            position += 4
        fields["data"] = padded[:length]
        pdus.append(fields)
    return pdus


def pour(data: bytes, wanted: memoryview | list[memoryview]) -> int:
    """
    Fill the buffers that a framer wants filled, as a socket does.

    @return: how many of the bytes were taken.
    """
    taken = 0
    for view in wanted if isinstance(wanted, list) else [wanted]:
        count = min(len(view), len(data) - taken)
        view[:count] = data[taken : taken + count]
        taken += count
    return taken
