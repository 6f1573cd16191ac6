# -*- test-case-name: tests.scsi.test_inventory -*-
"""REPORT LUNS, the well known unit for it, and what is behind the numbers that are not in its answer."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import ClassVar, Final

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import INexus, ITask, TargetPort
from iscsi_twisted.scsi import cdb, codes, inquiry, primary, sense, supported, vpd
from iscsi_twisted.scsi.identity import Identity
from iscsi_twisted.scsi.lun import REPORT_LUNS_UNIT, encodeLUN
from iscsi_twisted.scsi.luns import Inventory
from iscsi_twisted.scsi.table import CommandSet, CommandTable
from iscsi_twisted.scsi.unit import LogicalUnit, Report, reply

COMMANDS = CommandSet()

PLAIN, WELL_KNOWN, ALL = range(3)
ADMINISTRATIVE, OUTSIDE, SUBSIDIARY = range(0x10, 0x13)
"""
SELECT REPORT (SPC-5 6.35): all but well known units, those, and all; administrative units of conglomerates,
they and what belongs to no conglomerate, and what belongs to that of this unit.  There are no conglomerates.
"""
LEAST_ALLOCATION: Final = 16
"""A smaller allocation length is refused."""


@COMMANDS.handles(cdb.REPORT_LUNS)
def reportLUNs(unit: LogicalUnit, task: ITask) -> None:
    """REPORT LUNS; SPC-5 6.35."""
    _, select, allocation, _ = cdb.REPORT_LUNS.layout.unpack(task.cdb)
    if ALL < select < ADMINISTRATIVE or select > SUBSIDIARY:
        raise unit.invalidField(task, "select", 7)
    if allocation < LEAST_ALLOCATION:
        raise unit.invalidField(task, "allocation", 7)
    inventory = unit.inventory
    luns: list[int] = []
    if select in (PLAIN, ALL, OUTSIDE):
        luns += inventory.visible(task.nexus)
        # Whoever asks has learnt of the change.
        inventory.reported(task.nexus)
    if select in (WELL_KNOWN, ALL):
        luns += sorted(inventory.wellKnown)
    reply(task, struct.pack(">I4x", 8 * len(luns)) + b"".join(map(encodeLUN, luns)), allocation)


def notSupported(unit: LogicalUnit, task: ITask) -> None:
    """Refuse what is addressed to no logical unit (SPC-4 table 32, SAM-5 4.8.3)."""
    raise CheckCondition(codes.ILLEGAL_REQUEST, codes.LUN_NOT_SUPPORTED)


_ABSENT = CommandSet()


@_ABSENT.handles(cdb.REQUEST_SENSE)
def requestSense(unit: LogicalUnit, task: ITask) -> None:
    """REQUEST SENSE of an incorrect logical unit: the refusal as data; SPC-4 6.39."""
    _, flags, allocation, _ = cdb.REQUEST_SENSE.layout.unpack(task.cdb)
    condition = CheckCondition(codes.ILLEGAL_REQUEST, codes.LUN_NOT_SUPPORTED)
    reply(task, sense.encode(condition, bool(flags & 0x01)), allocation)


class AbsentUnit(LogicalUnit):
    """What answers for every LUN of a target that has no logical unit."""

    table = CommandTable(inquiry.COMMANDS, COMMANDS, _ABSENT, otherwise=notSupported)
    peripheral = 0x7F
    normalACA = False
    pages = {0x00: vpd.supportedPages}

    def nexusFound(self, nexus: INexus) -> None:
        """Nothing happens here that anybody needs to be told."""


class WellKnownUnit(LogicalUnit):
    """The REPORT LUNS well known logical unit; SPC-4 8.2."""

    table = CommandTable(primary.COMMANDS, inquiry.COMMANDS, supported.COMMANDS, COMMANDS)
    peripheral = 0x1E
    normalACA = False
    pages: ClassVar = {0x00: vpd.supportedPages, 0x83: vpd.portIdentification}
    versions = inquiry.PRIMARY_VERSIONS


def furnish(
    units: Mapping[int, LogicalUnit], ports: tuple[TargetPort, ...], identity: Identity, report: Report
) -> tuple[AbsentUnit, dict[int, LogicalUnit]]:
    """
    Make what a target has beside its units, and let all of them know of one another.

    @param identity: what INQUIRY says where there is no unit.
    @return: what answers for numbers without a unit, and the well known logical units.
    """
    absent = AbsentUnit(identity, report)
    wellKnown: dict[int, LogicalUnit] = {REPORT_LUNS_UNIT: WellKnownUnit(identity, report)}
    inventory = Inventory(units, ports, wellKnown)
    for unit in (*units.values(), *wellKnown.values(), absent):
        unit.inventory = inventory
    return absent, wellKnown
