# -*- test-case-name: tests.cli.test_progress -*-
"""A line on a terminal that tells how far something has come, how fast, and how long it still takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Self, TextIO

EVERY: Final = 0.2
"""Seconds between two."""

SAMPLES: Final = 50
"""Of the last so many samples the rate is made: of ten seconds."""

BAR: Final = 30


class Progress:
    """A progress bar for so many bytes; call it with those that are done, within a C{with} statement."""

    def __init__(
        self, size: int, done: int, file: TextIO | None, seconds: Callable[[], float], words: str = ""
    ) -> None:
        """
        @param done: bytes that were done before; they do not count for the rate.
        @param file: where it is shown, if that is a terminal.
        @param words: what stands before it.
        """
        self._size, self._file, self._seconds, self._words = size, file, seconds, words
        self._samples = deque([(seconds(), done)], SAMPLES)
        self._shown = file is not None and file.isatty()
        self._open = False

    def __call__(self, done: int) -> None:
        """So many bytes are done."""
        if not self._shown:
            return
        now = self._seconds()
        if now - self._samples[-1][0] >= EVERY or done >= self._size:
            self._samples.append((now, done))
            self._open = True
            print(f"\r{self._words}{self._line(now, done)}\x1b[K", end="", file=self._file, flush=True)
            if done >= self._size:
                self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        # What failed is told on a line of its own.
        self._end()

    def _end(self) -> None:
        if self._open:
            self._open = False
            print(file=self._file, flush=True)

    def _line(self, now: float, done: int) -> str:
        began, before = self._samples[0]
        rate = (done - before) / max(now - began, 1e-9)
        share = done / max(self._size, 1)
        left = duration((self._size - done) / rate) if rate > 0 else "--:--"
        return f"[{'#' * int(BAR * share):{BAR}}] {100 * share:5.1f} %  {rate / 1e6:.0f} MB/s  {left} left"


def duration(seconds: float) -> str:
    """Minutes and seconds; of more than an hour the hours too."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
