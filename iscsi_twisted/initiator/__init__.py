"""An iSCSI initiator: log in to targets, and use their units with Deferreds or C{await}."""

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
