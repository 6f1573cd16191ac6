# -*- test-case-name: tests.storage.test_device -*-
"""
What a block device of one's own starts from: a base class, and the wiring of any other object.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from iscsi_twisted.errors import LocalError
from iscsi_twisted.interfaces import Buffer, Capabilities, IBlockDevice, Pending, Space, isPending
from iscsi_twisted.storage.pending import deferred

ZEROS = bytes(1 << 20)
"""Zeros are written in pieces of this many bytes: large enough that the calls cost nothing beside the
copying, small enough that one piece holds nobody up."""

REQUIRED = ("size", "read", "write")
OPTIONAL = ("open", "close", "capabilities", "flush", "discard", "zero", "allocated", "space", "rekey")
METHODS = REQUIRED[1:] + OPTIONAL


def outOfRange(size: int, offset: int, length: int) -> LocalError:
    """The error for bytes that a device does not have."""
    return LocalError(f"bytes {offset} to {offset + length} are outside of a device of {size} bytes")


def checkRange(size: int, offset: int, length: int) -> None:
    """@raise LocalError: if a device of C{size} bytes does not have these."""
    if not 0 <= offset <= offset + length <= size:
        raise outOfRange(size, offset, length)


def fromCoroutine(method: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Deferred[Any]]:
    """The same method of a class, returning a L{Deferred}."""

    @wraps(method)
    def answerLater(device: Any, *arguments: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(method(device, *arguments))

    return answerLater


def fromBoundCoroutine(method: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Deferred[Any]]:
    """The same method of an object, returning a L{Deferred}."""

    @wraps(method)
    def answerLater(*arguments: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(method(*arguments))

    return answerLater


@implementer(IBlockDevice)
class BlockDevice:
    """
    A block device to derive from: give it C{size}, C{read} and C{write}, and whatever else it can do.

    Its methods may be C{async def}: they are wrapped once, when the class is made.

    An error belongs to the one operation that raised it: devices that are made of this one may rewrite
    the C{offset} of a L{DeviceError<iscsi_twisted.errors.DeviceError>} on its way out.
    """

    size: int = 0
    blockSize: int = 1

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for name in METHODS:
            method = cls.__dict__.get(name)
            if iscoroutinefunction(method):
                refuseLateCapabilities(name, cls.__name__)
                setattr(cls, name, fromCoroutine(method))

    def __str__(self) -> str:
        return type(self).__name__

    def open(self, changed: Callable[[], None]) -> Pending | None:
        """Nothing needs to be made ready."""
        return None

    def close(self) -> Pending | None:
        """Nothing is held."""
        return None

    def capabilities(self) -> Capabilities:
        """What the methods that a subclass has of its own can do; without a C{flush} there is no cache."""
        return Capabilities(
            volatileCache=self._has("flush"),
            discard=self._has("discard"),
            zero=self._has("zero"),
            allocated=self._has("allocated"),
            space=self._has("space"),
            rekey=self._has("rekey"),
        )

    def _has(self, name: str) -> bool:
        return getattr(type(self), name) is not getattr(BlockDevice, name)

    def read(self, offset: int, length: int) -> Buffer | Pending:
        """To be provided."""
        raise NotImplementedError(f"{type(self).__name__} has no read")

    def write(self, offset: int, data: Buffer) -> Pending | None:
        """To be provided."""
        raise NotImplementedError(f"{type(self).__name__} has no write")

    def flush(self) -> Pending | None:
        """Completed writes are durable already."""
        return None

    def discard(self, offset: int, length: int) -> Pending | None:
        """Storage is not given back: the bytes stay as they are."""
        checkRange(self.size, offset, length)
        return None

    def zero(self, offset: int, length: int, unmap: bool) -> Pending | None:
        """Write zeros, piece after piece."""
        checkRange(self.size, offset, length)
        end = offset + length
        while offset < end:
            piece = min(len(ZEROS), end - offset)
            result = self.write(offset, ZEROS[:piece])
            offset += piece
            if isPending(result):
                return Deferred.fromCoroutine(self._zeroOn(result, offset, end))
        return None

    async def _zeroOn(self, result: Pending | None, offset: int, end: int) -> None:
        while True:
            if isPending(result):
                await deferred(result)
            if offset >= end:
                return
            piece = min(len(ZEROS), end - offset)
            result = self.write(offset, ZEROS[:piece])
            offset += piece

    def allocated(self, offset: int, length: int) -> list[tuple[int, bool]] | Pending:
        """Everything is data."""
        checkRange(self.size, offset, length)
        return [(length, True)] if length else []

    def space(self) -> Space | Pending | None:
        """Nobody knows."""
        return None

    def rekey(self) -> Pending | None:
        """Nothing is encrypted, so nobody calls this."""
        raise NotImplementedError(f"{type(self).__name__} has no rekey")

    def fingerprint(self) -> str | None:
        """It cannot be told from others; see L{iscsi_twisted.storage.fingerprint}."""
        return None

    def stamp(self) -> tuple[int, ...] | Pending:
        """It does not know how new it is."""
        return ()


def refuseLateCapabilities(method: str, owner: str) -> None:
    """@raise LocalError: if it is C{capabilities} that is a coroutine, which nobody awaits."""
    if method == "capabilities":
        raise LocalError(f"{owner}.capabilities must answer at once: make it a plain method, not 'async def'")


class Wired(BlockDevice):
    """
    A user's object with all that a block device needs.

    Its plain methods are this object's own attributes, so a call of them costs nothing more.

    @ivar wrapped: the user's object.
    """

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped
        for name in METHODS:
            method = getattr(wrapped, name, None)
            if iscoroutinefunction(method):
                refuseLateCapabilities(name, type(wrapped).__name__)
                method = fromBoundCoroutine(method)
            if method is not None:
                setattr(self, name, method)

    @property
    def size(self) -> int:  # type: ignore[override]
        return int(self.wrapped.size)

    @property
    def blockSize(self) -> int:  # type: ignore[override]
        return int(getattr(self.wrapped, "blockSize", 1))

    def _has(self, name: str) -> bool:
        return hasattr(self.wrapped, name)

    def fingerprint(self) -> str | None:
        """What the user's object says, if it can."""
        return self.wrapped.fingerprint() if self._has("fingerprint") else None

    def stamp(self) -> tuple[int, ...] | Pending:
        """The same."""
        return self.wrapped.stamp() if self._has("stamp") else ()

    def witness(self, key: str) -> int | Pending:
        """The same."""
        return self.wrapped.witness(key) if self._has("witness") else 0

    def keepWitness(self, key: str, number: int) -> Pending | None:
        """The same."""
        return self.wrapped.keepWitness(key, number) if self._has("keepWitness") else None

    def __str__(self) -> str:
        return str(self.wrapped)


def asDevice(device: Any) -> IBlockDevice:
    """
    Make a block device of any object that has C{size}, C{read} and C{write}; once, when it is wired.

    @return: the object itself if it is complete and none of its methods is C{async def}; else one that
        supplies what is missing, as L{BlockDevice} would, and wraps coroutine methods.
    @raise LocalError: if it is no block device, and what it lacks.
    """
    missing = [name for name in REQUIRED if not hasattr(device, name)]
    missing += [name for name in METHODS if hasattr(device, name) and not callable(getattr(device, name))]
    if missing:
        raise LocalError(f"{device!r} is no block device: it lacks {' and '.join(missing)}")
    if IBlockDevice.providedBy(device) and not _unfinished(device):
        return device
    return Wired(device)


def _unfinished(device: Any) -> bool:
    return any(
        iscoroutinefunction(getattr(device, name, iscoroutinefunction)) for name in METHODS
    ) or not all(hasattr(device, name) for name in (*METHODS, "blockSize"))
