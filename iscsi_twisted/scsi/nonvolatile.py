# -*- test-case-name: tests.scsi.test_nonvolatile -*-
"""What a unit remembers through a loss of power, but for its reservations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

import attrs

from iscsi_twisted.interfaces import IStateStore, Pending, isPending

PageKey: TypeAlias = tuple[int, int]
"""Page code and subpage code of a mode page."""


@attrs.frozen
class Remembered:
    """
    What is remembered at one moment.

    @ivar pages: the bodies of saved mode pages (SPC-4 5.10); empty if none were saved.
    @ivar information: identifying information by its type (SPC-4 6.32).
    @ivar cycles: how often the unit was started after a stop, and loaded after an eject.
    """

    pages: Mapping[PageKey, bytes] = {}
    information: Mapping[int, bytes] = {}
    cycles: tuple[int, int] = (0, 0)

    def dump(self) -> bytes:
        """As text; nothing if there is nothing to remember."""
        if self == Remembered():
            return b""
        told = {
            "pages": {
                f"{page:02x}.{subpage:02x}": body.hex() for (page, subpage), body in self.pages.items()
            },
            "information": {str(kind): value.hex() for kind, value in self.information.items()},
            "cycles": self.cycles,
        }
        return json.dumps(told).encode()

    @classmethod
    def parse(cls, state: bytes) -> Remembered:
        """
        What L{dump} gave.

        @raise ValueError: if it is not that.
        """
        if not state:
            return cls()
        told = json.loads(state)
        try:
            pages = {_key(name): bytes.fromhex(body) for name, body in told["pages"].items()}
            information = {int(kind): bytes.fromhex(value) for kind, value in told["information"].items()}
            starts, loads = map(int, told["cycles"])
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"no state of a unit: {error}") from error
        return cls(pages, information, (starts, loads))


def _key(name: str) -> PageKey:
    code, _, subpage = name.partition(".")
    return int(code, 16), int(subpage, 16)


class Nonvolatile:
    """
    A unit's memory and the store behind it.

    @ivar now: what is known to be stored.
    """

    def __init__(self, store: IStateStore) -> None:
        """@raise ValueError: if what the store has is damaged."""
        self._store = store
        self.now = Remembered.parse(store.load())
        self._latest = self.now

    def change(self, **changes: Any) -> Pending | None:
        """
        Remember something else; it holds once it is stored.

        @param changes: attributes of L{Remembered}; given to what was asked last, stored or not yet.
        """
        wanted = self._latest = attrs.evolve(self._latest, **changes)
        saved = self._store.save(wanted.dump())
        if isPending(saved):
            saved.addCallbacks(self._stored, self._lost, (wanted,), errbackArgs=(wanted,))
            return saved
        self._stored(None, wanted)
        return None

    def inform(self, kind: int, value: bytes) -> Pending | None:
        """Remember identifying information of one type; nothing if it is empty."""
        information = {**self._latest.information, kind: value}
        if not value:
            del information[kind]
        return self.change(information=information)

    def _stored(self, result: Any, wanted: Remembered) -> Any:
        self.now = wanted
        return result

    def _lost(self, why: Any, wanted: Remembered) -> Any:
        if self._latest is wanted:
            self._latest = self.now
        return why
