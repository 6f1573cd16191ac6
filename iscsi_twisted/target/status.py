# -*- test-case-name: tests.target.test_status -*-
"""What a service is doing, as values that no longer change."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, Final

import attrs
from twisted.internet.interfaces import IListeningPort

from iscsi_twisted.scsi.unit import UnitStatus
from iscsi_twisted.session.connection import Connection
from iscsi_twisted.session.portals import Portal
from iscsi_twisted.session.session import Session
from iscsi_twisted.session.target import Target
from iscsi_twisted.storage import Mirror
from iscsi_twisted.storage.mirrorlife import MirrorStatus


@attrs.frozen
class ConnectionStatus:
    """
    A connection's counters since it was made.

    @ivar address: of the peer, as text.
    @ivar bytesOut: without padding and digests.
    @ivar rejects: PDUs answered with a Reject.
    @ivar certificate: the names in the TLS certificate that the peer has shown; empty if there is none.
    """

    address: str
    bytesIn: int
    bytesOut: int
    pdusIn: int
    pdusOut: int
    rejects: int
    headerDigest: bool
    dataDigest: bool
    certificate: tuple[str, ...] = ()


@attrs.frozen
class SessionStatus:
    """
    A session.

    @ivar target: empty for discovery.
    @ivar isid: hexadecimal.
    @ivar tasks: commands under way.
    @ivar waiting: those of them that have not begun.
    @ivar commands: SCSI commands that have come since the login.
    @ivar errors: those of them that ended with another status than GOOD.
    @ivar aborts: those of them that were aborted.
    @ivar user: who was authenticated, by a secret or by a certificate; empty if nobody was.
    @ivar portalGroup: tag of the portal group through which it came.
    """

    kind: str
    initiator: str
    isid: str
    target: str
    tsih: int
    tasks: int
    waiting: int
    commands: int
    errors: int
    aborts: int
    connection: ConnectionStatus
    user: str = ""
    portalGroup: int = 1


@attrs.frozen(kw_only=True)
class DeviceCounters:
    """
    What a device counts: operations that have completed, their bytes, and those that failed.

    @ivar threaded: calls that went to threads.
    """

    reads: int = 0
    bytesRead: int = 0
    writes: int = 0
    bytesWritten: int = 0
    flushes: int = 0
    discards: int = 0
    zeroes: int = 0
    threaded: int = 0
    errors: int = 0


COUNTERS: Final = tuple(field.name for field in attrs.fields(DeviceCounters))


@attrs.frozen
class DeviceStatus:
    """
    A block device.

    @ivar name: what it calls itself.
    @ivar size: bytes.
    @ivar counters: None if it has no such attributes.
    @ivar unlocked: nothing keeps others from using it: its file system has no locks.
    @ivar distrusted: why nothing is read or written until it is opened anew; empty if it is.
    @ivar displaced: what has become of the name of its file, which leads to what is served no more.
    @ivar members: the devices that it is made of.
    @ivar mirror: the states of its members and what is copied or compared, if it is a mirror.
    """

    name: str
    size: int
    counters: DeviceCounters | None
    unlocked: bool
    members: tuple[DeviceStatus, ...]
    mirror: MirrorStatus | None = None
    distrusted: str = ""
    displaced: str = ""


@attrs.frozen
class LUNStatus:
    """
    A logical unit and its device.

    @ivar size: bytes that are exported.
    @ivar blockSize: bytes.
    @ivar access: the access state of each target port group (L{iscsi_twisted.scsi.paths}); empty if
        initiators are told of none.
    @ivar registrations: of persistent reservations.
    @ivar reservation: the type of the persistent reservation that is held, 0 for none.
    """

    lun: int
    device: DeviceStatus
    size: int
    blockSize: int
    readOnly: bool
    serial: str
    naa: str
    counters: UnitStatus
    access: tuple[tuple[int, int], ...]
    registrations: int
    reservation: int


@attrs.frozen
class TargetStatus:
    """A target and its units."""

    name: str
    alias: str
    units: tuple[LUNStatus, ...]
    sessions: int


@attrs.frozen
class PortalStatus:
    """
    A place to listen.

    @ivar address: as L{where} tells it.
    @ivar group: portal group tag.
    @ivar advertised: what initiators are told instead, or None.
    @ivar carrier: what iSCSI is carried by there, such as C{tcp} or C{tls}.
    @ivar connections: those there are.
    """

    address: str
    group: int
    advertised: str | None
    carrier: str
    connections: int


@attrs.frozen
class ServiceStatus:
    """
    Everything.

    @ivar addresses: where it listens, as L{where} tells it.
    @ivar logins: sessions that began.
    @ivar refusals: logins that were refused.
    @ivar losses: connections that ended without a logout.
    @ivar surprises: unexpected failures of our own code.
    @ivar portals: where it listens, in the same order, and to which groups these places belong.
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
    portals: tuple[PortalStatus, ...] = ()


def portalStatus(portal: Portal, port: IListeningPort, connections: int) -> PortalStatus:
    """One portal."""
    return PortalStatus(where(port), portal.tag, portal.advertised, portal.carrier, connections)


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
        connection.peer.certificate,
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
        session.commands,
        session.errors,
        session.aborts,
        connectionStatus(connection),
        session.user,
        connection.portal.tag,
    )


def targetStatus(target: Target) -> TargetStatus:
    """One target."""
    units = tuple(lunStatus(lun, unit) for lun, unit in sorted(target.units.items()))
    return TargetStatus(target.name, target.alias, units, len(target.sessions))


def lunStatus(lun: int, unit: Any) -> LUNStatus:
    """One logical unit."""
    return LUNStatus(
        lun,
        deviceStatus(unit.device),
        unit.blockCount * unit.blockSize,
        unit.blockSize,
        unit.readOnly,
        unit.identity.serial,
        unit.identity.naa.hex(),
        unit.snapshot(),
        tuple((group, unit.paths.state(group)) for group in unit.paths.groups) if unit.asymmetric else (),
        len(unit.registrations.keys),
        unit.registrations.type,
    )


def deviceStatus(device: Any) -> DeviceStatus:
    """One device, and those that it is made of."""
    found = {name: getattr(device, name, None) for name in COUNTERS}
    counted = {name: value for name, value in found.items() if isinstance(value, int)}
    return DeviceStatus(
        str(device),
        device.size,
        DeviceCounters(**counted) if counted else None,
        bool(getattr(device, "unlocked", False)),
        tuple(deviceStatus(member) for member in members(device)),
        device.status() if isinstance(device, Mirror) else None,
        str(getattr(device, "distrusted", "")),
        str(getattr(device, "displaced", "")),
    )


def members(device: Any) -> Sequence[Any]:
    """The devices that a device is made of: a composition has several, a filter one."""
    if hasattr(device, "member"):
        return (device.member,)
    return getattr(device, "members", ())


def unlocked(device: DeviceStatus) -> Iterator[str]:
    """The names of a device, and of those it is made of, that nothing keeps others from using."""
    if device.unlocked:
        yield device.name
    for member in device.members:
        yield from unlocked(member)


def where(port: IListeningPort) -> str:
    """Where a port listens, for people and URLs: C{host:port}, IPv6 in brackets, or C{unix:path}."""
    address: Any = port.getHost()
    if hasattr(address, "host"):
        host = f"[{address.host}]" if ":" in address.host else address.host
        return f"{host}:{address.port}"
    name = getattr(address, "name", None)
    return f"unix:{os.fsdecode(name)}" if name else str(address)
