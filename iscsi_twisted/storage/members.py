# -*- test-case-name: tests.storage.test_members -*-
"""What all devices made of devices have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.python.failure import Failure

from iscsi_twisted.errors import LocalError
from iscsi_twisted.interfaces import IBlockDevice, Pending, Space
from iscsi_twisted.storage.device import BlockDevice, asDevice
from iscsi_twisted.storage.fingerprint import (
    Stamp,
    jointFingerprint,
    jointStamp,
    keepWitness,
    witnessOf,
)
from iscsi_twisted.storage.pending import attempt, gather, nothing, settle, whenDone


class Composition(BlockDevice):
    """
    A device made of others, which it opens and closes.

    @ivar members: the others, in order.
    """

    def __init__(self, members: Iterable[Any]) -> None:
        self.members: list[IBlockDevice] = [asDevice(member) for member in members]
        if not self.members:
            raise LocalError(f"a {type(self).__name__} needs members")

    def __str__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(str, self.members))})"

    def open(self, changed: Callable[[], None]) -> Pending | None:
        """
        Open all members; if one cannot be opened, close the others again.

        @raise DeviceError: the first member's that has one, or if they do not fit together.
        """
        results = [attempt(member.open, changed) for member in self.members]
        return whenDone(settle(results), self._membersOpened)

    def _membersOpened(self, outcomes: list[Any]) -> Pending | None:
        failure = next((one for one in outcomes if isinstance(one, Failure)), None)
        if failure is None:
            failure = attempt(self.opened)
        if failure is None:
            return None
        good = [
            member for member, one in zip(self.members, outcomes, strict=True) if not isinstance(one, Failure)
        ]
        return whenDone(
            settle([attempt(member.close) for member in good]), lambda _: failure.raiseException()
        )

    def opened(self) -> None:
        """
        All members are open: see whether they fit together, and how large that is.

        @raise DeviceError: if they do not.
        """
        raise NotImplementedError

    def fingerprint(self) -> str | None:
        """It is the device that is made of just these, in this order."""
        return jointFingerprint(self.kind(), self.members)

    def stamp(self) -> Stamp | Pending:
        """As its members are."""
        return jointStamp(self.members)

    def witness(self, key: str) -> int | Pending:
        """The newest that any member keeps."""
        return whenDone(gather([attempt(witnessOf, member, key) for member in self.members]), max)

    def keepWitness(self, key: str, number: int) -> Pending | None:
        """All keep it."""
        keeping = [attempt(keepWitness, member, key, number) for member in self.members]
        return whenDone(settle(keeping), nothing)

    def space(self) -> Space | Pending | None:
        """What all members have, and what the one with the least can still have."""
        return jointSpace(self.members)

    def kind(self) -> str:
        """What is made of the members."""
        return type(self).__name__.removeprefix("Placed")

    def close(self) -> Pending | None:
        """Close all members; the first failure is told when all are closed."""
        return whenDone(gather([attempt(member.close) for member in self.members]), nothing)


def jointSpace(members: Iterable[IBlockDevice], copies: bool = False) -> Space | Pending | None:
    """
    How much storage there is for members together; None if one of them does not know.

    Members may lie on one volume, so what is available is not added up.

    @param copies: whether all hold the same.
    """

    def join(found: list[Space | None]) -> Space | None:
        known = [each for each in found if each is not None]
        if len(known) < len(found):
            return None
        used = [each.used for each in known]
        return Space(max(used) if copies else sum(used), min(each.available for each in known))

    return whenDone(gather([attempt(member.space) for member in members]), join)
