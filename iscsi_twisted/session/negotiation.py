# -*- test-case-name: tests.session.test_negotiation -*-
"""Text negotiation, the responder's side (RFC 7143 6.2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from iscsi_twisted.errors import LoginError
from iscsi_twisted.session.keys import IRRELEVANT, KEYS, NOT_UNDERSTOOD, REJECT, Key, Value
from iscsi_twisted.wire import numbers

Pair = tuple[str, str]


_DEFAULTS: Final[Mapping[str, Value]] = {key.name: key.default for key in KEYS.values()}


class Negotiation:
    """
    What two sides have agreed upon during one login.

    @ivar results: the outcome by key; keys that nobody negotiated have their default.
    @ivar declared: what the peer declared, by key.
    @ivar discovery: for a discovery session.
    @ivar leading: on the first connection of a session.
    """

    def __init__(self, ours: Mapping[str, Value], choices: Mapping[str, tuple[str, ...]]) -> None:
        """
        @param ours: our value of each numerical and boolean key that we do not leave at its default.
        @param choices: for each list key what we accept.
        """
        self._ours = ours
        self._choices = choices
        self._seen: set[str] = set()
        self.results: dict[str, Value] = dict(_DEFAULTS)
        self.declared: dict[str, Value] = {}
        self.discovery = False
        self.leading = True

    def accept(self, name: str, choices: tuple[str, ...]) -> None:
        """From now on accept these values of a list key."""
        self._choices = {**self._choices, name: choices}

    def answer(self, pairs: Iterable[Pair]) -> list[Pair]:
        """
        Take all pairs that the peer sent at one time.

        @return: our answers; a number that is bounded by another one comes after it.
        @raise LoginError: as L{offer} does.
        """
        answers = (self.offer(name, text) for name, text in sorted(pairs, key=_bounded))
        return [answer for answer in answers if answer is not None]

    def offer(self, name: str, text: str) -> Pair | None:
        """
        Take one pair from the peer.

        @return: our answer, or None where none is due.
        @raise LoginError: for a key given twice, or a declared value out of its bounds.
        """
        if name in self._seen:
            raise LoginError(numbers.INITIATOR_ERROR, f"{name} was negotiated twice")
        self._seen.add(name)
        key = KEYS.get(name)
        if key is None:
            return name, NOT_UNDERSTOOD
        if key.kind == "obsolete":
            return name, str(key.default)
        if key.forTarget or not key.forLogin:
            return name, REJECT
        if key.kind == "declared":
            self._declare(key, text)
            return None
        if (self.discovery and not key.discovery) or (key.leading and not self.leading):
            return name, IRRELEVANT
        if key.kind == "list":
            return name, self._choose(key, text)
        return name, self._settle(key, text)

    def _declare(self, key: Key, text: str) -> None:
        value = key.parse(text)
        if value is None:
            raise LoginError(
                numbers.INITIATOR_ERROR, f"{key.name} is out of its bounds, {key.lowest} to {key.highest}"
            )
        self.declared[key.name] = value

    def _choose(self, key: Key, text: str) -> str:
        """The first of the peer's list that we accept too (RFC 7143 6.2.1)."""
        for choice in text.split(","):
            if choice in self._choices.get(key.name, (str(key.default),)):
                self.results[key.name] = choice
                return choice
        return REJECT

    def _settle(self, key: Key, text: str) -> str:
        """Number or boolean (RFC 7143 6.2.2)."""
        theirs = key.parse(text)
        if theirs is None:
            return REJECT
        ours = self._ours.get(key.name, key.default)
        result: Value = key.result(int(ours), int(theirs))
        if key.bound:
            result = min(result, int(self.results[key.bound]))
        if key.kind == "boolean":
            result = bool(result)
        self.results[key.name] = result
        return key.text(result)


def _bounded(pair: Pair) -> bool:
    key = KEYS.get(pair[0])
    return key is not None and bool(key.bound)
