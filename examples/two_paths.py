# Run it with: python examples/two_paths.py [PORT]
# and try:     iscsi-ls iscsi://127.0.0.1/
#
# A disk of 64 MiB of memory that is reached through two portal groups, each a path of its own: one is at
# PORT of 127.0.0.1, the other at PORT of 127.0.0.2.  One is active, the other on standby; every 30 seconds
# they change places.
# What you see: which is which.  Hosts with a multipath driver follow; commands through the standby path
# are refused with NOT READY.  Ctrl-C stops it.

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, react
from twisted.python.log import startLogging

from iscsi_twisted.scsi.paths import OPTIMIZED, STANDBY
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.target import TargetService

TARGET = "iqn.2001-04.com.example:two-paths"


async def main(reactor: Any, port: str = "3260") -> None:
    """Serve until Ctrl-C."""
    service = TargetService(reactor, [f"tcp:{port}:interface=127.0.0.{tag}:tpgt={tag}" for tag in (1, 2)])
    service.addTarget(TARGET, [MemoryDevice(64 << 20)])
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    active = 2

    def change() -> None:
        nonlocal active
        active = 3 - active
        service.setAccess(TARGET, {active: OPTIMIZED, 3 - active: STANDBY})
        print(f"group {active} is active, group {3 - active} on standby", flush=True)

    changing = LoopingCall(change)
    changing.clock = reactor
    changing.start(30.0)
    await Deferred()


if __name__ == "__main__":
    startLogging(sys.stdout)
    react(main, sys.argv[1:])
