# -*- test-case-name: tests.target.test_mount -*-
"""Devices that are open, apart from the units that they serve, which they may outlast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.logger import Logger

from iscsi_twisted.config.steps import Steps, whole
from iscsi_twisted.errors import ConfigurationError, DeviceError, LocalError
from iscsi_twisted.interfaces import IBlockDevice
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.storage.pending import call
from iscsi_twisted.target.journal import Journal
from iscsi_twisted.target.keeping import finishWrite
from iscsi_twisted.target.placed import takeFaults

FLUSHED: Final = "flushed"
CLOSED: Final = "closed"


class Mount:
    """
    A device and the unit that it serves.

    @ivar unit: is told when the device has changed; it may be another one later.
    @ivar isOpen: the device is open.
    """

    log = Logger(namespace="iscsi_twisted")

    def __init__(self, device: IBlockDevice, unit: DiskUnit) -> None:
        self.device = device
        self.unit = unit
        self.isOpen = False

    def open(self) -> Deferred[None]:
        """Open the device, and tell its unit that it is; fails if either cannot be."""
        return call(self.device.open, self._changed).addCallback(self._opened)

    def _opened(self, _: object) -> Deferred[None]:
        self.isOpen = True
        unit = self.unit
        unit.opened()
        if not unit.blockCount:
            self.log.warn(
                "{device}: its {size} bytes are not one block of {block}, so it is not ready until it grows",
                event="small", device=str(self.device), size=self.device.size, block=unit.blockSize,
            )  # fmt: skip
        return ensureDeferred(finishWrite(self.unit))

    async def reopen(self) -> None:
        """Open a device again whose unit serves on; a failure is logged, and the unit is not ready then."""
        try:
            await call(self.device.open, self._changed)
        except Exception as error:
            self.unit.closed()
            self.log.critical(
                "{device} could not be opened again, and is not served: {error}", event="unopened",
                device=str(self.device), error=str(error),
            )  # fmt: skip
        else:
            self.isOpen = True

    def _changed(self) -> None:
        self.unit.changed()

    async def flush(self) -> bool:
        """
        Make what has been written durable; a failure is logged.

        @return: whether it is.
        """
        if not (self.unit.volatileCache and self.unit.commands):
            return True
        return await self._step(FLUSHED)

    async def close(self) -> None:
        """Close the device; a failure is logged, and keeps nothing else from its turn."""
        self.isOpen = False
        await self._step(CLOSED)

    async def _step(self, step: str) -> bool:
        try:
            await call(self.device.flush if step == FLUSHED else self.device.close)
        except Exception as error:
            self.log.error(
                "{device} could not be {done}: {error}", event="unclosed",
                device=str(self.device), done=step, error=str(error),
            )  # fmt: skip
            return False
        return True


class Mounting:
    """
    Opens several devices, and finds out all that is wrong with them.

    @ivar abandoned: nobody wants to know any more.
    """

    def __init__(self, mounts: Sequence[Mount], journal: Journal) -> None:
        self._mounts, self._journal = mounts, journal
        self._left = iter(mounts)
        self._begun: list[Deferred[Any]] = []
        self.abandoned = False

    def abandon(self) -> None:
        """Nobody wants to know any more: what devices say to that is no surprise."""
        self.abandoned = True
        for opening in self._begun:
            opening.cancel()

    def begin(self) -> Steps[None]:
        """Begin to open those that have not begun, one after another."""
        while not self.abandoned and (mount := next(self._left, None)) is not None:
            self._begun.append(mount.open())
            yield

    async def open(self) -> list[ConfigurationError]:
        """Open them all; what is wrong, each fault once.  Those that could be opened are open then."""
        whole(self.begin())
        outcomes = await DeferredList(self._begun, consumeErrors=True)
        faults = []
        for mount, (success, outcome) in zip(self._mounts, outcomes, strict=False):
            if not success:
                faults += self._faults(mount, outcome.value)
        return faults

    def _faults(self, mount: Mount, error: BaseException) -> list[ConfigurationError]:
        """Why a device could not be opened."""
        if isinstance(error, ConfigurationError):
            return [error]
        if isinstance(error, (DeviceError, LocalError, OSError)):
            return takeFaults(mount.device) or [ConfigurationError(str(error))]
        if not self.abandoned:
            self._journal.surprise(error, f"opening {mount.device}")
        return [ConfigurationError(f"{mount.device} could not be opened: {type(error).__name__}: {error}")]
