# -*- test-case-name: tests.session.test_names -*-
"""iSCSI names (RFC 7143 4.2.7, RFC 3722, RFC 3980)."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

LONGEST: Final = 223
"""Bytes of UTF-8 (RFC 7143 4.2.7.1)."""

_IQN = re.compile(r"iqn\.\d{4}-(0[1-9]|1[0-2])\.[a-z0-9.\-]+(:[^\s]*)?\Z")
_UNFIT = re.compile(r"[^a-z0-9\-.:_]", re.IGNORECASE | re.ASCII)
"""What no name of ASCII holds (RFC 3722 section 6)."""

_EUI = re.compile(r"eui\.[0-9a-f]{16}\Z", re.IGNORECASE)
_NAA = re.compile(r"naa\.([0-9a-f]{16}|[0-9a-f]{32})\Z", re.IGNORECASE)


def complaint(name: str) -> str | None:
    """
    What is wrong with an iSCSI name, and what would be right.

    @return: a phrase, or None for a good name.
    """
    if not name:
        return "the name is empty"
    if len(name.encode("utf-8", "surrogatepass")) > LONGEST:
        return f"the name is longer than {LONGEST} bytes"
    bad = _unfit(name)
    if bad is not None:
        return f"the name holds {bad!r}; letters, digits, '-', '.' and ':' are allowed (RFC 3722)"
    lowered = name.lower()
    if _IQN.match(lowered) or _EUI.match(lowered) or _NAA.match(lowered):
        return None
    return "the name is not of the form iqn.YYYY-MM.DOMAIN[:TEXT], eui.16HEX, naa.16HEX or naa.32HEX"


def _unfit(name: str) -> str | None:
    """The first character that is neither a letter or digit of any script nor one of four signs."""
    if name.isascii():
        found = _UNFIT.search(name)
        return None if found is None else found[0]
    return next((c for c in name if not _fits(c)), None)


def _fits(character: str) -> bool:
    if character.isascii():
        return not _UNFIT.match(character)
    return unicodedata.category(character)[0] in "LNM"


def normalise(name: str) -> str:
    """
    The form in which names are compared: NFKC and folded case (RFC 3722).

    A text that is too long for a name stays as it is: to put thousands of accents in order takes long.
    """
    if name.isascii():
        return name.lower()
    if len(name) > LONGEST:
        return name
    return unicodedata.normalize("NFKC", name).lower()


def printable(text: str, longest: int = LONGEST) -> str:
    """Text from the network as it may stand in a log: one line, no control characters, bounded."""
    shown = text[:longest]
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else "?" for c in shown)
