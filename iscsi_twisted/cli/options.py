# -*- test-case-name: tests.cli.test_tool,tests.test_manual -*-
"""The command line of C{iscsi-twisted}."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any, Final, NoReturn

from iscsi_twisted import __version__
from iscsi_twisted.cli.values import number, seconds, size

URLS: Final = "iscsi://[USER@]HOST[:PORT]"


class Parser(argparse.ArgumentParser):
    """One that does not repeat secrets when it complains."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end with status 2."""
        # Whoever only asks how it is used does not wait for all of this.
        from iscsi_twisted.initiator.url import hidden

        super().error(hidden(message))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = Parser(prog="iscsi-twisted", description="Use iSCSI targets and their disks.")
    made.add_argument("-V", "--version", action="version", version=f"iscsi-twisted {__version__}")
    addGeneral(made)
    made.set_defaults(json=False, initiator_name="", secret_file=None, auths=None, digest="no")
    _addCommands(made.add_subparsers(dest="command", required=True, metavar="COMMAND"))
    return made


def addGeneral(made: argparse.ArgumentParser) -> None:
    """Options of all commands, which may stand before the command or behind it."""
    # One that is not given behind the command leaves alone what was given before it.
    add = partial(made.add_argument, default=argparse.SUPPRESS)
    add("--json", action="store_true", help="print JSON, failures too")
    add("--initiator-name", metavar="NAME", help="this initiator's iSCSI name")
    add("--secret-file", metavar="FILE", help="a file that holds the user's secret alone")
    add("--auths", metavar="FILE", help="an auths file that has the user's secret")
    add("--digest", choices=("no", "prefer", "yes"), help="CRC32C digests (no)")


def _addCommands(commands: Any) -> None:
    """All commands, each with its options."""
    unit = f"{URLS}/TARGET/LUN"
    for name, words, where in (
        ("ls", "targets of a portal, their addresses and units", URLS),
        ("inq", "what a unit says of itself", unit),
        ("capacity", "how large a unit is", unit),
        ("ping", "how long a target takes to answer", unit),
        ("reset", "abort all commands of a unit, everybody's", unit),
    ):
        one = _addCommand(commands, name, words)
        one.add_argument("url", metavar="URL", help=where)
        if name == "ping":
            add = one.add_argument
            add("-c", dest="count", metavar="COUNT", type=number(1), default=5, help="how often (5)")
    for name, words in (
        ("read", "write a unit's bytes to standard output"),
        ("write", "write standard input to a unit"),
    ):
        one = _addCommand(commands, name, words)
        one.add_argument("url", metavar="URL", help=unit)
        one.add_argument("--offset", metavar="BYTES", type=size, default=0, help="where to begin (0)")
        if name == "read":
            one.add_argument("--length", metavar="BYTES", type=size, help="how much (all that follows)")
    _addCopy(commands, unit)
    _addBench(commands, unit)


def _addCommand(commands: Any, name: str, words: str) -> argparse.ArgumentParser:
    """One command."""
    one: argparse.ArgumentParser = commands.add_parser(name, help=words, description=words)
    addGeneral(one)
    return one


def _addCopy(commands: Any, unit: str) -> None:
    one = _addCommand(commands, "copy", "copy a unit to a file, a file to a unit, or a unit to a unit")
    one.add_argument("source", metavar="FROM", help=f"{unit}, or a file")
    one.add_argument("sink", metavar="TO", help=f"{unit}, or a file")
    one.add_argument("--verify", action="store_true", help="read back and compare")
    one.add_argument("--quiet", action="store_true", help="no progress")
    one.add_argument("--resume", action="store_true", help="go on where a copy that did not end has come to")
    words = "where it is kept how far the copy has come (TO.copying, if TO is a file)"
    one.add_argument("--state", metavar="FILE", help=words)
    words = "how often that is written (5)"
    one.add_argument("--checkpoint", metavar="SECONDS", type=seconds(0), default=5.0, help=words)
    words = "at the end, do not wait until all is durable"
    one.add_argument("--no-flush", dest="flush", action="store_false", help=words)


def _addBench(commands: Any, unit: str) -> None:
    one = _addCommand(commands, "bench", "how many reads and writes units take, and how long each takes")
    add = one.add_argument
    add("urls", metavar="URL", nargs="+", help=f"{unit}; several at once")
    add("--order", choices=("random", "sequential"), default="random", help="of the places (random)")
    add("--writes", metavar="PERCENT", type=number(0, 100), default=0, help="how many of them are writes (0)")
    add("--size", metavar="BYTES", type=size, default=4096, help="of one read or write (4K)")
    add(
        "--depth",
        metavar="NUMBER",
        type=number(1),
        default=32,
        help="how many are outstanding, of each unit (32)",
    )
    until = one.add_mutually_exclusive_group()
    until.add_argument("--seconds", metavar="SECONDS", type=seconds(0.001), help="for how long (10)")
    words = "how many reads and writes of each unit"
    until.add_argument("--count", metavar="NUMBER", type=number(1), help=words)
    add("--destroy", action="store_true", help="what is on the units may be overwritten")
