# -*- test-case-name: tests.config.test_portals -*-
"""
The words C{tpgt=} and C{advertise=} in the description of an endpoint to listen on.

They are ours, and stand among the words of whatever kind of endpoint it is, which knows nothing of them.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Final

import attrs

from iscsi_twisted.config.lines import quoted
from iscsi_twisted.errors import ConfigurationError

_WORD = re.compile(r"((?:\\.|[^:\\])*)(:|\Z)", re.DOTALL)
"""One part of a description, with its escapes (see L{twisted.internet.endpoints.serverFromString})."""

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9])?")

_TAGS: Final = "1 to 65535"
_FORM: Final = "HOST:PORT or [IPV6]:PORT"


@attrs.frozen
class Described:
    """
    A description, taken apart.

    @ivar endpoint: what is left for the endpoint.
    @ivar kind: of endpoint.
    @ivar tag: target portal group tag.
    @ivar advertised: C{host:port}, IPv6 in brackets, or None.
    """

    endpoint: str
    kind: str
    tag: int = 1
    advertised: str | None = None


def parseTag(text: str) -> int:
    """
    Read a target portal group tag.

    @raise ConfigurationError: if it is none.
    """
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 0xFFFF:
        raise ConfigurationError(f"{_TAGS} is wanted, not {quoted(text)}")
    return int(text)


def takeApart(description: str) -> Described:
    """
    Take our words out of the description of an endpoint.

    @raise ConfigurationError: for one that says nothing, or stands twice.
    """
    left: list[str] = []
    found: dict[str, str] = {}
    words = wordsOf(description)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if not equals or name not in ("tpgt", "advertise"):
            left.append(word)
            continue
        if name in found:
            raise ConfigurationError(f"{name}= stands twice; remove one")
        found[name] = _address(value, words) if name == "advertise" else value
    try:
        tag = parseTag(found["tpgt"]) if "tpgt" in found else 1
    except ConfigurationError as error:
        raise ConfigurationError(f"tpgt=: {error}") from None
    advertised = _advertised(found["advertise"]) if "advertise" in found else None
    return Described(":".join(left), left[0] if left else "", tag, advertised)


def wordsOf(description: str) -> list[str]:
    """The parts between colons, escapes and all; a stray backslash ends the last one."""
    found: list[str] = []
    at = 0
    while True:
        match = _WORD.match(description, at)
        if match is None:
            return [*found, description[at:]]
        found.append(match[1])
        at = match.end()
        if not match[2]:
            return found


def _address(value: str, words: list[str]) -> str:
    """The address that begins with this value; its colons need no escapes: it may go on in what follows."""
    while value.startswith("[") and "]" not in value and words:
        value = f"{value}:{words.pop(0)}"
    plain = re.sub(r"\\(.)", r"\1", value)
    if ":" not in plain.rpartition("]")[2] and words and words[0].isdigit():
        plain = f"{plain}:{words.pop(0)}"
    return plain


def _advertised(text: str) -> str:
    """
    Check an address that initiators are told.

    @raise ConfigurationError: saying what would be right.
    """
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 0xFFFF:
        raise ConfigurationError(f"advertise=: {_FORM} is wanted, not {quoted(text)}")
    if host.startswith("[") and host.endswith("]"):
        try:
            return f"[{IPv6Address(host[1:-1])}]:{int(port)}"
        except ValueError:
            raise ConfigurationError(f"advertise=: {quoted(host)} is no IPv6 address") from None
    if not _HOST.fullmatch(host):
        raise ConfigurationError(f"advertise=: {_FORM} is wanted, not {quoted(text)}")
    return f"{host}:{int(port)}"
