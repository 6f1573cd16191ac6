# -*- test-case-name: tests.cli.test_values -*-
"""What may stand behind options; what is wrong is told with what would be right."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from math import inf

from iscsi_twisted.config.sizes import parseSize
from iscsi_twisted.errors import ConfigurationError


def number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Reads a whole number."""
    right = f"{least} to {most}" if most is not None else f"{least} on"

    def read(text: str) -> int:
        # No text that is longer can be right, and int would take its time.
        plain = text.isascii() and text.removeprefix("-").isdecimal() and len(text) < 20
        if not plain or not least <= int(text) <= (inf if most is None else most):
            raise ArgumentTypeError(f"{text[:60]!r}: right would be a whole number from {right}")
        return int(text)

    return read


def seconds(least: float) -> Callable[[str], float]:
    """Reads a time."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not least <= value < inf:
            raise ArgumentTypeError(f"{text[:60]!r}: right would be a number of seconds from {least:g} on")
        return value

    return read


def size(text: str) -> int:
    """Reads a number of bytes, as it would be written in the targets file."""
    try:
        return parseSize(text)
    except ConfigurationError as error:
        raise ArgumentTypeError(str(error)) from None
