# -*- test-case-name: tests.scsi.test_vpd -*-
"""
Vital product data pages (SPC-4 7.8, SBC-3 6.6).

Each function gives a page without its four-byte head.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from iscsi_twisted.interfaces import INexus, ITask, TargetPort
from iscsi_twisted.scsi import thresholds
from iscsi_twisted.scsi.unit import LogicalUnit

if TYPE_CHECKING:
    from iscsi_twisted.scsi.disk import DiskUnit

Pages: TypeAlias = dict[int, Callable[..., bytes]]

ISCSI_PROTOCOL: Final = 0x5
"""Protocol identifier, SPC-4 7.6.1."""
BINARY, ASCII, UTF_8 = 1, 2, 3
"""Code sets, SPC-4 7.8.6.1."""
UNIT, PORT, DEVICE = 0, 1, 2
"""What a designator belongs to, SPC-4 7.8.6.1."""
T10_VENDOR, NAA, RELATIVE_PORT, PORT_GROUP, NAME_STRING = 1, 3, 4, 5, 8
"""Designator types, SPC-4 7.8.6.1."""


def supportedPages(unit: LogicalUnit, task: ITask) -> bytes:
    """Page 00h, which pages there are; SPC-4 7.8.15."""
    return bytes(sorted(unit.pages))


def serialNumber(unit: LogicalUnit, task: ITask) -> bytes:
    """Page 80h; SPC-4 7.8.16."""
    return unit.identity.serial.encode("ascii")


def designator(codeSet: int, association: int, kind: int, value: bytes) -> bytes:
    """One designation descriptor; SPC-4 7.8.6.1."""
    if association == UNIT:
        return struct.pack(">BBxB", codeSet, kind, len(value)) + value
    return (
        struct.pack(">BBxB", ISCSI_PROTOCOL << 4 | codeSet, 0x80 | association << 4 | kind, len(value))
        + value
    )


def nameString(text: str) -> bytes:
    """A SCSI name string, ended and filled up with NULs; SPC-4 7.8.6.11."""
    value = text.encode("utf-8")
    return value + bytes(4 - len(value) % 4)


def deviceIdentification(unit: LogicalUnit, task: ITask) -> bytes:
    """Page 83h: names of the unit, of the target port and of the target; SPC-4 7.8.6."""
    identity = unit.identity
    vendor = identity.vendor.ljust(8) + identity.serial
    own = (
        designator(BINARY, UNIT, NAA, identity.naa),
        designator(ASCII, UNIT, T10_VENDOR, vendor.encode("ascii")[:255]),
        designator(UTF_8, UNIT, NAME_STRING, nameString(identity.deviceName)),
    )
    return b"".join(own) + portIdentification(unit, task)


def targetPort(nexus: INexus) -> TargetPort:
    """The target port of a nexus."""
    return TargetPort(nexus.targetName, nexus.portalGroupTag)


def portName(port: TargetPort) -> bytes:
    """The designation descriptor that holds the name of a target port."""
    return designator(UTF_8, PORT, NAME_STRING, nameString(port.name))


def scsiPorts(unit: LogicalUnit, task: ITask) -> bytes:
    """Page 88h: the target ports through which the unit is reached; SPC-4 7.8.14."""
    found = []
    for port in (unit.inventory.ports or (targetPort(task.nexus),))[:MOST_PORTS]:
        name = portName(port)
        found.append(struct.pack(">xxHxxHxxH", port.group, 0, len(name)) + name)
    return b"".join(found)


def portIdentification(unit: LogicalUnit, task: ITask) -> bytes:
    """What page 83h says of the target port that was used, and of the target; SPC-4 7.8.6."""
    nexus = task.nexus
    port = targetPort(nexus)
    number = struct.pack(">xxH", port.group)
    return b"".join(
        (
            designator(BINARY, PORT, RELATIVE_PORT, number),
            designator(BINARY, PORT, PORT_GROUP, number) if unit.asymmetric else b"",
            portName(port),
            designator(UTF_8, DEVICE, NAME_STRING, nameString(nexus.targetName)),
        )
    )


def extendedInquiry(unit: DiskUnit, task: ITask) -> bytes:
    """Page 86h: all task attributes, and whether there is a volatile cache; SPC-4 7.8.7."""
    return struct.pack(">xBB57x", 0x07, 0x01 if unit.volatileCache else 0x00)


def blockLimits(unit: DiskUnit, task: ITask) -> bytes:
    """Page B0h: what one command may ask for at most; SBC-3 6.6.4."""
    granularity = unit.physicalBlockSize // unit.blockSize
    thin = unit.thin
    return struct.pack(
        ">BBHIIIIIIIQIIIII",
        0x00 if unit.sameZero else 0x01,  # WSNZ: WRITE SAME of no blocks is refused
        unit.compareLimit,
        granularity,
        unit.transferLimit,
        min(unit.optimalTransfer, unit.transferLimit),
        unit.transferLimit,
        unit.unmapLimit if thin else 0,
        unit.descriptorLimit if thin else 0,
        granularity if thin else 0,
        0x80000000 if thin else 0,  # UGAVALID: the alignment of 0 is meant
        unit.sameLimit,
        unit.atomicLimit,
        0,  # anywhere,
        0,  # and of any length
        unit.atomicLimit,
        min(unit.atomicLimit, 0xFFFF),
    )


def blockCharacteristics(unit: DiskUnit, task: ITask) -> bytes:
    """Page B1h: how fast something rotates, if it does; SBC-3 6.6.2."""
    rate = unit.rotation
    if rate is None:
        rate = 0 if unit.rotational else SOLID
    # WABEREQ and WACEREQ: what was erased can be read.
    required = (0x40 if unit.erases else 0) | (0x10 if unit.rekeys else 0)
    return struct.pack(">HxB56x", rate, required)


def provisioning(unit: DiskUnit, task: ITask) -> bytes:
    """Page B2h: what unmapping does; SBC-3 6.6.6."""
    if not unit.thin:
        return bytes(4)
    # LBPU, LBPWS, LBPWS10; anchors are not supported; provisioning type 2 is thin.
    flags = 0xE0 | (0x04 if unit.unmappedZeroes else 0)
    sets = thresholds.exponent(unit.blockSize) if unit.tellsSpace else 0
    # Thresholds of percentages go by one percent.
    return bytes((sets, flags, 0x02, 0x01 if unit.tellsSpace else 0))


MOST_PORTS: Final = 255
"""Ports in page 88h: its length is a number of 16 bits, and a port takes 256 bytes at most."""

SOLID: Final = 1
"""Medium rotation rate of what does not rotate; SBC-3 table 200."""

PRIMARY_PAGES: Final[Pages] = {
    0x00: supportedPages,
    0x80: serialNumber,
    0x83: deviceIdentification,
    0x88: scsiPorts,
}
DISK_PAGES: Final[Pages] = PRIMARY_PAGES | {
    0x86: extendedInquiry,
    0xB0: blockLimits,
    0xB1: blockCharacteristics,
    0xB2: provisioning,
}
