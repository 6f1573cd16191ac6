# -*- test-case-name: tests.storage.test_faults -*-
"""A device that fails on demand, in the ways in which devices fail."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from random import Random
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime

from iscsi_twisted.errors import DeviceError, LocalError, ReadError, WriteError
from iscsi_twisted.interfaces import Buffer, Pending
from iscsi_twisted.storage.delay import begin
from iscsi_twisted.storage.device import checkRange
from iscsi_twisted.storage.filters import Filter
from iscsi_twisted.storage.pending import nothing, whenDone

OPERATIONS: Final = ("read", "write", "flush", "discard", "zero")

KINDS: Final[dict[str, tuple[str, ...]]] = {
    "error": OPERATIONS,
    "torn": ("write",),
    "lost": ("write", "flush", "discard", "zero"),
    "hang": OPERATIONS,
    "corrupt": ("read", "write"),
}
"""What may go wrong, and with which operations."""

SECTOR: Final = 512
"""Bytes that a disk writes wholly or not at all."""


class Fault:
    """
    What goes wrong, and when.  All attributes may be set at any time.

    @ivar kind: C{error}: nothing is done, and the operation fails.  C{torn}: some of the first sectors of a
        write reach the medium, and it fails.  C{lost}: nothing is done, and the operation succeeds.
        C{hang}: nothing is done until L{Faults.release}, or for a time.  C{corrupt}: one bit of what is
        read or written is another one, and the operation succeeds.
    @ivar on: the operations that it may hit, of L{OPERATIONS}.
    @ivar probability: that it hits one of those.
    @ivar start: the first byte of the device where it may hit.
    @ivar length: bytes of the range where it may hit; None for 'to the end'.  Flushes have no place, so
        that a fault hits them wherever it is.
    @ivar nth: if not 0, it hits only this one of those, counted from 1.
    @ivar every: if not 0, it hits only each so-and-so-many-th.
    @ivar times: how often it may still hit; None for any number.
    @ivar seconds: how long an operation hangs; None for 'until it is released'.
    @ivar active: if false it hits nothing, and counts nothing.
    @ivar seen: operations that it might have hit.
    @ivar hits: those that it hit.
    """

    def __init__(
        self,
        kind: str,
        on: Collection[str] | None = None,
        *,
        probability: float = 1.0,
        start: int = 0,
        length: int | None = None,
        nth: int = 0,
        every: int = 0,
        times: int | None = None,
        seconds: float | None = None,
        active: bool = True,
    ) -> None:
        """@raise LocalError: if that makes no sense."""
        self.kind = kind
        self.on = frozenset(KINDS.get(kind, ()) if on is None else on)
        self.probability = probability
        self.start = start
        self.length = length
        self.nth = nth
        self.every = every
        self.times = times
        self.seconds = seconds
        self.active = active
        self.seen = self.hits = 0
        fault = nonsense(kind, self.on)
        if fault is not None:
            raise LocalError(fault)

    def strikes(self, operation: str, offset: int, length: int, random: Random) -> bool:
        """Whether it hits an operation, which it then counts."""
        if not self.active or operation not in self.on:
            return False
        if operation != "flush" and not self._covers(offset, offset + length):
            return False
        self.seen += 1
        if (self.nth and self.seen != self.nth) or (self.every and self.seen % self.every):
            return False
        if self.times == 0 or (self.probability < 1 and random.random() >= self.probability):
            return False
        self.hits += 1
        if self.times is not None:
            self.times -= 1
        return True

    def _covers(self, first: int, end: int) -> bool:
        return self.start < end and (self.length is None or first < self.start + self.length)


def nonsense(kind: str, on: Collection[str]) -> str | None:
    """What is wrong with such a fault, or None."""
    if kind not in KINDS:
        return f"{kind!r} is no kind of fault; take one of {', '.join(KINDS)}"
    surplus = sorted(set(on) - set(KINDS[kind]))
    if surplus or not on:
        what = " and ".join(surplus) or "nothing"
        return f"a fault of kind {kind} cannot be on {what}; it can be on {', '.join(KINDS[kind])}"
    return None


class Faults(Filter):
    """
    Lets operations go wrong.

    The first of its faults that hits an operation decides.  The same operations in the same order meet the
    same faults each time, since chance comes from a source with a seed.

    @ivar faults: what may go wrong; a list that may be changed at any time.
    @ivar active: if false nothing goes wrong, and nothing is counted.
    """

    def __init__(
        self,
        member: Any,
        faults: Iterable[Fault],
        reactor: IReactorTime,
        *,
        random: Random | None = None,
        active: bool = True,
    ) -> None:
        """
        @param reactor: whose time it is, for what hangs.
        @param random: where chance comes from; by default the same each time.
        """
        super().__init__(member)
        self.faults = list(faults)
        self.active = active
        self._reactor = reactor
        self._random = random or Random(0)
        self._hanging: list[_Hanging] = []

    @property
    def hanging(self) -> int:
        """How many operations hang."""
        return len(self._hanging)

    def release(self) -> None:
        """Let everything that hangs go on."""
        hanging, self._hanging = self._hanging, []
        for operation in hanging:
            operation.go()

    def close(self) -> Pending | None:
        """What hangs goes on first."""
        self.release()
        return self.member.close()

    def forget(self, operation: _Hanging) -> None:
        """An operation hangs no longer."""
        if operation in self._hanging:
            self._hanging.remove(operation)

    def read(self, offset: int, length: int) -> Buffer | Pending:
        if self.active:
            return self._perform("read", offset, length, offset, length)  # type: ignore[no-any-return]
        return self.member.read(offset, length)

    def write(self, offset: int, data: Buffer) -> Pending | None:
        if self.active:
            return self._perform("write", offset, len(data), offset, data)  # type: ignore[no-any-return]
        return self.member.write(offset, data)

    def flush(self) -> Pending | None:
        return self._perform("flush", 0, 0)  # type: ignore[no-any-return]

    def discard(self, offset: int, length: int) -> Pending | None:
        return self._perform("discard", offset, length, offset, length)  # type: ignore[no-any-return]

    def zero(self, offset: int, length: int, unmap: bool) -> Pending | None:
        return self._perform("zero", offset, length, offset, length, unmap)  # type: ignore[no-any-return]

    def _perform(self, operation: str, offset: int, length: int, *arguments: Any) -> Any:
        method = getattr(self.member, operation)
        if not self.active:
            return method(*arguments)
        checkRange(self.size, offset, length)
        for fault in self.faults:
            if fault.strikes(operation, offset, length, self._random):
                return getattr(self, f"_{fault.kind}")(fault, operation, method, offset, length, arguments)
        return method(*arguments)

    # One method for each kind of fault

    def _error(self, fault: Fault, operation: str, method: Any, offset: int, length: int, _: Any) -> None:
        where = None if operation == "flush" else max(offset, fault.start)
        raise _failure(operation)(f"{self.member}: {operation} fails, as it was told to", where)

    def _lost(self, fault: Fault, operation: str, method: Any, offset: int, length: int, _: Any) -> None:
        return None

    def _torn(
        self, fault: Fault, operation: str, method: Any, offset: int, length: int, arguments: Any
    ) -> Any:
        kept = self._random.randrange(-(-length // SECTOR) or 1) * SECTOR

        def fail(_: None) -> None:
            raise WriteError(f"{self.member}: a write is torn, as it was told to be", offset + kept)

        return whenDone(method(offset, memoryview(arguments[1])[:kept]) if kept else None, fail)

    def _hang(
        self, fault: Fault, operation: str, method: Any, offset: int, length: int, arguments: Any
    ) -> Pending:
        hanging = _Hanging(self, method, arguments)
        self._hanging.append(hanging)
        if fault.seconds is not None:
            hanging.timer = self._reactor.callLater(fault.seconds, hanging.go)
        return hanging

    def _corrupt(
        self, fault: Fault, operation: str, method: Any, offset: int, length: int, arguments: Any
    ) -> Any:
        if operation == "read":
            return whenDone(method(*arguments), self._flipped)
        return whenDone(method(offset, self._flipped(arguments[1])), nothing)

    def _flipped(self, data: Buffer) -> bytes:
        """The same data with one bit turned over."""
        changed = bytearray(data)
        if changed:
            changed[self._random.randrange(len(changed))] ^= 1 << self._random.randrange(8)
        return bytes(changed)


def _failure(operation: str) -> type[DeviceError]:
    return ReadError if operation == "read" else WriteError


class _Hanging(Deferred[Any]):
    """
    An operation that hangs.  While it does it can be cancelled, and is then never made.

    @ivar timer: what lets it go on, if anything does.
    """

    def __init__(self, faults: Faults, method: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.timer: Any = None
        self._faults = faults
        self.addCallback(lambda _: begin(method, *arguments))

    def go(self) -> None:
        """Begin the operation at last."""
        self._leave()
        self.callback(None)

    def cancel(self) -> None:
        if self.called:
            super().cancel()
        else:
            self._leave()
            self.errback(CancelledError())

    def _leave(self) -> None:
        self._faults.forget(self)
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
