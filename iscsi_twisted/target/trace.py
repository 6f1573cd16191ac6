# -*- test-case-name: tests.target.test_trace -*-
"""
Tracing: what goes over connections, in the log.

A connection that is traced gets its inputs and outputs wrapped when it is made; one that is not
pays nothing.
"""

from __future__ import annotations

from typing import Final

from twisted.logger import Logger

from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.session.connection import Connection
from iscsi_twisted.wire import layout, numbers
from iscsi_twisted.wire.dump import dump
from iscsi_twisted.wire.framer import Framer

KINDS: Final = ("net", "iscsi", "scsi")

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
        self._outgoing = Framer(self._pduOut, self._spoilt)
        self._outgoing.maxSegment = 0xFFFFFF
        if kinds & {"iscsi", "scsi"}:
            connection.framer.observe(self._pduIn)
        connection.observe(self._sent)

    def _sent(self, buffers: list[Buffer]) -> None:
        count = sum(map(len, buffers))
        if "net" in self._kinds:
            self._note("net", f"< {count} bytes in {len(buffers)} buffers")
        for buffer in buffers:
            # The digests change with the PDU after the last Login Response.
            self._outgoing.feed(bytes(buffer))
        self._outgoing.headerDigest = self._connection.headerDigest
        self._outgoing.dataDigest = self._connection.dataDigest

    def received(self, count: int) -> None:
        """So many bytes have come."""
        if "net" in self._kinds:
            self._note("net", f"> {count} bytes")

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
        self.log.info("{kind} {peer} {text}", kind=kind, peer=self._connection.peer.text, text=text)


_SECRET: Final = (numbers.LOGIN_REQUEST, numbers.LOGIN_RESPONSE)


def _shown(header: bytes, data: Buffer) -> str:
    """The beginning of a data segment; not of a login, where secrets may stand."""
    if not data or header[0] & 0x3F in _SECRET:
        return ""
    return f" {bytes(data[:SHOWN]).hex()}{'...' if len(data) > SHOWN else ''}"
