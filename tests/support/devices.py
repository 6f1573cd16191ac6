"""
Block devices for tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from iscsi_twisted.errors import LocalError
from iscsi_twisted.interfaces import Buffer, Capabilities
from iscsi_twisted.storage import BlockDevice


class FakeOperation(Deferred[Any]):
    """
    An operation of a L{FakeDevice} that waits for the test.

    @ivar name: the method that was called.
    @ivar arguments: with what.
    @ivar cancelled: how often C{cancel} was called.
    """

    def __init__(self, device: FakeDevice, name: str, arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.device = device
        self.name = name
        self.arguments = arguments
        self.cancelled = 0

    def __repr__(self) -> str:
        return f"<{self.name}{self.arguments!r}>"

    def fire(self) -> None:
        """Let the operation happen and succeed."""
        self.device.operations.remove(self)
        self.callback(self.device.perform(self.name, *self.arguments))

    def fail(self, error: Exception) -> None:
        """Let the operation fail; nothing has happened then."""
        self.device.operations.remove(self)
        self.errback(error)

    def cancel(self) -> None:
        self.cancelled += 1
        if self.called:
            super().cancel()
        elif self.device.obeysCancel:
            self.device.operations.remove(self)
            super().cancel()


class FakeDevice(BlockDevice):
    """
    A device in memory whose operations the test fires or fails, in any order.

    @ivar contents: what it holds.
    @ivar operations: those that are pending, oldest first.
    @ivar history: C{(name, arguments)} of every operation that was ever begun.
    @ivar synchronous: operations happen at once; may be set at any time.
    @ivar error: if not None, what every operation raises at once.
    @ivar obeysCancel: cancelling ends a pending operation; otherwise it is ignored.
    @ivar changed: the callback that C{open} was given; None unless the device is open.
    @ivar openings: how often it was opened.
    @ivar closings: how often it was closed.
    """

    def __init__(
        self,
        size: int = 1 << 20,
        blockSize: int = 1,
        capabilities: Capabilities = Capabilities(discard=True, zero=True, discardZeroes=True),  # noqa: B008
        *,
        synchronous: bool = False,
        obeysCancel: bool = False,
    ) -> None:
        self.size = size
        self.blockSize = blockSize
        self.contents = bytearray(size)
        self.operations: list[FakeOperation] = []
        self.history: list[tuple[str, tuple[Any, ...]]] = []
        self.synchronous = synchronous
        self.error: Exception | None = None
        self.obeysCancel = obeysCancel
        self.changed: Callable[[], None] | None = None
        self.openings = 0
        self.closings = 0
        self._capabilities = capabilities

    def fire(self) -> None:
        """Let all pending operations happen, oldest first, and those that this leads to."""
        while self.operations:
            self.operations[0].fire()

    def open(self, changed: Callable[[], None]) -> None:
        if self.error is not None:
            raise self.error
        self.openings += 1
        self.changed = changed

    def close(self) -> None:
        self.closings += 1
        self.changed = None

    def capabilities(self) -> Capabilities:
        return self._capabilities

    def read(self, offset: int, length: int) -> Any:
        return self._begin(offset, length, "read", offset, length)

    def write(self, offset: int, data: Buffer) -> Any:
        return self._begin(offset, len(data), "write", offset, bytes(data))

    def flush(self) -> Any:
        return self._begin(0, 0, "flush")

    def discard(self, offset: int, length: int) -> Any:
        return self._begin(offset, length, "discard", offset, length)

    def zero(self, offset: int, length: int, unmap: bool) -> Any:
        return self._begin(offset, length, "zero", offset, length, unmap)

    def allocated(self, offset: int, length: int) -> Any:
        return self._begin(offset, length, "allocated", offset, length)

    def _begin(self, offset: int, length: int, name: str, *arguments: Any) -> Any:
        if not 0 <= offset <= offset + length <= self.size:
            raise LocalError(f"{name}{arguments} is out of range")
        self.history.append((name, arguments))
        if self.error is not None:
            raise self.error
        if self.synchronous:
            return self.perform(name, *arguments)
        operation = FakeOperation(self, name, arguments)
        self.operations.append(operation)
        return operation

    def perform(self, name: str, *arguments: Any) -> Any:
        """Do an operation to C{contents}."""
        if name == "flush":
            return None
        offset, what = arguments[:2]
        if name == "read":
            return bytes(self.contents[offset : offset + what])
        if name == "allocated":
            return [(what, True)] if what else []
        data = what if name == "write" else bytes(what)
        self.contents[offset : offset + len(data)] = data
        return None


class Door(BlockDevice):
    """
    A device whose opening and closing wait for the test.

    @ivar calls: what was called, in order.
    @ivar opening: fires when the test lets it be opened.
    @ivar closing: the same for closing.
    """

    def __init__(self, *, opening: Any = None, closing: Any = None, flushing: Any = None) -> None:
        self.size = 1 << 20
        self.calls: list[str] = []
        self.opening, self.closing, self.flushing = opening, closing, flushing

    def open(self, changed: Any) -> Any:
        self.calls.append("open")
        return self._answer(self.opening)

    def close(self) -> Any:
        self.calls.append("close")
        return self._answer(self.closing)

    def flush(self) -> Any:
        self.calls.append("flush")
        return self._answer(self.flushing)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(length)

    def _answer(self, answer: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer


class Stubborn(Deferred[None]):
    """A result that cannot be cancelled."""

    def cancel(self) -> None:
        """Take no notice."""
