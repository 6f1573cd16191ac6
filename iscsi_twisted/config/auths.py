# -*- test-case-name: tests.config.test_auths -*-
"""
The auths file: who may log in, and with what secret.

One line for each user: C{USER[:METHOD[:SECRET]]}.  No message of this module repeats a secret, or what
might have been meant as one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import attrs

from iscsi_twisted.config.lines import Faults, physical, quoted, readText
from iscsi_twisted.config.model import NOWHERE, Where
from iscsi_twisted.config.steps import Steps, whole
from iscsi_twisted.errors import ConfigurationError

METHODS: Final = ("chap", "tls", "none")
COLUMNS: Final = ("user", "method", "secret", "target's user", "target's secret")
"""The columns in their order; a new one goes to the end."""

FORM: Final = "USER:CHAP:SECRET[:TARGET-USER:TARGET-SECRET]"
TLS_FORM: Final = "USER:TLS[:NAME]"
MAX_USER: Final = 255
"""Bytes of a text value, RFC 7143 6.1."""

TOKEN = re.compile(r":|\\.|[^:\\]+|\\")
REMARK = re.compile(r"[ \t]#")


@attrs.frozen
class Credential:
    """
    One line of the file.  It never shows its secret.

    @ivar user: as the initiator has to write it, upper and lower case told apart.
    @ivar method: C{"chap"}, C{"tls"} or C{"none"}.
    @ivar secret: None for all methods but C{chap}.
    @ivar targetUser: the name that the target gives to this user, for mutual authentication.
    @ivar targetSecret: with which the target proves that; None if it cannot.
    @ivar certificate: the name in the user's certificate, for the method C{tls}.
    """

    user: str
    method: str
    secret: bytes | None = attrs.field(repr=False)
    where: Where = attrs.field(default=NOWHERE, eq=False, repr=False)
    targetUser: str = ""
    targetSecret: bytes | None = attrs.field(default=None, repr=False)
    certificate: str = ""


class Auths:
    """
    All users of one file.

    @ivar users: in the order of the file.
    """

    def __init__(self, users: tuple[Credential, ...] = ()) -> None:
        self.users = users
        self._find = {(each.user, each.method): each for each in users}

    def find(self, user: str, method: str = "chap") -> Credential | None:
        """The line of a user for a method (in lower case), or None."""
        return self._find.get((user, method))

    def __repr__(self) -> str:
        return f"<Auths of {len(self.users)} users>"


def loadAuths(path: str, look: Callable[[int], None] | None = None) -> Auths:
    """
    Read an auths file, all at once; otherwise as L{readAuths}.
    """
    return whole(readAuths(path, look))


def readAuths(path: str, look: Callable[[int], None] | None = None) -> Steps[Auths]:
    """
    Read an auths file, step by step.

    @param look: called with the descriptor of the file, once it is open.
    @raise ConfigurationErrors: all that is wrong, one line each that begins with the file's name as given.
    """
    return (yield from _read(readText(path, look), path))


def parseAuths(text: str, path: str | None) -> Auths:
    """
    Read the text of an auths file, all at once; otherwise as L{readAuths}.

    @param path: what messages call it.
    """
    return whole(_read(text, path))


def _read(text: str, path: str | None) -> Steps[Auths]:
    faults = Faults(path)
    users: dict[tuple[str, str], Credential] = {}
    certificates: dict[str, Credential] = {}
    for number, line in _entries(text, faults):
        yield
        try:
            credential = _credential(line, Where(path, number))
        except ConfigurationError as error:
            faults.add(str(error), number)
            continue
        first = users.setdefault((credential.user, credential.method), credential)
        if first is not credential:
            # What has one field may be meant to have more, and end in a secret.
            who = f"user {quoted(credential.user)}" if credential.secret or credential.certificate else "it"
            faults.add(
                f"{who} already has a line for {credential.method}, line {first.where.line}; remove one",
                number,
            )
        other = certificates.setdefault(credential.certificate, credential)
        if credential.certificate and other is not credential is first:
            faults.add(
                f"the certificate of {quoted(credential.certificate)} already is that of"
                f" {quoted(other.user)}, line {other.where.line}; remove one",
                number,
            )
    _checkDirections(users.values(), faults)
    faults.settle()
    return Auths(tuple(users.values()))


def _checkDirections(users: Iterable[Credential], faults: Faults) -> None:
    """
    No secret may serve both directions (RFC 7143 12.1.3): not even for two users.

    With the target's response to one, that one could be the other.
    """
    own = {each.secret: each for each in users if each.secret}
    for each in users:
        other = own.get(each.targetSecret) if each.targetSecret else None
        if other is not None:
            faults.add(
                f"the target's secret for {quoted(each.user)} is also the secret of {quoted(other.user)},"
                f" line {other.where.line}; the target's has to be another (RFC 7143 12.1.3)",
                each.where.line,
            )


def _entries(text: str, faults: Faults) -> Iterator[tuple[int, str]]:
    """The lines that are neither blank nor comments, with those that continue them; and their numbers."""
    lines, broken = physical(text, faults)
    index = 0
    while index < len(lines):
        first = index + 1
        line = lines[index].lstrip(" \t")
        index += 1
        if not line or line.startswith("#"):
            continue
        pieces = [line]
        while _continues(pieces[-1]):
            pieces[-1] = pieces[-1][:-1]
            if index == len(lines):
                faults.add("the file ends in a backslash, which promises one more line; remove it", first)
                break
            pieces.append(lines[index])
            index += 1
        if broken.isdisjoint(range(first, index + 1)):
            yield first, "".join(pieces)


def _continues(line: str) -> bool:
    """Whether a line ends in a backslash that no other backslash goes with."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _credential(line: str, where: Where) -> Credential:
    """
    What one line says.

    @raise ConfigurationError: if it says nothing that can be understood.
    """
    fields = _fields(line)
    if len(fields) > len(COLUMNS):
        raise ConfigurationError(
            f"{len(fields)} fields where {len(COLUMNS)} is the most ({FORM});"
            " a ':' inside a field is written '\\:'"
        )
    for column, field in zip(COLUMNS, fields, strict=False):
        if field != field.strip(" \t"):
            raise ConfigurationError(f"white space before or after the {column}; there is none around ':'")
    user, method, secret, targetUser, targetSecret = (*fields, "", "", "", "")[:5]
    if not 1 <= len(user.encode()) <= MAX_USER:
        raise ConfigurationError(f"a user name has 1 to {MAX_USER} bytes; a line is: {FORM}")
    if len(fields) == 1:
        method = "none"
    if method.lower() == "tls":
        return _certified(user, secret, fields, where)
    if len(fields) > 3:
        _checkMutual(method, secret, targetUser, targetSecret)
    return Credential(user, *_proof(method.lower(), secret), where, targetUser, targetSecret.encode() or None)


def _certified(user: str, name: str, fields: list[str], where: Where) -> Credential:
    """A line of the method C{tls}, which needs no secret."""
    if len(fields) > 3:
        raise ConfigurationError(f"{len(fields)} fields where 3 is the most for method tls: {TLS_FORM}")
    if len(fields) == 3 and not name:
        raise ConfigurationError(f"no name for method tls; without one it is the user's: {TLS_FORM}")
    return Credential(user, "tls", None, where, certificate=name or user)


def _checkMutual(method: str, secret: str, targetUser: str, targetSecret: str) -> None:
    """@raise ConfigurationError: if the target could not prove with these who it is."""
    if method.lower() == "none":
        raise ConfigurationError("a target's name that method none never tells; write chap, or remove it")
    if not 1 <= len(targetUser.encode()) <= MAX_USER or not targetSecret:
        raise ConfigurationError(
            f"for mutual authentication both the target's name, of 1 to {MAX_USER} bytes, and its secret"
            f" are wanted; a line is: {FORM}"
        )
    if secret == targetSecret:
        raise ConfigurationError(
            "one secret for both directions; the target's has to be another (RFC 7143 12.1.3)"
        )


def _proof(method: str, secret: str) -> tuple[str, bytes | None]:
    """Method and secret, if they go together."""
    if method not in METHODS:
        raise ConfigurationError(f"the second field is no method; write chap, tls or none: {FORM}")
    if method == "none":
        if secret:
            raise ConfigurationError(
                "a secret that method none never asks for; write chap, or remove the secret"
            )
        return method, None
    if not secret:
        raise ConfigurationError(f"no secret for method chap; write {FORM}")
    return method, secret.encode()


def _fields(line: str) -> list[str]:
    """
    Cut a line at its colons.

    A backslash makes a following colon part of the field, and so a C{#} that follows white space;
    before anything else it stands for itself.
    """
    if REMARK.search(line):
        raise ConfigurationError(
            "'#' after white space; a comment has a line of its own here, and in a secret it is written '\\#'"
        )
    fields = [""]
    for token in TOKEN.findall(line):
        if token == ":":
            fields.append("")
        elif token == "\\:" or (token == "\\#" and fields[-1].endswith((" ", "\t"))):
            fields[-1] += token[1]
        else:
            fields[-1] += token
    return fields
