# -*- test-case-name: tests.target.test_limiting -*-
"""The limits as options of the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from iscsi_twisted.config.lines import visible
from iscsi_twisted.config.sizes import parseSize
from iscsi_twisted.errors import ConfigurationError
from iscsi_twisted.session.limits import COUNT, SIZE, TIME, Limits

_UNITS: Final = ((30, "G"), (20, "M"), (10, "K"))
_MOST: Final = {COUNT: 1_000_000, TIME: 3600, SIZE: 1 << 40}
_WANTED: Final = {
    COUNT: "a number from {least} to 1000000",
    TIME: "seconds from {least} to 3600",
    SIZE: "bytes, at least {least}, as in 65536 or 8M",
}


def rows() -> Iterator[tuple[str, str, str]]:
    """The name of each option, its default as it would be written, and what help says of it."""
    for field in attrs.fields(Limits):
        about = field.metadata
        yield about["option"], shown(field.default or 0, about["kind"]), about["doc"]


def shown(value: float, kind: str) -> str:
    """A limit as it would be written on a command line."""
    number = int(value)
    if kind == SIZE:
        for bits, letter in _UNITS:
            if number >> bits << bits == number:
                return f"{number >> bits}{letter}"
    return str(number)


def parseLimits(options: Mapping[str, Any]) -> tuple[Limits, list[ConfigurationError]]:
    """
    The limits that options, as they were written, come to; and what is wrong with them.

    What cannot be read has its default.
    """
    found: dict[str, Any] = {}
    faults = []
    for field in attrs.fields(Limits):
        about = field.metadata
        text = str(options[about["option"]])
        value = _read(text, about["kind"])
        if value is not None and about["least"] <= value <= _MOST[about["kind"]]:
            found[field.name] = value
            continue
        wanted = _WANTED[about["kind"]].format(least=shown(about["least"], about["kind"]))
        faults.append(ConfigurationError(f"--{about['option']} {visible(text)}: wanted is {wanted}"))
    return Limits(**found), faults


def _read(text: str, kind: str) -> int | None:
    if kind == SIZE:
        try:
            return parseSize(text)
        except ConfigurationError:
            return None
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
