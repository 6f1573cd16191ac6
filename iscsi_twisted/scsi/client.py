# -*- test-case-name: tests.scsi.test_client -*-
"""The application client's side of SCSI: what answers mean (SPC-4, SBC-3)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

import attrs

from iscsi_twisted.errors import CheckCondition, ISCSIError
from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.words import describe

# What a command may end with instead of GOOD


ACA_ACTIVE: Final = 0x30


class StatusError(ISCSIError):
    """
    A command ended with another status than GOOD, and without sense data (SAM-5 5.3.1).

    @ivar status: the SCSI status.
    """

    def __init__(self, status: int) -> None:
        super().__init__((self.__doc__ or "").split(" (")[0].strip(". \n") + f" (status {status:02X}h)")
        self.status = status


class Busy(StatusError):
    """The unit is busy (SAM-5 5.3.1)."""


class ReservationConflict(StatusError):
    """Another initiator has reserved the unit (SAM-5 5.3.1)."""


class TaskSetFull(StatusError):
    """The unit has no room for more commands (SAM-5 5.3.1)."""


class ACAActive(StatusError):
    """An auto contingent allegiance holds the unit (SAM-5 5.3.1)."""


class TaskAborted(StatusError):
    """Another initiator has aborted the command (SAM-5 5.3.1)."""


class RecoveredError(CheckCondition):
    """The command succeeded, with some recovery (sense key 1h)."""


class UnitNotReady(CheckCondition):
    """The unit cannot be accessed (sense key 2h)."""


class MediumError(CheckCondition):
    """The medium, or the data on it, are bad (sense key 3h)."""


class HardwareError(CheckCondition):
    """The target has failed (sense key 4h)."""


class IllegalRequest(CheckCondition):
    """The command, or its parameters, are not understood or not allowed (sense key 5h)."""


class UnitAttention(CheckCondition):
    """Something has happened to the unit since the last command (sense key 6h)."""


class DataProtect(CheckCondition):
    """The medium is protected against what was asked (sense key 7h)."""


class BlankCheck(CheckCondition):
    """There are no data where some were expected (sense key 8h)."""


class VendorSpecific(CheckCondition):
    """Something of which only the vendor knows what it is (sense key 9h)."""


class CopyAborted(CheckCondition):
    """A copy was aborted (sense key Ah)."""


class AbortedCommand(CheckCondition):
    """The target has aborted the command; it may succeed if tried again (sense key Bh)."""


class VolumeOverflow(CheckCondition):
    """Data remain that do not fit the medium (sense key Dh)."""


class Miscompare(CheckCondition):
    """The data are not those on the medium (sense key Eh)."""


class Completed(CheckCondition):
    """The command succeeded, and the unit tells more of it (sense key Fh)."""


_STATUSES: Final[dict[int, type[StatusError]]] = {
    codes.BUSY: Busy,
    codes.RESERVATION_CONFLICT: ReservationConflict,
    codes.TASK_SET_FULL: TaskSetFull,
    ACA_ACTIVE: ACAActive,
    codes.TASK_ABORTED: TaskAborted,
}
_KEYS: Final[dict[int, type[CheckCondition]]] = {
    0x1: RecoveredError,
    0x2: UnitNotReady,
    0x3: MediumError,
    0x4: HardwareError,
    0x5: IllegalRequest,
    0x6: UnitAttention,
    0x7: DataProtect,
    0x8: BlankCheck,
    0x9: VendorSpecific,
    0xA: CopyAborted,
    0xB: AbortedCommand,
    0xD: VolumeOverflow,
    0xE: Miscompare,
    0xF: Completed,
}


def failure(status: int, sense: Buffer) -> ISCSIError:
    """The exception for a status that is not GOOD, and for its sense data."""
    if status == codes.CHECK_CONDITION and len(sense):
        return decodeSense(sense)
    return _STATUSES.get(status, StatusError)(status)


def decodeSense(sense: Buffer) -> CheckCondition:
    """
    Sense data of either format, of this command or an earlier one, however short (SPC-4 4.5).

    @return: an exception of the class that stands for the sense key, whose text has the names of both.
    """
    padded = bytes(sense).ljust(18, b"\0")
    if padded[0] & 0x7F in (0x72, 0x73):
        key, code = padded[1] & 15, int.from_bytes(padded[2:4], "big")
        information = next((_wide(d) for d in _descriptors(padded) if d[0] == 0 and len(d) >= 12), None)
    else:
        key, code = padded[2] & 15, int.from_bytes(padded[12:14], "big")
        information = int.from_bytes(padded[3:7], "big") if padded[0] & 0x80 else None
    deferred = padded[0] & 0x7F in (0x71, 0x73)
    condition = _KEYS.get(key, CheckCondition)(key, code, information=information, deferred=deferred)
    condition.args = (describe(key, code),)
    return condition


def _descriptors(sense: bytes) -> Iterator[bytes]:
    place, end = 8, min(len(sense), 8 + sense[7])
    while place + 2 <= end:
        length = 2 + sense[place + 1]
        yield sense[place : min(place + length, end)]
        place += length


def _wide(descriptor: bytes) -> int | None:
    return int.from_bytes(descriptor[4:12], "big") if descriptor[2] & 0x80 else None


# Parameter data


@attrs.frozen
class Inquiry:
    """
    Standard INQUIRY data (SPC-4 6.6.2).

    @ivar kind: peripheral device type; 0 is a disk.
    @ivar present: whether there is a unit at this number.
    """

    kind: int
    present: bool
    removable: bool
    vendor: str
    product: str
    revision: str

    @classmethod
    def parse(cls, data: Buffer) -> Inquiry:
        """However short the data are."""
        padded = bytes(data).ljust(36, b"\0")
        texts = [_ascii(padded[begin:end]) for begin, end in ((8, 16), (16, 32), (32, 36))]
        return cls(padded[0] & 0x1F, not padded[0] >> 5, bool(padded[1] & 0x80), *texts)


def _ascii(field: bytes) -> str:
    text = field.decode("ascii", "replace").strip(" \0")
    return "".join(c if c.isprintable() else "?" for c in text)


@attrs.frozen
class Capacity:
    """
    READ CAPACITY data (SBC-3 5.16).

    @ivar blocks: how many there are.
    @ivar blockSize: bytes in each.
    @ivar physicalBlockSize: bytes.
    @ivar thin: whether blocks can be unmapped.
    @ivar unmappedZeroes: whether unmapped blocks read as zeros.
    """

    blocks: int
    blockSize: int
    physicalBlockSize: int
    thin: bool
    unmappedZeroes: bool

    @classmethod
    def parse(cls, data: Buffer) -> Capacity:
        """READ CAPACITY (16); what an old target leaves out is zero."""
        last, size, _, exponent, flags = struct.unpack_from(">QIBBH", bytes(data).ljust(32, b"\0"))
        thin, zeroes = bool(flags & 0x8000), bool(flags & 0x4000)
        return cls(last + 1, size, size << (exponent & 15), thin, zeroes)


def parseLUNs(data: Buffer) -> list[bytes]:
    """The eight-byte numbers in REPORT LUNS data (SPC-4 6.33), as many as there are."""
    data = bytes(data)
    end = min(len(data), 8 + int.from_bytes(data[:4], "big"))
    return [data[place : place + 8] for place in range(8, end - 7, 8)]


def parseStatus(data: Buffer) -> list[tuple[int, int, bool]]:
    """
    GET LBA STATUS data (SBC-3 5.4).

    @return: runs of C{(first block, how many, whether they are mapped)}.
    """
    data = bytes(data)
    end = min(len(data), 4 + int.from_bytes(data[:4], "big"))
    runs = (struct.unpack_from(">QIB", data, place) for place in range(8, end - 15, 16))
    return [(first, count, provisioning & 15 == 0) for first, count, provisioning in runs]


def designators(page: Buffer) -> list[bytes]:
    """
    What a unit is called, from page 83h of vital product data (SPC-4 7.8.6).

    @return: designators of the unit itself, with their heads; not those of its target, or of a port.
    """
    data = bytes(page)
    place, end = 4, min(len(data), 4 + int.from_bytes(data[2:4], "big"))
    found = []
    while place + 4 <= end:
        after = place + 4 + data[place + 3]
        if not data[place + 1] & 0x30 and after <= end:
            found.append(data[place:after])
        place = after
    return found


def unmapList(ranges: Iterable[tuple[int, int]]) -> bytes:
    """The parameter list of UNMAP (SBC-3 5.28) for C{(first block, how many)}."""
    descriptors = b"".join(struct.pack(">QI4x", *one) for one in ranges)
    return struct.pack(">HH4x", 6 + len(descriptors), len(descriptors)) + descriptors
