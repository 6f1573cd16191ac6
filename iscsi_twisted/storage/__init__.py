"""
Block devices: extents, memory, and devices made of devices.

For a device of one's own derive from L{BlockDevice}, or hand any object with C{size}, C{read} and
C{write} to L{asDevice}.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iscsi_twisted.storage.concatenation import Concatenation
    from iscsi_twisted.storage.crypt import Crypt, KeyFile
    from iscsi_twisted.storage.delay import Delay
    from iscsi_twisted.storage.device import BlockDevice, asDevice
    from iscsi_twisted.storage.extent import FileExtent
    from iscsi_twisted.storage.faults import Fault, Faults
    from iscsi_twisted.storage.filters import Filter, ReadOnly, Slice
    from iscsi_twisted.storage.memory import MemoryDevice
    from iscsi_twisted.storage.mirror import Mirror
    from iscsi_twisted.storage.overlay import Overlay
    from iscsi_twisted.storage.overlayfile import OverlayFile
    from iscsi_twisted.storage.rate import Rate
    from iscsi_twisted.storage.stripe import Stripe

__all__ = [
    "BlockDevice",
    "Concatenation",
    "Crypt",
    "Delay",
    "Fault",
    "Faults",
    "FileExtent",
    "Filter",
    "KeyFile",
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

_HOMES = {
    "concatenation": "Concatenation",
    "crypt": "Crypt KeyFile",
    "delay": "Delay",
    "device": "BlockDevice asDevice",
    "extent": "FileExtent",
    "faults": "Fault Faults",
    "filters": "Filter ReadOnly Slice",
    "memory": "MemoryDevice",
    "mirror": "Mirror",
    "overlay": "Overlay",
    "overlayfile": "OverlayFile",
    "rate": "Rate",
    "stripe": "Stripe",
}
"""
Modules, and what comes out of them.

They are imported when somebody asks: an initiator needs one of them, and should not start later for the rest.
"""


def __getattr__(name: str) -> Any:
    """Something from one of the modules, the first time that it is asked for."""
    for home, names in _HOMES.items():
        if name in names.split():
            value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
