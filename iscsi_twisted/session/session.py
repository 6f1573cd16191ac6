# -*- test-case-name: tests.session.test_session -*-
"""A session: its nexus, its CmdSN window, its tasks (RFC 7143 4.2.2, 4.4.3)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from iscsi_twisted.interfaces import ILogicalUnit
from iscsi_twisted.session.budget import Budget
from iscsi_twisted.session.node import Node
from iscsi_twisted.session.parameters import Parameters
from iscsi_twisted.session.target import Nexus, Target
from iscsi_twisted.wire.serial import MASK, within

if TYPE_CHECKING:
    from iscsi_twisted.session.connection import Connection
    from iscsi_twisted.session.task import Task

LUNS_CACHED: Final = 256
"""Forms of LUN fields that a session remembers; any more are decoded each time."""

IMMEDIATE_TASKS: Final = 32
"""Immediate commands are outside the window, so they have a bound of their own."""

SOLICITED: Final = 32 << 20
"""Bytes that one session may be asked for at one time for one unit: two of the largest writes."""

SOLICITED_ALL: Final = 4 * SOLICITED
"""The same for all units of a session together: three may hang, and the others are served as ever."""

EARLY: Final = 4 << 20
"""
Bytes of PDUs that one session may send before their turn.  On one connection none comes so but behind one
that was lost to its digest.
"""

WAITING: Final = -1
"""In C{Session.early}, in the place of a CmdSN: task management functions wait for commands."""

COMMANDS_CLEARED: Final = 0x477F
"""Unit attention: some commands cleared by iSCSI protocol event (RFC 7143 11.14.5)."""

Early = tuple[bytes, bytes, bytes]


class Session:
    """
    One session of a target; of a discovery session too, which has neither target nor nexus.

    The window: MaxCmdSN goes up by one as a numbered command ends, and by nothing else; so a
    session never has more than C{depth} of them, and MaxCmdSN never goes back.

    @ivar tsih: target session identifying handle.
    @ivar initiatorName: in normal form.
    @ivar user: who was authenticated; empty if nobody was.
    @ivar target: None for discovery.
    @ivar nexus: None for discovery.
    @ivar tasks: those that may still answer, by initiator task tag.
    @ivar waiting: those that may not begin yet: the connection has enough to send.
    @ivar early: PDUs that came before their turn, by CmdSN.
    @ivar earlyBytes: how long these are.
    @ivar postponed: immediate task management requests that wait for commands, each with its CmdSN.
    @ivar immediateLimit: bytes that may come with a command.
    @ivar commands: SCSI commands that came; C{errors} of them ended with another status than GOOD, and
        C{aborts} were aborted.
    @ivar immediates: immediate commands that have not ended; those too that were aborted while a device
        still works for them.
    @ivar catchingUp: PDUs that came early are being handled.
    """

    __slots__ = (
        "_home",
        "_key",
        "_shares",
        "aborts",
        "catchingUp",
        "commands",
        "connection",
        "depth",
        "early",
        "earlyBytes",
        "errors",
        "expCmdSN",
        "immediateLimit",
        "immediates",
        "initiatorName",
        "isid",
        "maxCmdSN",
        "nexus",
        "node",
        "parameters",
        "postponed",
        "solicited",
        "target",
        "tasks",
        "tsih",
        "units",
        "user",
        "waiting",
    )

    def __init__(
        self,
        node: Node,
        initiatorName: str,
        isid: bytes,
        tsih: int,
        cmdSN: int,
        parameters: Parameters,
        target: Target | None = None,
        nexus: Nexus | None = None,
        key: tuple[str, bytes, int, str] = ("", b"", 0, ""),
    ) -> None:
        """
        @param key: of a discovery session; see L{Node.discoveries}.
        """
        self.node = node
        self._home: dict[Any, Session] = target.sessions if target is not None else node.discoveries
        self._key: Any = nexus.key if nexus is not None else key
        self.initiatorName = initiatorName
        self.user = ""
        self.isid = isid
        self.tsih = tsih
        self.parameters = parameters
        self.target = target
        self.nexus = nexus
        self.depth = node.depth
        self.expCmdSN = cmdSN
        self.maxCmdSN = (cmdSN + self.depth - 1) & MASK
        self.connection: Connection | None = None
        self.tasks: dict[int, Task] = {}
        self.waiting: deque[Task] = deque()
        self.early: dict[int, Early] = {}
        self.earlyBytes = 0
        self.postponed: list[tuple[int, bytes]] = []
        self.immediates = 0
        self.commands = self.errors = self.aborts = 0
        self.catchingUp = False
        self.immediateLimit = parameters.firstBurst if parameters.immediateData else 0
        self.solicited = Budget(SOLICITED_ALL, node.solicited)
        self._shares: dict[ILogicalUnit, Budget] = {}
        self.units: dict[bytes, tuple[int, ILogicalUnit]] = {}

    @property
    def discovery(self) -> bool:
        """Whether this is a discovery session."""
        return self.target is None

    def begin(self, connection: Connection) -> None:
        """The login is complete."""
        self.connection = connection
        self.node.sessions.add(self)
        self._home[self._key] = self
        if self.target is not None and self.nexus is not None:
            for unit in self.target.servers():
                unit.nexusFound(self.nexus)

    def end(self) -> None:
        """Nothing of this session is left, but what its aborted tasks still do to their devices."""
        self.abortAll()
        self.connection = None
        self.forgetEarly()
        self.node.sessions.discard(self)
        if self._home.get(self._key) is self:
            del self._home[self._key]
        if self.target is not None and self.nexus is not None:
            for unit in self.target.servers():
                unit.nexusLost(self.nexus)

    def rejoin(self, connection: Connection, parameters: Parameters) -> None:
        """
        Another connection takes the place of the one there is (RFC 7143 6.3.4): that one is logged out,
        and its tasks end.
        """
        old, self.connection = self.connection, connection
        assert old is not None
        self.parameters = parameters
        units = {task.unit for task in self.tasks.values()}
        self.abortAll()
        self.forgetEarly()
        for unit in units:
            unit.attention(COMMANDS_CLEARED, nexus=self.nexus)
        old.abandon("the initiator reinstated the connection")

    def addressed(self, field: bytes) -> tuple[int, ILogicalUnit]:
        """The number and the unit that a LUN field names; the data path looks into C{units} first."""
        assert self.target is not None and self.nexus is not None
        found = self.target.addressed(field, self.nexus)
        if len(self.units) < LUNS_CACHED and found[1] is not self.target.absent:
            self.units[field] = found
        return found

    def share(self, unit: ILogicalUnit) -> Budget:
        """What may be solicited for one unit."""
        share = self._shares.get(unit)
        if share is None:
            share = self._shares[unit] = Budget(SOLICITED, self.solicited)
        return share

    def forgetUnits(self) -> None:
        """The target's units have changed."""
        self.units.clear()

    def expects(self, cmdSN: int) -> bool:
        """Whether a numbered command may still come (RFC 7143 4.2.2.1)."""
        return within(self.expCmdSN, cmdSN, self.maxCmdSN)

    def release(self) -> None:
        """A numbered command has ended."""
        self.maxCmdSN = (self.maxCmdSN + 1) & MASK

    def forgetEarly(self) -> None:
        """Whatever came before its turn never gets it."""
        self.early.clear()
        self.postponed.clear()
        self.earlyBytes = 0

    def abortUnit(self, lun: int, tell: bool = False) -> int:
        """
        Abort the tasks of one unit.

        @param tell: whether the initiator is sent the status TASK ABORTED.
        @return: how many there were.
        """
        tasks = [task for task in self.tasks.values() if task.lun == lun]
        for task in tasks:
            task.abort(tell)
        return len(tasks)

    def abortAll(self) -> None:
        """Abort all tasks of this session."""
        for task in list(self.tasks.values()):
            task.abort()
        self.waiting.clear()
