# -*- test-case-name: tests.config.test_model -*-
"""What a targets file says, as values.  Nothing here opens anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import attrs

from iscsi_twisted.config.filters import Settings
from iscsi_twisted.config.netmasks import Netmask
from iscsi_twisted.config.options import (
    NO_EXTENT_OPTIONS,
    NO_MIRROR_OPTIONS,
    NO_TARGET_OPTIONS,
    NO_UNIT_OPTIONS,
    ExtentOptions,
    MirrorOptions,
    TargetOptions,
    UnitOptions,
)
from iscsi_twisted.errors import ConfigurationError

DEFAULT_BASE: Final = "iqn.1994-04.org.netbsd.iscsi-target"
"""What the names of targets begin with that have no IQN of their own."""


class Where(NamedTuple):
    """Where a definition stands, for messages about it."""

    path: str | None = None
    line: int | None = None

    def error(self, message: str) -> ConfigurationError:
        """A fault of this definition."""
        return ConfigurationError(message, self.path, self.line)


NOWHERE: Final = Where()


@attrs.frozen
class Extent:
    """
    A range of bytes of a file, a block device or a unit of another target.

    @ivar path: absolute; of another target's unit, what messages call it.
    @ivar start: the first byte.
    @ivar length: bytes; None means up to the end that the file has when it is opened.
    @ivar given: the path as it was written, for messages.
    @ivar url: of another target's unit, perhaps with a secret; None for files and block devices.
    @ivar own: options of the extent; C{options} are those of the unit that it may be.
    """

    name: str
    path: str
    start: int
    length: int | None
    options: UnitOptions = NO_UNIT_OPTIONS
    where: Where = attrs.field(default=NOWHERE, eq=False, repr=False)
    given: str = attrs.field(eq=False, repr=False)
    url: str | None = attrs.field(default=None, repr=False)
    own: ExtentOptions = NO_EXTENT_OPTIONS

    @given.default
    def _written(self) -> str:
        return self.path

    @property
    def size(self) -> int | None:
        """Bytes, or None if only opening tells."""
        return self.length

    @property
    def depth(self) -> int:
        """Levels of devices below this one."""
        return 0


def _derived(of: Callable[[Any], Any]) -> Any:
    """A field that the others give, once they are known."""
    return attrs.field(init=False, eq=False, repr=False, default=attrs.Factory(of, takes_self=True))


def _size(device: Device | Filtered) -> int | None:
    return device.combined([member.size for member in device.members])


def _depth(device: Device | Filtered) -> int:
    return 1 + max((member.depth for member in device.members), default=0)


@attrs.frozen
class Device:
    """
    Extents and devices combined.

    @ivar level: 0 or 1.
    @ivar chunk: for level 0, bytes that go to one member before the next one has its turn;
        None for concatenation.
    @ivar size: bytes, or None if only opening tells.
    @ivar depth: levels of devices from this one down.
    @ivar own: for level 1, what is the mirror's own.
    """

    name: str
    level: int
    chunk: int | None
    members: tuple[Storage, ...]
    options: UnitOptions = NO_UNIT_OPTIONS
    where: Where = attrs.field(default=NOWHERE, eq=False, repr=False)
    own: MirrorOptions = NO_MIRROR_OPTIONS
    size: int | None = _derived(_size)
    depth: int = _derived(_depth)

    def combined(self, sizes: Sequence[int | None]) -> int | None:
        """
        How large the device is if its members are as large as this.

        What remains of a stripe's members after their last whole chunk is not used.
        """
        known = [size for size in sizes if size is not None]
        if self.level == 0 and self.chunk is None:
            return sum(known) if len(known) == len(sizes) else None
        if not known:
            return None
        if self.chunk is None:
            return min(known)
        return min(known) // self.chunk * self.chunk * len(sizes)

    def sizeFault(self, sizes: Sequence[int | None]) -> str | None:
        """
        What is wrong with members of these sizes, or None.

        @param sizes: bytes of each member, in order; None where it is not known.
        """
        if self.level == 0 and self.chunk is None:
            return None
        known = [
            (member.name, size) for member, size in zip(self.members, sizes, strict=True) if size is not None
        ]
        for name, size in known[1:]:
            first, wanted = known[0]
            if size != wanted:
                return (
                    f"the members of {self.raid} {self.name} have to be of one size,"
                    f" but {first} has {wanted} bytes and {name} {size}"
                )
        if self.chunk is not None and known and known[0][1] < self.chunk:
            return f"the members of {self.name} have {known[0][1]} bytes, less than a chunk of {self.chunk}"
        return None

    @property
    def raid(self) -> str:
        """The level as it is written: C{RAID0}, C{RAID0:65536} or C{RAID1}."""
        return f"RAID{self.level}" if self.chunk is None else f"RAID{self.level}:{self.chunk}"


@attrs.frozen
class Filtered:
    """
    A device that changes how one other behaves, or one that stands on no other.

    @ivar word: what it is, in upper case.
    @ivar members: the other device, if there is one.
    @ivar size: bytes, or None if only opening tells.
    @ivar depth: levels of devices from this one down.
    """

    name: str
    word: str
    members: tuple[Storage, ...]
    settings: Settings
    options: UnitOptions = NO_UNIT_OPTIONS
    where: Where = attrs.field(default=NOWHERE, eq=False, repr=False)
    size: int | None = _derived(_size)
    depth: int = _derived(_depth)

    def combined(self, sizes: Sequence[int | None]) -> int | None:
        """How large the device is if its member is as large as this."""
        return self.settings.resized(sizes[0] if sizes else None)

    def sizeFault(self, sizes: Sequence[int | None]) -> str | None:
        """What is wrong with a member of this size, or None."""
        return self.settings.fault(sizes[0] if sizes else None)


Storage: TypeAlias = Extent | Device | Filtered


def numbers(options: Iterable[UnitOptions]) -> list[int]:
    """The LUNs of units with these options: what they say, or else their places."""
    return [place if each.lun is None else each.lun for place, each in enumerate(options)]


@attrs.frozen
class Target:
    """
    What initiators see.

    @ivar name: the first word of its line, up to C{=}.
    @ivar iqn: the iSCSI name that the line gives, or None.
    @ivar readOnly: nobody may write.
    @ivar storages: in the order of the line.
    @ivar luns: the same by the numbers of their units.
    @ivar netmask: who may see it and log in.
    """

    name: str
    iqn: str | None
    readOnly: bool
    storages: tuple[Storage, ...]
    netmask: Netmask
    options: TargetOptions = NO_TARGET_OPTIONS
    where: Where = attrs.field(default=NOWHERE, eq=False, repr=False)
    luns: dict[int, Storage] = attrs.field(init=False, eq=False, repr=False)

    @luns.default
    def _numbered(self) -> dict[int, Storage]:
        return dict(zip(numbers(each.options for each in self.storages), self.storages, strict=True))

    def targetName(self, base: str = DEFAULT_BASE) -> str:
        """Its iSCSI name, as written; C{base} is for targets that give none."""
        return f"{base}:{self.name}" if self.iqn is None else self.iqn


@attrs.frozen
class Discovery:
    """
    Who may ask which targets there are.

    @ivar netmask: of whom.
    @ivar options: of those of a target, the ones that say who comes.
    """

    netmask: Netmask
    options: TargetOptions = NO_TARGET_OPTIONS
    where: Where = attrs.field(default=NOWHERE, eq=False, repr=False)


@attrs.frozen
class Configuration:
    """
    All definitions, each kind in the order of the file.

    @ivar path: the file's name as it was given, or None.
    @ivar discovery: who may ask for targets; None if the file does not say.
    """

    extents: tuple[Extent, ...]
    devices: tuple[Device | Filtered, ...]
    targets: tuple[Target, ...]
    path: str | None = attrs.field(default=None, eq=False)
    discovery: Discovery | None = None

    def sizeFaults(self, lengthOf: Callable[[Extent], int]) -> list[ConfigurationError]:
        """
        Check sizes once more when extents of length C{size} have been opened.

        @param lengthOf: the bytes of an extent whose length is None.
        @return: one error for each device with members of wrong sizes.
        """
        return list(self._sizeFaults(lengthOf))

    def _sizeFaults(self, lengthOf: Callable[[Extent], int]) -> Iterator[ConfigurationError]:
        sizes: dict[str, int | None] = {
            extent.name: lengthOf(extent) if extent.length is None else extent.length
            for extent in self.extents
        }
        for device in self.devices:  # members stand before those who use them
            members = [sizes[member.name] for member in device.members]
            fault = device.sizeFault(members)
            if fault is not None:
                yield device.where.error(fault)
            sizes[device.name] = device.combined(members)
