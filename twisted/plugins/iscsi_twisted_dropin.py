"""
The C{twistd iscsi} plugin, and the endpoints C{iscsi-tls:}.

Every C{twistd} on a machine reads this file: it imports nothing of the package before that is wanted.
"""

from typing import Any

from twisted.application.service import ServiceMaker
from twisted.internet.interfaces import (
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(IPlugin, IStreamServerEndpointStringParser, IStreamClientEndpointStringParserWithReactor)
class _TLS:
    """iSCSI over TLS, for C{serverFromString} and C{clientFromString}."""

    prefix = "iscsi-tls"

    def parseStreamServer(self, reactor: Any, *args: Any, **kwargs: Any) -> Any:
        """A portal of a target."""
        from iscsi_twisted.target.secure import serverEndpoint

        return serverEndpoint(reactor, *args, **kwargs)

    def parseStreamClient(self, reactor: Any, *args: Any, **kwargs: Any) -> Any:
        """Where an initiator finds a target."""
        from iscsi_twisted.initiator.secure import clientEndpoint

        return clientEndpoint(reactor, *args, **kwargs)


iscsi = ServiceMaker("iSCSI target", "iscsi_twisted.tap", "Serve disks over iSCSI (RFC 7143).", "iscsi")
tls = _TLS()
