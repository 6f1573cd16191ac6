# -*- test-case-name: tests.target.test_reload,tests.target.test_reloadunits -*-
"""
Serving something else without a stop.

All that can fail comes first: new devices are opened while the old targets serve.  A device that has to
be closed before another can use its files is closed while its unit holds commands back; should the other
then not open, it is opened again.  What can no longer fail is done in one go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredLock, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from iscsi_twisted.config.steps import Steps
from iscsi_twisted.errors import ConfigurationError, ConfigurationErrors, LocalError
from iscsi_twisted.target.change import GRACE, Change, Protocols, Wanted
from iscsi_twisted.target.commit import Changes, Commit
from iscsi_twisted.target.farewell import within
from iscsi_twisted.target.garbage import sparedAwhile
from iscsi_twisted.target.serving import Serving
from iscsi_twisted.target.slices import inSlices

Read = Callable[[], Wanted | Deferred[Wanted] | Steps[Wanted]]
"""Says what is to be served: at once, later, or step by step, so that others are served meanwhile."""


SHOWN: Final = 20
"""Targets that the log names; of more, only how many."""


class Reloading:
    """Changes what a service serves, one change after another."""

    log = Logger(namespace="iscsi_twisted")

    def __init__(self, serving: Serving, protocols: Protocols) -> None:
        self._serving, self._protocols = serving, protocols
        self._lock = DeferredLock()
        self._leaving: set[Deferred[Any]] = set()
        self._running: Deferred[Changes] | None = None

    def perform(self, read: Read) -> Deferred[Changes]:
        """Change to what C{read} says once it is its turn; success and failure are logged."""
        return self._lock.run(self._perform, read)

    def _perform(self, read: Read) -> Deferred[Changes]:
        running = self._running = ensureDeferred(self._spared(read))
        return running.addBoth(self._ended)

    def _ended(self, outcome: Any) -> Any:
        self._running = None
        return outcome

    async def _spared(self, read: Read) -> Changes:
        with sparedAwhile(self._serving.reactor):
            return await self._change(read)

    async def _change(self, read: Read) -> Changes:
        serving = self._serving
        try:
            wanted = await self._wanted(read)
            # What an earlier change has removed may still hold files.
            leaving = DeferredList(list(self._leaving))
            await within(serving.reactor, leaving, serving.reactor.seconds() + GRACE)
            change = Change(serving, wanted, self._protocols)
            gone = await change.prepare()
            commit = Commit(change, self._leave)
            commit.perform(gone)
            changes = await inSlices(serving.reactor, commit.measure())
            warnings = wanted.warnings
            del wanted
            await inSlices(serving.reactor, change.forget())
        except CancelledError:
            raise LocalError("the service stops") from None
        except (ConfigurationError, ConfigurationErrors, LocalError) as error:
            for line in str(error).splitlines():
                self.log.error("{line}", line=line, event="notReloaded")
            self.log.error("nothing was changed", event="notReloaded")
            raise
        except Exception as error:
            serving.journal.surprise(error, "changing what is served")
            raise
        for line in warnings:
            self.log.warn("{line}", line=line)
        self._report(changes)
        return changes

    async def _wanted(self, read: Read) -> Wanted:
        wanted = read()
        if isinstance(wanted, Wanted):
            return wanted
        return await (wanted if isinstance(wanted, Deferred) else inSlices(self._serving.reactor, wanted))

    def _report(self, changes: Changes) -> None:
        said = [
            f"{what} {_some(names)}"
            for what, names in (
                ("added", changes.added), ("removed", changes.removed), ("changed", changes.changed)
            )
            if names
        ]  # fmt: skip
        if changes.ended:
            said.append(f"{changes.ended} sessions end")
        self.log.info("reloaded: {what}", what="; ".join(said) or "no changes", event="reloaded")
        for line in changes.postponed:
            self.log.error("{line}", line=line, event="postponed")

    def _leave(self, leaving: Deferred[Any]) -> None:
        """Something goes on after a change has been made."""
        self._leaving.add(leaving)
        leaving.addErrback(self._surprised)
        leaving.addBoth(lambda _: self._leaving.discard(leaving))

    def _surprised(self, why: Failure) -> None:
        if not why.check(CancelledError):
            self._serving.journal.surprise(why.value or Exception(), "ending what is not served any more")

    def stop(self) -> Deferred[Any]:
        """Give up what is under way; fires when nothing is."""
        if self._running is not None:
            self._serving.abandon()
            self._running.cancel()
        for leaving in list(self._leaving):
            leaving.cancel()
        return DeferredList([self._lock.run(lambda: None), *self._leaving])


def _some(names: tuple[str, ...]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} others" if more > 0 else "")
