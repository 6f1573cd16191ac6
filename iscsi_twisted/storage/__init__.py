"""
Block devices: extents, memory, and devices made of devices.

For a device of one's own derive from L{BlockDevice}, or hand any object with C{size}, C{read} and
C{write} to L{asDevice}.
"""

from iscsi_twisted.storage.concatenation import Concatenation
from iscsi_twisted.storage.delay import Delay
from iscsi_twisted.storage.device import BlockDevice, asDevice
from iscsi_twisted.storage.extent import FileExtent
from iscsi_twisted.storage.faults import Fault, Faults
from iscsi_twisted.storage.filters import Filter, ReadOnly, Slice
from iscsi_twisted.storage.memory import MemoryDevice
from iscsi_twisted.storage.mirror import Mirror
from iscsi_twisted.storage.overlay import Overlay, OverlayFile
from iscsi_twisted.storage.rate import Rate
from iscsi_twisted.storage.stripe import Stripe

__all__ = [
    "BlockDevice",
    "Concatenation",
    "Delay",
    "Fault",
    "Faults",
    "FileExtent",
    "Filter",
    "MemoryDevice",
    "Mirror",
    "Overlay",
    "OverlayFile",
    "Rate",
    "ReadOnly",
    "Slice",
    "Stripe",
    "asDevice",
]
