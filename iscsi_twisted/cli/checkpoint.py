# -*- test-case-name: tests.cli.test_checkpoint -*-
"""How far a copy has come, in a small file, so that another process can go on from there."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any, Final

from iscsi_twisted.durable import readFile, replaceFile, syncDirectory
from iscsi_twisted.errors import LocalError

VERSION: Final = 1
LONGEST: Final = 1 << 16
"""Bytes of such a file; they have a few hundred."""


class Checkpoint:
    """
    The file of one copy.

    It says that the first so many bytes are durable at the other end, and which two ends these are.  All of
    this blocks, for as long as the disk takes.
    """

    def __init__(self, path: str, source: dict[str, Any], sink: dict[str, Any], size: int) -> None:
        """@param source: the identity of what is read; C{sink} of what is written."""
        self.path, self._size = path, size
        self._about = {"version": VERSION, "from": source, "to": sink, "bytes": size}

    def load(self) -> int:
        """
        How many bytes are there.

        @return: 0 if there is no file.
        @raise LocalError: if it is of another copy, or no such file.
        """
        try:
            text = readFile(self.path, LONGEST)
        except FileNotFoundError:
            return 0
        try:
            told = json.loads(text)
            done = told.pop("done")
        except (ValueError, AttributeError, KeyError, TypeError):
            raise LocalError(f"{self.path} is not the state of a copy") from None
        for name, value in self._about.items():
            if told.get(name) != value:
                raise LocalError(
                    f"{self.path} is of another copy: {_difference(name, told.get(name), value)};"
                    " to begin again leave out --resume"
                )
        if not isinstance(done, int) or not 0 <= done <= self._size:
            raise LocalError(f"{self.path}: {done!r} bytes cannot have been copied")
        return done

    def save(self, done: int) -> None:
        """So many bytes are there, and durable."""
        replaceFile(self.path, json.dumps(self._about | {"done": done}).encode())

    def remove(self) -> None:
        """There is nothing to go on with, which is durable too: the other end may be written from now on."""
        with suppress(FileNotFoundError):
            os.unlink(self.path)
            syncDirectory(os.path.dirname(self.path) or ".")


def _difference(name: str, old: Any, new: Any) -> str:
    """What is not as it was."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in new.keys() | old.keys():
            if old.get(key) != new.get(key):
                return f"{name}: {key} was {old.get(key)}, and is {new.get(key)}"
    return f"{name} was {old}, and is {new}"
