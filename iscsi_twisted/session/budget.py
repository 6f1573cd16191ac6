# -*- test-case-name: tests.session.test_node -*-
"""Bytes that may be solicited at a time, by one unit, one session or all of them."""

from __future__ import annotations

from collections.abc import Callable


class Budget:
    """
    Bytes that may be solicited at one time; whoever finds none left waits for its turn.

    @ivar limit: bytes.
    @ivar used: bytes.
    """

    __slots__ = ("_parent", "_waiting", "limit", "used")

    def __init__(self, limit: int, parent: Budget | None = None) -> None:
        """
        @param parent: a wider budget that these bytes are part of.
        """
        self.limit = limit
        self.used = 0
        self._parent = parent
        self._waiting: dict[Callable[[], None], int] = {}

    def take(self, count: int, later: Callable[[], None]) -> bool:
        """
        Reserve bytes.

        @param later: called once these bytes have been reserved after all.
        @return: whether they are reserved now.
        """
        if self._waiting or not self._fits(count):
            self._waiting[later] = count
            return False
        self.used += count
        return self._parent is None or self._parent.take(count, later)

    def give(self, count: int) -> None:
        """Return bytes, and let those that wait go on."""
        self.used -= count
        if self._parent is not None:
            self._parent.give(count)
        self._admit()

    def forget(self, later: Callable[[], None]) -> None:
        """What was to be reserved for this is not wanted any more."""
        self._forget(later)

    def _forget(self, later: Callable[[], None]) -> int:
        """@return: the bytes that this was to be given."""
        count = self._waiting.pop(later, 0)
        if not count and self._parent is not None:
            count = self._parent._forget(later)
            self.used -= count
        self._admit()
        return count

    def _fits(self, count: int) -> bool:
        # One request beyond the limit goes alone rather than never.
        return self.used + count <= self.limit or not self.used

    def _admit(self) -> None:
        while self._waiting:
            later, count = next(iter(self._waiting.items()))
            if not self._fits(count):
                return
            del self._waiting[later]
            self.used += count
            if self._parent is None or self._parent.take(count, later):
                later()
