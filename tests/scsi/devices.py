"""Block devices in memory that answer at once, or when they are told to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from iscsi_twisted.interfaces import Buffer, Capabilities, IBlockDevice, IStateStore

PLAIN = Capabilities()
"""What cannot do anything special."""
THIN = Capabilities(volatileCache=True, discard=True, zero=True, discardZeroes=True)
"""What a sparse file in a page cache can do."""


@implementer(IBlockDevice)
class MemoryDisk:
    """
    Answers at once.

    @ivar calls: what it was asked, in order; data of writes left out.
    @ivar error: raised by every call while it is not None.
    @ivar spare: what C{space} returns.
    """

    blockSize = 1

    def __init__(self, size: int, capabilities: Capabilities = PLAIN) -> None:
        self.size = size
        self.content = bytearray(size)
        self.calls: list[tuple[Any, ...]] = []
        self.error: BaseException | None = None
        self.spare: Any = None
        self._capabilities = capabilities

    def open(self, changed: Callable[[], None]) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def capabilities(self) -> Capabilities:
        """What it was made with."""
        return self._capabilities

    def rekey(self) -> Any:
        """Its bytes stay what they are: there is no key."""
        return self.answer(("rekey",), lambda: None)

    def answer(self, call: tuple[Any, ...], act: Callable[[], Any]) -> Any:
        """Do what was asked."""
        self.calls.append(call)
        if self.error is not None:
            raise self.error
        return act()

    def read(self, offset: int, length: int) -> Any:
        """The bytes."""
        return self.answer(("read", offset, length), lambda: bytes(self.content[offset : offset + length]))

    def write(self, offset: int, data: Buffer) -> Any:
        """Change the bytes."""
        return self.answer(("write", offset, len(data)), lambda: self._put(offset, data))

    def flush(self) -> Any:
        """Nothing to do."""
        return self.answer(("flush",), lambda: None)

    def discard(self, offset: int, length: int) -> Any:
        """Forget the bytes."""
        return self.answer(("discard", offset, length), lambda: self._put(offset, bytes(length)))

    def zero(self, offset: int, length: int, unmap: bool) -> Any:
        """Zero the bytes."""
        return self.answer(("zero", offset, length, unmap), lambda: self._put(offset, bytes(length)))

    def allocated(self, offset: int, length: int) -> Any:
        """All of it has storage."""
        return [(length, True)]

    def space(self) -> Any:
        """What it was told."""
        return self.spare

    def _put(self, offset: int, data: Buffer) -> None:
        assert 0 <= offset <= offset + len(data) <= self.size, "beyond the end"
        self.content[offset : offset + len(data)] = data


class Stubborn(Deferred[Any]):
    """A result that cannot be cancelled: it comes when the operation has ended."""

    def cancel(self) -> None:
        """Ignored, as L{IBlockDevice} allows."""


class PendingDisk(MemoryDisk):
    """
    Answers when told to, in any order.

    @ivar pending: the calls that are not answered.
    @ivar cancellable: whether cancelling ends an operation at once.
    """

    def __init__(self, size: int, capabilities: Capabilities = PLAIN) -> None:
        super().__init__(size, capabilities)
        self.pending: list[tuple[Deferred[Any], Callable[[], Any]]] = []
        self.cancellable = False

    def answer(self, call: tuple[Any, ...], act: Callable[[], Any]) -> Any:
        """Keep the question."""
        self.calls.append(call)
        deferred: Deferred[Any] = Deferred(self._forget) if self.cancellable else Stubborn()
        self.pending.append((deferred, act))
        return deferred

    def _forget(self, deferred: Deferred[Any]) -> None:
        self.pending = [each for each in self.pending if each[0] is not deferred]
        deferred.errback(CancelledError())

    def fire(self, index: int = 0) -> None:
        """Do and answer one of the pending operations."""
        deferred, act = self.pending.pop(index)
        deferred.callback(act())

    def breakDown(self, error: BaseException, index: int = 0) -> None:
        """Answer one of the pending operations with an error."""
        deferred, _ = self.pending.pop(index)
        deferred.errback(error)


@implementer(IStateStore)
class MemoryStore:
    """
    Keeps everything that it is given.

    @ivar states: all of it, in order.
    @ivar waiting: what the next call of C{save} returns.
    """

    def __init__(self) -> None:
        self.states: list[bytes] = []
        self.waiting: Deferred[None] | None = None

    def load(self) -> bytes:
        """The last one."""
        return self.states[-1] if self.states else b""

    def save(self, state: bytes) -> Deferred[None] | None:
        """Keep it; durably when C{waiting} fires."""
        self.states.append(state)
        waiting, self.waiting = self.waiting, None
        return waiting


class Turns:
    """
    Turns of a reactor that come when a test says so.

    @ivar waiting: what is to be called.
    """

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def later(self, function: Callable[[], None]) -> None:
        """As L{iscsi_twisted.scsi.work.Later}."""
        self.waiting.append(function)

    def turn(self, turns: int = 1) -> None:
        """Let so many turns go by."""
        for _ in range(turns):
            waiting, self.waiting = self.waiting, []
            for function in waiting:
                function()

    def all(self) -> None:
        """Go on until nothing is left."""
        while self.waiting:
            self.turn()
