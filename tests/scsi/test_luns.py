"""Tests for L{iscsi_twisted.scsi.luns}."""

from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.luns import ALONE, Inventory
from tests.scsi.cases import DiskTests
from tests.support.tasks import Nexus


class InventoryTests(DiskTests):
    """The units of a target."""

    def test_alone(self) -> None:
        """A unit that belongs to no target yet knows of no numbers."""
        self.assertEqual(ALONE.visible(self.nexus), [])

    def test_changes(self) -> None:
        """Units that come and go are seen at once, by those that may see them."""
        units = {7: self.unit}
        inventory = Inventory(units)
        masked = Nexus()
        masked.luns = frozenset((7,))
        units[3] = self.makeUnit(self.device)
        self.assertEqual((inventory.visible(self.nexus), inventory.visible(masked)), ([3, 7], [7]))

    def test_reported(self) -> None:
        """Who was told of all of them needs no unit attention for it."""
        other = Nexus(isid=b"\x80\0\0\0\0\2")
        self.unit.nexusFound(other)
        self.unit.takeAttention(other)
        self.unit.attention(codes.LUNS_CHANGED)
        self.unit.inventory.reported(self.nexus)
        self.assertEqual(
            [self.unit.takeAttention(nexus) for nexus in (self.nexus, other)], [None, codes.LUNS_CHANGED]
        )
