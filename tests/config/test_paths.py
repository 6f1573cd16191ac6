"""Tests for L{iscsi_twisted.config.paths}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.config.paths import CHANGERS, STATES, parseChangers, parseStates
from iscsi_twisted.errors import ConfigurationError
from iscsi_twisted.scsi import paths


class PathOptionTests(SynchronousTestCase):
    """How well a target is reached."""

    def test_states(self) -> None:
        """Every state that can be set has a name, and its own number."""
        self.assertEqual(set(STATES.values()), paths.SETTABLE)
        for name, state in STATES.items():
            self.assertEqual(parseStates(f"7:{name.upper()}"), ((7, state),))
        self.assertEqual(parseStates("1:non-optimized,2:standby"), ((1, 1), (2, 2)))

    def test_noStates(self) -> None:
        """What is no list of groups and states is refused."""
        for text in (
            "",
            "1",
            "1:",
            ":standby",
            "1:standby,",
            "1:standby;2:offline",
            "x:standby",
            "1:transitioning",
        ):
            self.assertRaises(ConfigurationError, parseStates, text)

    def test_changers(self) -> None:
        """The four values of TPGS have names."""
        self.assertEqual([parseChangers(name) for name in CHANGERS], [0, 1, 2, 3])
        self.assertEqual((CHANGERS["implicit"], CHANGERS["both"]), (paths.IMPLICIT, paths.BOTH))
        self.assertRaises(ConfigurationError, parseChangers, "nobody")
