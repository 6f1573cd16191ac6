# -*- test-case-name: tests.target.test_repeats -*-
"""Which of many log lines that are alike are written: a flood must not fill the log, nor wait for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

FIRST: Final = 10
"""Lines of a kind that one address is worth in a minute: enough to see what goes on."""

ALL: Final = 300
"""... and all addresses together: who has many must not get ten lines for each."""

WINDOW: Final = 60.0
"""Seconds."""


class Repeats:
    """Counts lines of one kind, and passes those that are worth writing."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._passed = self._kept = 0

    def passes(self, address: str) -> bool:
        """Whether a line about this address is worth writing."""
        count = self._seen.get(address, 0)
        if self.would(address):
            self._seen[address] = count + 1
            self._passed += 1
            return True
        self._kept += 1
        if count:
            self._seen[address] = count + 1
        return False

    def would(self, address: str) -> bool:
        """Whether the next one is, which is not counted."""
        return self._seen.get(address, 0) < FIRST and self._passed < ALL

    def settle(self) -> Iterator[tuple[str, int]]:
        """
        Begin anew.

        @return: addresses with how many lines were kept back about each; without an address those about
            others.
        """
        seen, kept = self._seen, self._kept
        self._seen = {}
        self._passed = self._kept = 0
        for address, count in seen.items():
            if count > FIRST:
                kept -= count - FIRST
                yield address, count - FIRST
        if kept:
            yield "", kept
