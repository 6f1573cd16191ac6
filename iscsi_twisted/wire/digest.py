# -*- test-case-name: tests.wire.test_digest -*-
"""CRC32C digests (RFC 7143 13.1): the bytes that follow a header or a padded data segment."""

from __future__ import annotations

from collections.abc import Callable

import crc32c as _crc32c

Buffer = bytes | bytearray | memoryview

crc32c: Callable[..., int] = _crc32c.crc32c
"""C{crc32c(buffer, start=0)}: the checksum, which may be continued over a further buffer."""


def digest(*parts: Buffer) -> bytes:
    """The digest of these bytes, in the order of the wire (least significant byte first)."""
    value = 0
    for part in parts:
        value = crc32c(part, value)
    return value.to_bytes(4, "little")
