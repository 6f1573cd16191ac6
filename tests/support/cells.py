"""
What a device may hold while operations overlap, fail and are cancelled, and the power is lost: the truth that
models of devices are compared with.

A device has cells; every write fills the cells that it is about with a number of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from iscsi_twisted.errors import DeviceError

NUMBER = 8
"""Bytes of a number; a cell holds it over and over."""


class Request:
    """
    Something that was asked of a device.

    @ivar kind: C{read}, C{write} or C{flush}.
    @ivar number: what a write fills its cells with.
    @ivar cells: those that it is about.
    @ivar allowed: for a read, what each cell may hold.
    @ivar floor: for a flush, the newest write of each cell that was acknowledged before it.
    @ivar excused: it may fail.
    @ivar misses: how many reads of disks had failed when it began.
    @ivar result: what the device has returned, if that is pending.
    """

    def __init__(self, kind: str, number: int, cells: range, excused: bool) -> None:
        self.kind, self.number, self.cells, self.excused = kind, number, cells, excused
        self.allowed: dict[int, set[int]] = {}
        self.floor: list[int] = []
        self.result: Any = None
        self.misses = 0

    def __repr__(self) -> str:
        return f"<{self.kind} {self.number} of {self.cells}>"


class Cells:
    """
    What each cell may hold.

    @ivar live: what a read may find.
    @ivar durable: what a loss of power may leave.
    @ivar requests: those that are under way, in the order in which they came.
    """

    def __init__(self, count: int, size: int) -> None:
        """
        @param size: bytes of a cell.
        """
        self.count, self._size = count, size
        self.live: list[set[int]] = [{0} for _ in range(count)]
        self.durable: list[set[int]] = [{0} for _ in range(count)]
        self.requests: list[Request] = []
        self._acknowledged = [0] * count
        self._touched: set[int] = set()
        self._unsure: dict[int, set[int]] = {}
        """What cells of writes that failed may hold after a kill."""
        self._zeros = {0}
        self._number = 0

    # Asking

    def write(self, cells: range, zeros: bool, excused: bool) -> Request:
        """
        A write begins.

        @param zeros: it leaves zeros, whatever its number.
        """
        self._number += 1
        number = self._number
        if zeros:
            self._zeros.add(number)
        for cell in cells:
            self.live[cell].add(number)
            self.durable[cell].add(number)
        for other in self.requests:
            for cell in other.allowed.keys() & set(cells):
                other.allowed[cell].add(number)
        self._touched.update(cells)
        return self._begun(Request("write", number, cells, excused))

    def read(self, cells: range, excused: bool) -> Request:
        """A read begins."""
        request = Request("read", 0, cells, excused)
        request.allowed = {cell: set(self.live[cell]) for cell in cells}
        return self._begun(request)

    def flush(self, excused: bool) -> Request:
        """A flush begins."""
        request = Request("flush", 0, range(0), excused)
        request.floor = list(self._acknowledged)
        return self._begun(request)

    def _begun(self, request: Request) -> Request:
        self.requests.append(request)
        return request

    def content(self, request: Request) -> bytes:
        """What a write writes."""
        return request.number.to_bytes(NUMBER, "big") * (len(request.cells) * self._size // NUMBER)

    def rot(self, cell: int) -> int:
        """
        A cell holds, in one copy, what nobody wrote.

        @return: the number.
        """
        self._number += 1
        for cells in (self.live, self.durable):
            cells[cell].add(self._number)
        return self._number

    def cured(self, cell: int, number: int) -> None:
        """It does so no more."""
        for cells in (self.live, self.durable):
            cells[cell].discard(number)

    # Answers

    def answered(self, request: Request, outcome: Any) -> None:
        """
        The device has answered.

        @raise AssertionError: if that is wrong.
        """
        if request not in self.requests:
            return  # the power was lost meanwhile
        self.requests.remove(request)
        if isinstance(outcome, Failure):
            self._failed(request, outcome)
        elif request.kind == "write":
            self._unsure.clear()
            for cell in request.cells:
                self.live[cell] = {number for number in self.live[cell] if number >= request.number}
                self._acknowledged[cell] = max(self._acknowledged[cell], request.number)
        elif request.kind == "flush":
            self._unsure.clear()
            self._flushed(request.floor)
        else:
            data = bytes(outcome)
            for index, cell in enumerate(request.cells):
                self.holds(cell, data[index * self._size :][: self._size], request.allowed[cell])

    def _failed(self, request: Request, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        if not (request.excused and failure.check(DeviceError)):
            raise AssertionError(f"{request} failed: {failure.getTraceback()}")
        if request.kind == "write":
            # Copies may differ there.  If nobody could keep which is right nobody knows that after a kill,
            # even if somebody has read one of them; it is kept before anything else is acknowledged.
            for cell in request.cells:
                self._unsure.setdefault(cell, set()).update(self.live[cell])

    def _flushed(self, floors: Iterable[int]) -> None:
        for cell, floor in enumerate(floors):
            self.durable[cell] = {number for number in self.durable[cell] if number >= floor}

    def holds(self, cell: int, found: bytes, allowed: set[int] | None = None) -> None:
        """
        A cell holds something.  If nothing goes on there it stays so from now on.

        @param allowed: what it may be; by default what it may be now.
        @raise AssertionError: if it is anything else.
        """
        now = self.live[cell]
        allowed = now if allowed is None else allowed
        number = int.from_bytes(found[:NUMBER], "big")
        assert found == found[:NUMBER] * (self._size // NUMBER), f"cell {cell} is torn: {found.hex()}"
        fits = {one for one in allowed if (one in self._zeros if not number else one == number)}
        assert fits, f"cell {cell} holds {number}, allowed are {sorted(allowed)}, now {sorted(now)}"
        if allowed == now and not self.writing(cell):
            self.live[cell] = fits
            if cell not in self._touched:
                # What the power has left, and was seen, is no longer to be lost.
                self.durable[cell] = set(fits)

    def writing(self, cell: int) -> bool:
        """Whether anything is about to change a cell."""
        return any(cell in other.cells for other in self.requests if other.kind == "write")

    def excuse(self) -> None:
        """All that is under way may fail."""
        for request in self.requests:
            request.excused = True

    # The ends

    def closed(self) -> None:
        """The device was closed well: what was acknowledged is durable."""
        self._flushed(self._acknowledged)

    def killed(self) -> None:
        """Whoever served has died; the power has stayed."""
        self.requests.clear()
        for cell, numbers in self._unsure.items():
            self.live[cell] |= numbers
        self._unsure.clear()

    def lost(self) -> None:
        """The power was lost."""
        self.requests.clear()
        self.live = [set(cell) for cell in self.durable]
        self._unsure.clear()
        self._acknowledged = [0] * self.count
        self._touched.clear()
