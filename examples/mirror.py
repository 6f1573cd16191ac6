# Run it with: python examples/mirror.py [PORT]
# and try:     qemu-io -f raw -c 'write -P 7 0 1M' iscsi://127.0.0.1/iqn.2001-04.com.example:mirror/0
#
# A disk of 96 MiB whose every byte is in two places: in the file left, and in one of the files right0 and
# right1, which stand one behind the other.  All are made in the working directory, and in its directory
# 'state' what is known of them.
# What you see: the states of both members, and who logs in and out.  Ctrl-C stops it; afterwards
# 'cat right0 right1 | cmp - left' finds no difference.  Take left away, start it again, write, stop it, bring
# left back and start it once more: left gets what it lacks.

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.python.log import startLogging

from iscsi_twisted.storage import Concatenation, FileExtent, Mirror
from iscsi_twisted.target import TargetService

MIB = 1 << 20


async def main(reactor: Any, port: str = "3260") -> None:
    """Serve until Ctrl-C."""
    left = FileExtent("left", 0, 96 * MIB, reactor=reactor)
    right = Concatenation(
        [
            FileExtent("right0", 0, 32 * MIB, reactor=reactor),
            FileExtent("right1", 0, 64 * MIB, reactor=reactor),
        ]
    )
    service = TargetService(reactor, [f"tcp:{port}:interface=127.0.0.1"], stateDirectory="state")
    service.addTarget("iqn.2001-04.com.example:mirror", [Mirror([left, right])])
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    await Deferred()


if __name__ == "__main__":
    startLogging(sys.stdout)
    react(main, sys.argv[1:])
