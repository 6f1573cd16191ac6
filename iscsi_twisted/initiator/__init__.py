"""An iSCSI initiator: log in to targets, and use their units with Deferreds or C{await}."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iscsi_twisted.auth.chap import Credentials
    from iscsi_twisted.initiator.asked import Residual
    from iscsi_twisted.initiator.lun import LUN
    from iscsi_twisted.initiator.memory import MemoryEndpoint
    from iscsi_twisted.initiator.node import Found, Initiator
    from iscsi_twisted.initiator.remote import RemoteExtent
    from iscsi_twisted.initiator.session import Session
    from iscsi_twisted.initiator.url import URL, parseURL

__all__ = [
    "LUN",
    "URL",
    "Credentials",
    "Found",
    "Initiator",
    "MemoryEndpoint",
    "RemoteExtent",
    "Residual",
    "Session",
    "parseURL",
]

_HOMES = {
    "auth.chap": "Credentials",
    "initiator.asked": "Residual",
    "initiator.lun": "LUN",
    "initiator.memory": "MemoryEndpoint",
    "initiator.node": "Found Initiator",
    "initiator.remote": "RemoteExtent",
    "initiator.session": "Session",
    "initiator.url": "URL parseURL",
}
"""
Modules, and what comes out of them.

They are imported when somebody asks: who only wants to know a URL should not wait for Twisted.
"""


def __getattr__(name: str) -> Any:
    """Something from one of the modules, the first time that it is asked for."""
    for home, names in _HOMES.items():
        if name in names.split():
            value = globals()[name] = getattr(import_module(f"iscsi_twisted.{home}"), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
