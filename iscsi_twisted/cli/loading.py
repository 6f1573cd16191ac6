# -*- test-case-name: tests.cli.test_loading -*-
"""Loading a program quickly: a command that copies for a second should not take half of one to start."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

TLS: Final = "OpenSSL"


@contextmanager
def lightly(secure: bool) -> Iterator[None]:
    """
    Import what a process needs, within this.

    Imports make no garbage, so none is looked for, neither then nor among what they made later.  And
    Twisted's TCP loads TLS unless that is not installed; that it is not is what it is told here, since
    loading TLS takes a fifth of the time of a command's start.

    @param secure: whether TLS is wanted.
    """
    modules: dict[str, Any] = sys.modules
    without = not secure and TLS not in modules
    collecting = gc.isenabled()
    gc.disable()
    if without:
        modules[TLS] = None
    try:
        yield
    finally:
        if without:
            del modules[TLS]
        gc.freeze()
        if collecting:
            gc.enable()
