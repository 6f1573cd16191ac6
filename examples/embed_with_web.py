# Run it with: python examples/embed_with_web.py [PORT [WEBPORT]]
# and try:     iscsi-ls -s iscsi://127.0.0.1/    and    curl http://127.0.0.1:8080/
#
# A target inside a larger Twisted application, which also serves the target's status as JSON on loopback.
# What you see: the log of whoever logs in and out and of web requests; in the JSON the targets, the units and
# the sessions with their counters.  Ctrl-C stops both.

import json
import sys
from typing import Any

import attrs
from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react
from twisted.python.log import startLogging
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.target import TargetService


class Status(Resource):
    """What a target service is doing."""

    isLeaf = True

    def __init__(self, service: TargetService) -> None:
        super().__init__()
        self.service = service

    def render_GET(self, request: Request) -> bytes:
        request.setHeader(b"content-type", b"application/json")
        return json.dumps(attrs.asdict(self.service.status()), indent=2).encode()


async def main(reactor: Any, port: str = "3260", webPort: str = "8080") -> None:
    """Serve until Ctrl-C."""
    application = MultiService()
    target = TargetService(reactor, [f"tcp:{port}:interface=127.0.0.1"])
    target.addTarget("iqn.2001-04.com.example:embedded", [MemoryDevice(64 << 20)])
    target.setServiceParent(application)
    endpoint = serverFromString(reactor, f"tcp:{webPort}:interface=127.0.0.1")
    StreamServerEndpointService(endpoint, Site(Status(target))).setServiceParent(application)
    application.startService()
    reactor.addSystemEventTrigger("before", "shutdown", application.stopService)
    await Deferred()


if __name__ == "__main__":
    startLogging(sys.stdout)
    react(main, sys.argv[1:])
