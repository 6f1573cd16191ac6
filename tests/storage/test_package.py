"""The package of block devices: what can be imported from it, and when it is."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted import storage


class PackageTests(SynchronousTestCase):
    """Tests of the names."""

    def test_names(self) -> None:
        """All that it promises is there, and nothing else."""
        homes = [name for names in storage._HOMES.values() for name in names.split()]
        self.assertEqual(sorted(homes), storage.__all__)
        for name in storage.__all__:
            self.assertEqual(getattr(storage, name).__name__, name)
        error = self.assertRaises(AttributeError, getattr, storage, "Tape")
        self.assertIn("Tape", str(error))

    def test_later(self) -> None:
        """A command of the initiator starts without mirrors and configuration files."""
        program = "import sys, iscsi_twisted.cli.commands; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        loaded = set(done.stdout.split())
        self.assertIn("iscsi_twisted.storage.device", loaded)
        self.assertEqual(loaded & {"iscsi_twisted.storage.mirror", "iscsi_twisted.config.model"}, set())
