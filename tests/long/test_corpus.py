"""What fuzzers found worth keeping, once more."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.long.fuzz import Fault
from tests.long.guided import CORPUS, NAMES
from tests.long.inputs import INPUTS, framer


class CorpusTests(SynchronousTestCase):
    """The corpus in C{tests/data/fuzz}."""

    def test_replay(self) -> None:
        """Every input of the corpus is met as any input has to be."""
        self.assertEqual(set(INPUTS), set(NAMES))
        for name, function in INPUTS.items():
            paths = sorted((CORPUS / name).iterdir())
            self.assertGreater(len(paths), 3, name)
            for path in paths:
                try:
                    function(path.read_bytes())
                except Exception as error:
                    self.fail(f"{name}/{path.name}: {error!r}")

    def test_cut(self) -> None:
        """A framer that depended on where the stream is cut would be found."""
        self.patch(framer.__globals__["Taken"], "feed", lambda self, data: self.pdus.append(data))
        self.assertRaises(Fault, framer, b"\0\0\1abc")
