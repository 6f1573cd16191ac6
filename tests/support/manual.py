"""What the pages of the manual have to tell."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from iscsi_twisted.cli import harness, options
from iscsi_twisted.tap import Options


def optionStrings(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Options of a command, and the commands that it has, with theirs."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for name, one in action.choices.items():
                yield name
                yield from optionStrings(one)


def service() -> Iterator[str]:
    """Options of C{twistd iscsi}."""
    made = Options()
    yield from (f"--{name.rstrip('=')}" for name in made.longOpt)
    yield from (f"-{letter}" for letter in made.shortOpt.replace(":", ""))


WORDS = {
    "tool": ("iscsi-twisted.1", set(optionStrings(options.parser()))),
    "harness": ("iscsi-harness.1", set(optionStrings(harness.parser()))),
    "options": ("twistd-iscsi.1", set(service())),
}
"""By page: the name of its man page, and what has to be in both."""
