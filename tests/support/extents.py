"""
Extents for tests.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import (
    DeviceError,
)
from iscsi_twisted.interfaces import isPending
from iscsi_twisted.storage import FileExtent, extent, extentlife
from tests.support.devicecontract import SIZE
from tests.support.threads import StepPool, StepReactor, Ticks


class ExtentCase(SynchronousTestCase):
    """An extent in the middle of a file, with a pool and a clock that wait for the test."""

    START = 5000

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.pool = StepPool()
        self.clock = Ticks()

    def makeExtent(self, **how: Any) -> FileExtent:
        """An extent that is not open."""
        how = {"start": self.START, "length": SIZE, "clock": self.clock, "waited": lambda: 0.0} | how
        return FileExtent(self.path, reactor=StepReactor(), threadPool=self.pool, **how)

    def opened(self, **how: Any) -> FileExtent:
        """One that is open; closed when the test ends."""
        device = self.makeExtent(**how)
        device.open(how.pop("changed", lambda: None))
        self.addCleanup(self.closed, device)
        return device

    def closed(self, device: FileExtent) -> None:
        """Close it, whatever becomes of that."""
        result = device.close()
        self.pool.run()
        if result is not None:
            result.addErrback(lambda failure: failure.trap(DeviceError))

    def outcome(self, result: Any) -> Any:
        """A pending result, with all threads run."""
        self.assertTrue(isPending(result), f"{result!r} is not pending")
        self.pool.run()
        return self.successResultOf(result)

    def failing(self, name: str, number: int, module: Any = extent) -> None:
        """Let a system call fail."""

        def call(*arguments: Any) -> Any:
            raise OSError(number, os.strerror(number))

        self.patch(module.os, name, call)

    def cachedAnswers(self, answer: bool) -> None:
        """Let the file system tell what is cached, or not, whatever it really does."""
        self.patch(extentlife, "_tellsWhatIsCached", lambda fd, position: answer)
        real = os.preadv

        def call(fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
            return real(fd, buffers, offset)

        self.patch(extent.os, "preadv", call)
