# -*- test-case-name: tests.storage.test_record -*-
"""
What a mirror has to know after a crash: its members, where each of them is behind, and where writes may have
been under way.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from iscsi_twisted.interfaces import Pending
from iscsi_twisted.storage.regions import Regions, pack, unpack

if TYPE_CHECKING:
    from iscsi_twisted.storage.records import Records

VERSION: Final = 1
DIGEST: Final = 64


class MirrorStore(Protocol):
    """
    Keeps records of mirrors durably; one that has gone may stay.

    @ivar serving: what looks after each mirror that is open, by the name of its record; empty at first.
    """

    serving: dict[str, Any]

    def records(self) -> Records:
        """
        The records that there are.

        @raise OSError: if they cannot be read.
        """

    def save(self, name: str, encode: Callable[[], bytes]) -> Pending | None:
        """
        Keep a record, durably, in the place of the former of this name; only one at a time is under way.

        @param encode: makes its bytes; may be called in any thread.
        """


@attrs.frozen(eq=False)
class MemberRecord:
    """
    What is known of a member.

    @ivar fingerprint: which device it is.
    @ivar title: what it was called, for messages.
    @ivar present: it is there and gets all that is written.
    @ivar behind: where it lacks what the mirror holds.
    @ivar stamp: how new it was when it was looked at last.
    """

    fingerprint: str
    title: str
    present: bool
    behind: Regions
    stamp: tuple[int, ...] = ()


@attrs.frozen
class Rounds:
    """
    What is known of comparisons of all members.  Times are in seconds since 1970.

    @ivar since: from when on the time until the next one is counted.
    @ivar ended: when the last one came to its end; 0 if none did.
    @ivar place: the region with which one goes on that came to none; 0 if there is no such.
    """

    since: float = 0.0
    ended: float = 0.0
    place: int = 0


@attrs.frozen(eq=False)
class Record:
    """
    What is known of a mirror.

    @ivar generation: grows with every record, and over all mirrors of a store.
    @ivar size: bytes of the mirror.
    @ivar shift: binary logarithm of the bytes of a region.
    @ivar marked: regions that may differ after a crash.
    @ivar unverified: regions of which nobody knows whether the members agree.
    @ivar rounds: when the members were compared.
    @ivar void: regions that no member had, when the mirror was started as a member of another that has them;
        they are not to be believed before that has said that it has written them all.
    """

    name: str
    generation: int
    size: int
    shift: int
    marked: Regions
    unverified: Regions
    members: tuple[MemberRecord, ...]
    rounds: Rounds = Rounds()
    void: Regions = attrs.field(factory=lambda: Regions(0))

    def encode(self) -> bytes:
        """The record as bytes."""
        body: dict[str, Any] = {
            "version": VERSION,
            "name": self.name,
            "generation": self.generation,
            "size": self.size,
            "shift": self.shift,
            "marked": _text(self.marked),
            "unverified": _text(self.unverified),
            "members": [
                {
                    "fingerprint": each.fingerprint,
                    "title": each.title,
                    "present": each.present,
                    "behind": _text(each.behind),
                    "stamp": each.stamp,
                }
                for each in self.members
            ],
            "rounds": attrs.astuple(self.rounds),
        }
        if self.void:
            body["void"] = _text(self.void)
        data = json.dumps(body, separators=(",", ":")).encode()
        return hashlib.sha256(data).hexdigest().encode() + b"\n" + data + b"\n"

    def covered(self, newer: Record) -> bool:
        """Whether another record, which is in use, tells of all that this one does."""
        here = {each.fingerprint for each in self.members}
        known = {each.fingerprint for each in newer.members}
        return (
            newer.generation > self.generation
            and (newer.size, newer.shift) == (self.size, self.shift)
            and here <= known
        )

    @classmethod
    def decode(cls, data: bytes) -> Record:
        """@raise ValueError: if that is no record, or damaged."""
        digest, body = data[:DIGEST], data[DIGEST + 1 : -1]
        if hashlib.sha256(body).hexdigest().encode() != digest:
            raise ValueError("it is damaged, or no record of a mirror")
        found: dict[str, Any] = json.loads(body)
        if found.get("version") != VERSION:
            raise ValueError(f"it is of version {found.get('version')}, and {VERSION} is understood")
        count = regionCount(found["size"], found["shift"])
        members = tuple(
            MemberRecord(
                each["fingerprint"],
                each["title"],
                each["present"],
                unpack(b64decode(each["behind"]), count),
                tuple(each["stamp"]),
            )
            for each in found["members"]
        )
        return cls(
            found["name"],
            found["generation"],
            found["size"],
            found["shift"],
            unpack(b64decode(found["marked"]), count),
            unpack(b64decode(found["unverified"]), count),
            members,
            # Older records have none.
            Rounds(*found.get("rounds", ())),
            unpack(b64decode(found["void"]), count) if "void" in found else Regions(count),
        )


def regionCount(size: int, shift: int) -> int:
    """How many regions a device has."""
    return (size - 1 >> shift) + 1


def _text(regions: Regions) -> str:
    return b64encode(pack(regions.flags)).decode()
