# -*- test-case-name: tests.config.test_lines -*-
"""From files to words."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.config.lines import (
    MAX_FILE,
    MAX_QUOTED,
    Faults,
    Line,
    _advice,
    quoted,
    readText,
    statements,
)
from iscsi_twisted.errors import ConfigurationErrors


def words(text: str) -> list[tuple[int, list[str]]]:
    """Line numbers and words of a text without faults."""
    faults = Faults("F")
    found = [(line.number, line.words) for line in statements(text, faults)]
    faults.settle()
    return found


def faults(text: str) -> list[str]:
    """The messages about a text."""
    found = Faults("F")
    list(statements(text, found))
    return [str(error) for error in found.errors]


class WordTests(SynchronousTestCase):
    """Tests of L{statements}."""

    def test_separators(self) -> None:
        """Any run of blanks and tabs separates words, and those around a line do not matter."""
        self.assertEqual(words("a b\n \t c\t \td  \n"), [(1, ["a", "b"]), (2, ["c", "d"])])

    def test_otherSpaces(self) -> None:
        """Other white space of Unicode is part of a word, and does not end a line."""
        self.assertEqual(words("a\u00a0b\u2028c d"), [(1, ["a\u00a0b\u2028c", "d"])])

    def test_blank(self) -> None:
        """Blank lines and comments say nothing."""
        self.assertEqual(words("\n  \n# a\n \t#b\n#\nc\n"), [(6, ["c"])])

    def test_trailingComment(self) -> None:
        """C{#} after white space begins a comment; inside a word it is a character."""
        self.assertEqual(words("a b # c d\ne#f g\t#h\n"), [(1, ["a", "b"]), (2, ["e#f", "g"])])

    def test_escapes(self) -> None:
        """A backslash takes the meaning from a blank, a tab, and a C{#} that begins a word."""
        self.assertEqual(words("a\\ b \\\tc \\#d e\\#f"), [(1, ["a b", "\tc", "#d", "e\\#f"])])

    def test_backslash(self) -> None:
        """Before anything else a backslash stands for itself, and so does what follows it."""
        self.assertEqual(words("a\\b \\\\ c\\\\ d\\n"), [(1, ["a\\b", "\\\\", "c\\\\", "d\\n"])])

    def test_continuation(self) -> None:
        """A backslash at the end of a line continues it, within a word too, and lines are counted on."""
        text = "a b\\\nc \\\n  d\ne\n"
        self.assertEqual(words(text), [(1, ["a", "bc", "d"]), (4, ["e"])])

    def test_noContinuation(self) -> None:
        """Two backslashes at the end of a line do not continue it."""
        self.assertEqual(words("a\\\\\nb"), [(1, ["a\\\\"]), (2, ["b"])])

    def test_commentEnds(self) -> None:
        """A comment ends with its own line: a backslash in it swallows no definition."""
        self.assertEqual(
            words("# C:\\\na # b \\\nc\nd \\\n#e\nf"), [(2, ["a"]), (3, ["c"]), (4, ["d"]), (6, ["f"])]
        )

    def test_lineEnds(self) -> None:
        """CR LF ends a line as LF does, after a backslash also, and a mark of byte order is skipped."""
        self.assertEqual(
            words("\ufeffa b\r\nc\\\r\nd\r\n\r\ne\r"), [(1, ["a", "b"]), (2, ["cd"]), (5, ["e"])]
        )

    def test_manyContinuations(self) -> None:
        """A definition may go on for many lines."""
        text = "a" + " \\\n b" * 20000 + "\nc"
        (first, second) = words(text)
        self.assertEqual((len(first[1]), second), (20001, (20002, ["c"])))

    def test_openEnd(self) -> None:
        """A file that ends in a backslash lacks something."""
        self.assertEqual(
            faults("a\nb \\\nc \\"),
            ["F:2: the file ends in a backslash, which promises one more line; remove it"],
        )
        self.assertEqual(words("b \\\n"), [(1, ["b"])])

    def test_unwanted(self) -> None:
        """Control characters are faults, each line's first one, wherever they stand."""
        self.assertEqual(
            faults("a\0b\n# \x07\x08\nc\x0bd\ne\rf\ng\x85h\n"),
            [
                "F:1: a NUL character; the file has to be text",
                "F:2: unprintable character U+0007; remove it",
                "F:3: unprintable character U+000B; remove it",
                "F:4: a carriage return inside a line; lines end in LF or CR LF",
                "F:5: unprintable character U+0085; remove it",
            ],
        )

    def test_onlyReturns(self) -> None:
        """The line ends of ancient machines are not understood, and that is said."""
        self.assertEqual(faults("a\rb\r"), ["F:1: a carriage return inside a line; lines end in LF or CR LF"])

    def test_broken(self) -> None:
        """A definition with such a character on any of its lines is marked."""
        found = Faults("F")
        lines = list(statements("a \\\n b\0\nc\n", found))
        self.assertEqual(lines, [Line(1, ["a", "b\0"], True), Line(3, ["c"], False)])


class FileTests(SynchronousTestCase):
    """Tests of L{readText}."""

    def test_read(self) -> None:
        """A file of UTF-8 is read as it is."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write("größe\r\n".encode())
        self.assertEqual(readText(path), "größe\r\n")

    def test_undecodable(self) -> None:
        """Bytes that are not UTF-8 are a fault of their line."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"a\ngr\xf6\xdfe\n\xc3\xb6\n")
        self.assertEqual(
            faults(readText(path)),
            ["F:2: byte 0xF6 is not UTF-8; the file has to be UTF-8 (or plain ASCII) throughout"],
        )

    def test_unreadable(self) -> None:
        """What cannot be read is one line that begins with the name as it was given."""
        directory = self.mktemp()
        os.mkdir(directory)
        for path, reason in [
            (os.path.join(directory, "absent"), "No such file or directory"),
            (directory, "Is a directory; wanted is a file"),
            ("a\0b", "embedded null byte"),
        ]:
            with self.subTest(path=path):
                error = self.assertRaises(ConfigurationErrors, readText, path)
                self.assertEqual(str(error), f"{path}: cannot be read: {reason}")

    def test_forbidden(self) -> None:
        """Who may not read a file is told who would have to be let."""
        self.assertEqual(
            _advice(PermissionError(13, "Permission denied")),
            f"; let user number {os.geteuid()}, who reads it, do so, and enter its directories",
        )

    def test_looks(self) -> None:
        """Who wants to is shown the descriptor of the very file that is read."""
        seen: list[int] = []
        readText(__file__, lambda descriptor: seen.append(os.fstat(descriptor).st_ino))
        self.assertEqual(seen, [os.stat(__file__).st_ino])

    def test_endless(self) -> None:
        """A file without end is not read for ever."""
        error = self.assertRaises(ConfigurationErrors, readText, "/dev/zero")
        self.assertIn(f"/dev/zero: is larger than {MAX_FILE >> 20} MiB", str(error))


class QuotedTests(SynchronousTestCase):
    """Tests of L{quoted}."""

    def test_plain(self) -> None:
        """Printable text is shown as it is."""
        self.assertEqual(quoted("größe \\ '"), "'größe \\ ''")

    def test_invisible(self) -> None:
        """What would not show, or would upset a terminal, is escaped."""
        self.assertEqual(quoted("a\u00a0\x1b[2J\u202e\ud800\n"), "'a\\xa0\\x1b[2J\\u202e\\ud800\\n'")

    def test_long(self) -> None:
        """A long text is cut."""
        self.assertEqual(len(quoted("x" * 10000)), MAX_QUOTED + 2)
