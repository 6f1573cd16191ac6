# -*- test-case-name: tests.scsi.test_thresholds -*-
"""
Thresholds of thin units: initiators are told in time that space runs short (SBC-3 4.7.3.7, 6.4.5, 6.5.7).

How much space is used and available is asked now and then, not at each write: so a threshold costs
nothing on the way of data, and is told some seconds late.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from iscsi_twisted.interfaces import Space, isPending
from iscsi_twisted.scsi import codes

if TYPE_CHECKING:
    from iscsi_twisted.scsi.disk import DiskUnit
    from iscsi_twisted.scsi.modes import Settings

DESCRIPTORS: Final = 4
"""Thresholds that there may be."""
SET_BYTES: Final = 1 << 20
"""Bytes of a threshold set, in which resources are counted."""

COUNT, PERCENTAGE = 0, 1
"""Threshold types: a number of threshold sets, or a part of all; SBC-4 6.5.9."""
FALLING, RISING = 0, 1
"""Threshold arming: the resource is reached from above, or from below."""
AVAILABLE, USED, LEFT = 1, 2, 3
"""Threshold resources: sets that are available, or used; percentage that is available."""
_SENSIBLE: Final = {AVAILABLE: (COUNT, FALLING), USED: (COUNT, RISING), LEFT: (PERCENTAGE, FALLING)}
"""What can be enabled: for each resource its type and direction."""
_ENABLED: Final = 0x80
_SITUA: Final = 0x01
_DEDICATED, _SHARED = 1, 2
"""Scope of a resource: this unit's own, or perhaps for others, too; SBC-3 table 186."""

_HEAD: Final = 12
_DESCRIPTOR: Final = struct.Struct(">BBxxI")
MASK: Final = bytes((_SITUA,)) + bytes(_HEAD - 1) + DESCRIPTORS * _DESCRIPTOR.pack(0xBF, 0xFF, 0xFFFFFFFF)
"""Ones where MODE SELECT may change the page."""

Fault: TypeAlias = tuple[int, int | None]
"""Byte of a mode page's body, and bit."""


@attrs.frozen
class Threshold:
    """
    One threshold descriptor; SBC-3 6.5.7.

    @ivar enabled: whether it is watched.
    @ivar kind: threshold type.
    @ivar arming: the direction in which it is reached.
    @ivar resource: what is watched.
    @ivar count: threshold sets, or percent.
    """

    enabled: bool = False
    kind: int = COUNT
    arming: int = FALLING
    resource: int = 0
    count: int = 0

    def encode(self) -> bytes:
        """The descriptor."""
        flags = _ENABLED * self.enabled | self.kind << 3 | self.arming
        return _DESCRIPTOR.pack(flags, self.resource, self.count)

    @classmethod
    def decode(cls, data: bytes) -> Threshold:
        """Of a descriptor."""
        flags, resource, count = _DESCRIPTOR.unpack(data)
        return cls(bool(flags & _ENABLED), flags >> 3 & 7, flags & 7, resource, count)

    def fault(self) -> Fault | None:
        """What is wrong with it, as a place in the descriptor, if it is enabled."""
        if not self.enabled:
            return None
        if self.resource not in _SENSIBLE:
            return 1, 7
        kind, arming = _SENSIBLE[self.resource]
        if self.kind != kind:
            return 0, 5
        if self.arming != arming:
            return 0, 2
        return (4, None) if kind == PERCENTAGE and self.count > 100 else None

    def reached(self, space: Space) -> bool:
        """Whether things have come so far."""
        if not self.enabled:
            return False
        if self.resource == LEFT:
            return percentage(space) <= self.count
        available, used = sets(space)
        return used >= self.count if self.resource == USED else available <= self.count


NONE: Final = (Threshold(),) * DESCRIPTORS


def warning(percent: int) -> tuple[Threshold, ...]:
    """The thresholds of a unit whose administrator wants a warning at so many percent left."""
    return (Threshold(True, PERCENTAGE, FALLING, LEFT, percent), *NONE[1:])


def percentage(space: Space) -> int:
    """How much of all that there is for the unit is available, in percent."""
    whole = space.used + space.available
    return space.available * 100 // whole if whole else 100


def sets(space: Space) -> tuple[int, int]:
    """Threshold sets that are available, at least, and that are used, at most."""
    most = 0xFFFFFFFF
    return min(most, space.available // SET_BYTES), min(most, -(-space.used // SET_BYTES))


def exponent(blockSize: int) -> int:
    """The threshold exponent of VPD page B2h: logical blocks of a threshold set, as a power of two."""
    return (SET_BYTES // blockSize).bit_length() - 1


# The mode page


def page(settings: Settings) -> bytes:
    """Logical block provisioning; SBC-3 6.5.7."""
    head = bytes((_SITUA * settings.tellsOne,)) + bytes(_HEAD - 1)
    return head + b"".join(each.encode() for each in settings.thresholds)


def apply(settings: Settings, body: bytes) -> None:
    """See L{Settings}."""
    settings.tellsOne = bool(body[0] & _SITUA)
    settings.thresholds = tuple(
        Threshold.decode(body[place : place + _DESCRIPTOR.size])
        for place in range(_HEAD, len(body), _DESCRIPTOR.size)
    )


def fault(settings: Settings) -> Fault | None:
    """What of a page makes no sense."""
    for number, each in enumerate(settings.thresholds):
        wrong = each.fault()
        if wrong is not None:
            return _HEAD + number * _DESCRIPTOR.size + wrong[0], wrong[1]
    return None


# The log page


def resources(space: Space) -> list[tuple[int, bytes]]:
    """Parameters of the logical block provisioning log page: code and value; SBC-3 6.4.5."""
    available, used = sets(space)
    return [
        (AVAILABLE, struct.pack(">IB3x", available, _SHARED)),
        (USED, struct.pack(">IB3x", used, _DEDICATED)),
        (LEFT, struct.pack(">H2x", percentage(space))),
    ]


# Watching


def watches(settings: Settings) -> bool:
    """Whether there is anything to be watched."""
    return settings.reportsThresholds and any(each.enabled for each in settings.thresholds)


def watch(unit: DiskUnit) -> None:
    """Look whether a threshold has been reached; to be called now and then."""
    if unit.notReady or not unit.tellsSpace or not watches(unit.settings):
        return
    space: Any = unit.device.space()
    if isPending(space):
        # What cannot be known now may be known later.
        space.addCallbacks(lambda found: judge(unit, found), lambda why: None)
    else:
        judge(unit, space)


def judge(unit: DiskUnit, space: Space | None) -> None:
    """
    Tell of thresholds that have been reached since the last look.

    Each is told once, until what it watches has gone back.
    """
    if space is None:
        return
    settings = unit.settings
    reached = frozenset(number for number, each in enumerate(settings.thresholds) if each.reached(space))
    new, unit.reached = reached - unit.reached, reached
    if not new:
        return
    one = unit.anyNexus() if settings.tellsOne else None
    if one is not None or not settings.tellsOne:
        unit.attention(codes.SOFT_THRESHOLD_REACHED, one)
