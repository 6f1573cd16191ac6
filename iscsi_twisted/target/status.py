# -*- test-case-name: tests.target.test_status -*-
"""What a service is doing, as values that no longer change."""

from __future__ import annotations

import os
from typing import Any

import attrs
from twisted.internet.interfaces import IListeningPort

from iscsi_twisted.scsi.unit import UnitStatus
from iscsi_twisted.session.connection import Connection
from iscsi_twisted.session.node import Target
from iscsi_twisted.session.session import Session


@attrs.frozen
class ConnectionStatus:
    """
    A connection's counters since it was made.

    @ivar address: of the peer, as text.
    @ivar bytesOut: without padding and digests.
    @ivar rejects: PDUs answered with a Reject.
    """

    address: str
    bytesIn: int
    bytesOut: int
    pdusIn: int
    pdusOut: int
    rejects: int
    headerDigest: bool
    dataDigest: bool


@attrs.frozen
class SessionStatus:
    """
    A session.

    @ivar target: empty for discovery.
    @ivar isid: hexadecimal.
    @ivar tasks: commands under way.
    @ivar waiting: those of them that have not begun.
    """

    kind: str
    initiator: str
    isid: str
    target: str
    tsih: int
    tasks: int
    waiting: int
    connection: ConnectionStatus


@attrs.frozen
class LUNStatus:
    """
    A logical unit and its device.

    @ivar size: bytes.
    @ivar blockSize: bytes.
    """

    lun: int
    device: str
    size: int
    blockSize: int
    readOnly: bool
    serial: str
    naa: str
    counters: UnitStatus


@attrs.frozen
class TargetStatus:
    """A target and its units."""

    name: str
    alias: str
    units: tuple[LUNStatus, ...]
    sessions: int


@attrs.frozen
class ServiceStatus:
    """
    Everything.

    @ivar addresses: where it listens, as L{where} tells it.
    @ivar logins: sessions that began.
    @ivar refusals: logins that were refused.
    @ivar losses: connections that ended without a logout.
    @ivar surprises: unexpected failures of our own code.
    """

    running: bool
    addresses: tuple[str, ...]
    targets: tuple[TargetStatus, ...]
    sessions: tuple[SessionStatus, ...]
    connections: int
    logins: int
    refusals: int
    losses: int
    surprises: int


def connectionStatus(connection: Connection) -> ConnectionStatus:
    """The counters of one connection."""
    return ConnectionStatus(
        connection.peer.text,
        connection.bytesIn,
        connection.bytesOut,
        connection.pdusIn,
        connection.pdusOut,
        connection.rejects,
        connection.headerDigest,
        connection.dataDigest,
    )


def sessionStatus(session: Session, connection: Connection) -> SessionStatus:
    """One session."""
    return SessionStatus(
        "Discovery" if session.discovery else "Normal",
        session.initiatorName,
        session.isid.hex(),
        session.target.name if session.target is not None else "",
        session.tsih,
        len(session.tasks),
        len(session.waiting),
        connectionStatus(connection),
    )


def targetStatus(target: Target) -> TargetStatus:
    """One target."""
    units = tuple(lunStatus(lun, unit) for lun, unit in sorted(target.units.items()))
    return TargetStatus(target.name, target.alias, units, len(target.sessions))


def lunStatus(lun: int, unit: Any) -> LUNStatus:
    """One logical unit."""
    return LUNStatus(
        lun,
        str(unit.device),
        unit.blockCount * unit.blockSize,
        unit.blockSize,
        unit.readOnly,
        unit.identity.serial,
        unit.identity.naa.hex(),
        unit.snapshot(),
    )


def where(port: IListeningPort) -> str:
    """Where a port listens, for people and URLs: C{host:port}, IPv6 in brackets, or C{unix:path}."""
    address: Any = port.getHost()
    if hasattr(address, "host"):
        host = f"[{address.host}]" if ":" in address.host else address.host
        return f"{host}:{address.port}"
    name = getattr(address, "name", None)
    return f"unix:{os.fsdecode(name)}" if name else str(address)
