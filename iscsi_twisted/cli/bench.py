# -*- test-case-name: tests.cli.test_bench -*-
"""How many reads and writes units take, and how long each takes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from math import frexp
from random import Random
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred, FirstError, gatherResults

from iscsi_twisted.errors import LocalError
from iscsi_twisted.initiator import LUN

STEPS: Final = 16
"""Buckets for each doubling of a latency: percentiles are right to a sixteenth."""

SHARES: Final = (50.0, 90.0, 99.0, 99.9)
"""The percentiles that are told."""

DEEPEST: Final = 4096
BAR: Final = 40


@attrs.frozen
class Plan:
    """
    What is to be done with each unit.

    @ivar size: bytes of one read or write.
    @ivar depth: how many are outstanding.
    @ivar writes: percent of writes.
    @ivar sequential: one behind the other, and again from the beginning; else at random places.
    @ivar seconds: for how long; None if C{count} tells.
    @ivar count: how many reads and writes.
    """

    size: int = 4096
    depth: int = 32
    writes: int = 0
    sequential: bool = False
    seconds: float | None = 10.0
    count: int | None = None

    def check(self, destroy: bool) -> None:
        """
        Whether that can be done at all.

        @param destroy: whether what is on the units may be overwritten.
        @raise LocalError: if it cannot.
        """
        if not 0 <= self.writes <= 100:
            raise LocalError(f"{self.writes} percent of writes: right would be 0 to 100")
        if self.writes and not destroy:
            raise LocalError("writes destroy what is on the units: give --destroy if that is meant")
        if not 0 < self.depth <= DEEPEST:
            raise LocalError(f"a depth of {self.depth}: right would be 1 to {DEEPEST}")
        if self.size < 1:
            raise LocalError("each read or write has one block at least")
        if (self.seconds is None) == (self.count is None) or not (self.seconds or self.count or 0) > 0:
            raise LocalError("it takes more than 0 seconds, or a number of reads and writes from 1")

    def suits(self, lun: LUN) -> None:
        """@raise LocalError: if it cannot be done with a unit."""
        if self.size % lun.blockSize or self.size > lun.size:
            raise LocalError(
                f"--size {self.size}: {lun} has {lun.size} bytes in blocks of {lun.blockSize};"
                " right would be some of these blocks"
            )
        if self.writes and lun.capabilities().readOnly:
            raise LocalError(f"{lun} is read-only")


class Latencies:
    """
    How long reads or writes took, in memory that does not grow with their number.

    @ivar count: how many there were.
    @ivar total: seconds of all of them.
    @ivar most: seconds of the longest.
    """

    def __init__(self) -> None:
        self.count = 0
        self.total = self.most = 0.0
        self.buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """One took so long."""
        self.count += 1
        self.total += seconds
        if seconds > self.most:
            self.most = seconds
        fraction, exponent = frexp(seconds * 1e6 if seconds > 1e-6 else 1.0)
        self.buckets[(exponent - 1) * STEPS + int((fraction * 2 - 1) * STEPS)] += 1

    def join(self, other: Latencies) -> None:
        """Those of others, too."""
        self.count += other.count
        self.total += other.total
        self.most = max(self.most, other.most)
        self.buckets.update(other.buckets)

    def percentile(self, share: float) -> float:
        """Microseconds that so many percent of them took at most; 0 if there was none."""
        due = self.count * share / 100
        for bucket in sorted(self.buckets):
            due -= self.buckets[bucket]
            if due <= 1e-9:
                return min(_end(bucket), self.most * 1e6)
        return self.most * 1e6

    def octaves(self) -> list[tuple[int, int]]:
        """For each doubling, from the first that has any to the last: microseconds at least, and how many."""
        found: Counter[int] = Counter()
        for bucket, count in self.buckets.items():
            found[bucket // STEPS] += count
        if not found:
            return []
        return [(1 << octave, found[octave]) for octave in range(min(found), max(found) + 1)]

    def told(self, seconds: float, size: int) -> dict[str, Any]:
        """Rates and latencies, the latter in microseconds."""
        latency = {"mean": round(self.total / max(self.count, 1) * 1e6, 1)}
        latency |= {f"p{share:g}": round(self.percentile(share), 1) for share in SHARES}
        latency["max"] = round(self.most * 1e6, 1)
        rate = self.count / max(seconds, 1e-9)
        return {
            "count": self.count,
            "iops": round(rate, 1),
            "MBps": round(rate * size / 1e6, 2),
            "us": latency,
        }


def _end(bucket: int) -> float:
    """Microseconds at which a bucket ends."""
    octave, step = divmod(bucket, STEPS)
    return float((1 << octave) * (1 + (step + 1) / STEPS))


class Load:
    """
    Reads and writes of one unit.

    @ivar reads: how long they took; so for C{writes}.
    @ivar began: when it began; C{end} when the last one ended.
    """

    def __init__(self, lun: LUN, plan: Plan, clock: Callable[[], float], random: Random) -> None:
        """@param clock: seconds."""
        self.lun, self._plan, self._clock, self._random = lun, plan, clock, random
        self.reads, self.writes = Latencies(), Latencies()
        self.began = self.end = 0.0
        self._ended: Deferred[None] = Deferred(lambda _: None)
        self._places = lun.size // plan.size
        self._data = os.urandom(plan.size) if plan.writes else b""
        self._next = self._outstanding = 0
        self._left = plan.count if plan.count is not None else 1 << 62

    def run(self) -> Deferred[None]:
        """
        Begin.

        @return: fires when all has been done; fails with the first error.
        """
        self.began = self.end = self._clock()
        for _ in range(min(self._plan.depth, self._left)):
            self._begin()
        return self._ended

    def _begin(self) -> None:
        self._left -= 1
        self._outstanding += 1
        plan = self._plan
        if plan.sequential:
            place = self._next
            self._next = (place + 1) % self._places
        else:
            place = int(self._random.random() * self._places)
        began = self._clock()
        if plan.writes and self._random.random() * 100 < plan.writes:
            writing = self.lun.write(place * plan.size, self._data)
            writing.addCallbacks(self._done, self._failed, (began, self.writes))
        else:
            reading = self.lun.read(place * plan.size, plan.size)
            reading.addCallbacks(self._done, self._failed, (began, self.reads))

    def _done(self, _: object, began: float, latencies: Latencies) -> None:
        now = self._clock()
        latencies.add(now - began)
        self._outstanding -= 1
        if self._ended.called:
            return
        if self._left > 0 and (self._plan.seconds is None or now - self.began < self._plan.seconds):
            self._begin()
        elif not self._outstanding:
            self.end = now
            self._ended.callback(None)

    def _failed(self, why: Any) -> None:
        if not self._ended.called:
            self._ended.errback(why)


class Bench:
    """
    Loads of several units at once.

    @ivar loads: one for each unit.
    """

    def __init__(self, luns: Sequence[LUN], plan: Plan, clock: Callable[[], float], random: Random) -> None:
        """@raise LocalError: if a unit does not suit the plan."""
        for lun in luns:
            plan.suits(lun)
        self._plan = plan
        self.loads = [Load(lun, plan, clock, random) for lun in luns]

    async def run(self) -> None:
        """Run them; the first error ends all."""
        running = gatherResults([load.run() for load in self.loads], consumeErrors=True)
        try:
            await running
        except FirstError as error:
            error.subFailure.raiseException()

    def told(self) -> dict[str, Any]:
        """All that is known, for programs."""
        units = [{"unit": str(load.lun)} | self._one([load]) for load in self.loads]
        told = self._one(self.loads)
        both = Latencies()
        for load in self.loads:
            both.join(load.reads)
            both.join(load.writes)
        plan = attrs.asdict(self._plan)
        return {"plan": plan, "units": units, "total": told, "histogram": both.octaves()}

    def _one(self, loads: Sequence[Load]) -> dict[str, Any]:
        seconds = max(load.end for load in loads) - min(load.began for load in loads)
        reads, writes = Latencies(), Latencies()
        for load in loads:
            reads.join(load.reads)
            writes.join(load.writes)
        size = self._plan.size
        return {
            "seconds": round(seconds, 3),
            "read": reads.told(seconds, size), "write": writes.told(seconds, size),
        }  # fmt: skip


def lines(told: dict[str, Any]) -> list[str]:
    """The same for people."""
    plan, total = told["plan"], told["total"]
    order = "sequential" if plan["sequential"] else "random"
    said = [f"{order}, {plan['size']} bytes, depth {plan['depth']}, {total['seconds']:.1f} s"]
    for unit in told["units"] if len(told["units"]) > 1 else []:
        said += [f"{unit['unit']}", *_rates(unit)]
    return said + (["all units"] if len(told["units"]) > 1 else []) + _rates(total) + bars(told["histogram"])


def _rates(told: dict[str, Any]) -> list[str]:
    said = []
    for kind in ("read", "write"):
        one = told[kind]
        if one["count"]:
            latency = "  ".join(f"{name} {_time(value)}" for name, value in one["us"].items())
            said.append(f"  {kind:5}  {one['iops']:.0f} a second, {one['MBps']:.1f} MB/s  {latency}")
    return said


def bars(octaves: Sequence[tuple[int, int]]) -> list[str]:
    """How many took how long, as bars."""
    most = max((count for _, count in octaves), default=0)
    total = sum(count for _, count in octaves)
    return [
        f"  {_time(least):>8} to {_time(2 * least):>8}  {'#' * round(BAR * count / most):{BAR}}"
        f" {100 * count / total:5.1f} %"
        for least, count in octaves
    ]  # fmt: skip


def _time(microseconds: float) -> str:
    """A time for people."""
    for scale, unit in ((1e6, "s"), (1e3, "ms")):
        if microseconds >= scale:
            return f"{microseconds / scale:.2f} {unit}"
    return f"{microseconds:.0f} us"
