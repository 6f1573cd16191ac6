# -*- test-case-name: tests.config.test_sizes -*-
"""Sizes in bytes as people write them: C{512}, C{100MB}, C{1.5GiB}."""

from __future__ import annotations

import re
from typing import Final

from iscsi_twisted.config.lines import quoted
from iscsi_twisted.errors import ConfigurationError

MAX_BYTES: Final = (1 << 63) - 1
"""The last byte position that a file may have (C{off_t} is signed)."""

UNITS: Final = "kmgtpe"
SIZE = re.compile(r"([0-9]{1,40})(?:\.([0-9]{1,40}))?(?:([kmgtpe])(?:i?b)?|b)?", re.IGNORECASE)
FORMS: Final = "a number of bytes in decimal, with K, M, G, T, P or E for powers of 1024: 512, 100MB, 1.5GiB"


def parseSize(text: str) -> int:
    """
    Read a size.  All units are powers of 1024: C{M}, C{MB} and C{MiB} are the same, in any case.

    @return: bytes, 0 to L{MAX_BYTES}.
    @raise ConfigurationError: if the text is no size, or no whole number of bytes.
    """
    found = SIZE.fullmatch(text)
    if found is None or not text.isascii():
        raise ConfigurationError(f"{quoted(text)} is not a size; write {_advice(text)}")
    whole, fraction, unit = found.groups()
    scale: int = 1 << 10 * (1 + UNITS.index(unit.lower())) if unit else 1
    digits = fraction or ""
    size: int
    size, rest = divmod(int(whole + digits) * scale, 10 ** len(digits))
    if rest:
        raise ConfigurationError(f"{quoted(text)} is no whole number of bytes; the nearest below is {size}")
    if size > MAX_BYTES:
        raise ConfigurationError(f"{quoted(text)} is more than a file can hold, {MAX_BYTES} bytes")
    return size


def _advice(text: str) -> str:
    if text[:2].lower() == "0x":
        return "it in decimal, not hexadecimal"
    if re.fullmatch(r"[0-9]+,[0-9]+[A-Za-z]*", text):
        return f"the fraction with a point: {text.replace(',', '.')[:60]}"
    return FORMS
