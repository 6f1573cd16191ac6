"""A small ISO 9660 image with one file, that firmware can boot from (El Torito)."""

from __future__ import annotations

import struct

SECTOR = 2048
BOOT, CATALOG, ROOT, FILE = 19, 20, 21, 22
"""Sectors: of the boot program, the boot catalog, the root directory and the file."""


def both(value: int, size: int) -> bytes:
    """A number in both orders (ECMA-119 7.2.3, 7.3.3)."""
    return value.to_bytes(size, "little") + value.to_bytes(size, "big")


def entry(name: bytes, sector: int, length: int, directory: bool = False) -> bytes:
    """A directory record; ECMA-119 9.1."""
    body = struct.pack(
        ">x8s8s7xBxx4sB", both(sector, 4), both(length, 4), 0x02 if directory else 0, both(1, 2), len(name)
    )
    body += name + bytes((len(name) + 1) % 2)
    return bytes((len(body) + 1,)) + body


def image(content: bytes, boot: bytes = b"") -> bytes:
    """
    An image with the file C{FILE.DAT}.

    @param boot: the program that firmware starts.
    """
    end = FILE + -(-len(content) // SECTOR)
    root = entry(b"\0", ROOT, SECTOR, True)
    primary = (
        b"\1CD001\1\0" + b" " * 32 + b"EXAMPLE".ljust(32) + bytes(8) + both(end, 4) + bytes(32)
        + both(1, 2) + both(1, 2) + both(SECTOR, 2) + both(0, 4) + bytes(16) + root
    )  # fmt: skip
    record = b"\0CD001\1EL TORITO SPECIFICATION".ljust(0x47, b"\0") + CATALOG.to_bytes(4, "little")
    validation = bytearray(b"\1\0\0\0" + bytes(24) + b"\0\0\x55\xaa")
    total = sum(struct.unpack("<16H", validation)) & 0xFFFF
    struct.pack_into("<H", validation, 28, -total & 0xFFFF)
    catalog = bytes(validation) + struct.pack("<BBHBBHI", 0x88, 0, 0, 0, 0, 4, BOOT)
    listing = root + entry(b"\1", ROOT, SECTOR, True) + entry(b"FILE.DAT;1", FILE, len(content))
    sectors = {16: primary, 17: record, 18: b"\xffCD001\1", BOOT: boot, CATALOG: catalog, ROOT: listing}
    made = b"".join(sectors.get(number, b"").ljust(SECTOR, b"\0") for number in range(FILE))
    return made + content.ljust((end - FILE) * SECTOR, b"\0")
