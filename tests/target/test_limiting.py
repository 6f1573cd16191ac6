# -*- test-case-name: tests.target.test_limiting -*-
"""The limits as options, and in the manual."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.session.limits import COUNT, SIZE, Limits
from iscsi_twisted.target.limiting import parseLimits, rows, shown

MANUAL = Path(__file__).parents[2] / "docs" / "limits.rst"
DEFAULTS = {name: default for name, default, _ in rows()}


class OptionTests(SynchronousTestCase):
    """Tests of L{parseLimits}."""

    def test_defaults(self) -> None:
        """What help shows is what holds."""
        self.assertEqual(parseLimits(DEFAULTS), (Limits(), []))

    def test_read(self) -> None:
        """Numbers, seconds and sizes."""
        said = {"max-connections": "5", "login-time": "7", "max-reading": "2MB", "max-sessions": "0"}
        limits, faults = parseLimits(DEFAULTS | said)
        self.assertEqual(
            (limits, faults), (Limits(connections=5, loginTime=7, reading=2 << 20, sessions=0), [])
        )

    def test_wrong(self) -> None:
        """What is none, or makes no sense, has its default and is told with what is wanted."""
        for name, text, wanted in (
            ("max-connections", "0", "a number from 1 to 1000000"),
            ("max-sessions", "-1", "a number from 0 to 1000000"),
            ("login-time", "1.5", "seconds from 1 to 3600"),
            ("login-time", "9999", "seconds from 1 to 3600"),
            ("max-reading", "1", "bytes, at least 1M, as in 65536 or 8M"),
            ("max-queued", "much", "bytes, at least 64K, as in 65536 or 8M"),
        ):
            limits, (fault,) = parseLimits(DEFAULTS | {name: text})
            self.assertEqual((limits, str(fault)), (Limits(), f"--{name} {text}: wanted is {wanted}"))

    def test_shown(self) -> None:
        """Sizes are shown with the suffix that leaves the least digits."""
        sizes = [shown(number, SIZE) for number in (1000, 1024, 3 << 20, 1 << 30)]
        self.assertEqual((sizes, shown(2048, COUNT)), (["1000", "1K", "3M", "1G"], "2048"))


class ManualTests(SynchronousTestCase):
    """C{docs/limits.rst}."""

    def test_named(self) -> None:
        """It has every limit with its default, and no other."""
        found = dict(
            re.findall(r"^(?:``-\w``, )?``--([a-z-]+)`` \((\w+)\)$", MANUAL.read_text(), re.MULTILINE)
        )
        self.assertEqual(found, DEFAULTS)
