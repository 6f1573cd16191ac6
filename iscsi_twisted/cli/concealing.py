# -*- test-case-name: tests.cli.test_concealing -*-
"""Secrets on a command line, which others would see in the list of processes."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Final

_SECRET: Final = re.compile(rb"iscsis?://[^@%/\0]*%([^@\0]*)@")
"""A URL, and the secret in it."""

_BEGIN, _END = 45, 46
"""Where the arguments are: fields of C{/proc/PID/stat} behind the command's name (arg_start, arg_end)."""


def conceal() -> None:
    """
    Overwrite the secrets of URLs in what Linux shows of this process's arguments.

    They have been seen for a moment by then, and where there is no such system they stay.
    """
    with suppress(OSError, ValueError, IndexError):
        with open("/proc/self/cmdline", "rb") as file:
            shown = file.read()
        secrets = [found.span(1) for found in _SECRET.finditer(shown)]
        if not secrets:
            return
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        begin, end = int(fields[_BEGIN]), int(fields[_END])
        if end - begin == len(shown):
            _overwrite(begin, secrets)


def _overwrite(begin: int, places: list[tuple[int, int]]) -> None:
    import ctypes

    for first, behind in places:
        ctypes.memset(begin + first, ord("*"), behind - first)
