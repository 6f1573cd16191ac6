# Run it with: python examples/custom_device.py [PORT]
# and try:     iscsi-ls -s iscsi://127.0.0.1/
#
# Serves three block devices of one's own as LUN 0, 1 and 2 of one target.  They are in devices.py beside this
# file, each in about ten lines: with plain functions, with Deferreds, and with 'async def'.
# What you see: the log of whoever logs in and out.  Ctrl-C stops it.

import sys
from typing import Any

from devices import Ram, RemoteRam, SlowRam
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.python.log import startLogging

from iscsi_twisted.target import TargetService


async def main(reactor: Any, port: str = "3260") -> None:
    """Serve until Ctrl-C."""
    service = TargetService(reactor, [f"tcp:{port}:interface=127.0.0.1"])
    size = 16 << 20
    disks = [Ram(size), SlowRam(size, reactor), RemoteRam(size, reactor)]
    service.addTarget("iqn.2001-04.com.example:custom", disks)
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    await Deferred()


if __name__ == "__main__":
    startLogging(sys.stdout)
    react(main, sys.argv[1:])
