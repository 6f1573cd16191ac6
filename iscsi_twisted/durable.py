# -*- test-case-name: tests.test_durable -*-
"""
Small files of the state directory that have to outlive crashes: each is there as a whole, old or new.

All of it blocks, for as long as the disk takes.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress


def readFile(path: str, most: int) -> bytes:
    """
    Read a file from its beginning.

    @param most: bytes to read at most.
    @raise OSError: if there is none, or it cannot be read.
    """
    # A FIFO or a terminal under this name must not make the start hang.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        parts = []
        while most > 0 and (part := os.read(descriptor, most)):
            parts.append(part)
            most -= len(part)
        return b"".join(parts)
    except OSError as error:
        raise _named(error, path) from None
    finally:
        os.close(descriptor)


def replaceFile(path: str, data: bytes) -> None:
    """
    Give a file this content, durably: whatever happens, there is the old or the new content afterwards.

    The file is for our eyes only.

    @raise OSError: if that is impossible; the old content is then still there, unless only the directory
        could not be made durable.
    """
    draft = draftFile(path, data)
    try:
        os.rename(draft, path)
    except OSError:
        with suppress(OSError):
            os.unlink(draft)
        raise
    syncDirectory(os.path.dirname(path) or ".")


def draftFile(path: str, data: bytes) -> str:
    """
    Make a new file beside another, with this content, durable.

    @return: its name.
    @raise OSError: if that is impossible; nothing is left then.
    """
    draft = f"{path}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(draft, flags, 0o600), "wb") as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):
                os.unlink(draft)
            raise _named(error, path) from None
    return draft


def _named(error: OSError, path: str) -> OSError:
    """An error that tells of which file it is; the system does not once a file is open."""
    error.filename = path
    return error


def overwriteFile(path: str, data: bytes) -> None:
    """
    Write over the beginning of a file that exists, durably, in place: the old bytes shall be nowhere.

    @raise OSError: if that is impossible; then the old or the new bytes are there, or some of both.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        place = 0
        while place < len(data):
            place += os.pwrite(descriptor, data[place:], place)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def makeDirectory(path: str) -> None:
    """Make a directory for our eyes only, if it is missing, and those above it."""
    if not os.path.isdir(path):
        os.makedirs(path, 0o700, exist_ok=True)
        syncDirectory(os.path.dirname(os.path.abspath(path)))


def syncDirectory(path: str) -> None:
    """Make the entries of a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
