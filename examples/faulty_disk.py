# Run it with: python examples/faulty_disk.py [PORT]
# and try:     qemu-io -f raw -c 'read 0 1M' iscsi://127.0.0.1/iqn.2001-04.com.example:faulty/0
#
# A disk of 64 MiB of memory that takes 2 ms for each operation and whose block at 1 MiB cannot be read.
# That heals after 30 seconds, and breaks again 30 seconds later.
# What you see: whether it is broken, and how many reads have failed.  'read 0 1M' is good, but 'read 1M 1M'
# fails with a medium error while it is broken.  Ctrl-C stops it.

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, react
from twisted.python.log import startLogging

from iscsi_twisted.storage import Delay, Fault, Faults, MemoryDevice
from iscsi_twisted.target import TargetService

MIB = 1 << 20


async def main(reactor: Any, port: str = "3260") -> None:
    """Serve until Ctrl-C."""
    spot = Fault("error", ["read"], start=MIB, length=512, active=False)

    def toggle() -> None:
        spot.active = not spot.active
        print("broken" if spot.active else "good", spot.hits, "reads failed", flush=True)

    disk = Delay(Faults(MemoryDevice(64 * MIB), [spot], reactor), 0.002, reactor)
    service = TargetService(reactor, [f"tcp:{port}:interface=127.0.0.1"])
    service.addTarget("iqn.2001-04.com.example:faulty", [disk])
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    toggling = LoopingCall(toggle)
    toggling.clock = reactor
    toggling.start(30.0)
    await Deferred()


if __name__ == "__main__":
    startLogging(sys.stdout)
    react(main, sys.argv[1:])
