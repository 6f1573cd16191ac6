# -*- test-case-name: tests.storage.test_pace -*-
"""
Whether an extent's next operation runs inline or in a thread.

A system call on cached data takes a few microseconds, a thread some hundred; but a call that waits for a
disk stops every session of the process.  So operations are inline while they are quick.  Both classes here
are asked on every operation, by their attribute C{inline}, and told only of those that came late: a
quick operation costs two looks at the clock.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

QUICK: Final = 100e-6
"""Seconds.  An operation that took longer is late, unless it was large: about what a thread would cost."""

PER_BYTE: Final = 5e-10
"""Seconds that are allowed for each byte: copying alone takes a quarter of that, or more."""

SLICE: Final = 4e-3
"""Seconds.  A busy machine takes the processor away for about so long.  Nothing that is shorter than C{LONG}
counts for more than this, so that one such pause alone never drives an extent into threads."""

LONG: Final = 20e-3
"""Seconds.  One operation that took longer is enough."""

WINDOW: Final = 16
"""Operations over which the average goes, roughly."""

FADE: Final = 1 - 1 / WINDOW

LIMIT: Final = 300e-6
"""Seconds of delay per operation, on average, beyond which threads are cheaper; above C{SLICE / WINDOW}."""

REST: Final = 20
"""After a late operation threads work for so many times as long as it took: so a slow device stops the others
for at most a twentieth of the time."""

SHORTEST: Final = 0.05
LONGEST: Final = 60.0
"""Seconds, the bounds of a rest."""

TRUST: Final = 1000
"""Reads in a row that must find their data cached before one is made that might wait."""


def waitedForProcessor() -> float:
    """Seconds that the calling thread was ready to run and had no processor; 0 where nobody counts that."""
    try:
        descriptor = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0.0
    try:
        # Nanoseconds of running, nanoseconds of waiting to run, number of turns.
        return int(os.read(descriptor, 100).split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
    finally:
        os.close(descriptor)


class Waits:
    """Tells waits for a processor from waits for a device; asked only when something was late."""

    __slots__ = ("_before", "_waited")

    def __init__(self, waited: Callable[[], float]) -> None:
        self._waited = waited
        self._before = 0.0

    def excuse(self, late: float) -> bool:
        """
        Whether the processor was waited for since the last question, for about so long.

        An earlier wait may excuse a device once, but not twice.

        @param late: seconds.
        """
        waited = self._waited()
        share = waited - self._before
        self._before = waited
        return share >= late / 2


class Pace:
    """
    Inline while recent operations were quick, else in threads; then inline again, by trying.

    @ivar inline: the next operation may run inline.
    """

    __slots__ = ("_average", "_clock", "_count", "_late", "_until", "_waits", "inline")

    def __init__(self, clock: Callable[[], float], waited: Callable[[], float] = waitedForProcessor) -> None:
        """
        @param waited: seconds that this thread has been ready to run and was not let.
        """
        self.inline = True
        self._waits = Waits(waited)
        self._late = 0.0
        self._clock = clock
        self._average = 0.0
        self._count = 0
        self._until = 0.0

    def late(self, elapsed: float, length: int, count: int) -> None:
        """
        An inline operation took longer than C{QUICK}.

        @param elapsed: seconds.
        @param length: bytes.
        @param count: operations so far; by their number earlier delays are forgotten.
        """
        elapsed -= length * PER_BYTE
        if elapsed <= QUICK:
            return
        counted = elapsed if elapsed > LONG else min(elapsed, SLICE)
        self._average = self._average * FADE ** (count - self._count) + counted / WINDOW
        self._count = count
        self._late += elapsed
        if self._average <= LIMIT:
            return
        late, self._late = self._late, 0.0
        if self._waits.excuse(late):
            # Threads would not help.
            self._average = 0.0
        else:
            self.inline = False
            # No more than the limit: the next late operation, soon after the return, is enough then.
            self._average = LIMIT
            self._rest(elapsed)

    def threaded(self, elapsed: float) -> None:
        """An operation took that many seconds in its thread: if that is long, this is no time to try."""
        if elapsed > LONG:
            self._rest(elapsed)

    def _rest(self, elapsed: float) -> None:
        rest = min(max(elapsed * REST, SHORTEST), LONGEST)
        self._until = max(self._until, self._clock() + rest)

    def mayTry(self, count: int) -> bool:
        """Whether it is time to work inline again; if so, that is from now on."""
        if self.inline or self._clock() < self._until:
            return False
        self.inline = True
        self._count = count
        return True


class Trust:
    """
    For reads, where the system can say that data are not cached instead of waiting for them.

    That answer costs more than a plain read, by a quarter at 4 KiB and by two fifths at 1 MiB (the
    buffer must be made first).  So plain reads are made once C{TRUST} reads in a row found their data
    cached, until one comes late: at most one read in so many waits for a disk.

    @ivar inline: the next read may be a plain one.
    """

    __slots__ = ("_hits", "_waits", "inline")

    def __init__(self, waited: Callable[[], float] = waitedForProcessor) -> None:
        """
        @param waited: seconds that this thread has been ready to run and was not let.
        """
        self.inline = False
        self._hits = 0
        self._waits = Waits(waited)

    def hit(self) -> None:
        """The data were cached."""
        self._hits += 1
        if self._hits >= TRUST:
            self.inline = True

    def missed(self) -> None:
        """The data were not cached."""
        self.inline = False
        self._hits = 0

    def late(self, elapsed: float, length: int, count: int) -> None:
        """A plain read took longer than C{QUICK}; see L{Pace.late}."""
        late = elapsed - length * PER_BYTE
        if late > QUICK and not self._waits.excuse(late):
            self.missed()


class Never:
    """
    For what always belongs in a thread: block device nodes, writes that wait for the medium.

    @ivar inline: never.
    """

    __slots__ = ()
    inline: Final = False

    def late(self, elapsed: float, length: int, count: int) -> None:
        """Does not happen."""

    def threaded(self, elapsed: float) -> None:
        """Makes no difference."""

    def mayTry(self, count: int) -> bool:
        """It is never time."""
        return False
