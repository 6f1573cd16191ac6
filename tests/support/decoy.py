"""
What a flood attacks in place of a target: C{python -m tests.support.decoy}.

It refuses every login at its first request, with as little work as can be.  So the flood costs the machine
what it always costs, and the target nothing.  Prints its port.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from iscsi_twisted.wire import layout, numbers

ROOT = Path(__file__).resolve().parents[2]
REFUSAL = layout.LOGIN_RESPONSE.pack(
    numbers.LOGIN_RESPONSE, 0, 0, 0, 0, bytes(6), 0, 1, 1, 1, 1, numbers.SERVICE_UNAVAILABLE
)


class Refusing(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(REFUSAL)
        self.transport.close()


class Decoy:
    """
    One, seen from who started it.

    @ivar port: where it listens.
    """

    def __init__(self) -> None:
        command = [sys.executable, "-m", __name__]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        with self.process.stdout as output:
            self.port = int(output.readline())

    def stop(self) -> None:
        """End it."""
        with suppress(OSError):
            self.process.kill()
        self.process.wait()


async def serve() -> None:
    """Until it is killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Refusing, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
