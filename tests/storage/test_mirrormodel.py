"""
Models of L{iscsi_twisted.storage.Mirror}: whatever happens to members, to the power and to the record, no
byte that was acknowledged and flushed is lost while one good member exists, and members are equal in the end.

C{python -m tests.long --only mirrormodel} runs them for longer, and not the same way each time.
"""

from __future__ import annotations

import gc
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.mirrormachine import MirrorMachine
from tests.support.mirrormodels import (
    ComposedMachine,
    NestedMachine,
    RecordMachine,
    RemoteMachine,
    RosterMachine,
    ScrubMachine,
    run,
    small,
)


class ModelTests(SynchronousTestCase):
    """The machines, with regions and pieces that fit their size."""

    def setUp(self) -> None:
        for module, name, value in small():
            self.patch(module, name, value)

    def run_(self, machine: Any, examples: int) -> None:
        run(machine, examples, 40)
        # What was under way when the power was lost is never heard of again.
        gc.collect()
        self.flushLoggedErrors()

    def test_two(self) -> None:
        """Two members."""
        self.run_(MirrorMachine, 80)

    def test_composed(self) -> None:
        """Members that are a stripe and a concatenation."""
        self.run_(ComposedMachine, 30)

    def test_nested(self) -> None:
        """Members that are mirrors."""
        self.run_(NestedMachine, 30)

    def test_roster(self) -> None:
        """Members that come and go."""
        self.run_(RosterMachine, 50)

    def test_record(self) -> None:
        """Records that cannot be kept, are lost, damaged, or older than the members."""
        self.run_(RecordMachine, 50)

    def test_remote(self) -> None:
        """A member that is started anew now and then, and does not know how new it is."""
        self.run_(RemoteMachine, 40)

    def test_scrub(self) -> None:
        """Three members, of which some rot, and are compared."""
        self.run_(ScrubMachine, 20)
