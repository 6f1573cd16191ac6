# -*- test-case-name: tests.session.test_failures -*-
"""Authentications that failed, by where they came from: whoever guesses has to wait."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Final

from iscsi_twisted.interfaces import Pending

FREE: Final = 3
"""Failures that cost nothing: people mistype."""

STEP: Final = 0.25
"""Seconds that the next attempt waits after one failure more; each further one doubles them."""

LONGEST: Final = 4.0
"""Seconds: far below what initiators wait for a login, since others may come from the same address."""

FORGIVEN: Final = 60.0
"""Seconds without a failure after which all is forgotten."""

ADDRESSES: Final = 1024
"""Addresses that are remembered, some hundred bytes each; one more takes the place of the oldest."""


class Failures:
    """
    Counts failures, and holds back further attempts from the same place before they are judged.

    A place is an IPv4 address, or 64 bits of an IPv6 one: a single host has all addresses of such a network.
    Success forgets nothing, or whoever has one account could guess at others for nothing.
    """

    def __init__(self, now: Callable[[], float], wait: Callable[[float], Pending]) -> None:
        """
        @param now: seconds on a clock that never goes back.
        @param wait: a pending result that comes after so many seconds.
        """
        self._now, self._wait = now, wait
        self._counts: dict[str, tuple[int, float]] = {}

    def failed(self, address: str | None) -> None:
        """An authentication from this address failed."""
        place = _place(address)
        count = self._count(place) + 1
        self._counts.pop(place, None)
        self._counts[place] = count, self._now()
        if len(self._counts) > ADDRESSES:
            del self._counts[next(iter(self._counts))]

    def delay(self, address: str | None) -> float:
        """Seconds that an attempt from this address has to wait."""
        beyond = self._count(_place(address)) - FREE
        return min(STEP * 2.0 ** min(beyond, 10), LONGEST) if beyond >= 0 else 0.0

    def hold(self, address: str | None) -> Pending | None:
        """The wait for an attempt from this address; None if it may be judged at once."""
        seconds = self.delay(address)
        return self._wait(seconds) if seconds else None

    def _count(self, place: str) -> int:
        count, last = self._counts.get(place, (0, 0.0))
        return count if self._now() - last < FORGIVEN else 0


def _place(address: str | None) -> str:
    """What is counted together with an address; all peers that have none are."""
    if address is None or ":" not in address:
        return address or ""
    try:
        return IPv6Address(address.partition("%")[0]).packed[:8].hex()
    except ValueError:
        return ""
