# -*- test-case-name: tests.scsi.test_sense -*-
"""Sense data: what went wrong, as an initiator is told (SPC-4 4.5)."""

from __future__ import annotations

import errno
import struct
from typing import Final

from iscsi_twisted.errors import CheckCondition, DeviceError
from iscsi_twisted.scsi import codes

_FIXED = struct.Struct(">BxBIBIHx3s")
_DESCRIPTOR = struct.Struct(">BBH3xB")
_INFORMATION = struct.Struct(">BBBxQ")
_COMMAND_SPECIFIC = struct.Struct(">BBxxQ")
_FORWARDED = struct.Struct(">BBBB")
_KEY_SPECIFIC = struct.Struct(">BB2x3sx")

SOURCE, DESTINATION = 1, 2
"""Who has said what is forwarded, SPC-4 table 55."""


def encode(condition: CheckCondition, descriptors: bool = False) -> bytes:
    """
    Sense data for a condition.

    @param descriptors: descriptor format (SPC-4 4.5.2), else fixed format (SPC-4 4.5.3).
    """
    return _descriptorFormat(condition) if descriptors else _fixedFormat(condition)


def _fixedFormat(condition: CheckCondition) -> bytes:
    information = condition.information
    # What needs more than 32 bits cannot be told in this format: VALID stays zero.
    valid = information is not None and information < 1 << 32
    forwarded, places = _appended(condition)
    head = _FIXED.pack(
        (0xF0 if valid else 0x70) | condition.deferred,
        condition.key,
        information if valid else 0,
        10 + len(forwarded),
        condition.commandSpecific | places,
        condition.code,
        fieldPointer(condition),
    )
    return head + forwarded


def _appended(condition: CheckCondition) -> tuple[bytes, int]:
    """What another device has said, behind fixed format sense data, and where that is (SPC-3 6.3.3)."""
    if condition.forwarded is None:
        return b"", 0
    whose, status, said = condition.forwarded
    return bytes((status,)) + said, _FIXED.size << (24 if whose == SOURCE else 16)


def _descriptorFormat(condition: CheckCondition) -> bytes:
    descriptors = b""
    if condition.information is not None:
        descriptors += _INFORMATION.pack(0x00, 0x0A, 0x80, condition.information)
    if condition.commandSpecific:
        descriptors += _COMMAND_SPECIFIC.pack(0x01, 0x0A, condition.commandSpecific)
    if condition.field is not None or condition.specific is not None:
        descriptors += _KEY_SPECIFIC.pack(0x02, 0x06, fieldPointer(condition))
    if condition.forwarded is not None:
        whose, status, said = condition.forwarded
        descriptors += _FORWARDED.pack(0x0C, 2 + len(said), whose, status) + said
    head = _DESCRIPTOR.pack(0x72 | condition.deferred, condition.key, condition.code, len(descriptors))
    return head + descriptors


def fieldPointer(condition: CheckCondition) -> bytes:
    """The sense key specific bytes, which point at an offending field if nothing else (SPC-4 4.5.2.4.2)."""
    if condition.specific is not None:
        return condition.specific
    if condition.field is None:
        return bytes(3)
    flags = 0x80 if condition.inData else 0xC0
    if condition.bit is not None:
        flags |= 0x08 | condition.bit
    return struct.pack(">BH", flags, condition.field)


_PROTECTED: Final = (codes.DATA_PROTECT, codes.WRITE_PROTECTED)
_FULL: Final = (codes.DATA_PROTECT, codes.SPACE_ALLOCATION_FAILED)
_GONE: Final = (codes.NOT_READY, codes.NOT_READY_CAUSE_NOT_REPORTABLE)
_RETRY: Final = (codes.ABORTED_COMMAND, codes.NO_ADDITIONAL_SENSE)

_ERRNO: Final[dict[int | None, tuple[int, int]]] = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EROFS: _PROTECTED,
    errno.EACCES: _PROTECTED,
    errno.EPERM: _PROTECTED,
    errno.ENODEV: _GONE,
    errno.ENXIO: _GONE,
    errno.ESTALE: _GONE,
    errno.ENOTCONN: _GONE,
    errno.ECONNREFUSED: _GONE,
    errno.ECONNRESET: _GONE,
    errno.EHOSTUNREACH: _GONE,
    errno.ETIMEDOUT: (codes.ABORTED_COMMAND, codes.COMMUNICATION_TIMEOUT),
    errno.EINTR: _RETRY,
    errno.EAGAIN: _RETRY,
    errno.EBUSY: _RETRY,
    errno.ENOMEM: _RETRY,
}


def conditionOf(error: BaseException, writing: bool, blockSize: int) -> CheckCondition | None:
    """
    What to tell of an exception.

    @param writing: whether the command that failed writes, or makes durable what was written.
    @param blockSize: bytes in a logical block.
    @return: None for a surprise, that is, for a bug.
    """
    if isinstance(error, CheckCondition):
        return error
    if isinstance(error, DeviceError):
        first = None if error.offset is None else error.offset // blockSize
        return CheckCondition(error.key, error.code, information=first)
    if isinstance(error, OSError):
        return _ofErrno(error.errno, writing)
    return None


def _ofErrno(number: int | None, writing: bool) -> CheckCondition | None:
    if number == errno.EIO:
        code = codes.WRITE_FAULT if writing else codes.UNRECOVERED_READ_ERROR
        return CheckCondition(codes.MEDIUM_ERROR, code)
    known = _ERRNO.get(number)
    if known is _PROTECTED and not writing:
        known = _GONE
    return None if known is None else CheckCondition(*known)


def progress(done: int) -> bytes:
    """
    Sense key specific bytes that tell how far long work is (SPC-4 4.5.2.4.4).

    @param done: parts of 65,536.
    """
    return struct.pack(">BH", 0x80, done)
