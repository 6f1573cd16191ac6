"""
Commands that an initiator may send, from the units' own tables: each with fields and parameters that are
right, at the edge, or spoilt.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple

from iscsi_twisted.scsi import cdb, cdblong, cdbprimary, modes, timestamp
from iscsi_twisted.scsi.cdb import Command
from iscsi_twisted.scsi.persistent import LIST, MOVE_LIST
from iscsi_twisted.scsi.registrations import TYPES, Port
from iscsi_twisted.scsi.transportid import transportID
from tests.scsi.copies import copyList, segment, target

NAMES: Final = tuple(f"iqn.2001-04.com.example:{letter}" for letter in "abc")
"""Of initiators."""
ISIDS: Final = (b"\x80\0\0\0\0\1", b"\x80\0\0\0\0\2")


Fields = dict[str, int]
"""Values of a CDB by name; a parameter list may need others."""


class Choices(Random):
    """Chance that is read from bytes: what a fuzzer that changes a byte changes is one choice."""

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self.left = data

    @property
    def over(self) -> bool:
        """Whether nothing is left to choose by."""
        return not self.left

    def getrandbits(self, k: int) -> int:
        size = (k + 7) // 8
        taken, self.left = self.left[:size], self.left[size:]
        return int.from_bytes(taken, "big") & (1 << k) - 1

    def random(self) -> float:
        return self.getrandbits(8) / 256


class Sent(NamedTuple):
    """A command as it is sent."""

    cdb: bytes
    data: bytes
    attribute: int


def anything(random: Random, unit: Any, naas: list[bytes]) -> Sent:
    """
    Any command to a unit.

    @param naas: designators of the units that there are.
    """
    commands = list(unit.table)
    command = random.choice(commands)
    if random.random() < 0.35:
        # What keeps state is tried more often than its share of the table.
        command = random.choice([each for each in commands if each.name.startswith(_OFTEN)] or commands)
    fields = _fields(random, unit, command)
    data = b""
    build = _PARAMETERS.get(command) or _BY_OPCODE.get(command.opcode)
    if build is not None:
        data = build(random, unit, command, fields, naas)
        fields |= {name: value for name, value in _lengths(command, data).items() if name in fields}
        if random.random() < 0.2:
            data = _spoil(random, data)
    elif random.random() < 0.03:
        data = random.randbytes(random.choice((1, 8, 24, 512)))
    sent = bytearray(_pack(command, fields))
    if random.random() < 0.05:
        sent[random.randrange(1, len(command.usage))] ^= 1 << random.randrange(8)
    if random.random() < 0.005:
        sent[0] = random.randrange(256)
    return Sent(bytes(sent), data, random.choice((1,) * 12 + (0, 2, 2, 3, 4, 5)))


_OFTEN: Final = ("PERSISTENT", "EXTENDED", "SANITIZE", "FORMAT", "WRITE ATOMIC", "COMPARE", "MODE SELECT")


def _fields(random: Random, unit: Any, command: Command) -> Fields:
    """Values of all fields: few flags, and places and lengths that mean something."""
    raw = bytes(random.getrandbits(8) & usage if random.random() < 0.3 else 0 for usage in command.usage)
    values = dict(zip(command.layout.fields, command.layout.unpack(raw), strict=True))
    if "lba" in values:
        blocks = unit.blockCount
        values["lba"] = random.choice(
            (
                0,
                1,
                random.randrange(max(blocks, 1)),
                random.randrange(max(blocks, 1)),
                blocks - 1,
                blocks,
                values["lba"],
            )
        ) % (1 << 32)
    if "length" in values:
        values["length"] = random.choice((0, 1, 1, 2, 3, 8, 17, values["length"]))
    if "allocation" in values:
        values["allocation"] = random.choice((0, 1, 4, 8, 16, 64, 255, 255, values["allocation"]))
    if "control" in values and random.random() < 0.9:
        values["control"] = 0
    return values


def _pack(command: Command, fields: Fields) -> bytes:
    """The CDB; what is too large for its field is cut."""
    fields = dict(fields, opcode=command.opcode)
    if command.serviceAction is not None:
        fields["action"] = fields.get("action", 0) & 0xE0 | command.serviceAction
    for name in fields:
        for size in (8, 4, 2, 1):
            fields[name] &= (1 << 8 * size) - 1
            try:
                command.layout.pack(*fields.values())
            except struct.error:
                continue
            break
    return command.layout.pack(*fields.values()).ljust(16, b"\0")


def _lengths(command: Command, data: bytes) -> Fields:
    """The parameter list length, where that is what the CDB tells."""
    if command in _IN_BLOCKS:
        return {}
    if command is cdbprimary.WRITE_BUFFER:
        return {"lengthHigh": len(data) >> 16, "length": len(data) & 0xFFFF}
    return {"length": len(data)}


def _spoil(random: Random, data: bytes) -> bytes:
    """Bits turned round, cut off, or with something behind it."""
    kind, victim = random.randrange(4), bytearray(data)
    if kind == 0:
        return data[: random.randrange(len(data) + 1)]
    if kind == 1:
        return data + random.randbytes(random.choice((1, 4, 28, 600)))
    if not victim:
        return data
    for _ in range(random.choice((1, 1, 2, 6))):
        victim[random.randrange(len(victim))] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
    return bytes(victim)


# Parameter lists

Build = Callable[[Random, Any, Command, Fields, list[bytes]], bytes]


def _blocks(random: Random, unit: Any, command: Command, fields: Fields, naas: list[bytes]) -> bytes:
    """As many blocks as the CDB says, if that is not too many."""
    count = min(fields.get("length", 1), 64)
    if command is cdb.COMPARE_AND_WRITE:
        count *= 2
    if command in (cdb.WRITE_SAME_10, cdb.WRITE_SAME_16):
        count = 1
    if command in _VERIFIES:
        count = (0, count, 0, 1)[fields.get("flags", 0) >> 1 & 3]
    return bytes((random.choice((0, 0, 1, 7)),)) * (count * unit.blockSize)


_VERIFIES = (cdb.VERIFY_10, cdb.VERIFY_12, cdb.VERIFY_16)
_IN_BLOCKS = (
    cdb.WRITE_6, cdb.WRITE_10, cdb.WRITE_12, cdb.WRITE_16, cdb.WRITE_SAME_10, cdb.WRITE_SAME_16, *_VERIFIES,
    cdb.WRITE_AND_VERIFY_10, cdb.WRITE_AND_VERIFY_12, cdb.WRITE_AND_VERIFY_16, cdb.ORWRITE_16,
    cdb.COMPARE_AND_WRITE, cdblong.WRITE_ATOMIC_16,
)  # fmt: skip


def _port(random: Random) -> Port:
    return Port(random.choice(NAMES), random.choice((*ISIDS, b"")), random.choice((1, 1, 2)))


def _reserve(random: Random, unit: Any, command: Command, fields: Fields, naas: list[bytes]) -> bytes:
    key, new = random.choice((0, 1, 1, 2)), random.choice((0, 1, 1, 2))
    flags = random.choice((0, 0, 0, 1, 1, 4, 5, 8, 13))
    if random.random() < 0.9:
        fields["type"] = random.choice(sorted(TYPES))
    if command is cdb.PR_REGISTER_AND_MOVE:
        port = _port(random)
        named = transportID(port)
        return MOVE_LIST.pack(key, new or 1, flags & 3, port.tag, len(named)) + named
    data = LIST.pack(key, new, flags)
    if flags & 8:
        named = b"".join(transportID(_port(random)) for _ in range(random.randrange(4)))
        data += len(named).to_bytes(4, "big") + named
    return data


def _copy(random: Random, unit: Any, command: Command, fields: Fields, naas: list[bytes]) -> bytes:
    targets = [
        target(
            random.choice(naas),
            pad=random.random() < 0.3,
            blockSize=random.choice((0, 0, 0, 512, 4096)),
            flags=random.choice((0, 0, 0, 0, 5)),
        )
        for _ in range(random.choice((0, 1, 2, 2, 2, 3, 17)))
    ]
    most = max(len(targets), 1)
    segments = [
        segment(
            random.randrange(most),
            random.randrange(most) if random.random() < 0.95 else 0xFFFF,
            random.choice((0, 1, 2, 8, 40, 0xFFFF)),
            random.randrange(64),
            random.randrange(64),
            random.choice((0, 0, 1, 2)),
        )
        for _ in range(random.choice((0, 1, 1, 2, 3, 65)))
    ]
    inline = random.choice((0, 0, 0, 0, 0, 4))
    return copyList(targets, segments, random.randrange(4), random.choice((0, 0, 1, 2, 3)), inline)


def _overwrite(random: Random, unit: Any, command: Command, fields: Fields, naas: list[bytes]) -> bytes:
    pattern = random.choice((b"x", b"\0", b"abcdefgh", bytes(unit.blockSize)))
    return struct.pack(">BxH", random.choice((1, 1, 2, 3, 0x82, 0)), len(pattern)) + pattern


def _format(random: Random, unit: Any, command: Command, fields: Fields, naas: list[bytes]) -> bytes:
    if not fields["flags"] & 0x10:
        return b""
    options = random.choice((0, 2, 2, 8, 10, 0x88, 0x80))
    head = bytes((0, options, 0, 0)) + (bytes(4) if fields["flags"] & 0x20 else b"")
    if options & 8:
        head += random.choice((bytes(4), b"\0\1\0\1z", b"\0\1\0\0"))
    return head


def _modes(random: Random, unit: Any, command: Command, fields: Fields, naas: list[bytes]) -> bytes:
    fields["flags"] = 0x10 | random.choice((0, 1))
    long = command is cdb.MODE_SELECT_10
    body = b""
    for page in random.sample(modes.available(unit), random.randrange(3)):
        encoded = bytearray(page.encode(unit, modes.CURRENT))
        encoded[0] &= 0x7F
        mask = page.encode(unit, modes.CHANGEABLE)
        for place in range(len(mask)):
            if mask[place] and place > 1:
                encoded[place] ^= mask[place] & random.getrandbits(8)
        body += encoded
    descriptor = struct.pack(">II", unit.blockCount, unit.blockSize) if random.random() < 0.3 else b""
    head = struct.pack(">6xH", len(descriptor)) if long else bytes((0, 0, 0, len(descriptor)))
    return head + descriptor + body


def _unmap(random: Random, unit: Any, command: Command, fields: Fields, naas: list[bytes]) -> bytes:
    each = b"".join(
        struct.pack(">QI4x", random.randrange(70), random.choice((0, 1, 8)))
        for _ in range(random.choice((0, 1, 2, 300)))
    )
    return struct.pack(">HH4x", len(each) + 6, len(each)) + each


def _groups(random: Random, unit: Any, command: Command, fields: Fields, naas: list[bytes]) -> bytes:
    found = [
        struct.pack(">BxH", random.choice((0, 0, 1, 2, 3, 14)), random.choice((1, 2, 2, 3)))
        for _ in range(random.randrange(3))
    ]
    return bytes(4) + b"".join(found)


def _buffer(random: Random, unit: Any, command: Command, fields: Fields, naas: list[bytes]) -> bytes:
    fields["mode"] = random.choice((2, 2, 10, 10, 5))
    fields["buffer"] = random.choice((0, 0, 0, 1))
    return random.randbytes(random.choice((0, 4, 512, 4096, 4100)))


def _diagnose(random: Random, unit: Any, command: Command, fields: Fields, naas: list[bytes]) -> bytes:
    fields["flags"] = random.choice((0x04, 0x10, 0x20, 0x40, 0x80, 0xA0, 0xC0, fields["flags"]))
    return bytes(4) if fields["flags"] == 0x10 else b""


def _name(random: Random, unit: Any, command: Command, fields: Fields, naas: list[bytes]) -> bytes:
    fields["type"] = random.choice((0, 4, 4, 2))
    return random.choice((b"", b"name", "\u00fc".encode(), b"\xff", bytes(513)))


def _time(random: Random, unit: Any, command: Command, fields: Fields, naas: list[bytes]) -> bytes:
    return timestamp.LIST.pack(random.getrandbits(16), random.getrandbits(32))


_PARAMETERS: Final[dict[Command, Build]] = {
    **dict.fromkeys(_IN_BLOCKS, _blocks),
    cdblong.EXTENDED_COPY: _copy,
    cdblong.SANITIZE_OVERWRITE: _overwrite,
    cdblong.FORMAT_UNIT: _format,
    cdb.MODE_SELECT_6: _modes,
    cdb.MODE_SELECT_10: _modes,
    cdb.UNMAP: _unmap,
    cdb.SET_TARGET_PORT_GROUPS: _groups,
    cdbprimary.WRITE_BUFFER: _buffer,
    cdbprimary.SEND_DIAGNOSTIC: _diagnose,
    cdbprimary.SET_IDENTIFYING: _name,
    cdbprimary.SET_TIMESTAMP: _time,
}
_BY_OPCODE: Final[dict[int, Build]] = {cdb.PR_REGISTER.opcode: _reserve}
