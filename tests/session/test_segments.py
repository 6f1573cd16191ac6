"""
Every conversation again, in other segments: TCP may cut the stream anywhere, and the answers are the same.

The tests of sessions and of the standard's sentences are run once more with a byte in each segment, and with
each chunk cut in two, where it is cut being another place each time.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any
from unittest import TestCase

from tests.support.wire import Line

ROOT = Path(__file__).resolve().parent.parent.parent

FOLDERS = ("session", "conformance")

Cut = Callable[[bytes], Iterable[bytes]]


ONE_CHUNK = {
    "test_batches",
    "test_batchesOfShort",
    "test_betweenTurns",
    "test_flood",
    "test_manyShares",
    "test_manySmall",
    "test_pauseBetweenTurns",
    "test_pauseWhileSending",
    "test_share",
    "test_turn",
}
"""Tests of what is done about one chunk before the next: they are about chunks, not about streams."""

LONG = 4096
"""Of longer chunks all but the first bytes and the last are whole."""


def eachByte(data: bytes) -> Iterator[bytes]:
    """One byte per segment."""
    middle = slice(LONG // 2, max(LONG // 2, len(data) - LONG // 2))
    for place in range(middle.start):
        yield data[place : place + 1]
    yield data[middle]
    for place in range(middle.stop, len(data)):
        yield data[place : place + 1]


class Turning:
    """Cut in two, at another place each time."""

    def __init__(self, start: int) -> None:
        self._places = count(start, 7)

    def __call__(self, data: bytes) -> Iterator[bytes]:
        place = next(self._places) % max(1, len(data))
        return filter(None, (data[:place], data[place:]))


def again(case: type[TestCase], name: str, makeCut: Callable[[], Cut]) -> type[TestCase]:
    """The same tests, in segments."""

    def setUp(self: Any) -> None:
        if self._testMethodName not in ONE_CHUNK:
            self.patch(Line, "cut", staticmethod(makeCut()))
        case.setUp(self)

    return type(f"{case.__name__}{name}", (case,), {"setUp": setUp, "__module__": __name__})


def cases() -> Iterator[type[TestCase]]:
    """The test cases whose conversations go over a L{Line}."""
    for folder in FOLDERS:
        for path in sorted((ROOT / "tests" / folder).glob("test_*.py")):
            if path.stem == "test_segments" or "Line" not in path.read_text("utf-8"):
                continue
            module = importlib.import_module(f"tests.{folder}.{path.stem}")
            for case in vars(module).values():
                if (
                    isinstance(case, type)
                    and issubclass(case, TestCase)
                    and case.__module__ == module.__name__
                ):
                    yield case


for _case in cases():
    for _name, _cut in (("ByBytes", lambda: eachByte), ("Cut", lambda: Turning(1))):
        _again = again(_case, _name, _cut)
        globals()[_again.__name__] = _again
