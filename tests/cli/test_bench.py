"""Rates and latencies."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.cli.bench import Latencies, Load, Plan, bars, lines
from iscsi_twisted.errors import LocalError, ReadError
from tests.cli.test_tool import ToolCase
from tests.support.initiator import InitiatorTests


class LatencyTests(SynchronousTestCase):
    """L{Latencies}."""

    @given(st.lists(st.floats(1e-6, 100.0), min_size=1, max_size=50), st.floats(0.1, 100))
    def test_percentiles(self, values: list[float], share: float) -> None:
        """A percentile is never below the true one, nor above it by more than a sixteenth."""
        latencies = Latencies()
        for value in values:
            latencies.add(value)
        true = sorted(values)[max(0, -int(-len(values) * share // 100) - 1)] * 1e6
        found = latencies.percentile(share)
        self.assertGreaterEqual(found, true * (1 - 1e-6))
        self.assertLessEqual(found, true * (17 / 16) + 1e-6)

    def test_joined(self) -> None:
        """Those of two units are as if they were of one."""
        one, other, both = Latencies(), Latencies(), Latencies()
        for number in range(100):
            for each in ((one, other)[number % 2], both):
                each.add(number * 1e-5)
        one.join(other)
        self.assertEqual((one.count, one.most), (both.count, both.most))
        self.assertEqual(one.buckets, both.buckets)
        self.assertEqual(Latencies().percentile(50), 0)

    def test_bars(self) -> None:
        """A line for each doubling, also for those without any."""
        latencies = Latencies()
        for seconds in (100e-6, 100e-6, 100e-6, 300e-6):
            latencies.add(seconds)
        self.assertEqual(latencies.octaves(), [(64, 3), (128, 0), (256, 1)])
        shown = bars(latencies.octaves())
        self.assertIn("64 us to   128 us  " + "#" * 40 + "  75.0 %", shown[0])
        self.assertEqual([line.count("#") for line in shown], [40, 0, 13])
        self.assertEqual(bars([]), [])


class PlanTests(SynchronousTestCase):
    """L{Plan}."""

    def test_refused(self) -> None:
        """What cannot be done is refused, and so are writes that were not allowed."""
        for wrong, why in (
            ({"writes": 101}, "0 to 100"),
            ({"writes": 1}, "--destroy"),
            ({"depth": 0}, "1 to 4096"),
            ({"size": 0}, "one block"),
            ({"seconds": 0.0}, "0 seconds"),
            ({"seconds": None, "count": 0}, "from 1"),
        ):
            plan = Plan(**wrong)  # type: ignore[arg-type]
            self.assertIn(why, str(self.assertRaises(LocalError, plan.check, False)))
        Plan(writes=100).check(True)


class LoadTests(InitiatorTests):
    """L{Load}."""

    def places(self, plan: Plan) -> tuple[list[int], list[int], Load]:
        """Where it reads, and how many commands are outstanding at each."""
        places: list[int] = []
        depths: list[int] = []
        lun = self.lun()
        waiting = 0
        real = lun.read

        def read(offset: int, length: int) -> Any:
            nonlocal waiting
            waiting += 1
            places.append(offset)
            depths.append(waiting)
            return real(offset, length).addCallback(done)

        def done(data: Any) -> Any:
            nonlocal waiting
            waiting -= 1
            self.clock.rightNow += 0.001
            return data

        self.patch(lun, "read", read)
        load = Load(lun, plan, self.clock.seconds, Random(1))
        running = load.run()
        self.turn(200)
        self.successResultOf(running)
        return places, depths, load

    def test_sequential(self) -> None:
        """One behind the other, and again from the beginning, so many at once, and so many in all."""
        plan = Plan(1 << 18, 3, sequential=True, seconds=None, count=10)
        places, depths, load = self.places(plan)
        self.assertEqual(places, [number % 4 << 18 for number in range(10)])
        self.assertEqual(max(depths), 3)
        self.assertEqual(load.reads.count, 10)

    def test_random(self) -> None:
        """All over the unit, for so long."""
        places, _, load = self.places(Plan(4096, 2, seconds=0.1))
        self.assertEqual({place % 4096 for place in places}, {0})
        self.assertGreater(len(set(places)), 50)
        self.assertEqual(load.reads.count, 101)
        self.assertAlmostEqual(load.end - load.began, 0.1, 2)

    def test_fails(self) -> None:
        """The first error ends it, once."""
        lun = self.lun()
        self.patch(
            self.device, "read", lambda offset, length: (_ for _ in ()).throw(ReadError("worn", offset))
        )
        running: Deferred[None] = Load(lun, Plan(), self.clock.seconds, Random(1)).run()
        self.turn()
        self.failureResultOf(running, ReadError)


class CommandTests(ToolCase):
    """C{iscsi-twisted bench}."""

    def test_reads(self) -> None:
        """For people: rates, percentiles and a histogram."""
        said = self.good("bench", "--count", "50", "--depth", "4", self.url)
        self.assertIn("random, 4096 bytes, depth 4", said[0])
        self.assertIn("a second", said[1])
        self.assertIn("p99.9", said[1])
        self.assertIn("%", said[-1])

    def test_several(self) -> None:
        """Several units at once, reads and writes, for programs."""
        other = self.url[:-1] + "1"
        arguments = ("--count", "60", "--size", "8K", "--order", "sequential", "--writes", "50", "--destroy")
        told = json.loads(self.good("bench", "--json", *arguments, self.url, other)[0])
        for unit in told["units"]:
            self.assertEqual(unit["read"]["count"] + unit["write"]["count"], 60)
        self.assertEqual(told["total"]["read"]["count"] + told["total"]["write"]["count"], 120)
        self.assertEqual(sum(count for _, count in told["histogram"]), 120)
        self.assertNotEqual(bytes(self.device.read(0, 1 << 20)), bytes(1 << 20))
        self.assertIn("all units", lines(told))

    def test_refused(self) -> None:
        """Nothing is written unless it is said that what is there may be destroyed."""
        self.assertIn("--destroy", self.bad(LocalError, "bench", "--writes", "10", self.url))
        self.assertIn(
            "right would be some of these blocks", self.bad(LocalError, "bench", "--size", "700", self.url)
        )
        self.assertEqual(bytes(self.device.read(0, 1 << 20)), bytes(1 << 20))
