# -*- test-case-name: tests.storage.test_filters -*-
"""Devices that change how one other behaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from iscsi_twisted.errors import DeviceError, LocalError, WriteProtected
from iscsi_twisted.interfaces import Buffer, Capabilities, IBlockDevice, Pending, Space, isPending
from iscsi_twisted.storage.concatenation import shift, shifted
from iscsi_twisted.storage.device import BlockDevice, asDevice, checkRange, outOfRange
from iscsi_twisted.storage.fingerprint import Stamp, fingerprintOf, keepWitness, stampOf, witnessOf
from iscsi_twisted.storage.pending import call, deferred, ifLater

_T = TypeVar("_T")


class Filter(BlockDevice):
    """
    Passes everything on to another device.

    @ivar member: the other device.
    """

    def __init__(self, member: Any) -> None:
        self.member: IBlockDevice = asDevice(member)

    @property
    def members(self) -> tuple[IBlockDevice]:
        """The other device, for those who walk through devices made of devices."""
        return (self.member,)

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

    def space(self) -> Space | Pending | None:
        return self.member.space()

    def rekey(self) -> Pending | None:
        return self.member.rekey()

    def fingerprint(self) -> str | None:
        """It holds the other device's bytes, so it is that one."""
        return fingerprintOf(self.member)

    def stamp(self) -> Stamp | Pending:
        """The other device's."""
        return stampOf(self.member)

    def witness(self, key: str) -> int | Pending:
        """The other device's."""
        return witnessOf(self.member, key)

    def keepWitness(self, key: str, number: int) -> Pending | None:
        """The other device keeps it."""
        return keepWitness(self.member, key, number)


class ReadOnly(Filter):
    """Lets nothing be changed."""

    def capabilities(self) -> Capabilities:
        return self.member.capabilities()._replace(
            readOnly=True, discard=False, zero=False, discardZeroes=False, space=False, rekey=False
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


class Slice(Filter):
    """
    A part of another device.

    @ivar start: where in the other device it begins, in bytes.
    """

    size = 0
    """Bytes; valid once the device is open."""

    def __init__(self, member: Any, start: int, length: int | None = None) -> None:
        """
        @param length: bytes; None for 'to the end'.
        @raise LocalError: if there is no such part of any device.
        """
        super().__init__(member)
        if start < 0 or (length is not None and length < 1):
            raise LocalError(f"a slice of {length} bytes from byte {start} makes no sense")
        self.start = start
        self._length = length
        self.size = length or 0

    def open(self, changed: Callable[[], None]) -> Pending | None:
        """@raise DeviceError: if the other device has no such part."""
        result = self.member.open(changed)
        if isPending(result):
            return deferred(result).addCallback(lambda _: self._fit())
        return self._fit()

    def _fit(self) -> Pending | None:
        whole, block = self.member.size, self.member.blockSize
        length = whole - self.start if self._length is None else self._length
        fault = None
        if length < 1 or self.start + length > whole:
            fault = f"has {whole} bytes, too few for a slice from byte {self.start}" + (
                "" if self._length is None else f" to byte {self.start + length}"
            )
        elif self.start % block or length % block:
            fault = f"has blocks of {block} bytes, but the slice begins or ends within one"
        if fault is None:
            self.size = length
            return None
        return shut(self.member, DeviceError(f"{self.member}: {fault}"))

    def capabilities(self) -> Capabilities:
        """How much storage a part has is not known, and a key is for more than it."""
        return self.member.capabilities()._replace(space=False, rekey=False)

    def space(self) -> None:
        """Nobody knows."""

    def fingerprint(self) -> str | None:
        """It is this part of the other device alone."""
        whole = fingerprintOf(self.member)
        return None if whole is None else f"{whole}, of these {self.start} to {self.start + self.size}"

    def read(self, offset: int, length: int) -> Buffer | Pending:
        return self._at(self.member.read, offset, length, length)

    def write(self, offset: int, data: Buffer) -> Pending | None:
        return self._at(self.member.write, offset, len(data), data)

    def discard(self, offset: int, length: int) -> Pending | None:
        return self._at(self.member.discard, offset, length, length)

    def zero(self, offset: int, length: int, unmap: bool) -> Pending | None:
        return self._at(self.member.zero, offset, length, length, unmap)

    def allocated(self, offset: int, length: int) -> list[tuple[int, bool]] | Pending:
        return self._at(self.member.allocated, offset, length, length)

    def _at(self, method: Callable[..., _T], offset: int, length: int, *arguments: Any) -> _T:
        """Call a method of the other device; an offset in its error becomes one of the slice."""
        if not 0 <= offset <= offset + length <= self.size:
            raise outOfRange(self.size, offset, length)
        try:
            result = method(self.start + offset, *arguments)
        except DeviceError as error:
            shift(error, -self.start)
            raise
        return ifLater(result, shifted, -self.start)


def shut(member: IBlockDevice, error: DeviceError) -> Pending:
    """
    Close a device that is open but does not fit.

    @return: pending; fails with the error when the device is closed.
    """

    def tell(_: object) -> None:
        raise error

    return call(member.close).addBoth(tell)
