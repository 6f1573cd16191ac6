# -*- test-case-name: tests.storage.test_legs -*-
"""Tests for L{iscsi_twisted.storage.legs}."""

from __future__ import annotations

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.storage.legs import NEW, OPEN, REPLACED, TRANSITIONS, Leg


class LegTests(SynchronousTestCase):
    """Tests of L{Leg}."""

    def test_states(self) -> None:
        """Every state can be reached, and all but the last can be left."""
        reached = set(TRANSITIONS.values())
        left = {state for state, _ in TRANSITIONS}
        self.assertEqual(left - reached, {NEW})
        self.assertEqual(reached - left, {REPLACED})

    def test_happens(self) -> None:
        """A transition is an event of the log; what cannot happen is a mistake of ours."""
        leg = Leg(MemoryDevice(512))
        with capturedLogs() as events:
            leg.happens("current", "device0")
            leg.happens("failed", "device0", "it burns")
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "device0: member MemoryDevice is in sync",
                "device0: member MemoryDevice is failed: it burns",
            ],
        )
        facts = ("event", "mirror", "member", "was", "state", "reason")
        self.assertEqual(
            [events[1][fact] for fact in facts],
            ["member", "device0", "MemoryDevice", "in sync", "failed", "it burns"],
        )
        self.assertRaises(KeyError, leg.happens, "current", "device0")
        self.assertNotIn(leg.state, OPEN)

    def test_name(self) -> None:
        """It is called what its line calls it, and its file."""
        device = MemoryDevice(512)
        device.title = "extent0"  # type: ignore[attr-defined]
        self.assertEqual(Leg(device).name, "extent0 (MemoryDevice)")
