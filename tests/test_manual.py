"""The manual says what the command line knows."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.cli import harness, options
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.tap import Options
from tests.support.manual import WORDS, commands, forms, served, terms, told

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

    def page(self, name: str) -> list[tuple[int, list[str]]]:
        """The terms of a page."""
        return list(terms((MANUAL.parent / f"{name}.rst").read_text()))

    def test_forms(self) -> None:
        """Each option has on its page behind it what the help of the command has behind it."""
        for page, parser in (("harness", harness.parser()), ("tool", options.parser())):
            found: dict[str, str] = {}
            for inside, literals in self.page(page):
                found |= told(literals) if not inside else {}
            shown = forms(parser)
            self.assertEqual({name: found.get(name) for name in shown}, shown, page)

    def test_each(self) -> None:
        """Each command of the tool has its arguments and options where its page tells of it, no others."""
        known = commands(options.parser())
        found: dict[str, dict[str, str]] = {}
        names: list[str] = []
        for inside, literals in self.page("tool"):
            if not inside:
                names = [one.partition(" ")[0] for one in literals if not one.startswith("-")]
                for one in literals:
                    name, _, rest = one.partition(" ")
                    if name in names:
                        self.assertEqual(re.sub(r"\[.*?\] ", "", rest).split(), known[name][0], name)
                        found[name] = {}
            for name in names if inside else ():
                found[name] |= told(literals)
        self.assertEqual(set(found), set(known))
        together = {"read": "write", "write": "read"}
        for name, (_, shown) in known.items():
            shown = shown | known[together.get(name, name)][1]
            self.assertEqual(found[name], shown, name)

    def test_service(self) -> None:
        """Each option of twistd iscsi has something behind it on its page exactly if it takes something."""
        found: dict[str, str] = {}
        for inside, literals in self.page("options"):
            values = told(literals) if not inside else {}
            # The short form is a term with the long one, which has the value.
            for short, one in zip(values, [*values.values()][1:], strict=False):
                if len(short) == 2 and not values[short]:
                    values[short] = one
            found |= values
        shown = served()
        self.assertEqual(set(found) - {"--help"}, set(shown))
        self.assertEqual({name for name in found if found[name]}, {name for name in shown if shown[name]})

    def test_conditions(self) -> None:
        """The table of SCSI commands has words for every condition under which there is one."""
        text = (MANUAL.parent / "commands.py").read_text()
        for command in DiskUnit.table:
            if command.condition is not None:
                self.assertIn(f'"{command.condition}": "', text, command.name)
