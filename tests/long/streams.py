"""Streams of PDUs as an initiator may send them, and what a bad one makes of them."""

from __future__ import annotations

from random import Random

from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import numbers
from iscsi_twisted.wire.serial import MASK
from tests.long.invent import anything
from tests.support import pdus
from tests.support.wire import INITIATOR, TARGET, TEST_UNIT_READY, furnished, makeUnit, read10, write10

KEYS = {
    "InitialR2T": ("Yes", "No"),
    "ImmediateData": ("Yes", "No"),
    "FirstBurstLength": ("512", "8192", "262144"),
    "MaxBurstLength": ("512", "65536", "1048576"),
    "MaxOutstandingR2T": ("1", "8"),
    "MaxRecvDataSegmentLength": ("512", "8192", "262144", "511"),
    "HeaderDigest": ("None", "None,CRC32C", "CRC32C"),
    "DataDigest": ("None",),
    "X-com.example.key": ("", "1" * 200),
    "SessionType": ("Normal", "Normal", "Normal", "Discovery", "Nonsense"),
    "SendTargets": ("All",),
    "AuthMethod": ("None", "CHAP,None", "CHAP"),
}

LUNS = (bytes(8), bytes(8), b"\0\1" + bytes(6), b"\xff" * 8)


UNIT = furnished(makeUnit(MemoryDevice(1 << 20)))
"""A unit like those that the commands are for."""


def login(random: Random) -> bytes:
    """A login, nearly always a good one."""
    keys = {"InitiatorName": INITIATOR, "TargetName": TARGET}
    for name in random.sample([*KEYS], random.randrange(5)):
        keys[name] = random.choice(KEYS[name])
    keys.pop("HeaderDigest", None)
    if random.random() < 0.7:
        return pdus.loginRequest(keys)
    stages = [pdus.loginRequest(keys, stage=0, following=1, tsih=random.choice((0, 0, 0, 1, 2)))]
    stages.append(pdus.loginRequest({"MaxBurstLength": "8192"}, stage=1, following=random.choice((None, 3))))
    stages.append(pdus.loginRequest({}, stage=1, following=3))
    return b"".join(stages)


def command(random: Random, cmdSN: int, itt: int, blocks: int) -> bytes:
    """A SCSI command with some or all of its data."""
    lba = random.choice((0, 1, random.randrange(blocks), blocks - 1, 0xFFFFFFFF))
    count = random.choice((0, 1, 2, 8, 64, 255))
    length = count * 512 + random.choice((0, 0, 0, -1, 512))
    lun = random.choice(LUNS)
    if random.random() < 0.4:
        return invented(random, cmdSN, itt, lun)
    if random.random() < 0.4:
        return pdus.scsiCommand(read10(lba, count), itt=itt, cmdSN=cmdSN, read=max(length, 0), lun=lun)
    if random.random() < 0.2:
        cdb = random.choice((TEST_UNIT_READY, b"\x35" + bytes(9), random.randbytes(16)))
        return pdus.scsiCommand(cdb, itt=itt, cmdSN=cmdSN, read=random.choice((None, 252)), lun=lun)
    data = random.randbytes(random.choice((0, 0, 512, min(max(length, 0), 8192))))
    return pdus.scsiCommand(
        write10(lba, count), itt=itt, cmdSN=cmdSN, write=max(length, 0), data=data,
        final=random.random() < 0.7, lun=lun, immediate=random.random() < 0.05,
    )  # fmt: skip


def invented(random: Random, cmdSN: int, itt: int, lun: bytes) -> bytes:
    """Any SCSI command, with all of its data, or a part of them."""
    cdb, data, attribute = anything(random, UNIT, [UNIT.identity.naa, bytes(8)])
    sent = data[: random.choice((len(data), len(data), len(data) // 2, 0, 8192))]
    return pdus.scsiCommand(
        cdb, itt=itt, cmdSN=cmdSN, lun=lun, attribute=attribute, data=sent,
        write=len(data) if data else None, read=None if data else random.choice((None, 64, 255, 4096)),
        final=len(sent) == len(data) or random.random() < 0.5, immediate=random.random() < 0.05,
    )  # fmt: skip


def other(random: Random, cmdSN: int, itt: int) -> bytes:
    """A PDU that is no SCSI command."""
    kind = random.randrange(6)
    if kind == 0:
        return pdus.dataOut(
            random.randbytes(random.choice((0, 512, 4096))), itt=itt - random.randrange(3),
            ttt=random.choice((numbers.NO_TAG, 1, 2, 3)), dataSN=random.randrange(3),
            offset=random.choice((0, 512, 4096)), final=random.random() < 0.7,
        )  # fmt: skip
    if kind == 1:
        return pdus.nopOut(random.randbytes(random.randrange(40)), itt=itt, cmdSN=cmdSN)
    if kind == 2:
        text = random.choice((b"SendTargets=\0", b"SendTargets=All\0", b"nonsense", b"X-a=1\0", b""))
        return pdus.textRequest(
            text, itt=itt, ttt=random.choice((numbers.NO_TAG, 1)), final=random.random() < 0.8
        )
    if kind == 3:
        return pdus.taskManagement(
            random.randrange(1, 10), lun=random.choice(LUNS), referenced=itt - random.randrange(4), itt=itt,
            cmdSN=(cmdSN + random.choice((0, 0, 1, 3))) & MASK, refCmdSN=(cmdSN - random.randrange(3)) & MASK,
            immediate=random.random() < 0.8,
        )  # fmt: skip
    if kind == 4 and random.random() < 0.1:
        return pdus.logoutRequest(reason=random.randrange(4), itt=itt)
    return bytes((random.randrange(64) | 0x40,)) + random.randbytes(3) + bytes(4) + random.randbytes(40)


def session(random: Random, blocks: int) -> list[bytes]:
    """A whole session, PDU by PDU."""
    stream = [login(random)]
    cmdSN, itt = 1, 0x100
    for _ in range(random.randrange(20)):
        itt += random.choice((1, 1, 1, 0))
        if random.random() < 0.6:
            stream.append(command(random, cmdSN, itt, blocks))
            cmdSN = (cmdSN + random.choice((1, 1, 1, 1, 0, 2, -1))) & MASK
        else:
            stream.append(other(random, cmdSN, itt))
    return stream


def mutate(random: Random, stream: list[bytes]) -> list[bytes]:
    """The same, with some things wrong with it."""
    stream = list(stream)
    for _ in range(random.choice((0, 0, 1, 1, 2, 5))):
        place = random.randrange(len(stream))
        victim = bytearray(stream[place])
        kind = random.randrange(6)
        if kind == 0:
            stream[place], stream[-1] = stream[-1], stream[place]
        elif kind == 1:
            stream.insert(place, stream[place])
        elif kind == 2:
            stream[place] = bytes(victim[: random.randint(1, len(victim))])
        elif kind == 3:
            stream.insert(place, random.randbytes(random.randint(1, 200)))
        elif kind == 4:
            # A header field.
            begin = random.choice((0, 1, 4, 5, 8, 16, 20, 24, 28, 32, 36, 40, 44))
            victim[begin : begin + 4] = random.choice((bytes(4), b"\xff" * 4, random.randbytes(4)))
            stream[place] = bytes(victim)
        else:
            for _ in range(random.randrange(1, 8)):
                victim[random.randrange(len(victim))] ^= 1 << random.randrange(8)
            stream[place] = bytes(victim)
    return stream


def chunks(random: Random, stream: bytes) -> list[bytes]:
    """The stream as it may arrive."""
    if random.random() < 0.3:
        return [stream]
    step = random.choice((1, 47, 49, 1000, 4096))
    if step == 1 and len(stream) > 5000:
        step = 100
    return [stream[begin : begin + step] for begin in range(0, len(stream), step)]
