# -*- test-case-name: tests.config.test_steps -*-
"""Long work in steps: whoever has it done may let others have a turn between two of them."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

Steps = Generator[None, None, T]
"""Yields after each step, and returns what comes of them all."""


def whole(steps: Steps[T]) -> T:
    """Do all steps, one after another."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
