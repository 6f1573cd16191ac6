# -*- test-case-name: tests.config.test_lines -*-
"""
Files of lines: reading them, cutting them into words, and gathering their faults.

Lines end in LF or CR LF, the text is UTF-8 (a byte order mark is skipped), and no control character
but the tab may stand in it: names and paths reach logs and terminals.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from iscsi_twisted.errors import ConfigurationError, ConfigurationErrors

MAX_FILE = 64 << 20
"""Bytes of a file that are read: a million lines fit, and /dev/zero or a disk image ends soon."""

MAX_QUOTED = 80
"""Characters of the administrator's own text that a message repeats, so that it stays one line."""

WORD = re.compile(r"[^ \t]+")
TOKEN = re.compile(r"[ \t]+|\\$|\\.|[^ \t\\]+")
UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class Line(NamedTuple):
    """
    One definition: a line with those that continue it.

    @ivar number: the number of its first line, from 1.
    @ivar words: at least one.
    @ivar broken: it holds characters that were already complained of.
    """

    number: int
    words: list[str]
    broken: bool = False


class Faults:
    """
    What is wrong with one file.

    @ivar path: its name as it was given.
    """

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.errors: list[ConfigurationError] = []

    def add(self, message: str, line: int | None = None) -> None:
        """Note one fault; C{line} is None where no one line is to blame."""
        self.errors.append(ConfigurationError(message, self.path, line))

    def settle(self) -> None:
        """
        End the reading.

        @raise ConfigurationErrors: if there was any fault; all of them in the order of the file.
        """
        if self.errors:
            raise ConfigurationErrors(sorted(self.errors, key=_position))


def _position(error: ConfigurationError) -> float:
    return float("inf") if error.line is None else error.line


def quoted(text: str) -> str:
    """Somebody else's text as a message may show it: on one line, of bounded length, all of it visible."""
    if len(text) > MAX_QUOTED:
        text = text[: MAX_QUOTED - 3] + "..."
    return f"'{visible(text)}'"


def visible(text: str) -> str:
    """A text with escapes in place of what would not show, or would upset a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def readText(path: str, look: Callable[[int], None] | None = None) -> str:
    """
    The text of a file.  Bytes that are not UTF-8 become lone surrogates, of which L{physical} complains.

    @param look: called with the descriptor of the file, once it is open.
    @raise ConfigurationErrors: if the file cannot be read; its message is one line.
    """
    try:
        with open(path, "rb") as file:
            if look is not None:
                look(file.fileno())
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise _unreadable(path, f"cannot be read: {error.strerror or error}{_advice(error)}") from None
    except ValueError as error:  # a name with NUL in it
        raise _unreadable(path, f"cannot be read: {error}") from None
    if len(data) > MAX_FILE:
        raise _unreadable(path, f"is larger than {MAX_FILE >> 20} MiB; this cannot be the file that is meant")
    return data.decode("utf-8", "surrogateescape")


def _advice(error: OSError) -> str:
    """What would be right in place of what an error tells."""
    if isinstance(error, PermissionError):
        return f"; let user number {os.geteuid()}, who reads it, do so, and enter its directories"
    if isinstance(error, IsADirectoryError):
        return "; wanted is a file"
    return ""


def _unreadable(path: str, message: str) -> ConfigurationErrors:
    return ConfigurationErrors([ConfigurationError(message, path)])


def physical(text: str, faults: Faults) -> tuple[list[str], set[int]]:
    """
    The lines of a text as they stand there, without their ends.

    @return: the lines, and the numbers (from 1) of those with unwanted characters.
    """
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").removesuffix("\r").split("\n")
    broken: set[int] = set()
    if UNWANTED.search(text.replace("\r", "")) or any("\r" in line for line in lines):
        for number, line in enumerate(lines, 1):
            found = UNWANTED.search(line)
            if found:
                broken.add(number)
                faults.add(_unwanted(found.group()), number)
    return lines, broken


def _unwanted(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"byte 0x{code & 0xFF:02X} is not UTF-8; the file has to be UTF-8 (or plain ASCII) throughout"
    if character == "\0":
        return "a NUL character; the file has to be text"
    if character == "\r":
        return "a carriage return inside a line; lines end in LF or CR LF"
    return f"unprintable character U+{code:04X}; remove it"


def statements(text: str, faults: Faults) -> Iterator[Line]:
    """
    Cut a text into definitions and these into words.

    Words are separated by blanks and tabs.  A backslash makes a following blank or tab part of the
    word, and a following C{#} the first character of one; at the end of a line it makes the next line
    a part of this one; before anything else it stands for itself, and so does what follows it.
    C{#} at the beginning of a word makes the rest of that line, continued or not, a comment.
    """
    lines, broken = physical(text, faults)
    index, count = 0, len(lines)
    while index < count:
        number = index + 1
        line = lines[index]
        if "\\" in line or "#" in line:
            words, index = _spliced(lines, index, faults)
        else:
            words, index = WORD.findall(line), number
        if words:
            spoilt = bool(broken) and not broken.isdisjoint(range(number, index + 1))
            yield Line(number, words, spoilt)


def _spliced(lines: list[str], index: int, faults: Faults) -> tuple[list[str], int]:
    """One definition with escapes, comments or continuations in it, and the index of the line after it."""
    words: list[str] = []
    word = ""
    first = index + 1
    while index < len(lines):
        word, more = _collect(lines[index], words, word)
        index += 1
        if not more:
            break
    else:
        faults.add("the file ends in a backslash, which promises one more line; remove it", first)
    if word:
        words.append(word)
    return words, index


def _collect(line: str, words: list[str], word: str) -> tuple[str, bool]:
    """
    Add the words of one physical line.

    @param word: the beginning of a word that the line before left unfinished, or C{""}.
    @return: the word that this line leaves unfinished, and whether the next line continues this one.
    """
    for token in TOKEN.findall(line):
        start = token[0]
        if start in " \t":
            if word:
                words.append(word)
                word = ""
        elif token == "\\":
            return word, True
        elif start == "\\" and (token[1] in " \t" or (token[1] == "#" and not word)):
            word += token[1]
        elif start == "#" and not word:
            break
        else:
            word += token
    return word, False


def onlyOnce(path: str) -> Iterator[ConfigurationError]:
    """A pipe or a terminal: to read it again would have all disks wait for whoever writes to it."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # whoever reads it will say so
    if not stat.S_ISREG(mode) and not os.path.samefile(path, os.devnull):
        yield ConfigurationError("is no regular file, and is read at the start only", path)
