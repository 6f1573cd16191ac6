# -*- test-case-name: tests.target.test_access -*-
"""What the line of a target says of those who want to use it, as an access policy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, cast

from zope.interface import implementer

from iscsi_twisted.config.model import Discovery, Target
from iscsi_twisted.config.netmasks import AnyNetmask
from iscsi_twisted.interfaces import Asker, Grant, IAccessPolicy, ILoginPolicy


@implementer(ILoginPolicy)
class LinePolicy:
    """The netmask, C{initiators=}, C{readers=} and C{luns=} of one line."""

    def __init__(self, target: Target | Discovery) -> None:
        options = target.options
        self._mask = target.netmask
        self._initiators = None if options.initiators is None else _anyOf(options.initiators)
        self._readers = _anyOf(options.readers or ())
        self._luns = None
        if options.luns is not None:
            self._luns = [(_anyOf((name,)), luns) for name, luns in options.luns]

    def admits(self, address: str | None) -> bool:
        """See L{IAccessPolicy}."""
        return self._mask.admits(address)

    @staticmethod
    def together(policies: Sequence[LinePolicy]) -> IAccessPolicy:
        """See L{iscsi_twisted.interfaces.IJoinedPolicy}."""
        joined: Any = AnyNetmask([policy._mask for policy in policies])
        return cast(IAccessPolicy, joined)

    def decide(self, asker: Asker) -> Grant | None:
        """See L{ILoginPolicy}."""
        name = asker.initiatorName
        if self._initiators is not None and not self._initiators.fullmatch(name):
            return None
        readOnly = self._readers.fullmatch(name) is not None
        if self._luns is None:
            return Grant(readOnly)
        seen: frozenset[int] = frozenset().union(*(luns for each, luns in self._luns if each.fullmatch(name)))
        return Grant(readOnly, seen)


def linePolicy(target: Target | Discovery) -> IAccessPolicy:
    """Who may come to a target of the targets file, or ask for targets."""
    options = target.options
    plain = options.initiators is None and options.readers is None and options.luns is None
    policy: Any = target.netmask if plain else LinePolicy(target)
    return cast(IAccessPolicy, policy)


def _anyOf(patterns: Iterable[str]) -> re.Pattern[str]:
    """Names that are like any of these; none is like no pattern."""
    return re.compile("|".join(map(_like, patterns)) or r"(?!)")


def _like(pattern: str) -> str:
    """
    A pattern as a regular expression that never looks at a name twice: names come from anybody.

    What stands between two stars may as well be found where it comes first.
    """
    first, *parts = map(re.escape, pattern.split("*"))
    if not parts:
        return first
    *middle, last = parts
    return first + "".join(f"(?>.*?{each})" for each in middle) + ".*" + last
