# -*- test-case-name: tests.scsi.test_luns -*-
"""The logical units of one target by their numbers, and its ports (SAM-5 4.6, 4.7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from iscsi_twisted.interfaces import INexus, TargetPort
from iscsi_twisted.scsi.codes import LUNS_CHANGED

if TYPE_CHECKING:
    from iscsi_twisted.scsi.unit import LogicalUnit


_NONE: Final[Mapping[int, LogicalUnit]] = {}


class Inventory:
    """
    What a unit knows of its target.

    @ivar units: by number; whoever owns them may add and remove some at any time.
    @ivar wellKnown: the well known logical units, by number (L{iscsi_twisted.scsi.lun.WELL_KNOWN}).
    @ivar ports: through which all of them are reached, in the order of their relative identifiers.
    """

    __slots__ = ("ports", "units", "wellKnown")

    def __init__(
        self,
        units: Mapping[int, LogicalUnit],
        ports: tuple[TargetPort, ...] = (),
        wellKnown: Mapping[int, LogicalUnit] = _NONE,
    ) -> None:
        self.units = units
        self.ports = ports
        self.wellKnown = wellKnown

    def visible(self, nexus: INexus) -> list[int]:
        """The numbers that a nexus may see, ascending."""
        luns = sorted(self.units)
        return luns if nexus.luns is None else [lun for lun in luns if lun in nexus.luns]

    def reported(self, nexus: INexus) -> None:
        """A nexus was told of all units: it knows of every change until now (SAM-5 5.14, SPC-4 6.33)."""
        for unit in (*self.units.values(), *self.wellKnown.values()):
            unit.clearAttention(nexus, LUNS_CHANGED)


ALONE = Inventory({})
"""That of a unit which belongs to no target yet."""
