# -*- test-case-name: tests.initiator.test_replaying -*-
"""
A unit whose target may lose, when it is started anew, what it had not flushed: that is written once more.

Until they are durable, changes are kept here (L{Unflushed}).  When a unit attention tells that the target
was started anew, all that was kept is written again before anything else happens, so whoever reads sees what
was acknowledged, and a flush means what it says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from iscsi_twisted.errors import WriteError
from iscsi_twisted.initiator.unflushed import DISCARD, LIMIT, UNMAP, WRITE, ZERO, Piece, Unflushed
from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.storage.pending import attempt, gather, ready
from iscsi_twisted.storage.ranges import RangeLock

DEPTH: Final = 16
"""Pieces that are written again at once."""

_log = Logger(namespace="iscsi_twisted")


class Unit(Protocol):
    """
    What is written to.

    @ivar cached: it may end changes before they are durable.
    @ivar forced: it takes FUA, which makes a single write durable.
    """

    size: int

    @property
    def cached(self) -> bool: ...

    @property
    def forced(self) -> bool: ...

    def read(self, offset: int, length: int) -> Deferred[Any]: ...

    def write(self, offset: int, data: Buffer, *, fua: bool = ...) -> Deferred[None]: ...

    def flush(self) -> Deferred[None]: ...

    def discard(self, offset: int, length: int) -> Deferred[None]: ...

    def zero(self, offset: int, length: int, unmap: bool = ...) -> Deferred[None]: ...


class Replaying:
    """
    Reads and changes a unit.

    Changes of the same bytes are made one after another, or nobody would know which was the last.

    When there is no room to keep more, changes are made durable before they end; well before that a flush is
    begun in the background.
    """

    def __init__(self, unit: Unit, name: str, *, durable: bool = False, limit: int = LIMIT) -> None:
        """
        @param name: of the unit, for the log.
        @param durable: whether changes must not end before they are durable.
        @param limit: bytes that are kept.
        """
        self._unit, self._name, self._durable = unit, name, durable
        self._unflushed = Unflushed(limit)
        self._lock = RangeLock()
        self._epoch = 0
        self._stale = self._recovering = self._draining = False
        self._error: Exception | None = None
        self._broken: Exception | None = None

    @property
    def kept(self) -> int:
        """Bytes that are kept."""
        return self._unflushed.size

    def restarted(self) -> None:
        """The target was started anew: it may have lost what it had not flushed."""
        self._epoch += 1
        if self._unflushed and not self._stale:
            self._stale = True
            self._recover()

    # Reading

    def read(self, offset: int, length: int) -> Deferred[Any]:
        """The bytes as they were acknowledged."""
        if self._stale:
            return self._settled().addCallback(lambda _: self.read(offset, length))
        return self._unit.read(offset, length).addCallback(self._haveRead, self._epoch, offset, length)

    def _haveRead(self, data: Any, epoch: int, offset: int, length: int) -> Any:
        # What was read from a target that has just lost something may be older than what it had acknowledged.
        return data if epoch == self._epoch else self.read(offset, length)

    # Changing

    def write(self, offset: int, data: Buffer) -> Deferred[None]:
        """Write bytes."""
        return self._change(WRITE, offset, len(data), data)

    def zero(self, offset: int, length: int, unmap: bool) -> Deferred[None]:
        """Make bytes read as zeros."""
        return self._change(UNMAP if unmap else ZERO, offset, length, b"")

    def discard(self, offset: int, length: int) -> Deferred[None]:
        """Nobody needs these bytes any more."""
        return self._change(DISCARD, offset, length, b"")

    def _change(self, how: str, offset: int, length: int, data: Buffer) -> Deferred[None]:
        if not length:
            return succeed(None)
        unit, end = self._unit, offset + length
        if not (unit.cached or self._unflushed):
            return self._send(how, offset, end, data, False)
        changing = self._after(offset, end, self._perform, how, offset, end, data)
        if self._hurried and not (how == WRITE and unit.forced):
            # It cannot be made durable alone.
            changing.addCallback(lambda _: Deferred.fromCoroutine(self._flush()))
        return changing

    @property
    def _hurried(self) -> bool:
        """Whether changes have to be durable before they end: by wish, or for want of room to keep them."""
        return self._durable or self._unflushed.full

    def _after(self, offset: int, end: int, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Call a function when nothing is lost, and these bytes are nobody else's."""
        if not self._stale:
            return self._lock.run(offset, end, function, *arguments)  # type: ignore[no-any-return]
        self._recover()
        return self._lock.run(offset, end, self._whole, function, arguments)  # type: ignore[no-any-return]

    def _settled(self) -> Deferred[Any]:
        """Wait until what was lost is there again."""
        return self._after(0, self._unit.size, lambda: succeed(None))

    def _whole(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if self._error is not None:
            raise WriteError(
                f"{self._name}: its target was started anew, and what it had not flushed could not be written"
                f" again: {self._error}"
            )
        return function(*arguments)

    def _perform(self, how: str, offset: int, end: int, data: Buffer) -> Deferred[None]:
        unit = self._unit
        forced = how == WRITE and unit.forced and self._hurried
        changing = self._send(how, offset, end, data, forced)
        return changing.addCallback(self._done, how, offset, end, data, forced or not unit.cached)

    def _send(self, how: str, offset: int, end: int, data: Buffer, forced: bool) -> Deferred[None]:
        unit, length = self._unit, end - offset
        if how == WRITE:
            return unit.write(offset, data, fua=forced)
        if how == DISCARD:
            return unit.discard(offset, length)
        return unit.zero(offset, length, how == UNMAP)

    def _done(self, _: None, how: str, offset: int, end: int, data: Buffer, durable: bool) -> None:
        unflushed = self._unflushed
        if durable:
            unflushed.remove(offset, end)
            return
        unflushed.put(offset, end, how, data, self._epoch)
        self._drain()

    # Flushing

    def flush(self) -> Deferred[None]:
        """
        All that was acknowledged before is durable when this fires.

        @raise Exception: what an earlier flush in the background failed with, once.
        """
        broken, self._broken = self._broken, None
        if broken is not None:
            raise broken
        return Deferred.fromCoroutine(self._flush())

    async def _flush(self) -> None:
        while True:
            while self._stale:
                await self._settled()
            number, epoch = self._unflushed.number, self._epoch
            try:
                await self._unit.flush()
            except Exception:
                if epoch == self._epoch:
                    raise
            if epoch == self._epoch:
                self._unflushed.flushed(number)
                return

    def _drain(self) -> None:
        if self._unflushed.filling and not self._draining and self._broken is None:
            self._draining = True
            Deferred.fromCoroutine(self._flush()).addBoth(self._drained)

    def _drained(self, outcome: Any) -> None:
        self._draining = False
        if isinstance(outcome, Failure):
            # A unit that is asked again may say that all is well, though it has lost something.
            error = outcome.value
            self._broken = error if isinstance(error, Exception) else WriteError(str(error))
        self._drain()

    # Writing again

    def _recover(self) -> None:
        if self._recovering:
            return
        self._recovering, self._error = True, None
        # Behind whatever changes something now: that is sent again by itself, and newer than what is kept.
        self._lock.run(0, self._unit.size, self._restoration)

    def _restoration(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._restoreAll())

    async def _restoreAll(self) -> None:
        _log.warn(
            "{name}: its target was started anew; {size} bytes that it had not flushed are written again",
            name=self._name, size=self._unflushed.size,
        )  # fmt: skip
        try:
            while lost := self._unflushed.before(self._epoch):
                for place in range(0, len(lost), DEPTH):
                    await self._restore(lost[place : place + DEPTH])
        except Exception as error:
            self._error = error
            _log.error(
                "{name}: what its target had not flushed when it was started anew could not be written again:"
                " {error}; until it can be, all I/O fails",
                name=self._name, error=error,
            )  # fmt: skip
        else:
            self._stale = False
        finally:
            self._recovering = False

    async def _restore(self, pieces: list[Piece]) -> None:
        epoch = self._epoch
        await ready(gather([attempt(self._write, piece) for piece in pieces]))
        for piece in pieces:
            piece.epoch = epoch

    def _write(self, piece: Piece) -> Deferred[None]:
        return self._send(piece.how, piece.offset, piece.end, piece.data, False)
