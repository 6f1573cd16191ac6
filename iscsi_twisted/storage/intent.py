# -*- test-case-name: tests.storage.test_intent -*-
"""
Where writes may be under way, kept durably: after a crash only there members of a mirror can differ.

A region is marked before it is written first, and that write waits until the mark is durable; later writes to
it cost one look.  Marks are taken back when nothing was written there for a while and all has been flushed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from iscsi_twisted.errors import DeviceError
from iscsi_twisted.interfaces import Pending, isPending
from iscsi_twisted.storage.record import MirrorStore, Record
from iscsi_twisted.storage.regions import Regions

CLEAR, QUIET, TOUCHED = 0, 1, 2
"""What a mark may be: there is none; nothing was written since the last look; something was."""

AHEAD: Final = 8
"""Regions that are marked at once when writes go on from one region to the next."""


class Intent:
    """
    The marks of a mirror, and the saving of its record.

    @ivar kept: the generation of the newest record that is durable.
    @ivar marks: for each region C{CLEAR}, C{QUIET} or C{TOUCHED}; those that are not clear are durably
        marked.
    """

    def __init__(
        self, store: MirrorStore | None, name: str, count: int, snapshot: Callable[[], Record]
    ) -> None:
        """
        @param store: keeps the record; None if nobody does, and all that happens is then forgotten.
        @param count: regions of the mirror.
        @param snapshot: makes the record as it is now.
        """
        self.marks = bytearray(count)
        self._coming: list[tuple[int, int]] = []
        self._store, self._name, self._snapshot = store, name, snapshot
        self._waiting: list[Deferred[None]] = []
        self._saving = False
        self.kept = self._written = 0

    # Marks

    def mark(self, first: int, last: int) -> Deferred[None] | None:
        """
        Mark the regions C{first} to C{last}.

        @return: None if that is durable already; else it fires when it is.
        @raise DeviceError: at once or pending, if it cannot be made durable.
        """
        if self.marks.find(CLEAR, first, last + 1) < 0:
            self.marks[first : last + 1] = b"\2" * (last + 1 - first)
            return None
        end = last
        if first and self.marks[first - 1]:
            end = min(last + AHEAD, len(self.marks) - 1)
        coming = (first, end)
        self._coming.append(coming)
        try:
            saved = self.save()
        except DeviceError:
            self._coming.remove(coming)
            raise
        if saved is None:
            self._marked(None, last, coming)
            return None
        return saved.addCallbacks(
            self._marked, self._notMarked, callbackArgs=(last, coming), errbackArgs=(coming,)
        )

    def _marked(self, _: object, last: int, coming: tuple[int, int]) -> None:
        first, end = coming
        for region in range(first, end + 1):
            if not self.marks[region]:
                self.marks[region] = QUIET
        self.marks[first : last + 1] = b"\2" * (last + 1 - first)
        self._coming.remove(coming)

    def _notMarked(self, failure: Failure, coming: tuple[int, int]) -> Failure:
        """It could not be kept, or whoever wanted to write does not any more."""
        self._coming.remove(coming)
        return failure

    def marked(self) -> Regions:
        """All regions that are marked, and those that are about to be."""
        regions = Regions(len(self.marks))
        regions.flags[:] = self.marks.replace(b"\2", b"\1")
        for first, end in self._coming:
            regions.add(first, end)
        return regions

    def age(self) -> list[int]:
        """
        Look around.

        @return: the regions in which nothing was written since the last look; from now on all are quiet.
        """
        quiet = (
            [region for region, mark in enumerate(self.marks) if mark == QUIET] if QUIET in self.marks else []
        )
        self.marks[:] = self.marks.replace(b"\2", b"\1")
        return quiet

    def quiet(self, regions: list[int]) -> Regions:
        """Those of these regions in which nothing was written since C{age}."""
        still = Regions(len(self.marks))
        for region in regions:
            if self.marks[region] == QUIET:
                still.flags[region] = 1
        return still

    def clear(self, regions: Regions) -> None:
        """Take marks back; that becomes durable with the next record."""
        for region in regions:
            self.marks[region] = CLEAR

    # The record

    def save(self) -> Deferred[None] | None:
        """
        Keep the record as it is now.

        @return: fires when it is durable; None if it is already.
        @raise DeviceError: at once or pending, if it cannot be kept.
        """
        if self._store is None:
            return None
        if self._saving:
            # What is being written now may be older than what is to be kept.
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            return waiting
        saving = self._begin()
        if not isPending(saving):
            self.kept = self._written
            return None
        done: Deferred[None] = Deferred()
        self._saving = True
        saving.addBoth(partial(self._saved, [done]))
        return done

    def _begin(self) -> Pending | None:
        assert self._store is not None
        record = self._snapshot()
        self._written = record.generation
        try:
            return self._store.save(self._name, record.encode)
        except OSError as error:
            raise _lost(error) from error

    def _saved(self, waiting: list[Deferred[None]], outcome: object) -> None:
        self._saving = False
        if not isinstance(outcome, Failure):
            self.kept = self._written
        if self._waiting:
            self._next()
        for one in waiting:
            if isinstance(outcome, Failure):
                one.errback(_lost(outcome.value))
            else:
                one.callback(None)

    def _next(self) -> None:
        """Keep the record once more, for all who have asked meanwhile."""
        waiting, self._waiting = self._waiting, []
        self._saving = True
        try:
            saving = self._begin()
        except DeviceError:
            self._saved(waiting, Failure())
            return
        if isPending(saving):
            saving.addBoth(partial(self._saved, waiting))
        else:
            self._saved(waiting, None)


def _lost(error: object) -> DeviceError:
    return (
        error
        if isinstance(error, DeviceError)
        else DeviceError(f"the mirror's record cannot be kept: {error}")
    )
