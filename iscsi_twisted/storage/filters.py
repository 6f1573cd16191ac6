# -*- test-case-name: tests.storage.test_filters -*-
"""Devices that change how one other behaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from iscsi_twisted.errors import LocalError, WriteProtected
from iscsi_twisted.interfaces import Buffer, Capabilities, IBlockDevice, Pending, isPending
from iscsi_twisted.storage.device import BlockDevice, asDevice, checkRange
from iscsi_twisted.storage.pending import deferred


class Filter(BlockDevice):
    """
    Passes everything on to another device.

    @ivar member: the other device.
    """

    def __init__(self, member: Any) -> None:
        self.member: IBlockDevice = asDevice(member)

    @property
    def size(self) -> int:  # type: ignore[override]
        return self.member.size

    @property
    def blockSize(self) -> int:  # type: ignore[override]
        return self.member.blockSize

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.member})"

    def open(self, changed: Callable[[], None]) -> Pending | None:
        return self.member.open(changed)

    def close(self) -> Pending | None:
        return self.member.close()

    def capabilities(self) -> Capabilities:
        return self.member.capabilities()

    def read(self, offset: int, length: int) -> Buffer | Pending:
        return self.member.read(offset, length)

    def write(self, offset: int, data: Buffer) -> Pending | None:
        return self.member.write(offset, data)

    def flush(self) -> Pending | None:
        return self.member.flush()

    def discard(self, offset: int, length: int) -> Pending | None:
        return self.member.discard(offset, length)

    def zero(self, offset: int, length: int, unmap: bool) -> Pending | None:
        return self.member.zero(offset, length, unmap)

    def allocated(self, offset: int, length: int) -> list[tuple[int, bool]] | Pending:
        return self.member.allocated(offset, length)


class ReadOnly(Filter):
    """Lets nothing be changed."""

    def capabilities(self) -> Capabilities:
        return self.member.capabilities()._replace(
            readOnly=True, discard=False, zero=False, discardZeroes=False
        )

    def write(self, offset: int, data: Buffer) -> None:
        """@raise WriteProtected: always."""
        self._refuse(offset, len(data))

    def discard(self, offset: int, length: int) -> None:
        """@raise WriteProtected: always."""
        self._refuse(offset, length)

    def zero(self, offset: int, length: int, unmap: bool) -> None:
        """@raise WriteProtected: always."""
        self._refuse(offset, length)

    def _refuse(self, offset: int, length: int) -> None:
        checkRange(self.size, offset, length)
        raise WriteProtected(f"{self.member}: is served read-only")


class Delay(Filter):
    """
    Lets every operation begin some time later, as a slow disk would.

    An operation that still waits can be cancelled and is then never made.
    """

    def __init__(self, member: Any, seconds: float, reactor: IReactorTime) -> None:
        """
        @param seconds: for each operation; they wait side by side.
        @param reactor: whose time it is.
        """
        super().__init__(member)
        if seconds < 0:
            raise LocalError(f"an operation cannot be delayed by {seconds} seconds")
        self.seconds = seconds
        self._reactor = reactor

    def _later(self, method: Callable[..., Any], *arguments: Any) -> Pending:
        return deferLater(self._reactor, self.seconds, self._begin, method, *arguments)

    def _begin(self, method: Callable[..., Any], *arguments: Any) -> Any:
        result = method(*arguments)
        return deferred(result) if isPending(result) else result

    def read(self, offset: int, length: int) -> Pending:
        return self._later(self.member.read, offset, length)

    def write(self, offset: int, data: Buffer) -> Pending:
        return self._later(self.member.write, offset, data)

    def flush(self) -> Pending:
        return self._later(self.member.flush)

    def discard(self, offset: int, length: int) -> Pending:
        return self._later(self.member.discard, offset, length)

    def zero(self, offset: int, length: int, unmap: bool) -> Pending:
        return self._later(self.member.zero, offset, length, unmap)

    def allocated(self, offset: int, length: int) -> Pending:
        return self._later(self.member.allocated, offset, length)
