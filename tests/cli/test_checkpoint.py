"""The file that says how far a copy has come."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.cli.checkpoint import Checkpoint
from iscsi_twisted.errors import LocalError

SOURCE = {"lun": 1, "bytes": 4096}
SINK = {"path": "/image", "bytes": 4096}


class CheckpointTests(SynchronousTestCase):
    """L{Checkpoint}."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.checkpoint = Checkpoint(self.path, SOURCE, SINK, 4096)

    def refused(self) -> str:
        """Why it cannot be loaded."""
        return str(self.assertRaises(LocalError, self.checkpoint.load))

    def test_roundTrip(self) -> None:
        """What was saved last is loaded; before, and after it was removed, there is nothing."""
        self.assertEqual(self.checkpoint.load(), 0)
        self.checkpoint.save(512)
        self.checkpoint.save(1024)
        self.assertEqual(Checkpoint(self.path, SOURCE, SINK, 4096).load(), 1024)
        self.checkpoint.remove()
        self.assertEqual(self.checkpoint.load(), 0)
        self.checkpoint.remove()

    def test_others(self) -> None:
        """That of another copy is refused, with the first thing that is not the same."""
        Checkpoint(self.path, {"lun": 0, "bytes": 4096}, SINK, 4096).save(1)
        self.assertIn("from: lun was 0, and is 1; to begin again", self.refused())
        Checkpoint(self.path, SOURCE, SINK, 8192).save(1)
        self.assertIn("bytes was 8192, and is 4096", self.refused())

    def test_garbage(self) -> None:
        """What is no such file is refused, and stays."""
        for text in ("", "[]", "{}", "nonsense", "\xff", '{"done": 1}'):
            with open(self.path, "w", encoding="latin-1") as file:
                file.write(text)
            self.assertIn(self.path, self.refused())
            self.assertTrue(os.path.exists(self.path))

    def test_impossible(self) -> None:
        """More bytes than there are cannot have been copied, nor a fraction."""
        for done in (4097, -1):
            self.checkpoint.save(done)
            self.assertIn("cannot have been copied", self.refused())
