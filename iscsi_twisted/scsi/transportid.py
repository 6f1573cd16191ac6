# -*- test-case-name: tests.scsi.test_transportid -*-
"""TransportIDs: initiator ports as parameter data name them (SPC-4 7.6.4)."""

from __future__ import annotations

import re
import struct
from typing import Final

from iscsi_twisted.scsi.registrations import ISID_SIZE, Port

NAME: Final = 0x05
"""Format 00b of iSCSI: an initiator's name, for all its ports; SPC-4 7.6.4.6."""
NAME_AND_ISID: Final = 0x45
"""Format 01b: one port."""


LONGEST_NAME: Final = 223
"""Bytes of an iSCSI name (RFC 7143 4.2.7.1)."""


def transportID(port: Port) -> bytes:
    """The TransportID of an iSCSI initiator port, or of all ports of an initiator; SPC-4 7.6.4.6."""
    text = port.initiatorName.encode()
    if port.isid:
        text += f",i,0x{port.isid.hex()}".encode()
    text += bytes(max(4 - len(text) % 4, 20 - len(text)))
    return struct.pack(">BxH", NAME_AND_ISID if port.isid else NAME, len(text)) + text


def parseTransportID(data: bytes) -> tuple[str, bytes] | None:
    """
    The name and the ISID of an iSCSI initiator port; an empty ISID for all ports of the initiator.

    @return: None if it is no TransportID of iSCSI.
    """
    size = _idSize(data)
    if size is None or data[0] not in (NAME, NAME_AND_ISID) or len(data) < size:
        return None
    try:
        text = data[4:size].partition(b"\0")[0].decode()
    except ValueError:
        return None
    name, comma, isid = text.lower().partition(",i,0x")
    if len(name.encode()) > LONGEST_NAME or " " in name or not name.isprintable():
        return None
    if data[0] == NAME:
        return (name, b"") if name and not comma else None
    if not name or not re.fullmatch("[0-9a-f]{1,12}", isid):
        return None
    return name, bytes.fromhex(isid.zfill(2 * ISID_SIZE))


def _idSize(data: bytes) -> int | None:
    """Bytes of the TransportID of iSCSI that begins here; None if none does."""
    return 4 + int.from_bytes(data[2:4], "big") if len(data) >= 4 else None


def parseTransportIDs(data: bytes) -> list[tuple[str, bytes]] | None:
    """All of a list; None if one of them is none."""
    found = []
    while data:
        one = parseTransportID(data)
        if one is None:
            return None
        found.append(one)
        data = data[_idSize(data) :]
    return found
