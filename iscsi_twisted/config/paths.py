# -*- test-case-name: tests.config.test_paths -*-
"""Options of a target line that say how well it is reached through each portal group (ALUA)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from iscsi_twisted.config.lines import quoted
from iscsi_twisted.config.portals import parseTag
from iscsi_twisted.errors import ConfigurationError

STATES: Final[Mapping[str, int]] = {
    "optimized": 0x0,
    "nonoptimized": 0x1,
    "standby": 0x2,
    "unavailable": 0x3,
    "offline": 0xE,
}
"""Asymmetric access states, SPC-4 table 296."""

CHANGERS: Final[Mapping[str, int]] = {"none": 0, "implicit": 1, "explicit": 2, "both": 3}
"""Who changes them: values of TPGS, SPC-4 table 144."""


def parseStates(text: str) -> tuple[tuple[int, int], ...]:
    """
    Read pairs of a portal group tag and an access state, as in C{1:optimized,2:standby}.

    @raise ConfigurationError: for what is no such list, or names a group twice.
    """
    found: dict[int, int] = {}
    for item in text.lower().split(","):
        tag, colon, name = item.partition(":")
        state = STATES.get(name.replace("-", ""))
        if not colon or state is None:
            raise ConfigurationError(
                f"TAG:STATE,TAG:STATE is wanted, where STATE is one of {', '.join(STATES)};"
                f" not {quoted(text)}"
            )
        number = parseTag(tag)
        if number in found:
            raise ConfigurationError(f"portal group {number} stands twice")
        found[number] = state
    return tuple(found.items())


def parseChangers(text: str) -> int:
    """
    Read who changes access states.

    @raise ConfigurationError: if it is none of L{CHANGERS}.
    """
    value = CHANGERS.get(text.lower())
    if value is None:
        raise ConfigurationError(f"one of {', '.join(CHANGERS)} is wanted, not {quoted(text)}")
    return value
