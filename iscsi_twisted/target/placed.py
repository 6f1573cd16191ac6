# -*- test-case-name: tests.target.test_placed -*-
"""Devices that lines of a targets file define; filters and memory among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random
from typing import Any

from iscsi_twisted.config.filters import (
    CryptSettings,
    DelaySettings,
    FaultsSettings,
    MemorySettings,
    OverlaySettings,
    RateSettings,
    SliceSettings,
)
from iscsi_twisted.config.model import NOWHERE, Filtered, Where
from iscsi_twisted.errors import ConfigurationError, DeviceError
from iscsi_twisted.interfaces import Pending
from iscsi_twisted.storage import (
    Crypt,
    Delay,
    Fault,
    Faults,
    KeyFile,
    MemoryDevice,
    Mirror,
    Overlay,
    OverlayFile,
    Rate,
    ReadOnly,
    Slice,
)
from iscsi_twisted.storage.device import BlockDevice
from iscsi_twisted.storage.pending import answered, ready


class Placed:
    """
    A device that a line of a targets file defines: what is wrong with it names the line.

    @ivar title: the name that the line defines.
    @ivar fault: what was wrong when it was opened.
    """

    where: Where = NOWHERE
    title = ""
    fault: ConfigurationError | None = None

    def misplaced(self, error: DeviceError) -> DeviceError:
        """Remember and reword an error."""
        self.fault = self.where.error(f"{self.title}: {error}")
        return type(error)(str(self.fault))


class PlacedFilter(Placed, BlockDevice):
    """What filters and mirrors of a targets file have in common: they open their members themselves."""

    def __str__(self) -> str:
        return self.title

    def open(self, changed: Callable[[], None]) -> Pending | None:
        """See L{IBlockDevice}."""
        return answered(self.openPlaced(changed))  # type: ignore[no-any-return]

    async def openPlaced(self, changed: Callable[[], None]) -> None:
        """Open it, and have what is wrong name its line."""
        try:
            await ready(super().open(changed))
        except DeviceError as error:
            # What is wrong with a member has its own line.
            if self.told(error):
                raise
            raise self.misplaced(error) from error

    def told(self, error: DeviceError) -> bool:
        """Whether what keeps it from opening is the fault of a member, which names that member's line."""
        return next(faulty(self), None) is not None


class PlacedReadOnly(PlacedFilter, ReadOnly):
    """A C{READONLY} line."""


class PlacedSlice(PlacedFilter, Slice):
    """A C{SLICE} line."""


class PlacedDelay(PlacedFilter, Delay):
    """A C{DELAY} line."""


class PlacedRate(PlacedFilter, Rate):
    """A C{RATE} line."""


class PlacedFaults(PlacedFilter, Faults):
    """A C{FAULTS} line."""


class PlacedOverlay(PlacedFilter, Overlay):
    """An C{OVERLAY} line."""


class PlacedCrypt(PlacedFilter, Crypt):
    """A C{CRYPT} line."""

    def rehearse(self) -> None:
        """See L{Crypt}."""
        try:
            super().rehearse()
        except DeviceError as error:
            raise self.misplaced(error) from error


class PlacedMemory(PlacedFilter, MemoryDevice):  # type: ignore[misc]
    """A C{MEMORY} line."""


def takeFaults(device: Any) -> list[ConfigurationError]:
    """What was wrong with a device and all that it is made of, in order; each is told once."""
    found = [fault for member in getattr(device, "members", ()) for fault in takeFaults(member)]
    if isinstance(device, Placed) and device.fault is not None:
        found.append(device.fault)
        device.fault = None
    return found


def rehearse(device: Any) -> None:
    """
    Find out what stands against opening a device, as far as that can be while another uses its files.

    What it finds is there for L{takeFaults}.
    """
    members = getattr(device, "members", ())
    for member in members:
        rehearse(member)
    if isinstance(device, Mirror) and not all(any(faulty(member)) for member in members):
        # It serves without those that have faults.
        takeFaults(device)
    if isinstance(device, Placed) and hasattr(device, "rehearse"):
        with suppress(DeviceError):
            device.rehearse()


def faulty(device: Any) -> Iterator[Placed]:
    """This device and all that it is made of, as far as something was wrong with them."""
    if isinstance(device, Placed) and device.fault is not None:
        yield device
    for member in getattr(device, "members", ()):
        yield from faulty(member)


def makeFilter(
    device: Filtered, members: list[Any], reactor: Any, readOnly: bool, writeCache: bool
) -> PlacedFilter:
    """
    The device for a line; its place is still to be set.

    @param members: what it stands on, not open yet.
    """
    settings = device.settings
    if isinstance(settings, MemorySettings):
        return PlacedMemory(settings.size)
    (member,) = members
    if isinstance(settings, SliceSettings):
        return PlacedSlice(member, settings.start, settings.length)
    if isinstance(settings, DelaySettings):
        return PlacedDelay(
            member,
            settings.seconds,
            reactor,
            shape=settings.shape,
            spread=settings.spread,
            random=Random(settings.seed),
            active=settings.active,
        )
    if isinstance(settings, RateSettings):
        return PlacedRate(
            member,
            reactor,
            iops=settings.iops,
            bandwidth=settings.bytes,
            burst=settings.burst,
            active=settings.active,
        )
    if isinstance(settings, FaultsSettings):
        random = Random(settings.seed)
        return PlacedFaults(member, [_fault(settings)], reactor, random=random, active=settings.active)
    if isinstance(settings, CryptSettings):
        return PlacedCrypt(member, KeyFile(settings.key), sector=settings.sector, reactor=reactor)
    if isinstance(settings, OverlaySettings):
        return _overlay(settings, member, reactor, readOnly, writeCache)
    return PlacedReadOnly(member)


def _fault(settings: FaultsSettings) -> Fault:
    return Fault(
        settings.kind,
        settings.on,
        probability=settings.probability,
        start=settings.start,
        length=settings.length,
        nth=settings.nth,
        every=settings.every,
        times=settings.times,
        seconds=settings.seconds,
    )


def _overlay(
    settings: OverlaySettings, base: Any, reactor: Any, readOnly: bool, writeCache: bool
) -> PlacedOverlay:
    path = settings.file
    if path is None:
        return PlacedOverlay(base, readOnly=readOnly)

    def store(size: int) -> OverlayFile:
        return OverlayFile(path, 0, size, readOnly=readOnly, writeCache=writeCache, reactor=reactor)

    return PlacedOverlay(base, store, readOnly=readOnly, adopt=settings.adopt)
