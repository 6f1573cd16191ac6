"""Devices and stores that answer at once, later, or with an error, as they are told."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from iscsi_twisted.errors import WriteError
from iscsi_twisted.interfaces import Buffer, IReservationStore, Space
from tests.scsi.copies import PendingCopier
from tests.scsi.devices import Stubborn


class Device(PendingCopier):
    """
    Answers at once, or when it is told to.

    @ivar prompt: whether it answers at once.
    """

    prompt = True

    def answer(self, call: tuple[Any, ...], act: Any) -> Any:
        """Do what was asked, or keep the question."""
        if not self.prompt:
            return super().answer(call, act)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return act()

    def _put(self, offset: int, data: Buffer) -> None:
        if offset + len(data) > self.size:
            # It has become smaller since it was asked.
            raise WriteError("beyond the end", offset)
        super()._put(offset, data)

    def space(self) -> Any:
        """Some."""
        return self.answer(("space",), lambda: Space(1 << 20, self.size))

    def allocated(self, offset: int, length: int) -> Any:
        """Every other 4 KiB, from where it is asked."""
        runs = [(min(4096, length - place), not place & 4096) for place in range(0, length, 4096)]
        return self.answer(("allocated", offset, length), lambda: runs)

    def rekey(self) -> Any:
        """Forget all."""
        return self.answer(("rekey",), lambda: self._put(0, bytes(self.size)))

    def fire(self, index: int = 0) -> None:
        """Do and answer one of the pending operations."""
        deferred, act = self.pending.pop(index)
        try:
            result = act()
        except WriteError as error:
            deferred.errback(error)
        else:
            deferred.callback(result)


@implementer(IReservationStore)
class Store:
    """
    Keeps the last state, at once or when it is told to.

    @ivar asked: what waits, and the states that it waits for.
    """

    def __init__(self, state: bytes, prompt: bool) -> None:
        self.state, self.prompt = state, prompt
        self.asked: list[tuple[Stubborn, bytes]] = []

    def load(self) -> bytes:
        """The last one."""
        return self.state

    def save(self, state: bytes) -> Any:
        """Keep it."""
        if self.prompt:
            self.state = state
            return None
        waiting = Stubborn()
        self.asked.append((waiting, state))
        return waiting

    def fire(self) -> None:
        """The first that waits is kept."""
        waiting, self.state = self.asked.pop(0)
        waiting.callback(None)

    def fail(self) -> None:
        """The first that waits cannot be kept."""
        self.asked.pop(0)[0].errback(OSError(28, "full"))
