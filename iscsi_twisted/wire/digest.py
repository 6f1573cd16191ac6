# -*- test-case-name: tests.wire.test_digest -*-
"""CRC32C digests (RFC 7143 13.1): the bytes that follow a header or a padded data segment."""

from __future__ import annotations

from collections.abc import Callable

Buffer = bytes | bytearray | memoryview

_function: Callable[..., int] | None = None


def crc32c(buffer: Buffer, start: int = 0) -> int:
    """The checksum, which may be continued over a further buffer."""
    global _function
    if _function is None:
        # Only now, since loading it takes long, and most sessions have no digests.
        import crc32c as module

        _function = module.crc32c
    return _function(buffer, start)


def digest(*parts: Buffer) -> bytes:
    """The digest of these bytes, in the order of the wire (least significant byte first)."""
    value = 0
    for part in parts:
        value = crc32c(part, value)
    return value.to_bytes(4, "little")
