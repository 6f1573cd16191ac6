# -*- test-case-name: tests.session.test_failures -*-
"""Authentications that failed, by where they came from: whoever guesses has to wait."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Final

FREE: Final = 3
"""Failures that cost nothing: people mistype."""

STEP: Final = 0.25
"""Seconds that the next attempt waits after one failure more; each further one doubles them."""

LONGEST: Final = 2.0
"""
Seconds.  Attempts wait one after another, so nobody tests more than 43,000 secrets of 96 bits a day; and
whoever shares an address with such a one still gets in before initiators lose patience.
"""

FORGIVEN: Final = 60.0
"""Seconds without a failure after which all is forgotten."""

COUNTED: Final = 900
"""Failures that are counted at most; a burst of them is remembered for as long as it should have taken."""

ADDRESSES: Final = 1024
"""Addresses that are remembered, some hundred bytes each; one more takes the place of the oldest."""


class Failures:
    """
    Counts failures, and says how long the next attempt from the same place has to wait for them.

    A place is an IPv4 address, or 64 bits of an IPv6 one: a single host has all addresses of such a network.
    Success forgets nothing, or whoever has one account could guess at others for nothing.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        """@param now: seconds on a clock that never goes back."""
        self._now = now
        self._counts: dict[str, tuple[int, float]] = {}

    def failed(self, address: str | None) -> None:
        """An authentication from this address failed."""
        place = placeOf(address)
        count = min(self._count(place) + 1, COUNTED)
        self._counts.pop(place, None)
        self._counts[place] = count, self._now()
        if len(self._counts) > ADDRESSES:
            del self._counts[next(iter(self._counts))]

    def delay(self, address: str | None) -> float:
        """Seconds that an attempt from an address, or a place, has to wait when its turn has come."""
        if not self._counts:
            return 0.0
        beyond = self._count(placeOf(address)) - FREE
        return min(STEP * 2.0 ** min(beyond, 10), LONGEST) if beyond >= 0 else 0.0

    def _count(self, place: str) -> int:
        count, last = self._counts.get(place, (0, 0.0))
        return count if self._now() - last < max(FORGIVEN, count * LONGEST) else 0


def placeOf(address: str | None) -> str:
    """The place that an address belongs to; all peers that have none share one.  A place's is that place."""
    if address is None or ":" not in address:
        return address or ""
    try:
        parsed = IPv6Address(address.partition("%")[0])
    except ValueError:
        return ""
    mapped = parsed.ipv4_mapped
    return parsed.packed[:8].hex() if mapped is None else str(mapped)
