"""The package of the initiator: what can be imported from it, and when it is."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted import initiator


class PackageTests(SynchronousTestCase):
    """Tests of the names."""

    def test_names(self) -> None:
        """All that it promises is there, and nothing else."""
        homes = [name for names in initiator._HOMES.values() for name in names.split()]
        self.assertEqual(sorted(homes), sorted(initiator.__all__))
        for name in initiator.__all__:
            self.assertEqual(getattr(initiator, name).__name__, name)
        error = self.assertRaises(AttributeError, getattr, initiator, "Tape")
        self.assertIn("Tape", str(error))

    def test_later(self) -> None:
        """A URL can be read without Twisted."""
        program = "import sys, iscsi_twisted.initiator.url; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        self.assertNotIn("twisted.internet.defer", done.stdout.split())
