"""
Disks for tests of mirrors: what is on them outlives the device, and a loss of power takes what was not
flushed.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, ClassVar

from twisted.internet.defer import CancelledError, Deferred

from iscsi_twisted.errors import NotReady, ReadError, WriteError
from iscsi_twisted.interfaces import Buffer, Capabilities
from iscsi_twisted.storage import BlockDevice
from iscsi_twisted.storage.records import Records

SECTOR = 64
"""Bytes that these disks write wholly or not at all."""


class MemoryStore:
    """
    Keeps records in memory.

    @ivar kept: the records, by name.
    @ivar waits: saving is pending until C{fire} is called.
    @ivar error: raised by saving if it is not None.
    @ivar saves: how often something was saved.
    """

    def __init__(self, waits: bool = False) -> None:
        self.kept: dict[str, bytes] = {}
        self.serving: dict[str, Any] = {}
        self.waits = waits
        self.error: OSError | None = None
        self.saves = 0
        self.pending: list[tuple[str, bytes, Deferred[None]]] = []

    def records(self) -> Records:
        """What was saved."""
        return Records(self.kept.items())

    def save(self, name: str, encode: Callable[[], bytes]) -> Deferred[None] | None:
        """Save at once, or when it is fired."""
        if self.error is not None:
            raise self.error
        self.saves += 1
        data = encode()
        if not self.waits:
            self.kept[name] = data
            return None
        if any(one == name for one, _, _ in self.pending):
            raise AssertionError(f"record {name} is saved twice at the same time")
        done: Deferred[None] = Deferred()
        self.pending.append((name, data, done))
        return done

    def fire(self) -> None:
        """Let the first that is pending be saved."""
        name, data, done = self.pending.pop(0)
        self.kept[name] = data
        done.callback(None)

    def crash(self, random: Random) -> None:
        """What is being saved is there afterwards, or not."""
        for name, data, _ in self.pending:
            if random.random() < 0.5:
                self.kept[name] = data
        self.pending.clear()
        self.serving.clear()


class Platter:
    """
    What is on a disk.

    @ivar durable: what a loss of power leaves.
    @ivar version: grows with every change.
    @ivar unreadable: sectors that cannot be read until they are written.
    @ivar view: what is there while the power is, if nobody uses it; None if that is what is durable.
    @ivar cached: what is not durable of that.
    """

    count = 0

    def __init__(self, size: int) -> None:
        Platter.count += 1
        self.name = f"platter {Platter.count}"
        self.durable = bytearray(size)
        self.version = 0
        self.unreadable: set[int] = set()
        self.witnesses: dict[str, int] = {}
        self.view: bytearray | None = None
        self.cached: list[tuple[int, bytes]] = []


class PlatterOperation(Deferred[Any]):
    """An operation that waits for the test."""

    def __init__(self, disk: PlatterDisk, name: str, offset: int, what: Any) -> None:
        super().__init__()
        self.disk, self.name, self.offset, self.what = disk, name, offset, what

    def __repr__(self) -> str:
        return f"<{self.disk} {self.name} {self.offset}>"

    def cancel(self) -> None:
        """A read can be cancelled; what changes something cannot."""
        if self.called:
            super().cancel()
        elif self.name == "read" and self in self.disk.operations:
            self.disk.operations.remove(self)
            self.errback(CancelledError())

    def fire(self) -> None:
        """Let it happen."""
        self.disk.operations.remove(self)
        try:
            result = self.disk.perform(self.name, self.offset, self.what)
        except Exception:
            self.errback()
        else:
            self.callback(result)


class PlatterDisk(BlockDevice):
    """
    A disk with a volatile cache.

    @ivar platter: what it stands on.
    @ivar broken: everything fails.
    @ivar faults: how many of the next changes fail, half done.
    @ivar doomed: a change has failed.
    @ivar waits: operations wait for the test; otherwise they happen at once.
    @ivar operations: those that wait.
    @ivar unreadable: sectors that cannot be read until they are written.
    @ivar restarts: how often what it stands on was started anew.
    @ivar replays: it writes again then by itself what was not flushed.
    @ivar stamped: it knows how new it is.
    @cvar misses: reads of any disk that failed.
    """

    misses: ClassVar[int] = 0

    def __init__(self, platter: Platter, title: str = "disk", *, waits: bool = False) -> None:
        self.platter = platter
        self.size = len(platter.durable)
        self.title = title
        self.broken = False
        self.faults = 0
        self.doomed = False
        self.waits = waits
        self.operations: list[PlatterOperation] = []
        self.unreadable = platter.unreadable
        self.restarts = 0
        self.replays = False
        self.stamped = True
        self.history: list[tuple[str, int, int]] = []
        self.view = bytearray(platter.durable if platter.view is None else platter.view)
        self._cached: list[tuple[int, bytes]] = platter.cached
        platter.view, platter.cached = None, []
        self._open = False
        self._changed: Callable[[], None] = _ignore

    def __str__(self) -> str:
        return self.title

    def open(self, changed: Callable[[], None]) -> None:
        if self.broken:
            raise NotReady(f"{self.title} is broken")
        self._open = True
        self._changed = changed

    def close(self) -> None:
        self._open = False

    def capabilities(self) -> Capabilities:
        return Capabilities(volatileCache=True, discard=True, zero=True, discardZeroes=True)

    def fingerprint(self) -> str | None:
        return self.platter.name

    def stamp(self) -> tuple[int, ...]:
        return (self.platter.version,) if self.stamped else ()

    def witness(self, key: str) -> int:
        return self.platter.witnesses.get(key, 0)

    def keepWitness(self, key: str, number: int) -> None:
        self.platter.witnesses[key] = number

    def read(self, offset: int, length: int) -> Any:
        return self._begin("read", offset, length, length)

    def write(self, offset: int, data: Buffer) -> Any:
        return self._begin("write", offset, bytes(data), len(data))

    def flush(self) -> Any:
        return self._begin("flush", 0, None, 0)

    def discard(self, offset: int, length: int) -> Any:
        return self._begin("write", offset, bytes(length), length)

    def zero(self, offset: int, length: int, unmap: bool) -> Any:
        return self._begin("write", offset, bytes(length), length)

    def _begin(self, name: str, offset: int, what: Any, length: int) -> Any:
        if not 0 <= offset <= offset + length <= self.size:
            raise AssertionError(f"{name} of {length} bytes at {offset}")
        self.history.append((name, offset, length))
        if not self.waits:
            return self.perform(name, offset, what)
        operation = PlatterOperation(self, name, offset, what)
        self.operations.append(operation)
        return operation

    def perform(self, name: str, offset: int, what: Any) -> Any:
        """Do an operation."""
        if self.broken or not self._open:
            self.doomed = True
            PlatterDisk.misses += name == "read"
            raise (
                NotReady(f"{self.title} is broken")
                if name == "read"
                else WriteError(f"{self.title} is broken")
            )
        if name == "read":
            if any(offset < (bad + 1) * SECTOR and bad * SECTOR < offset + what for bad in self.unreadable):
                PlatterDisk.misses += 1
                raise ReadError(f"{self.title} cannot read", offset)
            return bytes(self.view[offset : offset + what])
        torn = self.faults > 0
        self.doomed = self.doomed or torn
        self.faults -= torn
        if name == "flush":
            if torn:
                raise WriteError(f"{self.title} cannot flush")
            self.platter.durable[:] = self.view
            self._cached.clear()
            return None
        data = what[: len(what) // 2 // SECTOR * SECTOR] if torn else what
        self.view[offset : offset + len(data)] = data
        self._cached.append((offset, data))
        self.platter.version += 1
        self.unreadable -= set(range(offset // SECTOR, -(-(offset + len(data)) // SECTOR)))
        if torn:
            raise WriteError(f"{self.title} has torn a write", offset + len(data))
        return None

    def leave(self) -> None:
        """Whoever used the disk does not any more, and nothing was under way: another has it as it is."""
        self.platter.view, self.platter.cached = self.view, self._cached

    def crash(self, random: Random, power: bool = True) -> Platter:
        """
        Lose power: of what was not flushed, and of what was under way, any sectors are there.

        @param power: it is lost; else whoever used the disk was killed, and only what was under way is in
            question.
        """
        waiting = [(one.offset, one.what) for one in self.operations if one.name == "write"]
        if power:
            waiting[:0] = self._cached
        else:
            self.platter.cached = self._cached
            self.platter.view = self.view
        for offset, data in waiting:
            for start in range(0, len(data), SECTOR):
                if random.random() < 0.5:
                    part = data[start : start + SECTOR]
                    if power:
                        self.platter.durable[offset + start : offset + start + len(part)] = part
                    else:
                        self.view[offset + start : offset + start + len(part)] = part
                        self._cached.append((offset + start, part))
                    self.platter.version += 1
        self.operations.clear()
        self.broken = True
        return self.platter

    def bounce(self, random: Random) -> None:
        """
        What the disk stands on is started anew, while its users are there and ask again for what was under
        way: of what was not flushed any sectors are there, or all that are written again by itself.
        """
        if self.replays:
            self.restarts += 1
            self._changed()
            return
        self.view = bytearray(self.platter.durable)
        for offset, data in self._cached:
            for start in range(0, len(data), SECTOR):
                if random.random() < 0.5:
                    part = data[start : start + SECTOR]
                    self.view[offset + start : offset + start + len(part)] = part
        self.platter.durable[:] = self.view
        self._cached.clear()
        self.restarts += 1
        self._changed()


def _ignore() -> None:
    """Nobody wants to know."""
