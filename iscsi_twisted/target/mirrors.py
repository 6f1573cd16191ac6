# -*- test-case-name: tests.target.test_mirrors -*-
"""What mirrors have to know after a crash: one small file for each, in the state directory."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator
from time import perf_counter
from typing import Any, Final
from weakref import ref

from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure

from iscsi_twisted.durable import makeDirectory, readFile, replaceFile
from iscsi_twisted.interfaces import Pending
from iscsi_twisted.storage import Mirror
from iscsi_twisted.storage.record import Record
from iscsi_twisted.storage.records import Records
from iscsi_twisted.storage.threads import Threads
from iscsi_twisted.target.status import members

FOLDER: Final = "mirrors"
LARGEST: Final = 16 << 20
"""Bytes of a file: several times what hundreds of members take."""

FRESH: Final = 1.0
"""
Seconds for which what was read of the directory is good for mirrors that start beside one another: a thousand
of them would else read a thousand files each.  What is written here is seen at once.
"""

NAME = re.compile(r"[0-9a-f]{16}")


class MirrorFiles:
    """
    Provides L{iscsi_twisted.storage.record.MirrorStore}.

    @ivar folder: where the files are.
    """

    log = Logger(namespace="iscsi_twisted")

    def __init__(self, stateDirectory: str, reactor: Any, clock: Callable[[], float] = perf_counter) -> None:
        """@param clock: seconds."""
        self.folder = os.path.join(stateDirectory, FOLDER)
        self.serving: dict[str, Any] = {}
        self._clock = clock
        self._threads = Threads(reactor, clock)
        self._found: Callable[[], Records | None] = _nothing
        self._asked = 0.0
        self._written: set[str] = set()
        self._failing: set[str] = set()

    def records(self) -> Records:
        """
        All that there are; mirrors that start together share what was read for the first of them.

        @raise OSError: if one cannot be read.
        """
        # Whoever starts holds what it has got, so it lasts no longer than these starts.
        found, now = self._found(), self._clock()
        if found is None or now - self._asked > FRESH:
            found = Records(self.contents())
            self._found, self._asked = ref(found), now
        else:
            for name in self._written:
                found.put(name, self._read(name))
        self._written.clear()
        return found

    def contents(self) -> Iterator[tuple[str, bytes]]:
        """
        The files, each with its name.

        @raise OSError: if one cannot be read.
        """
        try:
            names = sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return
        for name in names:
            # A crash may have left a draft, which has a longer name.
            if NAME.fullmatch(name):
                yield name, self._read(name)

    def _read(self, name: str) -> bytes:
        return readFile(os.path.join(self.folder, name), LARGEST)

    def tidy(self, used: Collection[str]) -> None:
        """
        Look for records that no mirror uses.  What newer records know goes; what may be needed by disks that
        come back stays, and is told of.

        @param used: the names of those that are in use.
        """
        kept: list[Record] = []
        others: list[tuple[str, Record]] = []
        for name, data in self.contents():
            path = os.path.join(self.folder, name)
            try:
                record = Record.decode(data)
            except (ValueError, KeyError, TypeError) as error:
                self.log.warn(
                    "{path}: cannot be used ({error}), and may be removed", event="record", path=path,
                    error=str(error),
                )  # fmt: skip
                continue
            if name in used:
                kept.append(record)
            else:
                others.append((path, record))
        self._found = _nothing
        for path, record in others:
            if any(record.covered(other) for other in kept):
                os.unlink(path)
                self.log.info("{path}: removed, as a newer record knows all of it", event="record", path=path)
            else:
                self.log.warn(
                    "{path}: is of a mirror of {members} that is not served; remove it if that is gone",
                    event="record", path=path, members=", ".join(each.title for each in record.members),
                )  # fmt: skip

    def save(self, name: str, encode: Callable[[], bytes]) -> Pending:
        """See L{MirrorStore<iscsi_twisted.storage.record.MirrorStore>}."""
        saving = self._threads.run(self._write, name, encode)
        return saving.addCallbacks(self._saved, self._notSaved, callbackArgs=(name,), errbackArgs=(name,))

    def _write(self, name: str, encode: Callable[[], bytes]) -> None:
        makeDirectory(self.folder)
        replaceFile(os.path.join(self.folder, name), encode())

    def _saved(self, _: object, name: str) -> None:
        self._written.add(name)
        if name in self._failing:
            self._failing.discard(name)
            path = os.path.join(self.folder, name)
            self.log.info("{path}: can be kept again", event="kept", path=path)

    def _notSaved(self, why: Failure, name: str) -> Failure:
        # It may be there nevertheless.
        self._found = _nothing
        if name not in self._failing and not why.check(CancelledError):
            self._failing.add(name)
            self.log.critical(
                "{path}: cannot be kept: {error}; until it can, writes to its mirror fail where nothing was"
                " written lately",
                event="notKept", path=os.path.join(self.folder, name), error=why.getErrorMessage(),
            )  # fmt: skip
        return why

    def stop(self) -> None:
        """All mirrors are closed."""
        if not self._threads.running:
            self._threads.stop()


def _nothing() -> None:
    """No records are remembered."""


def adopt(device: Any, store: MirrorFiles | None, reactor: Any) -> None:
    """Give mirrors in a device a place to keep their records, and a reactor, where they have none."""
    if isinstance(device, Mirror):
        device.adopt(store, reactor)
    for member in members(device):
        adopt(member, store, reactor)


def names(device: Any) -> Iterator[str]:
    """The names of the records of all mirrors in a device that is open."""
    if isinstance(device, Mirror):
        yield device.life.name
    for member in members(device):
        yield from names(member)
