# Run it with: python examples/devices.py
#
# Three block devices of one's own, each in about ten lines: with plain functions, with Deferreds, and with
# 'async def'.  What you see: each is opened, written and read, and prints b'hello from ...'.

from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.task import deferLater, react

from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.storage import BlockDevice, asDevice


class Ram(BlockDevice):
    """A disk in memory: plain functions, which answer at once."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.memory = bytearray(size)

    def read(self, offset: int, length: int) -> Buffer:
        return bytes(self.memory[offset : offset + length])

    def write(self, offset: int, data: Buffer) -> None:
        self.memory[offset : offset + len(data)] = data


class SlowRam(BlockDevice):
    """A disk that takes its time: Deferreds, which answer when the disk has turned far enough."""

    def __init__(self, size: int, reactor: Any) -> None:
        self.size = size
        self.memory = Ram(size)
        self.reactor = reactor

    def read(self, offset: int, length: int) -> Deferred[Buffer]:
        return deferLater(self.reactor, 0.01, self.memory.read, offset, length)

    def write(self, offset: int, data: Buffer) -> Deferred[None]:
        return deferLater(self.reactor, 0.01, self.memory.write, offset, data)


class RemoteRam:
    """A disk behind something that is awaited.  It derives from nothing: asDevice() supplies the rest."""

    def __init__(self, size: int, reactor: Any) -> None:
        self.size = size
        self.storage = SlowRam(size, reactor)

    async def read(self, offset: int, length: int) -> Buffer:
        return await self.storage.read(offset, length)

    async def write(self, offset: int, data: Buffer) -> None:
        await self.storage.write(offset, data)


@inlineCallbacks
def demonstrate(reactor: Any) -> Any:
    """Open, write, read and print."""
    for device in (Ram(1 << 20), SlowRam(1 << 20, reactor), asDevice(RemoteRam(1 << 20, reactor))):
        text = f"hello from {device}".encode()
        yield maybeDeferred(device.open, lambda: None)
        yield maybeDeferred(device.write, 4096, text)
        print((yield maybeDeferred(device.read, 4096, len(text))))
        yield maybeDeferred(device.close)


if __name__ == "__main__":
    react(demonstrate)
