# -*- test-case-name: tests.initiator.test_isids -*-
"""
ISIDs: with its name they tell the ports of an initiator from one another.

A target ends a session when another is begun from the same port, with all that is still on its way in it
(RFC 7143 6.3.5).  So what uses the same unit again and again, over restarts too, does it from the same port:
what an earlier process has sent, and what comes late, is not done after what is newer; and no old session
stays behind for as long as the target keeps it (RFC 7143 10.1.1 asks for the same).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Final

RANDOM: Final = 0x80
"""The first byte of an ISID whose next three were drawn at random (RFC 7143 11.12.5)."""


class ISIDs:
    """Those of one initiator."""

    def __init__(self, first: bytes | None, seed: Callable[[], bytes] | None) -> None:
        """
        @param first: the six bytes before the first one that C{next} gives; random ones if None, so that two
            initiators of one name do not take each other's sessions.
        @param seed: what no other initiator of this name has, and this one has over restarts; drawn at
            random if None.
        """
        self._first = first if first is not None else bytes([RANDOM]) + os.urandom(3) + b"\0\0"
        self._qualifier = int.from_bytes(self._first[4:], "big")
        drawn = os.urandom(16)
        self._seed = seed or (lambda: drawn)
        self._claimed: set[bytes] = set()

    def next(self) -> bytes:
        """One that no session had."""
        self._qualifier = self._qualifier + 1 & 0xFFFF
        return self._first[:4] + self._qualifier.to_bytes(2, "big")

    def claim(self, use: str) -> bytes:
        """
        The one that belongs to a use, until it is released; another if somebody has that.

        @param use: what tells it from others, and is the same after a restart.
        @raise ConfigurationError: if the seed cannot be had.
        """
        seed, turn = self._seed(), 0
        while True:
            digest = hashlib.sha256(b"iscsi_twisted port\0%d\0%s%s" % (turn, seed, use.encode())).digest()
            isid = bytes([RANDOM]) + digest[:5]
            if isid not in self._claimed:
                self._claimed.add(isid)
                return isid
            turn += 1

    def release(self, isid: bytes) -> None:
        """Its session has ended."""
        self._claimed.discard(isid)
