# -*- test-case-name: tests.config.test_manual -*-
"""The manual page says what the code does."""

from __future__ import annotations

import os
import re
import textwrap

from twisted.trial.unittest import SynchronousTestCase

import tests
from iscsi_twisted.config.filters import OPTIONS as FILTERS
from iscsi_twisted.config.options import OPTIONS
from iscsi_twisted.config.targets import parse

PAGE = os.path.join(os.path.dirname(os.path.abspath(tests.__file__)), os.pardir, "docs", "targets.rst")


class ManualTests(SynchronousTestCase):
    """Tests of C{docs/targets.rst}."""

    def setUp(self) -> None:
        """Read the page."""
        with open(PAGE, encoding="utf-8") as file:
            self.page = file.read()

    def test_examples(self) -> None:
        """Every example file of the page can be loaded."""
        blocks = re.findall(r"::\n\n((?: {4}.*\n|\n)+)", self.page)
        examples = [
            textwrap.dedent(block) for block in blocks if re.search(r"^ +extent\d", block, re.MULTILINE)
        ]
        loaded = [
            parse(text, "F", lambda name: None, nameRemote=str)
            for text in examples
            if "target0:rw" not in text
        ]
        self.assertEqual([len(configuration.targets) for configuration in loaded], [1, 3, 1, 1, 3, 1, 1, 2])

    def test_filters(self) -> None:
        """Every option of every filter has a row in the tables of its page, and its name in this one."""
        with open(os.path.join(os.path.dirname(PAGE), "filters.rst"), encoding="utf-8") as file:
            page = file.read()
        for kind, options in FILTERS.items():
            _, _, section = page.partition(f"\n{kind}\n----")
            section = re.split(r"\n-{4,}\n", section.partition("\n")[2])[0]
            rows = re.findall(r"^   \* - ``([a-z]+)=", section, re.MULTILINE)
            self.assertEqual(rows, list(options), kind)
            _, _, here = self.page.partition(f"\n``{kind}``\n")
            names = re.findall(r"``([a-z]+)=``", here.partition("\n\n")[0])
            self.assertEqual(sorted(names), sorted(options), kind)
        blocks = re.findall(r"::\n\n((?: {4}.*\n|\n)+)", page)
        examples = [
            textwrap.dedent(block) for block in blocks if re.search(r"^ +target\d", block, re.MULTILINE)
        ]
        self.assertGreater(len(examples), 3)
        for text in examples:
            parse(text, "F", lambda name: None)

    def test_options(self) -> None:
        """Every option has a row in the tables, and no other has."""
        rows = re.findall(r"^   \* - ``([a-z]+)=", self.page, re.MULTILINE)
        self.assertEqual(rows, [option.name for option in OPTIONS])
