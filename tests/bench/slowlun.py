"""
A target of three disks, for the bench: LUN 1's device takes 100 ms for each operation, LUN 2's hangs.

Run as C{python -m tests.bench.slowlun PORT FILE}.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from iscsi_twisted.storage import Delay, Fault, Faults, FileExtent, MemoryDevice
from iscsi_twisted.target.service import TargetService
from iscsi_twisted.target.transport import VectorEndpoint

SLOW = 0.1
"""Seconds of each operation."""


def main(port: int, path: str) -> None:
    """Serve until a signal comes."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    service = TargetService(reactor, [VectorEndpoint(reactor, port, "127.0.0.1")])
    fast = FileExtent(path, 0, os.path.getsize(path), reactor=reactor)
    slow = Delay(MemoryDevice(64 * 1024 * 1024), SLOW, reactor)
    hanging = Faults(MemoryDevice(64 * 1024 * 1024), [Fault("hang")], reactor)
    service.addTarget("iqn.1994-04.org.netbsd.iscsi-target:target0", [fast, slow, hanging])
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
