# -*- test-case-name: tests.target.test_garbage -*-
"""
When garbage is looked for.

A collection of all there is stops everybody: a tenth of a second for a thousand targets, a whole one for ten
thousand.  They come while much is made, and what is made at the start is there to stay.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

AWHILE: Final = 60.0
"""Seconds in which garbage may pile up: what connections leave behind is none, as a rule."""


@contextmanager
def spared() -> Iterator[None]:
    """Within this nobody looks for garbage; little is made where something is built."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@contextmanager
def sparedAwhile(reactor: Any) -> Iterator[None]:
    """The same for what may wait for others; but when it takes too long they need not wait for it."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    timer = reactor.callLater(AWHILE, gc.enable)
    try:
        yield
    finally:
        if timer.active():
            timer.cancel()
            gc.enable()


def settle() -> None:
    """What is there now is here to stay: from now on only what comes later is looked at."""
    gc.freeze()
