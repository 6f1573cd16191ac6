# -*- test-case-name: tests.storage.test_reading -*-
"""One read of a mirror that no member has answered at once."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from iscsi_twisted.errors import DeviceError, ReadError
from iscsi_twisted.interfaces import Buffer, Pending, isPending
from iscsi_twisted.storage.legs import Leg
from iscsi_twisted.storage.patience import READS
from iscsi_twisted.storage.pending import attempt
from iscsi_twisted.storage.salvage import Salvage, grain, mayBeSplit

if TYPE_CHECKING:
    from iscsi_twisted.storage.mirrorread import MirrorReading


class Reading(Deferred[Buffer]):
    """
    A read of one member, and of others if it fails or does not answer for a while; the first answer counts.

    @ivar since: when the last of them was asked.
    """

    def __init__(self, mirror: MirrorReading, offset: int, length: int) -> None:
        super().__init__()
        self.since: float | None = None
        self._mirror, self._offset, self._length = mirror, offset, length
        self._failed: list[tuple[Leg, Failure]] = []
        self._asked: list[Leg] = []
        self._running: dict[Leg, Pending] = {}
        self._moments: dict[Leg, tuple[int, int]] = {}
        self._late: set[Leg] = set()
        self._found: Salvage | None = None
        self._cancelled = self._over = False

    def begin(self, leg: Leg, result: Any) -> Buffer | Pending:
        """
        Go on from what the first member has returned.

        @param result: pending, or a L{Failure}.
        @return: the bytes, if they are there already; else this.
        @raise DeviceError: if no member could read them.
        """
        self._mirror.watch.begin(self)
        self._take(leg, result)
        if not self.called:
            return self
        outcome: list[Any] = []
        self.addBoth(outcome.append)
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        return outcome[0]  # type: ignore[no-any-return]

    def _take(self, leg: Leg, result: Any) -> None:
        """What a member has returned."""
        self._asked.append(leg)
        if isPending(result):
            leg.late = True
            leg.busy += 1
            self.since = self._mirror.watch.now()
            self._running[leg] = result
            self._moments[leg] = leg.moment()
            result.addCallbacks(partial(self._hasRead, leg), partial(self._hasNotRead, leg))
        elif isinstance(result, Failure):
            self._without(leg, result)
        else:
            leg.late = False
            self._answer(result)

    def _hasRead(self, leg: Leg, data: Buffer) -> None:
        self._leave(leg)
        if self._over:
            return
        if leg.counts(self._moments[leg]):
            self._answer(data)
            return
        # Asked again like any other, if it has turned out to be what it was.
        self._asked.remove(leg)
        why = ReadError(f"{leg.name} was started anew while it was read", self._offset)
        self._without(leg, Failure(why))

    def _hasNotRead(self, leg: Leg, failure: Failure) -> None:
        self._leave(leg)
        if not self._over:
            self._without(leg, failure)

    def _leave(self, leg: Leg) -> None:
        """A member has ended."""
        leg.busy -= 1
        self._running.pop(leg, None)
        if leg in self._late:
            leg.hanging -= 1

    def _without(self, leg: Leg, failure: Failure) -> None:
        """A member could not read: ask another, or wait for those that are asked already."""
        expected = failure.check(DeviceError, OSError)
        if self._cancelled or not expected:
            self._end()
            # Others might have read it, and were not asked: nobody must take that for a place that is lost.
            self.errback(CancelledError() if expected else failure)
            return
        self._failed.append((leg, failure))
        if self._onward() or self._running:
            return
        if (
            len(self._failed) > 1
            and self._length > grain(self._mirror)
            and any(mayBeSplit(one, why.value) for one, why in self._failed)
        ):
            Deferred.fromCoroutine(self._salvage()).addErrback(self._lose)
            return
        self._lose(self._failed[0][1])

    def _lose(self, failure: Failure) -> None:
        if not self._over:
            self._mirror.errors += 1
            self._end()
            self.errback(failure)

    async def _salvage(self) -> None:
        """No member could read all of it: take each part from one that can."""
        mirror = self._mirror
        found = self._found = Salvage(mirror)
        await found.run(self._offset, self._offset + self._length, tried=True)
        for leg, start, data in found.missed:
            mirror.repair([leg], start, len(data))
        data = found.whole()
        self._failed.clear()
        if not self._over:
            self._answer(data)

    def _onward(self) -> bool:
        """Ask one more member; whether there is one."""
        holders = self._mirror.holders(self._offset, self._offset + self._length)
        others = [leg for leg in holders if leg not in self._asked]
        if not others:
            return False
        leg = min(others, key=lambda one: one.shunned)
        self._take(leg, attempt(leg.device.read, self._offset, self._length))
        return True

    def _answer(self, data: Buffer) -> None:
        self._end()
        if self._failed:
            self._mirror.repair([leg for leg, _ in self._failed], self._offset, self._length)
        self.callback(data)

    def _end(self) -> None:
        """It is about to be answered: whoever is late may stop."""
        self._over = True
        self._mirror.watch.end(self)
        if self._found is not None:
            self._found.stop()
        for operation in list(self._running.values()):
            operation.cancel()

    # Those that do not answer

    def look(self, now: float, seconds: float) -> None:
        """See L{iscsi_twisted.storage.patience.Waiting}."""
        if self.since is None or now - self.since < seconds / READS:
            return
        self.since = None
        late = [leg for leg in self._running if leg not in self._late]
        for leg in late:
            self._late.add(leg)
            leg.hanging += 1
        if self._cancelled:
            self._end()
            self.errback(CancelledError())
        elif self._onward():
            for leg in late:
                self._mirror.watch.shun(leg)

    def giveUp(self, leg: Leg, why: str) -> None:
        """A member is left out.  Its answer would be right: it was asked before others went on without it."""
        if leg in self._running and leg not in self._late:
            self.since = float("-inf")

    def cancel(self) -> None:
        if self.called:
            super().cancel()
            return
        self._cancelled = True
        for operation in list(self._running.values()):
            operation.cancel()
        if not self.called and self._late.issuperset(self._running):
            self._end()
            self.errback(CancelledError())
