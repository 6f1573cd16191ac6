"""Reading texts of targets files in tests."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.config.model import Configuration
from iscsi_twisted.config.targets import parse
from iscsi_twisted.errors import ConfigurationErrors

THREE = "extent0 /a 0 1M\nextent1 /b 0 1M\nextent2 /c 0 2M\n"
"""Three lines that many tests begin with."""


def noComplaint(name: str) -> str | None:
    """Any name will do."""
    return None


def read(text: str, directory: str | None = None) -> Configuration:
    """A text without faults."""
    return parse(text, "F", noComplaint, directory=directory)


class TargetsTestCase(SynchronousTestCase):
    """What the tests of targets files have in common."""

    def faults(self, text: str) -> list[str]:
        """The messages about a text."""
        error = self.assertRaises(ConfigurationErrors, read, text)
        return str(error).split("\n")

    def assertFault(self, text: str, *messages: str) -> None:
        """Check that a text has exactly the faults whose messages begin so."""
        found = self.faults(text)
        self.assertEqual(
            [each[: len(want)] for each, want in zip(found, messages, strict=False)], list(messages)
        )
        self.assertEqual(len(found), len(messages), found)
