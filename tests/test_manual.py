"""The manual says what the command line knows."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.tap import Options
from tests.support.manual import WORDS

MANUAL = Path(__file__).parents[1] / "docs" / "options.rst"


class ManualTests(SynchronousTestCase):
    """C{docs/options.rst}."""

    def test_options(self) -> None:
        """Every option is there, with its short form, and none that does not exist."""
        options = Options()
        text = MANUAL.read_text()
        known = {name.rstrip("=") for name in options.longOpt}
        for name in known:
            self.assertIn(f"--{name}", text)
        for letter in options.shortOpt.replace(":", ""):
            self.assertIn(f"``-{letter}``", text)
        written = {word.partition("``")[0].partition(" ")[0] for word in text.split("--")[1:]}
        written = {word for word in written if word.isascii() and word[:1].isalpha() and word.islower()}
        self.assertEqual(written - known, set())

    def test_commands(self) -> None:
        """Every option of every command is on its page, and no page tells of others."""
        for page, (_, words) in WORDS.items():
            text = (MANUAL.parent / f"{page}.rst").read_text()
            found = set(re.findall(r"``(-[A-Za-z0-9]|--[a-z][a-z0-9-]*|[a-z]+)(?=[`| ])", text))
            self.assertEqual(sorted(words - found), [], page)
            self.assertEqual(sorted(word for word in found - words if word.startswith("--")), [], page)

    def test_conditions(self) -> None:
        """The table of SCSI commands has words for every condition under which there is one."""
        text = (MANUAL.parent / "commands.py").read_text()
        for command in DiskUnit.table:
            if command.condition is not None:
                self.assertIn(f'"{command.condition}": "', text, command.name)
