# -*- test-case-name: tests.wire.test_text -*-
"""Text keys: C{key=value} pairs, each ended by a NUL (RFC 7143 6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from iscsi_twisted.errors import TextError

KEY = re.compile(r"[A-Za-z][A-Za-z0-9.\-+@_#]{0,62}\Z")
"""
A key-name: at most 63 characters of the set in RFC 7143 6.1.  It is to begin with a capital letter, but
one of the standard's own (iSCSIProtocolLevel) does not.
"""

LONGEST_VALUE = 8192
"""No text-value is longer (RFC 7143 6.1: 255 bytes unless a key says otherwise; large-binary-values
are at most 1,024 bytes, their base64 and hex forms shorter than this)."""


def decode(data: bytes) -> list[tuple[str, str]]:
    """
    Split a text data segment into its pairs, in order.

    @raise TextError: for bytes that are not pairs of the standard's form.
    """
    return [_pair(item) for item in bytes(data).split(b"\0") if item]


def _pair(item: bytes) -> tuple[str, str]:
    name, equals, value = item.partition(b"=")
    if not equals:
        raise TextError("a text item has no '='")
    try:
        key, text = name.decode("ascii"), value.decode("utf-8")
    except UnicodeDecodeError:
        raise TextError("a text item is not UTF-8") from None
    if not KEY.match(key):
        raise TextError("a text item has no valid key name before its '='")
    if len(value) > LONGEST_VALUE:
        raise TextError(f"the value of {key} is longer than {LONGEST_VALUE} bytes")
    return key, text


def encode(pairs: Iterable[tuple[str, str]]) -> bytes:
    """The data segment for these pairs, without padding."""
    return b"".join(b"%s=%s\0" % (key.encode("ascii"), value.encode("utf-8")) for key, value in pairs)
