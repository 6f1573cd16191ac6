# -*- test-case-name: tests.scsi.test_identity -*-
"""Who a logical unit says that it is."""

from __future__ import annotations

from typing import Any

import attrs

_NAA_SIZES = {0x2: 8, 0x3: 8, 0x5: 8, 0x6: 16}
"""Network address authority (the upper four bits) to bytes, SPC-4 7.8.6.6."""


def _printable(limit: int) -> Any:
    """A validator: at most so many characters that INQUIRY can carry (SPC-4 4.3.1)."""

    def check(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
        if len(value) > limit or not all(" " <= character <= "~" for character in value):
            raise ValueError(f"{attribute.name} {value!r} is not at most {limit} printable ASCII characters")

    return check


def _naa(instance: object, attribute: attrs.Attribute[bytes], value: bytes) -> None:
    if not value or len(value) != _NAA_SIZES.get(value[0] >> 4):
        raise ValueError(f"naa {value.hex()!r} is not of NAA type 2, 3 or 5 with 8 bytes, or 6 with 16")


def _nameString(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not 0 < len(value.encode()) < 256:
        raise ValueError(f"{attribute.name} has not 1 to 255 bytes")


@attrs.frozen(kw_only=True)
class Identity:
    """
    The names of a logical unit, stable over restarts and unique in the world.

    @ivar vendor: T10 vendor identification, up to 8 characters.
    @ivar product: product identification, up to 16 characters.
    @ivar revision: product revision level, up to 4 characters.
    @ivar serial: unit serial number, up to 252 characters.
    @ivar naa: the NAA designator, 8 or 16 bytes.
    @ivar deviceName: the unit's SCSI name string, as in C{naa.3000000012345678} (SPC-4 7.8.6.11).
    """

    vendor: str = attrs.field(validator=_printable(8))
    product: str = attrs.field(validator=_printable(16))
    revision: str = attrs.field(validator=_printable(4))
    serial: str = attrs.field(validator=_printable(252))
    naa: bytes = attrs.field(validator=_naa)
    deviceName: str = attrs.field(validator=_nameString)
