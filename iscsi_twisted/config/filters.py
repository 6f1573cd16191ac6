# -*- test-case-name: tests.config.test_filters -*-
"""
Lines of devices that are no RAID: filters, which change how one other device behaves, and memory.

Each kind is a class of settings, with one row for each of its options.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar, Final

import attrs

from iscsi_twisted.config.lines import quoted
from iscsi_twisted.config.options import Option, parseYes, row, rows
from iscsi_twisted.config.sizes import parseSize
from iscsi_twisted.errors import ConfigurationError

MAX_SECONDS: Final = 1e6
"""Nobody waits for twelve days."""

OPERATIONS: Final = ("read", "write", "flush", "discard", "zero")
FAULTS: Final = {
    "error": OPERATIONS,
    "torn": ("write",),
    "lost": ("write", "flush", "discard", "zero"),
    "hang": OPERATIONS,
    "corrupt": ("read", "write"),
}
"""Kinds of faults, and what they can be on."""

SECTORS: Final = (512, 4096)
"""Bytes that are encrypted together."""

SHAPES: Final = ("fixed", "uniform", "normal", "exponential")


# How values are read


def _number(what: str, most: float, whole: bool = False, least: float = 0) -> Callable[[str], Any]:
    """A reader of decimal numbers."""

    def parse(text: str) -> float:
        if re.fullmatch(r"[0-9]{1,18}" if whole else r"[0-9]{1,18}(\.[0-9]{1,18})?", text):
            number = int(text) if whole else float(text)
            if least <= number <= most:
                return number
        raise ConfigurationError(f"{what} wanted, not {quoted(text)}")

    return parse


_seconds = _number("seconds as a decimal number, such as 0.01, are", MAX_SECONDS)
_count = _number("a whole number, 1 or more, is", 1 << 53, True, 1)
_seed = _number("a whole number is", 1 << 53, True)


def _choice(choices: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ConfigurationError(f"one of {', '.join(choices)} is wanted, not {quoted(text)}")
        return text.lower()

    return parse


def _operations(text: str) -> tuple[str, ...]:
    words = tuple(text.lower().split(","))
    if not set(words) <= set(OPERATIONS):
        raise ConfigurationError(f"a list such as read,write of {', '.join(OPERATIONS)} is wanted")
    return words


def _length(text: str) -> int:
    size = parseSize(text)
    if size < 512:
        raise ConfigurationError(f"{size} bytes are less than one block (512); write a unit, as in 100MB")
    return size


def _sector(text: str) -> int:
    size = parseSize(text)
    if size not in SECTORS:
        raise ConfigurationError(f"512 or 4K is wanted, not {quoted(text)}")
    return size


def _path(text: str) -> str:
    if not text:
        raise ConfigurationError("the path of a file is wanted")
    return text


# The kinds


@attrs.frozen(kw_only=True)
class Settings:
    """
    What a line of this kind says, beside the options of the unit.

    @cvar least: which options have to be there; of a tuple in it, one of them.
    @cvar members: how many devices it stands on.
    """

    least: ClassVar[tuple[str | tuple[str, ...], ...]] = ()
    members: ClassVar[int] = 1

    def fault(self, size: int | None) -> str | None:
        """What is wrong with these settings for a member of so many bytes, or None."""
        return None

    def resized(self, size: int | None) -> int | None:
        """How large the device is, if its member is so large."""
        return size


@attrs.frozen(kw_only=True)
class ReadOnlySettings(Settings):
    """C{READONLY} has no options."""


def _active() -> Any:
    return row(parseYes, "Whether it works from the start; a program can switch it later.", True)


def _seeded() -> Any:
    return row(_seed, "Where chance begins: the same number gives the same run.", 0)


@attrs.frozen(kw_only=True)
class DelaySettings(Settings):
    """C{DELAY}"""

    least = ("seconds",)

    seconds: float = row(_seconds, "How long each operation waits, or the mean of that.", -1.0)
    shape: str = row(
        _choice(SHAPES), "How delays are distributed: fixed, uniform, normal or exponential.", "fixed"
    )
    spread: float = row(
        _seconds, "Seconds: half of the width of uniform, the standard deviation of normal.", 0.0
    )
    seed: int = _seeded()
    active: bool = _active()


@attrs.frozen(kw_only=True)
class RateSettings(Settings):
    """C{RATE}"""

    least = (("iops", "bytes"),)

    iops: float = row(
        _number("operations a second, more than 0, are", 1e9, least=1e-6), "Operations a second.", 0.0
    )
    bytes: int = row(_length, "Bytes a second that are read and written, as a size.", 0)
    burst: float = row(_seconds, "Seconds: what these would have brought may be saved up.", 0.1)
    active: bool = _active()


@attrs.frozen(kw_only=True)
class FaultsSettings(Settings):
    """C{FAULTS}"""

    least = ("kind",)

    kind: str = row(_choice(tuple(FAULTS)), "What happens: error, torn, lost, hang or corrupt.", "")
    on: tuple[str, ...] | None = row(
        _operations, "The operations that it may hit, with commas.  Absent: all that the kind can be on."
    )
    probability: float = row(
        _number("a number from 0 to 1 is", 1.0), "That it hits one of those, from 0 to 1.", 1.0
    )
    start: int = row(parseSize, "The first byte of the range where it may hit, as a size.", 0)
    length: int | None = row(_length, "The bytes of that range, as a size.  Absent: to the end.")
    nth: int = row(_count, "It hits this one alone of those that it could hit, counted from 1.", 0)
    every: int = row(_count, "It hits each so-and-so-many-th of them.", 0)
    times: int | None = row(_count, "How often it hits at most.")
    seconds: float | None = row(_seconds, "How long an operation hangs.  Absent: until it is released.")
    seed: int = _seeded()
    active: bool = _active()

    def fault(self, size: int | None) -> str | None:
        """See L{Settings}."""
        can = FAULTS[self.kind]
        for operation in self.on or ():
            if operation not in can:
                return f"kind={self.kind} cannot be on {operation}; it can be on {', '.join(can)}"
        if self.seconds is not None and self.kind != "hang":
            return f"seconds= is for kind=hang, not for kind={self.kind}"
        if size is not None and self.start >= size:
            return f"start={self.start} is beyond the end, {size} bytes"
        return None


@attrs.frozen(kw_only=True)
class SliceSettings(Settings):
    """C{SLICE}"""

    least = (("start", "length"),)

    start: int = row(parseSize, "The first byte, as a size.", 0)
    length: int | None = row(_length, "The bytes, as a size.  Absent: to the end.")

    def fault(self, size: int | None) -> str | None:
        """See L{Settings}."""
        end = self.start + (512 if self.length is None else self.length)
        return (
            f"the slice reaches to byte {end}, but there are {size}"
            if size is not None and end > size
            else None
        )

    def resized(self, size: int | None) -> int | None:
        """See L{Settings}."""
        if self.length is not None:
            return self.length
        return None if size is None else size - self.start


@attrs.frozen(kw_only=True)
class OverlaySettings(Settings):
    """C{OVERLAY}"""

    file: str | None = row(
        _path, "The sparse file for what is written.  Absent: memory, forgotten when the target stops."
    )
    adopt: bool = row(parseYes, "Whether to take the base as it is, though it has been changed since.", False)


@attrs.frozen(kw_only=True)
class CryptSettings(Settings):
    """C{CRYPT}"""

    least = ("key",)

    key: str = row(_path, "The file with the key: 64 random bytes, for the server's eyes only.", "")
    sector: int = row(_sector, "Bytes that are encrypted together: 512 or 4K.", 512)

    def fault(self, size: int | None) -> str | None:
        """See L{Settings}."""
        if size is None or not size % self.sector:
            return None
        return f"{size} bytes are no whole number of sectors of {self.sector}"


@attrs.frozen(kw_only=True)
class MemorySettings(Settings):
    """C{MEMORY}"""

    least = ("size",)
    members = 0

    size: int = row(_length, "The bytes, as a size.", 0)

    def resized(self, size: int | None) -> int | None:
        """See L{Settings}."""
        return self.size


KINDS: Final[dict[str, type[Settings]]] = {
    "READONLY": ReadOnlySettings,
    "SLICE": SliceSettings,
    "DELAY": DelaySettings,
    "RATE": RateSettings,
    "FAULTS": FaultsSettings,
    "OVERLAY": OverlaySettings,
    "CRYPT": CryptSettings,
    "MEMORY": MemorySettings,
}
"""By the second word of a device line."""

OPTIONS: Final[dict[str, dict[str, Option]]] = {
    word: {option.name: option for option in rows(kind, ("device",))} for word, kind in KINDS.items()
}


def missing(kind: type[Settings], values: dict[str, Any]) -> str | None:
    """Which option of a line is missing, or None."""
    for one in kind.least:
        names = (one,) if isinstance(one, str) else one
        if not any(name in values for name in names):
            return " or ".join(f"{name}=" for name in names)
    return None
