# -*- test-case-name: tests.target.test_trace -*-
"""
Tracing: what goes over connections, in the log.

A connection that is traced gets its inputs and outputs wrapped when it is made; one that is not
pays nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Final, TypeVar

from twisted.logger import Logger

from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.session.connection import Connection
from iscsi_twisted.session.names import printable
from iscsi_twisted.wire import layout, numbers
from iscsi_twisted.wire.dump import dump
from iscsi_twisted.wire.framer import Framer

KINDS: Final = ("net", "iscsi", "scsi")

PDUS: Final = frozenset(("iscsi", "scsi"))
"""The kinds that need to see PDUs, not only bytes."""

FULL: Final = numbers.FINAL | numbers.FULL_FEATURE
"""The flags of a Login Response that ends the login (RFC 7143 11.13)."""

T = TypeVar("T")

_numbers = count(1)
"""They tell connections from one address apart."""

SHOWN: Final = 64
"""Bytes of a data segment that are shown."""


class Trace:
    """
    Watches one connection.

    The outgoing stream is cut into PDUs by a framer of its own, so what is logged is what is sent.
    """

    log = Logger(namespace="iscsi_twisted.trace")

    def __init__(self, connection: Connection, kinds: frozenset[str]) -> None:
        self._connection = connection
        self._kinds = kinds
        self._number = next(_numbers)
        self._outgoing = Framer(self._pduOut, self._spoilt)
        self._outgoing.maxSegment = 0xFFFFFF
        if kinds & PDUS:
            connection.framer.observe(self._pduIn)
        if "net" in kinds:
            self._note("net", "connected")
        connection.observe(self._sent)

    def _sent(self, buffers: list[Buffer]) -> None:
        if "net" in self._kinds:
            self._note("net", f"< {sum(map(len, buffers))} bytes in {len(buffers)} buffers")
        if self._kinds & PDUS:
            for buffer in buffers:
                self._outgoing.feed(bytes(buffer))

    def receiving(self, take: Callable[[T], None], measure: Callable[[T], int]) -> Callable[[T], None]:
        """
        Watch what takes bytes from the network.

        @param measure: how many bytes its argument stands for.
        @return: what to call in its place.
        """
        if "net" not in self._kinds:
            return take

        def both(what: T) -> None:
            self._note("net", f"> {measure(what)} bytes")
            take(what)

        return both

    def ended(self, reason: str) -> None:
        """The transport is gone."""
        if "net" in self._kinds:
            self._note("net", f"ended: {printable(reason)}")

    def _pduIn(self, chunk: Buffer, offset: int, ahs: Buffer, data: Buffer) -> None:
        header = bytes(chunk[offset : offset + 48])
        if "iscsi" in self._kinds:
            self._note("iscsi", f"> {dump(header)}{_shown(header, data)}")
        if "scsi" in self._kinds and header[0] & 0x3F == numbers.SCSI_COMMAND:
            fields = layout.SCSI_COMMAND.asDict(header)
            self._note(
                "scsi", f"> CDB {fields['cdb'].hex()} LUN {fields['lun'].hex()} tag {fields['itt']:#x}"
            )

    def _pduOut(self, chunk: Buffer, offset: int, ahs: Buffer, data: Buffer) -> None:
        header = bytes(chunk[offset : offset + 48])
        if "iscsi" in self._kinds:
            self._note("iscsi", f"< {dump(header)}{_shown(header, data)}")
        if header[0] == numbers.LOGIN_RESPONSE and header[1] & FULL == FULL:
            # What follows has the digests that were agreed.
            self._outgoing.headerDigest = self._connection.headerDigest
            self._outgoing.dataDigest = self._connection.dataDigest
        if "scsi" not in self._kinds:
            return
        if header[0] == numbers.SCSI_RESPONSE:
            fields = layout.SCSI_RESPONSE.asDict(header)
            sense = f" sense {bytes(data[2:]).hex()}" if data else ""
            self._note("scsi", f"< status {fields['status']:#04x} tag {fields['itt']:#x}{sense}")
        elif header[0] == numbers.DATA_IN and header[1] & numbers.STATUS:
            fields = layout.DATA_IN.asDict(header)
            self._note("scsi", f"< status {fields['status']:#04x} tag {fields['itt']:#x} {len(data)} bytes")

    def _spoilt(self, chunk: Buffer, offset: int) -> None:
        """Our own digests are right."""

    def _note(self, kind: str, text: str) -> None:
        peer = self._connection.peer.text
        self.log.info("{kind} {peer} #{number} {text}", kind=kind, peer=peer, number=self._number, text=text)


_SECRET: Final = (numbers.LOGIN_REQUEST, numbers.LOGIN_RESPONSE)


def _shown(header: bytes, data: Buffer) -> str:
    """The beginning of a data segment; not of a login, where secrets may stand."""
    if not data or header[0] & 0x3F in _SECRET:
        return ""
    return f" {bytes(data[:SHOWN]).hex()}{'...' if len(data) > SHOWN else ''}"
