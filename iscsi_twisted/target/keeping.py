# -*- test-case-name: tests.target.test_keeping -*-
"""Persistent reservations that outlive the process: one small file for each unit, in the state directory."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.threads import deferToThreadPool
from zope.interface import implementer

from iscsi_twisted.durable import makeDirectory, readFile, replaceFile, syncDirectory
from iscsi_twisted.errors import ConfigurationError
from iscsi_twisted.interfaces import IReservationStore

FOLDER = "reservations"
LARGEST = 1 << 20
"""Bytes of a file: several times what the most registrations take."""


@implementer(IReservationStore)
class ReservationFile:
    """The reservations of one unit."""

    def __init__(self, stateDirectory: str, unit: str, reactor: Any) -> None:
        """@param unit: what the unit is called in the directory; it has to be unique and stable."""
        self.path = os.path.join(stateDirectory, FOLDER, unit)
        self._reactor = reactor
        # One after another: the last state that was told is the one that stays.
        self._lock = DeferredLock()

    def load(self) -> bytes:
        """
        What was saved; nothing if nothing was.

        @raise ConfigurationError: if it cannot be read: who knows who is to be kept out?
        """
        try:
            return readFile(self.path, LARGEST)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise ConfigurationError(f"reservations cannot be read: {error.strerror}", self.path) from None

    def save(self, state: bytes) -> Deferred[None]:
        """See L{IReservationStore}."""
        return self._lock.run(
            deferToThreadPool, self._reactor, self._reactor.getThreadPool(), self._write, state
        )

    def _write(self, state: bytes) -> None:
        folder = os.path.dirname(self.path)
        makeDirectory(folder)
        if state:
            replaceFile(self.path, state)
            return
        with suppress(FileNotFoundError):
            os.unlink(self.path)
        syncDirectory(folder)
