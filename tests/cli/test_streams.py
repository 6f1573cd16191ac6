"""Standard input and output beside a reactor."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from iscsi_twisted.cli.streams import Stream


class StreamTests(TestCase):
    """L{Stream} on pipes."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        read, write = os.pipe()
        self.ends = {"read": read, "write": write}
        self.addCleanup(self.close, "read")
        self.addCleanup(self.close, "write")

    def close(self, end: str) -> None:
        """Close an end that is not closed yet."""
        if end in self.ends:
            os.close(self.ends.pop(end))

    async def test_read(self) -> None:
        """What comes later is waited for, and the end is none."""
        stream, buffer = Stream(self.reactor, self.ends["read"]), bytearray(8)
        reading = Deferred.fromCoroutine(stream.read(memoryview(buffer)))
        self.assertNoResult(reading)
        self.reactor.callLater(0, os.write, self.ends["write"], b"abc")
        self.assertEqual((await reading, buffer[:3]), (3, b"abc"))
        self.close("write")
        self.assertEqual(await stream.read(memoryview(buffer)), 0)

    async def test_write(self) -> None:
        """A full pipe keeps nobody from anything; all arrives in order."""
        data = os.urandom(1 << 20)
        out, back = Stream(self.reactor, self.ends["write"]), Stream(self.reactor, self.ends["read"])
        writing = Deferred.fromCoroutine(out.write(memoryview(data)))
        self.assertNoResult(writing)
        got, buffer = bytearray(), bytearray(100_000)
        while len(got) < len(data):
            got += buffer[: await back.read(memoryview(buffer))]
        await writing
        self.assertEqual(got, data)

    async def test_nobodyReads(self) -> None:
        """Nobody reads any more."""
        writing = Deferred.fromCoroutine(
            Stream(self.reactor, self.ends["write"]).write(memoryview(bytes(1 << 20)))
        )
        self.close("read")
        with self.assertRaises(BrokenPipeError):
            await writing

    async def test_cancelled(self) -> None:
        """Who waits for what never comes can be stopped."""
        stream = Stream(self.reactor, self.ends["read"])
        reading = Deferred.fromCoroutine(stream.read(memoryview(bytearray(8))))
        reading.cancel()
        with self.assertRaises(CancelledError):
            await reading
        self.assertNotIn(stream, self.reactor.getReaders())
