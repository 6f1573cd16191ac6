# -*- test-case-name: tests.config.test_steps -*-
"""Work in steps, done at once."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.config.auths import readAuths
from iscsi_twisted.config.steps import Steps, whole
from iscsi_twisted.config.targets import load
from tests.config.reading import noComplaint

LINES = 50


class StepsTests(SynchronousTestCase):
    """Tests of L{whole}, and of what is read step by step."""

    def test_whole(self) -> None:
        """All steps are done, and what comes of them is returned."""
        done: list[int] = []

        def work() -> Steps[str]:
            for number in range(3):
                done.append(number)
                yield
            return "result"

        self.assertEqual((whole(work()), done), ("result", [0, 1, 2]))

    def test_fails(self) -> None:
        """A step that fails is the last one."""

        def work() -> Steps[None]:
            yield
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, whole, work())

    def test_files(self) -> None:
        """Long files are read in many steps."""
        targets, auths = self.mktemp(), self.mktemp()
        with open(targets, "w") as file:
            file.write("".join(f"extent{n} /x{n} 0 1MB\ntarget{n} extent{n} any\n" for n in range(LINES)))
        with open(auths, "w") as file:
            file.write("".join(f"user{n}:chap:{n:016}\n" for n in range(LINES)))
        for reading in (load(targets, noComplaint), readAuths(auths)):
            self.assertGreaterEqual(sum(1 for _ in reading), LINES)
