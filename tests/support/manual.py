"""What the pages of the manual have to tell."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from itertools import pairwise

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


Forms = dict[str, str]
"""Options, each with what stands behind it."""


def forms(parser: argparse.ArgumentParser) -> Forms:
    """The options that the help of a command shows, but C{--help}."""
    found = {}
    for action in parser._actions:
        value = action.metavar or "|".join(action.choices or ()) if action.nargs != 0 else ""
        found.update({name: str(value) for name in action.option_strings if action.dest != "help"})
    return found


def commands(parser: argparse.ArgumentParser) -> dict[str, tuple[list[str], Forms]]:
    """For each command what has to be named, and its options but those of all commands."""
    (action,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    general = forms(parser)
    found = {}
    for name, one in action.choices.items():
        words = [
            f"{each.metavar}{'...' if each.nargs == '+' else ''}"
            for each in one._actions
            if not each.option_strings
        ]
        found[name] = words, {form: value for form, value in forms(one).items() if form not in general}
    return found


def served() -> Forms:
    """The options of C{twistd iscsi} but C{--help}, each with whether something stands behind it."""
    made = Options()
    found = {f"--{name.rstrip('=')}": "VALUE" * name.endswith("=") for name in made.longOpt}
    for letter, mark in zip(made.shortOpt, made.shortOpt[1:] + " ", strict=True):
        if letter != ":":
            found[f"-{letter}"] = "VALUE" * (mark == ":")
    del found["--help"]
    return found


def terms(text: str) -> Iterator[tuple[int, list[str]]]:
    """The terms of the definition lists of a page: how far they are indented, and their literals."""
    lines = text.splitlines()
    for line, following in pairwise(lines):
        inside = len(line) - len(line.lstrip())
        if (
            line.lstrip().startswith("``")
            and following[: inside + 3].isspace()
            and following[inside + 3 :].strip()
        ):
            yield inside, re.findall("``(.*?)``", line)


def told(literals: list[str]) -> Forms:
    """Options of a term."""
    return {one.partition(" ")[0]: one.partition(" ")[2] for one in literals if one.startswith("-")}
