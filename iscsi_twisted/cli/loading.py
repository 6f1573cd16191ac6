# -*- test-case-name: tests.cli.test_loading -*-
"""Loading a program quickly: a command that copies for a second should not take half of one to start."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any, Final

TLS: Final = "OpenSSL"

UNUSED: Final = "http.cookiejar"
"""What Twisted loads for others, and with it half of the modules for mail and for the web."""

ASYNCIO: Final = "asyncio"

PIECES: Final = ("asyncio.events", "asyncio.futures", "asyncio.coroutines")
"""Where there is what Twisted's Deferreds want of asyncio; all of it takes a fifth of the time of a start."""


class _Later(ModuleType):
    """A module that is loaded when somebody wants something of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            # What is asked of any module.
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name, obj=self)
        spec = self.__spec__
        assert spec is not None
        assert spec.loader is not None
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec.loader.exec_module(self)
        return getattr(self, name)


class _Piecemeal(_Later):
    """asyncio, of which only those parts are loaded that are wanted, as long as these are among a few."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__") and find_spec(f"{ASYNCIO}.{name}") is not None:
            # A part of it, which is loaded by whoever wants it.
            raise AttributeError(f"module {ASYNCIO!r} has no attribute {name!r}", name=name, obj=self)
        for part in map(import_module, () if name.startswith("__") else PIECES):
            if hasattr(part, name):
                return getattr(part, name)
        return super().__getattr__(name)


@contextmanager
def lightly(secure: bool) -> Iterator[None]:
    """
    Import what a process needs, within this.

    Imports make no garbage, so none is looked for, neither then nor among what they made later.  Modules
    that are imported and not used are loaded when somebody uses them.  And Twisted's TCP loads TLS unless
    that is not installed; that it is not is what it is told here, since loading TLS takes a fifth of the time
    of a command's start.

    @param secure: whether TLS is wanted.
    """
    modules: dict[str, Any] = sys.modules
    without = not secure and TLS not in modules
    collecting = gc.isenabled()
    gc.disable()
    if without:
        modules[TLS] = None
    _later()
    try:
        yield
    finally:
        if without:
            del modules[TLS]
        gc.freeze()
        if collecting:
            gc.enable()


def _later() -> None:
    """Put off what may never be used."""
    for name, kind in ((UNUSED, _Later), (ASYNCIO, _Piecemeal)):
        spec = None if name in sys.modules else find_spec(name)
        if spec is not None:
            sys.modules[name] = module_from_spec(spec)
            sys.modules[name].__class__ = kind
