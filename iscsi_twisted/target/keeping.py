# -*- test-case-name: tests.target.test_keeping -*-
"""What has to outlive the process: small files for each unit, in the state directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, NoReturn

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from iscsi_twisted.durable import makeDirectory, readFile, replaceFile, syncDirectory
from iscsi_twisted.errors import ConfigurationError, DeviceError
from iscsi_twisted.interfaces import IReservationStore, IStateStore
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.origin import isAnother, mark
from iscsi_twisted.scsi.untorn import RECORD_LIMIT, parseRecord
from iscsi_twisted.storage.pending import ready

FOLDER = "reservations"


class Saving(Deferred[None]):
    """The end of a write that nobody can stop: a thread is at it, and the next one has to come after it."""

    def cancel(self) -> None:
        if self.called:
            super().cancel()


class NotKept(DeviceError):
    """Something could not be written to the state directory; the disk that it is about is not at fault."""


@implementer(IStateStore)
class StateFile:
    """
    Something of one unit.

    @cvar folder: the directory of such files.
    @cvar largest: bytes of a file at most.
    @cvar what: what messages call what it keeps.
    """

    log = Logger(namespace="iscsi_twisted")

    folder: ClassVar[str]
    largest: ClassVar[int] = 1 << 20
    what: ClassVar[str]

    def __init__(self, stateDirectory: str, unit: str, reactor: Any) -> None:
        """@param unit: what the unit is called in the directory; it has to be unique and stable."""
        self.path = os.path.join(stateDirectory, self.folder, unit)
        self._reactor = reactor
        # One after another: the last state that was told is the one that stays.
        self._lock = DeferredLock()
        self._failing = False

    def load(self) -> bytes:
        """
        What was saved; nothing if nothing was.

        @raise ConfigurationError: if it cannot be read.
        """
        try:
            return readFile(self.path, self.largest)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise ConfigurationError(f"{self.what} cannot be read: {error.strerror}", self.path) from None

    def save(self, state: bytes) -> Deferred[None]:
        """See L{IStateStore}."""
        saving = Saving()
        pool = self._reactor.getThreadPool()
        writing = self._lock.run(deferToThreadPool, self._reactor, pool, self._write, state)
        writing.addCallbacks(self._kept, self._lost)
        writing.addCallbacks(saving.callback, saving.errback)
        return saving

    def _kept(self, _: None) -> None:
        if self._failing:
            self._failing = False
            self.log.info("{path}: {what} can be kept again", event="kept", path=self.path, what=self.what)

    def _lost(self, failure: Failure) -> NoReturn:
        """Say so, once until it can be kept again: whoever hammers at it must not fill the log."""
        error = failure.value
        if not self._failing:
            self._failing = True
            self.log.critical(
                "{path}: {what} cannot be kept: {error}; commands that have to keep them fail",
                event="notKept", path=self.path, what=self.what, error=str(error),
            )  # fmt: skip
        raise NotKept(f"{self.path}: {self.what} cannot be kept: {error}") from error

    def _write(self, state: bytes) -> None:
        folder = os.path.dirname(self.path)
        makeDirectory(folder)
        if state:
            replaceFile(self.path, state)
            return
        with suppress(FileNotFoundError):
            os.unlink(self.path)
        syncDirectory(folder)


@implementer(IReservationStore)
class ReservationFile(StateFile):
    """The persistent reservations of one unit; who could not read them would not know whom to keep out."""

    folder = FOLDER
    what = "reservations"


class MemoryFile(StateFile):
    """What else one unit remembers: saved mode pages, identifying information."""

    folder = "units"
    what = "saved modes and names"


class WriteFile(StateFile):
    """A WRITE ATOMIC of one unit that may not be on its medium as a whole yet."""

    folder = "writes"
    largest = RECORD_LIMIT + 1
    what = "an unfinished write"


class PlanFile(StateFile):
    """A SANITIZE or FORMAT UNIT of one unit that is not finished, or has failed."""

    folder = "unfinished"
    what = "an unfinished SANITIZE or FORMAT UNIT"


def keep(unit: DiskUnit, stateDirectory: str, reactor: Any) -> tuple[str, str] | None:
    """
    Give a unit its places in the state directory, and what was kept there.

    @return: if the file of its reservations is damaged that file, and why.
    @raise ConfigurationError: if anything cannot be read, or if anything else is damaged.
    """
    place = stateDirectory, unit.identity.naa.hex(), reactor
    unit.keepWrites(WriteFile(*place))
    memory, plans, reservations = MemoryFile(*place), PlanFile(*place), ReservationFile(*place)
    with _whole(memory, "restore it, or remove it and let hosts set modes and names anew"):
        unit.remember(memory)
    with _whole(plans, "remove it, and sanitize or format the disk anew"):
        unit.keepPlans(plans)
    try:
        unit.keep(reservations)
    except ValueError as error:
        return reservations.path, str(error)
    return None


@contextmanager
def _whole(store: StateFile, remedy: str) -> Iterator[None]:
    """What was kept is not damaged."""
    try:
        yield
    except ValueError as error:
        raise ConfigurationError(f"damaged ({error}): {remedy}", store.path) from None


async def finishWrite(unit: DiskUnit) -> None:
    """
    Write what a crash may have torn, before anybody reads it.

    @raise ConfigurationError: if what was kept is damaged, or is not for this device.
    """
    journal = unit.journal
    if journal is None or unit.readOnly:
        return
    state = journal.store.load()
    if not state:
        return
    if unit.closure is not None:
        # All blocks are being made new: no older data must come back.
        await ready(journal.store.save(b""))
        return
    path = getattr(journal.store, "path", None)
    try:
        offset, data, whose = parseRecord(state)
    except ValueError as error:
        raise ConfigurationError(f"damaged ({error}): remove it, and check the disk", path) from None
    if isAnother(whose, mark(unit.medium)):
        raise ConfigurationError(
            "is of another file or disk than is served here now: serve that one again, or remove it", path
        )
    device = unit.device
    if offset + len(data) > device.size:
        raise ConfigurationError("is for a larger disk: remove it, and check the disk", path)
    await ready(device.write(offset, data))
    await ready(device.flush())
    await ready(journal.store.save(b""))
