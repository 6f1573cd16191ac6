# -*- test-case-name: tests.target.test_proxyheader -*-
"""
The header of the PROXY protocol, versions 1 and 2: from where a connection comes that a proxy passes on.

It is as the specification of HAProxy has it.  What it allows and we refuse: datagrams, which carry no
iSCSI, and headers of more than L{LONGEST} bytes.
"""

from __future__ import annotations

import re
import struct
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import Final

import attrs

from iscsi_twisted.errors import RemoteError

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
"""What a header of version 2 begins with."""

LONGEST_LINE: Final = 107
"""Bytes of a header of version 1, its end included; so says the specification."""

LONGEST: Final = 4096
"""
Bytes of a header of version 2 that are waited for.  Addresses take 216 at most; what proxies add, a
certificate's name among it, some hundreds.
"""

_ADDRESS: Final = rb" ([0-9A-Fa-f.:]+)"
_LINE: Final = re.compile(rb"PROXY (TCP4|TCP6)" + 2 * _ADDRESS + 2 * rb" ([0-9]{1,5})")
_UNKNOWN: Final = re.compile(rb"PROXY UNKNOWN(?: .*)?", re.DOTALL)

_FIXED: Final = struct.Struct(">12sBBH")
_STREAM: Final = 1
_FAMILIES: Final = {1: struct.Struct(">4s4sHH"), 2: struct.Struct(">16s16sHH"), 3: struct.Struct(">108s108s")}
"""The addresses of IPv4, IPv6 and UNIX sockets."""

_UNIX: Final = 3

Place = tuple[IPv4Address | IPv6Address, int]
"""An address and a port."""


@attrs.frozen
class Ends:
    """
    The two ends of a connection that a proxy passes on.

    @ivar own: the proxy speaks for itself, so that its own connection is what counts.
    @ivar source: where the client is; None if it has no such address, or the proxy does not know it.
    @ivar destination: where the client connected to; likewise.
    """

    own: bool = False
    source: Place | None = None
    destination: Place | None = None


def read(data: bytes) -> tuple[Ends, int] | None:
    """
    Read the header that a connection begins with.

    @param data: its first bytes.
    @return: what it says, and how long it is; None if it is not complete yet.
    @raise RemoteError: if there is none, or none that can be understood.
    """
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _binary(data)
    if data[:6] != b"PROXY "[: len(data)]:
        raise RemoteError("it does not begin with the PROXY protocol")
    end = data.find(b"\r\n", 0, LONGEST_LINE)
    if end >= 0:
        return _line(data[:end]), end + 2
    if len(data) >= LONGEST_LINE:
        raise RemoteError(f"PROXY: its line is longer than {LONGEST_LINE} bytes")
    return None


def _line(line: bytes) -> Ends:
    """Version 1."""
    if _UNKNOWN.fullmatch(line):
        return Ends()
    found = _LINE.fullmatch(line)
    if found is None:
        raise RemoteError("PROXY: its line is none of the protocol's")
    form = IPv4Address if found[1] == b"TCP4" else IPv6Address
    try:
        source, destination = (form(found[each].decode("ascii")) for each in (2, 3))
    except AddressValueError:
        raise RemoteError(f"PROXY: its addresses are none of {found[1].decode()}") from None
    return Ends(False, _place(source, int(found[4])), _place(destination, int(found[5])))


def _binary(data: bytes) -> tuple[Ends, int] | None:
    """Version 2."""
    if len(data) < _FIXED.size:
        return None
    _, version, kind, length = _FIXED.unpack_from(data)
    whole = _FIXED.size + length
    if version not in (0x20, 0x21):
        raise RemoteError(f"PROXY: version and command are {version:#04x}, not 0x20 or 0x21")
    if whole > LONGEST:
        raise RemoteError(f"PROXY: its header is longer than {LONGEST} bytes")
    if len(data) < whole:
        return None
    if version == 0x20:
        return Ends(own=True), whole
    return _told(kind, data[_FIXED.size : whole]), whole


def _told(kind: int, data: bytes) -> Ends:
    """What stands behind the fixed part: addresses, and other things that are not looked at."""
    family, protocol = kind >> 4, kind & 15
    if not family:
        return Ends()
    record = _FAMILIES.get(family)
    if record is None or protocol != _STREAM:
        raise RemoteError(f"PROXY: family and protocol are {kind:#04x}: no stream that could carry iSCSI")
    if len(data) < record.size:
        raise RemoteError("PROXY: its header ends within the addresses")
    if family == _UNIX:
        return Ends()
    source, destination, near, far = record.unpack_from(data)
    return Ends(False, _place(ip_address(source), near), _place(ip_address(destination), far))


def _place(address: IPv4Address | IPv6Address, port: int) -> Place:
    """
    An IPv4 address is one, whatever form it comes in.

    @raise RemoteError: for a port that is none.
    """
    if port > 0xFFFF:
        raise RemoteError("PROXY: a port is a number from 0 to 65535")
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address, port
