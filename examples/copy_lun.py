# Run it with: python examples/copy_lun.py [iscsi://HOST[:PORT]/TARGET/LUN iscsi://HOST[:PORT]/TARGET/LUN]
#
# It copies a disk of one target to a disk of another.  Without arguments both targets are in this process,
# without sockets.  What you see is how many bytes were copied.
"""Copy a disk: read a unit of one target, and write it to a unit of another."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from iscsi_twisted.initiator import LUN, Initiator, MemoryEndpoint, parseURL
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.target import TargetFactory, TargetService

STEP = 1 << 20


async def copy(source: LUN, sink: LUN) -> int:
    """Copy all that fits; how many bytes that were."""
    size = min(source.size, sink.size)
    for place in range(0, size, STEP):
        length = min(STEP, size - place)
        await sink.write(place, await source.read(place, length))
    await sink.flush()
    return size


async def remote(reactor: Any, text: str) -> LUN:
    """The unit that a URL names."""
    url = parseURL(text)
    session = await Initiator(reactor).login(f"{url.host}:{url.port}", url.target, lasting=True)
    lun = LUN(session, url.lun or 0)
    await lun.open()
    return lun


async def local(reactor: Any, size: int) -> LUN:
    """A unit of a target in this process."""
    name = "iqn.2001-04.com.example:memory"
    service = TargetService(reactor, [])
    service.addTarget(name, [MemoryDevice(size)])
    service.privilegedStartService()
    service.startService()
    await service.whenReady()
    endpoint = MemoryEndpoint(reactor, TargetFactory(service.node, reactor))
    session = await Initiator(reactor).login(endpoint, name)
    lun = LUN(session)
    await lun.open()
    return lun


async def main(reactor: Any, *urls: str) -> None:
    """Copy, and say how much."""
    if urls:
        source, sink = [await remote(reactor, url) for url in urls]
    else:
        source, sink = await local(reactor, 5 << 20), await local(reactor, 5 << 20)
        await source.write(0, b"iSCSI" * (1 << 20))
    print(f"{await copy(source, sink)} bytes copied from {source} to {sink}")
    for lun in (source, sink):
        await lun.session.logout()


if __name__ == "__main__":
    react(lambda reactor, *urls: Deferred.fromCoroutine(main(reactor, *urls)), sys.argv[1:])
