"""
Twisted glue: a configuration becomes devices, units, targets, portals and a service.

An application makes a L{TargetService}, adds targets made of block devices (L{iscsi_twisted.storage}), and
gives it a parent.
"""

from iscsi_twisted.target.listeners import Listener
from iscsi_twisted.target.protocol import TargetFactory
from iscsi_twisted.target.service import TargetService
from iscsi_twisted.target.status import ServiceStatus
from iscsi_twisted.target.transport import VectorEndpoint

__all__ = ["Listener", "ServiceStatus", "TargetFactory", "TargetService", "VectorEndpoint"]
