# -*- test-case-name: tests.storage.test_mirror -*-
"""Devices that hold the same (the FAQ's RAID1)."""

from __future__ import annotations

from collections.abc import Iterable
from math import lcm
from typing import Any

from twisted.python.failure import Failure

from iscsi_twisted.errors import DeviceError
from iscsi_twisted.interfaces import Buffer, Capabilities, Pending
from iscsi_twisted.storage.device import checkRange
from iscsi_twisted.storage.members import Composition
from iscsi_twisted.storage.pending import attempt, gather, ifLater, nothing, whenDone


class Mirror(Composition):
    """
    Every member holds everything: all are written, the first that can is read.

    A write is done when it is done everywhere, and fails if it fails anywhere; it is not taken back where it
    went well.
    """

    def __init__(self, members: Iterable[Any]) -> None:
        super().__init__(members)
        self._discards = False
        self._writes = [member.write for member in self.members]

    def opened(self) -> None:
        """@raise DeviceError: if the members' sizes differ."""
        first = self.members[0]
        for member in self.members[1:]:
            if member.size != first.size:
                raise DeviceError(
                    f"the members of a mirror must be of equal size: {first} has {first.size} bytes, "
                    f"{member} has {member.size}"
                )
        self.size = first.size
        self.blockSize = lcm(*(member.blockSize for member in self.members))
        self.capabilities()

    def capabilities(self) -> Capabilities:
        """What all members can; discards only where all leave zeros, or the members would differ."""
        each = [member.capabilities() for member in self.members]
        self._discards = all(one.discard and one.discardZeroes for one in each)
        return Capabilities(
            readOnly=any(one.readOnly for one in each),
            volatileCache=any(one.volatileCache for one in each),
            discard=self._discards,
            zero=all(one.zero for one in each),
            allocated=all(one.allocated for one in each),
            discardZeroes=self._discards,
            rotational=any(one.rotational for one in each),
            retains=any(one.retains for one in each),
        )

    def read(self, offset: int, length: int) -> Buffer | Pending:
        result: Buffer | Pending = self._ask("read", offset, length)
        return result

    def allocated(self, offset: int, length: int) -> list[tuple[int, bool]] | Pending:
        """As the member sees it that is read."""
        runs: list[tuple[int, bool]] | Pending = self._ask("allocated", offset, length)
        return runs

    def write(self, offset: int, data: Buffer) -> Pending | None:
        return whenDone(gather([attempt(write, offset, data) for write in self._writes]), nothing)

    def flush(self) -> Pending | None:
        return whenDone(self._all("flush"), nothing)

    def discard(self, offset: int, length: int) -> Pending | None:
        checkRange(self.size, offset, length)
        if not self._discards:
            return None
        return whenDone(self._all("discard", offset, length), nothing)

    def zero(self, offset: int, length: int, unmap: bool) -> Pending | None:
        return whenDone(self._all("zero", offset, length, unmap), nothing)

    def _all(self, operation: str, *arguments: Any) -> list[Any] | Pending:
        return gather([attempt(getattr(member, operation), *arguments) for member in self.members])

    def _ask(
        self, operation: str, offset: int, length: int, index: int = 0, first: Failure | None = None
    ) -> Any:
        """
        Ask one member, and the next if it fails.

        @param first: the first member's failure, which is told if all fail.
        """
        try:
            result = getattr(self.members[index], operation)(offset, length)
        except (DeviceError, OSError):
            return self._askNext(operation, offset, length, index, first, Failure())
        return ifLater(result, self._askNext, operation, offset, length, index, first)

    def _askNext(
        self, operation: str, offset: int, length: int, index: int, first: Failure | None, failure: Failure
    ) -> Any:
        failure.trap(DeviceError, OSError)
        first = first or failure
        if index + 1 < len(self.members):
            return self._ask(operation, offset, length, index + 1, first)
        return first.raiseException()
