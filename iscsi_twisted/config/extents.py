# -*- test-case-name: tests.config.test_extents -*-
"""The parts of an extent: its path, its length, and the bytes that it must not share with another."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Final

from iscsi_twisted.config.lines import quoted
from iscsi_twisted.config.model import Extent
from iscsi_twisted.config.sizes import MAX_BYTES, parseSize
from iscsi_twisted.errors import ConfigurationError

MIN_LENGTH: Final = 512
"""Bytes of the smallest block: a shorter extent holds none, and mostly its unit was forgotten."""


SCHEMES: Final = ("iscsi:", "iscsis:")
"""What the path of an extent begins with that is a unit of another target."""


def noRemotes(url: str) -> str:
    """@raise ConfigurationError: always; for whoever cannot reach other targets."""
    raise ConfigurationError("units of other targets cannot be served here; name a file or a device")


def absolute(path: str, directory: str | None = None) -> str:
    """
    A path that still holds when the process has changed its directory.

    C{..} stays as it is: behind a symbolic link only the system knows what it means.

    @param directory: what a relative path is relative to; by default the current directory.
    @raise ConfigurationError: if there is no current directory.
    """
    if os.path.isabs(path):
        return path
    try:
        return os.path.join(os.getcwd() if directory is None else directory, path)
    except OSError as error:
        raise ConfigurationError(
            f"{quoted(path)} is relative to a directory that is gone ({error.strerror}); begin it with /"
        ) from None


def parseLength(text: str, start: int) -> int | None:
    """
    Read the length of an extent.

    @return: bytes; None for C{size}, which is up to the end of the file.
    @raise ConfigurationError: if it is no size, too short or too long.
    """
    if text.lower() == "size":
        return None
    length = parseSize(text)
    if length < MIN_LENGTH:
        raise ConfigurationError(
            f"a length of {length} bytes is less than one block ({MIN_LENGTH}); write a unit, as in 100MB"
        )
    if start + length > MAX_BYTES:
        raise ConfigurationError(f"start and length exceed the {MAX_BYTES} bytes that a file can hold")
    return length


def overlaps(extents: Iterable[Extent]) -> Iterator[tuple[Extent, Extent]]:
    """
    Extents that share bytes of one path, as far as the texts tell: nothing is opened, no link followed.

    @return: the one that comes later in the sequence, and the earlier one with which it collides.
    """
    byPath: dict[str, list[tuple[int, float, int, Extent]]] = {}
    for order, extent in enumerate(extents):
        end = float("inf") if extent.length is None else extent.start + extent.length
        byPath.setdefault(_place(extent), []).append((extent.start, end, order, extent))
    for ranges in byPath.values():
        if len(ranges) > 1:
            yield from _collisions(sorted(ranges, key=lambda each: each[:3]))


def _place(extent: Extent) -> str:
    """The same text for the same place, as far as that goes."""
    if extent.url is None:
        return "/" + os.path.normpath(extent.path).lstrip("/")
    # Whoever logs in, and how, it is the same unit; names of targets and hosts know no case.
    scheme, slashes, place = extent.path.partition("?")[0].partition("//")
    return slashes + place.rpartition("@")[2].lower() if slashes else scheme


def _collisions(ranges: list[tuple[int, float, int, Extent]]) -> Iterator[tuple[Extent, Extent]]:
    """Of ranges in the order of their start: each that begins before an earlier one has ended."""
    reach = ranges[0]
    for each in ranges[1:]:
        if each[0] < reach[1]:
            later, earlier = (each, reach) if each[2] > reach[2] else (reach, each)
            yield later[3], earlier[3]
        if each[1] > reach[1]:
            reach = each
