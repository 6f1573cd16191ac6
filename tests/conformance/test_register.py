"""Tests for the register of sentences itself."""

from __future__ import annotations

import ast
from pathlib import Path

from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase

from tests.conformance.register import ELSEWHERE, UNTESTED, proved


class RegisterTests(SynchronousTestCase):
    """What the documentation's page is made from."""

    def test_everyTest(self) -> None:
        """Every test of this package, but those of the register, names its sentence."""
        here = {must.proof for must in proved()}
        for path in Path(__file__).parent.glob("test_*.py"):
            if path.stem == "test_register":
                continue
            for case in ast.parse(path.read_text()).body:
                if isinstance(case, ast.ClassDef):
                    for method in case.body:
                        if isinstance(method, ast.FunctionDef) and method.name.startswith("test_"):
                            self.assertIn(f"tests.conformance.{path.stem}.{case.name}.{method.name}", here)

    def test_proofs(self) -> None:
        """Every test that is named exists."""
        for must in (*proved(), *ELSEWHERE):
            self.assertTrue(callable(namedAny(must.proof)), must)

    def test_once(self) -> None:
        """No sentence is both proved and excused."""
        sentences = {(must.section, must.words) for must in (*proved(), *ELSEWHERE)}
        self.assertFalse(sentences & {(must.section, must.words) for must in UNTESTED})
        self.assertGreater(len(sentences), 90)
