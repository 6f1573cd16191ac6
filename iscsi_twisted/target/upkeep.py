# -*- test-case-name: tests.target.test_upkeep -*-
"""What is done to devices while they serve: find one, look whether files have grown, open them anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from twisted.internet.defer import DeferredList
from twisted.logger import Logger

from iscsi_twisted.errors import DeviceError, LocalError
from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.storage import Filter, Overlay
from iscsi_twisted.storage.pending import call
from iscsi_twisted.target.placed import Placed
from iscsi_twisted.target.status import members

log = Logger(namespace="iscsi_twisted")


def parts(device: Any) -> Iterator[Any]:
    """A device, and all that it is made of, however deep."""
    yield device
    for member in members(device):
        yield from parts(member)


def _repaired(device: Any) -> Iterator[Any]:
    """A device and its parts, but not what lies below overlays: that has no writes to lose, and must stay."""
    yield device
    for member in (device.store,) if isinstance(device, Overlay) else members(device):
        yield from _repaired(member)


def named(devices: Iterable[Any], name: str) -> Any:
    """
    The device that a line of a targets file defines.

    @param name: the first word of that line.
    @raise LocalError: if there is none; with the names that there are.
    """
    titles: dict[str, Any] = {}
    for device in devices:
        for part in parts(device):
            if isinstance(part, Placed):
                titles.setdefault(part.title, part)
    if name not in titles:
        raise LocalError(f"there is no device {name!r}; there are {', '.join(sorted(titles)) or 'none'}")
    return titles[name]


def rescan(devices: Iterable[Any]) -> list[str]:
    """
    Look whether files have grown or become too short, and whether their names lead elsewhere by now.

    What has grown are the extents that units are, alone or below filters: the members of a RAID keep the
    sizes that they had when they were opened.

    @return: the names of those that have grown.
    """
    grown = []
    for device in devices:
        for part in parts(device):
            if hasattr(part, "examine"):
                part.examine()
        extent = device
        while isinstance(extent, Filter):
            extent = extent.member
        if hasattr(extent, "measure"):
            try:
                if extent.measure():
                    name, size = str(extent), extent.size
                    log.info("{path}: has grown to {size} bytes", event="grown", path=name, size=size)
                    grown.append(str(extent))
            except (DeviceError, OSError) as error:
                log.error("{path}: {error}", event="unmeasured", path=str(extent), error=str(error))
    return grown


async def reopen(unit: DiskUnit) -> None:
    """
    Open all extents of a unit anew; its initiators are told that the medium may be another one.

    @raise DeviceError: the first error, when all were tried.
    """
    again = [part for part in _repaired(unit.device) if hasattr(part, "reopen")]
    outcomes = await DeferredList([call(part.reopen) for part in again], consumeErrors=True)
    unit.attention(codes.MEDIUM_MAY_HAVE_CHANGED)
    for success, outcome in outcomes:
        if not success:
            outcome.raiseException()
