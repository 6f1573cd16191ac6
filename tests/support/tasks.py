"""Commands without a transport: a task that remembers how it ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from iscsi_twisted.interfaces import Buffer, ILogicalUnit, INexus, ITask


@implementer(INexus)
class Nexus:
    """An I_T nexus that is nothing but its names."""

    def __init__(
        self,
        initiatorName: str = "iqn.2001-04.com.example:host",
        isid: bytes = b"\x80\x00\x00\x00\x00\x01",
        targetName: str = "iqn.2001-04.com.example:disk",
        portalGroupTag: int = 1,
        readOnly: bool = False,
    ) -> None:
        self.initiatorName = initiatorName
        self.isid = isid
        self.targetName = targetName
        self.portalGroupTag = portalGroupTag
        self.readOnly = readOnly
        self.luns: frozenset[int] | None = None


@implementer(ITask)
class Task:
    """
    A command.

    @param dataOut: what the initiator has to send.
    @param late: keep Data-Out back until L{arrive} is called.
    @ivar status: the status it ended with, or None while it has not ended.
    @ivar data: its Data-In.
    @ivar sense: its sense data.
    @ivar endings: how often it ended; more than once is a fault.
    @ivar released: how often the unit ended it after it was aborted: once if a device had worked for it.
    @ivar unit: what executes it.
    @ivar wanted: the length given to C{receive}, or None.
    """

    __slots__ = (
        "_then",
        "aborted",
        "cdb",
        "data",
        "dataOut",
        "endings",
        "expected",
        "flags",
        "late",
        "lun",
        "nexus",
        "operation",
        "released",
        "sense",
        "status",
        "unit",
        "wanted",
    )

    def __init__(
        self, cdb: bytes, nexus: INexus, dataOut: Buffer = b"", *, late: bool = False, lun: int = 0
    ) -> None:
        self.cdb = bytes(cdb).ljust(16, b"\0")
        self.nexus = nexus
        self.lun = lun
        self.flags = 1
        self.expected = len(dataOut)
        self.aborted = False
        self.operation: Any = None
        self.dataOut = dataOut
        self.late = late
        self.status: int | None = None
        self.data: bytes = b""
        self.sense = b""
        self.endings = 0
        self.released = 0
        self.wanted: int | None = None
        self.unit: ILogicalUnit | None = None
        self._then: Callable[[], None] | None = None

    @property
    def attribute(self) -> int:
        """The task attribute."""
        return self.flags & 7

    def complete(self, data: Buffer = b"") -> None:
        """End well."""
        if self.aborted:
            self.released += 1
        else:
            self.endings += 1
            self.status = 0
            self.data = bytes(data)

    def fail(self, status: int, sense: bytes = b"") -> None:
        """End badly."""
        if self.aborted:
            self.released += 1
        else:
            self.endings += 1
            self.status = status
            self.sense = sense

    def receive(self, length: int, then: Callable[..., None], *arguments: Any) -> bool:
        """Hand over the Data-Out, now or when it L{arrive}s."""
        if self.wanted is not None:
            raise RuntimeError("Data-Out is received at most once")
        self.wanted = length
        self._then = lambda: then(self, self.dataOut[:length], *arguments)
        if not self.late:
            self._then()
        return self.late

    def abort(self, tell: bool = False) -> None:
        """As a session does; C{unit} has to be set."""
        if tell and self.status is None:
            self.endings += 1
            self.status = 0x40
        self.aborted = True
        assert self.unit is not None
        self.unit.abort(self)

    def arrive(self, unit: ILogicalUnit) -> None:
        """The Data-Out that was kept back is there."""
        assert self._then is not None
        try:
            self._then()
        except Exception as error:
            unit.failed(self, error)

    @property
    def key(self) -> int:
        """The sense key of fixed format sense data."""
        return self.sense[2] & 0x0F

    @property
    def code(self) -> int:
        """Additional sense code and qualifier of fixed format sense data."""
        return int.from_bytes(self.sense[12:14], "big")

    @property
    def information(self) -> int | None:
        """INFORMATION of fixed format sense data, if it is valid."""
        return int.from_bytes(self.sense[3:7], "big") if self.sense[0] & 0x80 else None

    @property
    def pointer(self) -> tuple[bool, int, int | None] | None:
        """Into the CDB?, byte, bit: the field pointer of fixed format sense data, if there is one."""
        flags = self.sense[15]
        if not flags & 0x80:
            return None
        bit = flags & 7 if flags & 0x08 else None
        return bool(flags & 0x40), int.from_bytes(self.sense[16:18], "big"), bit


def run(unit: ILogicalUnit, task: Task) -> Task:
    """Execute a task as a session does: what is raised ends it."""
    task.unit = unit
    try:
        unit.execute(task)
    except Exception as error:
        unit.failed(task, error)
    return task


def abort(unit: ILogicalUnit, task: Task) -> None:
    """Abort a task as a session does."""
    task.unit = unit
    task.abort()
