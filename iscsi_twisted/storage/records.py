# -*- test-case-name: tests.storage.test_records -*-
"""What all records of a store say together: each is decoded once, however many mirrors ask."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from twisted.logger import Logger

from iscsi_twisted.storage.record import Record

_log = Logger(namespace="iscsi_twisted")


class Records:
    """
    Records, found by their members.

    @ivar generation: of the newest; 0 if there is none.
    """

    def __init__(self, found: Iterable[tuple[str, bytes]] = ()) -> None:
        """@param found: records and their names."""
        self.generation = 0
        self._records: dict[str, Record] = {}
        self._titles: defaultdict[str, set[str]] = defaultdict(set)
        self._prints: defaultdict[str, set[str]] = defaultdict(set)
        for name, data in found:
            self.put(name, data)

    def put(self, name: str, data: bytes) -> None:
        """A record is there, or has changed.  One that cannot be used is told of, and left out."""
        self.drop(name)
        try:
            record = Record.decode(data)
        except (ValueError, KeyError, TypeError) as error:
            _log.error(
                "record {name} of a mirror cannot be used: {error}", event="mirror", name=name,
                error=str(error),
            )  # fmt: skip
            return
        self._records[name] = record
        self.generation = max(self.generation, record.generation)
        for member in record.members:
            self._titles[member.title].add(name)
            self._prints[member.fingerprint].add(name)

    def drop(self, name: str) -> None:
        """A record is gone."""
        record = self._records.pop(name, None)
        for member in () if record is None else record.members:
            self._titles[member.title].discard(name)
            self._prints[member.fingerprint].discard(name)

    def knows(self, title: str) -> bool:
        """Whether a member is, or was, called so."""
        return bool(self._titles.get(title))

    def of(self, fingerprints: Iterable[str | None]) -> Iterator[Record]:
        """The records with any of these members."""
        names = {name for each in fingerprints if each is not None for name in self._prints.get(each, ())}
        return (self._records[name] for name in sorted(names))
